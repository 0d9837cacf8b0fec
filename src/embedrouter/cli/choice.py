"""Which router, cache folder or ledger a command works on, and the options that say so.

Every command that needs a router takes ``--model`` or ``--config``. Without either it uses the configuration that is
found where ``Router.from_config`` looks for one, and where there is none, wordllama: it costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..errors import ConfigError

__all__ = ["AsJson", "CacheFolder", "ConfigFile", "ModelName", "Yes", "cache_folder", "configured", "exclusive"]

ModelName: TypeAlias = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="A model, such as openai:text-embedding-3-small.")
]
ConfigFile: TypeAlias = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The router of this embedrouter.toml; 'auto' searches for it."),
]
CacheFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="A cache folder instead of the configured one.")
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def exclusive(**given: object) -> None:
    """Refuse options that exclude each other.

    Raises:
        BadParameter: more than one of them was given.
    """
    if sum(value is not None for value in given.values()) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in given)} exclude each other.")


def configured(config: str | None) -> str | None:
    """Return the configuration to use: the named one, else ``"auto"`` where a search finds one, else ``None``.

    Raises:
        ConfigError: a search finds one that cannot be read.
    """
    from ..config import load

    if config is not None:
        return config
    try:
        load()
    except ConfigError as error:
        if error.__cause__ is not None:  # there is a file, and it is broken
            raise
        return None
    return "auto"


def cache_folder(cache: Path | None, config: str | None) -> Path:
    """Return the cache folder to look after; touches none.

    Raises:
        ConfigError: the configuration has no cache, or several.
    """
    from ..cache import default_folder
    from ..config import load

    if cache is not None:
        return cache.expanduser().absolute()
    chosen = configured(config)
    if chosen is None:
        return default_folder()
    loaded = load(None if chosen == "auto" else chosen)
    tables = list(loaded.tiered()[0].values()) if "routers" in loaded.content else [loaded.router()]
    folders = {table.get("cache", default_folder()) for table in tables} - {None}
    if len(folders) != 1:
        found = f"several caches: {', '.join(sorted(map(str, folders)))}" if folders else "no cache"
        raise ConfigError(f"{loaded.path} has {found}. Name the folder: --cache DIR.")
    return Path(folders.pop()).expanduser().absolute()
