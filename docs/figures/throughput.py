"""Cold and warm documents beside other libraries, from the table of the benchmarks.

    python -m docs.figures.throughput                      # draw from throughput.json
    python -m docs.figures.throughput measure RESULTS      # take the rows out of a run first

RESULTS is the file that a run of the benchmarks writes (``EMBEDROUTER_BENCH_JSON``). What others reach is our figure,
divided by how many times as fast ours is in the median of rounds that took turns, as the benchmarks' table has it.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from . import style

WORKS = {
    "Cold documents at 200 ms": "Nothing cached, an answer takes 200 ms",
    "Warm documents, lists out": "Everything cached, lists of floats out",
}
UNIT = "texts/s"
LINE, GAP, THICK, LONGEST = 22, 8, 13, 290


def measure(results: Path) -> dict[str, Any]:
    """Return the rows of a run that the figure shows."""
    run = json.loads(results.read_text(encoding="utf-8"))
    works = {}
    for row in run["rows"]:
        if row["work"] in WORKS and row["unit"] == UNIT:
            ours = next(figure["value"] for figure in row["figures"] if figure["role"] == "ours")
            peers = {figure["name"]: figure["ratio"] for figure in row["figures"] if figure["role"] == "peer"}
            works[row["work"]] = {
                "ours": float(f"{ours:.3g}"),
                "times": {k: float(f"{v:.2g}") for k, v in peers.items()},
            }
    return {"measured": date.today().isoformat(), "works": works}


def bars(found: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    """Return name, texts a second and our multiple of each library, the fastest first."""
    others = [(name, found["ours"] / times, times) for name, times in found["times"].items()]
    return sorted([("embedrouter", found["ours"], None), *others], key=lambda item: -item[1])


HEIGHT = 24 + 2 * (2 * LINE + GAP) + 11 * (2 * LINE + 2)


def draw(facts: dict[str, Any], figure: Figure, theme: style.Theme) -> None:
    """Draw a bar for each library, both works one below the other."""
    axes, y = style.canvas(figure), 14.0
    for work, heading in WORKS.items():
        style.heading(axes, theme, y, heading)
        style.note(axes, theme, y + LINE, "texts a second; in brackets how many times as fast embedrouter is")
        y += 2 * LINE + GAP
        rows = bars(facts["works"][work])
        for name, rate, times in rows:
            end = style.LEFT + max(LONGEST * rate / rows[0][1], 2)
            colour = theme.good if times is None else theme.other
            axes.text(
                style.LEFT, y, name, color=theme.ink, va="center", fontweight="bold" if times is None else "normal"
            )
            axes.barh(y + LINE - 2, end - style.LEFT, left=style.LEFT, height=THICK, color=colour, linewidth=0)
            shown = f"{float(f'{rate:.2g}' if times else rate):,.0f}" + (f"  ({times:g} ×)" if times else "")
            axes.text(end + 6, y + LINE - 2, shown, color=theme.ink, va="center")
            y += 2 * LINE + 2
        y += GAP


def description(facts: dict[str, Any]) -> str:
    """Return the figures in words."""
    return " ".join(
        f"{heading}, texts a second: "
        + "; ".join(f"{name} {rate:,.0f}" for name, rate, _ in bars(facts["works"][work]))
        + "."
        for work, heading in WORKS.items()
    )


PICTURE = style.Picture("throughput", "Documents a second, beside other libraries", draw, description, HEIGHT)

if __name__ == "__main__":
    PICTURE.main(measure)
