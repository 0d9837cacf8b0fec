"""Copies of models, routers and adapters: with their key in this process, and without another key elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from embedrouter import Model, RetryPolicy, Router, TieredRouter
from embedrouter.errors import AuthenticationError
from embedrouter.langchain import RouterEmbeddings, TieredRetriever, with_tier
from embedrouter.llama_index import RouterEmbedding
from tests.either import embed
from tests.emulator import Emulator

KEY = "the-key-of-this-server"
OTHERS = "the-key-of-another-account"
VARIABLES = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "CO_API_KEY", "COHERE_API_KEY", "VOYAGE_API_KEY")
PROVIDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai": ("openai:text-embedding-3-small", "openai_url", {}),
    "azure": ("azure_openai:text-embedding-3-small", "azure_url", {"api_version": "2024-10-21"}),
    "cohere": ("cohere:embed-v4.0", "cohere_url", {}),
    "voyage": ("voyage:voyage-4-lite", "voyage_url", {}),
}


@pytest.fixture(autouse=True)
def _another_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has a key for each provider, which no server of these tests may get."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, OTHERS)


def declare(name: str, server: Emulator, **settings: Any) -> Model:
    model, url, more = PROVIDERS[name]
    return Model(model, **{"base_url": getattr(server, url), **more, **settings})


def ask(embedder: Any, asynchronous: bool) -> None:
    """Embed a text that no cache has."""
    if isinstance(embedder, Model):
        embedder = Router([embedder], cache=None)
    router = embedder if isinstance(embedder, Router | TieredRouter) else embedder.router
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()


HOLDERS: dict[str, Callable[[Model], Any]] = {
    "model": lambda model: model,
    "router": lambda model: Router([model], cache=None),
    "tiered": lambda model: TieredRouter({"high": Router([model], cache=None)}),
    "langchain": lambda model: RouterEmbeddings(Router([model], cache=None)),
    "langchain with tier": lambda model: RouterEmbeddings(Router([model], cache=None)).with_tier("high"),
    "langchain retriever": lambda model: TieredRetriever.from_router(HOLDERS["tiered"](model)),
    "llama_index": lambda model: RouterEmbedding(router=Router([model], cache=None)),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_copy_in_this_process_keeps_the_key(holder: str) -> None:
    """Frameworks copy embedders as they like, alone and inside of settings."""
    with Emulator(keys={KEY}) as server:
        original = HOLDERS[holder](declare("openai", server, api_key=KEY))
        ask(copy.copy(original), asynchronous=False)
        ask(copy.deepcopy({"embedder": [copy.copy(original)]})["embedder"][0], asynchronous=False)

        assert server.calls == 2


def test_copies_by_pydantic_and_by_fields_keep_the_key(asynchronous: bool) -> None:
    """``model_copy``, also a deep one, and ``dataclasses.replace``; clients and token providers stay as well."""
    with Emulator(keys={KEY}) as server:
        model = declare("openai", server, api_key=KEY)
        adapter = RouterEmbedding(router=Router([model], cache=None))
        for other in (
            adapter.model_copy(),
            adapter.model_copy(deep=True),
            adapter.model_copy(update={"query_tier": "high"}),
            dataclasses.replace(copy.deepcopy(model), tier="low"),
            copy.deepcopy(declare("openai", server, headers={"Authorization": f"Bearer {KEY}"})),
            copy.deepcopy(declare("azure", server, azure_ad_token_provider=lambda: KEY)),
        ):
            ask(other, asynchronous)
        with openai.OpenAI(api_key=KEY, base_url=server.openai_url, max_retries=0) as client:
            assert copy.deepcopy(Model("openai:text-embedding-3-small", client=client)).client is client

        assert server.calls == 6


WAYS: dict[str, Callable[[str, Emulator], Model]] = {
    "key": lambda name, server: declare(name, server, api_key=KEY),
    "placeholder": lambda name, server: declare(name, server, api_key="none"),
    "header": lambda name, server: declare(name, server, headers={"Authorization": f"Bearer {KEY}"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_copy_elsewhere_sends_no_key_of_another_account(name: str, way: str, asynchronous: bool) -> None:
    """It asks for the key that it lost; the provider's variable holds one that was meant for another server."""
    with Emulator() as server:
        model = pickle.loads(pickle.dumps(WAYS[way](name, server)))
        for other in (model, pickle.loads(pickle.dumps(model)), dataclasses.replace(model, tier="low")):
            with pytest.raises(AuthenticationError, match=r"copies for other processes hold no key.*api_key_env"):
                ask(other, asynchronous)

        assert server.received == ()
        ask(dataclasses.replace(model, api_key=KEY), asynchronous)
        assert server.calls == 1


