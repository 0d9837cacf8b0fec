"""Every block of README.md and of the pages in docs/ is executed, in order, in the surroundings of `doc_environment`.

| block | what happens |
|---|---|
| `python` | it runs as a program of its own; with `<!-- continues -->` above it, with the names of the one before |
| `text` with `<!-- prints -->` above it | the program before it printed this; `…` stands for anything |
| any with `<!-- file: NAME -->` above it | it is written to the working directory before anything runs |
| `console` | each `$ embedrouter …` runs and must succeed; lines under it are its output, `…` stands for anything |
| `console` with `<!-- quick start -->` above it | its commands are those that .ci/run gives |

The other commands of a console (`pip`, `python -m venv`, `git` …) are read, not run: the extras they name must exist. A
block in another language is an error unless it is listed in `NOT_RUN`, so that nothing in the file goes unexecuted by
mistake. `wrong_with` returns the first fault with its line; the tests at the end show that it finds each kind of fault.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doc_environment import ROOT, execute, surroundings
from tests.emulator import Emulator

README = ROOT / "README.md"
CI = ROOT / ".ci" / "run"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

NOT_RUN = {"text", "mermaid"}
ONLY_READ = ("pip", "python", "python3", "git", "cd", "source", ".", "export")
"""Commands of a console that are not run: they would install things, or need the network."""

CommandLine = Callable[[Sequence[str]], tuple[int, str]]
"""Runs `embedrouter` with arguments; returns the exit code and what was printed."""


class Wrong(Exception):
    """Something in the document is wrong; the message says where and what."""


# Reading


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    line: int
    """Of the fence; the content begins on the next one."""
    language: str
    content: str
    comment: str
    """The HTML comment above it."""

    @property
    def file(self) -> str | None:
        """The name to write the block under, if it is a file."""
        return self.comment.removeprefix("file:").strip() if self.comment.startswith("file:") else None


def blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a document, with the comment above each."""
    found: list[Block] = []
    comment = ""
    lines = enumerate(markdown.splitlines(), 1)
    for number, line in lines:
        if fence := re.fullmatch(r"( *)(```+|~~~+)\s*(\w*).*", line):
            indent, mark, language = fence.groups()
            content: list[str] = []
            for _, inner in lines:
                if inner.strip() == mark:
                    break
                content.append(inner.removeprefix(indent))
            else:
                raise Wrong(f"line {number}: the block is never closed")
            found.append(Block(number, language, "\n".join(content) + "\n", comment))
            comment = ""
        elif remark := re.fullmatch(r"\s*<!--\s*(.*?)\s*-->\s*", line):
            comment = remark[1]
        elif line.strip():
            comment = ""
    return found


# Executing


def wrong_with(markdown: str, *, command_line: CommandLine, ci: str) -> str | None:
    """Execute a document in the working directory; return what is wrong with it, or None."""
    try:
        found = blocks(markdown)
        files = [block for block in found if block.file is not None]
        for block in [*reversed(files), *files]:  # of two files of one name the first is there at the beginning
            _write(block)
        _execute(found, command_line, ci)
    except Wrong as wrong:
        return str(wrong)
    return None


def _execute(found: list[Block], command_line: CommandLine, ci: str) -> None:
    names: dict[str, Any] = {}
    printed: str | None = None
    for block in found:
        match block.language:
            case _ if block.file is not None:
                _write(block)
            case "python":
                if block.comment == "continues" and printed is None:
                    raise Wrong(f"line {block.line}: there is no program to continue")
                names, printed = _program(block, names if block.comment == "continues" else {})
            case "console":
                _console(block, command_line)
                if block.comment == "quick start":
                    _check_quick_start(block, ci)
            case "text" if block.comment == "prints":
                _compare(block.line, block.content, printed or "")
            case language if language not in NOT_RUN:
                raise Wrong(f"line {block.line}: a block of {language or 'no language'} is neither run nor in NOT_RUN")


def _write(block: Block) -> None:
    path = Path(block.file or "")
    if path.is_absolute() or ".." in path.parts:
        raise Wrong(f"line {block.line}: {path} is not in the working directory")
    if path.suffix == ".toml":
        try:
            tomllib.loads(block.content)
        except tomllib.TOMLDecodeError as error:
            raise Wrong(f"line {block.line}: {path} is not TOML: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.content, "utf-8")


def _program(block: Block, names: dict[str, Any]) -> tuple[dict[str, Any], str]:
    source = "\n" * block.line + block.content  # so that tracebacks tell the document's own lines
    try:
        ran = execute(source, "README.md", names=names)
    except (Exception, SystemExit) as error:
        at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "README.md"]
        line = at[-1] if at else getattr(error, "lineno", None) or block.line
        raise Wrong(f"line {line}: {type(error).__name__}: {error}") from error
    return ran.names, ran.printed


