"""Backends in an event loop: nothing in ``aembed`` blocks the loop, and no thread of its default executor is taken.

A blocked loop stalls every other task of a server; servers such as ``langgraph dev`` raise instead. The default
executor may be full of a program's own tools, each of which waits for an embedding.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from langchain_core.embeddings import Embeddings

from embedrouter import Model
from embedrouter.models import load_catalogue, resolve
from embedrouter.providers import Backend, create, describe
from embedrouter.types import Answer, InputType
from tests.emulator import Emulator

ADDRESSES = {
    "openai:text-embedding-3-small": "openai_url",
    "azure_openai:text-embedding-3-large": "azure_url",
    "cohere:embed-v4.0": "cohere_url",
    "voyage:voyage-4-lite": "voyage_url",
    "bedrock:amazon.titan-embed-text-v2:0": "bedrock_url",
}


def backend_of(model: Model) -> Backend:
    known = describe(model, load_catalogue(), None)
    local = known.local
    facts = {"dimensions": None, "index": 0, "rank": 0, "local": local, "identity": known.identity}
    return create(model, known, resolve(model, known.card, **facts))  # type: ignore[arg-type]


def blocking(texts: Sequence[str]) -> list[list[float]]:
    """Embed as functions of users do."""
    time.sleep(0.001)
    return [[float(len(text)), 1.0] for text in texts]


class Blocking(Embeddings):
    """A LangChain embedder without asynchronous methods of its own."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return blocking(texts)

    def embed_query(self, text: str) -> list[float]:
        return blocking([text])[0]


class Half(Blocking):
    """A LangChain embedder with one asynchronous method of its own."""

    async def aembed_query(self, text: str) -> list[float]:
        await asyncio.sleep(0)
        return [7.0, 7.0]


class Own(Backend):
    """A backend of the user's without an asynchronous form."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return Answer(np.asarray(blocking(texts), np.float32), tokens=None)


LOCAL: dict[str, Callable[[], Model]] = {
    "wordllama": lambda: Model("wordllama:l2_supercat_256"),
    "function": lambda: Model.wrap(blocking, space="house", dimensions=2),
    "langchain": lambda: Model.wrap(Blocking(), space="house", dimensions=2),
    "own backend": lambda: Model("own:model", backend=Own(), space="house", dimensions=2),
}


@pytest.fixture(params=[*ADDRESSES, *LOCAL])
def backend(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Backend]:
    name = request.param
    if name in LOCAL:
        model = LOCAL[name]()
    else:
        azure: dict[str, Any] = {"api_version": "2024-10-21"} if name.startswith("azure") else {}
        model = Model(name, base_url=getattr(emulator, ADDRESSES[name]), api_key="k", **azure)
    yield backend_of(model)
    assert emulator.refused == ()


def test_neither_the_first_request_nor_a_later_one_blocks_the_loop(backend: Backend) -> None:
    """The first one imports the SDK, reads files and makes a client: all in a thread."""

    async def call() -> list[Answer]:
        with blockbuster_ctx():
            answers = [await backend.aembed([text], "document", timeout=30) for text in "aba"]
            await backend.aclose()
            answers.append(await backend.aembed(["a"], "query", timeout=30))
            await backend.aclose()
            return answers

    first, other, again, _ = asyncio.run(call())

    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert first.vectors.shape == other.vectors.shape


class Refusing(ThreadPoolExecutor):
    """A default executor in which there is never a free thread."""

    def submit(self, *told: Any, **named: Any) -> Any:
        raise AssertionError("the event loop's default executor was used")


def test_no_thread_of_the_loops_default_executor_is_taken(backend: Backend) -> None:
    """A program whose tools wait in it for this very request would deadlock."""

    async def call() -> None:
        asyncio.get_running_loop().set_default_executor(Refusing())
        for input_type in ("document", "query"):
            await backend.aembed(["a"], input_type, timeout=30)
        await backend.aclose()

    asyncio.run(call())


def test_asynchronous_methods_of_a_langchain_embedder_are_used() -> None:
    """Those that it has of its own; the others run in a thread."""
    backend = backend_of(Model.wrap(Half(), space="house", dimensions=2))

    async def call() -> list[list[float]]:
        return [
            (await backend.aembed(["a text"], kind, timeout=30)).vectors[0].tolist() for kind in ("query", "document")
        ]

    assert asyncio.run(call()) == [[7.0, 7.0], [6.0, 1.0]]


def test_closing_waits_in_a_thread_for_a_client_that_is_being_made(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may be importing the SDK at that moment."""
    import openai

    backend = backend_of(Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k"))
    making, go_on = threading.Event(), threading.Event()
    kind = openai.OpenAI

    def slow(**settings: Any) -> openai.OpenAI:
        making.set()
        go_on.wait()
        return kind(**settings)

    monkeypatch.setattr(openai, "OpenAI", slow)
    thread = threading.Thread(target=lambda: backend.embed(["a"], "document", timeout=30))
    thread.start()
    making.wait()

    async def close() -> None:
        closing = asyncio.create_task(backend.aclose())
        await asyncio.sleep(0.01)
        assert not closing.done()
        go_on.set()
        await closing

    asyncio.run(close())
    thread.join()
    backend.close()

    assert emulator.calls == 1
