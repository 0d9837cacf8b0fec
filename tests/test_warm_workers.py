"""``embedrouter warm --workers N``: several processes of this machine, each with a local model."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router
from embedrouter.workers import shares
from tests.command_line import Ended, run, start

WORDLLAMA = "wordllama:l2_supercat_256"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpus(place: Path, texts: int, name: str = "corpus.jsonl") -> list[str]:
    lines = [f"Paragraph {number} is about the number {number * 7919 % texts}." for number in range(texts)]
    (place / name).write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return lines


def answer(done: Ended) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(folder: Path) -> int:
    """Return how many rows a cache folder has, while others write there."""
    files = list(folder.glob("*.db"))
    if not files:
        return 0
    with closing(sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM vectors").fetchone()[0])
        except sqlite3.Error:
            return 0


@pytest.mark.slow
def test_the_cache_holds_what_one_process_writes(place: Path) -> None:
    lines = corpus(place, 1500)

    several = answer(run("warm", "corpus.jsonl", "--workers", 2, "--cache", "kept", "--tag", "job", "--json"))

    counts = {name: several[name] for name in ("done", "embedded", "recalled", "repeated")}
    assert counts == {"done": 1500, "embedded": 1500, "recalled": 0, "repeated": 0}
    assert several["usage"]["requests"] > 0
    with Router([WORDLLAMA], cache="kept") as router, Router([WORDLLAMA], cache=None, ledger=":memory:") as alone:
        kept = router.embed(lines, input_type="document")
        assert all(kept.cached)
        assert (kept.vectors == alone.embed(lines, input_type="document").vectors).all()
        assert router.ledger.totals("tag")["job"].texts == 1500


@pytest.mark.parametrize(
    ("cores", "number", "expected"),
    [([0, 1], 2, [[0], [1]]), ([0, 1, 4, 5, 6], 2, [[0, 4, 6], [1, 5]]), ([3], 2, [[3], [3]]), ([0, 1], 1, [[0, 1]])],
)
def test_processes_share_the_cores(cores: list[int], number: int, expected: list[list[int]]) -> None:
    """Two models on all cores each would wait for each other."""
    assert shares(cores, number) == expected


def test_an_error_is_that_of_one_process(place: Path) -> None:
    """A text over the limit is in the second chunk; its place is told, and what was embedded stays."""
    corpus(place, 600)
    with (place / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"text": ""}) + "\n")

    one, two = (run("warm", "corpus.jsonl", "--workers", number, "--cache", f"{number}") for number in (1, 2))

    assert one.returncode == two.returncode == 1
    assert "corpus.jsonl, line 601" in two.stderr
    assert two.stderr == one.stderr


@pytest.mark.slow
def test_bad_texts_are_left_out_by_each_process(place: Path) -> None:
    corpus(place, 600)
    with (place / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"text": ""}) + "\n")

    facts = answer(run("warm", "corpus.jsonl", "--workers", 2, "--skip-bad", "--cache", "kept", "--json"))

    assert (facts["done"], [row["count"] for row in facts["skipped"]]) == (600, [1])


def test_a_model_of_the_network_needs_no_workers(place: Path) -> None:
    corpus(place, 3)
    refused = run("warm", "corpus.jsonl", "--workers", 2, "--model", "openai:text-embedding-3-small")

    assert refused.returncode == 1
    assert "one process has many requests in flight. Leave --workers out" in refused.stderr
    assert run("warm", "corpus.jsonl", "--workers", 2, "--batch").returncode == 2


def children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_goes_on(number: signal.Signals, place: Path) -> None:
    """Ctrl-C goes to the whole group, as of a terminal; a kill reaches the first process alone."""
    corpus(place, 6_000)
    began = time.monotonic()
    with start("warm", "corpus.jsonl", "--workers", 2, "--cache", "kept", "--chunk-size", 128, group=True) as process:
        while rows(place / "kept") < 700:
            assert process.poll() is None
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        workers = children(process.pid)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, complaint = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert complaint.strip().startswith("Stopped. Spent: $0")
        assert "Traceback" not in complaint
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    kept = rows(place / "kept")
    assert 700 <= kept < 6_000

    facts = answer(run("warm", "corpus.jsonl", "--cache", "kept", "--json"))

    assert (facts["done"], facts["embedded"], facts["recalled"]) == (6_000, 6_000 - kept, kept)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_what_to_do(place: Path) -> None:
    corpus(place, 6_000)
    began = time.monotonic()
    with start("warm", "corpus.jsonl", "--workers", 2, "--cache", "kept", "--chunk-size", 128) as process:
        while rows(place / "kept") < 700:
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        _, complaint = process.communicate(timeout=20)

    assert process.returncode == 1
    assert "A worker process was killed, perhaps because memory is short" in complaint
    assert "continues from there" in complaint
