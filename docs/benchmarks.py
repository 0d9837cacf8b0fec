"""Write the tables of docs/benchmarks.md from docs/benchmarks.json, after the rows of a new run were taken over.

    EMBEDROUTER_BENCH_JSON=run.json python -m pytest tests/benchmarks -o python_files="bench_*.py" -s
    python docs/benchmarks.py run.json

Without a file the tables are written from what is there. A row of a run replaces the row of the same work, so each row
has the day on which it was measured. A row of a benchmark that is gone has to be removed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # where the pages' own scripts are

import generated

PAGE = Path(__file__).with_suffix(".md")
FIGURES = Path(__file__).with_suffix(".json")
SECTIONS = {
    "Documents that are not cached": ("Cold documents",),
    "Many small calls at once": ("200 queries", "100 texts", "500 texts", "1000 texts"),
    "What is cached": ("Warm",),
    "One query": ("One uncached query",),
    "Reading an answer": ("Answer of",),
    "Models in this process": ("Local",),
    "Imports": ("import",),
}
"""Headings, and how the works below each begin."""


def main(given: Sequence[str]) -> None:
    """Take over the rows of the runs that are named, and put the tables into the page."""
    for path in given:
        run = json.loads(Path(path).read_text("utf-8"))
        rows = merged(read(), [taken(row, date.today()) for row in run["rows"]])
        lines = ",\n".join(f" {json.dumps(row, ensure_ascii=False)}" for row in rows)
        FIGURES.write_text(f"[\n{lines}\n]\n", "utf-8")
    generated.write(PAGE, parts())


def read() -> list[dict[str, Any]]:
    """Return the rows that are kept."""
    rows: list[dict[str, Any]] = json.loads(FIGURES.read_text("utf-8"))
    return rows


def taken(row: dict[str, Any], day: date) -> dict[str, Any]:
    """Return a row of a run as it is kept: our figure, and how many times as good it is as each other."""
    own = next(figure["value"] for figure in row["figures"] if figure["role"] == "ours")
    ratios = {
        kind: {one["name"]: float(f"{one['ratio']:.2g}") for one in row["figures"] if one["role"] in roles}
        for kind, roles in (("limits", ("limit",)), ("others", ("peer", "variant")))
    }
    return {"work": row["work"], "unit": row["unit"], "ours": float(f"{own:.3g}"), **ratios, "measured": f"{day}"}


def merged(kept: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rows; a new one takes the place of the old one that compares the same."""
    rows = {_key(row): row for row in kept}
    return list((rows | {_key(row): row for row in new}).values())


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["work"], row["unit"], *sorted(row["limits"])


def parts() -> dict[str, str]:
    """Return a table for each section."""
    rows = read()
    shown = [(heading, [row for row in rows if row["work"].startswith(begins)]) for heading, begins in SECTIONS.items()]
    if left := {row["work"] for row in rows} - {row["work"] for _, found in shown for row in found}:
        raise ValueError(f"no section has {sorted(left)}")
    return {"tables": "\n\n".join(_section(heading, found) for heading, found in shown)}


def _section(heading: str, rows: list[dict[str, Any]]) -> str:
    days = sorted({row["measured"] for row in rows})
    measured = f"Measured on {' and '.join(days)}."
    cells = [(row["work"], f"{_number(row['ours'])} {row['unit']}", "<br>".join(_ratios(row))) for row in rows]
    return f"### {heading}\n\n{generated.table(('work', 'ours', 'beside others'), cells, right=' r')}\n\n{measured}"


def _ratios(row: dict[str, Any]) -> list[str]:
    others = [f"{_number(ratio)} × {name}" for name, ratio in row["others"].items()]
    return others + [f"{_number(ratio)} of {name}" for name, ratio in row["limits"].items()]


def _number(value: float) -> str:
    return f"{value:,.10g}"


if __name__ == "__main__":
    main(sys.argv[1:])
