"""Both adapters under real vector stores: filled here, opened again in another process, asked at every tier.

Documents are embedded by voyage-4-large, and queries by the family's cheaper members against the same index; the
emulator answers over a socket, with vectors that are close across the family and unrelated across families. Once more
with a real model, WordLlama, where questions share no word with their answers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult, index

from embedrouter import Model, Router, tier
from embedrouter.errors import InvalidInputError, SpaceMismatchError
from embedrouter.stores import guard
from tests.emulator import Emulator
from tests.pairwise import pairwise
from tests.vector_stores import ALL, KINDS, MEASURED, NAME, Place, PostgreSQL, SecondProcess, chroma_client

HOLIDAY = "Employees may take twenty-five days of paid holiday each year."
LAPTOP = "Report a lost laptop to the security desk within one hour."
CANTEEN = "The canteen serves hot lunch from noon until two."
PARENTS = "Parental leave lasts sixteen weeks for both parents."
ALARM = "The fire alarm is tested every Tuesday morning."
BICYCLES = "Bicycles can be parked in the cellar of building four."
SALARIES = "Salaries are paid on the last working day of the month."
HANDBOOK = [
    HOLIDAY,
    LAPTOP,
    CANTEEN,
    PARENTS,
    ALARM,
    BICYCLES,
    SALARIES,
    "Travel expenses are refunded within ten days of the receipt.",
    "Passwords must be changed after a suspected phishing mail.",
    "New colleagues meet their mentor in the first week.",
    "Visitors sign in at the front desk and wear a badge.",
    "Sick notes are due on the third day of absence.",
]
"""Twelve sentences, in the order in which they are filed."""
LIBRARY = "The library lends novels and magazines on the ground floor."
GARDEN = "The roof garden closes at sunset."
"""Two that come later."""

QUESTIONS = {
    "Where can bicycles be parked?": BICYCLES,
    "When was the fire alarm tested?": ALARM,
    "Whom do I tell about a lost laptop?": LAPTOP,
}
"""They share words with their answers, which is what the emulator's vectors go by."""
REPHRASED = {
    "Where do I leave my bike?": BICYCLES,
    "What can I eat at midday?": CANTEEN,
    "When do I get my wages?": SALARIES,
}
"""They share no word with them."""


@pytest.fixture(scope="module")
def second() -> Iterator[SecondProcess]:
    with SecondProcess() as process:
        yield process


SUBJECTS = ("a real model", "later documents", "an older adapter")
ROWS = pairwise(SUBJECTS, KINDS, [False, True])
"""Each subject with each store, in one of the two forms; each store and each subject in both."""


FAST = ("langchain/in-memory", "langchain/faiss", "llama_index/simple", "llama_index/chroma")
"""Of each framework its own store and one that many use; the others are imported in seconds, in both processes."""


def in_each_store(subject: str) -> pytest.MarkDecorator:
    rows = [
        pytest.param(kind, asynchronous, marks=marks(kind), id=f"{kind}-{'async' if asynchronous else 'sync'}")
        for about, kind, asynchronous in ROWS
        if about == subject and (kind in FAST or subject != "a real model")
    ]
    return pytest.mark.parametrize(("place", "asynchronous"), rows, indirect=["place"])


def marks(kind: str) -> list[pytest.MarkDecorator]:
    return [] if kind in FAST else [pytest.mark.slow]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    # pytest closes its own folders to other users, and PostgreSQL is another user where the tests run as root
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # where the package keeps its lock
        with PostgreSQL(Path(folder) / "data") as running:
            yield running


@pytest.fixture(params=[pytest.param(kind, marks=marks(kind)) for kind in KINDS])
def place(request: pytest.FixtureRequest, tmp_path: Path, emulator: Emulator) -> Place:
    found = Place(request.param, tmp_path, emulator.voyage_url)
    if found.kind.endswith("/pgvector"):
        (tmp_path / found.kind).mkdir(parents=True)
        address = request.getfixturevalue("postgresql").new_database()
        (tmp_path / found.kind / "postgresql").write_text(address)
    return found


