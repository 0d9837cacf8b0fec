"""Options that several commands share, and the configuration and cache folder that the options name.

Every command that needs a router takes ``--model`` or ``--config``. Without either, the command uses the configuration
that ``Router.from_config`` finds, and without a configuration wordllama, which is free of charge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..cache import default_folder
from ..config import Config, load
from ..errors import ConfigError

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


def exclusive(**given: object) -> None:
    """Refuse options that exclude each other.

    Raises:
        BadParameter: more than one option was given.
    """
    if sum(value not in (None, False) for value in given.values()) > 1:
        names = (f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{' and '.join(names)} exclude each other.")


def named_config(config: str | None) -> Config | None:
    """Read the configuration that ``--config`` names; ``auto`` searches for the file."""
    return None if config is None else load(None if config == "auto" else config)


def find_config(config: str | None) -> Config | None:
    """Read the named configuration, or the one that a search finds, if any.

    Raises:
        ConfigError: the search finds a file that cannot be read.
    """
    try:
        return named_config(config or "auto")
    except ConfigError as error:
        if config is not None or error.__cause__ is not None:  # a file is named, or exists and is broken
            raise
        return None


def cache_folder(cache: Path | None, config: str | None) -> Path:
    """Return the cache folder that the options name, without opening the folder.

    Raises:
        BadParameter: both options were given.
        ConfigError: the configuration has no cache, or several.
    """
    exclusive(cache=cache, config=config)
    if cache is not None:
        return cache.expanduser().absolute()
    loaded = find_config(config)
    if loaded is None:
        return default_folder()
    folders = {settings.get("cache", default_folder()) for settings in loaded.routers().values()} - {None}
    if len(folders) != 1:
        found = f"several caches: {', '.join(sorted(map(str, folders)))}" if folders else "no cache"
        raise ConfigError(f"{loaded.path} has {found}. Name the folder: --cache DIR.")
    return Path(folders.pop()).expanduser().absolute()
