"""``embedrouter demo``, run as users run it: on the standard library's documentation, in a framework's store."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embedrouter.cli import app
from embedrouter.cli._demo import PASSAGE, QUESTIONS, Passage, first_lines, read_folder, read_standard_library
from embedrouter.providers.wordllama import WordLlamaBackend
from embedrouter.spending import Ledger
from tests.command_line import run, start

LANGCHAIN, LLAMA_INDEX = "LangChain's InMemoryVectorStore", "LlamaIndex's VectorStoreIndex"
RIGHT = ("functools.lru_cache", "shutil.copytree", "urllib.request.urlretrieve")
"""What the better tier answers to the prepared questions."""
MODULES = {"functools", "linecache", "shutil", "urllib", "importlib", "json", "zipfile"}


@dataclass(frozen=True)
class Library:
    """The standard library as the demo reads it, and what was imported meanwhile."""

    passages: list[Passage]
    imported: set[str]


@pytest.fixture(scope="module")
def library() -> Library:
    before = set(sys.modules)
    passages = list(read_standard_library())
    return Library(passages, set(sys.modules) - before)


@pytest.fixture
def few(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """The texts of a few modules, in place of all."""
    kept = [passage for passage in library.passages if passage[0].partition(".")[0] in MODULES]
    monkeypatch.setattr("embedrouter.cli._demo.read_standard_library", lambda: kept)
    return kept


def facts(*arguments: str | Path) -> dict[str, Any]:
    """Return what the demo prints with ``--json``."""
    done = run("demo", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def money(found: dict[str, Any]) -> dict[str, Decimal]:
    return {row["this run"]: Decimal(row["at OpenAI's price"]) for row in found["money"]}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of somebody's own texts."""
    texts = tmp_path / "notes"
    (texts / "kitchen").mkdir(parents=True)
    (texts / "kitchen/tea.md").write_text("# Tea\n\nGreen tea is brewed with water of 80 degrees.\n")
    (texts / "car.txt").write_text("How to change a tyre\n\nLoosen the nuts, then use the jack.\n")
    (texts / "old.txt").write_bytes("Zo\xeb".encode("latin-1"))
    (texts / "photo.png").write_bytes(b"\x89PNG\r\n")
    (texts / "empty.txt").write_text("\n")
    return texts


# The standard library


@pytest.mark.slow
def test_the_whole_standard_library_fits_a_narrow_pipe_and_the_second_run_embeds_nothing(tmp_path: Path) -> None:
    """Both runs in full, the second in a process of its own: piped output has neither colours nor moving parts."""
    first = facts("--cache", tmp_path)
    process = start("demo", "--cache", tmp_path)
    out, err = process.communicate(timeout=120)

    assert first["texts"] > 4000
    assert 0 < money(first)["avoided"] < money(first)["asked for"]
    assert (process.returncode, err) == (0, "")
    assert "came from the cache: nothing was embedded" in out
    for answer in first["answers"]:
        assert answer["low"] != answer["high"]
        assert answer["high"] in RIGHT
        assert answer["high"] in out
    assert "\x1b" not in out
    assert "\r" not in out


@pytest.mark.slow
def test_the_two_tiers_answer_each_question_differently_and_the_better_one_rightly(
    few: list[Passage], tmp_path: Path
) -> None:
    """A difference that a person sees is what convinces; that it is there in the whole library, a slow test checks."""
    found = facts("--cache", tmp_path)

    assert [answer["question"] for answer in found["answers"]] == QUESTIONS
    assert tuple(answer["high"] for answer in found["answers"]) == RIGHT
    assert all(answer["low"] != answer["high"] for answer in found["answers"])
    assert [found["spaces"][tier][-16:] for tier in ("low", "high")] == [
        "(64 dimensions)"[-16:].rjust(16),
        " (256 dimensions)"[-16:],
    ]


