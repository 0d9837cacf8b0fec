"""Benchmarks: what this package takes beside its peers, and beside what the machine allows.

    python -m pytest tests/benchmarks -o python_files="bench_*.py" -s

Peers run in a virtual environment of their own, because their pins would downgrade ours; it is made on the first run,
from `peers.txt`, in the user's cache folder. Every contestant is a process of its own, and they take turns, so that
what else the machine does hits all alike. A figure is the median of the rounds, a ratio the median of the ratios of
one turn. Nothing is asserted but that the work was done. A file `bench_*.py` says what is compared, `works/` how each
does it.

The API is `api.py`, not the tests' emulator: that one computes vectors and counts tokens, a second or more for 20,000
texts on the cores that are measured; this one sends what it prepared, and only the latency passes.

`EMBEDROUTER_BENCH_JSON` names a file for the figures; `python docs/benchmarks.py FILE` puts them into the tables of
docs/benchmarks.md.
"""
