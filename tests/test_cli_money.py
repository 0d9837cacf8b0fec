"""The commands about money (models, estimate, warm, stats, cache), over real files and sockets."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from embedrouter import Budget, Model, Router
from embedrouter.cache import CacheDatabase
from embedrouter.cache._codec import encode
from embedrouter.cache._disk import DiskCache
from embedrouter.cli import app
from embedrouter.cli._export import export_rows
from embedrouter.cli._models import staleness_warning
from embedrouter.cli._texts import LocatedText, TextOptions, Texts, chunks
from embedrouter.errors import (
    BudgetExceededError,
    ConfigError,
    InvalidInputError,
    NoModelAvailableError,
)
from embedrouter.models import load_catalogue
from embedrouter.retrieval.index_guard import FOLDER, IndexGuard
from embedrouter.spending import Account, Ledger
from embedrouter.testing import NO_WAITING, FakeBackend
from embedrouter.types import Entry, dollars
from tests.command_line import Ended, run, start
from tests.either import embed
from tests.emulator import Emulator, Fault, Received, count_tokens
from tests.hammer import spending

TEXTS = [f"text number {number} about harbours and tea" for number in range(200)]
BATCH = 10
REQUESTS = len(TEXTS) // BATCH
PRICE = Decimal("0.02")
"""US dollars per million tokens."""


def call(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin)


def answer(*arguments: str | Path, stdin: str | None = None) -> dict[str, Any]:
    """Return what a command prints with ``--json``."""
    done = call(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def tokens(texts: list[str]) -> int:
    """Return what the emulator bills for texts."""
    return sum(count_tokens("openai", text) for text in texts)


@pytest.fixture
def place(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts and a configuration that points at the emulator, entered."""
    monkeypatch.setenv("HARBOUR_KEY", "sk-harbour")
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(tmp_path / "embedrouter.toml"))
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    )
    (tmp_path / "embedrouter.toml").write_text(
        f'cache = "kept"\n[[models]]\nmodel = "openai:text-embedding-3-small"\nbase_url = "{emulator.openai_url}"\n'
        f'api_key_env = "HARBOUR_KEY"\nmax_concurrency = 1\nbatch_size = {BATCH}\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration, entered."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


def fill(folder: Path, rows: int = 3, dimensions: int = 8) -> dict[bytes, bytes]:
    """Put rows into a cache folder, as a router would."""
    chance = np.random.default_rng(rows)
    values = {
        number.to_bytes(20, "big"): encode(Entry(chance.standard_normal(dimensions).astype(np.float32), number))
        for number in range(rows)
    }
    cache = DiskCache(folder)
    cache.put_many(values)
    cache.close()
    return values


def all_rows(folder: Path) -> dict[bytes, bytes]:
    database = CacheDatabase(folder)
    return {row.key: row.value for row in database.rows()} if database.exists else {}


def spoil(folder: Path, key: bytes) -> None:
    """Flip a bit of a row, as a disk might."""
    cache = DiskCache(folder)
    row = bytearray(cache.get_many([key])[key])
    row[-1] ^= 1
    cache.put_many({key: bytes(row)})
    cache.close()


# models


def test_the_catalogue_shows_unknown_prices_as_unknown() -> None:
    """A missing price is no price of zero."""
    done = call("models", "--provider", "cohere")

    row = next(line for line in done.stdout.splitlines() if "cohere:embed-multilingual-light-v3.0 " in line)
    assert row.split()[4:6] == ["unknown", "unknown"]
    assert "$0.00" not in done.stdout
    assert "openai:" not in done.stdout


def test_the_catalogue_shows_the_day_on_which_a_model_is_retired() -> None:
    """Azure announces its own; most makers announce none."""
    listed = {row["model"]: row["retired"] for row in answer("models")["models"]}
    shown = call("models", "--provider", "azure_openai").stdout

    for name in ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"):
        assert listed[f"azure_openai:{name}"] == "2028-02-09"
        assert listed[f"openai:{name}"] is None
    assert shown.count("2028-02-09") == 3


@pytest.mark.parametrize(
    ("name", "price", "dimensions"),
    [
        ("azure_openai:text-embedding-ada-002", "0.11", []),
        ("voyage:voyage-2", "0.10", []),
        ("voyage:voyage-large-2", "0.12", []),
        ("voyage:voyage-large-2-instruct", "0.12", []),
        ("voyage:voyage-code-4", "0.12", [2048, 512, 256]),
    ],
)
def test_rows_are_what_makers_and_price_lists_say(name: str, price: str, dimensions: list[int]) -> None:
    """As read in November 2026."""
    listed = {row["model"]: row for row in answer("models")["models"]}

    assert Decimal(listed[name]["price"]) == Decimal(price)
    assert listed[name]["allowed"] == dimensions


def test_every_model_of_the_catalogue_is_listed_with_its_exact_price() -> None:
    """Rounding to cents would hide that 0.065 is half of 0.13."""
    listed = {row["model"]: row for row in answer("models")["models"]}

    assert listed.keys() == load_catalogue().keys()
    assert listed["openai:text-embedding-3-large"]["batch_price"] == "0.065"
    assert "$0.065" in call("models", "--provider", "openai").stdout


def test_old_prices_are_warned_about() -> None:
    """A price list that was not checked for a year is probably wrong."""
    cards = list(load_catalogue().values())
    newest = max(card.checked for card in cards if card.checked)

    assert staleness_warning(cards, newest) is None
    assert staleness_warning(cards, date(newest.year + 2, 1, 1)) is not None
    assert str(newest) in str(staleness_warning(cards, date(newest.year + 2, 1, 1)))


def test_the_rows_of_ones_own_catalogue_count(offline: Path) -> None:
    """They may be old, which is said below the table."""
    (offline / "own.toml").write_text(
        '[[models]]\nmodel = "openai:own"\nspace = "own"\ndimensions = 8\ntexts = 9\nchecked = 2020-01-01\n'
    )
    (offline / "c.toml").write_text('catalog = "own.toml"\n[[models]]\nmodel = "openai:own"\n')

    facts = answer("models", "--config", "c.toml")

    assert "openai:own" in {row["model"] for row in facts["models"]}
    assert facts["warning"] is None


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    """An empty table would look like an empty catalogue."""
    error = call("models", "--provider", "acme").exception

    assert isinstance(error, ConfigError)
    assert "openai" in str(error)


# estimate


def test_an_estimate_costs_nothing_and_knows_what_is_cached(place: Path, emulator: Emulator) -> None:
    """The expected money is the catalogue's price times the tokens that the emulator would bill."""
    with Router.from_config("embedrouter.toml") as router:
        router.embed(TEXTS[:50], input_type="document")
    before = emulator.calls

    (row,) = answer("estimate", "corpus.jsonl")["tiers"]

    assert emulator.calls == before
    assert (row["texts"], row["unique"], row["cached"], row["requests"]) == (200, 200, 50, 15)
    assert row["tokens"] == tokens(TEXTS[50:])
    assert Decimal(row["cost"]) == tokens(TEXTS[50:]) * PRICE / 1_000_000


def test_every_tier_with_a_model_of_its_own_has_a_row(place: Path) -> None:
    """Tiers that would ask the same model are one row."""
    (place / "family.toml").write_text(
        'cache = false\n[[models]]\nmodel = "voyage:voyage-4-large"\n'
        '[[models]]\nmodel = "voyage:voyage-4-lite"\ntier = "low"\n'
    )

    rows = answer("estimate", "corpus.jsonl", "--config", "family.toml")["tiers"]
    (low,) = answer("estimate", "corpus.jsonl", "--config", "family.toml", "--tier", "low")["tiers"]

    assert [(row["tier"], row["model"]) for row in rows] == [
        ("low", "voyage:voyage-4-lite"),
        ("high", "voyage:voyage-4-large"),
    ]
    assert low == rows[0]
    assert Decimal(rows[1]["cost"]) == 6 * Decimal(rows[0]["cost"])


def test_texts_that_repeat_across_chunks_are_counted_once(place: Path) -> None:
    """Memory holds one chunk, and still no text is paid for twice."""
    (place / "twice.jsonl").write_text((place / "corpus.jsonl").read_text() * 2)

    (row,) = answer("estimate", "twice.jsonl", "--chunk-size", "30")["tiers"]

    assert (row["texts"], row["unique"]) == (400, 200)
    assert row["tokens"] == tokens(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "stdin", "count"),
    [([], "one\n\ntwo\r\nthree", 3), (["--field", "body"], '{"body": "one"}\n{"body": "two"}\n', 2)],
)
def test_texts_come_from_stdin(offline: Path, arguments: list[str], stdin: str, count: int) -> None:
    """One text per line, or JSON lines where a field is named."""
    (row,) = answer("estimate", "-", *arguments, stdin=stdin)["tiers"]

    assert row["texts"] == count
    assert row["cost"] == "0"


