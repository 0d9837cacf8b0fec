"""Migrations of real stores: objects of frameworks, aliases, and a process that is killed.

``test_transfer.py`` tries each kind of store against each other; ``migration_campaign.py`` kills migrations of 20,000
texts between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router, migrate
from embedrouter.stores._reading import readable
from embedrouter.testing import FakeBackend, MemoryCache
from tests.filled_stores import FOLDERS, PAGES
from tests.migration_campaign import play
from tests.test_migrate_simulation import users_folder as own_users_folder
from tests.vector_stores import NAME, opened

__all__ = ["own_users_folder"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FREE = "wordllama:l2_supercat_256"


def new_router() -> Router:
    return Router(
        [FakeBackend(space="new", dimensions=8).model("new:model", price="1")], cache=MemoryCache(), ledger=":memory:"
    )


def embedder(kind: str) -> Any:
    router = Router([FREE], cache=None, ledger=":memory:")
    if kind.startswith("langchain"):
        from embedrouter.langchain import RouterEmbeddings

        return RouterEmbeddings(router)
    from embedrouter.llama_index import RouterEmbedding

    return RouterEmbedding(router=router)


@pytest.mark.parametrize("kind", ["langchain/chroma", "llama_index/qdrant"])
def test_a_store_object_is_migrated_while_it_is_open(kind: str, tmp_path: Path) -> None:
    """The frameworks' nodes and documents are as they were, and the text of a node is what LlamaIndex embeds."""
    FOLDERS[kind](tmp_path, embedder(kind), PAGES)
    with opened(kind, tmp_path, embedder(kind)) as store:
        plan = migrate.plan(store.inner, new_router())
        assert plan.alias == NAME
        moved = migrate.run(plan)
        assert (moved.rows, moved.settled) == (len(PAGES), True)
        assert migrate.verify(plan).passed
        store.add(["One more page."])
        assert migrate.run(plan).written == 1


def test_a_store_that_is_open_finds_its_way_after_a_switch(tmp_path: Path) -> None:
    """What LangChain's Chroma has open is called another name since, and the way back is found all the same."""
    kind = "langchain/chroma"
    FOLDERS[kind](tmp_path, embedder(kind), PAGES)
    with opened(kind, tmp_path, embedder(kind)) as store:
        plan = migrate.plan(store.inner, new_router())
        migrate.run(plan)
        assert migrate.switch(plan).old == f"{NAME}--old"
        assert migrate.switch(store.inner, plan.migration.router, undo=True).undone
        migrate.switch(plan)
        assert f"{NAME}--old" in migrate.drop_old(plan)


def test_an_alias_of_qdrant_is_turned_in_one_step(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient, models

    FOLDERS["langchain/qdrant"](tmp_path, embedder("langchain/qdrant"), PAGES)
    client = QdrantClient(path=str(tmp_path))
    alias = models.CreateAlias(collection_name=NAME, alias_name="pages")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    client.close()
    given: dict[str, Any] = {"collection": "pages"}
    router = new_router()

    migrate.run(str(tmp_path), router, **given)
    done = migrate.switch(str(tmp_path), router, **given)
    assert (done.line, done.name, done.old) == ("", "pages--new-8", NAME)
    assert migrate.switch(str(tmp_path), router, undo=True, **given).name == "pages"
    migrate.switch(str(tmp_path), router, **given)
    migrate.drop_old(str(tmp_path), router, **given)

    with readable(str(tmp_path), "pages") as found:
        assert found.count() == len(PAGES)
        assert found.database.names() == ["pages--new-8"]


@pytest.mark.parametrize("kind", ["langchain/faiss", "llama_index/simple"])
def test_a_folder_that_is_saved_as_a_whole_goes_the_whole_way_and_back(kind: str, tmp_path: Path) -> None:
    folder, router = tmp_path / "pages", new_router()
    FOLDERS[kind](folder, embedder(kind), PAGES)
    plan = migrate.plan(str(folder), router)
    assert migrate.run(plan).rows == len(PAGES)
    migrate.switch(plan)
    assert migrate.switch(plan, undo=True).surplus == ()
    migrate.switch(str(folder), router)
    migrate.drop_old(plan)
    assert not list(tmp_path.glob("pages-*"))
    with readable(str(folder)) as found:
        assert (found.dimensions(), found.count()) == (8, len(PAGES))


@pytest.mark.parametrize("pair", ["chroma:"])
def test_a_process_that_is_killed_goes_on(pair: str) -> None:
    """While it embeds: after the second of six requests or so."""
    report = play(pair, texts=60, kills=1, batch_size=10, latency=0.3)
    assert report.killed == 1
