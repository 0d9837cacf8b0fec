"""Positions in a chart: columns that stand side by side, ticks at round numbers, free places for labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import combining, east_asian_width

WIDE_LETTERS = frozenset("mwMW@%…")
LONGEST = 100
"""Letters of a label."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. Units are pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


def first_free(candidates: Iterable[Box], taken: Iterable[Box], room: Box) -> Box | None:
    """Return the first candidate inside ``room`` that overlaps nothing."""
    occupied = list(taken)
    for box in candidates:
        if box.within(room) and not any(map(box.overlaps, occupied)):
            return box
    return None


def side_by_side(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions, given in ascending order, as little as possible, so that neighbours are ``gap`` apart.

    The sum of the squared moves is least. All stay between ``low`` and ``high``; where that is too narrow for them, the
    gap is smaller.
    """
    count = len(wanted)
    if count < 2:
        return [min(max(value, low), high) for value in wanted]
    gap = min(gap, (high - low) / (count - 1))
    blocks: list[list[float]] = []  # the mean and the size of positions that touch
    for number, value in enumerate(wanted):
        blocks.append([value - number * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (one, many), (other, more) = blocks[-2:]
            blocks[-2:] = [[(one * many + other * more) / (many + more), many + more]]
    starts = [start for start, size in blocks for _ in range(int(size))]
    return [min(max(start, low), high - (count - 1) * gap) + number * gap for number, start in enumerate(starts)]


def round_steps(low: float, high: float, most: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between two numbers, ``most`` at most."""
    width = high - low
    power = 10.0 ** math.floor(math.log10(width / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if width / (power * factor) <= most - 1)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[tuple[int, int]]:
    """Return round numbers between two powers of ten, each as a factor and a power: 1, 10, 100 or 1, 2, 5, 10.

    Args:
        low: the logarithm of the least.
        high: the logarithm of the greatest, greater than ``low``.
    """
    for factors in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [(factor, power) for power in powers for factor in factors]
        found = [(factor, power) for factor, power in found if low - 1e-9 <= math.log10(factor) + power <= high + 1e-9]
        if len(found) <= most:
            return found
    step = math.ceil(len(found) / most)
    return found[::step]


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is, in a sans-serif font; rather more than less."""
    return size * sum(map(_width, text))


def shortened(text: str, size: float, width: float) -> str:
    """Return a text, with its middle replaced by an ellipsis where it is wider than ``width``."""
    if len(text) <= LONGEST and text_width(text, size) <= width:
        return text
    for kept in range(min(LONGEST, len(text) - 1), 1, -1):
        cut = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        if text_width(cut, size) <= width:
            return cut
    return "…"


def _width(letter: str) -> float:
    if combining(letter):
        return 0.0
    if east_asian_width(letter) in "WF" or ord(letter) > 0xFFFF:
        return 1.4
    if letter in WIDE_LETTERS:
        return 1.0
    return 0.78 if letter.isupper() or not letter.isascii() else 0.66
