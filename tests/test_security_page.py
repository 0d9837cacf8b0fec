"""What ``docs/security.md`` says of a Redis server, and of files that ``SECURITY.md`` names no test for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis

from embedrouter import Model, Router
from tests.emulator import Emulator
from tests.redis_server import RedisServer

TEXT = "the confidential minutes of the board, 4711"
KEY = "sk-confidential-0123456789abcdef"


def everything(client: Any, prefix: str) -> bytes:
    """Return all keys that begin with the prefix, and their values."""
    readers = {
        b"string": client.get, b"hash": client.hgetall, b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers, b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }  # fmt: skip
    keys: list[bytes] = client.keys(f"{prefix}:*")
    return b"\n".join(key + repr(readers[client.type(key)](key)).encode() for key in keys)


def test_no_text_and_no_key_is_on_a_server_that_workers_share(redis_server: RedisServer, emulator: Emulator) -> None:
    """Vectors, accounts, limits, claims, records and a batch, all on one server."""
    model = Model(
        "openai:text-embedding-3-small",
        base_url=emulator.openai_url,
        api_key=KEY,
        dimensions=256,
        requests_per_minute=1000,
        max_concurrency=2,
    )
    state = f"{redis_server.address}?prefix=papers"
    with redis.Redis(port=redis_server.port) as client, Router([model], state=state, budget="5.00/day") as router:
        router.embed([TEXT, f"{TEXT} again"], input_type="document")
        router.submit_batch([f"{TEXT} in a batch"])
        held = everything(client, "papers")
    kinds = set(re.findall(rb"^papers:\W*([a-z]+)", held, re.M))

    assert {b"vector", b"ledger", b"limits", b"records"} <= kinds
    assert KEY.encode() not in held
    assert b"confidential" not in held


@pytest.mark.parametrize("folder", ["models", "served"])
def test_records_beside_the_cache_hold_no_text_and_no_key(folder: str, emulator: Emulator, tmp_path: Path) -> None:
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key=KEY, dimensions=256)
    with Router([model], cache=tmp_path / "cache") as router:
        router.embed([TEXT], input_type="document")
    held = b"\n".join(file.read_bytes() for file in (tmp_path / "cache" / folder).iterdir())

    assert b"text-embedding-3-small" in held
    assert KEY.encode() not in held
    assert b"confidential" not in held
