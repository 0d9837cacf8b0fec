"""The files that the command writes; one that an earlier run has written is replaced, and no other."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ...comparison import Comparison
from ...errors import ConfigError
from .._files import new_file

STDOUT = "-"
BEGINNING = 2000
"""Characters in which a file says by what it was written."""
GENERATOR = 'content="embedrouter compare"'
FIRST_COLUMNS = "variant,models,dimensions,dtype"


def require_replaceable(path: Path | None, inputs: Sequence[str | None]) -> None:
    """Refuse a name that is taken by a file of something else, before anything is paid.

    Raises:
        ConfigError: the file exists, and no comparison has written it; or its folder does not exist.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent}. Make it, or choose another name than {path}.")
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8") as file:
            beginning = file.read(BEGINNING)
    except (OSError, UnicodeDecodeError):
        beginning = ""
    ours = GENERATOR in beginning or beginning.startswith(FIRST_COLUMNS)
    if not ours or any(given and Path(given).expanduser() == path for given in inputs):
        raise ConfigError(f"{path} exists already, and no comparison has written it. Choose another name.")


def write_html(path: Path, found: Comparison) -> None:
    """Write the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    with new_file(path, replace=True) as part:
        part.write_text(found.to_html(), "utf-8")


def write_csv(path: str, found: Comparison) -> None:
    """Write a row for each variant.

    Raises:
        ConfigError: the file cannot be written.
    """
    if path == STDOUT:
        print(_csv(found), end="")
        return
    with new_file(Path(path), replace=True) as part:
        part.write_text(_csv(found), "utf-8", newline="")


def _csv(found: Comparison) -> str:
    about = {
        "collection": found.collection,
        "judged_by": found.judged_by,
        "documents": found.document_count,
        "queries": len(found.queries),
        "notes": " ".join(found.notes),
    }
    rows = [{**row, **about} for row in found.rows()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
