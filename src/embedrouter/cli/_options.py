"""Options that several commands share, and the configuration, cache folder and input type that the options name.

Every command that needs a router takes ``--model`` or ``--config``. Without either, the command uses the configuration
that ``Router.from_config`` finds, and without a configuration wordllama, which is free of charge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias, cast

import typer

from ..errors import ConfigError
from ..types import InputType

ModelName: TypeAlias = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="A model, such as openai:text-embedding-3-small.")
]
ConfigFile: TypeAlias = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The router of this embedrouter.toml; 'auto' searches for the file."),
]
CacheFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="A cache folder instead of the configured one.")
]
NoCache: TypeAlias = Annotated[bool, typer.Option("--no-cache", help="Compute all vectors again and store none.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Source: TypeAlias = Annotated[
    str, typer.Argument(metavar="PATH|-", help="A file, a folder of text and .jsonl files, or - (stdin).")
]
FieldName: TypeAlias = Annotated[
    str | None, typer.Option("--field", metavar="NAME", help="The field of JSON lines; text.")
]
InputTypeName: TypeAlias = Annotated[
    str, typer.Option("--input-type", metavar="document|query", help="The purpose of the texts.")
]
ChunkSize: TypeAlias = Annotated[
    int | None, typer.Option("--chunk-size", metavar="N", min=1, help="The number of texts in memory at once.")
]


def exclusive(**given: object) -> None:
    """Refuse options that exclude each other.

    Raises:
        BadParameter: more than one option was given.
    """
    if sum(value not in (None, False) for value in given.values()) > 1:
        names = (f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{' and '.join(names)} exclude each other.")


def parse_input_type(name: str) -> InputType:
    """Return the input type of texts.

    Raises:
        BadParameter: the name is neither ``document`` nor ``query``.
    """
    if name not in ("document", "query"):
        raise typer.BadParameter(f"--input-type is document or query, not {name!r}.")
    return cast(InputType, name)


def find_config(config: str | None) -> str | None:
    """Return the named configuration, ``"auto"`` where a search finds one, or ``None``.

    Raises:
        ConfigError: the search finds a file that cannot be read.
    """
    from ..config import load

    if config is not None:
        return config
    try:
        load()
    except ConfigError as error:
        if error.__cause__ is not None:  # a file exists and is broken
            raise
        return None
    return "auto"


def cache_folder(cache: Path | None, config: str | None) -> Path:
    """Return the cache folder that the options name, without opening the folder.

    Raises:
        ConfigError: the configuration has no cache, or several.
    """
    from ..cache import default_folder
    from ..config import load

    if cache is not None:
        return cache.expanduser().absolute()
    chosen = find_config(config)
    if chosen is None:
        return default_folder()
    loaded = load(None if chosen == "auto" else chosen)
    folders = {settings.get("cache", default_folder()) for settings in loaded.routers().values()} - {None}
    if len(folders) != 1:
        found = f"several caches: {', '.join(sorted(map(str, folders)))}" if folders else "no cache"
        raise ConfigError(f"{loaded.path} has {found}. Name the folder: --cache DIR.")
    return Path(folders.pop()).expanduser().absolute()
