"""The summary that a process writes to standard error when it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import os, sys, signal
from embedrouter import Router
from embedrouter.testing import FakeBackend, MemoryCache
router = Router([FakeBackend().model(price="1")], cache=MemoryCache(), ledger=":memory:")
router.embed(["a private text", "b"], input_type="document")
router.embed(["a private text"], input_type="document")
"""
LINE = "  fake:model: 3 texts, 1 from the cache, 4 tokens, $0.000004, saved $0.000003"
"""Of the program: three tokens of one text are saved."""


def ended(program: str, *, asked: str = "1", **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMBEDROUTER_SUMMARY": asked}
    return subprocess.run(  # type: ignore[call-overload]
        [sys.executable, "-c", program], env=environment, text=True, timeout=60, **{"capture_output": True, **settings}
    )


def test_totals_are_written_once_and_only_if_asked() -> None:
    """No text is in them."""
    told = ended(PROGRAM)

    assert told.stderr.splitlines() == ["embedrouter in this process:", LINE]
    assert told.stdout == ""
    assert ended(PROGRAM, asked="0").stderr == ""
    assert ended("import embedrouter").stderr == "", "nothing was embedded"


def test_other_ends() -> None:
    """After Ctrl-C, after an error, with standard error closed, and in a pipe that is."""
    interrupted = ended(f"{PROGRAM}\nos.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(5)")
    failed = ended(f"{PROGRAM}\n1 / 0")
    closed = ended(f"{PROGRAM}\nos.close(2)")
    replaced = ended(f"{PROGRAM}\nimport io; sys.stderr = io.StringIO()")
    gone = ended(f"{PROGRAM}\nsys.stderr = None")
    read, write = os.pipe()
    os.close(read)
    broken = ended(PROGRAM, capture_output=False, stderr=write)
    os.close(write)

    assert interrupted.stderr.endswith(LINE + "\n")
    assert failed.stderr.endswith(LINE + "\n")
    assert failed.returncode == 1
    assert [told.returncode for told in (closed, replaced, gone, broken)] == [0, 0, 0, 0]


def test_children_have_summaries_of_their_own() -> None:
    """Those of ``os.fork`` that end by themselves, and those of ``multiprocessing``."""
    forked = ended(
        f"{PROGRAM}\nsys.stderr.flush()\npid = os.fork()\n"
        "if pid: os.waitpid(pid, 0)\nelse: router.embed(['c'], input_type='document')"
    )
    worker = ended(
        f"{PROGRAM}\nfrom multiprocessing import get_context\n"
        "def work(): router.embed(['c', 'd'], input_type='document')\n"
        "process = get_context('fork').Process(target=work); process.start(); process.join()"
    )

    assert forked.stderr.splitlines()[1] == "  fake:model: 1 text, 1 token, $0.000001, saved $0.00"
    assert forked.stderr.splitlines()[3] == LINE
    assert worker.stderr.splitlines()[1] == "  fake:model: 2 texts, 2 tokens, $0.000002, saved $0.00"
    assert worker.stderr.splitlines()[3] == LINE
