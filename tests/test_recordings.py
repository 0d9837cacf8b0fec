"""Traffic recorded against the real providers, replayed through our backends.

The recordings lie beside the checkout, and in a folder that EMBEDROUTER_RECORDINGS names; they are third-party data,
and without them this file is skipped. Tests are made from the files themselves. The first one pins what became of every
exchange beside the checkout, so that a new file cannot be passed over; of the other folder nothing is pinned, and what
an error there means follows from its status where no row says more.

What is compared: the model and the texts of the request; the vectors, the tokens, the model's name and the error of the
response. What is not: how numbers, truncation and input types were asked for, because our backends always ask in the
same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.cache import same_name
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    InputRejectedError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.models import load_catalogue
from embedrouter.types import Answer, EmbeddingResult
from tests.recordings import (
    FOLDER,
    KEY,
    OTHERS,
    Exchange,
    Fate,
    Recording,
    exchanges,
    failure,
    no_recorded_answer,
    question,
    replayed,
    success,
)
from tests.virtual_time import VirtualTime

SHARED = exchanges()
EVERY = [*SHARED, *exchanges(OTHERS)]
pytestmark = pytest.mark.skipif(not EVERY, reason=f"there are no recordings in {FOLDER}, nor in EMBEDROUTER_RECORDINGS")
pinned = pytest.mark.skipif(not SHARED, reason=f"there are no recordings in {FOLDER}")
ERRORS = [exchange for exchange in EVERY if exchange.fate is Fate.ERROR]
VECTORS = [exchange for exchange in EVERY if exchange.fate is Fate.VECTORS]
BY_CASSETTE = [list(group) for _, group in groupby(VECTORS, key=lambda exchange: exchange.cassette)]
BILLED = [
    exchange
    for exchange in EVERY
    if exchange.fate in (Fate.VECTORS, Fate.COHERE_V1) and not exchange.placeholders and exchange.billed is not None
]
"""Where the texts are known and what they were billed."""
COUNTED = [
    exchange
    for exchange in BILLED
    if exchange.provider in ("openai", "azure_openai") and question(exchange).model.name in load_catalogue()
]

CENSUS = {
    Fate.VECTORS: 77,
    Fate.ERROR: 39,
    Fate.COHERE_V1: 8,
    Fate.TOKEN_IDS: 8,
    Fate.ELSEWHERE: 6,
    Fate.NO_BODY: 2,
}
"""Exchanges by what becomes of them."""

CASSETTES = {"replayed": 80, "left out": 11}
"""Files of which at least one exchange is replayed, and the others."""


@dataclass(frozen=True)
class Expected:
    """What one of the providers' errors means to us."""

    provider: str
    status: int
    says: str
    """A word in the recorded body that tells it from the others of its status."""
    kind: type[BackendError] | tuple[type[BackendError], ...]
    """Several where the status alone does not tell."""
    retryable: bool = False
    retry_after: float | None = None
    too_long: bool = False


MEANINGS = [
    Expected("openai", 400, "context length", InputRejectedError, too_long=True),
    Expected("openai", 400, "minimum of 1", InputRejectedError),
    Expected("openai", 400, "specifying dimensions", InputRejectedError),
    Expected("openai", 401, "invalid_api_key", AuthenticationError),
    Expected("openai", 404, "model_not_found", UnavailableError),
    # A limit a minute passes, an empty account and a request over the limit do not, and all three are 429.
    Expected("openai", 429, "per min (RPM)", RateLimitedError, retryable=True, retry_after=20.0),
    Expected("openai", 429, "images per minute", RateLimitedError, retryable=True),
    Expected("openai", 429, "Request too large", InputRejectedError),
    Expected("openai", 429, "insufficient_quota", RateLimitedError),
    Expected("openai", 500, "server_error", UnavailableError, retryable=True),
    # A proxy in front of the service answers in plain text.
    Expected("openai", 503, "upstream connect error", UnavailableError, retryable=True),
    Expected("azure_openai", 401, "Access denied", AuthenticationError),
    Expected("azure_openai", 404, "Resource not found", UnavailableError),
    Expected("azure_openai", 408, "upstream request timeout", RequestTimeoutError, retryable=True),
    # Asks for a second in one header and for no time at all in the other.
    Expected("azure_openai", 429, "RateLimitReached", RateLimitedError, retryable=True, retry_after=1.0),
    Expected("cohere", 400, "TOO_MANY_TOKENS", InputRejectedError, too_long=True),
    Expected("cohere", 401, "API key", AuthenticationError),
    Expected("cohere", 404, "not found", UnavailableError),
    # Voyage has no 404: a model it does not serve is a 400, which here says nothing about the texts.
    Expected("voyage", 400, "is not supported", UnavailableError),
]

