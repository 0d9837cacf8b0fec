"""Routers whose workers share limits, claims and records on a real Redis server, also while it is gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embedrouter import Router, Space
from embedrouter.cache import FolderRecords, Records, ServedNames
from embedrouter.calls import _shared_state
from embedrouter.cli import app
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.events import Event, SharedStateFailed
from embedrouter.langchain import RouterEmbeddings
from embedrouter.redis import RedisState
from embedrouter.redis._claims import RedisClaims
from embedrouter.retrieval import _index_records
from embedrouter.retrieval.index_guard import IndexGuard, forget, move, recorded
from embedrouter.testing import NO_WAITING, FakeBackend
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.redis_server import RedisServer
from tests.side_by_side import HANG, until


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server that no test ends."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as server:
        yield server


_numbers = iter(range(1000))


@pytest.fixture
def state(steady: RedisServer) -> Iterator[RedisState]:
    """Return state of its own on the server that no test ends."""
    state = RedisState(steady.address, prefix=f"test{next(_numbers)}")
    yield state
    state.close()


_routers: list[Router] = []


@pytest.fixture(autouse=True)
def routers_are_closed() -> Iterator[None]:
    yield
    while _routers:
        _routers.pop().close()


class Gated(FakeBackend):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.open = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.arrived.set()
        assert self.open.wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return await asyncio.to_thread(self.embed, texts, input_type, timeout=timeout)


def worker(fake: FakeBackend, state: RedisState | str, **settings: Any) -> Router:
    """Return a router as another worker would have it."""
    _routers.append(Router([fake.model()], **{"ledger": ":memory:", "state": state, **settings}))
    return _routers[-1]


# Single flight


def test_a_text_that_another_worker_is_embedding_is_waited_for(state: RedisState, asynchronous: bool) -> None:
    """And is a hit then."""
    fake = Gated()
    one, other = worker(fake, state), worker(fake, state)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(one.embed, ["a", "b"], input_type="document")
        assert fake.arrived.wait(HANG)
        follower = pool.submit(embed, other, asynchronous, ["b", "c", "a"], input_type="document")
        time.sleep(0.2)
        fake.open.set()
        results = leader.result(HANG), follower.result(HANG)

    assert sorted(text for call in fake.calls for text in call.texts) == ["a", "b", "c"]
    assert [result.cached for result in results] == [(False, False), (True, False, True)]
    assert (results[0].vectors[1] == results[1].vectors[0]).all()


def test_documents_and_queries_are_not_taken_for_each_other(state: RedisState) -> None:
    """Their vectors differ."""
    fake = Gated()
    one, other = worker(fake, state), worker(fake, state)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(r.embed, ["a"], input_type=k) for r, k in ((one, "document"), (other, "query"))]  # type: ignore[arg-type]
        until(lambda: fake.arrived.is_set())
        fake.open.set()
        assert [future.result(HANG).cached for future in futures] == [(False,)] * 2


def test_when_the_other_workers_call_fails_the_one_that_waits_embeds(state: RedisState, asynchronous: bool) -> None:
    """It does not get the other one's error."""
    failing, fake = Gated(), FakeBackend()
    one, other = worker(failing, state), worker(fake, state)

    def defect(texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        failing.arrived.set()
        assert failing.open.wait(HANG)
        raise ValueError("a defect")

    failing.embed = defect  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(one.embed, ["a"], input_type="document")
        assert failing.arrived.wait(HANG)
        follower = pool.submit(embed, other, asynchronous, ["a"], input_type="document")
        time.sleep(0.1)
        failing.open.set()
        with pytest.raises(ValueError, match="defect"):
            leader.result(HANG)
        assert follower.result(HANG).cached == (False,)


def test_a_call_does_not_wait_for_another_worker_longer_than_its_time(state: RedisState, asynchronous: bool) -> None:
    """Nothing is sent for it then."""
    fake, own = Gated(), FakeBackend()
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(worker(fake, state).embed, ["a"], input_type="document")
        assert fake.arrived.wait(HANG)
        began = time.monotonic()
        with pytest.raises(Exception, match="time"):
            embed(worker(own, state), asynchronous, ["a"], input_type="document", timeout=0.5)
        assert time.monotonic() - began < 3
        fake.open.set()
        leader.result(HANG)

    assert own.calls == []


@pytest.mark.slow
def test_a_claim_lasts_as_long_as_its_process_and_no_longer(state: RedisState) -> None:
    """A request may take longer than a lease; a killed process renews nothing."""
    alive, dead, other = (RedisClaims(state.server, lease=0.6) for _ in range(3))
    call = alive.begin()
    assert alive.claim(call, [b"a"]) == ["own"]
    killed = dead.begin()
    dead.claim(killed, [b"b"])
    dead.end(killed)  # its thread renews it no more
    time.sleep(1.2)

    assert other.claim(other.begin(), [b"a", b"b"]) == ["other", "own"]
    alive.release(call, [b"a"])
    alive.end(call)
    assert other.claim(other.begin(), [b"a", b"b"], again=[b"a"]) == ["own", "other"]


def test_claims_may_be_made_and_released_twice(state: RedisState) -> None:
    """A command may be carried out although its answer never came."""
    claims = RedisClaims(state.server)
    one, two = claims.begin(), claims.begin()
    names = [bytes([number]) * 16 for number in range(3)]
    assert claims.claim(one, names) == claims.claim(one, names) == ["own"] * 3
    for _ in range(2):
        claims.release(one, names[:1], names[1:2])
    states = claims.claim(two, names)
    claims.release(one, names, [])

    assert states == claims.claim(two, names) == ["done", "own", "other"] or states == ["done", "own", "other"]
    claims.end(one)
    claims.end(two)


# The server is gone


def warned(events: Sequence[Event], what: str) -> int:
    return sum(isinstance(event, SharedStateFailed) and event.what == what for event in events)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::embedrouter.errors.CacheWarning")
@pytest.mark.parametrize("trouble", ["stop", "suspend", "full"])
def test_calls_go_on_while_the_server_is_gone_and_share_again_afterwards(
    redis: RedisServer, trouble: str, asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, each call waits a bounded time, and no program is started again."""
    monkeypatch.setattr(_shared_state, "PATIENCE", 0.5)
    monkeypatch.setattr(_shared_state, "PAUSE", 1.0)
    events: list[Event] = []
    fake = FakeBackend()
    router = worker(
        fake, redis.address + "?socket_timeout=0.5", cache=tmp_path / "cache", on_event=events.append, retry=NO_WAITING
    )
    embed(router, asynchronous, ["a"], input_type="document")
    admin = RedisState(redis.address)
    admin.server.client.config_set("maxmemory", "1" if trouble == "full" else "0")
    if trouble != "full":
        getattr(redis, trouble)()
    seconds = []
    for text in "bcd":
        began = time.monotonic()
        assert embed(router, asynchronous, [text], input_type="document").cached == (False,)
        seconds.append(time.monotonic() - began)
    gone = warned(events, "limits"), warned(events, "claims")
    if trouble != "full":
        redis.start() if trouble == "stop" else redis.resume()
    admin.server.client.config_set("maxmemory", "0")
    admin.server.client.flushall()
    time.sleep(1.1)
    embed(router, asynchronous, ["e"], input_type="document")
    keys = admin.server.client.keys("embedrouter:limits:*state")
    admin.close()

    assert gone == (1, 1)
    assert max(seconds) < 8
    assert sum(seconds[1:]) < 8
    assert keys, "the limits are shared again"


# Records


@pytest.fixture(params=["folder", "redis"])
def records(request: pytest.FixtureRequest, tmp_path: Path, state: RedisState) -> Callable[[], Records]:
    """Return what opens the same records, as another process does."""
    if request.param == "folder":
        return lambda: FolderRecords(tmp_path / "records")
    return lambda: state.records("some")


@pytest.mark.parametrize("name", ["a/b", "../x", "ünï çödé", "a.json", "c:\\d", "x" * 60])
def test_records_are_written_once_or_again_under_any_name(records: Callable[[], Records], name: str) -> None:
    """Of two processes that write at the same time one wins."""
    first, second = records(), records()
    assert first.read(name) is None
    first.write_once(name, {"space": "one"})
    second.write_once(name, {"space": "two"})
    once = second.read(name)
    second.write_again(name, {"space": "three"})

    assert (once, first.read(name)) == ({"space": "one"}, {"space": "three"})
    assert first.names() == [name]
    first.remove(name)
    first.remove(name)
    assert (second.read(name), second.names()) == (None, [])


def test_an_index_is_held_to_its_space_by_all_that_share_records(records: Callable[[], Records]) -> None:
    """Also by a guard that was made before."""
    one, two = Space("one", 8), Space("two", 8)
    early = IndexGuard(records(), "handbook", two)
    guard = IndexGuard(records(), "handbook", one)
    assert not guard.check()
    guard.record()
    assert guard.check()

    with pytest.raises(SpaceMismatchError, match="'handbook'"):
        early.check()
    with pytest.raises(SpaceMismatchError):
        IndexGuard(records(), "handbook", two)
    move("handbook", two, records())
    assert recorded(records()) == {"handbook": two}
    assert forget("handbook", records()) == two
    IndexGuard(records(), "handbook", one)


def test_the_name_that_one_worker_was_told_counts_for_all(records: Callable[[], Records]) -> None:
    """A server that answers with another model later is found out by each of them."""
    first, second = ServedNames(records()), ServedNames(records())
    first.remember("m", "space", "one")
    assert (second.known("m", "space"), second.remember("m", "space", "two")) == (None, "one")
    second.forget("m", "space")

    assert ServedNames(records()).remember("m", "space", "three") == "three"


def embeddings(state: RedisState, space: str, **settings: Any) -> RouterEmbeddings:
    fake = FakeBackend(space=space, dimensions=8)
    return RouterEmbeddings(worker(fake, state, cache=None, **settings), index="handbook")


def test_workers_with_one_state_guard_an_index_together(
    state: RedisState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any machine. The command that forgets it is told the server."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "one machine"))
    embeddings(state, "one").embed_documents(["text"])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine"))
    with pytest.raises(SpaceMismatchError, match=r"forget-index handbook --state redis://127"):
        embeddings(state, "two")
    address = f"{state.place}?prefix={state.server.prefix}"
    done = CliRunner().invoke(app, ["cache", "forget-index", "handbook", "--state", address])

    assert done.exit_code == 0, done.output
    embeddings(state, "two").embed_documents(["text"])


def test_while_the_server_is_gone_queries_are_answered_and_new_workers_add_no_documents(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has seen the record goes on."""
    monkeypatch.setattr(_index_records, "PAUSE", 0.2)
    monkeypatch.setattr(_index_records, "FRESH", 0.0)
    state, events = RedisState(redis.address + "?socket_timeout=0.5"), list[Event]()
    old = embeddings(state, "one", on_event=events.append)
    old.embed_documents(["text"])
    old.embed_query("query")
    redis.stop()
    new = embeddings(state, "one", on_event=events.append)

    assert len(old.embed_documents(["another"])[0]) == 8
    assert len(new.embed_query("query")[0:8]) == 8
    assert warned(events, "records") == 1
    with pytest.raises(ConfigError, match=r"handbook.*cannot be read"):
        new.embed_documents(["text"])
    redis.start()
    time.sleep(0.3)
    new.embed_documents(["text"])
