"""One text that its provider refuses must not cost the others anything: neither their vectors nor a second payment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, Router
from embedrouter.errors import InputRejectedError, NoModelAvailableError
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from tests.either import embed
from tests.emulator import Emulator, Fault, Received, count_tokens, vector

PROVIDERS = {
    "openai": ("openai:text-embedding-3-small", "openai_url"),
    "azure_openai": ("azure_openai:text-embedding-3-small", "azure_url"),
    "cohere": ("cohere:embed-v4.0", "cohere_url"),
    "voyage": ("voyage:voyage-3.5", "voyage_url"),
    "bedrock": ("bedrock:cohere.embed-v4:0", "bedrock_url"),
    "vertex": ("google_vertexai:text-embedding-005", "vertex_url"),
}
MARKER = "POISON"
REASON = "This input was rejected as unsafe."


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def refusal(provider: str, reason: str = REASON) -> Fault:
    """Return a 400 in the shape of each provider's errors. None says which text is meant."""
    body: dict[str, Any] = {
        "cohere": {"id": "1", "message": reason},
        "voyage": {"detail": reason},
        "bedrock": {"message": reason},
    }.get(provider, {"error": {"message": reason, "type": "invalid_request_error", "param": None, "code": None}})
    return Fault.status(400, body=body)


def refusing(provider: str, marker: str = MARKER, reason: str = REASON) -> Callable[[Received], Fault | None]:
    """Refuse every request that holds a marked text."""
    fault = refusal(provider, reason)
    return lambda received: fault if any(marker in text for text in received.texts) else None


def build(emulator: Emulator, provider: str = "openai", cache: object = None, **settings: Any) -> Router:
    name, url = PROVIDERS[provider]
    azure: dict[str, Any] = {"api_version": "2024-10-21"} if provider == "azure_openai" else {}
    name = settings.pop("model", name)
    own = {key: settings.pop(key) for key in ("batch_size", "max_concurrency", "max_input_tokens") if key in settings}
    model = Model(name, base_url=getattr(emulator, url), api_key="k", **azure, **own)
    return Router([model], cache=cache, ledger=":memory:", retry=NO_WAITING, **settings)  # type: ignore[arg-type]


def texts_with(*poisons: int, among: int) -> list[str]:
    return [f"{MARKER} {place}" if place in poisons else f"text number {place}" for place in range(among)]


def paid(emulator: Emulator) -> Counter[str]:
    """Return how often each text was embedded."""
    refused = [received for received in emulator.received if any(MARKER in text for text in received.texts)]
    answered = [received for received in emulator.received if received not in refused]
    return Counter(text for received in answered for text in received.texts)


def rejected(router: Router, asynchronous: bool, texts: list[str], input_type: str = "document") -> InputRejectedError:
    """Return the error that a call ends with."""
    with pytest.raises(InputRejectedError) as caught:
        embed(router, asynchronous, texts, input_type=input_type)
    return caught.value


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_the_others_are_embedded_and_paid_once(
    provider: str, emulator: Emulator, asynchronous: bool, input_type: str
) -> None:
    """The error names the text by its place in the input and says why."""
    emulator.fault_for = refusing(provider)
    store = MemoryCache()
    router = build(emulator, provider, store)
    texts = texts_with(13, among=40)
    error = rejected(router, asynchronous, texts, input_type)
    calls = emulator.calls
    good = [text for text in texts if MARKER not in text]

    assert error.indices == (13,)
    assert REASON in str(error)
    assert "texts at 13" in str(error)
    assert "are in the cache" in str(error)
    assert MARKER not in str(error)
    assert error.model == PROVIDERS[provider][0]
    assert error.__cause__ is not None
    assert paid(emulator) == Counter(good)
    (account,) = router.ledger.totals("model").values()
    assert account.tokens == sum(emulator.billed.values())
    assert account.tokens == sum(count_tokens(emulator.received[0].provider, text) for text in good)
    assert router.ledger.unconfirmed() == []

    warm = embed(router, asynchronous, good, input_type=input_type)
    router.close()
    assert warm.cached == (True,) * 39
    assert emulator.calls == calls
    for row, text in zip(warm.vectors, good, strict=True):
        assert np.array_equal(row, vector(router.models[0].partition(":")[2], None, input_type, text))


