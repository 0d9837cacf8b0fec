"""Texts handed to Google's batch endpoint, as they are to OpenAI's: half the price, found again, and never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types

from embedrouter import Budget, Model, Router
from embedrouter.batches import BatchJob
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    ConfigError,
    UnavailableError,
)
from embedrouter.providers.google_batches import GoogleBatches
from embedrouter.router import wiring_of
from embedrouter.spending import Account
from embedrouter.testing import NO_WAITING
from tests.emulator import Emulator, Fault, Received, count_tokens, vector

ONE, TWO = "gemini-embedding-001", "gemini-embedding-2"
MODEL = f"google_genai:{ONE}"
TEXTS = [f"the ferry number {place} leaves at noon" for place in range(10)]
KEY = "AIza-test-7f3a9c2b"
HALF, MILLION = Decimal("0.075"), 1_000_000

Build = Callable[..., Router]


@pytest.fixture
def build(emulator: Emulator, tmp_path: Path) -> Iterator[Build]:
    """Build routers that share one cache and one ledger, as processes do."""
    with ExitStack() as stack:

        def router(model: dict[str, Any] | None = None, name: str = MODEL, **settings: Any) -> Router:
            declared = {"base_url": emulator.google_url, "api_key": KEY, "dimensions": 8, **(model or {})}
            told = {"cache": tmp_path / "shared", "retry": NO_WAITING, **settings}
            return stack.enter_context(Router([Model(name, **declared)], **told))

        yield router


def on(method: str, part: str, *faults: Fault | None) -> Callable[[Received], Fault | None]:
    """Let something happen to the requests to one place: the faults in turn, then nothing."""
    left = list(faults)

    def rule(received: Received) -> Fault | None:
        return left.pop(0) if left and received.method == method and part in received.path else None

    return rule


def account(router: Router) -> Account:
    return router.ledger.totals("model").get(MODEL, Account())


def reasons(job: BatchJob) -> dict[int, str]:
    return {failure.index: failure.reason for failure in job.poll().failures}


def test_what_a_batch_answered_is_in_the_cache(emulator: Emulator, build: Build) -> None:
    """For half the money, and with the vectors and the bill of single requests."""
    router = build()
    expected = router.estimate(TEXTS, input_type="document", batch=True)
    job = router.submit_batch(TEXTS)
    assert not job.poll().ended
    emulator.google_batches.run()
    assert not job.poll().ended
    emulator.google_batches.finish()
    status = job.wait()
    booked = account(router)
    result = router.embed(TEXTS, input_type="document")
    billed = emulator.billed_in_batches["google", ONE]

    assert (status.ended, status.texts, status.answered, status.failures) == (True, 10, 10, ())
    assert all(result.cached)
    for row, text in zip(result.vectors, TEXTS, strict=True):
        assert row.tobytes() == vector(ONE, 8, "RETRIEVAL_DOCUMENT", text).tobytes()
    assert emulator.calls == 0
    assert billed == sum(count_tokens("google", text) for text in TEXTS)
    assert booked == Account(1, 10, billed, billed * HALF / MILLION)
    assert expected.cost is not None
    assert booked.cost < expected.cost < 3 * booked.cost
    assert emulator.refused == ()


def test_the_lines_are_those_of_the_api(emulator: Emulator, build: Build) -> None:
    """A key and an EmbedContentRequest; the model that knows no task types is told in the text."""
    build().submit_batch(["a"], input_type="query")
    build(name=f"google_genai:{TWO}").submit_batch(["b"])
    one, two = (line["request"] for line in emulator.google_batches.input_lines)

    assert one == {"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 8}
    assert two == {"content": {"parts": [{"text": "title: none | text: b"}]}, "outputDimensionality": 8}


def test_the_sdks_own_types_read_what_the_emulator_answers(emulator: Emulator, build: Build) -> None:
    """The states, the display name and the file of answers."""
    build().submit_batch(TEXTS)
    emulator.google_batches.finish()
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=emulator.google_url)) as client:
        [job] = client.batches.list()

        assert isinstance(job, types.BatchJob)
        assert job.state is types.JobState.JOB_STATE_SUCCEEDED
        assert str(job.display_name).startswith("batch-")
        assert job.dest is not None
        assert len(client.files.download(file=str(job.dest.file_name)).splitlines()) == 10


def test_a_new_process_finds_the_job_and_collects_it(emulator: Emulator, build: Build) -> None:
    """The record is in the ledger's file; a batch that is collected is booked once."""
    build().submit_batch(TEXTS).poll()
    emulator.google_batches.finish()
    other = build()
    [job] = other.batches()
    job.poll()
    job.poll()

    assert all(other.embed(TEXTS, input_type="document").cached)
    assert account(other).requests == 1
    assert other.batches() == []


@pytest.mark.parametrize("fault", [Fault.lost(), Fault.status(503)])
def test_a_batch_whose_answer_is_lost_is_found(emulator: Emulator, build: Build, fault: Fault) -> None:
    """By its display name; it is not submitted again."""
    router = build()
    emulator.fault_for = on("POST", ":asyncBatchEmbedContent", fault)
    job = router.submit_batch(TEXTS)
    emulator.google_batches.finish()

    assert job.poll().answered == 10
    assert len(emulator.google_batches.names) == 1


