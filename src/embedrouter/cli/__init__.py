"""The command line.

``main`` is the program: it turns every error of ours into one paragraph on stderr and exit code 1 (2 is wrong usage,
130 is Ctrl-C), never a traceback. Each command is a module of this package and imports what it needs when it runs, so
that ``embedrouter --help`` loads no framework and no SDK.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from ..errors import EmbedRouterError
from . import (
    batch,
    cache,
    calibrate,
    demo,
    doctor,
    estimate,
    models,
    stats,
    warm,
)

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, keys among them
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"embedrouter {metadata.version('embedrouter')}")
        except metadata.PackageNotFoundError:
            print("embedrouter, from a source tree that is not installed")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Embed texts for RAG with the cheapest model that is good enough, and pay for each text once."""


app.command("calibrate")(calibrate.command)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)
app.command("estimate")(estimate.command)
app.command("models")(models.command)
app.command("stats")(stats.command)
app.command("warm")(warm.command)
app.add_typer(batch.app, name="batch")
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the program and exit."""
    try:
        app(prog_name="embedrouter")
    except EmbedRouterError as error:
        print(f"embedrouter: {error}", file=sys.stderr)
        sys.exit(1)