def test_one_poison_is_found_by_halving(emulator: Emulator, asynchronous: bool) -> None:
    """Two requests for each halving of 1,024 texts, and the first."""
    emulator.fault_for = refusing("openai")
    router = build(emulator, dimensions=32)
    error = rejected(router, asynchronous, texts_with(777, among=1024))
    router.close()

    assert error.indices == (777,)
    assert emulator.calls == 1 + 2 * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "poisons",
    [(0,), (39,), (0, 39), (4, 5, 21), (0, 1, 2, 3, 4), (35, 36, 37, 38, 39), tuple(range(0, 40, 2)), (*range(20),)],
    ids=str,
)
def test_several_poisons_are_all_named(emulator: Emulator, asynchronous: bool, poisons: tuple[int, ...]) -> None:
    """Wherever they stand: those of one broken file come one after the other."""
    emulator.fault_for = refusing("openai")
    router = build(emulator, dimensions=32)
    texts = texts_with(*poisons, among=40)
    error = rejected(router, asynchronous, texts)
    router.close()

    assert error.indices == poisons
    assert str(error).count(REASON) == 1
    assert paid(emulator) == Counter(text for text in texts if MARKER not in text)


def test_poisons_in_several_requests_side_by_side(provider: str, emulator: Emulator, asynchronous: bool) -> None:
    """Each request finds its own, and none stops the others."""
    emulator.fault_for = refusing(provider)
    router = build(emulator, provider, batch_size=8, max_concurrency=4)
    texts = texts_with(1, 14, 15, 30, 55, among=64)
    error = rejected(router, asynchronous, texts)
    router.close()

    assert error.indices == (1, 14, 15, 30, 55)
    assert paid(emulator) == Counter(text for text in texts if MARKER not in text)


def test_duplicates_of_a_poison_are_all_named(emulator: Emulator, asynchronous: bool) -> None:
    """It was sent once, but it stands in several places."""
    emulator.fault_for = refusing("openai")
    router = build(emulator, dimensions=32)
    error = rejected(router, asynchronous, ["a", MARKER, "b", MARKER, "a", MARKER, "c"])
    router.close()

    assert error.indices == (1, 3, 5)
    assert paid(emulator) == Counter("abc")


def test_different_reasons_are_told_apart(emulator: Emulator, asynchronous: bool) -> None:
    """Each with the places it is about."""
    rules = refusing("openai", "odd", "An odd one."), refusing("openai", "queer", "A queer one.")
    emulator.fault_for = lambda received: rules[0](received) or rules[1](received)
    router = build(emulator, dimensions=32)
    error = rejected(router, asynchronous, ["a", "queer", "b", "odd", "c", "queer too"])
    router.close()

    assert error.indices == (1, 3, 5)
    assert "An odd one. (texts at 3)" in str(error)
    assert "A queer one. (texts at 1, 5)" in str(error)


def test_after_the_poison_is_left_out_everything_is_in_the_cache(
    provider: str, emulator: Emulator, asynchronous: bool
) -> None:
    """As the message says: the same call goes on from there."""
    emulator.fault_for = refusing(provider)
    store = MemoryCache()
    router = build(emulator, provider, store, batch_size=8)
    texts = texts_with(3, 4, 17, among=32)
    error = rejected(router, asynchronous, texts)
    calls = emulator.calls
    kept = [text for place, text in enumerate(texts) if place not in error.indices]
    result = embed(router, asynchronous, kept, input_type="document")
    router.close()

    assert all(result.cached)
    assert result.usage.requests == 0
    assert emulator.calls == calls


def test_the_same_poison_again_costs_a_request_and_no_money(emulator: Emulator, asynchronous: bool) -> None:
    """Nothing is remembered of a refusal: the provider may change its mind."""
    emulator.fault_for = refusing("openai")
    router = build(emulator, cache=MemoryCache(), dimensions=32)
    texts = texts_with(5, among=16)
    rejected(router, asynchronous, texts)
    calls, billed = emulator.calls, sum(emulator.billed.values())
    error = rejected(router, asynchronous, texts)
    router.close()

    assert error.indices == (5,)
    assert emulator.calls == calls + 1
    assert sum(emulator.billed.values()) == billed


@pytest.mark.slow
@pytest.mark.parametrize(("texts", "requests"), [(2048, 1), (6000, 3)])
def test_a_refusal_that_is_not_about_texts_ends_the_call_soon(
    emulator: Emulator, asynchronous: bool, texts: int, requests: int
) -> None:
    """A wrong parameter is refused for every text: thousands of requests would find nothing else."""
    emulator.fault_for = lambda received: refusal("openai", "-42 is less than the minimum of 1 - 'dimensions'")
    router = build(emulator, max_concurrency=4, dimensions=32)
    error = rejected(router, asynchronous, [f"text {number}" for number in range(texts)])
    router.close()

    assert "'dimensions'" in str(error)
    assert "are in the cache" not in str(error)
    assert emulator.calls <= 24 * requests
    assert sum(emulator.billed.values()) == 0