@pytest.mark.slow
def test_what_is_avoided_is_counted_by_the_ledger_under_a_tag_and_costs_nothing(
    few: list[Passage], tmp_path: Path
) -> None:
    """The first run avoids what it indexes again, the second everything, and no dollar is booked that was not paid."""
    first, second = facts("--cache", tmp_path), facts("--cache", tmp_path)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        accounts = ledger.totals("tag")

    asked = 3 * len(few) + 2 * len(QUESTIONS)
    for found in (first, second):
        embedded, avoided, whole = found["money"]
        assert embedded["texts"] + avoided["texts"] == whole["texts"] == asked
        assert money(found)["embedded"] + money(found)["avoided"] == money(found)["asked for"]
        assert money(found)["asked for"] == whole["tokens"] * Decimal("0.02") / 1_000_000
    assert first["money"][1]["texts"] >= len(few)
    assert second["money"][0]["texts"] == 0
    assert money(second)["avoided"] == money(first)["asked for"] > 0
    assert set(accounts) == {"demo"}
    assert (accounts["demo"].cost, accounts["demo"].saved) == (0, 0)
    assert accounts["demo"].saved_texts == first["money"][1]["texts"] + asked


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_it_fits_a_terminal(columns: int, few: list[Passage], tmp_path: Path) -> None:
    """But for names and lines that are to be copied; amounts add up as they are shown."""
    shown = run("demo", "--no-cache", columns=columns, typed="").stdout.splitlines()

    copied = ("  from embedrouter", "  Router", "    low", "    high")
    assert all(len(line) <= columns for line in shown if "\x1b" not in line and not line.startswith(copied))
    assert "  from embedrouter.langchain import RouterEmbeddings" in shown
    assert "  from embedrouter.llama_index import RouterEmbedding" in shown
    amounts = [Decimal(line.rpartition("$")[2]) for line in shown if line.startswith(("embedded", "avoided", "asked"))]
    assert amounts[0] + amounts[1] == amounts[2]


# Other texts


def test_a_folder_of_own_texts_works_and_skipped_files_are_named(own: Path, tmp_path: Path) -> None:
    """The user should not have to guess why a file was not found."""
    done = run("demo", own, "--ask", "how hot should the water for tea be", "--cache", tmp_path / "cache")

    assert done.returncode == 0, done.stderr
    assert "high kitchen/tea.md" in done.stdout
    assert "photo.png" in done.stdout
    assert "empty.txt" in done.stdout
    assert "skipped, not UTF-8 text: 1 (" in done.stdout


def test_without_questions_a_folder_is_asked_its_own_first_lines(own: Path) -> None:
    """The user's texts are unknown, and something has to be asked."""
    passages, _ = read_folder(own)

    assert first_lines(passages) == ["How to change a tyre", "Tea"]


# What can go wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere"),
        (["notes/nothing"], "There is no text in notes/nothing"),
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


@pytest.mark.parametrize("arguments", [["--cache", "d", "--no-cache"], ["--no"], ["--model", "a:b"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Scripts can tell it from a failure."""
    assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--cache", "kept"], "the next run continues"), (["--no-cache"], "starts anew")]
)
def test_ctrl_c_says_what_is_kept(arguments: list[str], says: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130 is what shells expect of it."""

    def stop(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(WordLlamaBackend, "embed", stop)
    done = run("demo", own, *arguments, cwd=own)

    assert done.returncode == 130
    assert says in done.stderr
    assert ("kept" in done.stderr) == ("--cache" in arguments)


@pytest.mark.parametrize(("absent", "stays"), [("langchain_core", LLAMA_INDEX), ("llama_index.core", LANGCHAIN)])
def test_one_framework_is_enough(absent: str, stays: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is installed."""
    hide(absent, monkeypatch)

    done = run("demo", own, "--no-cache")

    assert done.returncode == 0, done.stderr
    assert stays in done.stdout
    assert "high kitchen/tea.md" in done.stdout


def test_without_a_framework_the_error_names_both_extras(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to index into."""
    hide("langchain_core", monkeypatch)
    hide("llama_index.core", monkeypatch)

    done = run("demo", own)

    assert done.returncode == 1
    assert "embedrouter[langchain]" in done.stderr
    assert "embedrouter[llama-index]" in done.stderr


def hide(package: str, patch: pytest.MonkeyPatch) -> None:
    """Let a package look as if it were not installed."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        patch.setitem(sys.modules, name, None)


# The parts


@pytest.mark.slow
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
    assert len(library.passages) > 4000
    assert not library.imported & {subject.partition(".")[0] for subject, _ in library.passages}


def test_the_texts_are_short(library: Library) -> None:
    """No model's limit matters."""
    assert max(len(text.split()) for _, text in library.passages) <= 250


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 5000, "one\n\ntwo\n\n\n" * 500, "a\r\n\r\nb", "  indented\n"])
def test_cutting_loses_no_word_and_keeps_the_limit(text: str) -> None:
    """Texts without blanks are cut too."""
    parts = PASSAGE.findall(text)

    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= 600 for part in parts)
