"""Arbitrary bytes, values, outcomes and times, wherever something from outside is read.

What a provider sends may be anything: it becomes the right vectors or an error of ours, never another exception and
never a wrong vector. The same of rows in the cache, of headers, and of calls to which anything may happen.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter.cache import is_sound, key_function
from embedrouter.cache._codec import decode, encode
from embedrouter.cache._keys import KEY_BYTES
from embedrouter.calls import SizedText, fault
from embedrouter.calls._afford import pack_requests
from embedrouter.calls._pack import pack_texts
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    DegradedWarning,
    EmbedRouterError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.limits import MINUTE, Admission, ModelLimits
from embedrouter.models import MOST_TOKENS, load_catalogue, parse_token_count, resolve
from embedrouter.providers import Backend, create, describe
from embedrouter.providers._responses import MAX_RESET, decode_vectors, parse_rate_limits, parse_retry_after
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, Candidate, Entry, InputType, Limits, RateLimits, Space
from tests import scripted
from tests.properties import examples

DIMENSIONS = 4
TEXTS = ("first", "second", "third")
RIGHT = np.arange(1, 13, dtype=np.float32).reshape(3, DIMENSIONS)
"""Their vectors."""
OWN = scripted.candidate("own", space=Space("own", DIMENSIONS))

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(-(10**400), 10**400)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "embedding", "index", "usage", "prompt_tokens", "embeddings", "float", "meta", "error"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
"""Anything that Python reads as JSON."""
deep = st.sampled_from([b"[" * 100_000, b'{"data":' * 50_000, b"[" * 900 + b"]" * 900, b"9" * 5000, b"\xff\xfe", b""])
bodies = st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()) | deep


# Answers of three makers, through their SDKs, without a network


@dataclass
class Wire:
    """A provider's backend whose SDK gets the answer that is laid here."""

    backend: Backend
    asynchronous: bool
    status: int = 200
    headers: dict[str, str] | None = None
    body: bytes = b""

    def ask(self, status: int, headers: dict[str, str], body: bytes) -> Answer | BackendError:
        """Return what the backend makes of an answer.

        Raises:
            Exception: anything but an error of ours.
        """
        self.status, self.headers, self.body = status, headers, body
        try:
            if self.asynchronous:
                return asyncio.run(self.backend.aembed(TEXTS, "document", timeout=5))
            return self.backend.embed(TEXTS, "document", timeout=5)
        except BackendError as error:
            str(error)
            return error


def wire(provider: str, monkeypatch: pytest.MonkeyPatch) -> Wire:
    name, _, form = provider.partition(" ")
    laid = Wire(None, form == "async")  # type: ignore[arg-type]
    makers = {"openai": _openai, "cohere": _cohere, "voyage": _voyage, "bedrock": _bedrock, "google": _google}
    laid.backend = makers[name](laid, monkeypatch)
    return laid


def candidate(limits: Limits | None = None, *, local: bool = False) -> Candidate:
    """Return what a router would make of a model."""
    made, _ = _resolved(Model("openai:own", space="own", dimensions=DIMENSIONS, api_key="k"))
    return replace(made, limits=limits or made.limits, local=local)


def _resolved(model: Model) -> tuple[Candidate, Any]:
    known = describe(model, load_catalogue(None), DIMENSIONS)
    made = resolve(
        model, known.card, dimensions=DIMENSIONS, index=0, rank=0, local=False, batches=False, identity=known.identity
    )
    return made, known


def _create(model: Model) -> Backend:
    made, known = _resolved(model)
    return create(model, known, made)


def _openai(laid: Wire, _: pytest.MonkeyPatch) -> Backend:
    import httpx2
    import openai

    transport = _transport(laid)
    common: dict[str, Any] = {"api_key": "k", "max_retries": 0}
    model = Model(
        "openai:own",
        space="own",
        dimensions=DIMENSIONS,
        client=openai.OpenAI(http_client=httpx2.Client(transport=transport), **common),
        async_client=openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=transport), **common),
    )
    return _create(model)


def _transport(laid: Wire) -> Any:
    import httpx2

    return httpx2.MockTransport(lambda request: httpx2.Response(laid.status, headers=laid.headers, content=laid.body))