@pytest.mark.parametrize("name", ["cohere", "voyage"])
def test_a_refusal_that_is_not_about_texts_stops_the_other_requests(
    name: str, emulator: Emulator, asynchronous: bool
) -> None:
    """Those that are out at that moment are at most as many as may be side by side."""
    emulator.fault_for = lambda received: refusal(name)
    router = build(emulator, name, batch_size=96, max_concurrency=2)
    rejected(router, asynchronous, [f"text {number}" for number in range(960)])
    router.close()

    assert emulator.calls <= 24 * 2
    assert sum(emulator.billed.values()) == 0


def test_a_refusal_that_begins_in_the_middle_of_a_call_ends_it_soon(emulator: Emulator, asynchronous: bool) -> None:
    """What was embedded before is kept; a request that is refused through and through does not become hundreds."""
    fault = refusal("openai", "This account may not do that any more.")
    emulator.fault_for = lambda received: fault if emulator.calls > 1 else None
    router = build(emulator, batch_size=500, max_concurrency=1, dimensions=32)
    error = rejected(router, asynchronous, [f"text {number}" for number in range(1000)])
    router.close()

    assert error.indices == tuple(range(500, 1000))
    assert "The other texts were embedded" in str(error)
    assert emulator.calls <= 1 + 24


LONG = {
    "cohere": ("cohere:embed-english-v3.0", 600),
    "voyage": ("voyage:voyage-2", 5_000),
    "vertex": ("google_vertexai:text-embedding-005", 2_100),
}
"""Models with low limits, and a number of words over each."""


@pytest.mark.refused
@pytest.mark.parametrize("policy", ["truncate", "mean"])
@pytest.mark.parametrize("name", LONG)
def test_only_the_long_texts_are_cut(name: str, policy: str, emulator: Emulator, asynchronous: bool) -> None:
    """Where only the provider knows the length. The others keep their own vectors, in the order of the input."""
    model, words = LONG[name]
    router = build(emulator, name, model=model, on_too_long=policy)
    texts = ["short one", "word " * words, "short two", "other " * words, "short three"]
    result = embed(router, asynchronous, texts, input_type="document")
    router.close()

    assert result.shortened == (False, True, False, True, False)
    for place in (0, 2, 4):
        expected = vector(model.partition(":")[2], None, "document", texts[place])
        assert np.array_equal(result.vectors[place], expected)
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", LONG)
def test_a_text_that_is_longer_than_it_was_counted_is_refused_and_named(
    name: str, emulator: Emulator, asynchronous: bool
) -> None:
    """It travels with the others, and by our own count there is nothing to cut. Never a silent cut, nor a loss."""
    odd = "qzxvkjwpqzxv" * 30
    said = {
        "cohere": "too many tokens: size limit exceeded by 7 tokens.",
        "voyage": "It has too many tokens.",
        "vertex": "Unable to submit request because the input token count is 2055 but the model supports up to 2048.",
    }
    fault = refusal(name, said[name])
    emulator.fault_for = lambda received: fault if odd in received.texts else None
    router = build(emulator, name, MemoryCache(), model=LONG[name][0], on_too_long="truncate")
    texts = ["short one", odd, "short two"]
    error = rejected(router, asynchronous, texts)
    warm = embed(router, asynchronous, ["short one", "short two"], input_type="document")
    router.close()

    assert error.indices == (1,)
    assert error.too_long
    assert warm.cached == (True, True)
    assert warm.shortened == (False, False)


@pytest.mark.parametrize("name", LONG)
def test_a_poison_beside_a_long_text(name: str, emulator: Emulator, asynchronous: bool) -> None:
    """The long one is cut, the poison is refused, each for its own reason."""
    model, words = LONG[name]
    emulator.fault_for = refusing(name)
    router = build(emulator, name, MemoryCache(), model=model, on_too_long="truncate")
    texts = ["short one", "word " * words, MARKER, "short two"]
    error = rejected(router, asynchronous, texts)
    warm = embed(router, asynchronous, [text for text in texts if text != MARKER], input_type="document")
    router.close()

    assert error.indices == (2,)
    assert not error.too_long
    assert warm.cached == (True, True, True)
    assert warm.shortened == (False, True, False)


