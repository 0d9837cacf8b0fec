"""What the commands print: amounts that add up, tables of any width, plain encodings, broken pipes, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from embedrouter import Router, tag
from embedrouter._display import amounts, dollars
from embedrouter.cli._layout import table_lines, wrap
from embedrouter.models import load_catalogue
from embedrouter.spending import Account
from embedrouter.types import Table
from tests.command_line import PROGRAM, environment, run

# Money


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (["0.105"] * 3, ["$0.105"] * 3 + ["$0.315"]),
        (["1.10", "2.20"], ["$1.10", "$2.20", "$3.30"]),
        (["1.001", "2.001"], ["$1.00", "$2.00", "$3.00"]),
        (["0.005", "0.005"], ["$0.005", "$0.005", "$0.010"]),
        (["0.00000284", "12"], ["$0.0000028", "$12.0000000", "$12.0000028"]),
        (["1234.5", "0"], ["$1,234.50", "$0.00", "$1,234.50"]),
        ([], ["$0.00"]),
    ],
)
def test_a_column_with_a_total_has_the_fewest_decimals_with_which_it_adds_up(
    parts: list[str], shown: list[str]
) -> None:
    """Half up, and no amount that was spent looks like nothing."""
    values = [*map(Decimal, parts)]

    assert amounts([*values, sum(values, Decimal(0))], total=True) == shown


def money(text: str) -> Decimal:
    return Decimal(text.removeprefix("$").replace(",", ""))


@given(st.lists(st.decimals(0, 10**9, places=12), max_size=6))
def test_every_column_adds_up_as_shown(parts: list[Decimal]) -> None:
    """Whatever the amounts are; without a total they are exact, and the points stand below each other."""
    *shown, whole = map(money, amounts([*parts, sum(parts, Decimal(0))], total=True))
    exact = amounts(parts)

    assert sum(shown) == whole
    assert [*map(money, exact)] == parts
    assert len({len(text.partition(".")[2]) for text in exact}) <= 1
    assert all(seen > 0 for seen, part in zip(shown, parts, strict=True) if part)


def test_one_rule_shows_amounts_in_messages_tables_and_notebooks() -> None:
    """A bill of $0.105 is not $0.10 anywhere."""
    table = Table({"a": Account(requests=1, cost=Decimal("0.105")), "b": Account(requests=1, cost=Decimal(2))})

    assert dollars(Decimal("0.105")) == "$0.105"
    assert "$0.105" in repr(table)
    assert "$2.000" in repr(table)
    assert "<td>$2.000</td>" in table._repr_html_()


def test_a_row_of_unknown_price_costs_an_unknown_amount() -> None:
    """An unknown price is not a price of zero."""
    unpriced = Account(requests=1, tokens=5, unpriced_tokens=5)
    row: dict[str, object] = {"model": "a", "cost": unpriced.cost, "unpriced_tokens": unpriced.unpriced_tokens}

    lines = [line for line, _ in table_lines([row, {**row, "model": "total"}], 80, total=True)]

    assert lines[2].split() == ["a", "unknown", "5"]
    assert "unknown" in repr(Table({"x": unpriced}))


# Tables

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["日本語", "\U0001f468\u200d\U0001f467"]
)
CELLS = st.one_of(st.integers(-(10**12), 10**12), st.decimals(0, 10**6, places=9), NAMES, st.none(), st.booleans())


@given(st.lists(st.tuples(NAMES, CELLS, CELLS, CELLS), min_size=1, max_size=4), st.integers(1, 130))
def test_a_table_of_any_content_fits_any_width_and_cuts_nothing(rows: list[tuple[object, ...]], width: int) -> None:
    """Only a name that is to be copied, and a word that is wider than the window, make a line longer."""
    columns = ("name", "first count", "second", "a third")
    table: list[dict[str, object]] = [dict(zip(columns, row, strict=True)) for row in rows]

    lines = [line for line, _ in table_lines(table, width)]
    names = {line for line, strong in table_lines(table, 1) if strong}

    assert all(line.isprintable() for line in lines)
    for line in lines:
        longest_word = max(map(cell_len, line.split(" ")))
        assert cell_len(line) <= width or line in names or longest_word + len("    ") > width
    assert all(any(name in line for line in lines) for name in names)


def test_wide_letters_stay_in_their_columns() -> None:
    """Terminals give two cells to each letter of Chinese, Japanese and Korean."""
    rows = [{"model": "日本", "texts": 5}, {"model": "abcd", "texts": 1234}]

    lines = [line for line, _ in table_lines(rows, 80)]

    assert lines[2:] == ["日本       5", "abcd   1,234"]


def test_text_is_broken_between_words() -> None:
    """And a path, or an address, is not broken at all."""
    path = "/a/path/that/is/longer/than/a/line"

    assert wrap("    a b c d e", 9) == ["    a b c", "    d e"]
    assert wrap(f"see {path} there", 16) == [f"see {path}", "there"]


# Streams


def program(*arguments: str, redirected: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a shell that redirects its streams."""
    line = '"$0" -W error -c "$1" "${@:2}" ' + redirected
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}", sys.executable, PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, env=environment() | variables, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "redirected", "code", "says"),
    [
        (["models"], "| head -1", 141, ""),
        (["--help"], "| true", 141, ""),
        (["estimate", "-"], "<&- >&-", 1, "There is no text to embed."),
        (["models"], "> /dev/full", 1, "embedrouter: The output cannot be written (No space left on device)."),
        (["estimate", "-"], "<&- >&- 2>&-", 1, ""),
    ],
)
def test_streams_that_end_early_give_exit_codes_and_sentences(
    arguments: list[str], redirected: str, code: int, says: str
) -> None:
    """As other tools do: without a traceback, without a word about a reader that has enough."""
    done = program(*arguments, redirected=redirected)

    assert done.returncode == code, done.stderr
    assert says in done.stderr.decode()
    assert says or done.stderr == b""