def _console(block: Block, command_line: CommandLine) -> None:
    for given in _commands(block):
        words = shlex.split(given.command, comments=True)
        name = Path(words[0]).name if words else ""
        if name == "embedrouter":
            code, output = command_line(words[1:])
            if code != 0:
                raise Wrong(f"line {given.line}: `{given.command}` ended with {code}:\n{output}")
            if given.shown.strip():
                _compare(given.line, given.shown, output)
        elif name in ONLY_READ or words[:1] == [".ci/run"]:
            _check_extras(given)
        else:
            raise Wrong(f"line {given.line}: `{given.command}` is not run; use embedrouter, or one of {ONLY_READ}")


@dataclass(slots=True)
class _Command:
    line: int
    command: str
    shown: str = ""
    """The output that the document shows under it."""


def _commands(block: Block) -> list[_Command]:
    """Return the commands of a console; a backslash continues one on the next line."""
    found: list[_Command] = []
    for number, row in enumerate(block.content.splitlines(), block.line + 1):
        if found and found[-1].command.endswith("\\"):
            found[-1].command = found[-1].command[:-1] + row.strip()
        elif row.startswith("$ "):
            found += [_Command(number, command) for command in row[2:].split(" && ")]
        elif found:
            found[-1].shown += row + "\n"
        elif row.strip():
            raise Wrong(f"line {number}: a console begins with a command, `$ …`")
    return found


def _compare(line: int, shown: str, printed: str) -> None:
    """Compare what the document shows with what was printed; white space may differ."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    wanted = shown.strip().replace("…", "...") + "\n"
    if not doctest.OutputChecker().check_output(wanted, printed.strip() + "\n", flags):
        raise Wrong(f"line {line}: shows\n{wanted}\nbut what is printed is\n{printed}")


def _check_extras(given: _Command) -> None:
    declared = set(PROJECT["optional-dependencies"])
    for names in re.findall(r"(?:embedrouter|\.)\[([^]]*)\]", given.command):
        if unknown := {name.strip() for name in names.split(",")} - declared:
            raise Wrong(f"line {given.line}: there is no extra {sorted(unknown)}; there are {sorted(declared)}")


def _check_quick_start(block: Block, ci: str) -> None:
    """Require that a new contributor types what the tests' own machine runs."""
    rows = [_interpreted(row) for row in ci.splitlines()]
    for given in _commands(block):
        wanted = _interpreted(given.command)
        if given.command.split()[0] not in ("git", "cd") and not any(_within(wanted, row) for row in rows):
            raise Wrong(f"line {given.line}: `{given.command}` is not among the commands of .ci/run")


def _interpreted(command: str) -> list[str]:
    """Return the words of a command, whichever Python it names: `.venv/bin/pip install x` is `-m pip install x`."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:  # a part of a longer shell construct
        return []
    if not words:
        return []
    name = Path(words[0]).name
    if name in ("pip", "pytest"):
        return ["-m", name, *words[1:]]
    if words[1:3] == ["-m", "venv"]:
        return words[1:3]  # wherever it is put
    return words[1:] if re.fullmatch(r"python[\d.]*", name) else words


def _within(wanted: list[str], row: list[str]) -> bool:
    return any(row[start : start + len(wanted)] == wanted for start in range(len(row) - len(wanted) + 1))


def embedrouter(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command line as its entry point does; what it complains of is returned if it fails."""
    module, _, function = PROJECT["scripts"]["embedrouter"].partition(":")
    main = getattr(importlib.import_module(module), function)
    printed, complaint = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complaint),
    ):
        patch.setattr(sys, "argv", ["embedrouter", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else bool(end.code)
    return code, printed.getvalue() + (complaint.getvalue() if code else "")


# The README


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Emulator]:
    with surroundings(tmp_path) as emulator:
        yield emulator


ELSEWHERE = "other-frameworks.md"
"""A page whose imports take seconds: ``test_integrations_slow.py`` executes it."""
SLOW = ("bulk.md", "compare.md", "index.md", "local-models.md")
"""Pages whose blocks start programs, compare models or load torch."""
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != ELSEWHERE]


def check_blocks(page: Path, world: Emulator) -> None:
    wrong = wrong_with(page.read_text("utf-8"), command_line=embedrouter, ci=CI.read_text("utf-8"))

    assert wrong is None, f"{page.name}, {wrong}"
    assert not world.refused


def test_every_block_of_the_readme_works(world: Emulator) -> None:
    """What a reader copies from it runs as it stands."""
    check_blocks(README, world)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW else []) for page in PAGES],
    ids=[page.name for page in PAGES],
)
def test_every_block_of_a_page_works(page: Path, world: Emulator) -> None:
    """As the README's."""
    check_blocks(page, world)


def test_the_readme_has_a_program_and_a_quick_start() -> None:
    found = blocks(README.read_text("utf-8"))

    assert any(block.language == "python" and block.file is None for block in found)
    assert sum(block.comment == "quick start" for block in found) == 1


# The reader of the README


def pretend(*calls: tuple[int, str]) -> CommandLine:
    """Return a command line that gives these answers in turn, then none."""
    answers = iter(calls)
    return lambda _: next(answers)


