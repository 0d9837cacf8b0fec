"""Models that run in this process, described and created as a router does, and code in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from embedrouter import providers
from embedrouter.models import Model, load_catalogue, resolve
from embedrouter.types import Candidate

SOURCES = Path(providers.__file__).parents[2]
TEXTS = ["The cat sat on the mat.", "a feline", "Quarterly revenue rose by 4 %.", "naïve café 日本語", "x" * 50]


def described(model: Model, dimensions: int | None = None) -> tuple[providers.Description, Candidate]:
    """Describe and settle a model as a router does."""
    description = providers.describe(model, load_catalogue(), dimensions)
    return description, resolve(
        model,
        description.card,
        dimensions=dimensions,
        index=0,
        rank=0,
        local=description.local,
        identity=description.identity,
    )


def backend_of(model: Model, dimensions: int | None = None) -> providers.Backend:
    description, candidate = described(model, dimensions)
    return providers.create(model, description, candidate)


def run(code: str, *arguments: object, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed; nothing may go to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
