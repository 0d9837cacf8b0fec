"""Where the chart's parts stand: panels, a column for each variant, and numbers and names that never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..._display import escaped
from .._findings import Measured
from .._frontier import ndcg
from ._scale import Box, first_free, shortened, side_by_side, text_width
from ._standing import QUALITY, Axis, Standing

SMALL, LABEL = 11.0, 12.0
"""Sizes of letters, in pixels; the style sheet has the same."""
LINE = 13.0
DOT = 4.5
LEFT, TOP, BOTTOM, RIGHT = 44.0, 30.0, 62.0, 10.0
INSET = 14.0
"""Pixels between the edge of a panel and its first column."""
BETWEEN = 22.0
"""Pixels between two panels."""
HEADROOM = 30.0
"""Pixels above the highest and below the lowest interval, for numbers and names."""
BRACKET = 12.0
"""The height of the brackets on the axis."""

Kind: TypeAlias = Literal["free", "priced", "unknown"]
Anchor: TypeAlias = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The size of a chart, and what it has room for. Lengths are pixels."""

    key: str
    width: float
    height: float
    gap: float
    """Between neighbouring columns, where there is room."""
    panel: float
    """The least width of a panel."""
    ticks: int
    name: float
    """The widest name; 0 for none."""


WIDE = Layout("wide", 680, 440, gap=18, panel=92, ticks=9, name=210)
NARROW = Layout("narrow", 328, 360, gap=15, panel=56, ticks=4, name=0)
LAYOUTS = (WIDE, NARROW)


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the chart's width, for variants with a price, free ones, or those of unknown price."""

    kind: Kind
    left: float
    right: float
    columns: dict[int, tuple[float, float]]
    """For the place of each variant, from left to right, where its price is and where its column stands."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name, where it is written, and which end of it is nearest to its variant."""

    text: str
    box: Box
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Placement:
    """Where all variants stand.

    Attributes:
        room: the panels' own area, without titles.
        low: the measure at the bottom.
        high: the measure at the top.
        powers: the logarithms of the dollars at the first and at the last column of the panel with prices.
        dot: the radius of a variant's mark.
    """

    panels: list[Panel]
    room: Box
    low: float
    high: float
    powers: tuple[float, float]
    dot: float

    def x(self, place: int) -> float:
        """Return where the column of a variant stands."""
        return next(panel.columns[place][1] for panel in self.panels if place in panel.columns)

    def y(self, value: float) -> float:
        """Return the height of a measure."""
        share = (value - self.low) / (self.high - self.low)
        return self.room.bottom - share * (self.room.bottom - self.room.top)

    @property
    def labels(self) -> Box:
        """The area where numbers and names may stand."""
        return Box(LEFT + 2, TOP - 8, self.room.right + RIGHT, self.room.bottom - BRACKET - 2)


def placed(variants: Sequence[Measured], axis: Axis, layout: Layout) -> Placement:
    """Give each variant a column: at its price, moved as little as neighbours need, or in a panel without prices."""
    costs = [axis.cost(item) for item in variants]
    logs = {place: float(cost.log10()) for place, cost in enumerate(costs) if cost}
    kinds: dict[Kind, list[int]] = {
        "free": [place for place, cost in enumerate(costs) if cost is not None and not cost],
        "priced": sorted(logs, key=lambda place: (logs[place], place)),
        "unknown": [place for place, cost in enumerate(costs) if cost is None],
    }
    kinds = {kind: places for kind, places in kinds.items() if places}
    gap, widths = _widths(kinds, layout)
    powers = _powers(list(logs.values()))
    panels, left = [], LEFT
    for kind, places in kinds.items():
        low, high = left + INSET, left + widths[kind] - INSET
        targets = [(low + high) / 2] * len(places)
        if kind == "priced":
            targets = [low + (logs[place] - powers[0]) / (powers[1] - powers[0]) * (high - low) for place in places]
        columns = zip(targets, side_by_side(targets, gap, low, high), strict=True)
        panels.append(Panel(kind, left, left + widths[kind], dict(zip(places, columns, strict=True))))
        left += widths[kind] + BETWEEN
    room = Box(LEFT, TOP, layout.width - RIGHT, layout.height - BOTTOM)
    bottom = min(item.quality[QUALITY].low for item in variants)
    top = max(item.quality[QUALITY].high for item in variants)
    height = room.bottom - room.top
    half = max(top - bottom, 0.02) / 2 * height / (height - 2 * HEADROOM)
    middle = (top + bottom) / 2
    return Placement(panels, room, middle - half, middle + half, powers, min(DOT, max(2.5, 0.45 * gap)))


