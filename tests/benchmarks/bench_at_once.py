"""Two hundred calls at once, each with a query of its own: requests that reach the API, and seconds for all."""

from __future__ import annotations

import pytest

from .contest import Contest
from .server import Server
from .table import REQUESTS, WHOLE

NUMBER = 200


@pytest.mark.parametrize("milliseconds", [200, 20])
@pytest.mark.parametrize("kind", ["tasks", "threads"])
def test_queries(contest: Contest, server: Server, kind: str, milliseconds: int) -> None:
    """The aim is four requests."""
    api = server.url(milliseconds)
    contest.ours(f"ours:{kind}", number=NUMBER, api=api)
    contest.peer("langchain-openai", f"langchain:{kind}", goals={REQUESTS: NUMBER / 4}, number=NUMBER, api=api)
    contest.run(f"200 queries at once, {kind}, {milliseconds} ms", rounds=3, measures=(REQUESTS, WHOLE))