def _cohere(laid: Wire, _: pytest.MonkeyPatch) -> Backend:
    import cohere
    import httpx

    transport = httpx.MockTransport(
        lambda request: httpx.Response(laid.status, headers=laid.headers, content=laid.body)
    )
    model = Model(
        "cohere:own",
        space="own",
        dimensions=DIMENSIONS,
        client=cohere.ClientV2(api_key="k", max_retries=0, httpx_client=httpx.Client(transport=transport)),
        async_client=cohere.AsyncClientV2(
            api_key="k", max_retries=0, httpx_client=httpx.AsyncClient(transport=transport)
        ),
    )
    return _create(model)


def _voyage(laid: Wire, _: pytest.MonkeyPatch) -> Backend:
    import httpx

    transport = httpx.MockTransport(
        lambda request: httpx.Response(laid.status, headers=laid.headers, content=laid.body)
    )
    model = Model(
        "voyage:own",
        space="own",
        dimensions=DIMENSIONS,
        api_key="k",
        client=httpx.Client(transport=transport),
        async_client=httpx.AsyncClient(transport=transport),
    )
    return _create(model)


class _Raw(io.BytesIO):
    """An answer's body as urllib3 has it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def _bedrock(laid: Wire, _: pytest.MonkeyPatch) -> Backend:
    import boto3.session
    from botocore.awsrequest import AWSResponse
    from botocore.config import Config

    client = boto3.session.Session("k", "s", region_name="us-east-1").client(
        "bedrock-runtime", config=Config(retries={"total_max_attempts": 1})
    )
    client.meta.events.register(
        "before-send.bedrock-runtime",
        lambda request, **_: AWSResponse(request.url, laid.status, laid.headers, _Raw(laid.body)),
    )
    return _create(Model("bedrock:cohere.embed-own", space="own", dimensions=DIMENSIONS, client=client))


def _google(laid: Wire, _: pytest.MonkeyPatch) -> Backend:
    import httpx2
    from google import genai
    from google.genai import types

    transport = _transport(laid)
    client = genai.Client(
        api_key="k",
        http_options=types.HttpOptions(
            httpx_client=httpx2.Client(transport=transport), httpx_async_client=httpx2.AsyncClient(transport=transport)
        ),
    )
    return _create(
        Model("google_genai:own", space="own", dimensions=DIMENSIONS, client=client, async_client=client.aio)
    )


def good(provider: str) -> dict[str, Any]:
    """Return the body of the right answer."""
    if provider.startswith("bedrock"):
        return {"id": "1", "texts": list(TEXTS), "embeddings": {"float": RIGHT.tolist()}, "inputTextTokenCount": 3}
    if provider.startswith("google"):
        return {"embeddings": [{"values": row.tolist()} for row in RIGHT], "usageMetadata": {"promptTokenCount": 3}}
    if provider.startswith("cohere"):
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}}
        return {"id": "1", "texts": list(TEXTS), "embeddings": {"float": RIGHT.tolist()}, "meta": meta}
    rows = [{"object": "embedding", "index": place, "embedding": row.tolist()} for place, row in enumerate(RIGHT)]
    for row in rows[1:]:
        row["embedding"] = base64.b64encode(np.asarray(row["embedding"], "<f4").tobytes()).decode()
    return {"object": "list", "data": rows, "model": "own", "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one part of it replaced, removed or doubled."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 3)):
            return {**value, name: damaged(draw, value[name])}
        return {key: item for key, item in value.items() if key != name}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(["inside", "inside", "remove", "double"]))
        part = {"inside": [damaged(draw, value[place])], "remove": [], "double": [value[place]] * 2}[what]
        return [*value[:place], *part, *value[place + 1 :]]
    return draw(values)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[Any], Any]:
    return lambda value: damaged(draw, value)


KINDS = ("openai", "cohere", "voyage", "bedrock", "google")
PROVIDERS = [f"{name}{form}" for form in ("", " async") for name in KINDS]
patched = [HealthCheck.function_scoped_fixture]
often = settings(examples(150), suppress_health_check=patched)
sent_headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/plain", "text/html; charset=latin-1", "nonsense"]),
        "retry-after": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
        "x-ratelimit-remaining-requests": st.text("0123456789-", max_size=30),
        "x-ratelimit-reset-requests": st.text("0123456789smhd.", max_size=40),
    },
)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_right_answer_is_understood(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests below would prove nothing."""
    got = wire(provider, monkeypatch).ask(
        200, {"content-type": "application/json"}, json.dumps(good(provider)).encode()
    )

    assert isinstance(got, Answer)
    assert np.array_equal(got.vectors, RIGHT)
    assert got.tokens == 3


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_any_bytes_become_an_answer_or_an_error_of_ours(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any status, with any headers: no exception of an SDK, of JSON or of numpy comes out."""
    laid = wire(provider, monkeypatch)

    @often
    @given(status=st.just(200) | st.integers(200, 599), headers=sent_headers, body=bodies)
    def run(status: int, headers: dict[str, str], body: bytes) -> None:
        got = laid.ask(status, headers, body)
        if isinstance(got, Answer):
            assert got.tokens is None or 0 <= got.tokens <= MOST_TOKENS
            assert fault(got, len(TEXTS), OWN) is not None, "nothing here is three vectors"

    run()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_damaged_answer_never_gives_a_text_the_vector_of_another(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part of a good answer is replaced, removed or doubled: no vector moves to another text."""
    laid = wire(provider, monkeypatch)

    @often
    @given(damages(), st.permutations(range(len(TEXTS))))
    def run(damage: Callable[[Any], Any], order: list[int]) -> None:
        body = good(provider)
        if "data" in body:
            body["data"] = [body["data"][place] for place in order]
        got = laid.ask(200, {"content-type": "application/json"}, json.dumps(damage(body)).encode())
        if isinstance(got, Answer) and fault(got, len(TEXTS), OWN) is None:
            for place, row in enumerate(got.vectors):
                others = np.delete(RIGHT, place, axis=0)
                assert not any(np.array_equal(row, other) for other in others)
            assert sum(np.array_equal(row, right) for row, right in zip(got.vectors, RIGHT, strict=True)) >= 2

    run()


def _openai_backend() -> Any:
    return _create(Model("openai:own", space="own", dimensions=DIMENSIONS, api_key="k"))


def answers_in(pieces: Sequence[bytes]) -> list[tuple[str, Answer | str]]:
    """Return what a batch endpoint reads of a file of answers that comes in such pieces.

    Raises:
        BackendError: a line cannot be understood.
    """
    import httpx2
    import openai

    def respond(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/content"):
            return httpx2.Response(200, content=iter(pieces))
        return httpx2.Response(200, json={"id": "batch", "object": "batch", "output_file_id": "file"})

    http = httpx2.Client(transport=httpx2.MockTransport(respond))
    client = openai.OpenAI(api_key="k", max_retries=0, http_client=http)
    endpoint = _create(Model("openai:own", space="own", dimensions=DIMENSIONS, client=client)).batches
    assert endpoint is not None
    return list(endpoint.results("batch", timeout=5))


@examples(40)
@given(line=(st.binary(max_size=60) | bodies).map(lambda line: line.replace(b"\n", b" ")))
def test_lines_of_a_batchs_answers_are_read_or_refused(line: bytes) -> None:
    """The file is a provider's; one line that is none must not hide the others behind a foreign exception."""
    try:
        found = answers_in([line])
    except BackendError:
        return
    assert all(isinstance(outcome, str) or fault(outcome, 1, OWN) is not None for _, outcome in found)


@examples(40)
@given(one=values, other=values, status=st.integers(0, 700))
def test_lines_of_a_batch_that_look_right_are_read_or_refused(one: Any, other: Any, status: int) -> None:
    """A name and a body that is anything."""
    lines = [
        {"custom_id": one, "response": {"status_code": status, "body": other}, "error": None},
        {"custom_id": "1", "response": {"status_code": 200, "body": {"data": [{"embedding": one}], "usage": other}}},
        {"custom_id": "1", "error": one, "response": other},
    ]
    for line in lines:
        try:
            ((name, outcome),) = answers_in([json.dumps(line).encode()])
        except BackendError:
            continue
        assert isinstance(name, str)
        assert isinstance(outcome, str | Answer)


@examples(40)
@given(names=st.lists(st.text("aü\u2028\u0085 ", max_size=5), max_size=6), size=st.integers(1, 40))
def test_lines_are_split_at_line_feeds_however_they_arrive(names: list[str], size: int) -> None:
    """Pieces of the network end anywhere, and JSON may hold other characters that end a line."""
    lines = [{"custom_id": name, "response": {"status_code": 500, "body": None}} for name in names]
    content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]

    assert answers_in(pieces) == [(name, "500") for name in names]


@given(st.lists(values, max_size=4), st.sampled_from(["float32", "int8", "uint8"]))
def test_what_is_no_vector_is_refused(embeddings: list[Any], number: str) -> None:
    """Numbers too large for float32 are infinite, and so no vector, as are those that no byte holds; nothing warns."""
    try:
        vectors = decode_vectors(embeddings, "model", number=number)
    except BadResponseError:
        return
    assert vectors.dtype == number


@given(values)
def test_what_is_no_number_of_tokens_is_none(said: Any) -> None:
    """A bill below zero would let a budget grow; one beyond reason fits into no column."""
    tokens = parse_token_count(said)

    assert tokens is None or (type(tokens) is int and tokens == said and 0 <= tokens <= MOST_TOKENS)


def placed(*indices: object) -> list[dict[str, object]]:
    """Rows with an index each; with none for ``None``."""
    return [{"embedding": [1.0], **({} if index is None else {"index": index})} for index in indices]


@pytest.mark.parametrize("rows", [placed(2, None, None), placed(1, "?"), placed(None, 0), {"0": 1}, [None], "ab", 3])
def test_rows_that_only_partly_say_their_place_are_refused(rows: object) -> None:
    """Their order is unknown."""
    with pytest.raises(BadResponseError):
        _openai_backend().parse_body({"data": rows})


# Headers


TINY = Decimal("0.000001")
header_texts = st.text(max_size=40) | st.from_regex(r"[0-9٣²]{1,30}(\.[0-9]{1,400})?(ms|s|m|h|d)?", fullmatch=True)
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed", "Mon", "x"]),
    st.integers(-1, 40),
    st.sampled_from(["Oct", "Feb", "Foo", "13"]),
    st.integers(-5, 10**12),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.sampled_from(["GMT", "+9999", "-2400", "+99999999999999999999", "", "EST"]),
)