def test_a_folder_gives_one_text_per_file_and_per_json_line(offline: Path) -> None:
    """What is left out is named, and a text is read as Python reads it."""
    (offline / "a.md").write_bytes(b"\xef\xbb\xbf# Title\r\n\r\n text \n")
    (offline / "b.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (offline / "c.txt").write_bytes(b"caf\xe9")
    (offline / "d.png").write_bytes(b"\x89PNG")
    (offline / ".hidden.md").write_text("no")
    texts = Texts(TextOptions(["."]))

    assert [item.text for item in texts] == ["# Title\n\n text \n", "one", "two"]
    assert [item.text for item in texts] == [item.text for item in texts]
    assert {row["reason"]: row["names"] for row in texts.skipped.rows()} == {
        "hidden": [".hidden.md"],
        "not UTF-8 text": ["c.txt"],
        "a .png file": ["d.png"],
    }
    assert answer("estimate", ".")["skipped"] == texts.skipped.rows()


def test_chunks_end_at_either_limit() -> None:
    """A few huge texts fill memory as well as many small ones."""
    small = [LocatedText("", "x")] * 25
    huge = [LocatedText("", "x" * 5_000_000)] * 3

    assert [len(part) for part in chunks(small, 10)] == [10, 10, 5]
    assert [len(part) for part in chunks(huge)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.jsonl",
            b'{"text": "one"}\n{"body": "two"}\n',
            "line 2: the field 'text' is missing. Fields there: 'body'",
        ),
        ("a.jsonl", b"one\n", "line 1: broken JSON"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "line 1: not UTF-8 text"),
        ("a.txt", b"caf\xe9", "a.txt: not UTF-8 text"),
        ("a.txt", b"", "a.txt: empty"),
        ("a.jsonl", b"", "There is no text"),
        ("other", b"text", "cannot be read (No such file or directory)"),
    ],
)
def test_texts_that_cannot_be_read_are_named(offline: Path, name: str, content: bytes, says: str) -> None:
    """Before anything is paid."""
    (offline / name).write_bytes(content)

    error = call("estimate", name if name != "other" else "absent").exception

    assert isinstance(error, ConfigError)
    assert says in str(error)


