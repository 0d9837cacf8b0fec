"""``embedrouter cache``: the folder that holds vectors, and what is kept beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look after the cache and what is kept beside it.")


@app.callback()
def options() -> None:
    """Look after the cache and what is kept beside it."""


@app.command("forget-index")
def forget_index(
    name: Annotated[str, typer.Argument(help="The name that was given as index=.")],
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="The cache folder; otherwise the user's.")] = None,
) -> None:
    """Forget which space an index is in, after it was emptied or embedded again."""
    from ..cache import default_folder
    from ..indexes import FOLDER, forget

    space = forget((cache.expanduser() if cache else default_folder()) / FOLDER, name)
    print(f"Forgotten: the index {name!r} was in the space {space}. The next documents decide anew.")
