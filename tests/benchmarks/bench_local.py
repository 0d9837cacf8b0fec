"""Models on this machine, through the router and bare: nothing may be lost on the way."""

from __future__ import annotations

import pytest

from .contest import Contest
from .table import RATE


@pytest.mark.parametrize(("model", "number"), [("minilm", 150), ("wordllama", 20_000)])
def test_documents(contest: Contest, model: str, number: int) -> None:
    """The router may take three percent."""
    contest.ours(f"local:{model}_router", number=number)
    contest.limit("the bare model", f"local:{model}_bare", goals={RATE: 0.97}, number=number)
    contest.run(f"Local documents, {model}", rounds=9)
