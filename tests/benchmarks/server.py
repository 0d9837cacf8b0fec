"""The API as a process, so that its work is not the client's."""

from __future__ import annotations

import http.client
import subprocess
import sys
from types import TracebackType

from .contestants import ROOT


class Server:
    """Runs `api.py` while the context lasts."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.api"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port)
        return self

    def url(self, milliseconds: int) -> str:
        """Return the base address at which every answer takes so long."""
        return f"http://127.0.0.1:{self.port}/{milliseconds}/v1"

    def requests(self) -> int:
        """Return how many embeddings requests there were so far."""
        self._connection.request("GET", "/requests")
        return int(self._connection.getresponse().read())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.communicate()
