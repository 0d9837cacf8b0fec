"""Options that several commands share.

Every command that needs a router takes ``--model`` or ``--config``. Without either, most commands use the configuration
that ``Router.from_config`` finds, and without a configuration wordllama, which is free of charge.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

from ..types import InputType, OverlongPolicy
from . import _completion

ModelName: TypeAlias = Annotated[
    str | None, typer.Option("--model", metavar="PROVIDER:NAME", help="A model.", autocompletion=_completion.models)
]
ConfigFile: TypeAlias = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="This embedrouter.toml; 'auto' searches for the file.")
]
CacheFolder: TypeAlias = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Another cache folder.")]
CachePlace: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="PLACE", help="Another cache: a folder, or an address such as redis://host:6379/0."
    ),
]
CollectionName: TypeAlias = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Of several in a store.")
]
TierName: TypeAlias = Annotated[
    str | None, typer.Option(metavar="T", autocompletion=_completion.tiers, help="The tier; by default the router's.")
]
TagName: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", autocompletion=_completion.tags, help="Book the spending under this name."),
]
SplitterName: TypeAlias = Annotated[
    str | None,
    typer.Option("--split", metavar="SPLITTER", help="Split as your program: langchain:NAME, llama-index:NAME."),
]
SplitterSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--split-option", metavar="NAME=VALUE", help="A setting of the splitter; can be repeated."),
]
BatchAndWait: TypeAlias = Annotated[
    bool, typer.Option("--batch", help="Use the batch endpoint, which costs less, and wait.")
]
InputTypeName: TypeAlias = Annotated[InputType, typer.Option("--input-type", help="The purpose of the texts.")]
NoCache: TypeAlias = Annotated[bool, typer.Option("--no-cache", help="Compute all vectors again and store none.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """The options that choose a router; a command takes this class as one parameter (see ``expand_bundles``)."""

    model: ModelName = None
    config: ConfigFile = None
    cache: CachePlace = None
    on_too_long: Annotated[
        OverlongPolicy | None,
        typer.Option("--on-too-long", help="Texts over the model's limit; without it what the configuration says."),
    ] = None


def expand_bundles(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a bundle of options, a dataclass, by the options in it.

    So commands share options without repeating them: ``def command(source: TextOptions, …)`` takes ``PATH...``,
    ``--field`` and so on, and is called with one ``TextOptions``.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    bundles: dict[str, tuple[type, list[str]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        bundle = hints[name]
        if not (isinstance(bundle, type) and is_dataclass(bundle)):
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(bundle, include_extras=True)
        bundles[name] = bundle, [option.name for option in fields(bundle)]
        for option in fields(bundle):
            default = inspect.Parameter.empty if option.default is MISSING else option.default
            parameters.append(
                inspect.Parameter(
                    option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[option.name]
                )
            )

    @wraps(command)
    def expanded(**given: Any) -> None:
        made = {name: bundle(**{key: given.pop(key) for key in keys}) for name, (bundle, keys) in bundles.items()}
        command(**made, **given)

    expanded.__dict__["__signature__"] = inspect.Signature(parameters)
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded
