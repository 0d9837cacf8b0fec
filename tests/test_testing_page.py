"""The test files that ``docs/testing.md`` shows pass, as a reader runs them: with pytest, and vcrpy for cassettes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import environment
from tests.emulator import Emulator
from tests.test_readme import blocks

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
KEY = "sk-recorded-0123456789abcdef"
PROGRAM = [sys.executable, "-m", "pytest", "-q", "-W", "error"]
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Pytest without the plugins of this environment, which take seconds to load."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the files of the page."""
    for block in blocks(PAGE.read_text("utf-8")):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.content, "utf-8")
    return tmp_path


def run(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"HOME": str(project), "XDG_CACHE_HOME": str(project / "cache"), **ALONE, **variables}
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=project,
        env=environment() | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_fixtures_and_tests_of_the_page_pass(project: Path) -> None:
    """Without a key, without a network, and without a file in the user's cache folder."""
    done = run(project, "test_index.py")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert not (project / "cache").exists()


@pytest.mark.slow
def test_the_cassette_of_the_page_is_recorded_once_and_played_without_a_server(project: Path) -> None:
    """By vcrpy, which is not ours: the key is not in it, and another text is not answered by it."""
    test = project / "test_recorded.py"
    with Emulator() as emulator:
        address = emulator.openai_url
        first = run(project, test.name, RECORD="once", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=address)
        asked = len(emulator.received)
    second = run(project, test.name, OPENAI_BASE_URL=address)
    test.write_text(test.read_text("utf-8").replace("office opens at nine", "office opens at ten"), "utf-8")
    third = run(project, test.name, OPENAI_BASE_URL=address)

    assert (first.returncode, asked) == (0, 1), first.stdout
    assert KEY not in (project / "handbook.yaml").read_text("utf-8")
    assert second.returncode == 0, second.stdout
    assert third.returncode == 1, third.stdout
