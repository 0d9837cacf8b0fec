"""The parts of a page that a script writes: each stands between two comments, which the site does not show.

<!-- begin models -->
…
<!-- end models -->
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def filled(page: Path, parts: Mapping[str, str]) -> str:
    """Return the text of a page with these parts, each at its place.

    Raises:
        ValueError: the page has no place for a part.
    """
    text = page.read_text("utf-8")
    for name, part in parts.items():
        first, last = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, begun, rest = text.partition(first)
        _, ended, after = rest.partition(last)
        if not (begun and ended):
            raise ValueError(f"{page.name} has no place for {name}")
        text = f"{before}{first}\n{part.strip()}\n\n{last}{after}"
    return text


def write(page: Path, parts: Mapping[str, str]) -> None:
    """Put the parts into the page."""
    page.write_text(filled(page, parts), "utf-8")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "") -> str:
    """Return a table of Markdown; ``right`` has an ``r`` at the place of each column that is aligned to the right."""
    ruler = ["---:" if mark == "r" else "---" for mark in right.ljust(len(titles))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (titles, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], ruler, *cells[1:]))
