"""The command line.

``main`` is the program. It prints an ``EmbedRouterError`` as one paragraph on stderr and exits with code 1 (2 is wrong
usage, 130 is Ctrl-C, 141 is a closed pipe), without a traceback. Each command is a module of this package. No module
imports a framework or an SDK before a command needs it, so that ``embedrouter --help`` answers at once.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer

from ..errors import EmbedRouterError
from . import (
    _batch,
    _cache,
    _calibrate,
    _check,
    _compare,
    _demo,
    _doctor,
    _embed,
    _estimate,
    _ledger,
    _migrate,
    _models,
    _stats,
    _warm,
)
from ._completion import completing
from ._console import Commands, complain_of, say
from ._streams import standard_streams

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # rich tracebacks print local variables, which may hold API keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            say(f"embedrouter {metadata.version('embedrouter')}")
        except metadata.PackageNotFoundError:
            say("embedrouter, from a source tree that is not installed")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Embed texts for RAG with the cheapest model that is good enough, and pay for each text once."""


app.command("calibrate")(_calibrate.command)
app.command("check")(_check.command)
app.command("compare")(_compare.command)
app.command("demo")(_demo.command)
app.command("doctor")(_doctor.command)
app.command("embed")(_embed.command)
app.command("estimate")(_estimate.command)
app.command("migrate")(_migrate.command)
app.command("models")(_models.command)
app.command("stats")(_stats.command)
app.command("warm")(_warm.command)
app.add_typer(_batch.app, name="batch", cls=Commands)
app.add_typer(_cache.app, name="cache", cls=Commands)
app.add_typer(_ledger.app, name="ledger", cls=Commands)


def main() -> None:
    """Run the program and exit."""
    with standard_streams(), completing():
        try:
            app(prog_name="embedrouter")
        except EmbedRouterError as error:
            complain_of(error)
            sys.exit(1)
