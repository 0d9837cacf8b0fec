"""A vector that cannot be used costs the vectors beside it nothing, and is not asked for again and again."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.cache import is_sound
from embedrouter.errors import InputRejectedError, NoModelAvailableError
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.raw_server import DIMENSIONS, RawServer, Reply, rows, vectors
from tests.scripted import Script, ask, candidate
from tests.side_by_side import at_once

NAN, INFINITE = float("nan"), float("inf")
ROWS: dict[str, Any] = {
    "zero": [0.0] * DIMENSIONS,
    "negative zero": [-0.0] * DIMENSIONS,
    "none": None,
    "NaN": [1.0, NAN, 1.0, 1.0],
    "infinite": [1.0, 1.0, -INFINITE, 1.0],
    "too short": [1.0],
    "too long": [1.0] * (DIMENSIONS + 1),
    "empty": [],
    "a number missing": [1.0, None, 1.0, 1.0],
    "nested": [[1.0] * DIMENSIONS],
}
FEW = ("zero", "none", "too short")
"""What is tried in the fast tests with the providers that parse answers as OpenAI's backend does."""
BAD = "the bad text"
TEXTS = [BAD if place == 13 else f"text {place}" for place in range(32)]
GOOD = [text for text in TEXTS if text != BAD]


class Embedder:
    """An embedder as frameworks have it, which gives ``row`` for the bad text."""

    def __init__(self, row: Any = ROWS["zero"]) -> None:
        self.row = row
        self.asked: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[Any]:
        self.asked.append(list(texts))
        return [self.row if BAD in text else vectors([text])[0] for text in texts]

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[Any]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> Any:
        return self.embed_query(text)


class Arrays(FakeBackend):
    """A backend that gives ``row`` for texts that hold the bad one."""

    def __init__(self, row: Sequence[float] = ROWS["zero"]) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.row = row

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        answer = super().embed(texts, input_type, timeout=timeout)
        for place, text in enumerate(texts):
            if BAD in text:
                answer.vectors[place] = self.row
        return answer


def wrapped(embedder: Any, cache: Any = None, **settings: Any) -> Router:
    model = Model.wrap(embedder, space="house", dimensions=DIMENSIONS, price="1", **settings)
    return Router([model], cache=cache, ledger=":memory:", retry=NO_WAITING)


def refused(router: Router, asynchronous: bool, texts: list[str], input_type: str = "document") -> InputRejectedError:
    with pytest.raises(InputRejectedError) as caught:
        embed(router, asynchronous, texts, input_type=input_type)
    return caught.value


@pytest.mark.parametrize("input_type", ["document", "query"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_wrapped_embedder_is_asked_once_and_the_good_vectors_are_kept(
    row: Any, input_type: str, asynchronous: bool
) -> None:
    """It has retries of its own. The error names the text by its place and says why."""
    embedder, store = Embedder(row), MemoryCache()
    router = wrapped(embedder, store)
    error = refused(router, asynchronous, TEXTS, input_type)
    asked = len(embedder.asked)
    (account,) = router.ledger.totals("model").values()
    warm = embed(router, asynchronous, GOOD, input_type=input_type)

    assert error.indices == (13,)
    assert "texts at 13" in str(error)
    assert "are in the cache" in str(error)
    assert BAD not in str(error)
    assert Counter(text for texts in embedder.asked for text in texts) == Counter(TEXTS)
    assert (account.requests, account.texts) == (1, 32)
    assert warm.cached == (True,) * 31
    assert len(embedder.asked) == asked
    assert warm.vectors.tolist() == vectors(GOOD)


@pytest.fixture
def server() -> Iterator[RawServer]:
    running = RawServer()
    yield running
    running.close()


def serving(server: RawServer, provider: str, row: Any, times: int | None = None) -> None:
    """Have the server give ``row`` for the bad text, always or so many times."""
    left = [times]

    def answer(body: dict[str, Any], texts: list[str]) -> Reply | None:
        if BAD not in texts or left[0] == 0:
            return None
        left[0] = None if left[0] is None else left[0] - 1
        if provider == "cohere":
            floats = [row if text == BAD else vectors([text])[0] for text in texts]
            return Reply(body={"id": "1", "embeddings": {"float": floats}, "texts": texts})
        numbers = body.get("encoding_format")
        found = rows(texts, numbers)
        flat = isinstance(row, list) and not any(isinstance(number, list | None) for number in row)
        packed = base64.b64encode(np.array(row, "<f4").tobytes()).decode() if flat and numbers == "base64" else row
        found[texts.index(BAD)]["embedding"] = packed
        return Reply(body={"object": "list", "data": found, "model": body["model"], "usage": {}})

    server.answer = answer


def remote(server: RawServer, provider: str, cache: Any = None, **settings: Any) -> Router:
    url = server.url if provider == "cohere" else f"{server.url}/v1"
    own: dict[str, Any] = {"space": "house", "dimensions": DIMENSIONS, "batch_size": 100, "price": "1", **settings}
    model = Model(f"{provider}:house-model", base_url=url, api_key="sk-any", **own)
    return Router([model], cache=cache, ledger=":memory:", retry=NO_WAITING)


def sent(server: RawServer) -> list[list[str]]:
    return [body.get("input") or body["texts"] for body in server.received]


SERVED = [
    pytest.param(
        provider, row, marks=() if provider == "openai" or name in FEW else pytest.mark.slow, id=f"{provider}-{name}"
    )
    for provider in ("openai", "voyage", "cohere")
    for name, row in ROWS.items()
]


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "row"), SERVED)
def test_a_server_is_asked_once_more_for_the_bad_vector_alone(
    provider: str, row: Any, server: RawServer, asynchronous: bool
) -> None:
    """It may have failed for a moment, or because of the texts beside it. Each answer is booked, each once."""
    serving(server, provider, row)
    router = remote(server, provider, MemoryCache())
    error = refused(router, asynchronous, TEXTS)
    (account,) = router.ledger.totals("model").values()
    serving(server, provider, row, times=1)
    texts = [*GOOD, "new", BAD]
    recovered = embed(router, asynchronous, texts, input_type="document")
    router.close()

    assert error.indices == (13,)
    assert sent(server) == [TEXTS, [BAD], ["new", BAD], [BAD]]
    assert (account.requests + len(router.ledger.unconfirmed()), account.texts) in [(2, 33), (2, 32)]
    assert recovered.cached == (True,) * 31 + (False,) * 2
    assert recovered.vectors.tolist() == vectors(texts)


