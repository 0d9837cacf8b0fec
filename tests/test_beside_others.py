"""The rows of the README's table "Beside other tools": each cell that says what another package does is tried on it.

They are no complaint: each does what it says. A test that fails after an update of theirs is a row to write anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import Embeddings
from langchain_core.stores import InMemoryByteStore
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore

from embedrouter import Router
from embedrouter.errors import SpaceMismatchError
from tests.emulator import Emulator

SMALL, ADA = "text-embedding-3-small", "text-embedding-ada-002"
"""Two models of OpenAI whose vectors are equally long."""


class OfLangChain(Embeddings):
    """An embedder whose vectors name the model, and which counts its texts."""

    def __init__(self, model: float) -> None:
        self.model, self.sent = model, 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.sent += len(texts)
        return [[self.model, float(len(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class OfLlamaIndex(BaseEmbedding):
    """The same for LlamaIndex; queries have another sign."""

    model: float
    _sent: int = PrivateAttr(default=0)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._sent += len(texts)
        return [[self.model, float(len(text))] for text in texts]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [-number for number in self._get_text_embedding(query)]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def sent(self) -> int:
        """Return how many texts were embedded."""
        return self._sent


# LangChain


def cached(model: Embeddings, store: InMemoryByteStore, **settings: Any) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(model, store, key_encoder="sha256", **settings)


def test_langchains_cache_gives_a_second_model_the_vectors_of_the_first() -> None:
    """Its documentation warns of it, and a namespace prevents it."""
    store, one, other = InMemoryByteStore(), OfLangChain(1), OfLangChain(2)

    cached(one, store).embed_documents(["a text"])
    assert cached(other, store).embed_documents(["a text"]) == [[1, 6]]
    assert cached(other, store, namespace="2").embed_documents(["a text"]) == [[2, 6]]


def test_langchains_cache_keeps_queries_only_where_it_is_told_to() -> None:
    model = OfLangChain(1)
    for settings, sent in (({}, 2), ({"query_embedding_cache": True}, 1)):
        model.sent, embedder = 0, cached(model, InMemoryByteStore(), **settings)
        assert embedder.embed_query("a question") == embedder.embed_query("a question")
        assert model.sent == sent


# LlamaIndex


def test_llama_indexs_embeddings_cache_has_the_text_alone_as_its_key() -> None:
    """A query gets the vector of the equal document, and a second model those of the first."""
    store = SimpleKVStore()
    one, other = OfLlamaIndex(model=1, embeddings_cache=store), OfLlamaIndex(model=2, embeddings_cache=store)

    assert one.get_text_embedding("a text") == [1, 6]
    assert one.get_query_embedding("a text") == [1, 6]
    assert other.get_text_embedding("a text") == [1, 6]


def test_llama_indexs_ingestion_cache_embeds_all_nodes_again_when_one_is_added() -> None:
    """Its key is the whole list. A docstore, which is another part of the pipeline, leaves out what is there."""
    model, other = OfLlamaIndex(model=1), OfLlamaIndex(model=1)
    pipeline = IngestionPipeline(transformations=[model], cache=IngestionCache())
    documents = [Document(text=f"page {number}", id_=str(number)) for number in range(10)]

    pipeline.run(documents=documents[:9])
    pipeline.run(documents=documents[:9])
    assert model.sent() == 9
    pipeline.run(documents=documents)
    assert model.sent() == 9 + 10

    once = DocstoreStrategy.DUPLICATES_ONLY
    stored = IngestionPipeline(transformations=[other], docstore=SimpleDocumentStore(), docstore_strategy=once)
    stored.run(documents=documents[:9])
    stored.run(documents=documents)
    assert other.sent() == 10


# LiteLLM, in a process of its own: it leaves threads, loops and connections behind

THEIRS = """
import asyncio, json, sys
import litellm

url, small, ada = sys.argv[1:]
at = {"api_base": url, "api_key": "a-key", "max_retries": 0}
found = {"providers": len(litellm.provider_list)}

models = [
    {"model_name": "ours", "litellm_params": {"model": f"openai/{small}", **at, "api_base": "http://127.0.0.1:9/v1"}},
    {"model_name": "other", "litellm_params": {"model": f"openai/{ada}", **at}},
]
router = litellm.Router(model_list=models, fallbacks=[{"ours": ["other"]}], num_retries=0)
answer = router.embedding("ours", input=["a text"])
found["fallback"] = [answer.model, len(answer.data[0]["embedding"])]

litellm.embedding(f"openai/{small}", input=["twice", "twice"], **at)
try:
    litellm.embedding(f"openai/{small}", input=["a text"] * 3000, **at)
except litellm.BadRequestError:
    found["long list"] = "refused by the provider"


async def spend():
    budget = {"openai": {"budget_limit": 1e-8, "time_period": "1d"}}
    capped = litellm.Router(model_list=models[1:], provider_budget_config=budget, num_retries=0)
    answers = []
    for _ in range(20):  # what was spent is counted in the background
        try:
            await capped.aembedding("other", input=["a text that costs more than the cap"])
            answers.append("answered")
        except ValueError as error:
            assert "Exceeded budget" in str(error), error
            return [*answers, "refused"]
        await asyncio.sleep(0.5)


found["beyond the cap"] = asyncio.run(spend())
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("litellm") is None, reason="DSPy brings it")
def test_litellm_has_more_providers_and_knows_no_space_no_long_list_and_no_price_before_the_call(
    emulator: Emulator,
) -> None:
    """Its fallback answers with vectors of another model; ours refuses the two before the first request."""
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, emulator.openai_url, SMALL, ADA],
        capture_output=True, text=True, check=False, timeout=180,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # no price list from the network
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    assert found["providers"] > 100
    assert found["fallback"] == [ADA, 1536]
    with pytest.raises(SpaceMismatchError):
        Router([f"openai:{SMALL}", f"openai:{ADA}"])
    assert ["twice", "twice"] in [request.fields["input"] for request in emulator.received]
    assert found["long list"] == "refused by the provider"
    assert found["beyond the cap"][0] == "answered"
    assert found["beyond the cap"][-1] == "refused"
