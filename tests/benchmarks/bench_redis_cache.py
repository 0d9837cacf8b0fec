"""Vectors that are on a Redis server on loopback: queries one at a time, and 2,000 documents, of 1,536 dimensions.

LangChain's `CacheBackedEmbeddings` over its `RedisStore` has the same server, client and environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer

from .contest import Contest
from .table import RATE

QUERIES = 500
DOCUMENTS = 2000


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with RedisServer(tmp_path) as server:
        yield server.address


def beside_langchain(contest: Contest, work: str, number: int, redis: str) -> None:
    """Add ``CacheBackedEmbeddings`` on LangChain's Redis store."""
    contest.peer(
        "LangChain, Redis store",
        f"langchain_redis:{work}",
        goals={RATE: 3},
        at_home=True,
        number=number,
        redis=redis,
    )


def test_queries(contest: Contest, redis: str) -> None:
    """As it comes: what the process has read once is in its memory."""
    contest.ours("ours:warm_query_lists", number=QUERIES, redis=redis)
    beside_langchain(contest, "warm_queries", QUERIES, redis)
    contest.run("Warm query over Redis, list out", rounds=7)


def test_queries_from_the_server(contest: Contest, redis: str) -> None:
    """The first time that a process meets a query which another has asked before."""
    contest.ours("ours:warm_query_lists", number=QUERIES, cache_memory=0, redis=redis)
    contest.limit("MGET + tolist", "limits:redis_queries", number=QUERIES, redis=redis)
    beside_langchain(contest, "warm_queries", QUERIES, redis)
    contest.run("Warm query from Redis, list out", rounds=7)


def test_documents(contest: Contest, redis: str) -> None:
    """A corpus that another machine has embedded."""
    contest.ours("ours:warm_lists", number=DOCUMENTS, redis=redis)
    contest.limit("MGET + tolist", "limits:redis_lists", number=DOCUMENTS, redis=redis)
    beside_langchain(contest, "warm_documents", DOCUMENTS, redis)
    contest.run("Warm documents from Redis, lists out", rounds=7)
