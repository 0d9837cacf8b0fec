"""HTTP/1.1 over a loopback socket, for one function that turns a request into a delivery.

Connections stay open between requests, Nagle's algorithm is off and a response leaves in one write, so a call costs
well under a millisecond and never waits for a delayed acknowledgement. `stop` closes open connections and joins every
thread. What a fault does to the connection itself (reset, half a body) happens here and nowhere else.
"""

from __future__ import annotations

import contextlib
import http
import itertools
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.emulator.exchange import Reply, Request


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reply, and how much of it the client gets to see."""

    reply: Reply
    ending: Literal["whole", "half", "reset"] = "whole"


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A threading server on 127.0.0.1 and a free port; a thread for each connection."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = False

    def __init__(self, respond: Callable[[Request], Delivery | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self._port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._accepting = threading.Thread(target=self._accept, name="emulator")

    def start(self) -> None:
        self._accepting.start()

    def _accept(self) -> None:
        """Take connections as they come; ``serve_forever`` would look 100 times a second whether it should stop."""
        while True:
            request, address = self.get_request()
            if self._stopping:
                self.shutdown_request(request)
                return
            self.process_request(request, address)

    def stop(self) -> None:
        """Stop accepting, close every connection and wait for every thread."""
        self._stopping = True
        socket.create_connection(("127.0.0.1", self._port)).close()
        self._accepting.join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may have been faster
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: all that gets here is a client that hung up, since `respond` keeps its own errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        request = Request(
            path=unquote(url.path),
            query=dict(parse_qsl(url.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._body(),
            method=self.command,
            raw_path=url.path,
        )
        delivery = self.server.respond(request)
        if delivery is None:
            self.close_connection = True
        elif delivery.ending == "reset":
            self._reset()
        else:
            self._send(delivery)

    do_GET = do_DELETE = do_POST

    def _body(self) -> bytes:
        """Read what was sent, be its length announced or not.

        Raises:
            ConnectionResetError: the client hung up in the middle. That was no request.
        """
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionResetError
            return body
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            """Trailers say nothing of interest."""
        return b"".join(chunks)

    def _send(self, delivery: Delivery) -> None:
        reply = delivery.reply
        framing = {"content-length": str(len(reply.body))} if reply.pieces is None else {"transfer-encoding": "chunked"}
        headers = {
            "date": self.date_time_string(),
            "content-type": reply.content_type,
            **framing,
            **{name.lower(): value for name, value in reply.headers.items()},
        }
        lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", *(f"{k}: {v}" for k, v in headers.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        half = delivery.ending == "half"
        if half:
            self.close_connection = True
        try:
            if reply.pieces is None:
                self.wfile.write(head + (reply.body[: len(reply.body) // 2] if half else reply.body))
            else:
                for data in itertools.chain((head,), _chunks(reply.pieces, half=half)):
                    self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client did not wait

    def _reset(self) -> None:
        linger_zero = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self.rfile.close()
        cast(socket.socket, self.connection).close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: what happened is in the journal."""


def _chunks(pieces: Iterable[bytes], *, half: bool) -> Iterator[bytes]:
    """Frame the pieces; half of them lack the end that would make the body complete."""
    if half:
        whole = b"".join(pieces)
        pieces = (whole[: len(whole) // 2],)
    for piece in filter(None, pieces):
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    if not half:
        yield b"0\r\n\r\n"


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
