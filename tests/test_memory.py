"""Recent queries are answered from memory: no look into the cache, no worse vector than was asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Model, Router, tag
from embedrouter.cache import QueryMemory
from embedrouter.cache._memory import CHARACTER_BYTES, ENTRY_BYTES
from embedrouter.errors import ConfigError, DegradedWarning, UnavailableError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.router import embed_alone, wiring_of
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Candidate, Found, InputType, Origin, OverlongPolicy
from tests.either import embed
from tests.emulator import Emulator, vector
from tests.properties import examples
from tests.side_by_side import HANG


class Counted(MemoryCache):
    """Counts its reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        self.reads += 1
        return super().get_many(keys)


STORES: WeakKeyDictionary[Router, Counted] = WeakKeyDictionary()


def counted(models: list[Model], **changes: Any) -> Router:
    """Return a router with a store that counts its reads, unless ``changes`` name another."""
    settings = {"cache": Counted(), "ledger": ":memory:", "retry": NO_WAITING, **changes}
    router = Router(models, **settings)
    if isinstance(settings["cache"], Counted):
        STORES[router] = settings["cache"]
    return router


def router_for(fake: FakeBackend, **changes: Any) -> Router:
    return counted([fake.model(price="1")], **changes)


def tiered(fake: FakeBackend, **changes: Any) -> Router:
    """Return a router whose tiers are models of one space, the better the dearer."""
    prices = {"low": "1", "medium": "2", "high": "3"}
    models = [fake.model(f"fake:{tier}", tier=tier, price=price) for tier, price in prices.items()]
    return counted(models, **changes)


def reads(router: Router) -> int:
    return STORES[router].reads


# What is kept, and what is not


@pytest.mark.parametrize("way", ["router", "langchain", "llama_index"])
async def test_a_warm_query_makes_no_look_into_the_cache(emulator: Emulator, way: str) -> None:
    """Whichever way it comes: the sync form, too, finds what the other one asked."""
    store = Counted()
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")
    router = Router([model], cache=store, ledger=":memory:")
    chain, index = RouterEmbeddings(router), RouterEmbedding(router=router)
    asking: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "router": (
            lambda: router.embed(["q"], input_type="query").vectors[0],
            lambda: router.aembed(["q"], input_type="query"),
        ),
        "langchain": (lambda: chain.embed_query("q"), lambda: chain.aembed_query("q")),
        "llama_index": (lambda: index.get_query_embedding("q"), lambda: index.aget_query_embedding("q")),
    }
    ask, aask = asking[way]
    await aask()
    before = store.reads
    answers = [ask(), ask()]
    await aask()
    await router.aclose()

    assert store.reads == before
    assert emulator.calls == 1
    for answer in answers:
        assert np.allclose(answer, vector("text-embedding-3-small", None, "query", "q"), atol=1e-6)


