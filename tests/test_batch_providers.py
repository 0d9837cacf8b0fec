"""The batch endpoints of Voyage and Mistral, as ``tests/test_batches.py`` has OpenAI's: prices, words and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import embedrouter
from embedrouter import Budget, Model, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    ConfigError,
    InputRejectedError,
    RateLimitedError,
    UnavailableError,
)
from embedrouter.providers._batch_files import FileBatches
from embedrouter.providers.mistral_batches import MistralBatches
from embedrouter.providers.voyage_batches import VoyageBatches
from embedrouter.spending import Account
from embedrouter.testing import NO_WAITING
from tests.emulator import Batches, Emulator, Fault, Limits, count_tokens
from tests.hammer import Process, text
from tests.test_batches import ONE_TRY, as_file, containing, on, reasons, set_aside
from tests.test_cli_money import answer, call

TEXTS = [f"the ferry number {place} leaves at noon" for place in range(10)]
MILLION = 1_000_000

Build = Callable[..., Router]


@dataclass(frozen=True)
class Place:
    """A batch endpoint, and what the tests need to know of it."""

    emulator: Emulator
    kind: type[FileBatches]
    model: str
    url: str
    batches: Batches
    price: Decimal
    """US dollars per million tokens, through the batch endpoint."""
    full_price: Decimal
    dimensions: int
    submissions: str
    """The end of the path to which batches are submitted."""
    expired: str
    """Why a text has no vector when the window is closed."""
    odd: str
    """An end that public programs wait for, and the documentation does not explain."""

    @property
    def provider(self) -> str:
        return self.model.partition(":")[0]

    def tokens(self, *texts: str) -> int:
        return sum(count_tokens(self.provider, item) for item in texts)

    @property
    def billed(self) -> int:
        return self.emulator.billed_in_batches[self.provider, self.model.partition(":")[2]]

    @property
    def submitted(self) -> list[str]:
        """The texts of all batches, once for each time they were submitted."""
        return [item for line in self.batches.input_lines for item in line["body"]["input"]]


def _voyage(emulator: Emulator) -> Place:
    return Place(
        emulator=emulator,
        kind=VoyageBatches,
        model="voyage:voyage-4-lite",
        url=emulator.voyage_url,
        batches=emulator.voyage_batches,
        price=Decimal("0.0134"),
        full_price=Decimal("0.02"),
        dimensions=256,
        submissions="/batches",
        expired="batch_expired",
        odd="partially_completed",
    )


def _mistral(emulator: Emulator) -> Place:
    return Place(
        emulator=emulator,
        kind=MistralBatches,
        model="mistral:mistral-embed",
        url=emulator.url_of("mistral"),
        batches=emulator.mistral_batches,
        price=Decimal("0.05"),
        full_price=Decimal("0.10"),
        dimensions=1024,
        submissions="/batch/jobs",
        expired="not answered",
        odd="FAILED",
    )


@pytest.fixture(params=[_voyage, _mistral], ids=["voyage", "mistral"])
def place(request: pytest.FixtureRequest, emulator: Emulator) -> Place:
    found: Place = request.param(emulator)
    return found


@pytest.fixture
def build(place: Place, tmp_path: Path) -> Iterator[Build]:
    """Build routers that share one cache and one ledger, as processes do."""
    with ExitStack() as stack:

        def router(model: dict[str, Any] | None = None, **settings: Any) -> Router:
            declared = {"base_url": place.url, "api_key": "k", "dimensions": place.dimensions, **(model or {})}
            name = declared.pop("name", place.model)
            told = {"cache": tmp_path / "shared", "retry": NO_WAITING, **settings}
            return stack.enter_context(Router([Model(name, **declared)], **told))

        yield router


def account(router: Router, place: Place) -> Account:
    return router.ledger.totals("model").get(place.model, Account())


# The way of a text


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_what_a_batch_answered_is_in_the_cache(place: Place, build: Build, tmp_path: Path, input_type: Any) -> None:
    """The same vectors as a call's to the last bit, at the price of batches, under the words for the input type."""
    router = build()
    expected = router.estimate(TEXTS, input_type=input_type, batch=True)
    with embedrouter.tag("corpus"):
        job = router.submit_batch(TEXTS, input_type=input_type)
    reserved = set_aside(router)
    with router.ledger.transaction() as database:
        ((lasts,),) = database.execute("SELECT until - at FROM requests")
    waiting = job.poll()
    place.batches.finish()
    router = build()
    (found,) = router.batches()
    status = found.poll()
    result = router.embed(TEXTS, input_type=input_type)
    direct = build(cache=tmp_path / "other").embed(TEXTS, input_type=input_type)

    cost = place.billed * place.price / MILLION
    assert expected.cost is not None
    assert (waiting.ended, status.ended, status.texts, status.answered, status.failures) == (False, True, 10, 10, ())
    assert all(result.cached)
    assert result.vectors.tobytes() == direct.vectors.tobytes()
    assert place.billed == place.tokens(*TEXTS)
    assert reserved == expected.cost >= cost
    assert set_aside(router) == cost
    assert router.ledger.totals("tag")["corpus"] == Account(1, 10, place.billed, cost)
    assert place.kind.window <= lasts < place.kind.window + 3600, "or the money would be free again too early"
    assert place.emulator.calls == 1, "the other router's"
    assert not place.emulator.refused


