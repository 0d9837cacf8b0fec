"""What LangChain and LangGraph build on an embedder: what is embedded, as a document or as a query, and how often.

Each test ends with the bill: the requests that the emulator received, as (model, input type, texts). Documents are
embedded by voyage-4-large and queries by voyage-4-lite, so a query that a framework embeds as a document is seen, and
costs six times as much. With `OpenAIEmbeddings` both look alike.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from embedrouter import Model, Router, tier
from embedrouter.langchain import RouterEmbeddings
from tests.emulator import Emulator

pytestmark = pytest.mark.slow

LARGE, LITE = "voyage-4-large", "voyage-4-lite"
LEAVE = "Parental leave lasts sixteen weeks."
LUNCH = "The canteen serves hot lunch at noon."
ALARM = "The fire alarm is tested on Tuesdays."
HANDBOOK = [Document(text, id=str(number)) for number, text in enumerate([LEAVE, LUNCH, ALARM])]


@pytest.fixture
def embeddings(emulator: Emulator, tmp_path: Path) -> Iterator[RouterEmbeddings]:
    tiers = {LARGE: "high", LITE: "low"}
    models = [Model(f"voyage:{name}", tier=t, base_url=emulator.voyage_url, api_key="any") for name, t in tiers.items()]
    with Router(models, query_tier="low", cache=tmp_path / "cache") as router:
        yield RouterEmbeddings(router)


def bill(emulator: Emulator) -> list[tuple[str | None, str | None, list[str]]]:
    return [(request.model, request.input_type, list(request.texts)) for request in emulator.received]


def documents(*texts: str) -> tuple[str, str, list[str]]:
    return (LARGE, "document", list(texts))


def query(text: str) -> tuple[str, str, list[str]]:
    return (LITE, "query", [text])


class Form:
    """Calls methods in one form; the asynchronous ones in one event loop, with the router closed at its end."""

    def __init__(self, runner: asyncio.Runner | None) -> None:
        self.runner = runner

    def __call__(self, thing: Any, method: str, *arguments: Any, **settings: Any) -> Any:
        if self.runner is None:
            return getattr(thing, method)(*arguments, **settings)
        return self.runner.run(getattr(thing, f"a{method}")(*arguments, **settings), context=copy_context())


@pytest.fixture
def call(asynchronous: bool, embeddings: RouterEmbeddings) -> Iterator[Form]:
    if not asynchronous:
        yield Form(None)
        return
    with asyncio.Runner() as runner:
        yield Form(runner)
        runner.run(embeddings.router.aclose())


# Filling a store


class Full(Exception):
    """The disk of a store is full."""


class Small(InMemoryVectorStore):
    """Has room for a number of documents."""

    room = 2

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **settings: Any) -> list[str]:
        found = super().add_documents(documents, ids, **settings)
        self.check()
        return found

    async def aadd_documents(
        self, documents: list[Document], ids: list[str] | None = None, **settings: Any
    ) -> list[str]:
        found = await super().aadd_documents(documents, ids, **settings)
        self.check()
        return found

    def check(self) -> None:
        if len(self.store) > self.room:
            raise Full


def test_index_pays_for_new_documents_alone(
    embeddings: RouterEmbeddings, emulator: Emulator, asynchronous: bool
) -> None:
    """A second run embeds nothing, and after a run that died in the middle, what was embedded is not paid again."""
    from langchain_core.indexing import InMemoryRecordManager, aindex, index

    manager = InMemoryRecordManager("handbook")
    manager.create_schema()
    store = Small(embeddings)

    def run() -> Any:
        settings: Any = {"cleanup": "incremental", "source_id_key": "s", "key_encoder": "sha256", "batch_size": 2}
        sources = [Document(page.page_content, metadata={"s": page.id}) for page in HANDBOOK]
        if not asynchronous:
            return index(sources, manager, store, **settings)

        async def call() -> Any:
            try:
                return await aindex(sources, manager, store, **settings)
            finally:
                await embeddings.router.aclose()

        return asyncio.run(call())

    with pytest.raises(Full):
        run()
    store.room = 9
    assert run()["num_added"] == 1
    assert run()["num_skipped"] == 3
    assert bill(emulator) == [documents(LEAVE, LUNCH), documents(ALARM)]


def test_a_parents_children_are_documents(embeddings: RouterEmbeddings, emulator: Emulator, call: Form) -> None:
    """ParentDocumentRetriever embeds the pieces, and gives the whole back."""
    from langchain_classic.retrievers import ParentDocumentRetriever
    from langchain_classic.storage import InMemoryStore
    from langchain_text_splitters import CharacterTextSplitter

    retriever = ParentDocumentRetriever(
        vectorstore=InMemoryVectorStore(embeddings),
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(separator="\n", chunk_size=40, chunk_overlap=0),
    )
    whole = Document(f"{LEAVE}\n{LUNCH}")
    call(retriever, "add_documents", [whole])
    assert [found.page_content for found in call(retriever, "invoke", "hot lunch")] == [whole.page_content]
    assert bill(emulator) == [documents(LEAVE, LUNCH), query("hot lunch")]


def test_only_the_summaries_of_a_multi_vector_retriever_are_embedded(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """Also where it searches with MMR."""
    from langchain_classic.retrievers import MultiVectorRetriever
    from langchain_classic.retrievers.multi_vector import SearchType
    from langchain_classic.storage import InMemoryStore

    store, whole = InMemoryVectorStore(embeddings), InMemoryStore()
    retriever = MultiVectorRetriever(vectorstore=store, docstore=whole, id_key="page", search_type=SearchType.mmr)
    call(store, "add_documents", [Document("lunch", metadata={"page": "1"}), Document("leave", metadata={"page": "0"})])
    call(whole, "mset", [(page.id, page) for page in HANDBOOK])
    found = call(retriever, "invoke", "lunch?")
    assert found[0].page_content == LUNCH
    assert bill(emulator) == [documents("lunch", "leave"), query("lunch?")]


def test_a_semantic_chunker_embeds_sentences_as_documents(embeddings: RouterEmbeddings, emulator: Emulator) -> None:
    """None of them stays in an index: the cheap model of the family is enough, and is named in one place."""
    text_splitter = pytest.importorskip("langchain_experimental.text_splitter")
    text = f"{LEAVE} {LUNCH} {ALARM} {LUNCH}"
    chunker = text_splitter.SemanticChunker(embeddings.with_tier("low", documents="low"), buffer_size=0)
    chunks = chunker.split_text(text)

    assert " ".join(chunks) == text
    assert bill(emulator) == [(LITE, "document", [LEAVE, LUNCH, ALARM])]


# Searching


def test_examples_are_documents_and_the_input_is_a_query(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """SemanticSimilarityExampleSelector."""
    from langchain_core.example_selectors import SemanticSimilarityExampleSelector

    examples = [{"input": "happy", "output": "sad"}, {"input": "tall", "output": "short"}]
    selector = call(SemanticSimilarityExampleSelector, "from_examples", examples, embeddings, InMemoryVectorStore, k=1)
    call(selector, "add_example", {"input": "sunny", "output": "rainy"})
    assert call(selector, "select_examples", {"input": "tall"})[0]["output"] == "short"
    assert bill(emulator) == [documents("happy sad", "tall short"), documents("sunny rainy"), query("tall")]


@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")
def test_filters_pay_nothing_for_documents_that_were_indexed(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """EmbeddingsFilter and EmbeddingsRedundantFilter embed what a store has found once more: it is in the cache."""
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline, EmbeddingsFilter
    from langchain_community.document_transformers import EmbeddingsRedundantFilter

    store = InMemoryVectorStore(embeddings)
    call(store, "add_documents", [*HANDBOOK, Document(LUNCH, id="again")])
    redundant, near = EmbeddingsRedundantFilter(embeddings=embeddings), EmbeddingsFilter(embeddings=embeddings, k=2)
    retriever = ContextualCompressionRetriever(
        base_compressor=DocumentCompressorPipeline(transformers=[redundant, near]), base_retriever=store.as_retriever()
    )
    found = call(retriever, "invoke", "hot lunch")
    assert [page.page_content for page in found] == [LUNCH, ALARM]
    assert bill(emulator) == [documents(LEAVE, LUNCH, ALARM), query("hot lunch")]


def test_retrievers_that_are_asked_together_embed_a_question_once(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """EnsembleRetriever over two stores: equal texts of concurrent calls are one request."""
    from langchain_classic.retrievers import EnsembleRetriever

    stores = [InMemoryVectorStore(embeddings), InMemoryVectorStore(embeddings)]
    for store, page in zip(stores, HANDBOOK, strict=False):
        call(store, "add_documents", [page])
    ensemble = EnsembleRetriever(retrievers=[store.as_retriever() for store in stores], weights=[0.5, 0.5])
    assert {page.page_content for page in call(ensemble, "invoke", "hot lunch")} == {LEAVE, LUNCH}
    assert bill(emulator) == [documents(LEAVE), documents(LUNCH), query("hot lunch")]


@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")
def test_a_retriever_that_embeds_documents_as_queries(embeddings: RouterEmbeddings, emulator: Emulator) -> None:
    """KNNRetriever calls embed_query for each text of its own, so all are queries, at the tier of queries."""
    from langchain_community.retrievers import KNNRetriever

    retriever = KNNRetriever.from_texts([LEAVE, LUNCH, ALARM], embeddings, k=1)
    assert retriever.invoke(LUNCH)[0].page_content == LUNCH
    received = bill(emulator)
    assert {(model, kind) for model, kind, _ in received} == {(LITE, "query")}
    assert sorted(text for _, _, texts in received for text in texts) == sorted([LEAVE, LUNCH, ALARM])


def test_a_hypothetical_answer_is_a_document(embeddings: RouterEmbeddings, emulator: Emulator) -> None:
    """HyDE compares it with documents, so LangChain embeds it as one; the question itself is not embedded."""
    from langchain_classic.chains.hyde.base import HypotheticalDocumentEmbedder
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import PromptTemplate

    chain = (
        PromptTemplate.from_template("Answer: {question}") | FakeListChatModel(responses=[LUNCH]) | StrOutputParser()
    )
    hyde = HypotheticalDocumentEmbedder(llm_chain=chain, base_embeddings=embeddings)
    store = InMemoryVectorStore(hyde)
    store.add_documents(HANDBOOK)
    assert store.similarity_search("When can I eat?", k=1)[0].page_content == LUNCH
    assert bill(emulator) == [documents(LEAVE, LUNCH, ALARM)]


# Chains and agents


def test_a_rag_chain_embeds_each_question_once(embeddings: RouterEmbeddings, emulator: Emulator, call: Form) -> None:
    """Invoked, streamed and in a batch, with a question that comes twice."""
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableParallel, RunnablePassthrough

    store = InMemoryVectorStore(embeddings)
    call(store, "add_documents", HANDBOOK)
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    answer = prompt | FakeListChatModel(responses=["At noon."]) | StrOutputParser()
    found = RunnableParallel(context=store.as_retriever(search_kwargs={"k": 1}), question=RunnablePassthrough())
    chain = found.assign(answer=answer)

    result = call(chain, "invoke", "hot lunch")
    assert (result["context"][0].page_content, result["answer"]) == (LUNCH, "At noon.")
    results = call(chain, "batch", ["hot lunch", "parental leave", "parental leave"])
    assert [each["context"][0].page_content for each in results] == [LUNCH, LEAVE, LEAVE]
    assert streamed(chain, "fire alarm", call)["answer"] == "At noon."
    assert bill(emulator) == [
        documents(LEAVE, LUNCH, ALARM),
        query("hot lunch"),
        query("parental leave"),
        query("fire alarm"),
    ]


def streamed(chain: Any, question: str, call: Form) -> dict[str, str]:
    """Return the pieces of a stream, joined."""

    async def read() -> list[Any]:
        return [piece async for piece in chain.astream(question)]

    pieces = list(chain.stream(question)) if call.runner is None else call.runner.run(read())
    joined = ""
    for piece in pieces:
        joined += piece.get("answer", "")
    return {"answer": joined}


def test_an_agent_asks_its_retriever_tool_once_for_a_question(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """In a loop of a model and its tools; ``with tier(…)`` around the agent is the tier of the tool's query."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.tools.retriever import create_retriever_tool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    store = InMemoryVectorStore(embeddings)
    call(store, "add_documents", HANDBOOK)
    search = create_retriever_tool(store.as_retriever(search_kwargs={"k": 1}), "search", "Searches the handbook.")

    def asks(number: int) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "search", "args": {"query": "hot lunch"}, "id": str(number)}])

    model = GenericFakeChatModel(messages=iter([asks(1), asks(2), AIMessage("At noon."), asks(3), AIMessage("Noon.")]))

    def answer(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", answer)
    graph.add_node("tools", ToolNode([search]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    agent = graph.compile()

    messages = call(agent, "invoke", {"messages": [("user", "When is lunch?")]})["messages"]
    assert [message.content for message in messages if message.type == "tool"] == [LUNCH, LUNCH]
    with tier("high"):
        call(agent, "invoke", {"messages": [("user", "When is lunch?")]})
    assert bill(emulator) == [documents(LEAVE, LUNCH, ALARM), query("hot lunch"), (LARGE, "query", ["hot lunch"])]


# Memory, caches, evaluators


def test_langgraphs_store_in_memory_tells_documents_from_queries(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """What is put is a document, what is searched for is a query; a value that is put again costs nothing."""
    from langgraph.store.memory import InMemoryStore

    memory = InMemoryStore(index={"embed": embeddings, "dims": embeddings.space.dimensions, "fields": ["text"]})
    for name in ("one", "two"):
        call(memory, "put", ("me",), name, {"text": LUNCH, "other": LEAVE})
    call(memory, "put", ("me",), "three", {"text": ALARM})
    found = call(memory, "search", ("me",), query="hot lunch", limit=1)
    assert found[0].value["text"] == LUNCH
    assert bill(emulator) == [documents(LUNCH), documents(ALARM), query("hot lunch")]


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "enable_load_extension"), reason="this Python's SQLite loads no extensions"
)
def test_langgraphs_store_in_sqlite_searches_with_documents(
    embeddings: RouterEmbeddings, emulator: Emulator, asynchronous: bool
) -> None:
    """It calls embed_documents for what is searched for, whatever the embedder: the dear model is asked."""
    from langgraph.store.sqlite import SqliteStore
    from langgraph.store.sqlite.aio import AsyncSqliteStore

    # Its documentation names the setting "fields", as that of the other stores
    index: Any = {"embed": embeddings, "dims": embeddings.space.dimensions, "text_fields": ["text"]}

    async def there() -> Any:
        try:
            async with AsyncSqliteStore.from_conn_string(":memory:", index=index) as memory:
                await memory.setup()
                await memory.aput(("me",), "one", {"text": LUNCH})
                return await memory.asearch(("me",), query="hot lunch")
        finally:
            await embeddings.router.aclose()

    if asynchronous:
        found = asyncio.run(there())
    else:
        with SqliteStore.from_conn_string(":memory:", index=index) as memory:
            memory.setup()
            memory.put(("me",), "one", {"text": LUNCH})
            found = memory.search(("me",), query="hot lunch")
    assert found[0].value["text"] == LUNCH
    assert bill(emulator) == [documents(LUNCH), documents("hot lunch")]


def test_a_cache_of_langchains_in_front_keeps_documents(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """CacheBackedEmbeddings; queries pass it by, and are in the router's memory."""
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import InMemoryByteStore

    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace=embeddings.model, key_encoder="sha256"
    )
    for _ in range(2):
        assert len(call(cached, "embed_documents", [LUNCH, LEAVE, LUNCH])) == 3
        call(cached, "embed_query", "hot lunch")
    assert bill(emulator) == [documents(LUNCH, LEAVE), query("hot lunch")]


@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")
def test_evaluators_compare_documents_with_documents(
    embeddings: RouterEmbeddings, emulator: Emulator, call: Form
) -> None:
    """A prediction and a reference are of one kind, so both are embedded alike: the distance of equal texts is 0."""
    from langchain_classic.evaluation import EmbeddingDistanceEvalChain, PairwiseEmbeddingDistanceEvalChain

    distance = EmbeddingDistanceEvalChain(embeddings=embeddings)
    pairs = PairwiseEmbeddingDistanceEvalChain(embeddings=embeddings)
    assert np.isclose(call(distance, "evaluate_strings", prediction=LUNCH, reference=LUNCH)["score"], 0, atol=1e-6)
    found = call(pairs, "evaluate_string_pairs", prediction=LUNCH, prediction_b=LEAVE)
    assert found["score"] > 0.1
    assert bill(emulator) == [documents(LUNCH), documents(LEAVE)]