@given(st.dictionaries(st.sampled_from(["retry-after", "Retry-After", "retry-after-ms"]), header_texts | dates))
def test_a_wait_is_never_below_zero_and_never_an_exception(headers: dict[str, str]) -> None:
    """Numbers, dates, dates that are none."""
    wait = parse_retry_after(headers)

    assert wait is None or wait >= 0


names = [
    f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(names), header_texts), st.lists(st.integers(0, 10**6), max_size=8))
def test_no_reported_limit_makes_a_call_wait_for_ever(headers: dict[str, str], sizes: list[int]) -> None:
    """A limit of 0, of a thousand digits, or a reset in a million years would stop every call of this model."""
    limits = ModelLimits(concurrency=9, requests=None, tokens=None, cooldown=0, lease=60)
    now = 0.0
    for size in sizes:
        waited = 0
        while not isinstance(admission := limits.admit(size, now), Admission):
            assert 0 < admission.seconds <= MAX_RESET
            now += admission.seconds
            waited += 1
            assert waited < 20
        limits.answered(admission, size, parse_rate_limits(headers), now)


@given(
    st.builds(
        RateLimits,
        requests=st.none() | st.integers(1, 100),
        requests_left=st.none() | st.integers(0, 100),
        requests_reset=st.none() | st.floats(10.5, 90),  # a shorter one is of a limit for seconds, not for a minute
        tokens=st.none() | st.integers(1, 1000),
        tokens_left=st.none() | st.integers(0, 1000),
        tokens_reset=st.none() | st.floats(0, 90),
    ),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 70)), max_size=30),
    st.none() | st.integers(1, 5),
)
def test_no_minute_holds_more_requests_than_the_limit(
    said: RateLimits, requests: list[tuple[int, float]], declared: int | None
) -> None:
    """With any other report of the provider, and however unevenly requests come."""
    limits = ModelLimits(concurrency=9, requests=declared, tokens=None, cooldown=0, lease=60)
    now, sent = 0.0, []
    for size, pause in requests:
        now += pause
        while not isinstance(admission := limits.admit(size, now), Admission):
            now += admission.seconds
        sent.append(now)
        limits.answered(admission, size, said, now)
    most = declared or said.requests
    if most is not None:
        for begin in sent[1:]:  # the first came before the provider had said anything
            assert declared is None or sum(begin <= at < begin + MINUTE - 1 for at in sent) <= most
            assert sum(begin <= at < begin + MINUTE - 1 for at in sent[1:]) <= most