FURTHER = [
    # Google has no 401 for a wrong key.
    Expected("google_genai", 400, "API_KEY_INVALID", AuthenticationError),
    Expected("mistral", 400, "Invalid model", UnavailableError),
    Expected("openrouter", 400, "does not exist", UnavailableError),
    Expected("openai", 400, "Pooling type 'none'", UnavailableError),
    Expected("openai", 500, "too large to process", InputRejectedError, too_long=True),
    Expected("openai", 501, "not support embeddings", UnavailableError),
]
"""What errors mean that were recorded at other providers, and at servers without a row."""

REJECTIONS = (InputRejectedError, UnavailableError, AuthenticationError)
BY_STATUS: dict[int, type[BackendError] | tuple[type[BackendError], ...]] = {
    400: REJECTIONS,
    401: AuthenticationError,
    402: RateLimitedError,
    403: (AuthenticationError, RateLimitedError),
    404: UnavailableError,
    408: RequestTimeoutError,
    413: InputRejectedError,
    422: REJECTIONS,
    429: (RateLimitedError, InputRejectedError),
    500: (UnavailableError, InputRejectedError),
}
"""What an error may mean where no row says more: the text, the model or the key; others, that the server is down."""


UNLISTED = "(no row)"
PASSING = {408, 409, 425, 429, 499, *range(500, 600)}
"""Statuses of failures that may pass."""


def meanings_of(exchange: Exchange) -> list[Expected]:
    status = exchange.provider, exchange.status
    for rows in (MEANINGS,) if exchange in SHARED else (FURTHER, MEANINGS):
        found = [row for row in rows if (row.provider, row.status) == status and row.says in exchange.text]
        if found or exchange in SHARED:
            return found
    return [Expected(*status, UNLISTED, BY_STATUS.get(exchange.status, UnavailableError))]


RETRYABLE = [exchange for exchange in ERRORS if any(row.retryable for row in meanings_of(exchange))]
QUOTING = list({exchange.quoted_key: exchange for exchange in ERRORS if exchange.quoted_key}.values())

UNNAMED = ("cohere", "google_genai", "google_vertexai", "bedrock")
"""Providers whose answers do not name the model."""

each_flavour = pytest.mark.parametrize("flavour", ["sync", "async"])