def fill(place: Place, texts: list[str], embedder: Any = None, *, asynchronous: bool = False) -> None:
    with place.opened(embedder or place.embedder(), asynchronous=asynchronous) as store:
        store.add(texts)


def requests(emulator: Emulator) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    """Return model, input type and texts of every request that a user would know of."""
    return [
        (request.model, request.input_type, request.texts)
        for request in emulator.received
        if request.texts != (MEASURED,)
    ]


# An index is found again, and asked at every tier


def ask_at_every_tier(place: Place, space: str, questions: list[str], asynchronous: bool) -> list[str]:
    """Ask the first question at the router's own tier, the second at the adapter's, and the third at "low" in a block.

    The block is nearest, so it overrides the adapter that says "high".
    """
    default, high, low = questions
    embedder = place.embedder(space)
    with place.opened(embedder, asynchronous=asynchronous) as store:
        found = [store.search(default)[0]]
    with place.opened(embedder.with_tier("high"), asynchronous=not asynchronous) as store:
        found.append(store.search(high)[0])
        with tier("low"):
            found.append(store.search(low)[0])
    return found


MARKED = {
    **dict.fromkeys(
        ("langchain/in-memory", "langchain/faiss", "llama_index/simple", "llama_index/faiss"), "its folder"
    ),
    **dict.fromkeys(("langchain/chroma", "langchain/qdrant", "langchain/pgvector", "llama_index/chroma"), "empty"),
    **dict.fromkeys(("langchain/lancedb", "llama_index/lancedb", "llama_index/qdrant"), "with its first texts"),
    **dict.fromkeys(("langchain/milvus", "llama_index/pgvector"), "with its first texts"),
}
"""When a store takes the mark of its space. The first texts create what the last can hold the mark in; the kinds that
are not here are guarded by the name of the index alone."""


def check(place: Place, space: str, *, adopt: bool = False) -> None:
    """Open the store under the guard that travels with it."""
    embedder = place.embedder(space, index=None)
    if MARKED[place.kind] == "its folder":
        guard(place.folder / place.kind, embedder.router)
    with place.opened(embedder) as store:
        if MARKED[place.kind] != "its folder":
            guard(store.inner, embedder.router, adopt=adopt)


def open_again(place: Place, questions: list[str], asynchronous: bool) -> tuple[int, list[str], list[str]]:
    """Return this process, the answers, and how a router of another space is refused."""
    refusals = []
    with pytest.raises(SpaceMismatchError) as refused:
        place.embedder("voyage-3.5")
    refusals.append(str(refused.value))
    if place.kind in MARKED:
        check(place, "voyage-4")
        with pytest.raises(SpaceMismatchError) as refused:
            check(place, "voyage-3.5")
        refusals.append(str(refused.value))
    return os.getpid(), ask_at_every_tier(place, "voyage-4", questions, asynchronous), refusals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "asynchronous"),
    [pytest.param(kind, number % 2 == 1, id=kind) for number, kind in enumerate(ALL)],
    indirect=["place"],
)
def test_an_index_is_asked_at_every_tier_in_another_process(
    place: Place, second: SecondProcess, emulator: Emulator, asynchronous: bool
) -> None:
    """One index by the best model, queries by three: each finds its document, and each model was really asked.

    The index is filled in both forms and asked in both. A router of another space is refused there: by the record of
    the index, and by the mark in the store itself, also without the record.
    """
    if MARKED.get(place.kind) in ("its folder", "empty"):
        check(place, "voyage-4")
    fill(place, HANDBOOK[:6], asynchronous=asynchronous)
    if MARKED.get(place.kind) == "with its first texts":
        check(place, "voyage-4", adopt=True)
    fill(place, HANDBOOK[6:], asynchronous=not asynchronous)
    process, found, refusals = second.run(open_again, place, list(QUESTIONS), asynchronous)
    default, high, low = QUESTIONS

    assert process != os.getpid()
    assert found == list(QUESTIONS.values())
    assert all("voyage-4 (1024 dimensions)" in said and "voyage-3.5" in said for said in refusals), refusals
    assert requests(emulator) == [
        ("voyage-4-large", "document", tuple(HANDBOOK[:6])),
        ("voyage-4-large", "document", tuple(HANDBOOK[6:])),
        ("voyage-4", "query", (default,)),
        ("voyage-4-large", "query", (high,)),
        ("voyage-4-lite", "query", (low,)),
    ]


