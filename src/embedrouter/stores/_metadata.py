"""Metadata that a store cannot hold: kept as JSON text in one more entry, and read back from there.

Every store holds texts and numbers. What it does not hold (nested values, ``None``, empty lists, times) stands in the
entry ``embedrouter:metadata`` of the row, and is put back where the row is read through this package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ..errors import InvalidInputError
from ._transfer import StoredText

REST = "embedrouter:metadata"
"""The entry with what the store cannot hold."""
TYPE, VALUE = "embedrouter:type", "value"
"""How a value that JSON lacks is written: the name of its type, and its parts."""

Holds = Callable[[str, Any], bool]
"""Whether a store holds an entry as it is, and gives it back unchanged."""

_FORMS: Mapping[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (lambda one: [one.days, one.seconds, one.microseconds], lambda parts: timedelta(*parts)),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    bytes: (bytes.hex, bytes.fromhex),
    complex: (lambda one: [one.real, one.imag], lambda parts: complex(*parts)),
    tuple: (list, tuple),
    set: (list, set),
    frozenset: (list, frozenset),
}
"""How values that JSON lacks are written, and read again."""
_READ = {kind.__name__: read for kind, (_, read) in _FORMS.items()}


def fitted(entries: Mapping[str, Any], holds: Holds) -> dict[str, Any]:
    """Return metadata as a store holds it.

    Raises:
        InvalidInputError: a value cannot be kept at all.
    """
    kept = {name: value for name, value in entries.items() if holds(name, value)}
    rest = {name: value for name, value in entries.items() if name not in kept}
    return {**kept, REST: packed(rest)} if rest else kept


def restored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as it was before ``fitted``."""
    entries = dict(metadata)
    rest = entries.get(REST)
    if isinstance(rest, str):
        try:
            entries = {**entries, **unpacked(rest)}
            del entries[REST]
        except (ValueError, TypeError, KeyError):
            pass  # an entry of another program
    return entries


def packed(value: Any) -> str:
    """Return a value as JSON text.

    Raises:
        InvalidInputError: it cannot be written.
    """
    return json.dumps(_plain(value))


def unpacked(text: str | bytes) -> Any:
    """Return the value that ``packed`` has written."""
    return json.loads(text, object_hook=_object)


def is_json(value: Any) -> bool:
    """Return whether JSON gives a value back unchanged."""
    if isinstance(value, dict):
        return all(type(name) is str and is_json(one) for name, one in value.items())
    if type(value) is list:
        return all(is_json(one) for one in value)
    if type(value) is str:
        return is_text(value)
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int)


def is_text(value: str) -> bool:
    """Return whether UTF-8 can write a text: a half of a pair of surrogates it cannot."""
    return not any("\ud800" <= sign <= "\udfff" for sign in value) if not value.isascii() else True


def unkeepable(row: StoredText) -> str | None:
    """Return why no store can keep a row; ``None`` where one can."""
    if not is_text(row.content) or not is_text(row.id):
        return "its text or id is no valid Unicode (it holds half of a surrogate pair)"
    for name, value in row.columns.items():
        if name in row.metadata and row.metadata[name] != value:
            return f"it has {name!r} both as a column and in its metadata, with two values"
    try:
        packed({**row.columns, **row.metadata})
    except InvalidInputError as error:
        return str(error)
    return None


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (str, bool, int, float):
        return value
    if kind is list:
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        if wrong := [name for name in value if type(name) is not str]:
            raise InvalidInputError(f"its metadata has the key {wrong[0]!r}, which is no text")
        return {name: _plain(one) for name, one in value.items()}
    if kind in _FORMS:
        write, _ = _FORMS[kind]
        return {TYPE: kind.__name__, VALUE: _plain(write(value))}
    raise InvalidInputError(f"its metadata has a value of the type {kind.__name__}, which no other store keeps")


def _object(found: dict[str, Any]) -> Any:
    if found.keys() == {TYPE, VALUE} and found[TYPE] in _READ:
        return _READ[found[TYPE]](found[VALUE])
    return found
