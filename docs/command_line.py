"""Write the reference of docs/command-line.md from the commands themselves: usage, arguments, options and defaults.

    python docs/command_line.py

It reads the functions of the commands and not what typer makes of them, which differs from release to release.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).parent))  # where the pages' own scripts are

import generated
import typer
from typer.models import ArgumentInfo, OptionInfo

from embedrouter.cli import app

PAGE = Path(__file__).with_name("command-line.md")
VALUES = {int: "N", float: "NUMBER", Path: "PATH"}
"""What stands for a value of a type, where the command says nothing."""


def main() -> None:
    """Put the reference into the page."""
    generated.write(PAGE, parts())


def parts() -> dict[str, str]:
    """Return the table of all commands, and a section for each."""
    found = sorted(commands("embedrouter", app))
    rows = [(f"[`{name}`](#{name.replace(' ', '-')})", first_line(command)) for name, command in found]
    return {
        "commands": generated.table(("command", "what it does"), rows),
        "reference": "\n\n".join(section(name, command) for name, command in found),
    }


def commands(name: str, place: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the name and the function of each command, those of groups too."""
    for command in place.registered_commands:
        assert command.callback is not None
        yield f"{name} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    for group in place.registered_groups:
        assert group.typer_instance is not None
        yield from commands(f"{name} {group.name}", group.typer_instance)


def first_line(command: Callable[..., Any]) -> str:
    """Return the first paragraph of a command's help."""
    return prose(cleandoc(command.__doc__ or "").partition("\n\n")[0])


def section(name: str, command: Callable[..., Any]) -> str:
    """Return a heading, the usage, the help, and a table of the arguments and options."""
    hints = get_type_hints(command, include_extras=True)
    words, rows = [name, "[OPTIONS]"], []
    for parameter in signature(command).parameters.values():
        kind, info = _declared(parameter, hints)
        if isinstance(info, ArgumentInfo):
            word = f"{info.metavar or parameter.name.upper()}{'...' if get_origin(kind) is list else ''}"
            words.append(word if parameter.default is Parameter.empty else f"[{word}]")
            rows.append((f"`{word}`", prose(info.help or "")))
        elif not info.hidden:
            rows.append(_option(parameter, kind, info))
    told = "\n\n".join(map(prose, cleandoc(command.__doc__ or "").split("\n\n")))
    table = generated.table(("argument or option", "meaning"), rows)
    return f"### {name}\n\n```text\n{' '.join(words)}\n```\n\n{told}\n\n{table}"


def _declared(parameter: Parameter, hints: dict[str, Any]) -> tuple[Any, ArgumentInfo | OptionInfo]:
    """Return the type of a parameter, without ``None``, and what is said about it."""
    hint = parameter.annotation if get_origin(parameter.annotation) is Annotated else hints[parameter.name]
    kind, *said = get_args(hint)
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    (info,) = (one for one in said if isinstance(one, ArgumentInfo | OptionInfo))
    return kind, info


def _option(parameter: Parameter, kind: Any, info: OptionInfo) -> tuple[str, str]:
    first = (info.default,) if isinstance(info.default, str) else ()  # typer takes the first name for the default
    names = (*first, *(info.param_decls or ())) or (f"--{parameter.name.replace('_', '-')}",)
    value, said = "", prose(info.help or "")
    if get_origin(kind) is Literal:
        said += f" One of {', '.join(f'`{choice}`' for choice in get_args(kind))}."
    elif kind is not bool:
        value = f" {info.metavar or VALUES.get(kind, 'TEXT')}"
    if parameter.default not in (Parameter.empty, None, False, True, (), " ") and info.show_default is not False:
        said += f" Default: `{parameter.default}`."
    return f"`{', '.join(names)}{value}`", said.strip()


def prose(text: str) -> str:
    """Return a help text as Markdown: options and words in quotes as code, everything else as it stands."""
    text = " ".join(text.split())
    pieces = re.split(r"(?<![\w-])(--?[a-z][\w-]*)", text)
    return "".join(
        f"`{piece}`" if number % 2 else re.sub(r"([*_<\[\]`])", r"\\\1", piece) for number, piece in enumerate(pieces)
    )


if __name__ == "__main__":
    main()
