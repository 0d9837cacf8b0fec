"""The notebooks of ``examples/`` run as they stand, without a key, and show what they showed when they were written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.doc_environment import ROOT

read: Any = nbformat.read  # it declares no types
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def shown(notebook: Any) -> list[list[str]]:
    """Return what each code cell shows as text, without the log."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[_text(output) for output in cell.outputs if output.get("name") != "stderr"] for cell in cells]


def _text(output: Any) -> str:
    text: str = output.text if output.output_type == "stream" else output.data["text/plain"]
    return text


@EACH
def test_a_notebook_is_committed_with_outputs_that_are_small(path: Path) -> None:
    """All code cells were run, in order, without an error; no output names a folder of a machine."""
    notebook = read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    assert path.stat().st_size < 20_000
    assert not re.search(r"(?<![\w.])/(home|work|tmp|root|Users|var)/", path.read_text("utf-8"))
    assert any("text/html" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert path.name in (ROOT / "examples" / "README.md").read_text("utf-8")


@pytest.mark.slow
@EACH
def test_a_notebook_shows_the_same_when_it_is_run_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel of its own and an empty folder, with an empty user folder and without any key."""
    kept = read(path, as_version=4)
    again = read(path, as_version=4)
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    for key in ("OPENAI_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY"):
        monkeypatch.delenv(key, raising=False)

    NotebookClient(again, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(work)}}).execute()

    assert shown(again) == shown(kept)
