"""A headless Chromium, spoken to through a pipe: what a page prints on the console, asks for, and looks like.

Chromium is what the machine has: Debian's ``chromium``, or the Google Chrome of GitHub's machines. Where there is none,
tests that need it are skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


def program() -> str | None:
    """Return the path of a Chromium on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page. What happened to it is in ``console`` and ``requests``."""

    def __init__(self, answers: RawIOBase, commands: RawIOBase) -> None:
        self._input, self._output = answers, commands
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self.console: list[str] = []
        """Messages, errors of scripts, and what the browser itself complains of."""
        self.requests: list[str] = []
        """The addresses that were asked for, the page's own among them."""
        self._loaded = False
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        self._output.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load an address in a window of this size, and wait until it is loaded."""
        self.console.clear()
        self.requests.clear()
        phone = width < 500
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.tell("Page.navigate", url=address)
        while not self._loaded:
            self._next()

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG file."""
        path.write_bytes(b64decode(self.tell("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _next(self) -> dict[str, Any]:
        """Read one message; keep those that are events."""
        while b"\0" not in self._rest:
            read = self._input.read(1 << 20)
            if not read:
                raise RuntimeError("Chromium has ended.")
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(item.get("value")) for item in told["args"]))
            case "Runtime.exceptionThrown":
                self.console.append(str(told["exceptionDetails"]))
            case "Log.entryAdded":
                self.console.append(told["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
        return message


@contextmanager
def chromium(path: str) -> Iterator[Page]:
    """Start a Chromium with an empty profile, and end it."""
    to_it, from_us = os.pipe()
    to_us, from_it = os.pipe()
    theirs = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (to_it, from_it)]
    os.close(to_it)
    os.close(from_it)
    # Chromium reads from 3 and writes to 4
    start = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["/bin/bash", "-c", start, path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
        )
        for descriptor in theirs:
            os.close(descriptor)
        try:
            with os.fdopen(to_us, "rb", buffering=0) as answers, os.fdopen(from_us, "wb", buffering=0) as commands:
                yield Page(answers, commands)
        finally:
            process.terminate()
            process.wait(20)