@pytest.mark.parametrize("holder", [name for name in HOLDERS if name != "model"])
def test_what_holds_a_router_sends_no_key_of_another_account_either(holder: str) -> None:
    """In whichever object the router travels; an embedder in a chain, too."""
    with Emulator() as server:
        other = pickle.loads(pickle.dumps(HOLDERS[holder](declare("openai", server, api_key=KEY))))
        with pytest.raises(AuthenticationError, match="api_key_env"):
            ask(other, asynchronous=False)

        assert server.received == ()


def test_a_chain_that_travels_asks_for_the_key() -> None:
    """The retriever of a store, behind ``with_tier``."""
    with Emulator() as server:
        embeddings = RouterEmbeddings(Router([declare("openai", server, api_key=KEY)], cache=None))
        chain = pickle.loads(pickle.dumps(with_tier(InMemoryVectorStore(embeddings).as_retriever(), "high")))
        with pytest.raises(AuthenticationError, match="api_key_env"):
            chain.invoke("a")

        assert server.received == ()


def test_a_lost_client_or_token_provider_is_asked_for(asynchronous: bool) -> None:
    """A copy that made a client of its own would send the texts, and another account's key, to another server."""
    sync, other = openai.OpenAI(api_key=KEY, base_url="http://127.0.0.1:9"), httpx.Client(base_url="http://127.0.0.1:9")
    with Emulator() as server, sync, other:
        for model in (
            declare("openai", server, client=sync),
            declare("openai", server, async_client=openai.AsyncOpenAI(api_key=KEY, base_url="http://127.0.0.1:9")),
            declare("voyage", server, client=other),
            declare("azure", server, azure_ad_token_provider=lambda: KEY),
        ):
            with pytest.raises(AuthenticationError, match="api_key_env"):
                ask(pickle.loads(pickle.dumps(model)), asynchronous)

        assert server.received == ()


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_copy_elsewhere_reads_the_variable_that_was_named(
    name: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without a literal key the provider's, as the original does."""
    with Emulator(keys={KEY}) as server:
        monkeypatch.setenv("TEAM_KEY", KEY)
        ask(pickle.loads(pickle.dumps(declare(name, server, api_key=KEY, api_key_env="TEAM_KEY"))), asynchronous)
        for variable in VARIABLES:
            monkeypatch.setenv(variable, KEY)
        ask(pickle.loads(pickle.dumps(declare(name, server))), asynchronous)

        assert server.calls == 2


@pytest.mark.slow
def test_the_workers_of_an_ingestion_pipeline_ask_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """They get the embedder as a pickle, and inherit the variables of the machine."""
    nodes = [TextNode(text=text) for text in ("a", "b")]
    monkeypatch.setenv("TEAM_KEY", KEY)
    with Emulator(keys={KEY}) as server:
        for settings in ({}, {"api_key_env": "TEAM_KEY"}):
            model = declare("openai", server, api_key=KEY, **settings)
            router = Router([model], cache=None, retry=RetryPolicy(attempts=1))
            pipeline = IngestionPipeline(transformations=[RouterEmbedding(router=router)], disable_cache=True)
            if not settings:
                with pytest.raises(AuthenticationError, match="api_key_env"):
                    pipeline.run(nodes=nodes, num_workers=2)
                assert server.received == ()
        assert all(node.embedding for node in pipeline.run(nodes=nodes, num_workers=2))
