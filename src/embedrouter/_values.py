"""Values of settings: numbers that are written as texts, as variables of the environment are; and wrong types."""

import re
from numbers import Real
from typing import Any

from ._display import shown
from .errors import ConfigError

UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)


def as_number(value: Any, what: str, kind: type[int] | type[float] = int, *, needed: bool = False) -> Any:
    """Return a number, also of a text that is one; ``None`` as it is.

    Args:
        what: the setting, for messages.
        needed: whether ``None`` is refused.

    Raises:
        ConfigError: it is no number, or no whole one where that is needed.
    """
    if (value is None and not needed) or type(value) is kind:
        return value
    try:
        number = None if isinstance(value, bool) or not isinstance(value, str | Real) else kind(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        number = None
    if number is None or (isinstance(value, Real) and number != value):
        example = "60" if kind is float else "512"
        raise ConfigError(f"{what} must be a number, such as {example}, not {shown(value)}.")
    return number


def as_bytes(value: Any, what: str) -> Any:
    """Return a number of bytes, also of a text such as ``"64MB"`` or ``"1 GiB"``.

    Raises:
        ConfigError: it is no such number.
    """
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        return int(float(found[1]) * UNITS[(found[2] or "").lower()])
    if isinstance(value, str):
        raise ConfigError(f'{what} must be a number of bytes, such as 64_000_000 or "64MB", not {shown(value)}.')
    return as_number(value, what)


def require_type(value: object, kinds: Any, what: str, right: str) -> None:
    """Refuse a value of another type; ``None`` is none.

    Args:
        what: the setting, for messages.
        right: what it is, and how it is written.

    Raises:
        ConfigError: the value is of another type.
    """
    if value is not None and not isinstance(value, kinds):
        raise ConfigError(f"{what} must be {right}, not {shown(value)}.")