def test_cached_texts_and_texts_under_way_are_not_submitted(place: Place, build: Build) -> None:
    """Nothing is paid twice, at any price."""
    router = build()
    router.embed(TEXTS[:4], input_type="document")
    first = router.submit_batch([*TEXTS[:6], TEXTS[5]])
    second = build().submit_batch(TEXTS)
    place.batches.finish()

    assert sorted(place.submitted) == TEXTS[4:]
    assert second.ids[0] == first.ids[0]
    assert second.poll().answered == 6


@pytest.mark.slow
def test_another_process_collects_the_job(place: Place, build: Build, tmp_path: Path) -> None:
    """A batch takes hours; laptops are closed meanwhile."""
    settings = {"url": place.url, "folder": str(tmp_path / "shared"), "price": str(place.full_price), "cap": "1"}
    Process.run(
        "submit", first=0, texts=12, words=5, timeout=30, model=place.model, dimensions=place.dimensions, **settings
    )
    router = build()
    (job,) = router.batches()
    (record,) = job.records
    place.batches.finish()
    status = job.poll()

    assert (record.provider_id, record.texts, record.model) == (place.batches.ids[0], 12, place.model)
    assert status.answered == 12
    assert all(router.embed([text(n, 5) for n in range(12)], input_type="document").cached)
    assert account(router, place).cost == place.billed * place.price / MILLION


