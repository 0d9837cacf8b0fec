"""Asynchronous against sequential, for 100, 500 and 1,000 texts at 10 ms: fewer requests beat more at once."""

from __future__ import annotations

import pytest

from .contest import Contest
from .server import Server
from .table import WHOLE


@pytest.mark.parametrize("number", [100, 500, 1000])
def test_texts(contest: Contest, server: Server, number: int) -> None:
    """A tutorial sends a request for each text, one by one or ten at once."""
    api = server.url(10)
    contest.ours("ours:in_one_call", number=number, api=api)
    contest.variant("a call for each text", "ours:many_at_once", number=number, api=api)
    contest.peer("one by one", "tutorial:sequential", number=number, api=api)
    contest.peer("ten at once", "tutorial:parallel", number=number, api=api)
    contest.run(f"{number} texts at 10 ms, asynchronous", rounds=3, warm_ups=0, measures=(WHOLE,))