def read(markdown: str, *calls: tuple[int, str], ci: str = "") -> str | None:
    return wrong_with(markdown, command_line=pretend(*calls), ci=ci)


GOOD = """\
# A document

<!-- quick start -->
```console
$ git clone https://example.com/embedrouter
$ python -m venv .venv
$ .venv/bin/pip install -e '.[dev]'
```

```python
from embedrouter import Router
router = Router.from_config("embedrouter.toml")
result = router.embed(["a text"], input_type="document")
print(result.space, "made in", result.usage.requests, "request")
```
<!-- prints -->
```text
text-embedding-3-small (256 dimensions) made in … request
```

Some words between.

<!-- continues -->

```python
assert router.embed(["a text"], input_type="document").cached == (True,)
```

<!-- file: embedrouter.toml -->
```toml
dimensions = 256
[[models]]
model = "openai:text-embedding-3-small"
```

```console
$ pip install 'embedrouter[openai, langchain]'
$ embedrouter estimate \\
    folder
3 texts, … tokens
$ embedrouter stats
```
"""
CI_COMMANDS = "set -e\n\"$PYTHON\" -m venv .venv\n.venv/bin/python -m pip install -e '.[dev]' -q\n"


def test_a_good_document_has_nothing_wrong(world: Emulator) -> None:
    """The programs really run: the emulator gets the request that the file configures."""
    assert read(GOOD, (0, "3 texts, 12 tokens\n"), (0, "anything"), ci=CI_COMMANDS) is None
    assert [(request.model, request.dimensions) for request in world.received] == [("text-embedding-3-small", 256)]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("markdown", "calls", "expected"),
    [
        ("```python\nx = 1\nx / 0\n```", (), "line 3: ZeroDivisionError"),
        ("```python\nx = (\n```", (), "line 2: SyntaxError"),
        ("\n\n```python\nfrom embedrouter import Ruoter\n```", (), "line 4: ImportError"),
        ("```python\nx = 1\n```\n```python\nprint(x)\n```", (), "line 5: NameError"),
        ("<!-- continues -->\n```python\nprint(1)\n```", (), "line 2: there is no program to continue"),
        ("<!-- continues -->\nwords\n```python\nx\n```", (), "line 4: NameError"),
        ("```python\nraise SystemExit(3)\n```", (), "line 2: SystemExit: 3"),
        ("```python\nprint(1)\n```\n<!-- prints -->\n```text\n2\n```", (), "line 5: shows\n2"),
        ("<!-- prints -->\n```text\n2\n```", (), "line 2: shows\n2"),
        ("```python\nopen('embedrouter.toml')\n```", (), "line 2: FileNotFoundError"),
        ("<!-- file: embedrouter.toml -->\n```toml\nmodels = [\n```", (), "line 2: embedrouter.toml is not TOML"),
        ("<!-- file: ../x.toml -->\n```toml\n```", (), "is not in the working directory"),
        ("```toml\nx = 1\n```", (), "line 1: a block of toml"),
        ("```\nprint(1)\n```", (), "line 1: a block of no language"),
        ("```bash\npip install embedrouter\n```", (), "line 1: a block of bash"),
        ("words\n```python\nx = 1\n", (), "line 2: the block is never closed"),
        ("```console\n$ embedrouter stats\n```", ((2, "Usage: …"),), "line 2: `embedrouter stats` ended with 2"),
        ("```console\n$ embedrouter \\\n x\n\n$ embedrouter y\nz\n```", ((0, ""), (0, "x")), "line 5: shows\nz"),
        ("```console\n$ pip install 'embedrouter[openia]'\n```", (), "line 2: there is no extra ['openia']"),
        ("```console\n$ pip install -e '.[dev,x]'\n```", (), "line 2: there is no extra ['x']"),
        ("```console\n$ rm -r ~\n```", (), "line 2: `rm -r ~` is not run"),
        ("```console\nembedrouter stats\n```", (), "line 2: a console begins with a command"),
        ("<!-- quick start -->\n```console\n$ pip install -e .\n```", (), "line 3: `pip install -e .` is not among"),
    ],
)  # fmt: skip
def test_a_wrong_block_is_found(markdown: str, calls: tuple[tuple[int, str], ...], expected: str) -> None:
    """With its line, in every kind of block."""
    assert expected in str(read(markdown, *calls))


def test_programs_do_not_reach_the_network(tmp_path: Path) -> None:
    """Not even where the program itself gets over it: what needs the network would fail on some reader's machine."""
    program = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.1", 80), 1)
"""

    with pytest.raises(AssertionError, match=r"192\.0\.2\.1"), surroundings(tmp_path):
        execute(program, "a program")


@pytest.mark.usefixtures("world")
def test_the_command_line_really_runs() -> None:
    code, output = embedrouter(["--help"])
    assert (code, "Usage" in output) == (0, True)

    code, output = embedrouter(["no-such-command"])
    assert (code, "no-such-command" in output) == (2, True)
