"""``docs/glossary.md`` is the one place of the project's words, and the names in it exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import embedrouter
import embedrouter.backends
import embedrouter.cascade
import embedrouter.events
import embedrouter.migrate
import embedrouter.stores

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\*\*.*?) \| (.*) \|$", PAGE, re.M)
PUBLIC = (embedrouter, embedrouter.backends, embedrouter.cascade, embedrouter.stores)
OBJECTS = {
    "result": embedrouter.EmbeddingResult,
    "usage": embedrouter.Usage,
    "router": embedrouter.Router,
    "embedrouter": embedrouter,
}
CALLED = (embedrouter.Router, embedrouter.Router.embed, embedrouter.Model, embedrouter.Router.submit_batch)
ELSEWHERE = {"index="}
"""An argument of the adapters, which belong to frameworks."""


def exists(name: str) -> bool:
    """Whether a user can write it: an argument, an attribute of a result, a class."""
    if name.endswith("="):
        return any(name[:-1] in inspect.signature(callable_).parameters for callable_ in CALLED)
    owner, _, attribute = name.partition(".")
    if attribute:
        return hasattr(OBJECTS[owner], attribute.removesuffix("()"))
    return any(hasattr(module, name) for module in PUBLIC)


def test_every_public_name_in_the_glossary_exists() -> None:
    """Those beside a word; the explanations are prose."""
    names = [name for word, _ in ROWS for name in re.findall(r"\(`([^`]+)`\)", word)]

    assert len(names) > 15
    assert [name for name in names if name not in ELSEWHERE and not exists(name)] == []


def test_a_word_has_one_row_and_an_explanation() -> None:
    words = [word for row, _ in ROWS for word in re.findall(r"\*\*(.+?)\*\*", row)]

    assert len(words) > 35
    assert sorted(words) == sorted(set(words))
    assert all(meaning.strip() for _, meaning in ROWS)


def test_contributing_has_no_glossary_of_its_own() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

    assert "(docs/glossary.md)" in contributing
    assert "| **space** |" not in contributing
