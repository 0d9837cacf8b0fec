"""What the router adds to one query that is not cached, with cache, ledger and a budget on, at 20 ms."""

from __future__ import annotations

import pytest

from .contest import Contest
from .server import Server
from .table import EACH


@pytest.mark.parametrize(("kind", "suffix"), [("sync", ""), ("async", "_async")])
def test_one_query(contest: Contest, server: Server, kind: str, suffix: str) -> None:
    """The SDK does nothing but ask, and is the limit: five percent more are allowed."""
    api = server.url(20)
    contest.ours(f"ours:one_query{suffix}", api=api)
    contest.limit("openai SDK alone", f"limits:sdk_query{suffix}", goals={EACH: 1 / 1.05}, api=api)
    contest.run(f"One uncached query at 20 ms, {kind}", rounds=200, warm_ups=5, measures=(EACH,))
