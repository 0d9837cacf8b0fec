"""The chart of money and quality: a column for each variant, with its interval, and the frontier drawn through them.

A column stands at its price on a logarithmic axis. Variants of one price stand side by side, over one bracket. What is
free has no logarithm, and what has no known price no place on the axis: each stands in a panel of its own.
"""

from __future__ import annotations

import math

from ..._display import escaped
from .._findings import Findings, Measured
from .._frontier import ndcg
from ._figures import between, money, score
from ._markup import Markup, element
from ._placement import (
    BRACKET,
    DOT,
    INSET,
    LEFT,
    SMALL,
    TOP,
    Anchor,
    Layout,
    Name,
    Panel,
    Placement,
    names,
    numbers,
    placed,
)
from ._scale import Box, log_ticks, round_steps, text_width
from ._standing import QUALITY, REACHED, Axis, Standing, frontier, standings


def chart(findings: Findings, axis: Axis, layout: Layout) -> Markup:
    """Return the chart as SVG. Variants are numbered from 1, as in the tables."""
    variants = findings.variants
    standing = standings(findings, axis)
    at = placed(variants, axis, layout)
    boxes = numbers(variants, at)
    named = names(variants, standing, at, boxes, layout)
    key = f"{axis.key}-{layout.key}"
    return element(
        "svg",
        element("title", f"{REACHED[findings.judged_by]} by {axis.title}", id=f"title-{key}"),
        element("desc", _description(findings, axis), id=f"desc-{key}"),
        _measure(at, f"{REACHED[findings.judged_by]}, with 95 % interval"),
        [_foot(panel, at, axis, layout) for panel in at.panels],
        _frontier_line(findings, axis, at),
        [_column(place, item, axis, standing[place], at) for place, item in enumerate(variants)],
        [_number(place, box, standing[place]) for place, box in boxes.items()],
        [_name(name, standing[place]) for place, name in named.items()],
        class_=f"chart {layout.key}",
        viewBox=f"0 0 {layout.width:g} {layout.height:g}",
        width=layout.width,
        height=layout.height,
        role="img",
        aria_labelledby=f"title-{key} desc-{key}",
    )


def glyph(standing: Standing, x: float, y: float, radius: float = DOT) -> Markup:
    """Return the mark of a variant: a disc, a ring, or a cross."""
    if standing == "dominated":
        arm = radius - 1
        path = f"M{x - arm:.1f} {y - arm:.1f}l{2 * arm:g} {2 * arm:g}m0 {-2 * arm:g}l{-2 * arm:g} {2 * arm:g}"
        return element("path", class_="mark", d=path)
    return element("circle", class_="mark", cx=_at(x), cy=_at(y), r=radius)


def key_glyph(standing: Standing) -> Markup:
    """Return the mark of a variant as a picture of its own."""
    return element(
        "svg",
        glyph(standing, 7, 7),
        class_="glyph",
        viewBox="0 0 14 14",
        width=14,
        height=14,
        aria_hidden="true",
    )


def _measure(at: Placement, title: str) -> list[Markup]:
    """Draw the vertical axis, and its lines through all panels."""
    parts = [_text(LEFT - 38, TOP - 14, title, "heading", "start")]
    steps = round_steps(at.low, at.high, 9)
    decimals = max(2, -math.floor(math.log10(steps[1] - steps[0]) + 1e-9))
    for value in steps:
        if not -1e-9 <= value <= 1 + 1e-9:
            continue
        y = _at(at.y(value))
        parts += [
            element("line", class_="grid", x1=_at(panel.left), x2=_at(panel.right), y1=y, y2=y) for panel in at.panels
        ]
        parts.append(_text(LEFT - 6, at.y(value) + 4, f"{value:.{decimals}f}", "tick", "end"))
    return parts