@pytest.mark.parametrize(
    "said",
    [
        RateLimits(requests=0),
        RateLimits(requests_left=0, requests_reset=math.inf),
        RateLimits(requests_left=0, requests_reset=1e300),
    ],
    ids=["no requests", "never", "never, almost"],
)
def test_limits_that_cannot_be_stop_no_request(said: RateLimits) -> None:
    """Ours read no such headers, but a backend of the user's may say anything."""
    limits = ModelLimits(concurrency=9, requests=None, tokens=None, cooldown=0, lease=60)
    admission = limits.admit(1, 0.0)
    assert isinstance(admission, Admission)
    limits.answered(admission, 1, said, 0.0)
    again = limits.admit(1, MINUTE + 1)

    assert isinstance(again, Admission) or again.seconds < MAX_RESET


@pytest.mark.parametrize("tokens", [-5, 10**30, 1.5, math.nan, "7", np.int64(3)], ids=repr)
def test_a_bill_that_cannot_be_leaves_the_estimate(tokens: Any) -> None:
    """From a backend of the user's: the vector is there, the estimate is booked, and nothing stays set aside."""
    fake = FakeBackend(outcomes=[Answer(np.ones((1, 8), np.float32), tokens)])
    with Router([fake.model(price="1")], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING) as router:
        router.embed(["one two"], input_type="query")
        (account,) = router.ledger.totals("model").values()
        assert router.ledger.refusal(Budget(total=account.cost + TINY), TINY) is None, "money is still set aside"

    assert (account.requests, account.tokens) == (1, 3 if tokens == 3 else 2)
    assert type(account.tokens) is int


