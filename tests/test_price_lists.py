"""`embedrouter models --check`: the catalogue beside the price lists of installed packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from embedrouter.models import load_catalogue
from tests.command_line import run

LITELLM = {
    "text-embedding-3-small": {
        "mode": "embedding",
        "litellm_provider": "openai",
        "input_cost_per_token": 3e-08,
        "input_cost_per_token_batches": 1e-08,
        "output_vector_size": 1536,
        "max_input_tokens": 8191,
    },
    "voyage/voyage-4": {"mode": "embedding", "litellm_provider": "voyage", "output_vector_size": 2048},
    "gpt-4o": {"mode": "chat", "litellm_provider": "openai", "input_cost_per_token": 1.0},
}


@pytest.fixture
def litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A litellm that has nothing but its list: it is read, never imported."""
    folder = tmp_path / "site"
    (folder / "litellm").mkdir(parents=True)
    (folder / "litellm" / "__init__.py").write_text("raise ImportError('litellm takes seconds to import')\n")
    (folder / "litellm" / "model_prices_and_context_window_backup.json").write_text(json.dumps(LITELLM))
    about = folder / "litellm-1.110.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: litellm\nVersion: 1.110.2\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.usefixtures("litellm")
def test_differences_are_shown_beside_each_other(tmp_path: Path) -> None:
    """With the list that says otherwise; what agrees, and what a list lacks, is not shown."""
    done = run("models", "--check", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["differences"]
    of_litellm = [item for item in found if "litellm" in item["origin"]]

    assert {(item["model"], item["fact"]): (item["ours"], item["theirs"]) for item in of_litellm} == {
        ("openai:text-embedding-3-small", "price"): ("0.02", "0.03"),
        ("voyage:voyage-4", "dimensions"): (1024, 2048),
    }


def test_no_model_of_a_maker_is_cheaper_here_than_in_the_lists(tmp_path: Path) -> None:
    """A budget must not be passed: where readings differ, the row has the higher price."""
    pytest.importorskip("genai_prices")
    done = run("models", "--check", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for item in json.loads(done.stdout)["differences"]:
        if item["fact"] == "price" and item["ours"] is not None:
            assert float(item["ours"]) >= float(item["theirs"]), item


def test_without_a_list_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("litellm", "genai_prices"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("models", "--check", cwd=tmp_path)
    assert done.returncode != 0
    assert "pip install genai-prices" in done.stderr


def test_every_row_says_where_it_was_read() -> None:
    """An address and a day."""
    for name, card in load_catalogue().items():
        assert card.source.startswith("https://"), name
        assert card.checked is not None, name