@pytest.mark.slow
@in_each_store("a real model")
def test_an_index_of_a_real_model_is_found_again(
    place: Place, second: SecondProcess, emulator: Emulator, asynchronous: bool
) -> None:
    """What no emulator can show: questions in other words than the documents. Nothing leaves the machine."""
    fill(place, HANDBOOK, place.embedder("wordllama"), asynchronous=asynchronous)
    found = second.run(ask_at_every_tier, place, "wordllama", list(REPHRASED), asynchronous)

    assert found == list(REPHRASED.values())
    assert emulator.calls == 0


# An index grows


def add_and_ask(place: Place, texts: list[str], question: str, asynchronous: bool) -> list[str]:
    with place.opened(place.embedder(), asynchronous=asynchronous) as store:
        store.add(texts)
        with tier("low"):
            return store.search(question)


@pytest.mark.slow
@in_each_store("later documents")
def test_documents_that_come_later_land_in_the_same_space(
    place: Place, second: SecondProcess, emulator: Emulator, asynchronous: bool
) -> None:
    """Another process adds them: only texts that are not in the cache are paid for, and all are found side by side."""
    with place.router() as router:
        router.embed([LIBRARY], input_type="document")
    fill(place, HANDBOOK, asynchronous=asynchronous)
    emulator.reset()
    found = second.run(add_and_ask, place, [LIBRARY, GARDEN], "library novels, magazines", asynchronous)

    assert requests(emulator) == [
        ("voyage-4-large", "document", (GARDEN,)),
        ("voyage-4-lite", "query", ("library novels, magazines",)),
    ]
    assert found[0] == LIBRARY
    assert sorted(found) == sorted([*HANDBOOK, LIBRARY, GARDEN])
    with place.opened(place.embedder()) as store:
        assert store.search("When does the roof garden close at sunset?")[0] == GARDEN
        assert store.search("Where can bicycles be parked?")[0] == BICYCLES


@pytest.mark.slow
def test_every_store_after_the_first_is_filled_for_nothing(tmp_path: Path, emulator: Emulator) -> None:
    """Moving to another store, or to the other framework, embeds nothing again."""
    for kind in KINDS:
        fill(Place(kind, tmp_path, emulator.voyage_url), HANDBOOK)

    assert requests(emulator) == [("voyage-4-large", "document", tuple(HANDBOOK))]


def open_and_ask(place: Place, question: str) -> str:
    with place.opened(place.embedder()) as store:
        return store.search(question)[0]


@pytest.mark.slow
def test_what_langchain_qdrant_embeds_to_measure_a_vector_is_paid_once(
    tmp_path: Path, second: SecondProcess, emulator: Emulator
) -> None:
    """It embeds a text of its own as a document whenever a store is opened, also where nothing is added."""
    place = Place("langchain/qdrant", tmp_path, emulator.voyage_url)
    fill(place, HANDBOOK)
    for question, answer in QUESTIONS.items():
        assert second.run(open_and_ask, place, question) == answer

    assert [request.texts for request in emulator.received].count((MEASURED,)) == 1


# Another space is refused


def build_adapter(place: Place, space: str) -> None:
    place.embedder(space)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["langchain/faiss", "llama_index/faiss"], indirect=True)
