"""HTML and SVG elements whose texts are escaped: what is not ``Markup`` is data, and ``element`` makes ``Markup``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"input", "link", "meta", "wbr"})
"""Elements of HTML that have no end tag."""

NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that HTML does not allow, or that have no glyph; line feeds and tabs stay."""


class Markup(str):
    """A piece of HTML, whose texts are escaped."""

    __slots__ = ()


Child: TypeAlias = str | Markup | Iterable["Child"] | None
Attribute: TypeAlias = str | int | float | bool | None


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element.

    Args:
        children: elements, texts, lists of both; ``None`` is nothing.
        attributes: ``True`` stands alone, ``False`` and ``None`` are left out. An underscore is a hyphen, and nothing
            at the end: ``class_="x"``, ``aria_label="y"``.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Child) -> Markup:
    """Return elements and texts as one piece of HTML."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(escape(clean(children)))
    return Markup("".join(map(joined, children)))


def clean(text: str) -> str:
    """Return a text that HTML can hold: line ends as line feeds, and what cannot be shown as U+FFFD."""
    return NOT_SHOWN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {written}"
    return f' {written}="{escape(clean(f"{value:g}" if isinstance(value, float) else str(value)))}"'
