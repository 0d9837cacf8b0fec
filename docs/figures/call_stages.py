"""A call as stages: each answers the texts that it can and passes the others on; the vectors meet at the end.

    python -m docs.figures.call_stages

The stages and their order are those of ``src/embedrouter/calls/_calls.py``; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from . import style


@dataclass(frozen=True)
class Stage:
    """A box: its name in the code, its heading, what it does in a line or more, and what it can answer from."""

    code: str
    heading: str
    does: tuple[str, ...]
    answers: str = ""


STAGES = (
    Stage("validate, distinct texts", "Validate", ("refuse what is no text; equal texts once",)),
    Stage("recall", "Memory", ("recent queries",), "memory"),
    Stage("micro-batch", "Micro-batch", ("small calls of one moment, together",)),
    Stage("look up", "Cache", ("vectors that are paid for",), "cache"),
    Stage("share", "Single flight", ("texts that another call is embedding",), "other call"),
    Stage("claim", "Claim", ("texts that another worker is embedding",), "other worker"),
    Stage("size", "Size", ("count tokens; refuse or split long texts",)),
    Stage("afford", "Budget", ("refuse before a request; pack requests",)),
    Stage("send", "Route", ("the tier's cheapest model, then the next",)),
    Stage("isolate", "Isolate", ("find the one text that is refused",)),
    Stage("retries", "Retries", ("as long as a retry can help",)),
    Stage("one attempt", "Attempt", (
        "wait for the rate limit, reserve money,", "request, check every vector, store, book"), "model"),
    Stage("assemble", "Assemble", ("the order of the input, one space",)),
)  # fmt: skip
LEFT, WIDE, LANE = 4, 300, 318
"""Pixels: where boxes begin, how wide they are, where the vectors go up."""
LINE, PAD, GAP, TOP = 16, 7, 10, 30


def bottoms() -> list[tuple[float, float]]:
    """Return where each box begins and ends."""
    found, y = [], float(TOP)
    for stage in STAGES:
        end = y + LINE * (1 + len(stage.does)) + 2 * PAD
        found.append((y, end))
        y = end + GAP
    return found


HEIGHT = round(bottoms()[-1][1]) + 8


def draw(_: dict[str, Any], figure: Figure, theme: style.Theme) -> None:
    """Draw the boxes, the way down, and the way of the vectors."""
    axes, boxes = style.canvas(figure), bottoms()
    axes.text(LEFT, 13, "Texts without a vector", color=theme.ink, va="center", fontweight="bold")
    axes.text(LANE, 13, "vectors from", color=theme.ink, va="center", fontweight="bold")
    middles = [(top + end) / 2 for stage, (top, end) in zip(STAGES, boxes, strict=True) if stage.answers]
    last = sum(boxes[-1]) / 2
    axes.plot([LANE, LANE, LEFT + WIDE + 4], [middles[0], last, last], color=theme.good, linewidth=1.6)
    _arrow(axes, (LANE, last), (LEFT + WIDE, last), theme.good)
    for stage, (top, end) in zip(STAGES, boxes, strict=True):
        box = FancyBboxPatch(
            (LEFT, top), WIDE, end - top, boxstyle="round,pad=0,rounding_size=5", facecolor=theme.fill,
            edgecolor=theme.good if stage.answers else theme.other, linewidth=1.4 if stage.answers else 0.8,
        )  # fmt: skip
        axes.add_patch(box)
        y = top + PAD + LINE / 2
        axes.text(LEFT + 10, y, stage.heading, color=theme.ink, va="center", fontweight="bold")
        for line in stage.does:
            y += LINE
            axes.text(LEFT + 10, y, line, color=theme.quiet, va="center", fontsize=style.SMALL)
        if stage is not STAGES[-1] and stage is not STAGES[-2]:
            _arrow(axes, (LEFT + 24, end), (LEFT + 24, end + GAP), theme.other)
        if stage.answers:
            middle = (top + end) / 2
            axes.plot([LEFT + WIDE, LANE], [middle, middle], color=theme.good, linewidth=1.6)
            axes.text(LANE + 8, middle, stage.answers, color=theme.ink, va="center", fontsize=style.SMALL)


def description(_: dict[str, Any]) -> str:
    """Return the stages in words."""
    return "Texts go down these stages: " + "; ".join(
        f"{stage.heading}: {' '.join(stage.does)}" + (f", answers from {stage.answers}" if stage.answers else "")
        for stage in STAGES
    )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0})


PICTURE = style.Picture("call-stages", "A call to the router as stages", draw, description, HEIGHT)

if __name__ == "__main__":
    PICTURE.main()