@pytest.mark.parametrize(("filled", "other"), [("voyage-4", "voyage-3.5"), ("wordllama", "voyage-4 (256)")])
def test_another_process_is_refused_with_a_router_of_another_space(
    place: Place, second: SecondProcess, emulator: Emulator, filled: str, other: str
) -> None:
    """H8: with equal dimensions, so that no store would notice. The store is not opened and nothing is sent."""
    fill(place, HANDBOOK, place.embedder(filled))
    assert place.router(filled).space.dimensions == place.router(other).space.dimensions
    emulator.reset()

    with pytest.raises(SpaceMismatchError, match=r"'handbook'.*embed the documents again"):
        second.run(build_adapter, place, other)
    assert emulator.calls == 0


def fill_there(place: Place, texts: list[str]) -> None:
    fill(place, texts)


@pytest.mark.slow
@in_each_store("an older adapter")
def test_an_adapter_older_than_the_index_is_refused_before_it_adds_or_asks(
    place: Place, second: SecondProcess, emulator: Emulator, asynchronous: bool
) -> None:
    """It was built while the index was empty, then another process filled it. The store stays as it was."""
    older = place.embedder("voyage-3.5")
    second.run(fill_there, place, HANDBOOK)
    emulator.reset()

    with pytest.raises(SpaceMismatchError), place.opened(older, asynchronous=asynchronous) as store:
        store.add([GARDEN])
    with pytest.raises(SpaceMismatchError), place.opened(older, asynchronous=asynchronous) as store:
        store.search("Where can bicycles be parked?")
    assert emulator.calls == 0
    with place.opened(place.embedder()) as store:
        found = store.search("Where can bicycles be parked?")
    assert found[0] == BICYCLES
    assert sorted(found) == sorted(HANDBOOK)


def add_and_ask_unguarded(place: Place, space: str) -> list[str]:
    with place.opened(place.embedder(space, index=None)) as store:
        store.add([GARDEN])
        return [store.search(question)[0] for question in QUESTIONS]


@pytest.mark.slow
def test_no_store_notices_another_space_by_itself(place: Place, second: SecondProcess) -> None:
    """H8: the name of the index is what protects. Without it nothing is raised, and the right documents are lost."""
    fill(place, HANDBOOK, place.embedder(index=None))
    found = second.run(add_and_ask_unguarded, place, "voyage-3.5")

    assert all(text != answer for text, answer in zip(found, QUESTIONS.values(), strict=True))
    with place.opened(place.embedder(index=None)) as store:
        right = store.search("Where can bicycles be parked?")
    assert right[0] == BICYCLES
    assert GARDEN in right


def chromas_own(name: str) -> Any:
    """Return an embedding function as Chroma knows them: it is remembered with the collection, by its name."""
    from chromadb import EmbeddingFunction

    class Named(EmbeddingFunction[Any]):
        def __init__(self) -> None:
            """Chroma warns of functions without one."""

        def __call__(self, input: Any) -> Any:
            raise AssertionError("nothing is embedded here")

        @staticmethod
        def name() -> str:
            return name

        def get_config(self) -> dict[str, Any]:
            return {}

        @staticmethod
        def build_from_config(config: dict[str, Any]) -> Any:
            return Named()

    return Named()


def test_langchain_chroma_switches_chromas_own_check_off(tmp_path: Path, emulator: Emulator) -> None:
    """H8: Chroma holds a collection to the function it was made with; under LangChain it is never told of one."""
    place = Place("langchain/chroma", tmp_path, emulator.voyage_url)
    fill(place, HANDBOOK)

    with chroma_client(tmp_path / place.kind) as client:
        client.create_collection("told", embedding_function=chromas_own("one"))
        with pytest.raises(ValueError, match="conflict"):
            client.get_collection("told", embedding_function=chromas_own("two"))
        assert client.get_collection(NAME, embedding_function=chromas_own("two")).count() == len(HANDBOOK)
    with pytest.raises(SpaceMismatchError):
        place.embedder("voyage-3.5")