# Rows of the cache


entries = st.builds(
    lambda numbers, tokens: Entry(np.array(numbers, np.float32), tokens),
    st.lists(st.floats(width=32), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)


def same(one: Entry, other: Entry) -> bool:
    return one.vector.tobytes() == other.vector.tobytes() and one.tokens == other.tokens


@given(entries, st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6), st.booleans())
def test_a_row_with_flipped_bits_is_absent_or_the_very_same(
    entry: Entry, flips: list[tuple[int, int]], is_header: bool
) -> None:
    """Any number of bytes, in the header or in the numbers."""
    row = encode(entry)
    changed = bytearray(row)
    for place, mask in flips:
        changed[place % (16 if is_header else len(row))] ^= mask
    got = decode(bytes(changed), entry.vector.size)

    assert (got is not None) == (bytes(changed) == row)
    assert got is None or same(got, entry)


@given(entries, entries, st.integers(0, 80), st.integers(0, 80), st.binary(max_size=8))
def test_a_row_made_of_two_is_absent_or_one_of_them(
    one: Entry, other: Entry, cut: int, start: int, between: bytes
) -> None:
    """A torn write leaves the beginning of one row and the end of another."""
    torn = encode(one)[:cut] + between + encode(other)[start:]
    for entry in (one, other):
        got = decode(torn, entry.vector.size)
        assert got is None or same(got, one) or same(got, other)
    assert is_sound(bytes(KEY_BYTES), torn) in (True, False)


@given(entries, st.integers(0, 20))
def test_a_row_is_read_in_its_own_dimensions_alone(entry: Entry, dimensions: int) -> None:
    """Vectors of two spaces never meet."""
    got = decode(encode(entry), dimensions)

    assert (got is not None) == (dimensions == entry.vector.size)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_row_or_none(row: bytes) -> None:
    """Looking over a folder raises nothing, also where another program wrote into it."""
    assert is_sound(bytes(KEY_BYTES), row) in (True, False)
    assert is_sound(bytes(KEY_BYTES), b"ER\x01\x01" + row) in (True, False)


