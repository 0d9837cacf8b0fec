"""Options that several commands share.

Every command that needs a router takes ``--model`` or ``--config``. Without either, most commands use the configuration
that ``Router.from_config`` finds, and without a configuration wordllama, which is free of charge.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from . import _completion

ModelName: TypeAlias = Annotated[
    str | None, typer.Option("--model", metavar="PROVIDER:NAME", help="A model.", autocompletion=_completion.models)
]
ConfigFile: TypeAlias = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="This embedrouter.toml; 'auto' searches for the file.")
]
CacheFolder: TypeAlias = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Another cache folder.")]
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