def _foot(panel: Panel, at: Placement, axis: Axis, layout: Layout) -> list[Markup]:
    """Draw the axis below a panel."""
    y, middle = at.room.bottom, (panel.left + panel.right) / 2
    parts = [element("line", class_="axis", x1=_at(panel.left), x2=_at(panel.right), y1=_at(y), y2=_at(y))]
    if panel.kind != "priced":
        words = ("free",) if panel.kind == "free" else ("price", "unknown")
        return parts + [_text(middle, y + 18 + 13 * line, word, "tick", "middle") for line, word in enumerate(words)]
    low, high = panel.left + INSET, panel.right - INSET
    first, last = at.powers
    end = -math.inf
    for factor, power in log_ticks(first, last, layout.ticks):
        x = low + (math.log10(factor) + power - first) / (last - first) * (high - low)
        label = _dollars(factor, power)
        half = text_width(label, SMALL) / 2
        parts.append(element("line", class_="axis", x1=_at(x), x2=_at(x), y1=_at(y), y2=_at(y + 5)))
        if x - half > end + 4:
            parts.append(_text(x, y + 18, label, "tick", "middle"))
            end = x + half
    title = f"{axis.title}, logarithmic" if layout.name else f"{axis.title} (log)"
    half = text_width(title, SMALL) / 2
    within = min(max(middle, half + 2), layout.width - half - 2)
    return [*parts, _brackets(panel, y), _text(within, y + 52, title, "heading", "middle")]


def _brackets(panel: Panel, y: float) -> Markup:
    """Draw a bracket below the columns of each price, and a line from it to the price on the axis."""
    groups: dict[float, list[float]] = {}
    for price, column in panel.columns.values():
        groups.setdefault(price, []).append(column)
    top = _at(y - BRACKET)
    lines = []
    for price, columns in groups.items():
        first, last = columns[0], columns[-1]
        lines.append(f"M{price:.1f} {y:.1f}L{(first + last) / 2:.1f} {top}M{first:.1f} {top}H{last:.1f}")
    return element("path", class_="bracket", d="".join(lines))


def _dollars(factor: int, power: int) -> str:
    if not -5 <= power < 7:
        return f"${factor}e{power}"
    return f"${factor * 10**power:,}" if power >= 0 else f"${factor * 10.0**power:.{max(2, -power)}f}"


def _frontier_line(findings: Findings, axis: Axis, at: Placement) -> Markup | None:
    """Draw the best measure for each amount of money: to the right from each variant on the frontier, then up."""
    variants, places = findings.variants, frontier(findings, axis)
    if not places:
        return None
    corners = [(at.x(place), at.y(ndcg(variants[place]))) for place in places]
    steps = [f"H{x:.1f}V{y:.1f}" for x, y in corners[1:]]
    end = max(panel.right for panel in at.panels if panel.kind != "unknown")
    return element(
        "path", class_="frontier-line", d=f"M{corners[0][0]:.1f} {corners[0][1]:.1f}{''.join(steps)}H{end:.1f}"
    )


def _column(place: int, item: Measured, axis: Axis, standing: Standing, at: Placement) -> Markup:
    interval = item.quality[QUALITY]
    x, low, high = at.x(place), at.y(interval.low), at.y(interval.high)
    whisker = "".join(f"M{x - 3:.1f} {end:.1f}h6" for end in (low, high)) + f"M{x:.1f} {low:.1f}V{high:.1f}"
    cost = axis.cost(item)
    price = "price unknown" if cost is None else f"{money(cost)} for {axis.short}"
    told = f"{place + 1}  {escaped(item.variant.label)}: {score(interval.mean)} ({between(interval)}), {price}"
    mark = glyph(standing, x, at.y(interval.mean), at.dot)
    return element("g", element("title", told), element("path", class_="whisker", d=whisker), mark, class_=standing)


def _number(place: int, box: Box, standing: Standing) -> Markup:
    return _text((box.left + box.right) / 2, box.bottom - 3, str(place + 1), f"number {standing}", "middle")


def _name(name: Name, standing: Standing) -> Markup:
    box = name.box
    x = {"start": box.left, "middle": (box.left + box.right) / 2, "end": box.right}[name.anchor]
    return _text(x, box.bottom - 3, name.text, f"name {standing}", name.anchor)


def _description(findings: Findings, axis: Axis) -> str:
    on = [findings.variants[place] for place in frontier(findings, axis)]
    steps = "; ".join(f"{escaped(item.variant.label)}, {score(ndcg(item))}, {money(axis.cost(item))}" for item in on)
    return f"Each variant's {QUALITY} over its price. On the frontier, the cheapest first: {steps or 'none'}."


def _text(x: float, y: float, text: str, kind: str, anchor: Anchor) -> Markup:
    return element("text", text, x=_at(x), y=_at(y), class_=kind, text_anchor=anchor)


def _at(value: float) -> str:
    return f"{value:.1f}"
