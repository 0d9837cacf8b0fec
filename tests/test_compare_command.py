"""``embedrouter compare`` as people run it: the cost before, the figures after, and what was paid kept in between."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from embedrouter import Router
from embedrouter.comparison import read_questions
from tests.command_line import Ended, run, start
from tests.emulator import Emulator, Fault, Received
from tests.filled_stores import PAGES

SUBJECTS = ("cats", "dogs", "horses", "trains", "ships", "planes", "bread", "cheese", "apples", "rain", "snow", "wind")
VERBS = ("like", "need")
PAIRS = [(subject, verb) for subject in SUBJECTS for verb in VERBS]
LOCAL = "wordllama:l2_supercat_256"
PAID = "openai:text-embedding-3-small"
TEXTS = 2 * len(PAIRS)
BOLD = re.compile(r"\x1b\[\d*m")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def place(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as BEIR has it: what each of twelve things likes and needs; and OpenAI, which is emulated."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-harbour")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.openai_url)
    folder = tmp_path / "things"
    (folder / "qrels").mkdir(parents=True)
    write(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "title": s, "text": f"A page about what {s} {v}."} for i, (s, v) in enumerate(PAIRS)],
    )
    write(
        folder / "queries.jsonl", [{"_id": f"q{i}", "text": f"What do {s} {v} most?"} for i, (s, v) in enumerate(PAIRS)]
    )
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(len(PAIRS)))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments: object, **how: Any) -> Ended:
    return run("compare", *arguments, **how)


def answer(*arguments: object) -> dict[str, Any]:
    """Return what the command prints with ``--json``."""
    done = compare(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def vectors_of(emulator: Emulator) -> int:
    """Return how many texts were embedded."""
    return sum(len(received.texts) for received in emulator.received)


# The cost


def test_the_cost_is_said_for_each_model_and_nothing_is_called_before_somebody_agrees(
    place: Path, emulator: Emulator
) -> None:
    """``things`` is a folder, so its queries and judgements are found."""
    piped = compare("things", "-m", PAID, "-m", LOCAL)
    refused = compare("things", "-m", PAID, "-m", LOCAL, typed="n\n", columns=100)

    assert (piped.returncode, refused.returncode, emulator.calls) == (1, 1, 0)
    assert "things: 24 documents, 24 queries, with judgements" in piped.stdout
    cells = next(line for line in piped.stdout.splitlines() if line.startswith(PAID)).split()
    assert cells[1:3] == ["48", "0"], "texts, and those in the cache"
    assert 0 < Decimal(cells[-2].strip("$")) <= Decimal(cells[-1].strip("$"))
    assert "Agree with --yes, or try a sample first" in piped.stderr
    assert "Go ahead?" in refused.stdout


def test_a_second_run_costs_nothing_and_says_so(place: Path, emulator: Emulator) -> None:
    first = answer("things", "-m", PAID, "-m", LOCAL, "--yes")
    calls = emulator.calls

    second = compare("things", "-m", PAID, "-m", LOCAL)

    assert Decimal(first["spent"]) > 0
    assert (second.returncode, emulator.calls) == (0, calls)
    assert "Every vector is in the cache: this costs nothing." in second.stdout
    assert "Spent: nothing." in second.stdout


def test_other_dimensions_and_number_types_of_a_model_are_not_paid_again(place: Path, emulator: Emulator) -> None:
    facts = answer(
        "things", "-m", PAID, "-m", LOCAL, "--yes", "--dimensions", "256", "--dtype", "int8,binary",
        "--cascade", f"{LOCAL},{PAID} at 256,0.25",
    )  # fmt: skip

    assert vectors_of(emulator) == TEXTS
    labels = [variant["variant"] for variant in facts["variants"]]
    assert len(labels) == 10, "each of two models: whole, int8, binary, and of the paid one at 256, too; the cascade"
    assert {PAID, f"{PAID} at 256", f"{PAID} at 256, int8", f"{LOCAL}, binary"} < set(labels)
    assert f"{LOCAL}, then {PAID} at 256 for 25%" in labels


def test_a_budget_that_does_not_suffice_ends_the_command_before_anything_is_called(
    place: Path, emulator: Emulator
) -> None:
    done = compare("things", "-m", PAID, "-m", LOCAL, "--yes", "--budget", "0.000001")

    assert (done.returncode, emulator.calls) == (1, 0)
    assert "0.000001" in done.stderr
    assert "Here per_call is --budget." in done.stderr
    assert compare("things", "-m", PAID, "--yes", "--budget", "0.01").returncode == 0


def test_a_model_without_its_key_is_left_out_and_named(place: Path, emulator: Emulator) -> None:
    done = compare("things", "-m", "voyage:voyage-4-lite", "-m", LOCAL)

    assert done.returncode == 0
    assert done.stdout.count("Left out: voyage:voyage-4-lite: ") == 2, "before and after"
    assert "VOYAGE_API_KEY" in done.stdout
    alone = compare("things", "-m", "voyage:voyage-4-lite")
    assert (alone.returncode, "VOYAGE_API_KEY" in alone.stderr) == (1, True)


def test_without_models_those_are_compared_whose_keys_are_set_and_the_one_of_the_package(
    place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key = answer("things", "--yes")
    monkeypatch.delenv("OPENAI_API_KEY")
    without = answer("things")

    assert {variant["variant"] for variant in with_key["variants"]} == {PAID, LOCAL}
    assert {variant["variant"] for variant in without["variants"]} == {LOCAL}


def test_the_routers_of_a_configuration_are_compared(place: Path, emulator: Emulator) -> None:
    (place / "tiers.toml").write_text(
        "".join(
            f'[routers.{tier}]\ncache = "kept"\ndimensions = {size}\n[[routers.{tier}.models]]\nmodel = "{LOCAL}"\n'
            for tier, size in (("low", 64), ("high", 256))
        )
    )

    facts = answer("things", "--config", "tiers.toml", "-m", PAID, "--yes")

    assert {variant["dimensions"] for variant in facts["variants"]} == {64, 256, 1536}
    assert (place / "kept").is_dir()


# Stopped, and failed


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_answered_says_so_and_the_next_run_pays_for_the_rest_only(
    place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first texts are sent alone, so the third request is one of many."""
    started = threading.Event()
    processes: list[subprocess.Popen[str]] = []

    def rule(_: Received) -> Fault | None:
        if emulator.calls != 3:
            return None
        assert started.wait(30)
        os.kill(processes[0].pid, signal.SIGINT)
        return Fault.slow(0.5)

    emulator.fault_for = rule
    process = start("compare", "things", "-m", PAID, "--yes", cwd=place)
    processes.append(process)
    started.set()
    _, complaint = process.communicate(timeout=60)
    emulator.fault_for = None

    assert process.returncode == 130
    assert "Stopped. Spent: $0.0" in complaint
    assert "the same command continues from there and pays for nothing twice" in complaint
    assert "Traceback" not in complaint
    assert compare("things", "-m", PAID, "--yes").returncode == 0
    assert vectors_of(emulator) == TEXTS