@pytest.mark.parametrize("rows", [[[1, 1], [NAN, 1]], [[0, 0], [0, 0]], [[1, 1]]], ids=["one", "all", "too few"])
def test_a_model_in_this_process_is_asked_once(rows: list[list[float]]) -> None:
    """It would give the same answer again."""
    script = Script(outcomes=[Answer(np.array(rows, np.float32), 2)])
    with pytest.raises((InputRejectedError, NoModelAvailableError)):
        ask(script, ["a", "b"], [candidate("a", repeats=True)])

    assert len(script.requests) == 1
    assert len(script.store.rows) == (1 if rows[-1] == [NAN, 1] else 0)


def test_all_bad_vectors_of_a_call_are_named_wherever_they_are(asynchronous: bool) -> None:
    """In several requests, as duplicates, as the only text of a request; and the requests after it are still made."""
    texts = [f"{BAD} {place % 40}" if place % 40 in (0, 8, 39) else f"text {place}" for place in range(80)]
    embedder = Embedder()
    error = refused(wrapped(embedder, MemoryCache(), batch_size=3), asynchronous, texts)

    assert error.indices == (0, 8, 39, 40, 48, 79)
    assert sorted(text for asked in embedder.asked for text in asked) == sorted(set(texts))


def test_an_iterator_counts_from_the_first_text_of_all(asynchronous: bool) -> None:
    """The chunks before are returned."""
    router = wrapped(Embedder())

    async def all_of() -> list[int]:
        return [len(part) async for part in router.aembed_iter(TEXTS, input_type="document", chunk_size=10)]

    with pytest.raises(InputRejectedError) as caught:
        asyncio.run(all_of()) if asynchronous else list(router.embed_iter(TEXTS, input_type="document", chunk_size=10))
    assert caught.value.indices == (13,)


def test_another_model_is_asked_for_the_bad_vector_alone(asynchronous: bool) -> None:
    """As for a text with which a server fails."""
    first, second = Arrays([NAN] * DIMENSIONS), FakeBackend(dimensions=DIMENSIONS)
    models = [first.model("fake:first", price="1", batch_size=40), second.model("fake:second", price="2")]
    result = embed(
        Router(models, cache=None, ledger=":memory:", retry=NO_WAITING), asynchronous, TEXTS, input_type="document"
    )

    assert [call.texts for call in first.calls] == [tuple(TEXTS), (BAD,)]
    assert [call.texts for call in second.calls] == [(BAD,)]
    assert np.isfinite(result.vectors).all()


def test_without_retries_there_is_none(asynchronous: bool) -> None:
    """``RetryPolicy(attempts=1)`` says so."""
    fake = Arrays([INFINITE] * DIMENSIONS)
    model = fake.model("fake:m", batch_size=40)
    router = Router([model], cache=None, ledger=":memory:", retry=RetryPolicy(attempts=1))

    assert refused(router, asynchronous, TEXTS).indices == (13,)
    assert len(fake.calls) == 1


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_model_that_gives_no_usable_vector_is_at_fault_and_not_the_texts(batch_size: int, asynchronous: bool) -> None:
    """A thousand texts are not paid for one by one to find that out."""
    fake = Arrays()
    model = fake.model("fake:m", batch_size=batch_size, max_concurrency=4)
    router = Router([model], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING)
    with pytest.raises(NoModelAvailableError, match="all zeros"):
        embed(router, asynchronous, [f"{BAD} {number}" for number in range(1000)], input_type="document")

    assert len(fake.calls) <= 2 * (8 + 4)


