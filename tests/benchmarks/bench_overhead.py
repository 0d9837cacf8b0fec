"""What the router adds to one query that is not cached, with cache, ledger and a budget on, at 20 ms."""

from __future__ import annotations

import pytest

from .contest import Contest
from .server import Server
from .table import EACH

AT_A_TIME = 10
"""Queries in one round, each after the last: the first finds the processor's caches full of the other contestant."""


@pytest.mark.parametrize(("kind", "suffix"), [("sync", ""), ("async", "_async")])
def test_one_query(contest: Contest, server: Server, kind: str, suffix: str) -> None:
    """The SDK does nothing but ask, and is the limit: five percent more are allowed."""
    api = server.url(20)
    contest.ours(f"ours:uncached_queries{suffix}", number=AT_A_TIME, api=api)
    limit = f"limits:sdk_queries{suffix}"
    contest.limit("openai SDK alone", limit, goals={EACH: 1 / 1.05}, number=AT_A_TIME, api=api)
    contest.run(f"One uncached query at 20 ms, {kind}", rounds=40, measures=(EACH,))