async def test_a_warm_query_makes_no_thread_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task gets its result before the loop turns once."""
    router = router_for(FakeBackend())
    await router.aembed(["a", "b"], input_type="query")

    def refuse(*_: object) -> None:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    call = router.aembed(["b", "a", "b"], input_type="query")
    with pytest.raises(StopIteration) as end:
        call.send(None)

    assert end.value.value.cached == (True,) * 3


@pytest.mark.parametrize(("asked", "tokens"), [(["a", "one two", "a"], 4), (["one two"], 2), (("one two",), 2)])
def test_what_comes_from_memory_is_told_and_booked_as_what_comes_from_the_cache(
    asked: Sequence[str], tokens: int, asynchronous: bool
) -> None:
    """Where a vector came from changes nothing else."""
    fake = FakeBackend()
    routers = [router_for(fake), router_for(fake, cache_memory=0)]
    for router in routers:
        router.embed(["one two", "a"], input_type="query")
    with tag("later"):
        remembered, read = (embed(router, asynchronous, asked, input_type="query") for router in routers)
    saved = Decimal(tokens) / 1_000_000

    assert remembered.cached == read.cached == (True,) * len(asked)
    assert remembered.models == read.models == ("fake:model",) * len(asked)
    for name in ("space", "degraded", "shortened", "usage"):
        assert getattr(remembered, name) == getattr(read, name)
    assert remembered.usage.saved == saved
    assert np.array_equal(remembered.vectors, read.vectors)
    for router in routers:
        assert router.usage.saved == router.ledger.totals("model")["fake:model"].saved == saved
        assert router.ledger.totals("tag")["later"].saved == saved
        assert router.ledger.totals("tag")["later"].saved_texts == len(asked)


def test_what_a_query_finds_in_the_cache_is_in_memory_from_then_on(asynchronous: bool) -> None:
    """A new router begins with the cache."""
    fake = FakeBackend()
    store = Counted()
    router_for(fake, cache=store).embed(["a"], input_type="query")
    router = router_for(fake, cache=store)
    embed(router, False, ["a"], input_type="query")
    store.rows.clear()
    before = store.reads
    result = embed(router, asynchronous, ["a"], input_type="query")

    assert store.reads == before
    assert np.array_equal(result.vectors[0], fake.vector("a", "query"))
    assert len(fake.calls) == 1


def test_documents_never_enter_it(asynchronous: bool) -> None:
    """They are read once; nor is a document answered with a query's vector."""
    fake = FakeBackend()
    router = router_for(fake)
    for _ in range(2):
        before = reads(router)
        embed(router, asynchronous, ["a", "b"], input_type="document")
        assert reads(router) > before
    embed(router, False, ["a"], input_type="query")
    assert len(fake.calls) == 2
    document = embed(router, asynchronous, ["a"], input_type="document")

    assert np.array_equal(document.vectors[0], fake.vector("a", "document"))


@pytest.mark.parametrize(("changes", "calls"), [({"cache": None}, 2), ({"cache_memory": 0}, 1)])
def test_without_a_cache_or_without_room_nothing_is_kept(
    changes: dict[str, Any], calls: int, asynchronous: bool
) -> None:
    """Who wants no cache wants none; 0 bytes are the way to switch it off."""
    fake = FakeBackend()
    router = router_for(fake, **changes)
    for _ in range(2):
        embed(router, asynchronous, ["a"], input_type="query")

    assert len(fake.calls) == calls
    if "cache" not in changes:
        assert reads(router) > 1


def test_a_negative_size_is_refused() -> None:
    """When the router is built, naming the argument."""
    with pytest.raises(ConfigError, match="cache_memory"):
        router_for(FakeBackend(), cache_memory=-1)


def test_an_estimate_knows_what_is_in_memory() -> None:
    """And takes no look into the cache for it."""
    router = router_for(FakeBackend())
    router.embed(["a"], input_type="query")
    before = reads(router)

    assert router.estimate(["a", "a"], input_type="query").cached == 1
    assert reads(router) == before
    estimate = router.estimate(["a", "b"], input_type="query")
    assert (estimate.cached, estimate.tokens) == (1, 1)


def test_rows_damaged_since_do_not_matter(asynchronous: bool) -> None:
    """What is in memory was checked when it came."""
    fake = FakeBackend()
    router = router_for(fake)
    router.embed(["a"], input_type="query")
    STORES[router].rows = dict.fromkeys(STORES[router].rows, b"damaged")
    result = embed(router, False, ["a"], input_type="query")

    assert np.array_equal(result.vectors[0], fake.vector("a", "query"))
    assert router.cache.damaged == 0
    router.close()
    embed(router, asynchronous, ["a"], input_type="query")
    assert router.cache.damaged == 1
    assert len(fake.calls) == 2


def test_a_model_asked_alone_is_not_answered_from_memory() -> None:
    """Doctor compares models with it."""
    fake = FakeBackend()
    router = router_for(fake)
    router.embed(["a"], input_type="query")
    embed_alone(router, 0, ["a"], "query")

    assert len(fake.calls) == 2


# Coherence: the best vector known, never a worse one than was asked for