def test_a_model_that_fails_in_the_middle_is_left_out_and_what_was_paid_is_kept(
    place: Path, emulator: Emulator
) -> None:
    emulator.fault_for = lambda _: Fault.status(400) if emulator.calls == 3 else None
    failed = compare("things", "-m", PAID, "-m", LOCAL, "--yes")
    emulator.fault_for = None
    before = vectors_of(emulator)

    assert failed.returncode == 0
    assert f"Left out: {PAID}: " in failed.stdout
    again = answer("things", "-m", PAID, "-m", LOCAL, "--yes")
    assert again["left_out"] == {}
    assert before < vectors_of(emulator) <= TEXTS + before - 2


# What is printed


def test_the_table_and_the_sentences_fit_every_window_from_forty_columns(place: Path, emulator: Emulator) -> None:
    """The names of variants and the configuration are to be copied, so each is whole on a line."""
    options = ("things", "-m", PAID, "-m", LOCAL, "--yes", "--dimensions", "128", "--dtype", "float16,int8,binary")
    for columns in (40, 80, 120):
        done = compare(*options, typed="", columns=columns)

        figures, _, configuration = BOLD.sub("", done.stdout).partition("To use it, as embedrouter.toml:")
        assert done.returncode == 0
        sentences = [line for line in figures.splitlines() if not line.startswith((PAID, LOCAL))]
        assert max(map(cell_len, sentences)) <= columns
        for fact in ("nDCG@10", "±", "recall@10", "MRR@10", "corpus", "docs/s", "query", "index", "kB", "ms"):
            assert fact in figures, f"{fact} is not there at {columns} columns"
        assert "[[models]]" in configuration


def test_the_best_one_is_given_as_a_configuration_that_works(place: Path, emulator: Emulator) -> None:
    done = compare("things", "-m", PAID, "-m", LOCAL, "--yes")
    (place / "embedrouter.toml").write_text(done.stdout.partition("as embedrouter.toml:\n")[2])

    with Router.from_config("embedrouter.toml") as router:
        assert router.models == (LOCAL,), "as good as the other one, and cheaper"
    facts = answer("things", "-m", PAID, "-m", LOCAL)
    assert facts["best"] == LOCAL
    assert facts["configuration"]["models"][0]["model"] == LOCAL


