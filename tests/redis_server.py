"""A real Redis server, or Valkey, on a free port of 127.0.0.1, in a folder of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = [name for name in ("redis-server", "valkey-server") if shutil.which(name)]
PATIENCE = 10.0
"""Seconds until the server answers."""


class RedisServer:
    """Use it as a context manager.

    Args:
        folder: where the server keeps its files.
        options: further options of its command line, such as ``"--maxmemory", "10mb"``.
        program: ``"redis-server"`` or ``"valkey-server"``.
    """

    def __init__(self, folder: Path, *options: str, program: str = "redis-server") -> None:
        if program not in PROGRAMS:
            pytest.skip(f"there is no {program} here: apt-get install {program}")
        self._folder, self._options, self._program = folder, options, program
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, also again on the same port; what it has saved is there again."""
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        self._process = subprocess.Popen(
            [self._program, *own, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        began = time.monotonic()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server, by default in order."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Stop the server as a stalled machine does: connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)


def _free_port() -> int:
    """Return a port that is free; a node of a cluster listens on another one 10,000 above."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        if port < 55_000:
            return port
