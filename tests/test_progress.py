"""A bar shows how far a call is, what came from the cache and what it costs, and never breaks a call."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from embedrouter import Model, Router, TieredRouter
from embedrouter._process import at_worker_exit, is_daemon_process
from embedrouter.batches import BatchJob, BatchStatus
from embedrouter.errors import AuthenticationError, ConfigError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType, dollars
from tests.either import embed
from tests.emulator import Emulator

TEXTS = [f"text {number}" for number in range(3000)]


class Slow(FakeBackend):
    """Takes most of a second for each request."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        time.sleep(0.9)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        await asyncio.sleep(0.9)
        return super().embed(texts, input_type, timeout=timeout)


class Terminal(io.StringIO):
    """What a person looks at."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def last(self) -> str:
        """The bar as it stands at the end."""
        return self.getvalue().rstrip().splitlines()[-1]


@pytest.fixture
def router() -> Iterator[Router]:
    model = FakeBackend(dimensions=8).model("fake:one", price="2", batch_size=500)
    with Router([model], cache=MemoryCache(), ledger=":memory:") as made:
        yield made


def test_it_ends_with_texts_hits_and_money(router: Router, asynchronous: bool) -> None:
    with redirect_stderr(Terminal()) as terminal:
        embed(router, asynchronous, TEXTS[:1000], input_type="document", show_progress=True)
        assert "1000/1000" in terminal.last
        assert "1,000 new, $0.004]" in terminal.last
        embed(router, asynchronous, TEXTS[:1000], input_type="document", show_progress=True)
        assert "1000/1000" in terminal.last
        assert "1,000 from the cache, saved $0.004]" in terminal.last
        embed(router, asynchronous, [*TEXTS[:1500], *TEXTS[:500]], input_type="document", show_progress=True)
        assert "2000/2000" in terminal.last
        assert "500 new, 1,500 from the cache, $0.002, saved $0.006]" in terminal.last


def test_it_moves_with_each_request(router: Router, asynchronous: bool) -> None:
    router.embed(TEXTS[:1000], input_type="document")
    with redirect_stderr(Terminal()) as terminal:
        embed(router, asynchronous, TEXTS, input_type="document", show_progress=True)
    lines = terminal.getvalue().splitlines()
    assert any(" 1000/3000 " in line and "1,000 from the cache" in line for line in lines)
    new = {line.partition(" new")[0].rpartition(" ")[2] for line in lines if " new" in line}
    assert len(new) >= 2000 / 500


def test_one_bar_for_all_chunks(router: Router) -> None:
    router.embed(TEXTS[:1000], input_type="document")
    with redirect_stderr(Terminal()) as terminal:
        for _ in router.embed_iter(TEXTS, input_type="document", chunk_size=700, show_progress=True):
            pass
    assert "3000/3000" in terminal.last
    assert "2,000 new, 1,000 from the cache" in terminal.last
    assert terminal.getvalue().count("\n") == 1


async def test_one_bar_for_all_chunks_of_an_async_iterable(router: Router) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    with redirect_stderr(Terminal()) as terminal:
        async for _ in router.aembed_iter(texts(), input_type="document", chunk_size=700, show_progress=True):
            pass
    assert "3000 texts" in terminal.last


@pytest.mark.parametrize("show", [False, "auto"])
def test_there_is_none_unless_asked_and_none_for_short_work(router: Router, asynchronous: bool, show: bool) -> None:
    with redirect_stderr(Terminal()) as terminal:
        embed(router, asynchronous, TEXTS, input_type="document", show_progress=show)
    assert terminal.getvalue() == ""


@pytest.mark.slow
@pytest.mark.parametrize("looked_at", [True, False])
def test_auto_shows_long_work_where_somebody_looks(asynchronous: bool, looked_at: bool) -> None:
    model = Slow(dimensions=8).model("fake:one", price="2", batch_size=10, max_concurrency=1)
    with (
        Router([model], cache=MemoryCache(), ledger=":memory:") as router,
        redirect_stderr(Terminal() if looked_at else io.StringIO()) as terminal,
    ):
        embed(router, asynchronous, TEXTS[:40], input_type="document", show_progress="auto")
    assert ("40/40" in terminal.getvalue()) == looked_at


def test_a_call_that_fails_ends_its_bar(asynchronous: bool) -> None:
    model = FakeBackend(dimensions=8, outcomes=[AuthenticationError("wrong key")]).model("fake:one")
    with (
        Router([model], cache=None, ledger=":memory:") as router,
        redirect_stderr(Terminal()) as terminal,
        pytest.raises(AuthenticationError),
    ):
        embed(router, asynchronous, TEXTS[:10], input_type="document", show_progress=True)
    assert "0/10" in terminal.last
    assert terminal.getvalue().endswith("\n")


def test_a_terminal_that_is_gone_breaks_no_call(router: Router, asynchronous: bool) -> None:
    class Gone(Terminal):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with redirect_stderr(Gone()):
        found = embed(router, asynchronous, TEXTS[:10], input_type="document", show_progress=True)
    assert len(found) == 10


def test_a_tiered_router_passes_it_on(router: Router) -> None:
    both = TieredRouter({"low": router})
    with redirect_stderr(Terminal()) as terminal:
        both.embed(TEXTS[:10], input_type="document", tier="low", show_progress=True)
        assert "10/10" in terminal.last
        for _ in both.embed_iter(TEXTS[:20], input_type="document", tier="low", show_progress=True):
            pass
        assert "20/20" in terminal.last


def test_langchains_adapter_shows_documents_and_no_queries(router: Router, asynchronous: bool) -> None:
    embeddings = RouterEmbeddings(router, show_progress=True)
    with redirect_stderr(Terminal()) as terminal:
        asyncio.run(embeddings.aembed_query("a")) if asynchronous else embeddings.embed_query("a")
        assert terminal.getvalue() == ""
        texts = TEXTS[:10]
        asyncio.run(embeddings.aembed_documents(texts)) if asynchronous else embeddings.embed_documents(texts)
        assert "10/10" in terminal.last


def test_another_value_is_refused(router: Router) -> None:
    with pytest.raises(ConfigError, match="True, False, or 'auto'"):
        router.embed(["a"], input_type="document", show_progress="yes")  # type: ignore[arg-type]


def test_a_batch_that_is_waited_for_has_a_bar(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """Answered texts, and the money when the provider has billed it."""
    model = Model("openai:text-embedding-3-small", api_key="sk-test", base_url=emulator.openai_url)
    with Router([model], cache=tmp_path) as router, redirect_stderr(Terminal()) as screen:
        job = router.submit_batch(TEXTS[:50])
        emulator.batches.progress(share=0.5)
        settings: dict[str, Any] = {"every": 0.01, "show_progress": True}
        begun = asyncio.run(_wait(job, timeout=0, **settings)) if asynchronous else job.wait(timeout=0, **settings)
        half = screen.last
        emulator.batches.finish()
        status = asyncio.run(_wait(job, **settings)) if asynchronous else job.wait(**settings)
        spent = router.usage.cost

    assert (begun.answered, status.answered) == (25, 50)
    assert "waiting: " in half
    assert " 25/50 " in half
    assert " 50/50 " in screen.last
    assert f"50 new, {dollars(spent)}" in screen.last
    with pytest.raises(ConfigError, match="show_progress is True, False"):
        job.wait(show_progress="yes")  # type: ignore[arg-type]


async def _wait(job: BatchJob, **settings: Any) -> BatchStatus:
    return await job.wait_async(**settings)


def test_a_call_beside_the_import_of_multiprocessing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bar imports tqdm in a thread, and tqdm multiprocessing, of which a module is then half there."""
    half = ModuleType("multiprocessing.process")
    exec("def current_process(): return _current_process", half.__dict__)
    monkeypatch.setitem(sys.modules, "multiprocessing.process", half)
    monkeypatch.setitem(sys.modules, "multiprocessing.util", ModuleType("multiprocessing.util"))

    assert not is_daemon_process()
    at_worker_exit(lambda: None)
