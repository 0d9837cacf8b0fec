"""Numbers that are written as texts, as variables of the environment are."""

import re
from typing import Any

from .._display import shown
from ..errors import ConfigError

UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)


def as_number(value: Any, what: str, kind: type[int] | type[float] = int) -> Any:
    """Return a number, also of a text that is one; ``None`` as it is.

    Args:
        what: the setting, for messages.

    Raises:
        ConfigError: it is no number.
    """
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    try:
        return kind(value) if isinstance(value, str) else _refused(value, what)
    except ValueError:
        return _refused(value, what)


def as_bytes(value: Any, what: str) -> Any:
    """Return a number of bytes, also of a text such as ``"64MB"`` or ``"1 GiB"``.

    Raises:
        ConfigError: it is no such number.
    """
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        return int(float(found[1]) * UNITS[(found[2] or "").lower()])
    return as_number(value, what)


def _refused(value: object, what: str) -> Any:
    raise ConfigError(f"{what} must be a number, not {shown(value)}.")
