"""The server of tests/example_provider, and its metadata as an installed package has them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

EXAMPLE = Path(__file__).parent / "example_provider"
PROJECT: dict[str, Any] = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]


class Acme(BaseHTTPRequestHandler):
    """What the example's documentation says of its server."""

    received: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.received.append(body)
        if self.headers["authorization"] != "Bearer acme-key":
            self._answer(401, {"error": "unknown key"})
        elif any(len(text) > 100 for text in body["texts"]):
            self._answer(400, {"error": "text 0 is too long: at most 512 tokens"})
        else:
            vectors = [[len(text), 1.0, 0.0, float(body["for"] == "query")] for text in body["texts"]]
            self._answer(200, {"vectors": vectors, "tokens": sum(map(len, body["texts"]))})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def server() -> Iterator[str]:
    """Serve until the end of the block; the address is given."""
    Acme.received.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Acme)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def installed(folder: Path) -> list[Path]:
    """Write the example's metadata; return what is to be on the path, so that it is found as if it were installed."""
    metadata = folder / "acme_embeddings-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-embeddings\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in PROJECT["entry-points"]["embedrouter.providers"].items()]
    (metadata / "entry_points.txt").write_text("[embedrouter.providers]\n" + "\n".join(lines) + "\n")
    return [folder, EXAMPLE]
