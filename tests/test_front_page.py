"""README.md as a stranger takes it: one page, and what it says about files and about taking the package out again.

`test_links.py` follows its links, `test_release.py` requires that they are absolute, and `test_readme.py` runs its
blocks.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from embedrouter import Model, Router
from embedrouter.config import ONLY_IN_CODE
from embedrouter.langchain import RouterEmbeddings
from embedrouter.models import RouterSettings
from tests.doc_environment import ROOT, surroundings
from tests.emulator import Emulator
from tests.environments import interpreter, ready

README = (ROOT / "README.md").read_text("utf-8")
DOCS = ROOT / "docs"
PAGES = [f"page {number} about ferries,\nand a line about trains" for number in range(12)]
QUESTION = "when does the ferry leave?"


def test_it_is_one_page() -> None:
    """Whoever lands on it decides in a minute."""
    assert len(README.splitlines()) <= 160


def test_the_extras_of_its_table_exist() -> None:
    """They are in prose, where `test_readme.py` looks into consoles alone."""
    declared = set(re.findall(r"^(\S+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M))
    named = {name for group in re.findall(r"embedrouter\[([^]]+)\]", README) for name in group.split(",")}
    others = re.search(r"In place of `openai`, or beside it: ([^(]+)", README)
    assert others is not None
    assert named | set(re.findall(r"`([\w-]+)`", others[1])) <= declared


def test_the_page_of_the_configuration_names_every_key() -> None:
    """A key that is nowhere is not found; a key that is no more misleads."""
    page = (DOCS / "configuration.md").read_text("utf-8")
    written = set(re.findall(r"`(\w+)`", page))
    keys = {item.name for kind in (RouterSettings, Model) for item in fields(kind)} | {"model"}
    assert keys - {"name", "embedder", "like"} <= written
    rows = {name for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.M) for name in re.findall(r"\w+", row)}
    assert {name for name in rows if name.islower()} <= keys - ONLY_IN_CODE


# What it leaves behind, and the way out


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Emulator]:
    with surroundings(tmp_path) as emulator:
        yield emulator


def filled(name: str = "openai:text-embedding-3-small") -> InMemoryVectorStore:
    """Return a store that was filled through a router, as the README does."""
    embeddings = RouterEmbeddings(name, index="handbook", budget="5.00/day")
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document(page_content=text, id=str(place)) for place, text in enumerate(PAGES)])
    store.similarity_search(QUESTION)
    embeddings.router.close()
    return store


def test_all_that_is_written_lies_in_the_two_folders_that_it_names(world: Emulator) -> None:
    """Whoever deletes them has taken it out. The page of the configuration names each file in them."""
    filled()
    home = Path(os.environ["HOME"])
    folders = [Path(os.environ[f"XDG_{kind}_HOME"]) / "embedrouter" for kind in ("CACHE", "DATA")]
    page = (DOCS / "configuration.md").read_text("utf-8").partition("## Files")[2]

    written = [path for path in home.rglob("*") if path.is_file()]
    assert written
    for path in written:
        folder = next(folder for folder in folders if path.is_relative_to(folder))
        assert f"`{path.relative_to(folder).parts[0].partition('-')[0]}" in page, path
    for folder in folders:
        assert f"`~/{'.cache' if folder == folders[0] else '.local/share'}/embedrouter`" in README
        shutil.rmtree(folder)
    assert not [path for path in home.rglob("*") if path.is_file()]
    assert not list(Path().iterdir()), "nothing in the project's own folder"
    assert world.calls > 0


def same(store: InMemoryVectorStore, own: Embeddings) -> bool:
    """Return whether a store is searched by another embedder as if that had filled it."""
    other = InMemoryVectorStore(own)
    other.add_documents([Document(page_content=text, id=str(place)) for place, text in enumerate(PAGES)])
    store.embedding = own
    pairs = [item.similarity_search_with_score(QUESTION, k=len(PAGES)) for item in (store, other)]
    first, second = ([(document.id, score) for document, score in found] for found in pairs)
    return [place for place, _ in first] == [place for place, _ in second] and np.allclose(
        [score for _, score in first], [score for _, score in second], atol=1e-6
    )


def test_the_vectors_in_a_store_are_those_that_the_provider_gave(world: Emulator) -> None:
    """To the last bit, so that nothing is embedded again when the router is taken out."""
    store = filled()
    with openai.OpenAI(api_key="a-key", base_url=world.openai_url) as client:
        answer = client.embeddings.create(model="text-embedding-3-small", input=PAGES)

    for place, row in enumerate(answer.data):
        kept = np.asarray(store.store[str(place)]["vector"], np.float32)
        assert np.array_equal(kept, np.asarray(row.embedding, np.float32))


def of_openai(world: Emulator) -> Embeddings:
    from langchain_openai import OpenAIEmbeddings

    return OpenAIEmbeddings(  # texts in place of tokens, for which it would load tiktoken's vocabulary
        model="text-embedding-3-small", base_url=world.openai_url, check_embedding_ctx_length=False
    )


def of_ollama(world: Emulator) -> Embeddings:
    from langchain_ollama import OllamaEmbeddings

    return OllamaEmbeddings(model="all-minilm", base_url=world.url_of("ollama"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "model"), [(of_openai, "openai:text-embedding-3-small"), (of_ollama, "ollama:all-minilm")]
)
def test_langchains_own_embedder_searches_a_store_that_a_router_filled(
    own: Callable[[Emulator], Embeddings], model: str, world: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `RouterEmbeddings("openai:text-embedding-3-small")` was replaced by `OpenAIEmbeddings(…)` again."""
    monkeypatch.setenv("OLLAMA_HOST", world.url_of("ollama"))
    store, embedder = filled(model), own(world)

    assert same(store, embedder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # they leave their connections open
        del embedder, store
        gc.collect()


THEIRS = """
import sys
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

file, url, question = sys.argv[1:]
own = OpenAIEmbeddings(model="text-embedding-3-small", base_url=url, api_key="a-key", check_embedding_ctx_length=False)
store = InMemoryVectorStore.load(file, own)
texts = [row["text"] for row in store.store.values()]
again = InMemoryVectorStore(own)
again.add_texts(texts, ids=list(store.store))
found, wanted = (
    [(document.id, round(score, 5)) for document, score in each.similarity_search_with_score(question, k=50)]
    for each in (store, again)
)
assert found == wanted, (found, wanted)
theirs = OpenAIEmbedding(model="text-embedding-3-small", api_base=url, api_key="a-key")
ours = [row["vector"] for row in store.store.values() if "\\n" not in row["text"]]
given = theirs.get_text_embedding_batch([text for text in texts if "\\n" not in text])
assert all(abs(a - b) < 1e-6 for one, other in zip(ours, given, strict=True) for a, b in zip(one, other, strict=True))
print(len(found), len(given))
"""


@pytest.mark.slow
def test_openais_packages_of_both_frameworks_do_too(world: Emulator, tmp_path: Path) -> None:
    """In the benchmarks' environment, because LlamaIndex's package does not take openai 3, which the tests have."""
    folder = ready(ROOT / "tests" / "benchmarks" / "peers.txt")
    if folder is None:
        pytest.skip("python -m tests.environments tests/benchmarks/peers.txt")
    store = filled()
    lines: Any = Router(["openai:text-embedding-3-small"])
    with lines as router:
        texts = ["one line", "another line"]
        store.embedding = RouterEmbeddings(router)
        store.add_texts(texts, ids=["a", "b"])
    store.dump(str(tmp_path / "store.json"))

    done = subprocess.run(
        [interpreter(folder), "-c", THEIRS, str(tmp_path / "store.json"), world.openai_url, QUESTION],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(PAGES) + 2), "2"]
