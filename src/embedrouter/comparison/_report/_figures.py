"""How the report writes figures: scores, money, times, and when they are unknown."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext

from .._findings import Interval

UNKNOWN = "unknown"
DIGITS = 100
"""Of an amount, so that none is rounded by accident."""


def score(value: float) -> str:
    """Format a measure between 0 and 1."""
    return f"{value:.3f}"


def between(interval: Interval) -> str:
    """Format the bounds of an interval."""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def difference(value: float) -> str:
    """Format a difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def differences(interval: Interval) -> str:
    """Format the bounds of a difference."""
    return f"{difference(interval.low)} to {difference(interval.high)}"


def money(amount: Decimal | None) -> str:
    """Format an amount of dollars: in cents, or with two digits where it is less than one dollar."""
    if amount is None:
        return UNKNOWN
    if not amount:
        return "free"
    with localcontext(prec=DIGITS):
        decimals = max(2, 1 - amount.adjusted())
        return f"${amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,f}"


def seconds(value: float | None) -> str:
    """Format a time in milliseconds or seconds, with two or three digits."""
    if value is None:
        return UNKNOWN
    if value >= 0.9995:
        return f"{value:,.1f} s" if value < 99.95 else f"{value:,.0f} s"
    milliseconds = value * 1000
    decimals = 0 if milliseconds >= 9.95 else 1 if milliseconds >= 0.995 else 2
    return f"{milliseconds:.{decimals}f} ms"


def rate(value: float | None) -> str:
    """Format a number of documents a second."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def share(value: float) -> str:
    """Format a share as a percentage."""
    return f"{100 * value:.3g} %"