def _widths(kinds: dict[Kind, list[int]], layout: Layout) -> tuple[float, dict[Kind, float]]:
    """Return the gap between columns, and the width of each panel. What is left is that of the panel with prices."""
    whole = layout.width - LEFT - RIGHT - BETWEEN * (len(kinds) - 1)
    gap = layout.gap
    while True:
        widths: dict[Kind, float] = {
            kind: max(layout.panel, 2 * INSET + gap * (len(places) - 1)) for kind, places in kinds.items()
        }
        left = whole - sum(widths.values())
        if left >= 0 or gap < 1:
            widths["priced" if "priced" in kinds else next(iter(kinds))] += left
            return gap, widths
        gap *= 0.95


def _powers(logs: Sequence[float]) -> tuple[float, float]:
    """Return the logarithms at the ends of the axis: at least a factor of ten apart."""
    if not logs:
        return 0.0, 1.0
    low, high = min(logs), max(logs)
    missing = max(0.0, 1 - (high - low))
    return low - missing / 2, high + missing / 2


def numbers(variants: Sequence[Measured], at: Placement) -> dict[int, Box]:
    """Place the number of each variant above or below its interval; where there is no room, leave it out."""
    taken: dict[int, Box] = {}
    for place in (place for panel in at.panels for place in panel.columns):
        interval = variants[place].quality[QUALITY]
        x, half = at.x(place), text_width(str(place + 1), SMALL) / 2 + 1
        above, below = at.y(interval.high) - 4, at.y(interval.low) + 4
        tops = [top for level in range(8) for top in (above - LINE * (level + 1), below + LINE * level)]
        box = first_free((Box(x - half, top, x + half, top + LINE) for top in tops), taken.values(), at.labels)
        if box is not None:
            taken[place] = box
    return taken


def names(
    variants: Sequence[Measured], standing: Sequence[Standing], at: Placement, boxes: dict[int, Box], layout: Layout
) -> dict[int, Name]:
    """Place names where there is room: first, and if need be shortened, of the variants on the frontier.

    Args:
        boxes: the numbers, by the place of their variant.
    """
    found: dict[int, Name] = {}
    taken = list(boxes.values())
    for place, item in enumerate(variants):
        interval, x = item.quality[QUALITY], at.x(place)
        taken.append(Box(x - 5, at.y(interval.high), x + 5, at.y(interval.low)))
    for place in sorted(range(len(variants)), key=lambda place: (standing[place] != "frontier", place)):
        if standing[place] == "dominated" or not layout.name:
            continue
        widths = (layout.name, layout.name / 1.4, layout.name / 2) if standing[place] == "frontier" else (layout.name,)
        for width in widths:
            text = shortened(escaped(variants[place].variant.label), LABEL, width)
            spots = _spots(at.x(place), at.y(ndcg(variants[place])), boxes.get(place), text_width(text, LABEL))
            box = first_free((box for box, _ in spots), taken, at.labels)
            if box is not None:
                taken.append(box)
                found[place] = Name(text, box, next(anchor for spot, anchor in spots if spot == box))
                break
    return found


def _spots(x: float, y: float, number: Box | None, width: float) -> list[tuple[Box, Anchor]]:
    """Return places for a name: beside and above the number of its variant, and beside its mark."""
    tops = [y - LINE - 3, y + 3]
    if number is not None:
        tops.insert(0, number.top)
    spots: list[tuple[Box, Anchor]] = []
    for top in tops:
        spots.append((Box(x + 9, top, x + 9 + width, top + LINE), "start"))
        spots.append((Box(x - 9 - width, top, x - 9, top + LINE), "end"))
    if number is not None:
        top = number.top - LINE
        spots.insert(2, (Box(x - width / 2, top, x + width / 2, top + LINE), "middle"))
    return spots
