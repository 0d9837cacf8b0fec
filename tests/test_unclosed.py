"""Routers that are never closed leave no ``ResourceWarning``, which fails tests that turn warnings into errors.

Python 3.13 warns of databases as well as of sockets.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from embedrouter import Model, Router
from tests.company_network import Authority, tls
from tests.emulator import Emulator

MODELS = {
    "openai": "openai:text-embedding-3-small",
    "cohere": "cohere:embed-v4.0",
    "voyage": "voyage:voyage-4-lite",
    "google": "google_genai:gemini-embedding-001",
}


@pytest.fixture(params=["openai", *(pytest.param(name, marks=pytest.mark.slow) for name in [*MODELS][1:])])
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


@pytest.mark.slow
async def test_a_router_that_is_dropped_while_its_loop_runs(model: Model) -> None:
    """As a handler's router is."""

    async def use() -> None:
        await Router([model], cache=None).aembed(["a text"], input_type="query")

    await use()
    gc.collect()
    await asyncio.sleep(0.05)


@pytest.mark.slow
def test_an_iteration_that_is_broken_off(model: Model, tmp_path: Path) -> None:
    """Its threads hold the router until they end."""

    def use() -> None:
        router = Router([model], cache=tmp_path / "cache")
        for _ in router.embed_iter(map(str, range(200)), input_type="document"):
            break

    use()


def many(times: int, model: Model, close: str) -> None:
    """Run an event loop for each call, as ``asyncio.run`` in a web framework's synchronous view does."""
    with Router([model], cache=None, ledger=":memory:") as router:

        async def call(number: int) -> None:
            await router.aembed([f"text {number}"], input_type="query")
            if close == "aclose":
                await router.aclose()
            elif close == "close":
                await asyncio.to_thread(router.close)

        for number in range(times):
            asyncio.run(call(number))


@pytest.mark.slow
@pytest.mark.parametrize("close", ["", "close", "aclose"])
def test_a_loop_for_each_call(model: Model, close: str) -> None:
    """The client of a loop is closed when the loop ends at the latest, whatever else is closed."""
    many(10, model, close)


@pytest.mark.slow
def test_hundreds_of_loops(model: Model) -> None:
    """None leaves a connection, nor an open file."""
    many(50, model, "")
    before = len(list(Path("/proc/self/fd").iterdir()))
    many(300, model, "")

    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5


@pytest.mark.slow
@pytest.mark.parametrize("end", ["cancelled", "an error", "a runner", "its generators alone"])
def test_a_loop_that_ends_otherwise(model: Model, end: str) -> None:
    """With requests in flight, or without ``asyncio.run``."""
    router = Router([model], cache=None, ledger=":memory:")

    async def call(number: int = 0) -> None:
        await router.aembed([f"text {number}"], input_type="query")

    async def ends() -> None:
        tasks = [asyncio.create_task(call(number)) for number in range(20)]
        await call(99)
        if end == "cancelled":
            tasks[3].cancel()
            return
        raise ZeroDivisionError

    if end in ("cancelled", "an error"):
        with suppress(ZeroDivisionError):
            asyncio.run(ends())
    elif end == "a runner":
        with asyncio.Runner() as runner:
            for number in range(5):
                runner.run(call(number))
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    router.close()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [False, True])
def test_loops_over_tls(closed: bool, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing takes a round trip more."""
    authority = Authority.create(tmp_path / "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    port = urlsplit(emulator.openai_url).port
    assert port
    with tls(authority.issue("server"), port) as server:
        url = emulator.openai_url.replace(f"http://127.0.0.1:{port}", f"https://127.0.0.1:{server.port}")
        model = Model(MODELS["openai"], base_url=url, api_key="k")
        with Router([model], cache=None, ledger=":memory:") as router:

            async def call(number: int) -> None:
                await router.aembed([f"text {number}"], input_type="query")
                if closed:
                    await router.aclose()

            for number in range(5):
                asyncio.run(call(number))