def test_large_jobs_are_split(place: Place, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size, into batches that are one job."""
    monkeypatch.setattr(place.kind, "max_texts", 4)
    job = build().submit_batch(TEXTS)
    monkeypatch.setattr(place.kind, "max_bytes", 6000)
    place.batches.limits = Limits(bytes=6000)
    large = [f'{number} "quoted"\n\t\x07 größer {"漢字" * 250}' for number in range(20)]
    other = build().submit_batch(large)
    place.batches.finish()

    assert [record.texts for record in job.records] == [4, 4, 2]
    assert len(other.ids) > 5, "more than four texts a batch would make"
    assert (job.poll().answered, other.poll().answered) == (10, 20)


# Partial failures


@pytest.mark.parametrize("status", [400, pytest.param(500, marks=pytest.mark.slow)])
def test_refused_texts_are_listed(place: Place, build: Build, status: int) -> None:
    """The others are kept, only they are paid, and the next submission is of the refused ones."""
    router = build()
    place.batches.fail_lines(containing(TEXTS[3], TEXTS[7]), status, once=True)
    job = router.submit_batch(TEXTS)
    place.batches.finish()
    failed = reasons(job)
    first = account(router, place)
    again = router.submit_batch(TEXTS)
    place.batches.finish()

    good = [item for item in TEXTS if item not in (TEXTS[3], TEXTS[7])]
    assert failed.keys() == {3, 7}
    assert all(reason.startswith(str(status)) for reason in failed.values())
    assert first.tokens == place.tokens(*good)
    assert sorted(place.submitted[10:]) == [TEXTS[3], TEXTS[7]]
    assert (again.poll().answered, again.poll().failures) == (2, ())
    assert account(router, place).cost == place.tokens(*TEXTS) * place.price / MILLION


def test_a_text_that_only_the_provider_finds_too_long_is_refused_alone(place: Place, build: Build) -> None:
    """It is not cut silently: cutting is said to be off."""
    long = " ".join(f"word{number}" for number in range(33_000))
    router = build(model={"max_input_tokens": 500_000})
    job = router.submit_batch(["short", long])
    place.batches.finish()

    assert reasons(job) == {1: reasons(job)[1]}
    assert reasons(job)[1].startswith("400")
    assert place.billed == place.tokens("short")


def test_an_expired_batch_keeps_what_was_answered(place: Place, build: Build) -> None:
    """And pays for that alone."""
    router = build()
    job = router.submit_batch(TEXTS)
    place.batches.expire(share=0.6)

    assert reasons(job) == dict.fromkeys(range(6, 10), place.expired)
    assert set_aside(router) == place.tokens(*TEXTS[:6]) * place.price / MILLION
    assert router.embed(TEXTS[:6], input_type="document").cached == (True,) * 6


def test_a_cancelled_batch_keeps_what_was_answered(place: Place, build: Build) -> None:
    """What has ended is cancelled without an error, and a batch cancelled before it began costs nothing."""
    router = build()
    job = router.submit_batch(TEXTS)
    place.batches.progress(share=0.5)
    before = job.poll()
    job.cancel()
    during = job.poll()
    place.batches.finish()
    job.cancel()
    failed = reasons(job)
    unbegun = router.submit_batch(["another"])
    unbegun.cancel()
    place.batches.finish()

    assert (before.answered, before.ended, during.ended) == (5, False, False)
    assert failed == dict.fromkeys(range(5, 10), "not answered")
    assert reasons(unbegun) == {0: "not answered"}
    assert router.embed(TEXTS[:5], input_type="document").cached == (True,) * 5
    assert set_aside(router) == place.tokens(*TEXTS[:5]) * place.price / MILLION


def test_cancelling_what_is_about_to_end_harms_nothing(place: Place, build: Build) -> None:
    """The provider refuses it, because there is nothing left to stop; one that it refuses otherwise is an error."""
    router = build(retry=ONE_TRY)
    job = router.submit_batch(TEXTS)
    place.emulator.fault_for = on("POST", "/cancel", Fault.status(422))
    with pytest.raises(InputRejectedError):
        job.cancel()
    place.emulator.fault_for = None
    place.batches.advance()
    place.batches.advance()
    job.cancel()
    place.batches.finish()

    assert job.poll().answered == 10


def test_a_batch_that_the_provider_refuses_costs_nothing(place: Place, build: Build) -> None:
    """Validation happens later than submission; every text is listed, and its money is free again."""
    router = build()
    place.batches.limits = Limits(requests=3, inputs=3)
    expected = router.estimate(TEXTS, input_type="document", batch=True)
    job = router.submit_batch(TEXTS)
    aside = set_aside(router)
    place.batches.finish()
    failed = reasons(job)

    assert aside == expected.cost
    assert failed.keys() == set(range(10))
    assert all(reason.startswith("the batch was refused (") for reason in failed.values())
    assert (set_aside(router), account(router, place), router.usage.requests) == (0, Account(), 0)


# When the provider cannot be reached


def test_a_submission_that_is_refused_leaves_nothing(place: Place, build: Build) -> None:
    """Nothing is on file and nothing is set aside: the texts can be submitted again at once."""
    router = build(retry=ONE_TRY)
    for fault, error in (
        (Fault.status(401), AuthenticationError),
        (Fault.status(422), InputRejectedError),
        (Fault.status(500), UnavailableError),
        (Fault.rate_limited(), RateLimitedError),
    ):
        for end in ("/files", place.submissions):
            place.emulator.fault_for = on("POST", end, fault)
            with pytest.raises(error):
                router.submit_batch(TEXTS)
    place.emulator.fault_for = None

    assert (router.batches(), set_aside(router), place.batches.ids) == ([], 0, ())
    assert router.submit_batch(TEXTS).poll().texts == 10


@pytest.mark.parametrize("fault", [Fault.lost(), pytest.param(Fault.half_body(), marks=pytest.mark.slow)])
def test_a_batch_whose_answer_is_lost_is_found(
    place: Place, build: Build, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitting again would pay twice, giving up would lose it: so it is looked for, on the last page if need be."""
    monkeypatch.setattr(f"{place.kind.__module__}.PAGE", 2)
    router = build(retry=ONE_TRY)
    place.emulator.fault_for = on("POST", place.submissions, fault)
    job = router.submit_batch(TEXTS)
    place.emulator.fault_for = None
    for number in range(4):  # newer ones, to look among
        router.submit_batch([f"another {number}"])
    place.batches.finish()

    assert len(place.batches.ids) == 5
    assert job.records[0].provider_id == place.batches.ids[0]
    assert job.poll().answered == 10


def test_a_batch_that_never_arrived_stays_on_file(place: Place, build: Build) -> None:
    """It may turn up yet, so its money stays aside."""
    router = build(retry=ONE_TRY)
    place.emulator.fault_for = on("POST", place.submissions, Fault.reset())
    with pytest.raises(BackendError):
        router.submit_batch(TEXTS)
    place.emulator.fault_for = None
    (job,) = router.batches()
    job.cancel()

    assert (job.poll().ended, job.poll().answered) == (False, 0)
    assert set_aside(router) == router.estimate(TEXTS, input_type="document", batch=True).cost
    assert not place.batches.ids


def test_answers_that_are_none_are_asked_for_again(place: Place, build: Build) -> None:
    """A web page, half a file, a line cut in two, a foreign line, a missing code: nothing is lost or booked twice."""
    router = build(retry=ONE_TRY)
    job = router.submit_batch(TEXTS)
    place.batches.finish()
    lines = place.batches.output_lines(job.records[0].provider_id or "")
    whole = as_file(*lines)
    for end, fault, error in (
        ("", Fault.html(), BadResponseError),
        ("/content", Fault.half_body(), UnavailableError),
        ("/content", Fault.status(500), UnavailableError),
        ("/content", as_file(*lines[:4]), UnavailableError),
        ("/content", replace(whole, body=(whole.body or b"")[:-40]), BadResponseError),
    ):
        place.emulator.fault_for = on("GET", end, fault)
        with pytest.raises(error):
            job.poll()
    place.emulator.fault_for = on("GET", "/content", as_file(*lines, {**lines[0], "custom_id": None}))

    assert job.poll().answered == 10
    assert account(router, place).cost == place.billed * place.price / MILLION


def test_other_statuses_lose_nothing(place: Place, build: Build) -> None:
    """One that is unknown is no end; one that says little, or of failure, is an end whose files are read."""
    router = build(retry=ONE_TRY)
    place.batches.fail_lines(containing(TEXTS[3]), 400)
    job = router.submit_batch(TEXTS)
    place.batches.finish()
    provider_id = job.records[0].provider_id or ""
    states = []
    for status in ("SOMETHING_NEW", place.odd):
        told = {**(place.batches.look(provider_id) or {}), "status": status}
        fault = Fault.status(200, body=told, headers={"content-type": "application/json"})
        place.emulator.fault_for = on("GET", provider_id, fault)
        states.append(job.poll())

    assert [(state.ended, state.answered, len(state.failures)) for state in states] == [(False, 9, 0), (True, 9, 1)]
    assert account(router, place).tokens == place.billed


def test_voyage_s_files_may_be_stored_elsewhere(emulator: Emulator, tmp_path: Path) -> None:
    """Its reference downloads with ``curl -L``: another host is asked without the key and the user's headers."""
    place = _voyage(emulator)
    emulator.voyage_batches.elsewhere = True
    model = Model(place.model, base_url=place.url, api_key="k", headers={"X-Secret": "s"})
    with Router([model], cache=tmp_path, retry=ONE_TRY) as router:
        job = router.submit_batch(TEXTS)
        place.batches.finish()
        answered = job.poll().answered

    assert answered == 10
    assert "/stored/" in place.batches.received[-1].path
    assert not emulator.refused


# Money


def test_a_batch_over_the_budget_is_not_submitted(place: Place, build: Build) -> None:
    """Refuse before spending, at the price of batches."""
    price = build(cache=None).estimate(TEXTS, input_type="document", batch=True).cost
    assert price is not None
    router = build(budget=Budget(total=price - Decimal("0.000000001")))
    with pytest.raises(BudgetExceededError, match="No batch was submitted"):
        router.submit_batch(TEXTS)
    nothing = (router.batches(), set_aside(router), place.batches.received)
    job = build(budget=Budget(total=price)).submit_batch(TEXTS)

    assert nothing == ([], 0, ())
    assert len(job.ids) == 1


def test_voyage_s_free_tokens_do_not_pay_for_batches(emulator: Emulator, tmp_path: Path) -> None:
    """So its pricing page: an estimate of nothing would be wrong."""
    place = _voyage(emulator)
    free = Model(place.model, base_url=place.url, api_key="k", free_tokens=200 * MILLION)
    with Router([free], cache=tmp_path) as router:
        estimates = [router.estimate(TEXTS, input_type="document", batch=batch).cost for batch in (False, True)]
        job = router.submit_batch(TEXTS)
        aside = set_aside(router)
        place.batches.finish()
        job.poll()

        assert estimates == [0, aside]
        assert set_aside(router) == place.tokens(*TEXTS) * place.price / MILLION
        assert router.ledger.free_tokens(place.model, 200 * MILLION) == 200 * MILLION


def test_models_that_the_endpoint_does_not_take(emulator: Emulator, tmp_path: Path) -> None:
    """The guide's list ends with voyage-code-2."""
    for name in ("voyage-law-2", "voyage-3", "voyage-code-4"):
        with (
            Router([Model(f"voyage:{name}", base_url=emulator.voyage_url, api_key="k")], cache=tmp_path) as router,
            pytest.raises(ConfigError, match="No batch endpoint is known of"),
        ):
            router.submit_batch(TEXTS)


# Privacy


def test_texts_and_keys_are_in_no_error_and_no_file(place: Place, build: Build, tmp_path: Path) -> None:
    """Errors end up in logs, and the record of a batch is shown to people who may not read the documents."""
    key = "sk-0123456789abcdef"
    router = build(model={"api_key": key}, retry=ONE_TRY)
    told = json.dumps({"detail": f"No: {TEXTS[3]} from {key}", "message": f"No: {TEXTS[3]} from {key}"})
    shown = ""
    place.emulator.fault_for = on("POST", "/files", Fault.status(400, body=told.encode()))
    with pytest.raises(InputRejectedError) as caught:
        router.submit_batch(TEXTS)
    shown += str(caught.value)
    place.emulator.fault_for = None
    place.batches.fail_lines(lambda line: True, 400)
    job = router.submit_batch(TEXTS)
    place.batches.finish()
    names = [line["custom_id"] for line in place.batches.input_lines]
    quoting = [
        {"custom_id": name, "response": {"status_code": 400, "message": told, "body": {"detail": told}}, "error": error}
        for name, error in zip(names, [None, told, {"code": told, "message": told}, *[None] * 7], strict=True)
    ]
    place.emulator.fault_for = on("GET", "/content", as_file(*quoting))
    failed = reasons(job)
    shown += repr((job, job.records, job.poll(), caught.value.__cause__))
    stored = b"".join(item.read_bytes() for item in tmp_path.rglob("*") if item.is_file())

    assert failed == dict.fromkeys(range(10), "400")
    for secret in ("ferry", "0123456789abcdef"):
        assert secret not in shown
        assert secret.encode() not in stored


# The commands


def test_the_commands_do_what_they_do_for_openai(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit and leave, list, cancel, wait; and all in one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARBOUR_KEY", "sk-harbour")
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(tmp_path / "embedrouter.toml"))
    (tmp_path / "embedrouter.toml").write_text(
        f'cache = "cache"\n[[models]]\nmodel = "{place.model}"\nbase_url = "{place.url}"\napi_key_env = "HARBOUR_KEY"\n'
    )
    Path("corpus.jsonl").write_text("".join(json.dumps({"text": item}) + "\n" for item in TEXTS))
    quick = ("--every", "0.01", "--yes")
    submitted = answer("warm", "corpus.jsonl", "--batch", "--detach", *quick)
    (row,) = answer("batch", "list")["batches"]
    place.batches.advance()
    place.batches.progress(share=0.5)
    cancelled = call("batch", "cancel", row["id"])
    place.batches.finish()
    collected = call("batch", "wait", "--every", "0", "--json")
    place.batches.automatic = True
    done = answer("warm", "corpus.jsonl", "--batch", *quick)

    assert submitted["batches"][0]["ended"] is False
    assert (row["model"], row["at the provider"]) == (place.model, place.batches.ids[0])
    assert cancelled.exit_code == 0, cancelled.output
    assert json.loads(collected.stdout)["batches"][0]["answered"] == 5
    assert Decimal(done["usage"]["cost"]) == place.tokens(*TEXTS[5:]) * place.price / MILLION
    assert len(place.batches.ids) == 2
