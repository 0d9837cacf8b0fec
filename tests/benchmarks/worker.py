"""One contestant: performs a work, a round for each line it reads, and answers with what the round took.

    python -m tests.benchmarks.worker works.module:function '{"argument": 1}'

A work is a generator of things to time: it yields functions without arguments that return what they made, or how many.
What it does between two of them (preparing, cleaning up) is not timed. The answer is the size of what was made, the
seconds on the clock and the seconds of CPU of all threads of this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sized
from importlib import import_module
from typing import TypeAlias

Task: TypeAlias = Callable[[], Sized | int]
Work: TypeAlias = Iterator[Task]


def main(name: str, arguments: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, function = name.partition(":")
    work: Work = getattr(import_module(f"{__package__}.works.{module}"), function)(**json.loads(arguments))
    for _ in sys.stdin:
        task = next(work)
        start, used = time.perf_counter(), time.process_time()
        made = task()
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        size = made if isinstance(made, int) else len(made)
        del made
        answers.write(json.dumps({"seconds": seconds, "cpu": cpu, "size": size}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
