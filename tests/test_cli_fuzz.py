"""Any command line with any files, encodings, widths and variables ends with an exit code and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedrouter.cli import app
from tests.command_line import Ended, run
from tests.properties import examples

ODD = [
    "",
    "-",
    "--",
    "\x1b[2J",
    "x\udcffy",
    "caf\udce9",
    "\u202egpj",
    "日本 👩",
    "a\nb",
    "-1",
    "1e400",
    "nan",
    "9" * 5000,
    "/dev/null",
    "/proc/nowhere",
    "no/such/place",
    "openai:",
    ":",
    "wordllama:l2_supercat_256",
    "sk-0123456789abcdefghij",
    "[link=a]",
    "%s{}",
]
"""Values of options and arguments."""
FILES: dict[str, bytes] = {
    "deep.json": b"[" * 100_000,
    "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"\n",
    "nested.jsonl": b'{"text": {"a": [null, 1e999, "\\ud800"]}}\n',
    "surrogate.jsonl": b'{"text": "\\ud800"}\n',
    "number.jsonl": b'{"text": 1}\n{"text": null}\n',
    "huge.jsonl": b'{"text": ' + b"9" * 5000 + b"}\n",
    "blank.txt": b" \n\t\n",
    "latin.txt": "café".encode("latin-1"),
    "utf16.txt": "café".encode("utf-16"),
    "bom.csv": b'\xef\xbb\xbfa,b\n"open',
    "zero.txt": b"\x00" * 10,
    "bad.gz": b"\x1f\x8b\x08\x00broken",
    "bad.parquet": b"PAR1broken",
    "bad.ipynb": b"{}",
    "bad.toml": b"models = [\xff",
    "odd.toml": b'[[models]]\nmodel = "wordllama:l2_supercat_256"\ncache = 3\n',
    "good.toml": b'cache = "kept"\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n',
    "ledger.db": b"no database",
    "good.txt": b"a text about lanterns",
}
CHOICES = ["day", "month", "model", "tag", "document", "query", "error", "mean", "low", "high"]
NAMES = [*FILES, "caf\udce9.txt", "."]
SLOW = {"demo", "doctor", "calibrate", "check"}
"""Commands that load frameworks or models, or look for a server: their usage alone is tried."""
VALUES = (
    st.sampled_from([*CHOICES, *ODD, *NAMES])
    | st.text(st.characters(exclude_characters="\x00"), max_size=5)
    | st.integers(-3, 2000).map(str)
)


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield every command, with its arguments and options as they are declared."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command.params


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Draw a command line of which each word is likely to be taken."""
    words, parameters = draw(st.sampled_from([*commands(typer.main.get_command(app))]))
    line = [*words]
    for parameter in parameters:
        option = parameter.param_type_name == "option"
        if draw(st.integers(0, 9)) >= (3 if option else 9):
            continue
        line += [parameter.opts[0]] if option else []
        line += [] if option and parameter.is_flag else [draw(VALUES)]
    if words[0] in SLOW:
        line.append(draw(st.sampled_from(["--nope", "--help"])))
    return [*line, *draw(st.lists(VALUES, max_size=1) if draw(st.integers(0, 9)) == 0 else st.just([]))]


ENCODINGS = st.sampled_from([None, "ascii", "cp1252", "utf-8", "utf-16"])
SCREENS = st.sampled_from(["", "0", "1", "40", "²", "-5", "wide", "9" * 30])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of odd files, one with a name that is not UTF-8."""
    folder = tmp_path_factory.mktemp("odd")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "caf\udce9.txt").write_bytes(b"a text")
    return folder


def try_line(line: list[str], place: Path, encoding: str | None, screen: str) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TERMINAL_WIDTH", "LINES"):
            patch.setenv(name, screen)
        patch.setenv("XDG_CACHE_HOME", str(place / "home"))
        for name in ("NO_COLOR", "FORCE_COLOR"):
            patch.setenv(name, screen)
        return run(*line, cwd=place, encoding=encoding)


@pytest.mark.slow
@given(lines(), ENCODINGS, SCREENS)
@example(["cache", "import", "deep.jsonl", "--cache", "day"], None, "")
@settings(examples(120), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_any_line_ends_with_an_exit_code_and_sentences(
    place: Path, line: list[str], encoding: str | None, screen: str
) -> None:
    """Never with a traceback, never with a character that a terminal obeys, and JSON is JSON."""
    ended = try_line(line, place, encoding, screen)

    assert ended.returncode in (0, 1, 2), ended
    printed = (ended.stdout + ended.stderr).replace("\r\n", "\n")  # lines of CSV
    assert "Traceback" not in printed
    assert all(letter.isprintable() or letter == "\n" for letter in printed), ended
    assert ended.returncode == 0 or ended.stderr.strip() or ended.stdout.strip()
    if "--json" in line and ended.returncode == 0 and "--help" not in line:
        assert isinstance(json.loads(ended.stdout), dict)


@pytest.mark.parametrize("name", [*FILES, "caf\udce9.txt"])
def test_any_file_is_read_or_refused_in_a_sentence(name: str, place: Path) -> None:
    """Deep JSON, half characters, bytes that are no text."""
    ended = try_line(["warm", "--yes", name, "--cache", "kept", "--tag", "caf\udce9"], place, None, "")

    assert ended.returncode in (0, 1)
    assert ended.returncode == 0 or ended.stderr.startswith("embedrouter: ")
    assert "Traceback" not in ended.stderr
