"""The emulator's Batch API against OpenAI's real SDK: it accepts, refuses, bills and loses what the service does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import openai
import pytest
from openai.types import Batch

from tests.emulator import Emulator, Fault, Limits, count_tokens

SMALL = "text-embedding-3-small"
URL: Final = "/v1/embeddings"
TEXTS = [f"the tram number {place} stops at the harbour" for place in range(10)]


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    """One emulator serves the whole module: a reset forgets everything."""
    running.reset()
    return running


@pytest.fixture(scope="module")
def client(running: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=running.openai_url, max_retries=0) as made:
        yield made


@pytest.fixture
def oai(emulator: Emulator, client: openai.OpenAI) -> openai.OpenAI:
    """A client of the emulator that was just reset."""
    return client


def request(place: int, text: str, **body: Any) -> dict[str, Any]:
    body = {"model": SMALL, "input": [text], "dimensions": 8, **body}
    return {"custom_id": f"r{place}", "method": "POST", "url": URL, "body": body}


REQUESTS = [request(place, text) for place, text in enumerate(TEXTS)]


def jsonl(*lines: object) -> bytes:
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def upload(client: openai.OpenAI, *lines: object) -> str:
    return client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch").id


def start(client: openai.OpenAI, *lines: object, **options: Any) -> Batch:
    return client.batches.create(input_file_id=upload(client, *lines), endpoint=URL, completion_window="24h", **options)


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """Return the lines of an output or error file by `custom_id`, in the order of the file."""
    if file_id is None:
        return {}
    rows = [json.loads(line) for line in client.files.content(file_id).iter_lines()]
    return {row["custom_id"]: row for row in rows}


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def complaints(batch: Batch) -> list[tuple[str | None, str | None, int | None]]:
    return [(error.code, error.param, error.line) for error in (batch.errors and batch.errors.data) or []]


def test_every_step(emulator: Emulator, oai: openai.OpenAI) -> None:
    """Each status comes with its timestamp and its counts, and files are there at the end only."""
    created = start(oai, *REQUESTS, metadata={"job": "docs"})
    seen = [created]
    for _ in range(3):
        emulator.batches.advance(created.id)
        seen.append(oai.batches.retrieve(created.id))
    done = seen[-1]

    assert [batch.status for batch in seen] == ["validating", "in_progress", "finalizing", "completed"]
    assert [counts(batch) for batch in seen] == [(0, 0, 0), (10, 0, 0), (10, 10, 0), (10, 10, 0)]
    assert [batch.output_file_id is None for batch in seen] == [True, True, True, False]
    moments = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at, done.expires_at]
    assert moments == sorted(moments, key=lambda moment: moment or 0)
    assert len(set(moments)) == 5
    assert done.expires_at == done.created_at + 24 * 3600
    assert (done.metadata, done.model, done.error_file_id) == ({"job": "docs"}, SMALL, None)


def test_answers_are_those_of_the_endpoint_in_another_order(emulator: Emulator, oai: openai.OpenAI) -> None:
    """A cache may be filled from both; the service does not keep the order, so no client may rely on it."""
    batch = start(oai, *REQUESTS, request(10, "in base64", encoding_format="base64"))
    emulator.batches.finish()
    output = read(oai, oai.batches.retrieve(batch.id).output_file_id)
    direct = oai.embeddings.create(model=SMALL, input=TEXTS[3], dimensions=8, encoding_format="float")

    assert output["r3"]["error"] is None
    assert output["r3"]["response"]["status_code"] == 200
    assert output["r3"]["response"]["body"] == direct.to_dict()
    assert isinstance(output["r10"]["response"]["body"]["data"][0]["embedding"], str)
    assert list(output) != sorted(output) == sorted(f"r{place}" for place in range(11))


def test_the_bill_is_apart(emulator: Emulator, oai: openai.OpenAI) -> None:
    """Batch tokens cost half, and are billed when they are computed, not when the file is read."""
    tokens = [count_tokens("openai", text) for text in TEXTS]
    batch = start(oai, *REQUESTS)
    emulator.batches.progress(share=0.4)
    part = emulator.billed_in_batches
    emulator.batches.finish()
    usage = oai.batches.retrieve(batch.id).usage

    assert part == {("openai", SMALL): sum(tokens[:4])}
    assert emulator.billed_in_batches == {("openai", SMALL): sum(tokens)}
    assert usage is not None
    assert usage.total_tokens == sum(tokens)
    assert not emulator.billed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"purpose": "embeddings"}, "is not one of"),
        ({"file": b"{}"}, "Must be .jsonl"),
        ({"file": ("in.txt", b"{}")}, "Must be .jsonl"),
        ({"file": ("in.jsonl", b"")}, "Must be .jsonl"),
        ({"file": ("in.jsonl", b"{oops\n")}, "Must be .jsonl"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "below minimum"),
        ({"expires_after": {"anchor": "last_used", "seconds": 3600}}, "Supported values are"),
        ({"extra_body": {"model": SMALL}}, "Unknown parameter"),
    ],
)
def test_refused_uploads(oai: openai.OpenAI, options: dict[str, Any], message: str) -> None:
    """What the service refuses at once."""
    with pytest.raises(openai.BadRequestError, match=message):
        oai.files.create(**{"file": ("in.jsonl", b"{}"), "purpose": "batch", **options})

    assert not list(oai.files.list())


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"input_file_id": openai.omit}, "input_file_id"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags"),
        ({"metadata": {str(place): "" for place in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, "output_expires_after.seconds"),
        ({"extra_body": {"priority": 1}}, "priority"),
    ],
)
def test_refused_batches(emulator: Emulator, oai: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    """A wrong parameter is a 400 that names it, and no batch."""
    usual: dict[str, Any] = {"input_file_id": upload(oai, *REQUESTS), "endpoint": URL, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as caught:
        oai.batches.create(**{**usual, **options})

    assert caught.value.param == param
    assert emulator.batches.ids == ()
    assert len(emulator.refused) == 1


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{oops\n", "invalid_json_line", None),
        (b"\n", "invalid_json_line", None),
        (b"\xef\xbb\xbf" + jsonl(request(1, "x")), "invalid_json_line", None),
        (b'{"custom_id": NaN}\n', "invalid_json_line", None),
        ([1], "invalid_request", None),
        ({**REQUESTS[1], "custom_id": None}, "missing_required_parameter", "custom_id"),
        ({**REQUESTS[1], "custom_id": 7}, "invalid_type", "custom_id"),
        ({**REQUESTS[1], "custom_id": "r0"}, "duplicate_custom_id", "custom_id"),
        ({**REQUESTS[1], "method": "GET"}, "invalid_method", "method"),
        ({**REQUESTS[1], "url": "/embeddings"}, "invalid_url", "url"),
        ({**REQUESTS[1], "body": None}, "missing_required_parameter", "body"),
        ({**REQUESTS[1], "body": "x"}, "invalid_type", "body"),
        (request(1, "x", model=None), "invalid_request", "body.model"),
        (request(1, "x", model="text-embedding-3-large"), "mismatched_model", "body.model"),
    ],
)
def test_invalid_lines(emulator: Emulator, oai: openai.OpenAI, line: object, code: str, param: str | None) -> None:
    """The batch is made and fails later, saying where and why; nothing is billed."""
    batch = start(oai, REQUESTS[0], line, REQUESTS[2])
    emulator.batches.advance()
    failed = oai.batches.retrieve(batch.id)

    assert batch.status == "validating"
    assert (failed.status, counts(failed)) == ("failed", (0, 0, 0))
    assert failed.failed_at is not None
    assert complaints(failed) == [(code, param, 2)]
    assert not emulator.billed_in_batches


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(), None),
        (Limits(requests=9), "too_many_tasks"),
        (Limits(inputs=10), "too_many_inputs"),
        (Limits(bytes=1000), "file_too_large"),
    ],
)
def test_limits(emulator: Emulator, oai: openai.OpenAI, limits: Limits, code: str | None) -> None:
    """Requests, inputs over the whole file and bytes each have their own."""
    emulator.batches.limits = limits
    batch = start(oai, *REQUESTS[:9], request(9, "", input=["one", "two"]))
    emulator.batches.advance()

    assert [found for found, _, _ in complaints(oai.batches.retrieve(batch.id))] == ([code] if code else [])


def test_what_does_not_exist_fails_the_batch_or_the_call(emulator: Emulator, oai: openai.OpenAI) -> None:
    """An unknown model or file fails the batch later; unknown ids are a 404, wrong keys a 401, at every door."""
    other = oai.files.create(file=("in.jsonl", jsonl(*REQUESTS)), purpose="user_data").id
    made = [start(oai, request(0, "x", model="text-embedding-4"))]
    for file_id in ("file-unknown", other):
        made.append(oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h"))
    emulator.batches.advance()
    for call in (oai.batches.retrieve, oai.batches.cancel, oai.files.retrieve, oai.files.content, oai.files.delete):
        with pytest.raises(openai.NotFoundError):
            call("nothing")
    with (
        Emulator(keys={"right"}) as strict,
        openai.OpenAI(api_key="wrong", base_url=strict.openai_url, max_retries=0) as stranger,
    ):
        for attempt in (lambda: upload(stranger, *REQUESTS), stranger.batches.list, stranger.files.list):
            with pytest.raises(openai.AuthenticationError):
                attempt()

    assert [complaints(oai.batches.retrieve(batch.id))[0][0] for batch in made] == [
        "model_not_found",
        "invalid_request",
        "invalid_request",
    ]


def test_refused_lines(emulator: Emulator, oai: openai.OpenAI) -> None:
    """A body that the endpoint refuses is in the error file, as the endpoint says it; the batch completes."""
    batch = start(oai, REQUESTS[0], request(1, ""), request(2, "x", dimensions=9999), request(3, "x", role="query"))
    emulator.batches.finish()
    done = oai.batches.retrieve(batch.id)
    errors = read(oai, done.error_file_id)
    with pytest.raises(openai.BadRequestError) as direct:
        oai.embeddings.create(model=SMALL, input="x", dimensions=9999)

    assert (done.status, counts(done)) == ("completed", (4, 1, 3))
    assert set(errors) == {"r1", "r2", "r3"}
    assert errors["r2"]["response"]["status_code"] == 400
    assert errors["r2"]["response"]["body"]["error"] == direct.value.body
    assert set(read(oai, done.output_file_id)) == {"r0"}


def test_expiry(emulator: Emulator, oai: openai.OpenAI) -> None:
    """A day later it is over: what is done is there and billed; what is not says so, and counts as nothing."""
    batch = start(oai, *REQUESTS)
    emulator.batches.progress(share=0.6)
    emulator.batches.pass_time(24 * 3600)
    done = oai.batches.retrieve(batch.id)
    errors = read(oai, done.error_file_id)

    assert (done.status, counts(done)) == ("expired", (10, 6, 0))
    assert set(read(oai, done.output_file_id)) == {f"r{place}" for place in range(6)}
    assert set(errors) == {f"r{place}" for place in range(6, 10)}
    assert errors["r9"]["response"] is None
    assert errors["r9"]["error"]["code"] == "batch_expired"
    assert sum(emulator.billed_in_batches.values()) == sum(count_tokens("openai", text) for text in TEXTS[:6])


def test_cancel(emulator: Emulator, oai: openai.OpenAI) -> None:
    """It takes its time; requests under way still complete; the rest says that it was cancelled."""
    batch = start(oai, *REQUESTS)
    emulator.batches.progress(share=0.3)
    cancelling = oai.batches.cancel(batch.id)
    emulator.batches.progress(share=0.5)
    emulator.batches.advance()
    done = oai.batches.retrieve(batch.id)
    finished = start(oai, *REQUESTS)
    emulator.batches.finish(finished.id)

    assert (cancelling.status, counts(cancelling), cancelling.output_file_id) == ("cancelling", (10, 3, 0), None)
    assert (done.status, counts(done)) == ("cancelled", (10, 5, 0))
    assert len(read(oai, done.output_file_id)) == 5
    assert {row["error"]["code"] for row in read(oai, done.error_file_id).values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        oai.batches.cancel(finished.id)


def test_pages_and_files_that_pass(emulator: Emulator, oai: openai.OpenAI) -> None:
    """Newest first in pages; output files are gone after their time."""
    file_id = upload(oai, *REQUESTS)
    expiry: Any = {"anchor": "created_at", "seconds": 200_000}
    made = [
        oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h", output_expires_after=expiry).id
        for _ in range(12)
    ]
    first = oai.batches.list(limit=10)
    emulator.batches.finish()
    output = oai.batches.retrieve(made[0]).output_file_id or ""
    size = len(oai.files.content(output).read())
    file = oai.files.retrieve(output)
    emulator.batches.pass_time(200_000)

    assert ([batch.id for batch in first.data], first.has_more) == (made[:1:-1], True)
    assert [batch.id for batch in oai.batches.list(limit=10)] == made[::-1]
    assert (file.purpose, file.bytes, file.expires_at) == ("batch_output", size, file.created_at + 200_000)
    with pytest.raises(openai.NotFoundError):
        oai.files.content(output)


@pytest.mark.parametrize(
    ("fault", "error", "made"),
    [
        (Fault.status(500), openai.InternalServerError, 0),
        (Fault.rate_limited(), openai.RateLimitError, 0),
        (Fault.reset(), openai.APIConnectionError, 0),
        (Fault.lost(), openai.APIConnectionError, 1),
        (Fault.half_body(), openai.APIConnectionError, 1),
    ],
)
def test_faults_while_a_batch_is_created(
    emulator: Emulator, oai: openai.OpenAI, fault: Fault, error: type[Exception], made: int
) -> None:
    """A client that sees no answer does not know whether there is a batch: it has to look at the list."""
    file_id = upload(oai, *REQUESTS)
    emulator.script(fault)
    with pytest.raises(error):
        oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")

    assert len(list(oai.batches.list())) == len(emulator.batches.ids) == made


def test_a_truncated_download(emulator: Emulator, oai: openai.OpenAI) -> None:
    """Some lines arrive, one is torn, and the end is an error."""
    batch = start(oai, *REQUESTS)
    emulator.batches.finish()
    file_id = oai.batches.retrieve(batch.id).output_file_id or ""
    emulator.script(Fault.half_body())
    seen: list[str] = []

    def download() -> None:
        with oai.files.with_streaming_response.content(file_id) as content:
            seen.extend(content.iter_lines())

    with pytest.raises(Exception, match="incomplete chunked read"):
        download()

    assert 0 < len(seen) < 10
    assert len(read(oai, file_id)) == 10


def test_mistakes_of_a_test_are_not_swallowed() -> None:
    """A fault at the wrong request, or one that cannot be made, must not look like a broken connection."""

    def misplaced() -> None:
        with Emulator() as emulator, openai.OpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
            emulator.script(Fault.nan())
            with pytest.raises(openai.InternalServerError):
                client.batches.list()

    def impossible() -> None:
        with Emulator() as emulator, openai.OpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
            emulator.batches.spoil_lines({"r0"}, Fault("dimensions", amount=-1))
            batch = start(client, *REQUESTS)
            emulator.batches.finish()
            with pytest.raises(openai.APIConnectionError):
                client.files.content(client.batches.retrieve(batch.id).output_file_id or "")

    with pytest.raises(ValueError, match="spoil_lines"):
        misplaced()
    with pytest.raises(ValueError, match="new_shape"):
        impossible()
