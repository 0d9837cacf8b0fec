"""A plugin of pytest, for the tests of other projects: their fake embedders become adapters around routers.

    pytest -p swapped_fakes --swap=tests --swap=langchain_core.embeddings.fake --outcomes=FILE …

A router's one model is the fake itself, so that the vectors are those which the tests expect. Between the tests and the
fake stands then all of the package: adapter, guard of the index, validation, cache, single flight, budget, check of
the answer, ledger.

The plugin is imported by its bare name, because the tests of other projects have a package ``tests`` of their own.
"""

from __future__ import annotations

import atexit
import itertools
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

if not hasattr(sqlite3.Connection, "enable_load_extension"):  # as in Pythons that were built without
    with suppress(ImportError):
        import pysqlite3  # type: ignore[import-not-found, unused-ignore]

        sys.modules.update({"sqlite3": pysqlite3, "sqlite3.dbapi2": pysqlite3.dbapi2})

from embedrouter import Budget, EmbeddingResult, Model, Router
from embedrouter.testing import NO_WAITING

SYNCHRONOUS = ("embedrouter/retrieval/index_guard.py", {"embed"})
"""The synchronous form, which reads files: langchain-core's tests call it on an event loop that they watch."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--swap", action="append", default=[], help="a package or module whose fakes become adapters")
    parser.addoption("--outcomes", type=Path, required=True, help="the file for what each test did")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes(config.option.outcomes, tuple(config.option.swap)))


class Outcomes:
    """Replaces fakes when the tests have been imported, and writes what each test did.

    Args:
        file: receives ``{"outcomes": {test: "passed" | "failed" | "skipped"}, "routed": [test]}``.
        places: packages and modules in which the fakes are defined.
    """

    def __init__(self, file: Path, places: tuple[str, ...]) -> None:
        self.file = file
        self.places = places
        self.outcomes: dict[str, str] = {}
        self.routed: set[str] = set()
        self.running = ""
        self.opened: list[Router] = []
        self.numbers = itertools.count(1)
        self.folder = tempfile.mkdtemp(prefix="swapped-fakes-")
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    # What becomes of fakes

    def pytest_collection_finish(self) -> None:
        for base in bases():
            for fake in subclasses(base):
                if any(f"{fake.__module__}.".startswith(f"{place}.") for place in self.places):
                    self.replace(fake)

    def replace(self, fake: type) -> None:
        """Make the calls of a class return adapters around what they returned before."""

        def made(cls: type, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
            instance: Any = object.__new__(cls)
            instance.__init__(*arguments, **settings)
            return instance

        def new(cls: type, *arguments: Any, **settings: Any) -> Any:
            measured = made(cls, arguments, settings)  # another one, because some fakes count what they are asked
            return self.adapter(made(cls, arguments, settings), len(first_vector(measured)))

        type.__setattr__(fake, "__new__", new)

    def adapter(self, fake: Any, dimensions: int) -> Any:
        """Return an adapter around a fake, with a space of its own: fakes of one class differ in what they remember."""
        name = f"{type(fake).__name__}-{next(self.numbers)}"
        model = Model.wrap(fake, space=name, dimensions=dimensions, price="0.1")
        router = self.router(model)
        self.opened.append(router)
        if hasattr(fake, "get_query_embedding"):
            from embedrouter.llama_index import RouterEmbedding

            return RouterEmbedding(router, index=name)

        from embedrouter.langchain import RouterEmbeddings

        class Adapter(RouterEmbeddings):
            def __getattr__(self, attribute: str) -> Any:
                """Return what a test reads from its fake, such as the number of dimensions."""
                if attribute.startswith("_"):
                    raise AttributeError(attribute)
                return getattr(fake, attribute)

        return Adapter(router, index=name)

    def router(self, model: Model) -> Router:
        """Return a router that notes in which test it is used."""

        def note() -> None:
            self.routed.add(self.running)

        class Noted(Router):
            def embed(self, *arguments: Any, **settings: Any) -> EmbeddingResult:
                note()
                return super().embed(*arguments, **settings)

            async def aembed(self, *arguments: Any, **settings: Any) -> EmbeddingResult:
                note()
                return await super().aembed(*arguments, **settings)

        return Noted([model], cache=self.folder, budget=Budget(per_day=1000), retry=NO_WAITING)

    # Tests

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running = nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        detector = getattr(item, "funcargs", {}).get("blockbuster")
        for function in detector.functions.values() if detector else ():
            function.can_block_in(*SYNCHRONOUS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.outcomes.get(report.nodeid, "passed") == "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_runtest_logfinish(self) -> None:
        """Close routers, also those of fixtures that last longer: a closed router opens again."""
        for router in self.opened:
            router.close()
        self.opened.clear()

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps({"outcomes": self.outcomes, "routed": sorted(self.routed)}), "utf-8")


def bases() -> Iterator[type]:
    """Return the frameworks' base classes of embedders, as far as a framework is installed."""
    with suppress(ImportError):
        from langchain_core.embeddings import Embeddings

        yield Embeddings
    with suppress(ImportError):
        from llama_index.core.base.embeddings.base import BaseEmbedding

        yield BaseEmbedding


def subclasses(base: type) -> Iterator[type]:
    each: type
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def first_vector(fake: Any) -> list[float]:
    query = fake.get_query_embedding if hasattr(fake, "get_query_embedding") else fake.embed_query
    vector: list[float] = query("a text")
    return vector
