"""More texts than memory holds: results come chunk by chunk, in order, and nothing is read before it is needed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedrouter
from embedrouter import EmbeddingResult, Router, TieredRouter
from embedrouter.errors import (
    ConfigError,
    DegradedWarning,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    UnavailableError,
)
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType, Usage, Vectors
from tests.side_by_side import HANG

MANY = int(os.environ.get("EMBEDROUTER_ITER_TEXTS", "60_000"))
STATUS = Path("/proc/self/status")


def router_for(fake: FakeBackend, **changes: Any) -> Router:
    model = {"price": "1", **changes.pop("model", {})}
    return Router(
        [fake.model(**model)], **{"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **changes}
    )


def iterate(
    router: Router | TieredRouter, asynchronous: bool, texts: Iterable[str], **asked: Any
) -> Iterator[EmbeddingResult]:
    """Return the results in either form; the asynchronous ones are awaited as they are asked for."""
    asked = {"input_type": "document", **asked}
    if not asynchronous:
        return router.embed_iter(texts, **asked)
    return awaited(router, router.aembed_iter(texts, **asked))


def awaited(router: Router | TieredRouter, results: Any) -> Iterator[EmbeddingResult]:
    async def following() -> EmbeddingResult | None:
        return await anext(results, None)

    with asyncio.Runner() as runner:
        try:
            while (result := runner.run(following())) is not None:
                yield result
        finally:
            runner.run(results.aclose())
            runner.run(router.aclose())


class Read:
    """Texts without end that count how many were read."""

    def __init__(self) -> None:
        self.texts = 0
        self.closed = False

    def __iter__(self) -> Iterator[str]:
        try:
            for number in itertools.count():
                self.texts += 1
                yield f"text {number}"
        finally:
            self.closed = True


# What comes


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, lambda texts: dict.fromkeys(texts).keys(), lambda texts: (text for text in texts)]
)
def test_results_are_those_of_consecutive_texts_in_order(
    kind: Callable[[list[str]], Iterable[str]], asynchronous: bool
) -> None:
    """Of everything that can be iterated; the last one has what is left."""
    fake = FakeBackend()
    texts = list("abcdefg")
    results = list(iterate(router_for(fake), asynchronous, kind(texts), chunk_size=3))

    assert [len(result) for result in results] == [3, 3, 1]
    for text, vector in zip(texts, np.concatenate([result.vectors for result in results]), strict=True):
        assert np.array_equal(vector, fake.vector(text, "document"))
    assert {result.space for result in results} == {router_for(fake).space}


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=20), st.integers(1, 25), st.sampled_from(["document", "query"]))
def test_together_they_are_what_embed_gives(texts: list[str], size: int, input_type: InputType) -> None:
    """The same vectors for the same money: an equal text of an earlier chunk is in the cache."""
    one, other = FakeBackend(), FakeBackend()
    whole = router_for(one).embed(texts, input_type=input_type)
    results = list(router_for(other).embed_iter(texts, input_type=input_type, chunk_size=size))
    usage = sum((result.usage for result in results), Usage())

    assert [len(result) for result in results] == [
        len(texts[start : start + size]) for start in range(0, len(texts), size)
    ]
    if results:
        assert np.array_equal(np.concatenate([result.vectors for result in results]), whole.vectors)
    assert tuple(model for result in results for model in result.models) == whole.models
    assert (usage.tokens, usage.cost, usage.saved) == (whole.usage.tokens, whole.usage.cost, whole.usage.saved)
    assert sent(other) == sent(one)


def sent(fake: FakeBackend) -> list[str]:
    return [text for call in fake.calls for text in call.texts]


@pytest.mark.parametrize("texts", [[], iter([]), (text for text in list[str]())])
def test_no_texts_have_no_results(texts: Iterable[str]) -> None:
    """No empty one either."""
    router = router_for(FakeBackend())

    assert list(iterate(router, False, texts)) == []
    assert list(iterate(router, True, texts)) == []


class Wide(FakeBackend):
    """Has long vectors, which are made fast."""

    def vector(self, text: str, input_type: InputType) -> Vectors:
        return np.ones(self.dimensions, np.float32)


def test_a_chunk_has_64_mib_of_vectors(asynchronous: bool) -> None:
    """Unless another size is asked for: that of a chunk must not depend on the model's dimensions."""
    router = router_for(Wide(dimensions=2**20), cache=None)  # 4 MiB each
    texts = map(str, range(17))

    assert [result.vectors.nbytes // 2**20 for result in iterate(router, asynchronous, texts)] == [64, 4]


def test_a_chunk_has_at_least_one_text() -> None:
    """However long its vector is."""
    router = router_for(Wide(dimensions=2**24 + 1), cache=None)

    assert [len(result) for result in router.embed_iter(["ab", "cd"], input_type="document")] == [1, 1]


# When it is read


def test_texts_are_read_when_they_are_needed(asynchronous: bool) -> None:
    """None at the call, and then no more than the chunk that is asked for: the texts may have no end."""
    texts = Read()
    results = iterate(router_for(FakeBackend()), asynchronous, texts, chunk_size=4)

    assert texts.texts == 0
    for read in (4, 8, 12):
        assert len(next(results)) == 4
        assert texts.texts == read
    cast("Any", results).close()
    assert texts.closed


def test_a_chunk_is_in_the_cache_before_the_next_is_read(tmp_path: Path, asynchronous: bool) -> None:
    """So that a run that dies in the reading of its texts loses nothing."""
    fake, reader = FakeBackend(), FakeBackend()
    router, other = router_for(fake, cache=tmp_path), router_for(reader, cache=tmp_path)
    kept: list[bool] = []

    def texts() -> Iterator[str]:
        yield from ("a", "b")
        kept.extend(other.embed(["a", "b"], input_type="document").cached)
        yield "c"
        raise OSError("the disk with the texts is gone")

    results = iterate(router, asynchronous, texts(), chunk_size=2)

    assert next(results).cached == (False, False)
    with pytest.raises(OSError, match="is gone"):
        next(results)
    assert kept == [True, True]
    assert reader.calls == []
    other.close()
    router.close()


def test_what_was_embedded_is_not_paid_again(asynchronous: bool) -> None:
    """The same call, made again after it was left, begins with the cache."""
    fake = FakeBackend()
    router = router_for(fake)
    left = iterate(router, asynchronous, list("abcdef"), chunk_size=2)
    next(left)
    next(left)
    cast("Any", left).close()
    results = list(iterate(router, asynchronous, list("abcdef"), chunk_size=3))

    assert [result.cached for result in results] == [(True, True, True), (True, False, False)]
    assert sent(fake) == list("abcdef")


# Texts that come asynchronously


class AsyncRead:
    """Texts without end that come one turn of the loop after the other, and count how many were read."""

    def __init__(self) -> None:
        self.texts = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            for number in itertools.count():
                await asyncio.sleep(0)
                self.texts += 1
                yield f"text {number}"
        finally:
            self.closed = True


async def asynchronously(texts: Iterable[Any]) -> AsyncIterator[Any]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


@pytest.mark.parametrize("tiered", [False, True], ids=["Router", "TieredRouter"])
async def test_texts_may_come_asynchronously(tiered: bool) -> None:
    """The results are those of the same texts in a list, duplicates and the last short chunk included."""
    fake = FakeBackend()
    texts = list("abcabcd")
    router = router_for(fake)
    asked = TieredRouter({"high": router}) if tiered else router
    results = [one async for one in asked.aembed_iter(asynchronously(texts), input_type="document", chunk_size=3)]
    await router.aclose()

    assert [len(result) for result in results] == [3, 3, 1]
    assert [result.cached for result in results] == [(False,) * 3, (True,) * 3, (False,)]
    for text, vector in zip(texts, np.concatenate([result.vectors for result in results]), strict=True):
        assert np.array_equal(vector, fake.vector(text, "document"))


@pytest.mark.parametrize("number", [0, 3, 6])
async def test_no_chunk_is_empty(number: int) -> None:
    """Where the last one is full, nothing follows."""
    texts = asynchronously(map(str, range(number)))
    results = [one async for one in router_for(FakeBackend()).aembed_iter(texts, input_type="query", chunk_size=3)]

    assert [len(result) for result in results] == [3] * (number // 3)


async def test_texts_that_come_asynchronously_are_read_when_they_are_needed() -> None:
    """They may have no end; and they are closed when the iteration is left."""
    texts, router = AsyncRead(), router_for(FakeBackend())
    results = router.aembed_iter(texts, input_type="document", chunk_size=4)

    assert texts.texts == 0
    for read in (4, 8, 12):
        assert len(await anext(results)) == 4
        assert texts.texts == read
    await results.aclose()
    del results
    gc.collect()
    async with asyncio.timeout(HANG):
        while not texts.closed:  # a generator that nothing refers to any more is closed by the loop
            await asyncio.sleep(0)
    await router.aclose()


async def test_an_error_of_the_texts_passes_unchanged_and_loses_nothing() -> None:
    """What came before it is embedded and in the cache."""

    async def texts() -> AsyncIterator[str]:
        for text in "abc":
            yield text
        raise OSError("the stream is gone")

    fake = FakeBackend()
    router = router_for(fake)
    results = router.aembed_iter(texts(), input_type="document", chunk_size=2)

    assert len(await anext(results)) == 2
    with pytest.raises(OSError, match="is gone"):
        await anext(results)
    assert await anext(results, None) is None
    assert (await router.aembed(["a", "b"], input_type="document")).cached == (True, True)
    await router.aclose()


@pytest.mark.parametrize(("wrong", "says"), [("", "empty: 4"), (7, "not a string but int: 4")])
async def test_positions_of_texts_that_come_asynchronously_count_from_the_first(wrong: Any, says: str) -> None:
    """Chunks before the one at fault are embedded."""
    fake = FakeBackend()
    router = router_for(fake)
    results = router.aembed_iter(asynchronously(["a", "b", "c", "d", wrong]), input_type="document", chunk_size=3)

    assert len(await anext(results)) == 3
    with pytest.raises(InvalidInputError, match=says) as refused:
        await anext(results)
    assert refused.value.indices == (4,)
    assert sent(fake) == ["a", "b", "c"]
    await router.aclose()


async def test_the_synchronous_form_takes_no_texts_that_come_asynchronously() -> None:
    """It could not wait for them; the call itself says so."""
    router = router_for(FakeBackend())
    with pytest.raises(InvalidInputError, match=r"not an asynchronous AsyncRead\. Write aembed_iter"):
        router.embed_iter(AsyncRead(), input_type="document")  # type: ignore[arg-type]


# What is refused at the call


@pytest.mark.parametrize("form", ["embed_iter", "aembed_iter"])
@pytest.mark.parametrize("tiered", [False, True], ids=["Router", "TieredRouter"])
@pytest.mark.parametrize(
    ("texts", "asked", "error", "says"),
    [
        ("one text", {}, InvalidInputError, "not one str"),
        (b"one text", {}, InvalidInputError, "not one bytes"),
        (7, {}, InvalidInputError, "not one int"),
        (["a"], {"input_type": "passage"}, ConfigError, "input_type"),
        (["a"], {"tier": "highest"}, ValueError, "low, medium, high"),
        (["a"], {"chunk_size": 0}, ConfigError, "chunk_size"),
        (["a"], {"chunk_size": -1}, ConfigError, "chunk_size"),
        (["a"], {"chunk_size": 1e5}, ConfigError, "chunk_size"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_call_is_said_at_the_call(
    form: str, tiered: bool, texts: Any, asked: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Not where the results are iterated later."""
    fake = FakeBackend()
    router = router_for(fake)
    iterating = getattr(TieredRouter({"high": router}) if tiered else router, form)

    with pytest.raises(error, match=says):
        iterating(texts, **{"input_type": "document", **asked})
    assert fake.calls == []


# Tiers


def models(fake: FakeBackend) -> Router:
    prices = {"low": "1", "medium": "2", "high": "3"}
    return Router([fake.model(f"fake:{tier}", tier=tier, price=price) for tier, price in prices.items()], cache=None)


@pytest.mark.parametrize(
    ("around", "asked", "expected"),
    [(None, None, "high"), ("low", None, "low"), (None, "low", "low"), ("low", "medium", "medium")],
)
def test_the_tier_around_the_call_counts(
    around: str | None, asked: str | None, expected: str, asynchronous: bool
) -> None:
    """Not the one around the iteration, which may be in other code."""
    router = models(FakeBackend())
    if around is None:
        results = iterate(router, asynchronous, ["a", "b"], input_type="query", tier=asked, chunk_size=1)
    else:
        with embedrouter.tier(around):
            results = iterate(router, asynchronous, ["a", "b"], input_type="query", tier=asked, chunk_size=1)
    with embedrouter.tier("medium" if expected != "medium" else "high"):
        found = [result.models for result in results]

    assert found == [(f"fake:{expected}",)] * 2
    router.close()


def test_a_tiered_router_picks_a_router_at_the_call(asynchronous: bool) -> None:
    """All results of one iteration are of one space."""
    low, high = (router_for(FakeBackend(space=name), cache=None) for name in ("small", "large"))
    both = TieredRouter({"low": low, "high": high})
    with embedrouter.tier(documents="low"):
        cheap = iterate(both, asynchronous, ["a", "b"], chunk_size=1)
    good = iterate(both, asynchronous, ["a", "b"], chunk_size=1)
    with embedrouter.tier(documents="high"):
        assert [result.space.name for result in cheap] == ["small"] * 2
    with embedrouter.tier(documents="low"):
        assert [result.space.name for result in good] == ["large"] * 2
    assert [result.space.name for result in iterate(both, asynchronous, ["a"], tier="low")] == ["small"]


def test_a_tier_above_every_model_is_told_before_any_call(asynchronous: bool) -> None:
    fake = FakeBackend()
    router = router_for(fake, model={"tier": "low"})

    with pytest.raises(NoModelAvailableError, match="tier"):
        list(iterate(router, asynchronous, ["a"], tier="high"))
    assert fake.calls == []


# Errors


@pytest.mark.parametrize(
    ("wrong", "says"), [("", "empty: 4"), (7, "not a string but int: 4"), ("\ud800", r"lone surrogate\): 4")]
)
def test_positions_count_from_the_first_text(wrong: Any, says: str, asynchronous: bool) -> None:
    """The caller knows the texts by their places in the whole; chunks before are embedded and kept."""
    fake = FakeBackend()
    router = router_for(fake)
    results = iterate(router, asynchronous, ["a", "b", "c", "d", wrong, "e"], chunk_size=3)

    assert len(next(results)) == 3
    with pytest.raises(InvalidInputError, match=says) as refused:
        next(results)
    assert refused.value.indices == (4,)
    assert next(results, None) is None
    assert sent(fake) == ["a", "b", "c"]
    assert router.embed(["a", "b", "c"], input_type="document").cached == (True,) * 3


def test_positions_of_what_a_provider_refuses_count_from_the_first_text(asynchronous: bool) -> None:
    """In the message too; the other texts of the chunk are embedded."""
    refusal = InputRejectedError("looks like a secret", indices=(1,))
    fake = FakeBackend(outcomes=[None, refusal])
    router = router_for(fake)
    results = iterate(router, asynchronous, ["a", "b", "c", "d", "e", "f", "e"], chunk_size=4)

    assert len(next(results)) == 4
    with pytest.raises(InputRejectedError, match="texts at 5") as refused:
        next(results)
    assert refused.value.indices == (5,)
    assert router.embed(list("abcde"), input_type="document").cached == (True,) * 5


def test_positions_of_a_text_that_is_too_long_count_from_the_first_text(asynchronous: bool) -> None:
    """Each place at which it stands in its chunk."""
    fake = FakeBackend()
    router = router_for(fake, model={"max_input_tokens": 2})
    results = iterate(router, asynchronous, ["a", "b", "c d e", "f", "c d e"], chunk_size=2)

    assert len(next(results)) == 2
    with pytest.raises(InvalidInputError, match="By position: 2") as refused:
        next(results)
    assert refused.value.indices == (2,)


def test_what_came_before_a_failure_is_kept(asynchronous: bool) -> None:
    """The same call continues from there."""
    fake = FakeBackend(outcomes=[None, UnavailableError("down", retryable=False)])
    router = router_for(fake)
    texts = list("abcdef")
    results = iterate(router, asynchronous, texts, chunk_size=2)
    next(results)
    with pytest.raises(NoModelAvailableError):
        next(results)
    again = list(iterate(router, asynchronous, texts, chunk_size=2))

    assert [result.cached for result in again] == [(True, True), (False, False), (False, False)]
    assert router.usage.cost == Decimal(6) / 1_000_000


def test_queries_of_a_lower_tier_are_told_where_they_are_iterated(asynchronous: bool) -> None:
    """As ``embed`` does: the warning points into the caller's file."""
    fake = FakeBackend(outcomes=[None, UnavailableError("down", retryable=False), None])
    candidates = [fake.model("fake:high", price="3"), fake.model("fake:low", tier="low", price="1")]
    router = Router(candidates, cache=None, ledger=":memory:", retry=NO_WAITING, when_unavailable="degrade")
    results = iterate(router, asynchronous, ["a", "b"], input_type="query", chunk_size=1)

    assert next(results).degraded == (False,)
    with pytest.warns(DegradedWarning, match="fake:low") as told:
        assert next(results).degraded == (True,)
    assert told[0].filename == __file__
    assert list(results) == []


# Ending early


class Held(FakeBackend):
    """Answers its first request, and every other one when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.released = asyncio.Event(), asyncio.Event()

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        answer = self.embed(texts, input_type, timeout=timeout)
        if len(self.calls) > 1:
            self.waiting.set()
            await self.released.wait()
        return answer


def test_leaving_a_loop_leaves_nothing() -> None:
    """No reader of the texts, no thread that only this call would have ended."""
    texts, router = Read(), router_for(FakeBackend())
    before = set(threading.enumerate())
    for _ in router.embed_iter(texts, input_type="document", chunk_size=2):
        break
    gc.collect()
    router.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG)

    assert texts.closed
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("how", ["break", "aclose"])
async def test_leaving_an_asynchronous_loop_leaves_nothing(how: str) -> None:
    """No reader of the texts, no task."""
    texts, router = Read(), router_for(FakeBackend())
    results = router.aembed_iter(texts, input_type="document", chunk_size=2)
    async for _ in results:
        if how == "aclose":
            await results.aclose()
        break
    del results
    gc.collect()
    async with asyncio.timeout(HANG):
        while not texts.closed:  # a generator that nothing refers to any more is closed by the loop
            await asyncio.sleep(0)
    await router.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_iteration_keeps_what_was_under_way() -> None:
    """As a cancelled call does; and it ends there."""
    fake = Held()
    router = router_for(fake)
    results = router.aembed_iter(list("abcdef"), input_type="document", chunk_size=2)
    assert len(await anext(results)) == 2
    task = asyncio.ensure_future(anext(results))
    await asyncio.wait_for(fake.waiting.wait(), HANG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    fake.released.set()
    await router.aclose()

    assert await anext(results, None) is None
    assert sent(fake) == list("abcd")
    assert (await router.aembed(list("abcd"), input_type="document")).cached == (True,) * 4
    await router.aclose()


async def test_two_iterations_go_on_side_by_side() -> None:
    """They share nothing but the cache."""
    router = router_for(FakeBackend())
    one, other = (router.aembed_iter(list("abc"), input_type="document", chunk_size=1) for _ in range(2))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collected(results)) for results in (one, other)]

    assert np.array_equal(tasks[0].result(), tasks[1].result())
    await router.aclose()


async def collected(results: Any) -> Vectors:
    return np.concatenate([result.vectors async for result in results])


# Memory


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="a process's own peak is in /proc only")
def test_iterating_takes_the_memory_of_a_few_chunks() -> None:
    """However many texts there are. `EMBEDROUTER_ITER_TEXTS=1_000_000` iterates a million."""
    pytest.importorskip("wordllama")
    program = """
        import sys
        from pathlib import Path
        from embedrouter import Router

        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

        def embedded(number):
            texts = (f"the text with the number {index}" for index in range(number))
            results = router.embed_iter(texts, input_type="document", chunk_size=size)
            return sum(len(result) for result in results)

        many, size = map(int, sys.argv[1:])
        router = Router(["wordllama:l2_supercat_256"], cache=None, ledger=":memory:")
        embedded(2 * size)
        before = peak()
        print(embedded(many), peak() - before)
    """
    size = 10_000
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(MANY), str(size)],
        env={**os.environ, "PYTHONPATH": str(Path(embedrouter.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=20 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    texts, grown = map(int, done.stdout.split())

    assert texts == MANY
    assert grown < 4 * size * 256 * 4


@pytest.mark.parametrize("kind", ["fake", "wordllama"])
def test_the_vectors_stand_in_memory_twice_at_most(kind: str, asynchronous: bool) -> None:
    """As answered, and in the array of the result. What is noted of each text takes some 600 bytes besides."""
    if kind == "fake":
        router = router_for(FakeBackend(dimensions=1024), cache=None, model={"batch_size": 100})
    else:
        pytest.importorskip("wordllama")
        router = Router(["wordllama:l2_supercat_256"], cache=None, ledger=":memory:")
    texts = [f"the text with the number {index}" for index in range(2_000)]
    list(iterate(router, asynchronous, texts[:1]))
    tracemalloc.start()
    try:
        (result,) = iterate(router, asynchronous, texts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2.2 * result.vectors.nbytes + 800 * len(texts)
