"""The API reference has every public name, and nothing private."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.doc_environment import ROOT

SOURCE = ROOT / "src"
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
NAMES = [name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)]
MODULES = (
    "embedrouter", "embedrouter.errors", "embedrouter.events", "embedrouter.backends", "embedrouter.batches",
    "embedrouter.cache", "embedrouter.cascade", "embedrouter.chroma", "embedrouter.comparison",
    "embedrouter.langchain", "embedrouter.llama_index", "embedrouter.migrate", "embedrouter.otel",
    "embedrouter.ray", "embedrouter.redis", "embedrouter.stores", "embedrouter.testing",
)  # fmt: skip
"""What users may import from, but for the integrations, which are read from their folder."""
NOT_SHOWN = {"embedrouter.batches.Batches"}
"""Public to other rooms, not to users."""


def public(module: str) -> list[str]:
    """Return the names in a module's ``__all__``, without importing it: some import torch."""
    path = SOURCE / module.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(statement.value)
            return names
    raise ValueError(f"{module} has no __all__")


def is_module(name: str) -> bool:
    path = SOURCE / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


SHOWN = {f"{name}.{one}" for name in NAMES if is_module(name) for one in public(name)} | set(NAMES)
INTEGRATIONS = [
    f"embedrouter.integrations.{path.stem}" for path in Path(SOURCE, "embedrouter", "integrations").glob("[!_]*.py")
]


@pytest.mark.parametrize("module", [*MODULES, *sorted(INTEGRATIONS)])
def test_each_public_name_is_in_the_reference(module: str) -> None:
    """A name that ``embedrouter`` has, too, is shown as that of ``embedrouter``."""
    missing = {f"{module}.{name}" for name in public(module) if f"embedrouter.{name}" not in SHOWN} - SHOWN

    assert missing - NOT_SHOWN == set()


def test_no_private_name_is_in_the_reference_and_none_twice() -> None:
    assert not [name for name in NAMES if "._" in name]
    assert len(NAMES) == len(set(NAMES))


def test_the_first_page_links_each_other_one() -> None:
    """It is where a reader looks up which module has a name."""
    first = (ROOT / "docs" / "api" / "index.md").read_text("utf-8")

    assert all(f"]({page.name})" in first for page in PAGES if page.name != "index.md")
