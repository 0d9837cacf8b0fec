"""``embedrouter demo``, run as users run it: on the standard library's own documentation, with both frameworks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from embedrouter import Router
from embedrouter.cli import app
from embedrouter.cli._console import Output, format_money
from embedrouter.cli._corpus import MAX_PASSAGE, Corpus, read_folder, read_standard_library, split_passages
from embedrouter.cli._demo import run_demo
from embedrouter.cli._demo_stores import rank_sources
from embedrouter.errors import ConfigError, EmbedRouterError, UnavailableError
from embedrouter.spending import Ledger
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.command_line import run, start

ARGPARSE = "parse command line options"
LANGCHAIN, LLAMA_INDEX = "LangChain InMemoryVectorStore", "LlamaIndex VectorStoreIndex"
EXPECTED = {
    ARGPARSE: {"argparse"},
    "compress files into a zip archive": {"zipfile"},
    "send an email message": {"email", "smtplib"},
    "generate secure random tokens for passwords": {"secrets"},
    "measure how long a piece of code takes": {"timeit"},
}


@dataclass(frozen=True)
class Library:
    """The standard library as the demo reads it, and what was imported meanwhile."""

    corpus: Corpus
    imported: set[str]


@pytest.fixture(scope="module")
def library() -> Library:
    before = set(sys.modules)
    return Library(read_standard_library(), set(sys.modules) - before)


@pytest.fixture(scope="module")
def first(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run gives over every fifth text of the standard library, and every text of the modules asked for."""
    wanted = set().union(*EXPECTED.values())
    kept = [
        passage for number, passage in enumerate(library.corpus.passages) if number % 5 == 0 or passage.source in wanted
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedrouter.cli._demo.read_standard_library", lambda: replace(library.corpus, passages=kept))
        return facts("--cache", tmp_path_factory.mktemp("cache"))


def facts(*arguments: str | Path) -> dict[str, Any]:
    """Return what the demo prints with ``--json``."""
    done = run("demo", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of somebody's own texts."""
    texts = tmp_path / "notes"
    (texts / "kitchen").mkdir(parents=True)
    (texts / "kitchen/tea.md").write_text("# Tea\n\nGreen tea is brewed with water of 80 degrees.\n")
    (texts / "car.txt").write_bytes("How to change a tyre\n\nLoosen the nuts, then use the jack.\xff".encode("latin-1"))
    (texts / "photo.png").write_bytes(b"\x89PNG\r\n")
    (texts / "empty.txt").write_text("\n")
    return texts


class Stopping(FakeBackend):
    """Answer once, then press Ctrl-C."""

    def embed(self, texts: Sequence[str], input_type: InputType, **settings: Any) -> Answer:
        if self.calls:
            raise KeyboardInterrupt
        return super().embed(texts, input_type, **settings)


def run_here(folder: Path, router: Router, *, yes: bool = False, as_json: bool = False) -> None:
    """Run the demo in this process, with a router that no configuration can describe."""
    run_demo(router, folder, None, None, Output(as_json=as_json, yes=yes))


# The standard library


@pytest.mark.slow
def test_the_whole_standard_library_is_indexed_in_both_frameworks_and_then_in_the_cache(tmp_path: Path) -> None:
    """The second framework gets every vector from the cache of the first, and the second run makes no call.

    It runs in a process of its own; piped output has neither colours nor moving parts.
    """
    first = facts("--cache", tmp_path)
    process = start("demo", "--cache", tmp_path)
    out, err = process.communicate(timeout=120)

    langchain, llama_index, low = first["indexes"]
    assert langchain["store"] == low["store"] == LANGCHAIN
    assert llama_index["store"] == LLAMA_INDEX
    assert langchain["texts"] == llama_index["texts"] > 4000
    assert (langchain["cached"], langchain["computed"]) == (0, langchain["distinct"])
    assert (llama_index["cached"], llama_index["requests"]) == (llama_index["distinct"], 0)
    assert low["space"] != langchain["space"]
    for answer in first["answers"]:
        assert {answer["sources"][LANGCHAIN][0], answer["sources"][LLAMA_INDEX][0]} <= EXPECTED[answer["question"]]
    assert (process.returncode, err) == (0, "")
    assert f"All {langchain['texts']:,} texts and the questions were in the cache: no embedding call was made" in out
    assert out.count("all from cache, 0 calls") == 3
    assert "text-embedding-3-small" in out
    assert "\x1b" not in out
    assert "\r" not in out


@pytest.mark.slow
@pytest.mark.parametrize("question", EXPECTED)
def test_every_prepared_question_finds_its_module_with_both_frameworks(first: dict[str, Any], question: str) -> None:
    """An evident answer is what convinces."""
    found = {answer["question"]: answer["sources"] for answer in first["answers"]}[question]

    assert found[LANGCHAIN][0] in EXPECTED[question]
    assert found[LLAMA_INDEX][0] in EXPECTED[question]


@pytest.mark.slow
def test_the_same_question_is_asked_at_two_tiers(first: dict[str, Any]) -> None:
    """64 dimensions are another space than 256, so each has an index of its own."""
    low, high = first["tiers"]

    assert (low["tier"], high["tier"]) == ("low", "high")
    assert "64 dimensions" in low["space"]
    assert "256 dimensions" in high["space"]
    assert "argparse" in low["sources"][:3]
    assert high["sources"][0] == "argparse"


def test_money_is_the_catalogues_price_times_the_tokens(first: dict[str, Any]) -> None:
    """The local model is free; OpenAI's small one is 0.02 and its large one 0.13 dollars for a million tokens."""
    assert Decimal(first["usage"]["cost"]) == 0
    small, large = first["elsewhere"]
    assert Decimal(small["cost"]) == small["tokens"] * Decimal("0.02") / 1_000_000
    assert Decimal(large["cost"]) == large["tokens"] * Decimal("0.13") / 1_000_000
    assert small["tokens"] > 50_000


# Other texts, other routers


def test_a_folder_of_own_texts_works_and_skipped_files_are_named(own: Path, tmp_path: Path) -> None:
    """The user should not have to guess why a file was not found."""
    done = run("demo", own, "--ask", "how hot should the water for tea be", "--cache", tmp_path / "cache")

    assert done.returncode == 0, done.stderr
    assert "kitchen/tea.md, car.txt" in done.stdout
    assert "skipped, a .png file: photo.png" in done.stdout
    assert "skipped, empty: empty.txt" in done.stdout


def test_without_questions_a_folder_is_asked_its_own_first_lines(own: Path) -> None:
    """The user's texts are unknown, and something has to be asked."""
    assert read_folder(own).questions == ["How to change a tyre", "Green tea is brewed with water of 80 degrees."]


def test_a_configuration_file_is_used(own: Path, tmp_path: Path) -> None:
    """The user's own router, found by search, with its own cache."""
    (tmp_path / "embedrouter.toml").write_text('cache = "kept"\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')

    done = run("demo", own, "--config", "auto", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert f"Cache: {tmp_path / 'kept'}" in done.stdout
    assert "There is one tier only" in done.stdout
    assert (tmp_path / "kept/cache.db").exists()


def test_a_tiered_configuration_has_an_index_for_each_tier(own: Path, tmp_path: Path) -> None:
    """Routers of two spaces never share one."""
    config = tmp_path / "tiers.toml"
    config.write_text(
        "".join(
            f"[routers.{tier}]\ncache = false\ndimensions = {dimensions}\n[[routers.{tier}.models]]\n"
            'model = "wordllama:l2_supercat_256"\n'
            for tier, dimensions in (("low", 128), ("high", 256))
        )
    )

    done = run("demo", own, "--config", config, "--no-cache", "--json")

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [(index["tier"], index["cached"]) for index in facts["indexes"]] == [("high", 0), ("high", 0), ("low", 0)]
    assert facts["cache"] is None


def test_two_tiers_of_one_space_ask_the_same_index(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documents are embedded once, at every tier of the questions."""
    lite, large = FakeBackend(), FakeBackend()
    models = [lite.model("fake:lite", tier="low", price="0.02"), large.model("fake:large", price="0.12")]

    run_here(own, Router(models, cache=MemoryCache()), yes=True, as_json=True)

    facts = json.loads(capsys.readouterr().out)
    assert [asked["model"] for asked in facts["tiers"]] == ["fake:lite", "fake:large"]
    assert len(facts["indexes"]) == 2
    assert [call.input_type for call in lite.calls] == ["query"]
    assert [call.input_type for call in large.calls] == ["document", "query", "query"]


def test_money_is_spent_only_when_the_user_agrees(own: Path) -> None:
    """A program that is piped cannot be asked, so it refuses and says how to agree."""
    backend = FakeBackend()
    router = Router([backend.model(price="0.12")], cache=MemoryCache())

    with pytest.raises(ConfigError, match="--yes"):
        run_here(own, router)
    calls = len(backend.calls)
    run_here(own, router, yes=True)

    assert calls == 0
    assert len(backend.calls) > 0


# What can go wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["notes/car.txt"], "is a file. Pass the folder it is in"),
        (["notes/nothing"], "There is no text in notes/nothing"),
        (["notes", "--config", "missing.toml"], "missing.toml cannot be read"),
        (["notes", "--model", "wordllama"], "must be written 'provider:name'"),
        (["notes", "--model", "openai:text-embedding-3-small"], "Agree with --yes"),
        (["notes", "--model", "openai:text-embedding-3-small", "--yes"], "OPENAI_API_KEY"),
    ],
)
def test_errors_are_one_paragraph_and_exit_code_1(own: Path, arguments: list[str], says: str) -> None:
    """They say what to do next, and there is no traceback."""
    (own / "nothing").mkdir()

    done = run("demo", *arguments, cwd=own.parent)

    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith("embedrouter: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--model", "a:b", "--config", "c"], ["--cache", "d", "--no-cache"], ["--no"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Scripts can tell it from a failure."""
    assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 2


def test_a_failing_provider_is_an_error_of_ours(own: Path) -> None:
    """``main`` prints these errors as one paragraph."""
    down = FakeBackend(outcomes=[UnavailableError("down")] * 9)

    with pytest.raises(EmbedRouterError, match="down"):
        run_here(own, Router([down.model(price="0")], cache=None, retry=NO_WAITING))


@pytest.mark.parametrize(("place", "says"), [("cache", "the next run continues"), (None, "starts anew")])
def test_ctrl_c_says_what_is_kept(
    place: str | None, says: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130 is what shells expect of it."""
    cache = tmp_path / place if place else None

    with pytest.raises(typer.Exit) as done:
        run_here(own, Router([Stopping().model(price="0", batch_size=1)], cache=cache))

    assert done.value.exit_code == 130
    printed = capsys.readouterr().err
    assert says in printed
    assert str(cache or "") in printed


@pytest.mark.parametrize(
    ("absent", "stays", "extra"),
    [("langchain_core", LLAMA_INDEX, "langchain"), ("llama_index.core", LANGCHAIN, "llama-index")],
)
def test_one_framework_is_enough(
    absent: str, stays: str, extra: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is named with the extra that brings it."""
    monkeypatch.setitem(sys.modules, absent, None)

    done = CliRunner().invoke(app, ["demo", str(own), "--no-cache"])

    assert done.exit_code == 0, done.output
    assert f"pip install 'embedrouter[{extra}]'" in done.stdout
    assert f"{stays} index" in done.stdout


def test_without_a_framework_the_error_names_both_extras(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to index into."""
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    monkeypatch.setitem(sys.modules, "llama_index.core", None)

    done = CliRunner().invoke(app, ["demo", str(own)])

    assert isinstance(done.exception, ConfigError)
    assert "embedrouter[langchain]" in str(done.exception)
    assert "embedrouter[llama-index]" in str(done.exception)


# The parts


def test_help_and_version_load_no_framework() -> None:
    """They should answer at once."""
    code = (
        "import sys\nfrom embedrouter.cli import app\n"
        "app(['--help'], standalone_mode=False)\napp(['demo', '--help'], standalone_mode=False)\n"
        "print(sorted({'langchain_core', 'llama_index', 'wordllama', 'tiktoken'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert run("--version").stdout.startswith("embedrouter")


def test_the_standard_library_is_read_and_never_run(library: Library) -> None:
    """``import this`` prints a poem and ``import antigravity`` opens a browser."""
    assert len(library.corpus.passages) > 4000
    assert not library.imported & {passage.source for passage in library.corpus.passages}


def test_the_texts_are_short_and_in_order(library: Library) -> None:
    """No model's limit matters, and a small ``--limit`` still has argparse in it."""
    passages = library.corpus.passages

    assert max(len(passage.text.split()) for passage in passages) <= 250
    assert [passage.source for passage in passages].index("argparse") < 400


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 5000, "one\n\ntwo\n\n\n" * 500, "a\r\n\r\nb", "  indented\n"])
def test_cutting_loses_no_word_and_keeps_the_limit(text: str) -> None:
    """Texts without blanks are cut too."""
    parts = split_passages(text)

    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= MAX_PASSAGE for part in parts)


def test_a_source_is_worth_its_three_best_passages() -> None:
    """Neither one lucky passage nor many weak ones decide."""
    hits = [("lucky", 0.9)] + [("right", 0.5)] * 3 + [("many", 0.2)] * 6

    assert rank_sources(hits) == ["right", "lucky", "many"]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.00"), ("1234.5", "$1,234.50"), ("0.0513", "$0.051"), ("0.00000571", "$0.0000057"), ("0.1", "$0.10")],
)
def test_money_is_readable(amount: str, shown: str) -> None:
    """Small sums keep two digits instead of becoming zero."""
    assert format_money(Decimal(amount)) == shown


def test_the_demo_is_booked_under_a_tag_of_its_own(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures are no project's."""
    monkeypatch.setenv("EMBEDROUTER_TAG", "shop")
    assert run("demo", own, "--cache", tmp_path / "cache").returncode == 0
    with closing(Ledger(tmp_path / "cache" / "ledger.db")) as ledger:
        assert list(ledger.totals("tag")) == ["demo"]
