"""The processes that are compared, and how they take turns."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]

PATIENCE = 120.0
"""Seconds until a round counts as hanging and its process is killed."""

Role = Literal["ours", "variant", "peer", "limit"]
"""A variant is ours too, used in another way."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round took."""

    size: int
    """What was made: vectors, mostly."""
    seconds: float
    cpu: float
    """Seconds of CPU, of all threads of the contestant."""
    requests: int = 0
    """Requests that reached the API."""


class Contestant:
    """A work in a process of its own, which starts with the first round.

    `python` is the interpreter. Closing it ends the process.
    """

    def __init__(
        self,
        role: Role,
        name: str,
        python: str,
        work: str,
        arguments: dict[str, Any],
        *,
        environment: Mapping[str, str],
    ) -> None:
        self.role: Role = role
        self.name = name
        self.work = work
        self._command = [python, "-m", "tests.benchmarks.worker", work, json.dumps(arguments)]
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process

    def round(self) -> Round:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            alarm.cancel()
        if not answer:
            process.kill()  # an event loop that was left open may not let it end
            process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ({self.work}) failed:\n{self._errors.read()[-3000:]}")
        return Round(**json.loads(answer))

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
        self._errors.close()


def race(
    contestants: Sequence[Contestant], rounds: int, *, warm_ups: int, requests: Callable[[], int]
) -> list[list[Round]]:
    """Let the contestants take turns, and return the rounds of each; warm-ups do not count."""
    taken: list[list[Round]] = [[] for _ in contestants]
    for turn in range(-warm_ups, rounds):
        for place, contestant in enumerate(contestants):
            before = requests()
            result = contestant.round()
            if turn >= 0:
                taken[place].append(replace(result, requests=requests() - before))
    return taken
