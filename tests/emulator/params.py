"""What OpenAI's newer endpoints say about a wrong parameter, and how they cut a list into pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from tests.emulator.openai import OpenAI

_SHORTEST, _LONGEST = 3600, 30 * 24 * 3600
_TYPES = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object"}


class Listed(Protocol):
    """A row of a list that clients page through."""

    @property
    def id(self) -> str: ...

    def shown(self) -> dict[str, Any]: ...


def missing(maker: OpenAI, name: str) -> NoReturn:
    maker.refuse(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)


def unsupported(maker: OpenAI, name: str, value: object, supported: Collection[str]) -> NoReturn:
    listed = ", ".join(f"'{item}'" for item in supported)
    message = f"Invalid value: '{value}'. Supported values are: {listed}."
    maker.refuse(400, message, code="invalid_value", param=name)


def wrong_type(maker: OpenAI, name: str, value: object, expected: str) -> NoReturn:
    got = _TYPES.get(type(value), "null")
    message = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    maker.refuse(400, message, code="invalid_type", param=name)


def known(maker: OpenAI, given: Collection[str], names: Collection[str]) -> None:
    """Refuse a parameter that is not among `names`."""
    for name in given:
        if name not in names:
            maker.refuse(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def expiry(maker: OpenAI, name: str, anchor: object, seconds: object) -> int:
    """Return how long a file is to be kept, from an expiration policy."""
    if anchor != "created_at":
        unsupported(maker, f"{name}.anchor", anchor, ("created_at",))
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        wrong_type(maker, f"{name}.seconds", seconds, "an integer")
    _within(maker, f"{name}.seconds", seconds, _SHORTEST, _LONGEST)
    return seconds


def metadata(maker: OpenAI, value: object) -> dict[str, str] | None:
    """Return the labels: at most 16, keys of 64 characters, values of 512."""
    if value is None:
        return None
    if not isinstance(value, dict):
        wrong_type(maker, "metadata", value, "an object")
    if len(value) > 16:
        message = (
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an "
            f"object with {len(value)} properties instead."
        )
        maker.refuse(400, message, code="object_above_max_properties", param="metadata")
    for key, text in value.items():
        if not isinstance(text, str):
            wrong_type(maker, f"metadata.{key}", text, "a string")
        for what, part, limit in (("metadata", key, 64), (f"metadata.{key}", text, 512)):
            if len(part) > limit:
                message = (
                    f"Invalid '{what}': string too long. Expected a string with maximum length {limit}, but got a "
                    f"string with length {len(part)} instead."
                )
                maker.refuse(400, message, code="string_above_max_length", param=what)
    return value


def page(maker: OpenAI, query: Mapping[str, str], rows: Sequence[Listed], *, usual: int, most: int) -> dict[str, Any]:
    """Return the rows after the one that `after` names, `limit` of them."""
    limit = query.get("limit", str(usual))
    if not limit.isdecimal():
        wrong_type(maker, "limit", limit, "an integer")
    _within(maker, "limit", int(limit), 1, most)
    start = 0
    if "after" in query:
        places = [place for place, row in enumerate(rows) if row.id == query["after"]]
        if not places:
            maker.refuse(400, f"Invalid value: '{query['after']}'.", code="invalid_value", param="after")
        start = places[0] + 1
    shown = [row.shown() for row in rows[start : start + int(limit)]]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + len(shown) < len(rows),
    }


def _within(maker: OpenAI, name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        below = value < least
        bound, sign = ("below minimum", f">= {least}") if below else ("above maximum", f"<= {most}")
        message = f"Invalid '{name}': integer {bound} value. Expected a value {sign}, but got {value} instead."
        maker.refuse(400, message, code="integer_below_min_value" if below else "integer_above_max_value", param=name)