# LangChain's indexing API


def index_handbook(place: Place, texts: dict[str, str], space: str = "voyage-4") -> IndexingResult:
    """Bring the store in step with `texts`, by source, as a nightly job would."""
    from langchain_classic.indexes import SQLRecordManager

    documents = [Document(text, metadata={"source": source}) for source, text in texts.items()]
    manager = SQLRecordManager(NAME, db_url=f"sqlite:///{place.folder / 'records.sqlite'}")
    try:
        manager.create_schema()
        with place.opened(place.embedder(space)) as store:
            return index(documents, manager, store.inner, cleanup="full", key_encoder="sha256")
    finally:
        manager.engine.dispose()


@pytest.mark.slow
def test_langchains_indexing_api_pays_for_changed_documents_only(
    tmp_path: Path, second: SecondProcess, emulator: Emulator
) -> None:
    """H7: the record manager knows texts and no models, so the guard is what keeps old and new vectors in one space."""
    place = Place("langchain/chroma", tmp_path, emulator.voyage_url)
    monday = {"leave": HOLIDAY, "canteen": CANTEEN, "alarm": ALARM}
    tuesday = {"leave": HOLIDAY, "canteen": "The canteen is closed for repairs.", "garden": GARDEN}
    wednesday = {**tuesday, "canteen": CANTEEN}
    written = index_handbook(place, monday)
    assert written == {"num_added": 3, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}

    written = second.run(index_handbook, place, tuesday)
    assert written == {"num_added": 2, "num_updated": 0, "num_skipped": 1, "num_deleted": 2}
    written = second.run(index_handbook, place, wednesday)
    assert written == {"num_added": 1, "num_updated": 0, "num_skipped": 2, "num_deleted": 1}
    with pytest.raises(SpaceMismatchError):
        second.run(index_handbook, place, monday, "voyage-3.5")

    assert requests(emulator) == [
        ("voyage-4-large", "document", (HOLIDAY, CANTEEN, ALARM)),
        ("voyage-4-large", "document", ("The canteen is closed for repairs.", GARDEN)),
    ]
    assert second.run(open_and_ask, place, "When is hot lunch served?") == CANTEEN


# What a store asks of its embedder


COLOURS = ["red fox", "blue cat", "red cat house"]
OWNERS = [{"who": "a"}, {"who": "b"}, {"who": "a"}]
IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)]

SCORES: dict[str, Callable[[float], float]] = {
    "langchain/in-memory": lambda cosine: cosine,
    "langchain/chroma": lambda cosine: 2 - 2 * cosine,  # squared distance
    "langchain/faiss": lambda cosine: 2 - 2 * cosine,
    "langchain/qdrant": lambda cosine: cosine,
    "langchain/lancedb": lambda cosine: 2 - 2 * cosine,
    "langchain/milvus": lambda cosine: cosine,
    "langchain/pgvector": lambda cosine: 1 - cosine,
}
"""What each store calls a score, by default, of two vectors of length 1 with this cosine."""

LLAMA_INDEX_SCORES: dict[str, Callable[[float], float]] = {
    "llama_index/simple": lambda cosine: cosine,
    "llama_index/chroma": lambda cosine: math.exp(2 * cosine - 2),
    "llama_index/faiss": lambda cosine: 2 - 2 * cosine,
    "llama_index/qdrant": lambda cosine: cosine,
    "llama_index/lancedb": lambda cosine: math.exp(2 * cosine - 2),
    "llama_index/pgvector": lambda cosine: cosine,
}