def each(found: Sequence[Exchange]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exchange", found, ids=str)


async def ask(recording: Recording, flavour: str) -> Answer:
    """Make the recorded request through one of the two forms of our backend."""
    backend = recording.backend()
    try:
        if flavour == "sync":
            return backend.embed(recording.texts, recording.input_type, timeout=5)
        return await backend.aembed(recording.texts, recording.input_type, timeout=5)
    finally:
        await backend.aclose()


async def route(recording: Recording, retry: RetryPolicy, flavour: str) -> EmbeddingResult:
    """Make the recorded request through a whole router, whose waits take no time."""
    time = VirtualTime()
    async with Router([recording.model], cache=None, retry=retry, clock=time, sleep=time.sleep) as router:
        if flavour == "sync":
            return router.embed(recording.texts, input_type=recording.input_type)
        return await router.aembed(recording.texts, input_type=recording.input_type)


@pinned
def test_every_recorded_exchange_is_replayed_or_left_out_for_a_reason() -> None:
    """A new recording must change these numbers, or it would go unnoticed that it is not used."""
    used = {exchange.cassette for exchange in SHARED if exchange.fate in (Fate.VECTORS, Fate.ERROR)}
    unused = {exchange.cassette for exchange in SHARED} - used

    assert Counter(exchange.fate for exchange in SHARED) == CENSUS
    assert {"replayed": len(used), "left out": len(unused)} == CASSETTES


@pinned
def test_every_recorded_error_has_exactly_one_meaning() -> None:
    """An error that no row or two rows fit is one that was not thought about; a row without an error tests nothing."""
    met = {str(exchange): meanings_of(exchange) for exchange in ERRORS if exchange in SHARED}

    assert {exchange for exchange, rows in met.items() if len(rows) != 1} == set()
    assert {row.says for rows in met.values() for row in rows} == {row.says for row in MEANINGS}


def test_a_model_is_served_under_one_name() -> None:
    """Another name for a model that was already asked is taken for another model, and its vectors are refused."""
    names: dict[str, list[str]] = {}
    for exchange in VECTORS:
        if isinstance(name := exchange.answer.get("model"), str) and name.strip():
            names.setdefault(question(exchange).model.name, []).append(name)

    assert {model for model, told in names.items() if not all(same_name(name, told[0]) for name in told)} == set()


@each_flavour
@pytest.mark.parametrize("recorded", BY_CASSETTE, ids=lambda found: found[0].cassette.removesuffix(".yaml"))
async def test_recorded_vectors_and_tokens_come_out_as_the_provider_sent_them(
    recorded: list[Exchange], flavour: str
) -> None:
    """Base64 or lists, gzip or plain, any provider: not one bit of a vector and not one billed token may change.

    Where a recording asked for no number of dimensions, the vectors have as many as the catalogue says.
    """
    recordings = [success(exchange) for exchange in recorded]

    with replayed(*recordings) as cassette:
        for played, recording in enumerate(recordings, 1):
            answer = await ask(recording, flavour)

            assert cassette.play_count == played
            assert answer.vectors.dtype == recording.vectors.dtype
            assert answer.vectors.shape[0] == len(recording.texts)
            np.testing.assert_array_equal(answer.vectors, recording.vectors)
            assert answer.vectors.shape[1] == recording.dimensions
            assert answer.tokens == recording.exchange.billed
            if answer.model is not None or recording.exchange.provider not in UNNAMED:
                assert answer.model == (recording.exchange.answer.get("model") or None)


@each_flavour
@each(ERRORS)
async def test_a_recorded_error_becomes_ours(exchange: Exchange, flavour: str) -> None:
    """The class and ``retryable`` decide what a router does next, so they must be right for what providers do send."""
    recording = failure(exchange)
    [expected] = meanings_of(exchange)

    with replayed(recording), pytest.raises(BackendError) as caught:
        await ask(recording, flavour)

    error = caught.value
    assert isinstance(error, expected.kind)
    assert error.model == recording.model.name
    assert error.status == exchange.status
    if expected.says == UNLISTED:
        assert error.retryable <= (exchange.status in PASSING)
    else:
        assert type(error) is expected.kind
        assert error.retryable is expected.retryable
        reset = exchange.header("x-ratelimit-reset-images")  # without a wait, the end of the limit is one
        assert error.retry_after == (float(reset[0]) if reset else expected.retry_after)
        assert getattr(error, "too_long", False) is expected.too_long
    assert error.__cause__ is not None, "the SDK's own error stays reachable"
    assert not [text for text in recording.texts if text in str(error)]
    if not exchange.quoted_key:
        assert " ".join(exchange.reason.split())[:24] in str(error)


@each_flavour
@each(QUOTING)
async def test_a_key_that_the_provider_repeats_is_not_in_our_error(exchange: Exchange, flavour: str) -> None:
    """Errors end up in logs, and OpenAI quotes a wrong key in full when it is short."""
    key = exchange.quoted_key or ""
    recording = failure(exchange, key=key)

    with replayed(recording), pytest.raises(AuthenticationError) as caught:
        await ask(recording, flavour)

    assert key not in str(caught.value)


@each_flavour
@each(RETRYABLE)
async def test_a_router_gets_the_vectors_after_a_recorded_failure(exchange: Exchange, flavour: str) -> None:
    """A failure that passes must cost time, not the call; one that asks for more time than allowed ends it at once."""
    [expected] = meanings_of(exchange)
    following = recovery(exchange)
    failing = replace(following, exchange=exchange)
    longest = RetryPolicy(attempts=2, timeout=expected.retry_after or 60, initial_wait=0)

    if expected.retry_after is not None:
        with replayed(failing, following, unplayed=1), pytest.raises(NoModelAvailableError) as caught:
            await route(following, longest, flavour)

        [attempt] = caught.value.attempts
        assert attempt.error.retry_after == expected.retry_after
        return

    with replayed(failing, following):
        result = await route(following, longest, flavour)

    np.testing.assert_array_equal(result.vectors, following.vectors)
    assert (result.usage.requests, result.usage.tokens) == (1, following.tokens)


def recovery(exchange: Exchange) -> Recording:
    """Return the success that was recorded next, or where that was no embedding the smallest of the same provider."""
    later = [other for other in EVERY if (other.cassette, other.place) == (exchange.cassette, exchange.place + 1)]
    if later and later[0].status == 200 and later[0].embeds:
        return success(later[0])
    able = [
        other
        for other in VECTORS
        if other.provider == exchange.provider and success(other).model.name in load_catalogue()
    ]
    return success(min(able, key=lambda other: len(other.content)))


@pinned
def test_a_recorded_sequence_of_failure_and_success_is_among_those_replayed() -> None:
    """The recovery above should at least once be the provider's own, not one put together from two recordings."""
    own = [exchange for exchange in RETRYABLE if recovery(exchange).exchange.cassette == exchange.cassette]

    assert [exchange.status for exchange in own] == [500]


def estimated(exchange: Exchange) -> tuple[int, bool]:
    """Return what a router expects a recorded request to be billed, and whether it says that this is exact.

    A text that the request held twice was billed twice. A router pays it once, so it is asked about the copies apart.
    """
    asked = question(exchange)
    held = Counter(asked.texts)
    copies = [[text for text in held if held[text] >= copy] for copy in range(1, max(held.values()) + 1)]
    with Router([asked.model], cache=None, ledger=":memory:") as router:
        found = [router.estimate(texts, input_type=asked.input_type) for texts in copies]
    return sum(estimate.tokens for estimate in found), all(estimate.exact for estimate in found)


@pinned
def test_every_recorded_bill_whose_texts_are_known_is_compared_with_our_count() -> None:
    """In one file no tokens are said, in another the texts were removed. One of Azure's models is Cohere's."""
    texts = [exchange for exchange in SHARED if exchange.texts and exchange.fate not in (Fate.ERROR, Fate.ELSEWHERE)]
    unbilled = {exchange.cassette for exchange in texts if exchange not in BILLED}
    estimates = Counter(exchange.provider for exchange in BILLED if exchange in SHARED and exchange not in COUNTED)

    assert unbilled == {
        "superduper-io+superduper/test_embed_one.yaml",
        "traceloop+openllmetry/test_query_pipeline.yaml",
    }
    assert len([exchange for exchange in COUNTED if exchange in SHARED]) == 56
    assert estimates == {"cohere": 17, "voyage": 9, "azure_openai": 1}


@each(COUNTED)
def test_tiktoken_counts_what_openai_billed(exchange: Exchange) -> None:
    """Limits, budgets and estimates rest on this count; where the vocabulary is at hand it must be exact."""
    tokens, exact = estimated(exchange)
    if not exact:
        pytest.skip("tiktoken's vocabulary is not on this machine")

    assert tokens == exchange.billed


@each(BILLED)
def test_an_estimate_is_hardly_ever_below_the_bill(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no tokenizer is at hand a budget rests on the estimate: at most a tenth or three tokens may be missing."""
    monkeypatch.setattr("embedrouter.providers.openai.encoding", lambda name: None)
    billed = exchange.billed or 0

    tokens, exact = estimated(exchange)

    assert not exact
    assert tokens >= billed - max(billed / 10, 3)


@pinned
@each_flavour
async def test_a_request_for_another_text_or_model_gets_no_recorded_answer(flavour: str) -> None:
    """Otherwise one text's vector could pass for another's and every test above would still succeed."""
    recording = success(VECTORS[0])
    other = replace(recording, texts=["a text that was not recorded"])

    with replayed(recording, unplayed=1):
        with no_recorded_answer():
            await ask(other, flavour)
        with no_recorded_answer():
            await ask(replace(recording, model=Model("openai:text-embedding-3-large", api_key=KEY)), flavour)