@pytest.mark.slow
def test_in_the_locale_c_names_are_shown_and_json_is_json(tmp_path: Path) -> None:
    """What an encoding lacks is escaped, and rules and boxes are lines of dashes; names may be no Unicode at all."""
    file = os.fsencode(tmp_path / "caf\xe9 \u65e5") + b"\xff.txt"
    Path(os.fsdecode(file)).write_text("a text about lanterns")
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1", "TERM": "dumb"}

    plain = program("estimate", os.fsdecode(file), "--cache", str(tmp_path), **variables)
    printed = program("estimate", os.fsdecode(file), "--cache", os.fsdecode(file) + "x", "--json", **variables)

    assert [(done.returncode, done.stderr) for done in (plain, printed)] == [(0, b"")] * 2
    assert b"------" in plain.stdout
    assert json.loads(printed.stdout)["tiers"][0]["texts"] == 1
    assert json.loads(printed.stdout)["cache"].endswith(".txtx")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "utf-16"])
def test_a_character_that_an_encoding_lacks_is_no_error(encoding: str, tmp_path: Path) -> None:
    """And the program's own are replaced by plain ones."""
    (tmp_path / "caf\xe9 \u65e5 \U0001f600.txt").write_text("text")
    (tmp_path / "caf\xe9 \u65e5 \U0001f600.bin").write_text("text")

    done = run("estimate", tmp_path, "--cache", tmp_path / "c", encoding=encoding)
    as_json = run("estimate", tmp_path, "--cache", tmp_path / "c", "--json", encoding=encoding)

    assert (done.returncode, as_json.returncode) == (0, 0)
    assert ("\u2500" if encoding.startswith("utf") else "----") in done.stdout
    assert "caf" in json.dumps(json.loads(as_json.stdout))


# Completion


def completed(*words: str, shell: str = "bash", **variables: str) -> list[str]:
    """Return what a shell is told when the last of these words is to be completed."""
    asked = {"_EMBEDROUTER_COMPLETE": f"complete_{shell}", "COMP_WORDS": "\n".join(words), **variables}
    asked |= {"COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": " ".join(words)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in asked.items():
            patch.setenv(name, value)
        done = run()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_models_and_tiers_are_completed(shell: str) -> None:
    """In each shell that typer writes a script for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        commands = " ".join(completed("embedrouter", "est", shell=shell))
        models = " ".join(completed("embedrouter", "estimate", "x", "--model", "voyage", shell=shell))

    assert "estimate" in commands
    assert all(name in models.replace("\\", "") for name in load_catalogue() if name.startswith("voyage:"))
    assert completed("embedrouter", "warm", "--tier", "") == ["low", "medium", "high"]
    assert completed("embedrouter", "models", "--provider", "coh") == ["cohere"]
    assert completed("embedrouter", "stats", "--by", "m") == ["month", "model"]


def test_bash_is_told_what_follows_the_colon() -> None:
    """bash makes three words of ``openai:te``, and replaces the last."""
    small = ["text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002"]

    assert completed("embedrouter", "estimate", "x", "--model", "openai", ":", "te") == small
    assert completed("embedrouter", "estimate", "x", "--model", "openai", ":") == small


def test_tags_are_completed_from_the_ledger_and_a_broken_file_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that cannot be read is an empty one: the shell prints it into the line that is typed."""
    config = tmp_path / "embedrouter.toml"
    config.write_text('cache = "kept"\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(config))
    with Router.from_config(config) as router, tag("nightly"):
        router.embed(["a"], input_type="document")

    assert completed("embedrouter", "warm", "--tag", "ni") == ["nightly"]
    config.write_text("models = [")
    assert completed("embedrouter", "warm", "--tag", "ni") == []
    assert completed("embedrouter", "warm", "--tier", "") == []
    assert completed("embedrouter", "warm", "--tag", "", COMP_CWORD="x") == []


@pytest.mark.slow
def test_the_script_for_bash_completes_in_bash() -> None:
    """As it is installed: with bash's own splitting of words at colons."""
    script = f"""
        embedrouter() {{ "{sys.executable}" -c '{PROGRAM}' "$@"; }}
        export -f embedrouter
        eval "$(embedrouter --show-completion bash | sed 's/ \\$1 / bash -c embedrouter /')"
        COMP_WORDS=(embedrouter warm x --model openai : text-embedding-3-s); COMP_CWORD=6
        _embedrouter_completion embedrouter; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)

    assert (done.stdout, done.stderr) == ("text-embedding-3-small\n", "")
