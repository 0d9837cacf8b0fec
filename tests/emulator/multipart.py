"""The parts of a multipart/form-data body (RFC 7578), as HTTP clients write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PARAMETER = re.compile(rb'; *(name|filename)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form; `filename` is None for a plain value."""

    content: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


def parse_form(content_type: str, body: bytes) -> dict[str, Part] | None:
    """Return the parts by name, or None when the body is no such form."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        return None
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        return None
    form = {}
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        named = {name: value.decode("utf-8", "replace") for name, value in _PARAMETER.findall(head)}
        if b"name" not in named:
            return None
        form[named[b"name"]] = Part(content, named.get(b"filename"))
    return form
