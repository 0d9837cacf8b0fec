"""What scripts in ``docs/`` write into pages stands there; after a change: run the script that the failure names."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from datetime import date
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import typer

from embedrouter.models import load_catalogue
from tests.benchmarks.table import Figure, Row
from tests.doc_environment import ROOT

DOCS = ROOT / "docs"


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    return import_module(request.param)


@pytest.mark.parametrize("script", ["providers", "command_line", "benchmarks", "scale"], indirect=True)
def test_a_page_has_what_its_script_writes(script: ModuleType) -> None:
    filled = import_module("generated").filled(script.PAGE, script.parts())

    assert filled == script.PAGE.read_text("utf-8"), f"run: python {script.__file__}, scale.py with --write"


@pytest.mark.parametrize("script", ["providers"], indirect=True)
def test_each_model_of_the_catalogue_is_on_the_page_of_providers(script: ModuleType) -> None:
    """With its price and the day on which it was read, or among the models of the hub."""
    page = (DOCS / "providers.md").read_text("utf-8")
    catalogue = load_catalogue()

    for card in catalogue.values():
        price = f"${card.price}" if card.price else "unknown" if card.price is None else "free"
        facts = [f"`{card.model.partition(':')[2]}`", card.source, str(card.dimensions), str(card.retired or "")]
        if card.provider != script.HUB:
            facts += [price, str(card.checked)]
        assert any(all(fact in line for fact in facts) for line in page.splitlines()), card.model
    assert all(f"| `{server.name}:`" in page for server in catalogue.servers.values())


@pytest.mark.parametrize("script", ["command_line"], indirect=True)
def test_each_option_that_a_command_takes_is_in_the_reference(script: ModuleType) -> None:
    """Those that typer itself finds, under their names."""
    page = script.PAGE.read_text("utf-8")

    def look(name: str, command: Any) -> int:
        if inner := getattr(command, "commands", None):
            return sum(look(f"{name} {word}", one) for word, one in inner.items())
        section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert re.search(rf"^\| `[^`]*{re.escape(option)}\b", section, re.MULTILINE), f"{name} {option}"
        return 1

    assert look("embedrouter", typer.main.get_command(script.app)) == page.count("\n### embedrouter ")


@pytest.mark.parametrize("script", ["benchmarks"], indirect=True)
def test_a_row_of_a_run_takes_the_place_of_the_row_of_the_same_work(script: ModuleType) -> None:
    """And keeps the day on which it was measured."""
    figures = [Figure("ours", "ours", 9876.5, 1, None), Figure("litellm", "peer", 100, 51.23, None)]
    row = asdict(Row("Cold documents", "texts/s", 3, [*figures, Figure("the least", "limit", 12_000, 0.824, None)]))
    new = script.taken(row, date(2027, 1, 2))
    old = {**new, "ours": 1.0, "measured": "2026-11-29"}
    other = {**old, "unit": "ms"}

    assert script.merged([old, other], [new]) == [new, other]
    assert new["ours"] == 9880
    assert script._ratios(new) == ["51 × litellm", "0.82 of the least"]
