"""``warm --batch`` and ``embedrouter batch``, the real program against the emulator."""

from __future__ import annotations

import json
import signal
import time
from decimal import Decimal
from pathlib import Path

import pytest

from embedrouter import Router
from tests.command_line import start
from tests.emulator import Emulator, Fault
from tests.test_cli_money import PRICE, TEXTS, answer, call, place, tokens

__all__ = ["place"]

QUICK = ("--every", "0.01", "--yes")


def kept(folder: Path) -> int:
    """Return how many of the texts are in the cache."""
    with Router.from_config(folder / "embedrouter.toml") as router:
        return router.estimate(TEXTS, input_type="document").cached


def test_a_corpus_is_embedded_at_half_the_price(place: Path, emulator: Emulator) -> None:
    """The later embed finds everything in the cache."""
    emulator.batches.automatic = True
    before = answer("estimate", "corpus.jsonl", "--batch")
    facts = answer("warm", "corpus.jsonl", "--batch", *QUICK)

    assert Decimal(before["tiers"][0]["cost"]) == Decimal(facts["expected"])
    assert Decimal(facts["usage"]["cost"]) == tokens(TEXTS) * PRICE / 2 / 1_000_000
    assert facts["batches"] == [{"id": facts["batches"][0]["id"], "ended": True, "texts": 200, "answered": 200}]
    assert kept(place) == 200
    assert not emulator.received


def test_who_does_not_wait_collects_later(place: Path, emulator: Emulator) -> None:
    """The process may end: the batch is recorded."""
    submitted = answer("warm", "corpus.jsonl", "--batch", "--detach", *QUICK)
    listed = answer("batch", "list")["batches"]
    emulator.batches.finish()
    collected = answer("batch", "wait", "--every", "0.01")

    assert submitted["batches"][0]["ended"] is False
    assert [row["state"] for row in listed] == ["under way"]
    assert collected["batches"][0]["answered"] == 200
    assert kept(place) == 200
    assert [row["state"] for row in answer("batch", "list")["batches"]] == ["ended"]


def test_the_same_command_again_goes_on_with_the_batch_under_way(place: Path, emulator: Emulator) -> None:
    """And submits nothing twice."""
    call("warm", "corpus.jsonl", "--batch", "--detach", *QUICK)
    emulator.batches.automatic = True
    again = call("warm", "corpus.jsonl", "--batch", *QUICK)

    assert again.exit_code == 0, again.output
    assert len(emulator.batches.ids) == 1
    assert kept(place) == 200


@pytest.mark.slow
def test_ctrl_c_stops_waiting_and_loses_nothing(place: Path, emulator: Emulator) -> None:
    """The batch goes on at the provider."""
    with start("warm", "corpus.jsonl", "--batch", *QUICK, cwd=place) as process:
        deadline = time.monotonic() + 30
        while not emulator.batches.ids and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    emulator.batches.finish()

    assert process.returncode == 130
    assert "The same command, or embedrouter batch wait, collects them" in told
    assert call("batch", "wait", "--every", "0").exit_code == 0
    assert kept(place) == 200


def test_what_failed_is_listed_with_its_reason(place: Path, emulator: Emulator) -> None:
    """The exit code says that something is left to do; warm without --batch does it."""
    emulator.batches.automatic = True
    emulator.batches.fail_lines(lambda line: line.texts[0] in TEXTS[3:5], 500)
    done = call("warm", "corpus.jsonl", "--batch", *QUICK)
    rest = answer("warm", "corpus.jsonl", "--yes")

    assert done.exit_code == 1
    assert "198 of 200 texts answered" in done.stdout
    assert "500" in done.stdout
    assert "2 texts, by position 3, 4" in done.stdout
    assert rest["embedded"] == 2


def test_a_batch_is_cancelled_by_its_name(place: Path, emulator: Emulator) -> None:
    """What was answered is kept."""
    call("warm", "corpus.jsonl", "--batch", "--detach", *QUICK)
    (row,) = answer("batch", "list")["batches"]
    emulator.batches.advance()
    emulator.batches.progress(share=0.5)
    cancelled = call("batch", "cancel", row["id"])
    unknown = call("batch", "cancel", "batch-unknown")
    emulator.batches.finish()
    collected = call("batch", "wait", "--every", "0", "--json")

    assert cancelled.exit_code == 0, cancelled.output
    assert "No batch 'batch-unknown' is under way" in str(unknown.exception)
    assert collected.exit_code == 1
    assert json.loads(collected.stdout)["batches"][0]["answered"] == 100
    assert kept(place) == 100


def test_without_batches_there_is_nothing_to_do(place: Path) -> None:
    """And no provider is asked."""
    assert "No batch is recorded." in call("batch", "list").stdout
    assert "No batch is under way." in call("batch", "wait").stdout


def test_a_model_without_a_batch_endpoint_is_refused(place: Path) -> None:
    """Before anything is read or asked."""
    done = call("warm", "corpus.jsonl", "--batch", "--model", "wordllama:l2_supercat_256", "--yes")

    assert "No batch endpoint is known of wordllama:l2_supercat_256" in str(done.exception)


def test_detach_is_a_word_about_batches(place: Path) -> None:
    """Alone it would promise something that does not happen."""
    assert call("warm", "corpus.jsonl", "--detach").exit_code == 2


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.reset()])
def test_a_provider_that_is_down_for_a_moment_is_asked_again(place: Path, emulator: Emulator, fault: Fault) -> None:
    """A look that failed is no batch that failed."""
    emulator.batches.automatic = True
    emulator.script(fault)
    facts = answer("warm", "corpus.jsonl", "--batch", *QUICK)

    assert facts["batches"][0]["answered"] == 200


def test_a_batch_that_cannot_be_collected_is_given_up(place: Path, emulator: Emulator) -> None:
    """Its answers are gone: the money stays counted, and the texts are free to be submitted again."""
    emulator.batches.automatic = True
    call("warm", "corpus.jsonl", "--batch", "--detach", *QUICK)
    (row,) = answer("batch", "list")["batches"]
    forgotten = call("batch", "forget", row["id"])
    facts = answer("warm", "corpus.jsonl", "--batch", *QUICK)
    lost = answer("stats")["unconfirmed"]

    assert forgotten.exit_code == 0, forgotten.output
    assert facts["batches"][0]["answered"] == 200
    assert [item["texts"] for item in lost] == [200]
