"""What the imports take beside those they could not do without, in fresh interpreters.

`import langchain_core.embeddings` alone loads next to nothing: its classes come with their first use.
"""

from __future__ import annotations

import pytest

from .contest import Contest
from .table import EACH


@pytest.mark.parametrize(
    ("ours", "beside", "goal"),
    [
        ("import embedrouter", "import numpy, pydantic", 1 / 2),
        ("import embedrouter.langchain", "from langchain_core.embeddings import Embeddings", 1 / 1.1),
        ("import embedrouter.langchain", "import langchain_core.embeddings", None),
    ],
)
def test_import(contest: Contest, ours: str, beside: str, goal: float | None) -> None:
    """A service starts no slower than its dependencies make it."""
    contest.ours("imports:fresh_interpreter", statement=ours)
    contest.limit(beside, "imports:fresh_interpreter", goals={} if goal is None else {EACH: goal}, statement=beside)
    contest.run(ours, rounds=11, measures=(EACH,))
