"""The options that say what the texts are, shared by all commands that read texts."""

from dataclasses import dataclass
from typing import Annotated

import typer

from ..._files import Format
from .._options import SplitterName, SplitterSettings

STDIN = "-"


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Paths, and how their texts are read; a command takes this class as one parameter (see ``expand_bundles``)."""

    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Files, folders, globs, or - for stdin.", show_default=False)
    ]
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="NAME", help="The field or column with the text, or a.b; text. Several are joined."
        ),
    ] = None
    join: Annotated[
        str, typer.Option("--join", metavar="TEXT", help=r"What is put between several fields; \n is a line end.")
    ] = r"\n"
    id_field: Annotated[str | None, typer.Option("--id", metavar="NAME", help="The field with the id of a text.")] = (
        None
    )
    format: Annotated[
        Format | None, typer.Option("--as", help="Read every file so, whatever its suffix: lines, one text a line.")
    ] = None
    split: SplitterName = None
    split_options: SplitterSettings = None
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these files out; can be repeated.")
    ] = None
    no_ignore: Annotated[
        bool, typer.Option("--no-ignore", help="Take hidden, ignored and secret files of folders, too.")
    ] = False
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows and texts that cannot be used, and list them.")
    ] = False
    list_only: Annotated[
        bool, typer.Option("--list", help="Show the files and texts that would be taken, and do nothing else.")
    ] = False
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", metavar="N", min=1, help="Texts in memory at once.")
    ] = None

    @property
    def piped(self) -> bool:
        """Whether texts come from stdin, so that the user cannot be asked."""
        return STDIN in self.paths