def test_a_batch_is_found_on_any_page_of_the_list(emulator: Emulator, build: Build) -> None:
    """Other programs submit batches, too."""
    emulator.google_batches.page = 2
    router = build()
    for place in range(5):
        router.submit_batch([f"text {place}"])
    endpoint = wiring_of(router).backends[0].batches
    assert endpoint is not None
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=emulator.google_url)) as client:
        jobs = list(client.batches.list())

    assert [job.name for job in jobs] == emulator.google_batches.names[::-1]
    assert [endpoint.find(str(job.display_name), timeout=5) for job in jobs] == [job.name for job in jobs]
    assert endpoint.find("batch-of-nobody", timeout=5) is None


def test_refused_texts_are_listed(emulator: Emulator, build: Build) -> None:
    """With Google's code, not its words; the others are kept and paid."""
    router = build()
    emulator.google_batches.fail_texts(lambda text: text in (TEXTS[2], TEXTS[5]))
    job = router.submit_batch(TEXTS)
    emulator.google_batches.finish()

    assert reasons(job) == {2: "INTERNAL", 5: "INTERNAL"}
    assert sum(router.embed(TEXTS, input_type="document").cached) == 8


@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED", "FAILED"])
def test_a_batch_that_ended_without_answers_costs_nothing(emulator: Emulator, build: Build, state: str) -> None:
    """Each text says why, and its money is free again."""
    router = build(budget=Budget(per_day="0.00002"))
    job = router.submit_batch(TEXTS)
    emulator.google_batches.end(state)

    assert set(reasons(job)) == set(range(10))
    assert account(router).cost == 0
    assert router.submit_batch(TEXTS).poll().texts == 10


def test_a_batch_is_cancelled(emulator: Emulator, build: Build) -> None:
    """Once; a second time harms nothing, nor does one that comes too late."""
    router = build()
    job = router.submit_batch(TEXTS)
    job.cancel()
    job.cancel()
    late = router.submit_batch(["another"])
    emulator.google_batches.finish()
    late.cancel()

    assert set(reasons(job)) == set(range(10))
    assert late.poll().answered == 1


def test_a_batch_over_the_budget_is_not_submitted(emulator: Emulator, build: Build) -> None:
    """Nothing leaves the machine."""
    with pytest.raises(BudgetExceededError):
        build(budget=Budget(per_call="0.0000001")).submit_batch(TEXTS)

    assert emulator.google_batches.received == ()


@pytest.mark.parametrize("part", ["/upload/", ":asyncBatchEmbedContent"])
def test_a_submission_that_is_refused_leaves_nothing(emulator: Emulator, build: Build, part: str) -> None:
    """No reservation, no record; the error is ours and shows neither text nor key."""
    router = build()
    echo = TEXTS[0] if part == "/upload/" else ""  # the other request has no text
    body = {"error": {"code": 400, "message": f"API key not valid: {KEY}. {echo}", "status": "INVALID_ARGUMENT"}}
    emulator.fault_for = on("POST", part, Fault.status(400, body=body))
    with pytest.raises(BackendError) as caught:
        router.submit_batch(TEXTS)

    assert KEY not in str(caught.value)
    assert TEXTS[0] not in str(caught.value)
    assert router.batches() == []
    assert account(router).requests == 0


def test_a_wrong_key_is_an_error_of_the_key(build: Build) -> None:
    """As for single requests."""
    with Emulator(keys={"another"}) as strict, pytest.raises(AuthenticationError):
        build(model={"base_url": strict.google_url}).submit_batch(TEXTS)


def test_a_download_that_breaks_off_is_made_again(emulator: Emulator, build: Build) -> None:
    """Nothing is booked before all is read."""
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.google_batches.finish()
    emulator.fault_for = on("GET", ":download", Fault.half_body(), Fault.status(503))

    assert job.poll().answered == 10
    assert account(router).requests == 1


@pytest.mark.parametrize("part", [":download", "/batches/"])
def test_web_pages_are_no_answers(emulator: Emulator, build: Build, part: str) -> None:
    """They are errors, and the next look collects."""
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.google_batches.finish()
    emulator.fault_for = on("GET", part, *[Fault.html()] * 20)
    with pytest.raises((BadResponseError, UnavailableError)):
        job.poll()
    emulator.fault_for = None

    assert job.poll().answered == 10


def test_large_jobs_are_split(emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into batches of as many texts as one holds, and uploads of several pieces."""
    monkeypatch.setattr(GoogleBatches, "max_texts", 4)
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.google_batches.finish()

    assert len(emulator.google_batches.names) == 3
    assert job.poll().answered == 10


@pytest.mark.slow
def test_a_large_file_is_uploaded_in_pieces(emulator: Emulator, build: Build) -> None:
    """Of eight megabytes, which the SDK decides."""
    texts = ["é" * 500 + str(place) for place in range(9_000)]
    build(model={"max_input_tokens": 8192}).submit_batch(texts)

    assert len([one for one in emulator.google_batches.received if "/upload-session/" in one.path]) == 2
    assert len(emulator.google_batches.input_lines) == 9_000


def test_vertex_has_no_batches_here(emulator: Emulator, build: Build) -> None:
    """Its endpoint reads and writes buckets."""
    router = build(model={"base_url": emulator.vertex_url}, name=f"google_vertexai:{ONE}")
    with pytest.raises(ConfigError, match="batch"):
        router.submit_batch(TEXTS)


def test_headers_reach_the_batch_endpoint(emulator: Emulator, build: Build) -> None:
    """Gateways ask for some, for uploads too."""
    build(model={"headers": {"X-Team": "search"}}).submit_batch(TEXTS)
    sent = {one.path.partition("/")[2][:15]: one.headers.get("x-team") for one in emulator.google_batches.received}

    assert set(sent.values()) <= {"search", None}
    assert [value for path, value in sent.items() if "session" not in path] == ["search", "search"]