def filter_for(kind: str, owner: str) -> dict[str, Any]:
    """Return what finds the texts of an owner, in the words of each store."""
    if kind == "langchain/milvus":
        return {"expr": f"who == '{owner}'"}
    if kind == "langchain/lancedb":
        return {"filter": f"metadata.who = '{owner}'"}
    if kind == "langchain/in-memory":
        return {"filter": lambda document: document.metadata["who"] == owner}
    if kind == "langchain/qdrant":
        from qdrant_client.models import FieldCondition, Filter, MatchValue

        return {"filter": Filter(must=[FieldCondition(key="metadata.who", match=MatchValue(value=owner))])}
    return {"filter": {"who": owner}}


def in_either_form(kinds: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test with each kind, in one form, by turns."""
    rows = [
        pytest.param(kind, number % 2 == 0, id=f"{kind}-{'sync' if number % 2 else 'async'}")
        for number, kind in enumerate(kinds)
    ]
    return pytest.mark.parametrize(("place", "asynchronous"), rows, indirect=["place"])


def cosines(router: Router) -> dict[str, float]:
    """Return the cosines of "red fox" and the texts of `COLOURS`, whose vectors have the length 1."""
    documents = router.embed(COLOURS, input_type="document")
    question = router.embed(["red fox"], input_type="query")
    assert np.allclose(np.linalg.norm([*documents.vectors, *question.vectors], axis=1), 1)
    return dict(zip(COLOURS, documents.vectors @ question.vectors[0], strict=True))


@pytest.mark.slow
@in_either_form(SCORES)
def test_langchains_stores_embed_each_text_once_and_each_question_once(
    place: Place, emulator: Emulator, asynchronous: bool
) -> None:
    """Whatever is done with them. An empty text is refused before anything is paid or stored; deleting and searching
    by a vector, with MMR or without, embeds nothing; vectors have the length 1, so that all scores mean the cosine."""
    embedder = place.embedder()
    ids = {} if place.kind == "langchain/milvus" else {"ids": IDS}  # which gives them itself
    with place.opened(embedder, asynchronous=asynchronous) as store:
        added = store.call("add_texts", COLOURS, metadatas=OWNERS, **ids)
        with pytest.raises(InvalidInputError, match="empty: 1"):
            store.call("add_texts", ["another", ""], metadatas=OWNERS[:2])
        store.call("add_texts", ["same", "same"], metadatas=[{"who": "c"}] * 2)
        assert sorted(store.search("red fox")) == sorted([*COLOURS, "same", "same"])

        found = store.call("similarity_search", "red fox", k=4, **filter_for(place.kind, "b"))
        assert [document.page_content for document in found] == ["blue cat"]
        nearest, _ = store.call("max_marginal_relevance_search", "red fox", k=2)
        assert nearest.page_content == "red fox"
        vector = embedder.embed_query("red fox")
        for method in ("similarity_search_by_vector", "max_marginal_relevance_search_by_vector"):
            assert store.call(method, vector, k=1)[0].page_content == "red fox"
        scores = {
            text.page_content: score for text, score in store.call("similarity_search_with_score", "red fox", k=5)
        }
        for text, cosine in cosines(embedder.router).items():
            assert np.isclose(scores[text], SCORES[place.kind](cosine), atol=1e-5)

        store.call("delete", [added[0]])
        assert "red fox" not in store.search("red fox")
        store.call("add_texts", ["red fox"], metadatas=OWNERS[:1])
        assert store.search("red fox")[0] == "red fox"

    assert requests(emulator) == [
        ("voyage-4-large", "document", tuple(COLOURS)),
        ("voyage-4-large", "document", ("same",)),
        ("voyage-4", "query", ("red fox",)),
    ]


@pytest.mark.slow
@in_either_form(LLAMA_INDEX_SCORES)
def test_llama_indexs_stores_embed_each_text_once_and_each_question_once(
    place: Place, emulator: Emulator, asynchronous: bool
) -> None:
    """The same, by way of LlamaIndex, and with vectors that are cut to 256 dimensions: their length is 1 as well."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters

    def nodes(texts: Iterable[str], owners: Iterable[dict[str, str]]) -> list[TextNode]:
        return [
            TextNode(
                text=text,
                metadata=owner,
                excluded_embed_metadata_keys=["who"],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"source of {text}")},
            )
            for text, owner in zip(texts, owners, strict=True)
        ]

    embedder = place.embedder("voyage-4 (256)")
    with place.opened(embedder, asynchronous=asynchronous) as store:

        def ask(**settings: Any) -> dict[str, Any]:
            retriever = store.inner.as_retriever(**{"similarity_top_k": 10, **settings})
            return {found.text: found.score for found in store.call("retrieve", "red fox", of=retriever)}

        store.call("insert_nodes", nodes(COLOURS, OWNERS))
        with pytest.raises(InvalidInputError, match="empty: 1"):
            store.call("insert_nodes", nodes(["another", ""], OWNERS[:2]))
        store.call("insert_nodes", nodes(["same", "same"], OWNERS[:2]))
        assert set(ask()) == {*COLOURS, "same"}
        for text, cosine in cosines(embedder.router).items():
            assert np.isclose(ask()[text], LLAMA_INDEX_SCORES[place.kind](cosine), atol=1e-5)
        assert "red fox" in ask(similarity_top_k=2, vector_store_query_mode="mmr")
        if place.kind != "llama_index/faiss":  # which has neither filters nor deletion
            filters = MetadataFilters(filters=[ExactMatchFilter(key="who", value="b")])
            assert set(ask(filters=filters)) == {"blue cat", "same"}
        if place.kind not in ("llama_index/faiss", "llama_index/lancedb"):  # whose SQL LanceDB 0.40 refuses
            store.call("delete_ref_doc", "source of red fox")
            assert "red fox" not in ask()
            store.call("insert_nodes", nodes(["red fox"], OWNERS[:1]))
            assert "red fox" in ask()

    assert requests(emulator) == [
        ("voyage-4-large", "document", tuple(COLOURS)),
        ("voyage-4-large", "document", ("same",)),
        ("voyage-4", "query", ("red fox",)),
    ]