@pytest.mark.parametrize("tokens", [-1, 2**32, 10**30])
def test_tokens_that_no_row_can_hold_cost_no_vector(tokens: int) -> None:
    """The vector is paid for, and its share of the bill is cut."""
    entry = decode(encode(Entry(np.ones(2, np.float32), tokens)), 2)

    assert entry is not None
    assert entry.tokens == max(0, min(tokens, 2**32 - 1))


# Keys


@given(
    st.lists(st.text("a\x00\x01\x08|:", max_size=9), min_size=5, max_size=5),
    st.tuples(*[st.integers(0, 40)] * 4),
    st.tuples(*[st.integers(0, 40)] * 4),
)
def test_the_same_letters_cut_elsewhere_have_another_key(
    parts: list[str], one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    """Also where the letters look like the lengths that stand between the parts."""
    letters = "".join(parts)

    def cut(places: tuple[int, ...]) -> tuple[str, ...]:
        ends = [0, *sorted(min(place, len(letters)) for place in places), len(letters)]
        return tuple(letters[begin:end] for begin, end in pairwise(ends))

    def key(parts: tuple[str, ...]) -> bytes:
        fingerprint, dtype, input_type, policy, text = parts
        return key_function(replace(candidate(), fingerprint=fingerprint), input_type, dtype=dtype, policy=policy)(text)  # type: ignore[arg-type]

    assert (key(cut(one)) == key(cut(other))) == (cut(one) == cut(other))


@given(st.lists(st.text(max_size=6), unique=True, max_size=30))
def test_a_key_does_not_depend_on_the_texts_before_it(texts: list[str]) -> None:
    """One function makes the keys of a whole call."""
    many = key_function(candidate(), "query", policy="truncate:9")

    assert [many(text) for text in texts] == [
        key_function(candidate(), "query", policy="truncate:9")(text) for text in texts
    ]
    assert len(set(map(many, texts))) == len(texts)
    assert {key_function(candidate(), "query")(text) for text in texts}.isdisjoint(map(many, texts))


# Requests


@given(
    texts=st.lists(st.text("aü猫🎉", min_size=1, max_size=9), unique=True, max_size=40),
    limits=st.builds(
        Limits,
        texts=st.integers(1, 6),
        tokens=st.none() | st.integers(1, 30),
        size=st.none() | st.integers(1, 60),
        input_tokens=st.none() | st.integers(1, 8),
    ),
    local=st.booleans(),
)
def test_requests_hold_every_text_once_within_the_limits(texts: list[str], limits: Limits, local: bool) -> None:
    """In bytes of UTF-8, not in letters; a text that may be too long travels alone."""
    model = candidate(limits, local=local)
    items = [SizedText(text, len(text)) for text in texts]
    for requests in (pack_requests(items, model), pack_texts(items, model)):
        assert sorted(item.text for request in requests for item in request) == sorted(texts)
        for request in requests:
            assert 1 <= len(request) <= limits.texts
            if len(request) > 1:
                assert limits.tokens is None or sum(item.tokens for item in request) <= limits.tokens
                assert limits.size is None or sum(len(item.text.encode()) for item in request) <= limits.size
    assert [item for request in pack_texts(items, model) for item in request] == items
    long = [item for item in items if item.tokens > (limits.input_tokens or 99)]
    assert all([item] in pack_requests(items, model) for item in long)


# The decisions of a call, in time


@dataclass
class Clock:
    """Time that passes where the script says so."""

    now: float = 0.0
    pauses: int = 0

    def sleep(self, seconds: float) -> None:
        self.pauses += 1
        assert self.pauses < 5000, "it does not end"
        assert 0 <= seconds < math.inf
        self.now += seconds


class Scripted(FakeBackend):
    """Each request takes its own time, no longer than it may."""

    def __init__(self, script: Sequence[tuple[Answer | Exception | None, float]], clock: Clock) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.spans: list[float] = []
        self._script, self._clock = list(script), clock

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        assert timeout > 0
        self.spans.append(timeout)
        outcome, seconds = self._script.pop(0) if self._script else (None, 0.0)
        self._clock.now += min(seconds, timeout)
        if seconds >= timeout:
            raise RequestTimeoutError("late")
        if isinstance(outcome, Exception):
            raise outcome
        answer = super().embed(texts, input_type, timeout=timeout)
        if outcome is None:
            return answer
        return outcome if outcome.limits is None else replace(answer, limits=outcome.limits)


waits = st.none() | st.sampled_from([0.0, 0.5, 7.0, 50.0, 4000.0, math.inf])
happenings: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.builds(lambda wait: RateLimitedError("slow", retry_after=wait), waits),
    st.builds(lambda wait: UnavailableError("down", retry_after=wait), waits),
    st.builds(lambda said: Answer(np.ones((1, 1), np.float32), 1, limits=said), st.builds(
        RateLimits,
        requests=st.none() | st.integers(1, 3),
        requests_left=st.none() | st.integers(0, 2),
        requests_reset=st.none() | st.floats(0, 100),
        tokens=st.none() | st.integers(1, 20),
        tokens_left=st.none() | st.integers(0, 20),
        tokens_reset=st.none() | st.floats(0, 100),
    )),
    st.sampled_from([
        RequestTimeoutError("late"),
        RateLimitedError("no money", retryable=False),
        UnavailableError("gone", retryable=False),
        AuthenticationError("key"),
        InputRejectedError("refused"),
        BackendError("odd"),
        Answer(np.full((1, DIMENSIONS), np.nan, np.float32), 5),
    ]),
)  # fmt: skip