def test_callers_that_share_a_request_get_their_own_error_or_their_vectors() -> None:
    """The bad text is not asked for once more by each of them."""
    fake = Arrays()
    router = Router([fake.model()], cache=None, ledger=":memory:", retry=NO_WAITING, micro_batch_window=0.1)
    texts = [f"text {number}" for number in range(6)] + [BAD]
    found = at_once([lambda text=text: router.embed([text], input_type="query") for text in texts])  # type: ignore[misc]

    assert [getattr(item, "indices", None) for item in found] == [None] * 6 + [(0,)]
    assert Counter(text for call in fake.calls for text in call.texts) == Counter([*texts, BAD])


class OtherLength(FakeBackend):
    """A server that gives vectors of another length, as one that was started with another model."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        super().embed(texts, input_type, timeout=timeout)
        return Answer(np.ones((len(texts), self.dimensions + 1), np.float32), len(texts))


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("way", ["call", "iterator", "small calls", "batches of one"])
def test_another_length_stops_everything_at_the_first_answer(way: str, concurrency: int, asynchronous: bool) -> None:
    """No retry changes it; besides, only what is in flight already is billed."""
    fake = OtherLength(dimensions=DIMENSIONS)
    model = fake.model("fake:m", batch_size=1 if way == "batches of one" else 6, max_concurrency=concurrency)
    router = Router([model], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING, micro_batch_window=0.1)
    texts = [f"text {place}" for place in range(100)]
    if way == "small calls":
        found = at_once([lambda text=text: router.embed([text], input_type="query") for text in texts[:12]])  # type: ignore[misc]
        assert all(isinstance(error, NoModelAvailableError) for error in found)
        assert len(fake.calls) <= 12, "none is made twice"
        return

    async def each() -> None:
        async for _ in router.aembed_iter(texts, input_type="document", chunk_size=20):
            pass

    def call() -> None:
        if way != "iterator":
            embed(router, asynchronous, texts, input_type="document")
        elif asynchronous:
            asyncio.run(each())
        else:
            list(router.embed_iter(texts, input_type="document", chunk_size=20))

    with pytest.raises(NoModelAvailableError, match="of 5 dimensions came, not of 4: declare"):
        call()
    assert len(fake.calls) <= concurrency


# The mean of the parts of a text over the limit


class Opposite(FakeBackend):
    """Gives opposite vectors for words in capitals and others; counts words as tokens."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.noise = noise

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        signs = np.array([[-1.0 - self.noise if text.isupper() else 1.0] for text in texts], np.float32)
        return Answer(signs * np.array([[0.6, 0.8, 0.0, 0.0]], np.float32), len(texts))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("noise", [0.0, 1.2e-7], ids=["exactly", "but for the last bit"])
def test_parts_that_cancel_each_other_out_have_no_mean(noise: float, dtype: Any, asynchronous: bool) -> None:
    """The error names the text; the means of the other texts are kept."""
    store = MemoryCache()
    model = Opposite(noise).model("fake:m", max_input_tokens=2)
    router = Router([model], cache=store, ledger=":memory:", on_too_long="mean", cache_dtype=dtype)
    texts = ["one", "aa bb AA BB ", "cc dd ee ff", "aa bb cc", "AA BB aa bb "]
    error = refused(router, asynchronous, texts)
    again = embed(router, asynchronous, ["one", "cc dd ee ff", "aa bb cc"], input_type="document")

    assert error.indices == (1, 4)
    assert "cancel each other out" in str(error)
    assert "are in the cache" in str(error)
    assert again.cached == (True,) * 3
    assert np.allclose(np.linalg.norm(again.vectors, axis=1), 1, atol=1e-3)
    assert "are in the cache" not in str(refused(router, asynchronous, ["xx yy XX YY "]))
    assert all(is_sound(key, row) for key, row in store.rows.items())


def test_parts_that_nearly_cancel_each_other_out_have_a_mean(asynchronous: bool) -> None:
    """What is left is more than the error of the numbers."""
    model = Opposite(1e-3).model("fake:m", max_input_tokens=2)
    router = Router([model], cache=None, ledger=":memory:", on_too_long="mean")
    result = embed(router, asynchronous, ["aa bb AA BB "], input_type="document")

    assert np.allclose(result.vectors, [[-0.6, -0.8, 0, 0]], atol=1e-4)
