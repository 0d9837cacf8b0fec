"""A server of which a test says every byte, in the protocols of OpenAI, Cohere and Voyage."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

__all__ = ["DIMENSIONS", "RawServer", "Reply", "dripping", "rows", "vectors"]

DIMENSIONS = 4


def vectors(texts: Sequence[str], dimensions: int = DIMENSIONS) -> list[list[float]]:
    """Return a vector for each text, which tells it from others."""
    return [[float(len(text)), 1.0, *[0.5] * (dimensions - 2)] for text in texts]


def rows(texts: Sequence[str], numbers: str | None = "float", dimensions: int = DIMENSIONS) -> list[dict[str, Any]]:
    """Return the rows of an answer of OpenAI's protocol, and of Voyage's."""
    found: list[dict[str, Any]] = []
    for place, vector in enumerate(vectors(texts, dimensions)):
        embedding = base64.b64encode(np.array(vector, "<f4").tobytes()).decode() if numbers == "base64" else vector
        found.append({"object": "embedding", "index": place, "embedding": embedding})
    return found


@dataclass(frozen=True)
class Reply:
    """What a server answers."""

    status: int = 200
    body: Any = None
    """Bytes, a text, or what becomes JSON; an iterator of bytes is sent piece by piece."""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Iterator[bytes] | None = None
    """Sent in place of all else, from the first byte of the status line."""


class RawServer:
    """Answer every request by ``answer``, which gets the body of the request and its texts.

    Without an ``answer``, or where it returns ``None``, the vectors are right.
    """

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any], list[str]], Reply | None] = lambda body, texts: None
        self.received: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.received.append(body)
                texts = body.get("input") or body.get("texts") or []
                reply = outer.answer(body, texts) or outer.right(self.path, body, texts)
                with suppress(OSError):
                    self._send(reply)

            def _send(self, reply: Reply) -> None:
                if reply.raw is not None:
                    self.close_connection = True
                    for piece in reply.raw:
                        self.wfile.write(piece)
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if isinstance(reply.body, Iterator):
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for piece in reply.body:
                        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.write(b"0\r\n\r\n")
                    return
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                content = reply.body.encode() if isinstance(reply.body, str) else content
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: the client has left."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def right(self, path: str, body: dict[str, Any], texts: list[str]) -> Reply:
        """Return the right answer, in the protocol of the request."""
        if path.startswith("/v2/embed"):
            return Reply(body={"id": "1", "embeddings": {"float": vectors(texts)}, "texts": texts})
        numbers = body.get("encoding_format")
        return Reply(body={"object": "list", "data": rows(texts, numbers), "model": body["model"], "usage": {}})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def dripping(content: bytes, seconds: float, until: threading.Event) -> Iterator[bytes]:
    """Yield a byte now and then."""
    for byte in content:
        if until.wait(seconds):
            return
        yield bytes([byte])