def test_a_text_over_the_limit_is_named_by_its_line(place: Path) -> None:
    """A position in a chunk would be of no use."""
    rows = [*TEXTS[:6], "word " * 9000]
    (place / "long.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))

    error = call("estimate", "long.jsonl", "--chunk-size", "4").exception

    assert isinstance(error, InvalidInputError)
    assert "long.jsonl, line 7" in str(error)


# warm


def test_warm_fills_the_cache_and_the_second_run_pays_nothing(place: Path, emulator: Emulator) -> None:
    """The ledger has the spending under its tag."""
    first = answer("warm", "corpus.jsonl", "--yes", "--tag", "harbour")
    calls = emulator.calls
    second = answer("warm", "corpus.jsonl")

    assert calls == emulator.calls == REQUESTS
    assert Decimal(first["usage"]["cost"]) == tokens(TEXTS) * PRICE / 1_000_000
    assert (first["embedded"], second["embedded"], second["usage"]["requests"]) == (200, 0, 0)
    booked = answer("stats", "--by", "tag")["rows"]["harbour"]
    assert (booked["requests"], booked["texts"], booked["tokens"]) == (REQUESTS, 200, tokens(TEXTS))
    assert Decimal(booked["cost"]) == Decimal(first["usage"]["cost"])


def test_warm_asks_before_it_spends(place: Path, emulator: Emulator) -> None:
    """A program that is piped cannot be asked, so it refuses and says how to agree."""
    done = run("warm", "corpus.jsonl")

    assert done.returncode == 1
    assert done.stderr.startswith("embedrouter: This embeds ")
    assert "Agree with --yes" in done.stderr
    assert done.stderr.count("\n") == 1
    assert emulator.calls == 0
    assert "200 texts, 200 distinct, 0 in the cache" in done.stdout


def test_what_is_free_is_not_asked_about(offline: Path) -> None:
    """Without a configuration the model is wordllama, which runs here."""
    facts = answer("warm", "-", stdin="one\ntwo\none\n")

    assert (facts["texts"], facts["distinct"], facts["embedded"]) == (3, 2, 2)
    assert facts["usage"]["cost"] == "0"


def test_warm_without_a_cache_is_refused(place: Path) -> None:
    """It would pay for nothing."""
    (place / "none.toml").write_text('cache = false\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')

    assert "no cache" in str(call("warm", "corpus.jsonl", "--config", "none.toml").exception)


def test_a_job_over_the_budget_is_refused_before_the_first_request(place: Path, emulator: Emulator) -> None:
    """Every chunk would fit by itself, so without a check of the whole the money would be gone half-way."""
    whole = tokens(TEXTS) * PRICE / 1_000_000
    for cap in ("per_call", "per_day", "per_month", "total"):
        setting = f'\n[budget]\n{cap} = "{whole / 2:f}"\n'
        (place / "poor.toml").write_text((place / "embedrouter.toml").read_text() + setting)

        error = call("warm", "corpus.jsonl", "--yes", "--config", "poor.toml", "--chunk-size", "20").exception

        assert isinstance(error, BudgetExceededError)
        assert dollars(whole) in str(error)
        assert f"{cap}={dollars(whole / 2)}" in str(error)
        assert emulator.received == ()


def test_a_job_is_refused_before_anybody_is_asked_to_agree(place: Path) -> None:
    """Agreement to something that cannot be done would be taken in vain."""
    with (place / "embedrouter.toml").open("a") as file:
        file.write('\n[budget]\ntotal = "0.000001"\n')

    done = run("warm", "corpus.jsonl")

    assert done.returncode == 1
    assert done.stderr.startswith("embedrouter: Nothing was called: ")
    assert "total=$0.000001" in done.stderr
    assert "--yes" not in done.stderr


def test_what_is_cached_needs_no_budget(place: Path, emulator: Emulator) -> None:
    """Only what is still missing is held against the caps."""
    answer("warm", "corpus.jsonl", "--yes")
    with (place / "embedrouter.toml").open("a") as file:
        file.write('\n[budget]\ntotal = "0"\n')

    assert answer("warm", "corpus.jsonl")["embedded"] == 0
    assert emulator.calls == REQUESTS


def test_each_tier_has_the_budget_of_its_own_router(place: Path, emulator: Emulator) -> None:
    """A tier that is used up says nothing about another."""
    model = (
        f'model = "openai:text-embedding-3-small"\nbase_url = "{emulator.openai_url}"\napi_key_env = "HARBOUR_KEY"\n'
    )
    (place / "tiers.toml").write_text(
        f'[routers.low]\ncache = "low"\n[[routers.low.models]]\n{model}dimensions = 256\n'
        f'[routers.low.budget]\ntotal = "0.000001"\n'
        f'[routers.high]\ncache = "high"\n[[routers.high.models]]\n{model}'
    )

    refused = call("warm", "corpus.jsonl", "--yes", "--config", "tiers.toml", "--tier", "low")
    calls = emulator.calls
    done = answer("warm", "corpus.jsonl", "--yes", "--config", "tiers.toml", "--tier", "high")

    assert isinstance(refused.exception, BudgetExceededError)
    assert calls == 0
    assert done["embedded"] == len(TEXTS)


def test_a_budget_that_ends_midway_leaves_a_job_that_continues(place: Path, emulator: Emulator) -> None:
    """Somebody else spends from the same ledger meanwhile. What was paid for is kept, and the message says so."""
    plain = (place / "embedrouter.toml").read_text()
    (place / "embedrouter.toml").write_text(f'{plain}\n[budget]\ntotal = "0.01"\n')
    answered = 12

    def spend_elsewhere(_: object) -> None:
        if emulator.calls == answered:
            with closing(Ledger(place / "kept" / "ledger.db")) as other:
                reservation = other.reserve(Budget(), spending("0.00999"))
                assert isinstance(reservation, int)
                other.settle(reservation, 499_500, Decimal("0.00999"))

    emulator.fault_for = spend_elsewhere

    done = run("warm", "corpus.jsonl", "--yes", "--chunk-size", "50")

    err = done.stderr
    assert done.returncode == 1
    assert emulator.calls == answered
    assert "total=$0.01" in err
    assert f"\n{answered * BATCH} of 200 texts are embedded. Spent: $0.0000" in err
    assert f"in {answered} requests. What was answered is in the cache ({place / 'kept'})" in err
    assert "the same command continues from there and pays for nothing twice." in err
    assert "Traceback" not in err
    assert "\x1b" not in done.stdout + err

    emulator.fault_for = None
    (place / "embedrouter.toml").write_text(f'{plain}\n[budget]\ntotal = "0.02"\n')
    assert answer("warm", "corpus.jsonl", "--yes")["embedded"] == len(TEXTS) - answered * BATCH
    assert emulator.billed.total() == tokens(TEXTS)


def test_a_provider_that_goes_down_midway_leaves_a_job_that_continues(place: Path, emulator: Emulator) -> None:
    """After the story of what failed comes what was not lost."""
    with (place / "embedrouter.toml").open("a") as file:
        file.write("\n[retry]\nattempts = 2\ninitial_wait = 0\n")
    answered = 7
    emulator.fault_for = lambda _: Fault.unavailable() if emulator.calls > answered else None

    done = run("warm", "corpus.jsonl", "--yes", "--chunk-size", "50")

    first, *story, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert first.startswith("embedrouter: No model could embed ")
    assert [line.split()[0] for line in story] == ["1-2."]
    assert last.startswith(f"{answered * BATCH} of 200 texts are embedded. Spent: ")
    assert "the same command continues" in last

    emulator.fault_for = None
    assert answer("warm", "corpus.jsonl", "--yes")["embedded"] == len(TEXTS) - answered * BATCH
    assert emulator.billed.total() == tokens(TEXTS)


def test_an_error_before_anything_was_embedded_says_nothing_of_progress(place: Path, emulator: Emulator) -> None:
    """There is nothing to continue."""
    with (place / "embedrouter.toml").open("a") as file:
        file.write("\n[retry]\nattempts = 1\n")
    emulator.fault_for = lambda _: Fault.unavailable()

    error = call("warm", "corpus.jsonl", "--yes").exception

    assert isinstance(error, NoModelAvailableError)
    assert "texts are embedded" not in str(error)


def stop_at(emulator: Emulator, request: int, how: int, fault: Fault) -> Callable[[subprocess.Popen[str]], None]:
    """Send a signal to a process when its request of this number arrives."""
    started = threading.Event()
    processes: list[subprocess.Popen[str]] = []

    def rule(_: Received) -> Fault | None:
        if emulator.calls != request:
            return None
        assert started.wait(30)
        os.kill(processes[0].pid, how)
        return fault

    def watch(process: subprocess.Popen[str]) -> None:
        processes.append(process)
        started.set()

    emulator.fault_for = rule
    return watch


@pytest.mark.slow
def test_a_run_killed_at_60_percent_pays_for_the_rest_only(place: Path, emulator: Emulator) -> None:
    """Power cuts do not ask; every answered request is in the cache before the next one is sent."""
    watch = stop_at(emulator, REQUESTS * 6 // 10 + 1, signal.SIGKILL, Fault.reset())
    killed = start("warm", "corpus.jsonl", "--yes", cwd=place)
    watch(killed)
    killed.communicate(timeout=60)
    before = emulator.billed.total()
    assert killed.returncode == -signal.SIGKILL
    assert before == tokens(TEXTS[: len(TEXTS) * 6 // 10])
    emulator.fault_for = None

    facts = answer("warm", "corpus.jsonl", "--yes")

    assert emulator.billed.total() == tokens(TEXTS)
    assert facts["embedded"] == 80
    assert Decimal(facts["usage"]["cost"]) == (tokens(TEXTS) - before) * PRICE / 1_000_000


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_answered_and_says_so(place: Path, emulator: Emulator) -> None:
    """The request in flight is finished, because it is paid for anyway."""
    watch = stop_at(emulator, 13, signal.SIGINT, Fault.slow(0.5))
    process = start("warm", "corpus.jsonl", "--yes", cwd=place)
    watch(process)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert f"Spent: ${tokens(TEXTS[:130]) * PRICE / 1_000_000:.6f}" in err
    assert f"in the cache ({place / 'kept'})" in err
    assert "Traceback" not in err
    assert "\x1b" not in out + err
    emulator.fault_for = None
    assert answer("warm", "corpus.jsonl", "--yes")["embedded"] == 70
    assert emulator.billed.total() == tokens(TEXTS)
    assert emulator.calls == REQUESTS
    assert answer("stats")["unconfirmed"] == []


# stats


def test_stats_add_up(place: Path) -> None:
    """The total is the same by day, month, model and tag, and savings are those of the second run."""
    answer("warm", "corpus.jsonl", "--yes", "--tag", "one")
    answer("warm", "corpus.jsonl", "--tag", "two")

    by = {name: answer("stats", "--by", name) for name in ("day", "month", "model", "tag")}

    assert by["day"]["total"] == by["month"]["total"] == by["model"]["total"] == by["tag"]["total"]
    assert list(by["tag"]["rows"]) == ["one", "two"]
    assert list(by["model"]["rows"]) == ["openai:text-embedding-3-small"]
    assert by["tag"]["rows"]["two"]["saved"] == by["tag"]["rows"]["one"]["cost"]
    assert by["tag"]["rows"]["one"].keys() == set(Account.__slots__)


def test_what_may_have_been_billed_is_listed_apart(place: Path, emulator: Emulator) -> None:
    """An answer that got lost was paid for, and is listed here only."""
    emulator.script(Fault.lost())
    answer("warm", "corpus.jsonl", "--yes", "--tag", "harbour")

    (lost,) = answer("stats")["unconfirmed"]
    shown = call("stats").stdout

    assert (lost["model"], lost["tag"], lost["texts"]) == ("openai:text-embedding-3-small", "harbour", BATCH)
    assert Decimal(lost["amount"]) == lost["tokens"] * PRICE / 1_000_000
    assert "may have been billed" in shown
    assert shown.count("harbour") == 1


def test_before_anything_is_booked_stats_say_so(offline: Path) -> None:
    """And make no file."""
    done = call("stats", "--cache", offline / "none")

    assert done.exit_code == 0
    assert "Nothing is booked yet" in done.stdout
    assert not (offline / "none").exists()
    assert answer("stats", "--cache", offline / "none")["total"]["cost"] == "0"


def test_a_file_that_is_no_ledger_is_an_error_of_ours(offline: Path) -> None:
    """Not a traceback of SQLite's."""
    (offline / "ledger.db").write_bytes(b"no database" * 100)

    error = call("stats", "--cache", offline).exception

    assert isinstance(error, ConfigError)
    assert "ledger.db cannot be read as a ledger (file is not a database)" in str(error)


def test_the_ledgers_of_all_configured_routers_are_summed(place: Path) -> None:
    """Each router of a tiered configuration may keep its own."""
    (place / "tiers.toml").write_text(
        "".join(
            f'[routers.{tier}]\ncache = "{tier}"\n[[routers.{tier}.models]]\nmodel = "wordllama:l2_supercat_256"\n'
            f"dimensions = {dimensions}\n"
            for tier, dimensions in (("low", 64), ("high", 256))
        )
    )
    for tier in ("low", "high"):
        answer("warm", "-", "--config", "tiers.toml", "--tier", tier, stdin="one\ntwo\n")

    assert answer("stats", "--config", "tiers.toml")["total"]["texts"] == 4


# cache


def test_info_tells_what_is_in_a_cache(tmp_path: Path) -> None:
    """Folder, rows, bytes and recorded indexes."""
    values = fill(tmp_path / "kept", 5)
    with Router([Model("wordllama:l2_supercat_256")], cache=tmp_path / "kept") as router:
        IndexGuard(tmp_path / "kept" / FOLDER, "handbook", router.space).record()

    facts = answer("cache", "info", "--cache", tmp_path / "kept")

    assert facts["folder"] == str(tmp_path / "kept")
    assert (facts["rows"], facts["bytes"]) == (5, sum(map(len, values.values())))
    assert "256 dimensions" in facts["indexes"]["handbook"]
    assert "Index 'handbook'" in call("cache", "info", "--cache", tmp_path / "kept").stdout


def test_info_makes_no_folder(tmp_path: Path) -> None:
    """Looking changes nothing."""
    assert answer("cache", "info", "--cache", tmp_path / "none")["rows"] == 0
    assert not (tmp_path / "none").exists()


def test_verify_finds_every_damaged_row_and_removes_them_when_told(tmp_path: Path) -> None:
    """More rows than a page, one with a flipped bit, one that is no vector, one that is no bytes at all."""
    values = fill(tmp_path, 1201)
    keys = list(values)
    spoil(tmp_path, keys[700])
    cache = DiskCache(tmp_path)
    cache.put_many({keys[3]: b"foreign"})
    cache.close()
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE vectors SET value = 'words' WHERE key = ?", (keys[5],))
    database.close()

    found = call("cache", "verify", "--cache", tmp_path, "--json")
    removed = answer("cache", "verify", "--cache", tmp_path, "--remove")
    again = answer("cache", "verify", "--cache", tmp_path)

    assert found.exit_code == 1
    assert json.loads(found.stdout) | {"folder": ""} == {
        "folder": "",
        "rows": 1201,
        "sound": 1198,
        "damaged": 3,
        "removed": 0,
    }
    assert removed["removed"] == 3
    assert (again["rows"], again["damaged"]) == (1198, 0)
    assert all_rows(tmp_path) == {key: row for key, row in values.items() if key not in (keys[700], keys[3], keys[5])}


def test_a_row_written_anew_meanwhile_is_not_removed(tmp_path: Path) -> None:
    """Between the check and the removal somebody may have paid for it again."""
    (key,) = fill(tmp_path, 1)
    spoil(tmp_path, key)
    (bad,) = CacheDatabase(tmp_path).rows()
    values = fill(tmp_path, 1)

    assert CacheDatabase(tmp_path).remove([bad]) == 0
    assert all_rows(tmp_path) == values


def test_prune_removes_what_is_old_after_it_was_agreed(tmp_path: Path) -> None:
    """The vectors were paid for, so a slip must not lose them."""
    values = fill(tmp_path, 1200)
    keys = list(values)
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE vectors SET stored = stored - 40 * 86400 WHERE rowid <= 700")
    database.close()

    refused = call("cache", "prune", "--older-than", "30", "--cache", tmp_path)
    kept = len(all_rows(tmp_path))
    facts = answer("cache", "prune", "--older-than", "30", "--cache", tmp_path, "--yes")

    assert isinstance(refused.exception, ConfigError)
    assert "700 rows" in str(refused.exception)
    assert kept == 1200
    assert (facts["removed"], facts["bytes"]) == (700, 700 * len(values[keys[0]]))
    assert all_rows(tmp_path).keys() == set(keys[700:])


def test_prune_removes_what_is_not_used_of_the_models_that_are_named(tmp_path: Path, asynchronous: bool) -> None:
    """A row that is read is used; a model may have several numbers of dimensions and tiers."""
    backend = FakeBackend()
    models = [backend.model(name) for name in ("fake:old", "fake:new")]
    for model, texts in zip(models, (TEXTS[:30], TEXTS[:50]), strict=True):
        with Router([model], cache=tmp_path) as router:
            router.embed(texts, input_type="document")
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute("UPDATE vectors SET stored = stored - 40 * 86400")
    with Router([models[1]], cache=tmp_path) as router:
        embed(router, asynchronous, TEXTS[:10], input_type="document")
    info = answer("cache", "info", "--cache", tmp_path)["models"]
    wrong = call("cache", "prune", "--model", "fake:other", "--cache", tmp_path, "--yes")
    removed = [
        answer("cache", "prune", *options, "--cache", tmp_path, "--yes")["removed"]
        for options in (
            ["--unused", "50"],
            ["--unused", "30", "--model", "fake:new"],
            ["--older-than", "30", "--model", "fake:new", "--unused", "1"],
            ["--model", "fake:old"],
            ["--older-than", "30"],
        )
    ]

    assert {name: sums["rows"] for name, sums in info.items()} == {"fake:old": 30, "fake:new": 50}
    assert wrong.exit_code == 2
    assert "fake:new, fake:old" in wrong.stderr
    assert removed == [0, 40, 0, 30, 10]
    assert answer("cache", "info", "--cache", tmp_path)["rows"] == 0


def test_a_use_is_noted_once_a_day_and_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    """A read is never slower, or an error, for it."""
    fill(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute("UPDATE vectors SET stored = stored - 86401 WHERE rowid <= 10")
    keys = [row.key for row in CacheDatabase(tmp_path).rows()]

    def uses() -> list[float]:
        with closing(sqlite3.connect(tmp_path / "cache.db")) as database:
            return [used for (used,) in database.execute("SELECT used FROM uses")]

    with closing(DiskCache(tmp_path)) as cache, closing(sqlite3.connect(tmp_path / "cache.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert len(cache.get_many(keys)) == 20
        waited = time.monotonic() - started
        writer.execute("ROLLBACK")
        before = uses()
        cache.get_many(keys)
        first = uses()
        cache.get_many(keys)

    assert waited < 5
    assert before == []
    assert len(first) == 10
    assert uses() == first


def test_prune_removes_damaged_rows_and_no_others(tmp_path: Path) -> None:
    """``--damaged`` alone keeps everything sound, however old."""
    keys = list(fill(tmp_path, 10))
    spoil(tmp_path, keys[2])

    assert answer("cache", "prune", "--damaged", "--cache", tmp_path, "--yes")["removed"] == 1
    assert keys[2] not in all_rows(tmp_path)
    assert len(all_rows(tmp_path)) == 9


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_vectors_travel_to_a_colleague(name: str, tmp_path: Path) -> None:
    """Bit for bit; damaged rows stay at home, and importing twice adds nothing."""
    values = fill(tmp_path / "mine", 1100)
    keys = list(values)
    spoil(tmp_path / "mine", keys[9])

    out = answer("cache", "export", tmp_path / name, "--cache", tmp_path / "mine")
    first = answer("cache", "import", tmp_path / name, "--cache", tmp_path / "theirs")
    second = answer("cache", "import", tmp_path / name, "--cache", tmp_path / "theirs")

    assert (out["rows"], out["damaged"]) == (1099, 1)
    assert (first["added"], first["known"], first["damaged"]) == (1099, 0, 0)
    assert (second["added"], second["known"], second["damaged"]) == (0, 1099, 0)
    assert all_rows(tmp_path / "theirs") == {key: row for key, row in values.items() if key != keys[9]}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [name]


def test_a_colleague_with_the_vectors_pays_nothing(place: Path, emulator: Emulator) -> None:
    """Neither the endpoint nor the API key is in a cache key."""
    answer("warm", "corpus.jsonl", "--yes")
    answer("cache", "export", "rows.jsonl.gz")
    answer("cache", "import", "rows.jsonl.gz", "--cache", "theirs")
    calls = emulator.calls

    assert answer("warm", "corpus.jsonl", "--cache", "theirs")["embedded"] == 0
    assert emulator.calls == calls


def test_an_export_says_what_it_is_and_holds_no_text(place: Path) -> None:
    """The first line names format and version; the rest are keys and rows."""
    answer("warm", "corpus.jsonl", "--yes")
    answer("cache", "export", "rows.jsonl")

    first, *rows = (place / "rows.jsonl").read_text().splitlines()
    assert json.loads(first) == {"format": "embedrouter-cache", "version": 1}
    assert len(rows) == len(TEXTS)
    assert all(json.loads(row).keys() == {"key", "row"} for row in rows)
    assert "harbour" not in "".join(rows)


def test_import_repairs_damage_and_never_replaces_what_is_sound(tmp_path: Path) -> None:
    """Two sound rows under one key may differ in the billed tokens: the own one stays."""
    mine = fill(tmp_path / "mine", 3)
    keys = list(mine)
    answer("cache", "export", tmp_path / "rows.jsonl", "--cache", tmp_path / "mine")
    fill(tmp_path / "theirs", 2)
    own = encode(Entry(np.ones(8, np.float32), 77))
    theirs = DiskCache(tmp_path / "theirs")
    theirs.put_many({keys[0]: own})
    theirs.close()
    spoil(tmp_path / "theirs", keys[1])

    facts = answer("cache", "import", tmp_path / "rows.jsonl", "--cache", tmp_path / "theirs")

    assert (facts["added"], facts["known"]) == (2, 1)
    assert all_rows(tmp_path / "theirs") == mine | {keys[0]: own}


def test_damaged_lines_of_a_file_are_left_out_and_counted(tmp_path: Path) -> None:
    """A sound rest is worth having."""
    fill(tmp_path / "mine", 4)
    answer("cache", "export", tmp_path / "rows.jsonl", "--cache", tmp_path / "mine")
    head, one, two, three, four = (tmp_path / "rows.jsonl").read_text().splitlines()
    flipped = json.dumps(json.loads(one) | {"row": json.loads(two)["row"][:-8] + "AAAAAA=="})
    short = json.dumps(json.loads(two) | {"key": "00"})
    (tmp_path / "bad.jsonl").write_text("\n".join([head, flipped, short, three[:-9], "[]", four]) + "\n")

    facts = answer("cache", "import", tmp_path / "bad.jsonl", "--cache", tmp_path / "theirs")

    assert (facts["added"], facts["damaged"]) == (1, 4)


PLANTED: dict[str, list[float]] = {
    "not a number": [1.0, float("nan"), 0, 0, 0, 0, 0, 0],
    "infinite": [float("-inf"), 0, 0, 0, 0, 0, 0, 0],
    "all zeros": [0.0] * 8,
    "negative zeros": [-0.0] * 8,
    "beyond any model": [1e30] * 8,
    "as good as nothing": [1e-30] * 8,
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_that_no_model_gives_are_not_imported(name: str, planted: str, dtype: str, tmp_path: Path) -> None:
    """Their checksum is right, which shows no more than that they arrived as they were written."""
    key = bytes(19) + b"x"
    rows = fill(tmp_path / "mine", 3) | {key: encode(Entry(np.array(PLANTED[planted], np.float32), 1), dtype)}
    export_rows(tmp_path / name, rows.items())

    facts = answer("cache", "import", tmp_path / name, "--cache", tmp_path / "theirs")

    assert (facts["added"], facts["damaged"] + facts["unfit"]) == (3, 1)
    assert key not in all_rows(tmp_path / "theirs")


SECRET = "a key of more than sixteen bytes"


def signed(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, secret: str = SECRET) -> dict[bytes, bytes]:
    """Export three rows, signed."""
    monkeypatch.setenv("SIGNING_KEY", secret)
    rows = fill(folder / "mine")
    answer("cache", "export", folder / name, "--cache", folder / "mine", "--sign", "SIGNING_KEY")
    return rows


FORMATS = ["rows.jsonl", pytest.param("rows.jsonl.gz", marks=pytest.mark.slow), "rows.parquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_signed_rows_are_taken_by_who_has_the_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is in a variable or in a file, and in no exported file. Before the rows is said what they are."""
    rows = signed(tmp_path, name, monkeypatch)
    (tmp_path / "key").write_text(SECRET + "\n")
    ended = run("cache", "import", tmp_path / name, "--cache", tmp_path / "theirs", "--key", tmp_path / "key", "--json")
    facts = json.loads(ended.stdout)

    assert ended.stderr == f"{tmp_path / name} is signed with this key.\n"
    assert (facts["added"], facts["signed"], facts["checked"]) == (3, True, True)
    assert all_rows(tmp_path / "theirs") == rows
    content = (tmp_path / name).read_bytes()
    assert SECRET.encode() not in (gzip.decompress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", ["unsigned", "another key", "unsigned, without a key", "signed, without a key"])
def test_what_a_file_is_signed_with_is_said_or_refused_before_a_row_is_taken(
    case: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--key`` nothing is taken that is not signed with it; without it nothing is taken in silence."""
    signed(tmp_path, name, monkeypatch, SECRET * 2 if case == "another key" else SECRET)
    if case.startswith("unsigned"):
        (tmp_path / name).unlink()
        answer("cache", "export", tmp_path / name, "--cache", tmp_path / "mine")
    monkeypatch.setenv("SIGNING_KEY", SECRET)
    key = [] if case.endswith("without a key") else ["--key", "SIGNING_KEY"]
    ended = run("cache", "import", tmp_path / name, "--cache", tmp_path / "theirs", *key)
    words = {
        "unsigned": "is not signed. Nothing was imported.",
        "another key": "is signed with another key. Nothing was imported.",
        "unsigned, without a key": "is not signed: its vectors are taken as they are.",
        "signed, without a key": "is signed, which is not checked without --key",
    }[case]

    assert words in " ".join(ended.stderr.split())
    assert ended.returncode == (1 if key else 0)
    assert len(all_rows(tmp_path / "theirs")) == (0 if key else 3)


def changed(fields: dict[str, Any], other: dict[str, Any], how: str) -> dict[str, Any]:
    """Return the fields of a row as somebody without the key may change them."""
    ours = encode(Entry(np.eye(8, dtype=np.float32)[0], 1))
    return (
        fields
        | {
            "a vector planted": {"row": base64.b64encode(ours).decode()},
            "another text's vector": {"row": other["row"]},
            "another row's signature": {"row": base64.b64encode(ours).decode(), "signature": other["signature"]},
            "another key": {"key": "ab" * 20},
            "no signature": {"signature": ""},
        }[how]
    )


@pytest.mark.parametrize(
    "how",
    ["a vector planted", "another text's vector", "another row's signature", "another key", "no signature"],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_row_that_was_changed_after_it_was_signed_is_refused(
    name: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checksums can be made by anybody. None of the rows from there on is taken."""
    rows = signed(tmp_path, name, monkeypatch)
    path = tmp_path / name
    if name.endswith("parquet"):
        table = parquet.read_table(path)
        found = [{name: value.hex() for name, value in row.items()} for row in table.to_pylist()]
        found = [row | {"row": base64.b64encode(bytes.fromhex(row["row"])).decode()} for row in found]
        found[1] = changed(found[1], found[2], how)
        columns = {"key": [bytes.fromhex(row["key"]) for row in found]}
        columns["row"] = [base64.b64decode(row["row"]) for row in found]
        columns["signature"] = [bytes.fromhex(row["signature"]) for row in found]
        parquet.write_table(pyarrow.table(columns, schema=table.schema), path)
    else:
        head, *lines = map(json.loads, path.read_text().splitlines())
        lines[1] = changed(lines[1], lines[2], how)
        path.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))
    ended = run("cache", "import", path, "--cache", tmp_path / "theirs", "--key", "SIGNING_KEY")

    assert ended.returncode == 1
    assert "was changed after it was signed" in ended.stderr
    assert all_rows(tmp_path / "theirs").items() <= rows.items()


@pytest.mark.parametrize("content", ["", "short", " \n" * 20])
def test_a_key_that_is_none_is_refused_and_not_repeated(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too short, or the key itself in the place of its name."""
    fill(tmp_path / "mine")
    monkeypatch.setenv("SIGNING_KEY", content)
    for name in ("SIGNING_KEY", SECRET):
        ended = run("cache", "export", tmp_path / "rows.jsonl", "--cache", tmp_path / "mine", "--sign", name)
        assert ended.returncode == 1
        assert SECRET not in ended.stderr
    assert not (tmp_path / "rows.jsonl").exists()


def test_rows_of_a_newer_version_are_not_imported(tmp_path: Path) -> None:
    """Nothing in them can be checked."""
    rows = fill(tmp_path / "mine", 2)
    newer = bytearray(rows[bytes(20)])
    newer[2] = 9
    export_rows(tmp_path / "rows.jsonl", [*rows.items(), (bytes(19) + b"x", bytes(newer))])

    facts = answer("cache", "import", tmp_path / "rows.jsonl", "--cache", tmp_path / "theirs")

    assert (facts["added"], facts["damaged"]) == (2, 1)


@pytest.mark.parametrize(
    "vector", [v for name, v in PLANTED.items() if name in ("not a number", "infinite", "all zeros", "negative zeros")]
)
def test_planted_rows_are_found_and_never_returned(vector: list[float], tmp_path: Path, asynchronous: bool) -> None:
    """However they came into the folder: ``verify`` names them, and their texts are embedded again."""
    backend = FakeBackend()
    router = Router([backend.model()], cache=tmp_path, retry=NO_WAITING)
    first = embed(router, asynchronous, ["text"], input_type="document").vectors
    router.close()
    (key,) = all_rows(tmp_path)
    store = DiskCache(tmp_path)
    store.put_many({key: encode(Entry(np.array(vector, np.float32), 1))})
    store.close()

    assert call("cache", "verify", "--cache", tmp_path).exit_code == 1
    again = embed(router, asynchronous, ["text"], input_type="document")
    assert (again.vectors.tolist(), again.cached) == (first.tolist(), (False,))
    assert router.cache.damaged == 1
    assert call("cache", "verify", "--cache", tmp_path).exit_code == 0


def unit_rows(start: int, count: int, scale: float = 1.0, dimensions: int = 8) -> dict[bytes, bytes]:
    """Return rows of vectors of length ``scale``."""
    chance = np.random.default_rng(start)
    vectors = chance.standard_normal((count, dimensions))
    vectors *= scale / np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        (start + number).to_bytes(20, "big"): encode(Entry(vector.astype(np.float32), 1))
        for number, vector in enumerate(vectors)
    }


@pytest.mark.parametrize("scale", [0.5, 1.1, 40.0])
@pytest.mark.parametrize("known", ["the folder", "the file"])
def test_a_length_unlike_that_of_all_others_is_not_imported(known: str, scale: float, tmp_path: Path) -> None:
    """All the vectors of as many dimensions have length 1, so one of another length is of another model or changed."""
    others, foreign = unit_rows(0, 50), unit_rows(100, 2, scale)
    store = DiskCache(tmp_path / "theirs")
    store.put_many(others if known == "the folder" else unit_rows(200, 20, 3.0, dimensions=4))
    store.close()
    export_rows(
        tmp_path / "rows.jsonl", [*(others if known == "the file" else unit_rows(60, 3)).items(), *foreign.items()]
    )

    facts = answer("cache", "import", tmp_path / "rows.jsonl", "--cache", tmp_path / "theirs")
    assert (facts["added"], facts["unfit"]) == (50 if known == "the file" else 3, 2)
    assert not foreign.keys() & all_rows(tmp_path / "theirs").keys()
    again = answer("cache", "import", tmp_path / "rows.jsonl", "--cache", tmp_path / "theirs", "--any-length")
    assert (again["added"], again["unfit"]) == (2, 0)


def test_a_model_of_many_lengths_is_imported(tmp_path: Path) -> None:
    """Not every model's vectors have length 1, and a folder may hold several models of as many dimensions."""
    rows = unit_rows(0, 30) | unit_rows(100, 30, 7.5)
    export_rows(tmp_path / "rows.jsonl", rows.items())

    facts = answer("cache", "import", tmp_path / "rows.jsonl", "--cache", tmp_path / "theirs")

    assert (facts["added"], facts["unfit"]) == (60, 0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"text": "hello"}\n', "not by embedrouter cache export"),
        ("a.jsonl", b'{"format": "embedrouter-cache", "version": 2}\n', "by a newer version"),
        ("a.jsonl", b"", "not by embedrouter cache export"),
        ("a.jsonl.gz", b"not gzip", "cannot be read (Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"format": "embedrouter-cache", "version": 1}\n' * 9, mtime=0)[:-12],
            "is truncated",
        ),
        ("a.csv", b"", "is unknown"),
        ("a.parquet", b"", "not by embedrouter cache export"),
        ("a.parquet", b"PAR1 and then no more PAR1", "not by embedrouter cache export"),
    ],
)
def test_foreign_files_are_refused(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    """The error names the file and what to do, and no row is added."""
    (tmp_path / name).write_bytes(content)

    error = call("cache", "import", tmp_path / name, "--cache", tmp_path / "kept").exception

    assert isinstance(error, ConfigError)
    assert says in str(error)
    assert not CacheDatabase(tmp_path / "kept").exists or not all_rows(tmp_path / "kept")


def test_a_parquet_file_of_other_things_is_refused(tmp_path: Path) -> None:
    """Columns of these names may hold anything; the schema's metadata says whether we wrote them."""
    table = pyarrow.table({"key": [b"k" * 20], "row": [b"row"]})
    parquet.write_table(table, tmp_path / "a.parquet")

    error = call("cache", "import", tmp_path / "a.parquet", "--cache", tmp_path / "kept").exception

    assert isinstance(error, ConfigError)
    assert "not by embedrouter cache export" in str(error)


def test_parquet_without_pyarrow_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves no file."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fill(tmp_path / "kept")

    error = call("cache", "export", tmp_path / "rows.parquet", "--cache", tmp_path / "kept").exception

    assert "pip install 'embedrouter[parquet]'" in str(error)
    assert not (tmp_path / "rows.parquet").exists()


def test_export_replaces_no_file(tmp_path: Path) -> None:
    """It may be somebody's only copy."""
    fill(tmp_path / "kept")
    (tmp_path / "rows.jsonl").write_text("precious")

    assert "exists already" in str(
        call("cache", "export", tmp_path / "rows.jsonl", "--cache", tmp_path / "kept").exception
    )
    assert (tmp_path / "rows.jsonl").read_text() == "precious"


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    """Half a file would look like a whole one."""

    def pairs() -> Any:
        yield b"k" * 20, b"row"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_rows(tmp_path / "rows.jsonl.gz", pairs())

    assert list(tmp_path.iterdir()) == []


# All of them


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "--provider", "cohere"],
        ["estimate", "corpus.jsonl"],
        ["warm", "corpus.jsonl", "--yes"],
        ["stats", "--by", "model"],
        ["cache", "info"],
        ["cache", "verify"],
    ],
)
def test_piped_output_is_plain_text(arguments: list[str]) -> None:
    """No colours, no moving bars, no line cut short."""
    with Router.from_config("embedrouter.toml") as router:
        router.embed(TEXTS[:5], input_type="document")

    done = run(*arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "…" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["estimate", "x", "--model", "a:b", "--config", "c"],
        ["estimate", "x", "--input-type", "both"],
        ["warm"],
        ["stats", "--by", "year"],
        ["stats", "--cache", "d", "--config", "c"],
        ["cache", "prune"],
        ["cache", "prune", "--older-than", "-1"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Scripts can tell it from a failure."""
    assert call(*arguments).exit_code == 2


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["estimate", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["warm", "corpus.jsonl", "--model", "openai:text-embedding-3-small", "--yes"], "OPENAI_API_KEY"),
        (["estimate", "corpus.jsonl", "--tier", "best"], "Unknown tier 'best'"),
        (["stats", "--config", "missing.toml"], "missing.toml cannot be read"),
        (["cache", "verify", "--cache", "nowhere"], "There is no cache in"),
        (["cache", "import", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    ],
)
def test_errors_are_one_paragraph_and_exit_code_1(arguments: list[str], says: str) -> None:
    """They say what to do next, and there is no traceback."""
    done = run(*arguments)

    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith("embedrouter: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("arguments", [["stats"], ["estimate", "nowhere.jsonl"]])
def test_the_program_does_what_its_function_does(arguments: list[str]) -> None:
    """A shell starts a process of its own: with the same output and exit code, and without a warning."""
    process = start(*arguments)
    out, err = process.communicate(timeout=60)

    assert Ended(process.returncode, out, err) == run(*arguments)


def test_a_broken_configuration_is_no_missing_one(offline: Path) -> None:
    """Falling back to wordllama would hide a typing error."""
    (offline / "embedrouter.toml").write_text("models = [")

    assert "is not valid TOML" in str(call("stats").exception)
    assert "is not valid TOML" in str(call("cache", "info").exception)
