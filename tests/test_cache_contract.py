"""One contract for every store that ``cache=`` takes: bytes come back as they were put, for all that share it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import redis
import redis.asyncio

from embedrouter import Router
from embedrouter.cache import Cache, VectorCache
from embedrouter.cache._codec import encode
from embedrouter.errors import ConfigError
from embedrouter.redis import RedisState
from embedrouter.testing import FakeBackend
from embedrouter.types import Entry

from .cache_stores import KINDS, Kind, Place, redis_server, s3_server

KEYS = [bytes([1, 2, 3, 4]) + number.to_bytes(20, "big") for number in range(5)]
"""As of this version: a mark, then a hash."""
ABSENT = b"\xff" * 24
EARLIER = b"\x00\xff" * 10
"""As of earlier versions: the hash alone."""


@pytest.fixture(scope="module")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def place(tmp_path: Path, redis_address: str, s3_address: str) -> Place:
    redis.Redis.from_url(redis_address).flushall()
    return Place(tmp_path / "cache", redis_address, s3_address)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, place: Place) -> Cache:
    return KINDS[request.param].open(place)


SHARED = [pytest.param(kind, id=name) for name, kind in KINDS.items() if kind.shared]
"""Those that are not in the memory of the process."""


def in_child(work: Callable[[], bool]) -> bool:
    """Return what some work returns in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        done = False
        try:
            done = work()
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run on in the child
            traceback.print_exc()
        os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_gives_back_what_was_put(store: Cache) -> None:
    """Bytes are bytes: NUL, empty and large values included. An absent key has no value."""
    values = {KEYS[0]: b"1", KEYS[1]: b"\x00\xff" * 50_000, KEYS[2]: b"", EARLIER: b"\r\n$-1\r\n"}
    store.put_many(values)

    assert dict(store.get_many([*values, KEYS[3]])) == values
    assert dict(store.get_many([KEYS[3]])) == {}


def test_a_later_value_replaces_an_earlier_one(store: Cache) -> None:
    """A damaged row is written again under its key."""
    store.put_many({KEYS[0]: b"1", KEYS[1]: b"2"})
    store.put_many({KEYS[0]: b"3"})

    assert dict(store.get_many(KEYS[:2])) == {KEYS[0]: b"3", KEYS[1]: b"2"}


def test_a_store_takes_thousands_of_keys_at_once(store: Cache) -> None:
    """SQL has a limit on parameters, users have none on texts."""
    values = {number.to_bytes(24, "big"): str(number).encode() for number in range(1_100)}
    store.put_many(values)

    assert dict(store.get_many([*values, ABSENT])) == values
    assert dict(store.get_many([])) == {}
    store.put_many({})


def test_a_damaged_row_is_absent_and_is_replaced(store: Cache) -> None:
    """A flipped bit, half a row, bytes of another program."""
    fake = FakeBackend()
    router = Router([fake.model()], cache=store, ledger=":memory:")
    first = router.embed(["a", "b", "c", "d"], input_type="document")
    written = VectorCache(store)
    keys = list(KEYS[:3])
    row = encode(Entry(np.ones(8, np.float32), 1))
    store.put_many({keys[0]: row[:-1] + b"\x55", keys[1]: row[:20], keys[2]: b"other"})

    assert written.read(keys, 8) == {}
    assert written.damaged == 3
    assert written.write({keys[0]: Entry(np.ones(8, np.float32), 1)})
    assert list(written.read(keys, 8)) == keys[:1]
    assert np.array_equal(router.embed(["a", "b", "c", "d"], input_type="document").vectors, first.vectors)
    assert len(fake.calls) == 1


def test_a_closed_store_opens_again(store: Cache) -> None:
    """Closing is polite, never required, and loses nothing."""
    store.put_many({KEYS[0]: b"1"})
    store.close()
    store.close()

    assert dict(store.get_many([KEYS[0]])) == {KEYS[0]: b"1"}


def test_threads_share_a_store(store: Cache) -> None:
    """Chains call from thread pools."""
    problems: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(10):
                key = bytes([worker, number]) * 12
                store.put_many({key: key})
                assert dict(store.get_many([key])) == {key: key}
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not problems
    assert len(store.get_many([bytes([worker, number]) * 12 for worker in range(8) for number in range(10)])) == 80


@pytest.mark.parametrize("kind", SHARED)
def test_another_store_of_the_same_place_finds_what_one_has_written(kind: Kind, place: Place) -> None:
    """As in another worker; a store in memory begins anew."""
    kind.open(place).put_many({KEYS[0]: b"1"})

    assert dict(kind.open(place).get_many(KEYS[:2])) == {KEYS[0]: b"1"}


@pytest.mark.parametrize("kind", SHARED)
def test_forked_children_use_a_store_that_the_parent_has_used(kind: Kind, place: Place) -> None:
    """gunicorn with a preloaded application."""
    store = kind.open(place)
    store.put_many({KEYS[0]: b"parent"})

    def work() -> bool:
        found = dict(store.get_many(KEYS[:1]))
        store.put_many({KEYS[1]: b"child"})
        return found == {KEYS[0]: b"parent"}

    assert in_child(work)
    assert in_child(work)
    assert dict(store.get_many(KEYS[:2])) == {KEYS[0]: b"parent", KEYS[1]: b"child"}


@pytest.mark.parametrize("kind", [item for item in SHARED if cast(Kind, item.values[0]).pickles])
def test_a_router_can_be_pickled_where_its_store_can(kind: Kind, place: Place) -> None:
    """Pickles hold addresses and no connection."""
    store = kind.open(place)
    fake = FakeBackend()
    router = Router([fake.model()], cache=store, ledger=str(place.folder.parent / "ledger.db"))
    router.embed(["a"], input_type="document")

    again = pickle.loads(pickle.dumps(router))

    assert again.embed(["a"], input_type="document").cached == (True,)


@pytest.mark.parametrize("kind", SHARED)
def test_a_text_embedded_by_one_process_is_a_hit_for_another(kind: Kind, place: Place) -> None:
    """And has the same vector to the last bit."""

    def embed() -> tuple[bytes, list[bool], int]:
        fake = FakeBackend()
        router = Router([fake.model()], cache=kind.open(place), ledger=":memory:")
        result = router.embed(["a", "b"], input_type="document")
        return result.vectors.tobytes(), list(result.cached), len(fake.calls)

    assert in_child(lambda: embed()[2] == 1)
    assert embed() == (FakeBackend().embed(["a", "b"], "document", timeout=1).vectors.tobytes(), [True, True], 0)


def test_clients_that_cannot_be_stores_are_refused_with_what_to_write() -> None:
    """The mistakes that are near."""
    with pytest.raises(ConfigError, match=r"make RedisState\(client\).cache\(\)"):
        Router([FakeBackend().model()], cache=redis.Redis())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="calls of both forms run in threads"):
        RedisState(redis.asyncio.Redis())
    with pytest.raises(ConfigError, match="without decode_responses=True"):
        RedisState(redis.Redis(decode_responses=True))
    with pytest.raises(ConfigError, match="not int"):
        RedisState(7)
