"""The command line on a terminal, where it can ask and knows how wide the window is.

The real program runs behind a pty once for each of these; the rest runs in this process, with a stream that says that
it is a terminal and a width in ``COLUMNS``.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from select import select

import pytest

from embedrouter import Router
from embedrouter.models import load_catalogue
from tests.command_line import PROGRAM, environment, run
from tests.emulator import Emulator

TEXTS = [f"text number {number} about lighthouses" for number in range(30)]
PATIENCE = 60.0
"""Seconds until a program that neither ends nor prints what is waited for has failed."""
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The program on a terminal of so many columns; what it prints, and what is typed."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 100) -> None:
        self.raw = ""
        self._end, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=cwd,
            env=environment() | {"TERM": "xterm"},
            start_new_session=True,
        )
        os.close(inside)

    @property
    def shown(self) -> str:
        """Everything printed so far, without colours."""
        return plain(self.raw)

    def answer(self, question: str, typed: str) -> None:
        """Wait for a question and type an answer."""
        self._read_until(question)
        os.write(self._end, f"{typed}\n".encode())

    def end(self) -> int:
        """Wait until the program has ended and return its exit code."""
        self._read_until(None)
        os.close(self._end)
        return self._process.wait(PATIENCE)

    def _read_until(self, words: str | None) -> None:
        deadline = time.monotonic() + PATIENCE
        while words is None or words not in self.shown:
            if time.monotonic() > deadline or not select([self._end], [], [], PATIENCE)[0]:
                self._process.kill()
                raise AssertionError(f"{words!r} did not come: {self.shown}")
            try:
                printed = os.read(self._end, 65536)
            except OSError:  # what Linux says when the other end is closed
                printed = b""
            if not printed:
                assert words is None, f"the program ended without {words!r}: {self.shown}"
                return
            self.raw += printed.decode()


def plain(printed: str) -> str:
    return STYLES.sub("", printed).replace("\r\n", "\n")


def shown_by(*arguments: str, cwd: Path, columns: int, typed: str = "") -> tuple[int, str]:
    """Run the program in this process, as if on a terminal; return its exit code and what it shows."""
    done = run(*arguments, cwd=cwd, columns=columns, typed=typed)
    return done.returncode, plain(done.stdout + done.stderr)


@pytest.fixture
def place(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts and a configuration that points at the emulator."""
    monkeypatch.setenv("LIGHT_KEY", "sk-light")
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(tmp_path / "embedrouter.toml"))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "embedrouter.toml").write_text(
        f'cache = "kept"\n[[models]]\nmodel = "openai:text-embedding-3-small"\nbase_url = "{emulator.openai_url}"\n'
        'api_key_env = "LIGHT_KEY"\n'
    )
    return tmp_path


# Asking before money is spent


@pytest.mark.parametrize("typed", ["n", "", "no way\nn"])
def test_warm_embeds_nothing_when_the_answer_is_no(typed: str, place: Path, emulator: Emulator) -> None:
    """No is what a mere return means too; something else is asked again."""
    code, shown = shown_by("warm", "corpus.jsonl", cwd=place, columns=100, typed=f"{typed}\n")

    assert code == 1
    assert emulator.received == ()
    assert "This embeds " in shown
    assert "Go ahead? [y/n]" in shown
    assert "Nothing was embedded." in shown


@pytest.mark.slow
def test_warm_goes_on_when_the_answer_is_yes(place: Path, emulator: Emulator) -> None:
    """And the second run has nothing to ask, because nothing is left to pay."""
    terminal = Terminal("warm", "corpus.jsonl", cwd=place)
    terminal.answer("Go ahead? [y/n]", "y")
    code = terminal.end()
    calls = emulator.calls
    again, shown = shown_by("warm", "corpus.jsonl", cwd=place, columns=100)

    assert code == 0, terminal.shown
    assert calls > 0
    assert "30 texts: 30 embedded" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert again == 0
    assert "Go ahead?" not in shown
    assert "All 30 texts were in the cache" in shown
    assert emulator.calls == calls


# How wide the window is


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "by"),
    [(40, "COLUMNS"), (60, "COLUMNS"), (80, "COLUMNS"), (120, "COLUMNS"), (70, "the window of a program")],
)
def test_on_a_narrow_terminal_the_catalogue_is_a_table_whose_names_can_be_copied(
    columns: int, by: str, tmp_path: Path
) -> None:
    """No name and no number is folded or cut short, and what has no room is named."""
    if by == "COLUMNS":
        code, shown = shown_by("models", cwd=tmp_path, columns=columns)
    else:
        terminal = Terminal("models", cwd=tmp_path, columns=columns)
        code, shown = terminal.end(), terminal.shown
    assert code == 0, shown
    table, _, sources = shown.partition("\n\n")
    lines = table.splitlines()
    names = load_catalogue().keys()

    assert {name for line in lines for name in line.split()[:1]} >= names
    assert max(len(line) for line in lines if line not in names) <= columns
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.split()[:1] == ["cohere:embed-v5.0-pro"]:
            assert {"2,048", "128,000", "$0.12000"} <= {*line.split(), *following.split()}
    assert "The window is too narrow for: space" in table.replace("\n", " ")
    assert "…" not in shown
    assert "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json" in sources


def test_on_a_wide_terminal_the_catalogue_is_a_table(tmp_path: Path) -> None:
    """One line for each model, under one heading."""
    code, shown = shown_by("models", cwd=tmp_path, columns=300)
    assert code == 0, shown
    rows = [line.split() for line in shown.splitlines()]

    heading = "model space dimensions or fewer longest input price batch price retired checked source"
    assert heading.split() in rows
    assert load_catalogue().keys() <= {row[0] for row in rows if row}


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_table_about_money_loses_a_figure(columns: int, place: Path, emulator: Emulator) -> None:
    """Estimates and accounts are read on small windows too."""
    with Router.from_config(place / "embedrouter.toml") as router:
        expected = router.estimate(TEXTS, input_type="document").tokens
        router.embed(TEXTS, input_type="document")
    booked = shown_by("stats", "--by", "model", "--cache", str(place / "kept"), cwd=place, columns=columns)
    asked = shown_by("estimate", "corpus.jsonl", "--cache", "other", cwd=place, columns=columns)

    for code, shown in (booked, asked):
        assert code == 0, shown
        assert "openai:text-embedding-3-small" in shown
        assert f"{expected:,}" in shown
        assert "…" not in shown.replace("counting tokens …", "")


@pytest.mark.parametrize("columns", [20, 80, None])
def test_piped_the_catalogue_is_one_line_for_each_model(columns: int | None, tmp_path: Path) -> None:
    """In a pipe to grep or awk there is no window, ``COLUMNS`` or not, and no colour."""
    done = run("models", cwd=tmp_path, columns=columns)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()[:1]}

    assert load_catalogue().keys() <= lines.keys()
    assert all(
        card.space in lines[name] and str(card.checked) in lines[name] for name, card in load_catalogue().items()
    )
    assert "2,048  1536, 1024, 768, 512, 256  " in lines["cohere:embed-v5.0-pro"]
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
