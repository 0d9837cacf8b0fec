"""The forms in which projects keep recorded traffic, read into one.

A file's form is told by what is in it: vcrpy and Ruby's VCR keep a list of interactions, httpmock keeps documents with
``when`` and ``then``, DataDog's test agent one ``request`` and one ``response``, Go's httprr the plain text of HTTP.
Of a file of another form, such as the body of an answer alone, nothing is known of the request, and it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

SUFFIXES = (".yaml", ".yml", ".json", ".httprr")
PACKED = b"\x1f\x8b"
"""The beginning of what gzip has packed."""
FRAMING = frozenset({"content-length", "transfer-encoding"})
"""Headers that are about a form in which a recording no longer is."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request and its response, as a file has them."""

    uri: str
    """Without a host where the file has none."""
    body: str | bytes | None
    """Of the request."""
    status: int
    headers: Mapping[str, Sequence[str]]
    """Of the response."""
    content: bytes


def read(file: Path) -> Iterator[Interaction]:
    """Yield what a file holds."""
    if file.suffix == ".httprr":
        yield from _plain_text(file.read_bytes())
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = file.read_text("utf-8")
    for document in [json.loads(text)] if file.suffix == ".json" else yaml.load_all(text, Loader=loader):
        if not isinstance(document, Mapping):
            continue
        if "when" in document:
            yield _mocked(document["when"], document["then"])
            continue
        single = [document] if "request" in document else []
        for pair in document.get("interactions", document.get("http_interactions", single)):
            yield _interaction(pair["request"], pair["response"])


def _interaction(request: Mapping[str, Any], response: Mapping[str, Any]) -> Interaction:
    """Read vcrpy's, VCR's and the test agent's forms, which differ in the names of their fields."""
    status = response["status"]
    body = _body(request)
    return _made(
        str(request.get("uri", request.get("url"))),
        body,
        int(status["code"] if isinstance(status, Mapping) else status),
        response.get("headers") or {},
        _bytes(_body(response)),
    )


def _mocked(when: Mapping[str, Any], then: Mapping[str, Any]) -> Interaction:
    query = {item["name"]: item["value"] for item in when.get("query_param") or () if item["name"] != "key"}
    uri = when["path"] + (f"?{urlencode(query)}" if query else "")
    headers = {item["name"]: item["value"] for item in then.get("header") or ()}
    return _made(uri, when.get("body"), then["status"], headers, _bytes(then.get("body")))


def _made(uri: str, body: Any, status: int, headers: Mapping[str, Any], content: bytes) -> Interaction:
    listed = {name: [values] if isinstance(values, str | bytes) else values for name, values in headers.items()}
    written = {
        name: [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        for name, values in listed.items()
    }
    content, packed = _unpacked(content)
    dropped = FRAMING if packed else FRAMING | {"content-encoding"}
    kept = {name: values for name, values in written.items() if name.lower() not in dropped}
    return Interaction(uri, body, status, kept, content)


def _unpacked(content: bytes) -> tuple[bytes, bool]:
    """Return the content, and whether it is still packed. What gzip has packed stays so: our backends unpack it."""
    if content.startswith(PACKED):
        return content, True
    try:
        content.decode()
    except UnicodeDecodeError:
        try:
            return import_module("brotli").decompress(content), False
        except ImportError:
            return content, True
    return content, False


def _body(part: Mapping[str, Any]) -> Any:
    """Return the body of a request or a response; ``parsed_body`` is what it says, in YAML."""
    if "parsed_body" in part:
        return json.dumps(part["parsed_body"])
    body = part.get("body")
    return body.get("string", "") if isinstance(body, Mapping) else body


def _bytes(body: str | bytes | None) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""


# Go's httprr: "<bytes of the request> <bytes of the response>", then both


def _plain_text(content: bytes) -> Iterator[Interaction]:
    _, _, content = content.partition(b"\n")
    while content:
        sizes, _, content = content.partition(b"\n")
        asked, answered = (int(size) for size in sizes.split())
        request, response, content = content[:asked], content[asked : asked + answered], content[asked + answered :]
        first, _, body = _http(request)
        line, headers, answer = _http(response)
        yield _made(first.split()[1], body, int(line.split()[1]), headers, answer)


def _http(content: bytes) -> tuple[str, dict[str, list[str]], bytes]:
    """Return the first line, the headers and the body of an HTTP message."""
    end = b"\r\n" if b"\r\n\r\n" in content else b"\n"
    head, _, body = content.partition(end * 2)
    first, _, rest = head.partition(end)
    parsed = message_from_bytes(rest)
    headers = {name: [str(value) for value in parsed.get_all(name, [])] for name in parsed}
    if "chunked" in str(parsed.get("transfer-encoding", "")):
        body = _joined(body)
    return first.decode(), headers, body


def _joined(body: bytes) -> bytes:
    """Return the content of chunks."""
    pieces = []
    while body:
        size, _, body = body.partition(b"\n")
        length = int(size.strip() or b"0", 16)
        if not length:
            break
        pieces.append(body[:length])
        body = body[length:].lstrip(b"\r\n")
    return b"".join(pieces)
