"""``embedrouter demo``: index real texts in both frameworks, ask questions, and show what it took.

The texts are the docstrings of the standard library, or a folder of the user's; the model is wordllama unless another
is asked for, so that neither a key nor the network is needed. This module is the command's face: the options, and what
Ctrl-C means.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    texts: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="A folder of text files; otherwise Python's own documentation."),
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question to ask instead of the prepared ones; can be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model instead of wordllama, such as openai:text-embedding-3-small.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="The router of this embedrouter.toml; 'auto' searches for it.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="A cache folder instead of the user's.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute everything anew and keep nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Index the first so many texts only.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending money.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures and answers as one JSON object.")] = False,
) -> None:
    """Index real texts in LangChain and LlamaIndex, ask questions, and show what was cached, computed and paid.

    Run it twice: the second run is answered from the cache.
    """
    if model and config:
        raise typer.BadParameter("--model and --config exclude each other.")
    if cache and no_cache:
        raise typer.BadParameter("--cache and --no-cache exclude each other.")
    place: str | None = None
    try:
        from . import levels, report, tour

        chosen, place = levels.choose(model, config, None if no_cache else cache or "default")
        with chosen:
            tour.run(chosen, place, texts, ask, limit, yes, report.Report(as_json=as_json))
    except KeyboardInterrupt:
        kept = f"What was embedded so far is in the cache ({place}): the next run continues from there."
        lost = "There is no cache in use: the next run starts anew."
        print(f"\nStopped. {kept if place else lost}", file=sys.stderr)
        raise typer.Exit(130) from None
