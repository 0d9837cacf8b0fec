"""What is handed to LangChain and LlamaIndex: the blocks of their pages run, and their forms are filled in.

Their formats are not those of our pages: code continues from block to block as in a notebook, a ``text`` block after it
is what was printed, and ``…`` stands for anything. ``docs/submit/README.md`` says where each file goes.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedrouter import langchain, llama_index
from tests.doc_environment import ROOT, execute, surroundings
from tests.emulator import Emulator
from tests.test_readme import Wrong, _compare, blocks

SUBMIT = ROOT / "docs" / "submit"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = sorted(SUBMIT.glob("langchain/*.mdx"))
NOTEBOOK: dict[str, Any] = json.loads((SUBMIT / "llama-index" / "embedrouter.ipynb").read_text("utf-8"))
LISTING = (SUBMIT / "langchain" / "listing.md").read_text("utf-8")
REQUEST = (SUBMIT / "llama-index" / "feature-request.md").read_text("utf-8")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Emulator]:
    with surroundings(tmp_path) as emulator:
        yield emulator


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_langchain_page_works(page: Path, world: Emulator) -> None:
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks(page.read_text("utf-8")):
        if block.language == "python":
            ran = execute("\n" * block.line + block.content, page.name, names=names)
            names, printed = ran.names, ran.printed
        elif block.language == "text":
            _compare(block.line, block.content, printed)
        else:
            assert block.language == "bash"
            _check_extras(block.content)
    assert not world.refused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_langchain_page_begins_as_their_guide_asks(page: Path) -> None:
    """Frontmatter with title and description; links inside their site from its root; none of the words it forbids."""
    _, front, body = page.read_text("utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)

    assert found["title"].endswith(("integration", "integrations"))
    assert "`" not in found["description"]
    assert "featured" not in front, "their maintainers decide that"
    assert all(link.startswith(("https://", "/oss/")) for link in re.findall(r"\]\(([^)]*)\)", prose))
    assert not re.search(r"\b(?:simply|easily|just|very|basically|obviously|we|our|let's|don't|can't)\b|—", prose)
    assert body.count("<CodeGroup>") == body.count("</CodeGroup>") == 1


def test_the_cells_of_the_llamaindex_notebook_work(world: Emulator) -> None:
    """Those that install are read: the extras that they name exist."""
    names: dict[str, Any] = {}
    printed = []
    for number, cell in enumerate(cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        if source.startswith("%pip"):
            _check_extras(source)
            continue
        ran = execute(source, f"cell {number}", names=names)
        names = ran.names
        printed.append(ran.printed)

    assert printed[1:4] == ["1536\n", "2\n", "Dogs are welcome on Fridays.\n"]
    assert printed[-2:] == ["0 requests\n", "Our office opens at nine.\n"]
    assert not world.refused


def test_the_notebook_has_their_layout() -> None:
    """No outputs, the kernel of their notebooks, and the badge that opens it in Colab from its place there."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert "docs/examples/embeddings/embedrouter.ipynb" in NOTEBOOK["cells"][0]["source"][0]
    assert all(cell["outputs"] == [] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")


def test_the_listing_fills_the_form_of_langchains_docs() -> None:
    """Their automation reads the issue by these headings, and refuses it where a required one is empty."""
    fields = _sections(LISTING)
    required = ("Display or class name", "Language", "Component type", "Docs URL", "Short provider description")

    assert all(fields[name] not in ("", "_No response_") for name in required)
    assert fields["Display or class name"] in langchain.__all__
    assert (fields["Language"], fields["Component type"]) == ("Python", "embeddings")
    assert fields["PyPI package name"] == PROJECT["name"]
    assert fields["Docs URL"] == f"{PROJECT['urls']['Documentation']}langchain/"
    assert PROJECT["urls"]["Source"].endswith(fields["Source repository"])
    assert "\n" not in fields["Short provider description"]


def test_the_request_fills_the_form_of_llamaindex() -> None:
    fields = _sections(REQUEST)

    assert list(fields) == ["Feature Description", "Reason", "Value of Feature"]
    assert all(fields.values())
    assert "from embedrouter.llama_index import RouterEmbedding" in REQUEST
    assert "RouterEmbedding" in llama_index.__all__
    _check_extras(REQUEST)


def test_the_tests_that_are_named_as_proof_are_there() -> None:
    readme = (SUBMIT / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(tests/test_\w+\.py)`", readme))

    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def _sections(markdown: str) -> dict[str, str]:
    parts = re.split(r"^### (.+)$", markdown, flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def _check_extras(text: str) -> None:
    for names in re.findall(r"embedrouter\[([^]]*)\]", text):
        if unknown := set(names.split(",")) - set(PROJECT["optional-dependencies"]):
            raise Wrong(f"there is no extra {sorted(unknown)}")