# Many texts


HANDED_OVER: dict[str, list[int]] = {
    "langchain/in-memory": [1100],
    "langchain/chroma": [1100],
    "langchain/faiss": [1100],
    "langchain/qdrant": [64, 64, 2],  # batch_size=64 of add_texts
    "langchain/lancedb": [1100],
    "langchain/milvus": [1100],
    "langchain/pgvector": [1100],
    "llama_index/simple": [2048, 52],  # insert_batch_size=2048 of the index
    "llama_index/pgvector": [2048, 52],
}
"""How many texts a store hands to its embedder at once: LlamaIndex cuts them itself, so it is tried with two stores.
Qdrant without a server writes one by one, so it gets few."""


@pytest.mark.slow
@in_either_form(HANDED_OVER)
def test_many_texts_keep_their_places(place: Place, asynchronous: bool) -> None:
    """Each text is found by its own vector, whatever the batches of the framework."""
    texts = [f"page {number} of the handbook" for number in range(sum(HANDED_OVER[place.kind]))]
    vectors = np.random.default_rng(0).standard_normal((len(texts), 8)).tolist()
    known = dict(zip(texts, vectors, strict=True))
    batches: list[int] = []

    def embed(batch: list[str]) -> list[list[float]]:
        """Documents and questions alike: a page is nearest to itself."""
        if batch != [MEASURED]:
            batches.append(len(batch))
        return [known.get(text, [1.0] * 8) for text in batch]

    router = Router([Model.wrap(embed, name="wrapped:pages", space="pages", dimensions=8, batch_size=4096)], cache=None)
    with place.opened(place.adapter(router), asynchronous=asynchronous) as store:
        store.add(texts)
        assert batches == HANDED_OVER[place.kind]
        for text in {texts[0], texts[63], texts[64], *texts[2047:2049], texts[-1]}:
            assert store.search(text)[0] == text