def test_under_a_price_that_nothing_keeps_to_the_figures_are_printed_all_the_same(
    place: Path, emulator: Emulator
) -> None:
    done = compare("things", "-m", PAID, "--yes", "--under", "0.0001")

    assert done.returncode == 1
    assert "nDCG@10" in done.stdout
    assert "No variant takes at most $0.0001 for a million queries" in done.stderr
    assert compare("things", "-m", PAID, "--under", "$9").returncode == 0


def test_whether_a_difference_is_more_than_chance_is_said_in_words(place: Path, emulator: Emulator) -> None:
    clear = compare("things", "-m", PAID, "--yes", "--dimensions", "16").stdout
    even = compare("things", "-m", PAID, "-m", LOCAL, "--dimensions", "16").stdout

    assert f"The best is {PAID}, by more than chance. Next is {PAID} at 16 (behind by 0." in clear
    assert f"The best is {LOCAL}. As good, as far as these queries can tell: {PAID} (behind by 0.000 nDCG@10" in even
    assert f"Dominated, no cheaper and worse by more than chance: {PAID} at 16 (by " in even
    assert f"Left out: {LOCAL} at 16: " in even


def test_the_figures_are_written_as_csv_to_a_file_or_to_stdout(place: Path, emulator: Emulator) -> None:
    to_file = compare("things", "-m", PAID, "-m", LOCAL, "--yes", "--csv", "figures.csv")
    to_stdout = compare("things", "-m", PAID, "-m", LOCAL, "--csv", "-")

    assert (to_file.returncode, to_stdout.returncode) == (0, 0)
    rows = list(csv.DictReader(io.StringIO(to_stdout.stdout)))
    assert {row["variant"] for row in rows} == {LOCAL, PAID}
    assert float(rows[0]["nDCG@10 low"]) <= float(rows[0]["nDCG@10"]) <= float(rows[0]["nDCG@10 high"])
    assert {(row["collection"], row["judged_by"], row["queries"]) for row in rows} == {("things", "judgements", "24")}
    written = list(csv.DictReader(io.StringIO((place / "figures.csv").read_text())))
    assert [row["nDCG@10"] for row in written] == [row["nDCG@10"] for row in rows]


def test_a_page_is_written_again_and_no_other_file_is_replaced(place: Path, emulator: Emulator) -> None:
    (place / "notes.html").write_text("<p>mine</p>")

    for _ in range(2):
        assert compare("things", "-m", LOCAL, "--html", "report.html", "--csv", "figures.csv").returncode == 0
    for refused in (("--html", "notes.html"), ("--csv", "things/queries.jsonl"), ("--html", "no/folder.html")):
        done = compare("things", "-m", PAID, "--yes", *refused)
        assert done.returncode == 1
        assert "Choose another name" in done.stderr or "or choose another name" in done.stderr
    assert (place / "notes.html").read_text() == "<p>mine</p>"
    assert emulator.calls == 0, "refused before anything was paid"
    assert "<html" in (place / "report.html").read_text()


# What models are compared on


def test_known_items_are_labelled_in_every_output(place: Path, emulator: Emulator) -> None:
    articles = {
        f"d{i}": f"A page on what {s} {v}. It was number {i} of the works on {s} by the guild. Nobody {v}s {s} now."
        for i, (s, v) in enumerate(PAIRS)
    }
    write(place / "pages.jsonl", [{"id": name, "text": text} for name, text in articles.items()])

    table = compare("pages.jsonl", "-m", LOCAL, "--html", "known.html")
    facts = answer("pages.jsonl", "-m", LOCAL)
    rows = list(csv.DictReader(io.StringIO(compare("pages.jsonl", "-m", LOCAL, "--csv", "-").stdout)))

    trust = "Differences between models count, absolute figures do not"
    assert table.stdout.count("known items, made from documents") == 2
    assert trust in table.stdout
    assert facts["judged_by"] == "known items"
    assert trust in facts["notes"][0]
    assert rows[0]["judged_by"] == "known items"
    assert trust in rows[0]["notes"]
    assert "known items" in (place / "known.html").read_text()


def test_a_sample_is_labelled(place: Path, emulator: Emulator) -> None:
    done = compare("things", "-m", LOCAL, "--limit", "20", "--query-limit", "10")

    assert "things: 20 documents, 10 queries, with judgements" in done.stdout
    assert "A sample: 10 of 24 queries." in done.stdout
    assert "A sample: 20 of 24 documents, those first that answer a query." in done.stdout


