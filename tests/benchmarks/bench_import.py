"""What ``import embedrouter`` costs beside the two libraries it could not do without.

    python -m pytest tests/benchmarks -o python_files="bench_*.py"

The limit is twice ``import numpy, pydantic``, in fresh interpreters; compare the medians of the group.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.benchmark(group="import, fresh interpreter", min_rounds=15, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("modules", ["embedrouter", "numpy, pydantic"])
def test_import(benchmark: BenchmarkFixture, modules: str) -> None:
    """A service starts no slower than its dependencies make it."""
    benchmark(subprocess.run, [sys.executable, "-c", f"import {modules}"], check=True)