# Refusals and failures that are no fault of a text, or that do not look like one

ABOUT_THE_REQUEST = [
    (400, "litellm.UnsupportedParamsError: voyage does not support parameters: ['dimensions']"),
    (400, "Invalid model name passed in model=text-embedding-3-small. Call /v1/models to view available models"),
    (422, "extra fields not permitted: encoding_format"),
    (400, "Something went wrong."),
]


@pytest.mark.parametrize(("status", "reason"), ABOUT_THE_REQUEST, ids=range(len(ABOUT_THE_REQUEST)))
def test_a_model_that_refuses_every_text_gives_way_to_the_next_one(
    status: int, reason: str, emulator: Emulator, asynchronous: bool
) -> None:
    """A few requests tell so, and nothing is blamed on the texts."""
    fault = Fault.status(status, body={"error": {"message": reason, "type": "invalid_request_error"}})
    emulator.fault_for = lambda received: fault if received.provider == "openai" else None
    first = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", price="1")
    second = Model(
        "azure_openai:text-embedding-3-small",
        base_url=emulator.azure_url,
        api_key="k",
        api_version="2024-10-21",
        price="2",
    )
    router = Router([first, second], cache=None, ledger=":memory:", retry=NO_WAITING)
    result = embed(router, asynchronous, [f"text {number}" for number in range(64)], input_type="document")
    router.close()

    assert set(result.models) == {"azure_openai:text-embedding-3-small"}
    assert sum(received.provider == "openai" for received in emulator.received) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("most", [10, 16, 96])
def test_a_limit_of_texts_is_learnt_from_what_passes(
    most: int, emulator: Emulator, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The next call does not find it out again."""
    fault = refusal("openai", "the batch is invalid")
    emulator.fault_for = lambda received: fault if len(received.texts) > most else None
    router = build(emulator, dimensions=32)
    embed(router, asynchronous, [f"text {number}" for number in range(200)], input_type="document")
    first = len(emulator.received)
    embed(router, asynchronous, [f"word {number}" for number in range(200)], input_type="document")
    router.close()

    _, *second = sorted(len(received.texts) for received in emulator.received[first:])  # one request has the rest
    assert max(second) <= most
    assert min(second) > most / 2
    assert caplog.text.count("set Model(…, batch_size=") == 1


@pytest.mark.parametrize(("place", "among"), [(0, 40), (7, 40), (39, 40), (0, 3), (0, 2), (1, 2)])
@pytest.mark.parametrize("status", [500, 502])
def test_a_server_that_fails_because_of_one_text_embeds_the_others(
    place: int, among: int, status: int, emulator: Emulator, asynchronous: bool
) -> None:
    """The one text has the server's words as its reason."""
    fault = Fault.status(status, body={"error": {"message": "internal failure"}})
    emulator.fault_for = lambda received: fault if any(MARKER in text for text in received.texts) else None
    store = MemoryCache()
    router = build(emulator, cache=store, dimensions=32)
    texts = texts_with(place, among=among)
    with pytest.raises(NoModelAvailableError, match="internal failure"):
        embed(router, asynchronous, texts, input_type="document")
    good = [text for text in texts if MARKER not in text]
    warm = embed(router, asynchronous, good, input_type="document")
    router.close()

    assert warm.cached == (True,) * (among - 1)
    assert paid(emulator) == Counter(good)


def test_a_server_that_is_down_is_not_asked_in_parts_for_long(emulator: Emulator, asynchronous: bool) -> None:
    """Two halves, once each, and the next model."""
    emulator.fault_for = lambda received: Fault.status(500)
    router = build(emulator, dimensions=32)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, [f"text {number}" for number in range(40)], input_type="document")
    router.close()

    assert [len(received.texts) for received in emulator.received] == [40] * 5 + [20, 20]


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_where_no_limit_is_known_the_missing_setting_is_named(policy: str, asynchronous: bool) -> None:
    """Sent again whole, the text would be refused again."""
    refused = InputRejectedError("too many tokens", too_long=True)
    fake = FakeBackend(outcomes=[refused, None, refused])
    router = Router([fake.model()], cache=None, ledger=":memory:", retry=NO_WAITING, on_too_long=policy)  # type: ignore[arg-type]
    error = rejected(router, asynchronous, ["short", "word " * 1000])
    router.close()

    assert "max_input_tokens" in str(error)
    assert error.indices == (1,)
    assert error.too_long
