"""Routers that are never closed leave no ``ResourceWarning``, which fails tests that turn warnings into errors.

Python 3.13 warns of databases as well as of sockets.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedrouter import Model, Router
from tests.emulator import Emulator

MODELS = {
    "openai": "openai:text-embedding-3-small",
    "cohere": "cohere:embed-v4.0",
    "voyage": "voyage:voyage-4-lite",
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, emulator: Emulator) -> Model:
    return Model(MODELS[request.param], base_url=getattr(emulator, f"{request.param}_url"), api_key="k")


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """Collect garbage and look at the warnings, also of exceptions that nobody can catch."""
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


def test_a_router_with_a_cache_and_a_ledger(model: Model, asynchronous: bool, tmp_path: Path) -> None:
    """Databases, and the connections of a synchronous client."""

    def use() -> None:
        router = Router([model], cache=tmp_path / "cache")
        router.embed(["a text"], input_type="document")
        if asynchronous:
            asyncio.run(router.aembed(["another text"], input_type="query"))

    use()


def test_a_router_that_outlives_its_event_loops(model: Model) -> None:
    """As a module's router does in scripts and in tests with a loop each."""
    router = Router([model], cache=None)
    for text in ("one", "two"):
        asyncio.run(router.aembed([text], input_type="query"))


async def test_a_router_that_is_dropped_while_its_loop_runs(model: Model) -> None:
    """As a handler's router is."""

    async def use() -> None:
        await Router([model], cache=None).aembed(["a text"], input_type="query")

    await use()
    gc.collect()
    await asyncio.sleep(0.05)


def test_an_iteration_that_is_broken_off(model: Model, tmp_path: Path) -> None:
    """Its threads hold the router until they end."""

    def use() -> None:
        router = Router([model], cache=tmp_path / "cache")
        for _ in router.embed_iter(map(str, range(200)), input_type="document"):
            break

    use()
