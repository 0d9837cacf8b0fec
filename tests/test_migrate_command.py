"""``embedrouter migrate`` over a real Chroma folder and the emulator: what it asks, says and returns."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router
from embedrouter.errors import BackendError, ConfigError, EmbedRouterError
from embedrouter.stores._reading import readable
from tests.command_line import run, start
from tests.emulator import Emulator, Fault
from tests.filled_stores import PAGES
from tests.test_cli_money import answer, call, place

__all__ = ["place"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FREE = "wordllama:l2_supercat_256"
NEW = "handbook--text-embedding-3-small-1536"
MIGRATE = ("migrate", "index", "--to", "embedrouter.toml", "--collection", "handbook")


@pytest.fixture
def index(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Chroma with the collection ``handbook``, filled with a free model."""
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "data"))
    rows = [{"page": f"page-{number}", "text": page} for number, page in enumerate(PAGES)]
    (place / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer("embed", "pages.jsonl", "--id", "page", "--to", "chroma:index", "--collection", "handbook", "--model", FREE)
    return place / "index"


def names(index: Path) -> list[str]:
    with readable(str(index), "handbook") as found:
        return sorted(found.database.names())


@pytest.mark.slow
def test_the_whole_way_and_back_in_json(index: Path, emulator: Emulator) -> None:
    plan = answer(*MIGRATE, "--plan")["plan"]
    assert (plan["texts"], plan["name"], plan["left_out"]) == (len(PAGES), NEW, {})
    assert not emulator.received
    assert names(index) == ["handbook"]

    facts = answer(*MIGRATE, "--yes")
    assert (facts["run"]["written"], facts["run"]["settled"]) == (len(PAGES), True)
    assert facts["verification"]["passed"]
    assert facts["next"] == [
        "embedrouter migrate index --to embedrouter.toml --collection handbook --switch",
    ]
    assert names(index) == ["handbook", NEW]
    paid = emulator.billed.copy()

    switched = answer(*MIGRATE, "--switch", "--yes")
    assert (switched["switch"]["line"], switched["switch"]["model"]) == ("", "openai:text-embedding-3-small")
    assert [step.rpartition(" ")[2] for step in answer(*MIGRATE, "--plan")["next"]] == ["--drop-old", "--undo"]
    assert names(index) == ["handbook", "handbook--old"]
    assert answer(*MIGRATE, "--undo")["switch"]["undone"]
    assert names(index) == ["handbook", NEW]
    answer(*MIGRATE, "--switch", "--yes")
    assert "handbook--old" in answer(*MIGRATE, "--drop-old", "--yes")["removed"]
    assert names(index) == ["handbook"]
    assert emulator.billed == paid, "each text was paid once"


@pytest.mark.slow
def test_the_cost_is_asked_for_before_anything_is_called_or_made(index: Path, emulator: Emulator) -> None:
    asked = call(*MIGRATE)
    assert isinstance(asked.exception, ConfigError)
    assert "Nothing was embedded. Agree with --yes." in str(asked.exception)
    assert not emulator.received
    assert names(index) == ["handbook"]
    for step, refusal in (("--switch", "Nothing was switched"), ("--drop-old", "Nothing was removed")):
        call(*MIGRATE, "--yes")
        refused = call(*MIGRATE, step)
        assert refusal in str(refused.exception)
        call(*MIGRATE, "--switch", "--yes")


@pytest.mark.slow
def test_a_failure_says_how_it_goes_on_and_the_same_command_pays_nothing_twice(
    index: Path, emulator: Emulator, place: Path
) -> None:
    text = (place / "embedrouter.toml").read_text().replace("batch_size = 10", "batch_size = 2")
    (place / "embedrouter.toml").write_text(f"{text}[retry]\nattempts = 1\n".replace("[[models]]", "[[models]]"))
    emulator.script(None, None, Fault.status(401))
    failed = call(*MIGRATE, "--yes")
    assert isinstance(failed.exception, EmbedRouterError)
    (note,) = failed.exception.__notes__
    assert f"Rows that were written are in {NEW}" in note
    assert note.endswith("To go on: embedrouter migrate index --to embedrouter.toml --collection handbook")

    assert answer(*MIGRATE, "--yes")["verification"]["passed"]
    texts = [one for received in emulator.received for one in received.texts]
    assert sorted(texts) == sorted([*PAGES, *emulator.received[2].texts]), "one request was refused, and not billed"


@pytest.mark.slow
def test_a_failed_verification_is_exit_code_1_and_switches_nothing(index: Path) -> None:
    answer(*MIGRATE, "--yes")
    with readable(str(index), "handbook") as old:
        old.database.open(NEW).remove(["page-1"])
    verified = call(*MIGRATE, "--verify")
    assert verified.exit_code == 1
    assert "FAILED  ids: 7 rows in the old collection, 6 in the new one; missing: page-1." in verified.output
    switched = call(*MIGRATE, "--switch", "--yes")
    assert switched.exit_code == 1
    assert "Nothing was switched." in switched.output
    assert names(index) == ["handbook", NEW]
    assert call(*MIGRATE, "--switch", "--yes", "--force").exit_code == 0
    assert names(index) == ["handbook", "handbook--old"]


@pytest.mark.slow
def test_queries_with_judgements_are_compared_before_and_after(index: Path, place: Path) -> None:
    queries = [{"id": f"q{number}", "text": page.split(".")[0]} for number, page in enumerate(PAGES)]
    (place / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (place / "qrels.tsv").write_text("".join(f"q{number}\tpage-{number}\t1\n" for number in range(len(PAGES))))
    facts = answer(*MIGRATE, "--yes", "--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--from", FREE)
    told = {check["name"]: check for check in facts["verification"]["checks"]}
    assert "overlap@10" in told["answers"]["found"]
    assert told["nDCG@10"]["passed"] is True
    assert "before" in told["nDCG@10"]["found"]


def test_steps_exclude_each_other_and_qrels_need_queries(index: Path) -> None:
    assert call(*MIGRATE, "--plan", "--switch").exit_code == 2
    assert call(*MIGRATE, "--qrels", "x").exit_code == 2


@pytest.mark.parametrize("columns", [40])
def test_it_fits_a_narrow_window(columns: int, index: Path) -> None:
    """All but names and the commands that are to be copied."""
    done = run(*MIGRATE, "--plan", columns=columns, typed="")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  embedrouter")]
    long = [line for line in lines if len(line) > columns and len(line.split()) > 1]
    assert not long, done.stdout


@pytest.mark.slow
def test_interrupted_it_says_how_it_goes_on(index: Path, emulator: Emulator) -> None:
    emulator.latency = 2
    with start(*MIGRATE, "--yes", "--skip-bad") as process:
        while not emulator.received:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped. Rows that were written are in" in complaint
    assert "To go on: embedrouter migrate index" in complaint
    assert complaint.rstrip().endswith("--skip-bad"), "the same command"


@pytest.mark.slow
def test_the_programs_of_the_readers_find_the_new_collection(index: Path) -> None:
    """LangChain's Chroma opens the same name, with the new model and its guard."""
    from langchain_chroma import Chroma

    from embedrouter.langchain import RouterEmbeddings
    from embedrouter.stores import guard

    answer(*MIGRATE, "--yes")
    answer(*MIGRATE, "--switch", "--yes")
    with Router.from_config("embedrouter.toml") as router:
        store: Any = Chroma("handbook", RouterEmbeddings(router), persist_directory="index")
        guard(store, router)
        (found,) = store.similarity_search("When is lunch?", k=1)
        assert found.page_content == PAGES[2]


def test_an_unknown_source_is_told(place: Path) -> None:
    done = call("migrate", "nowhere", "--to", FREE)
    assert isinstance(done.exception, ConfigError)
    assert not isinstance(done.exception, BackendError)
    assert "There is no" in str(done.exception)
