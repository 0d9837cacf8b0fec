"""Cold and warm documents beside other libraries, from the figures of the page of benchmarks, ``docs/benchmarks.json``.

    python -m docs.figures.throughput

What others reach is our figure, divided by how many times as fast ours is in the median of rounds that took turns.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from . import style

WORKS = {
    "Cold documents at 200 ms": "Nothing cached, an answer takes 200 ms",
    "Warm documents, lists out": "Everything cached, lists of floats out",
}
UNIT = "texts/s"
RESULTS = style.FOLDER.parent / "benchmarks.json"
LINE, GAP, THICK, LONGEST = 22, 8, 13, 290


def rows(facts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows that the figure shows, by the name of the work."""
    return {row["work"]: row for row in facts if row["work"] in WORKS and row["unit"] == UNIT}


def bars(found: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    """Return name, texts a second and our multiple of each library, the fastest first."""
    others = [(name, found["ours"] / times, times) for name, times in found["others"].items()]
    return sorted([("embedrouter", found["ours"], None), *others], key=lambda item: -item[1])


HEIGHT = 24 + 2 * (2 * LINE + GAP) + 11 * (2 * LINE + 2)


def draw(facts: Any, figure: Figure, theme: style.Theme) -> None:
    """Draw a bar for each library, both works one below the other."""
    axes, y = style.canvas(figure), 14.0
    for work, heading in WORKS.items():
        style.heading(axes, theme, y, heading)
        style.note(axes, theme, y + LINE, "texts a second; in brackets how many times as fast embedrouter is")
        y += 2 * LINE + GAP
        shown = bars(rows(facts)[work])
        for name, rate, times in shown:
            end = style.LEFT + max(LONGEST * rate / shown[0][1], 2)
            colour = theme.good if times is None else theme.other
            axes.text(
                style.LEFT, y, name, color=theme.ink, va="center", fontweight="bold" if times is None else "normal"
            )
            axes.barh(y + LINE - 2, end - style.LEFT, left=style.LEFT, height=THICK, color=colour, linewidth=0)
            label = f"{float(f'{rate:.2g}' if times else rate):,.0f}" + (f"  ({times:g} ×)" if times else "")
            axes.text(end + 6, y + LINE - 2, label, color=theme.ink, va="center")
            y += 2 * LINE + 2
        y += GAP


def description(facts: Any) -> str:
    """Return the figures in words."""
    return " ".join(
        f"{heading}, texts a second: "
        + "; ".join(f"{name} {rate:,.0f}" for name, rate, _ in bars(rows(facts)[work]))
        + "."
        for work, heading in WORKS.items()
    )


PICTURE = style.Picture("throughput", "Documents a second, beside other libraries", draw, description, HEIGHT, RESULTS)

if __name__ == "__main__":
    PICTURE.main()
