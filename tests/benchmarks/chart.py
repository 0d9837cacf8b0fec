"""Draws the figures of one run: ours beside each peer, as bars on a logarithmic scale, in plain SVG.

    python -m tests.benchmarks.chart results.json chart.svg

Bars to the right of the line say how many times as fast ours is as that peer. Colours follow the reader's theme.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .table import RATE, WHOLE, number

LEFT, WIDTH, RIGHT = 380, 420, 70
"""Room for names, for bars, and for the figures behind them, in pixels."""
HEADING, LINE, GAP, TOP = 22, 18, 10, 44

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 14px; font-weight: 600 }
.work { font-weight: 600 }
.quiet { fill: #59636e }
.bar { fill: #0969da }
.behind { fill: #bc4c00 }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .quiet { fill: #9198a1 }
  .bar { fill: #4493f8 }
  .behind { fill: #db6d28 }
  .grid { stroke: #3d444d }
  .one { stroke: #9198a1 }
}
"""


def chart(rows: list[dict[str, Any]]) -> str:
    """Return the SVG for the rows of speed in which there is a peer."""
    speed = [row for row in rows if row["unit"] in (RATE.unit, WHOLE.unit)]
    groups = [(row, [figure for figure in row["figures"] if figure["role"] == "peer"]) for row in speed]
    groups = [(row, peers) for row, peers in groups if peers]
    exponents = [math.log10(peer["ratio"]) for _, peers in groups for peer in peers]
    lowest, highest = math.floor(min([0.0, *exponents])), math.ceil(max([1.0, *exponents]))

    def across(ratio: float) -> float:
        return LEFT + WIDTH * (math.log10(ratio) - lowest) / (highest - lowest)

    height = TOP + sum(HEADING + LINE * len(peers) + GAP for _, peers in groups)
    shapes = [_text(12, 20, "How many times as fast as each peer (logarithmic)", "title")]
    for exponent in range(lowest, highest + 1):
        at = across(10.0**exponent)
        kind = "grid" if exponent else "one"
        shapes.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{height - GAP}"/>')
        shapes.append(_text(at, TOP - 8, f"{10.0**exponent:g} ×", "quiet", "middle"))
    y = TOP
    for row, peers in groups:
        shapes.append(_text(12, y + 15, row["work"], "work"))
        y += HEADING
        for peer in peers:
            start, end = sorted((across(1.0), across(peer["ratio"])))
            kind = "bar" if peer["ratio"] >= 1 else "behind"
            place = f'x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}" height="{LINE - 6}"'
            shapes.append(_text(LEFT - 10, y + 13, peer["name"], "quiet", "end"))
            shapes.append(f'<rect class="{kind}" {place}/>')
            shapes.append(_text(end + 6, y + 13, f"{number(peer['ratio'], 2)} ×"))
            y += LINE
        y += GAP
    size = f'viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" width="{LEFT + WIDTH + RIGHT}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def main(results: str, picture: str) -> None:
    rows = json.loads(Path(results).read_text(encoding="utf-8"))["rows"]
    Path(picture).write_text(chart(rows), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
