"""Any command line with any files, encodings, widths and variables ends with an exit code and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.command_line import Ended, run
from tests.properties import examples

ODD = [
    "",
    "-",
    "--",
    "\x1b[2J",
    "x\ud800y",
    "caf\udce9",
    "\u202egpj",
    "日本 👩",
    "a\nb",
    "a\x00b",
    "-1",
    "1e400",
    "nan",
    "9" * 5000,
    "/",
    "/dev/null",
    "/proc/self/mem",
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
NAMES = [*FILES, "caf\udce9.txt", "."]
COMMANDS = [
    ["estimate"], ["warm"], ["stats"], ["models"], ["demo"], ["check"], ["calibrate"], ["doctor"],
    *(["ledger", name] for name in ("show", "confirm", "release", "compact", "export")),
    *(["cache", name] for name in ("info", "verify", "prune", "export", "import", "forget-index")),
    *(["batch", name] for name in ("list", "cancel", "resume", "collect")),
]  # fmt: skip
OPTIONS = [
    "--json", "--yes", "--help", "--no-cache", "--mark", "--which", "--damaged", "--csv", "--parquet", "--batch",
]  # fmt: skip
VALUED = [
    "--cache", "--config", "--ledger", "--tier", "--tag", "--field", "--model", "--by", "--input-type", "--ask",
    "--older-than", "--unused", "--chunk-size", "--provider", "--collection", "--sample", "--key", "--sign", "--nope",
    "--documents", "--queries", "--since", "--until", "--exclude", "--split", "--id",
]  # fmt: skip
VALUES = st.sampled_from([*ODD, *NAMES]) | st.text(max_size=5) | st.integers(-3, 2000).map(str)
PARTS = (
    st.sampled_from(OPTIONS).map(lambda name: [name])
    | st.tuples(st.sampled_from(VALUED), VALUES).map(list)
    | VALUES.map(lambda value: [value])
)
LINES = st.builds(
    lambda command, parts: [*command, *(word for part in parts for word in part)],
    st.sampled_from(COMMANDS),
    st.lists(PARTS, max_size=4),
)
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


@given(LINES, ENCODINGS, SCREENS)
@settings(examples(300), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_any_line_ends_with_an_exit_code_and_sentences(
    place: Path, line: list[str], encoding: str | None, screen: str
) -> None:
    """Never with a traceback, never with a character that a terminal obeys, and JSON is JSON."""
    if line[0] in ("demo", "doctor") and "--help" not in line:
        line = [*line, "--nope"]  # seconds of work each; tests of their own run them
    ended = try_line(line, place, encoding, screen)

    assert ended.returncode in (0, 1, 2), ended
    printed = (ended.stdout + ended.stderr).replace("\r\n", "\n")  # lines of CSV
    assert "Traceback" not in printed
    assert all(letter.isprintable() or letter == "\n" for letter in printed), ended
    assert ended.returncode == 0 or ended.stderr.strip() or ended.stdout.strip()
    if "--json" in line and ended.returncode == 0 and "--help" not in line:
        assert isinstance(json.loads(ended.stdout), dict)


@pytest.mark.parametrize("command", [["estimate"], ["warm", "--yes"]])
@pytest.mark.parametrize("name", [*FILES, "caf\udce9.txt"])
def test_any_file_is_read_or_refused_in_a_sentence(command: list[str], name: str, place: Path) -> None:
    """Deep JSON, half characters, bytes that are no text."""
    tagged = ["--tag", "caf\udce9"] if "warm" in command else []

    ended = try_line([*command, name, "--cache", "kept", *tagged], place, None, "")

    assert ended.returncode in (0, 1)
    assert ended.returncode == 0 or ended.stderr.startswith("embedrouter: ")
    assert "Traceback" not in ended.stderr
