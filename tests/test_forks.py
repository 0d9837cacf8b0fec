"""Forks of several threads at once, in a process of its own, because a fork copies everything that the tests hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forks")

PROGRAM = """
import os
import threading
import time

from embedrouter._process import PerProcess, importing, watch_forks


class Seen(list):
    def before_fork(self):
        self.append(threading.get_ident())
        time.sleep(0.002)

    def after_fork(self, *, in_child):
        time.sleep(0.002)
        self.append(threading.get_ident())

    __hash__ = object.__hash__


numbers = PerProcess(object)
watching = [Seen() for _ in range(8)]  # objects are called in any order
for item in watching:
    watch_forks(item)
together = threading.Barrier(4)


def fork():
    for _ in range(5):
        together.wait()
        child = os.fork()
        if child == 0:
            with importing:
                numbers.get()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


threads = [threading.Thread(target=fork) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for seen in watching:
    assert len(seen) == 40
    assert seen[::2] == seen[1::2], "a thread's fork began within another's"
"""


@pytest.mark.slow
def test_threads_fork_at_the_same_time() -> None:
    """One after the other, so that each releases its own locks: in no child one stays locked."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