def test_queries_alone_are_compared_by_agreement_with_the_first_model(place: Path, emulator: Emulator) -> None:
    (place / "queries.txt").write_text("what do cats like\nwhat do dogs need\n")

    done = compare("things/corpus.jsonl", "queries.txt", "-m", PAID, "-m", LOCAL, "--yes")

    assert done.returncode == 0
    assert "24 documents, 2 queries, without judgements: agreement with the first model" in done.stdout


def test_a_folder_of_pages_is_split_as_a_program_splits_it(place: Path, emulator: Emulator) -> None:
    (place / "handbook").mkdir()
    for number, (subject, verb) in enumerate(PAIRS):
        text = f"# What {subject} {verb}\n\n" + "".join(
            f"Sentence {part} on {subject} says how they {verb} number {number * part}. " for part in range(2, 9)
        )
        (place / "handbook" / f"{number}.md").write_text(text)

    whole = answer("handbook", "-m", LOCAL)
    chunks = answer(
        "handbook", "-m", LOCAL, "--split", "langchain:RecursiveCharacterTextSplitter",
        "--split-option", "chunk_size=200", "--split-option", "chunk_overlap=0",
    )  # fmt: skip

    assert (whole["documents"], whole["collection"]) == (24, "handbook")
    assert chunks["documents"] > 2 * 24
    assert chunks["judged_by"] == "known items"


def test_a_real_vector_store_is_the_corpus(place: Path, emulator: Emulator) -> None:
    """By its folder on the command line, and as LangChain's object in Python."""
    import chromadb
    from langchain_chroma import Chroma
    from langchain_core.embeddings import DeterministicFakeEmbedding

    pages = {f"p{number}": text for number, text in enumerate(PAGES)}
    store = Chroma("pages", DeterministicFakeEmbedding(size=8), client=chromadb.EphemeralClient())
    store.add_texts(PAGES, ids=list(pages))
    client: Any = chromadb.PersistentClient(str(place / "store"))
    with client:
        embeddings: Any = [[float(number), 1.0] for number in range(len(PAGES))]
        client.create_collection("pages").add(list(pages), embeddings, documents=PAGES)
    write(place / "asked.jsonl", [{"id": "q", "text": "how long is the holiday"}])
    (place / "judged.txt").write_text("q 0 p0 1\n")

    found = read_questions(store, {"q": "how long is the holiday"}, {"q": {"p0": 1}})
    facts = answer("store", "asked.jsonl", "--qrels", "judged.txt", "-m", LOCAL)

    assert dict(found.documents) == pages
    assert (facts["documents"], facts["queries"], facts["collection"]) == (len(PAGES), 1, "store")
    assert facts["variants"][0]["MRR@10"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dimensions", "256,many"), "--dimensions are numbers such as 256,512, not 'many'."),
        (("--dtype", "int4"), "dtypes= is a list of some of float16, int8, binary, not 'int4'."),
        (("--prompt", "Find: "), "A prompt is written as --prompt 'query=Find: '"),
        (("--prompt", "query=a", "--prompt", "query=b"), "--prompt 'query=…' is given twice."),
        (("--cascade", LOCAL), "A cascade is written as --cascade FIRST,SECOND"),
        (("--cascade", f"{LOCAL},{LOCAL},2"), "A cascade is written as --cascade FIRST,SECOND"),
        (("--under", "cheap"), "--under is an amount in dollars such as 0.50"),
        (("--budget", "little"), "--budget is an amount in dollars such as 0.50"),
        (("--json", "--csv", "-"), "--json prints on stdout, and so does --csv -."),
        (("--cache", "kept", "--no-cache"), "exclude each other"),
        (("--limit", "0"), "Invalid value for '--limit'"),
    ],
)
def test_a_wrong_option_is_told_with_the_right_one(
    place: Path, emulator: Emulator, options: Sequence[str], message: str
) -> None:
    done = compare("things", "-m", LOCAL, *options, columns=300)

    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_wordllama_reaches_on_squad_what_was_measured_elsewhere(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``facts/retrieval.md``: nDCG@10 0.685 (0.68 to 0.69), recall@10 0.852, recall@100 0.983, MRR@10 0.633."""
    monkeypatch.chdir(tmp_path)

    (variant,) = answer(shared / "retrieval" / "squad-dev", "-m", LOCAL)["variants"]

    expected = {"nDCG@10": 0.685, "recall@10": 0.852, "recall@100": 0.983, "MRR@10": 0.633}
    assert {measure: round(variant[measure], 3) for measure in expected} == pytest.approx(expected, abs=0.0011)
    assert variant["nDCG@10 low"] <= 0.685 <= variant["nDCG@10 high"]