@often
@given(
    script=st.lists(st.tuples(happenings, st.sampled_from([0.0, 0.1, 3.0, 40.0])), max_size=40),
    retry=st.builds(
        RetryPolicy,
        attempts=st.integers(1, 6),
        timeout=st.sampled_from([0.0, 1.0, 20.0, 300.0]),
        initial_wait=st.sampled_from([0.0, 0.5, 30.0]),
        max_wait=st.sampled_from([0.0, 20.0]),
    ),
    deadline=st.none() | st.sampled_from([0.0, 0.5, 15.0, 200.0]),
    chance=st.floats(0, 1),
    cooldown=st.sampled_from([0.0, 5.0, 100.0]),
    per_minute=st.none() | st.integers(1, 4),
    models=st.integers(1, 3),
    unavailable=st.sampled_from(["raise", "degrade"]),
)
def test_every_call_ends_in_time_with_the_right_vectors_or_an_error_of_ours(
    script: list[tuple[Any, float]],
    retry: RetryPolicy,
    deadline: float | None,
    chance: float,
    cooldown: float,
    per_minute: int | None,
    models: int,
    unavailable: Any,
) -> None:
    """With any failures, times and waits that are asked for: rate limits and the circuit breaker included."""
    clock = Clock()
    fake = Scripted(script, clock)
    router = Router(
        [
            fake.model(
                name,
                tier=tier,
                price=price,
                batch_size=1,
                max_concurrency=1,
                timeout=30,
                requests_per_minute=per_minute,
            )
            for name, tier, price in MADE[:models]
        ],
        cache=None,
        ledger=":memory:",
        retry=replace(retry, cooldown=cooldown),
        when_unavailable=unavailable,
        clock=lambda: clock.now,
        sleep=clock.sleep,
        random=lambda: chance,
    )
    texts = ["t", "uu", "vvv"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        try:
            result = router.embed(texts, input_type="query", tier="medium", timeout=deadline)
        except EmbedRouterError:
            pass
        else:
            assert np.array_equal(result.vectors, [fake.vector(text, "query") for text in texts])
    assert deadline is None or clock.now <= deadline + 1e-6
    assert len(fake.spans) <= retry.attempts * models * len(texts) * 2
    assert all(span <= min(30, retry.timeout) + 1e-6 for span in fake.spans)
    spent = sum((account.cost + account.unconfirmed for account in router.ledger.totals("model").values()), Decimal(0))
    assert router.ledger.refusal(Budget(total=spent + TINY), TINY) is None, "money is still set aside"


MADE = (("fake:a", "high", "1"), ("fake:b", "medium", "2"), ("fake:c", "low", "1"))
"""The last is below the tier that is asked for."""