def test_a_better_vector_takes_the_place_of_a_lesser_one(asynchronous: bool) -> None:
    """And a lesser one never that of a better one."""
    fake = FakeBackend()
    router = tiered(fake)

    def asked(tier: str) -> tuple[str, bool]:
        result = embed(router, asynchronous, ["a"], input_type="query", tier=tier)
        return result.models[0], result.cached[0]

    def model(tier: str) -> tuple[str, bool]:
        before = reads(router)
        result = router.embed(["a"], input_type="query", tier=tier)
        assert reads(router) == before
        return result.models[0], result.cached[0]

    assert asked("low") == ("fake:low", False)
    assert asked("medium") == ("fake:medium", False)
    router.embed(["a"], input_type="query", tier="medium")
    assert model("low") == model("medium") == ("fake:medium", True)
    assert asked("high") == ("fake:high", False)
    router.embed(["a"], input_type="query", tier="high")
    assert model("low") == model("medium") == model("high") == ("fake:high", True)


def test_the_tier_that_is_asked_decides(asynchronous: bool) -> None:
    """A lesser vector in memory does not answer; nothing is degraded in silence."""
    fake = FakeBackend()
    router = tiered(fake)
    router.embed(["a"], input_type="query", tier="low")
    result = embed(router, asynchronous, ["a"], input_type="query", tier="high")

    assert (result.models, result.degraded) == (("fake:high",), (False,))


@pytest.mark.filterwarnings("ignore::embedrouter.errors.DegradedWarning")
def test_a_degraded_answer_is_not_remembered_as_a_better_one(asynchronous: bool) -> None:
    """When the better model is up again it is asked again."""
    fake = FakeBackend(outcomes=[UnavailableError("down", retryable=False)])
    models = [fake.model("fake:high", price="3"), fake.model("fake:low", tier="low", price="1")]
    router = Router(
        models, cache=Counted(), ledger=":memory:", retry=NO_WAITING, when_unavailable="degrade", query_tier="high"
    )
    degraded = router.embed(["a"], input_type="query")
    low = router.embed(["a"], input_type="query", tier="low")
    better = embed(router, asynchronous, ["a"], input_type="query")

    assert (degraded.models, degraded.degraded) == (("fake:low",), (True,))
    assert (low.models, low.degraded, low.cached) == (("fake:low",), (False,), (True,))
    assert (better.models, better.degraded) == (("fake:high",), (False,))
    assert len(fake.calls) == 3


def test_a_degraded_answer_from_what_is_known_warns_all_the_same() -> None:
    """Memory must not make it silent."""
    fake = FakeBackend(outcomes=[None, *[UnavailableError("down", retryable=False)] * 2])
    models = [fake.model("fake:high", price="3"), fake.model("fake:low", tier="low", price="1")]
    router = Router(models, cache=Counted(), ledger=":memory:", retry=NO_WAITING, when_unavailable="degrade")
    router.embed(["a"], input_type="query", tier="low")
    for _ in range(2):
        with pytest.warns(DegradedWarning):
            result = router.embed(["a"], input_type="query", tier="high")
        assert (result.models, result.degraded, result.cached) == (("fake:low",), (True,), (True,))


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_a_text_over_the_limit_is_remembered_as_what_it_stands_for(policy: OverlongPolicy, asynchronous: bool) -> None:
    """Its parts are ordinary texts, its own vector is that of the parts and marked."""
    fake = FakeBackend()
    router = Router(
        [fake.model(max_input_tokens=2)], cache=Counted(), ledger=":memory:", retry=NO_WAITING, on_too_long=policy
    )
    long = "one two three four"
    cold = router.embed([long], input_type="query")
    for _ in range(3):
        warm = embed(router, asynchronous, [long], input_type="query")
        assert (warm.cached, warm.shortened) == ((True,), (True,))
        assert np.array_equal(warm.vectors, cold.vectors)
    part = "".join(fake.calls[0].texts[:1])
    known = len(fake.calls)

    assert np.array_equal(router.embed([part], input_type="query").vectors[0], fake.vector(part, "query"))
    assert len(fake.calls) == known


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_and_disk_agree(dtype: str, tmp_path: Path) -> None:
    """A query's vector is the same each time, with any number type of the rows."""
    fake = FakeBackend()
    router = router_for(fake, cache=tmp_path, cache_dtype=dtype)
    cold, warm = (router.embed(["a"], input_type="query").vectors for _ in range(2))
    router.close()
    read = router.embed(["a"], input_type="query").vectors
    router.close()

    assert np.array_equal(cold, warm)
    assert np.array_equal(cold, read)


# Results that their callers change


def test_a_changed_result_changes_no_other(asynchronous: bool) -> None:
    """The array that came first, that of a warm call, and that which the backend made."""
    fake = FakeBackend()
    router = router_for(fake)
    for _ in range(4):
        result = embed(router, False, ["a", "b", "a"], input_type="query")
        result.vectors[:] = np.nan
    result = embed(router, asynchronous, ["a", "b"], input_type="query")

    assert np.array_equal(result.vectors, [fake.vector("a", "query"), fake.vector("b", "query")])


def test_results_of_memory_are_the_callers_own() -> None:
    """Writable, contiguous, and of no hidden memory."""
    router = router_for(FakeBackend())
    router.embed(["a"], input_type="query")
    first, second = (router.embed(["a"], input_type="query").vectors for _ in range(2))

    assert first.flags.writeable
    assert first.flags.c_contiguous
    assert not np.shares_memory(first, second)


# Closing, copying, forking, threads


async def test_closing_forgets() -> None:
    """Closing a router gives its memory back; after that the cache answers."""
    router = router_for(FakeBackend())
    for close in (router.close, router.aclose):
        router.embed(["a"], input_type="query")
        before = reads(router)
        router.embed(["a"], input_type="query")
        assert reads(router) == before
        waiting = close()
        if waiting is not None:
            await waiting
        assert router.embed(["a"], input_type="query").cached == (True,)
        assert reads(router) > before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_anew() -> None:
    """Also if another thread is inside at the moment of the fork: its lock would never be released in the child."""
    memory = QueryMemory(10**8)
    large, end = known(1, dimensions=10**6), threading.Event()

    def keep() -> None:
        while not end.is_set():
            memory.clear()
            memory.keep("a", large)

    thread = threading.Thread(target=keep)
    thread.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if not child:
            signal.alarm(10)
            empty = len(memory) == memory.size == 0
            memory.keep("b", known(2))
            os._exit(0 if empty and memory.recall("b", 2) and not memory.recall("a", 0) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    end.set()
    thread.join()

    assert codes == [0] * 20
    assert memory.recall("a", 1) is not None


@pytest.mark.slow
def test_threads_that_ask_while_it_is_cleared_get_their_own_vector() -> None:
    """And the size counts exactly what is kept."""
    size = 5 * taken("0000")
    memory = QueryMemory(size)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(HANG)
        for turn in range(400):
            text = f"{(turn * 7 + number) % 12:04}"
            memory.keep(text, known(turn % 3, float(text)))
            found = memory.recall(text, 1)
            assert found is None or (found.vector[0] == float(text) and found.origin.candidate.rank >= 1)
            if turn % 50 == number:
                memory.clear()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result(HANG)

    assert memory.size == accounted(memory, [f"{number:04}" for number in range(12)]) <= size


# The bound


def candidate(rank: int) -> Candidate:
    tiers = ("low", "medium", "high")
    prices = [FakeBackend().model(f"fake:{tier}", tier=tier) for tier in tiers]
    return CANDIDATES.setdefault(rank, wiring_of(Router(prices, cache=None, ledger=":memory:")).candidates[rank])


CANDIDATES: dict[int, Candidate] = {}


def known(rank: int, number: float = 1.0, dimensions: int = 8) -> Found:
    return Found(np.full(dimensions, number, np.float32), 1, Origin(candidate(rank), cached=False))


def taken(text: str, dimensions: int = 8) -> int:
    return CHARACTER_BYTES * len(text) + 4 * dimensions + ENTRY_BYTES


def accounted(memory: QueryMemory, texts: Sequence[str]) -> int:
    """Return the bytes of those texts that are kept."""
    return sum(taken(text, len(found.vector)) for text in texts if (found := memory.recall(text, 0)))


class Expected:
    """What a memory should keep: a plain list, from the least to the most recently used."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[tuple[str, int, float]] = []

    def _find(self, text: str) -> tuple[str, int, float] | None:
        return next((entry for entry in self.entries if entry[0] == text), None)

    def recall(self, text: str, rank: int) -> float | None:
        entry = self._find(text)
        if entry is None or entry[1] < rank:
            return None
        self.entries.remove(entry)
        self.entries.append(entry)
        return entry[2]

    def keep(self, text: str, rank: int, number: float) -> None:
        if taken(text) > self.size or self.recall(text, rank) is not None:
            return
        self.entries = [entry for entry in self.entries if entry[0] != text]
        self.entries.append((text, rank, number))
        while sum(taken(entry[0]) for entry in self.entries) > self.size:
            self.entries.pop(0)


TEXTS = ["a", "b", "ж" * 10, "long " * 30, "longer " * 100, "𝄞"]


@given(
    size=st.integers(0, 4000),
    steps=st.lists(
        st.tuples(st.sampled_from(["keep", "recall", "clear"]), st.sampled_from(TEXTS), st.integers(0, 2)), max_size=60
    ),
)
def test_it_holds_what_was_asked_last_and_the_best_of_it_within_its_bytes(
    size: int, steps: list[tuple[str, str, int]]
) -> None:
    """Any rows are kept and asked for, in any order."""
    memory, expected = QueryMemory(size), Expected(size)
    for turn, (step, text, rank) in enumerate(steps):
        if step == "keep":
            memory.keep(text, known(rank, float(turn)))
            expected.keep(text, rank, float(turn))
        elif step == "recall":
            found = memory.recall(text, rank)
            assert (None if found is None else float(found.vector[0])) == expected.recall(text, rank)
            assert found is None or found.origin.cached
        elif turn % 7 == 0:
            memory.clear()
            expected.entries = []
        assert len(memory) == len(expected.entries)
        assert memory.size == sum(taken(entry[0]) for entry in expected.entries) <= size
    assert {text for text in TEXTS if memory.recall(text, 0)} == {entry[0] for entry in expected.entries}


def test_texts_that_grow_when_they_are_sent_do_not_pass_the_bound() -> None:
    """Python keeps a text's UTF-8 beside it from when an SDK first asks for it."""
    orjson = pytest.importorskip("orjson")
    size = 10 * taken("ж" * 1001)
    memory = QueryMemory(size)
    for number in range(100):
        text = "ж" * 1000 + chr(ord("а") + number)
        memory.keep(text, known(0))
        orjson.dumps(text)

    assert len(memory) == 10
    assert memory.size == size


def test_a_router_keeps_to_its_bytes_and_forgets_what_was_asked_longest_ago() -> None:
    """The rest is in the cache."""
    fake = FakeBackend()
    router = router_for(fake, cache_memory=3 * taken("q1"))
    for text in ("q1", "q2", "q3", "q1", "q4"):
        router.embed([text], input_type="query")

    before = reads(router)
    router.embed(["q3", "q1", "q4"], input_type="query")
    assert reads(router) == before
    router.embed(["q2"], input_type="query")
    assert reads(router) > before
    assert len(fake.calls) == 4


# Any order of calls


@examples(40)
@given(
    calls=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4),
            st.sampled_from(["low", "medium", "high"]),
            st.sampled_from(["query", "query", "document"]),
        ),
        max_size=15,
    ),
    size=st.sampled_from([0, 2 * taken("a"), 10**6]),
)
def test_memory_changes_no_answer(calls: list[tuple[list[str], str, InputType]], size: int) -> None:
    """Vectors, models, marks, bills and savings are those of a router without it."""
    fakes = [FakeBackend(), FakeBackend()]
    routers = [tiered(fake, cache_memory=memory) for fake, memory in zip(fakes, (size, 0), strict=True)]
    for texts, tier, kind in calls:
        with_memory, without = (router.embed(texts, input_type=kind, tier=tier) for router in routers)
        assert np.array_equal(with_memory.vectors, without.vectors)
        assert with_memory.models == without.models
        assert with_memory.cached == without.cached
        assert with_memory.usage == without.usage

    assert fakes[0].calls == fakes[1].calls
    assert routers[0].ledger.totals("model") == routers[1].ledger.totals("model")
