"""Whatever in langchain-classic takes a retriever, or is one: it takes ours, and the query has the tier asked for.

    what is built × the retriever inside × a way to ask × a form of the call

The table is held against the source of langchain-classic: a class or function with a retriever that is in neither of
the two tables fails a test.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_classic.chains import (
    ConversationalRetrievalChain,
    FlareChain,
    LLMChain,
    RetrievalQA,
    RetrievalQAWithSourcesChain,
    StuffDocumentsChain,
    create_history_aware_retriever,
    create_retrieval_chain,
)
from langchain_classic.chains.router.multi_retrieval_qa import MultiRetrievalQAChain
from langchain_classic.memory import ConversationVectorStoreTokenBufferMemory, VectorStoreRetrieverMemory
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MergerRetriever,
    MultiQueryRetriever,
    MultiVectorRetriever,
    ParentDocumentRetriever,
    RePhraseQueryRetriever,
    SelfQueryRetriever,
    TimeWeightedVectorStoreRetriever,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableLambda
from langchain_core.stores import InMemoryStore
from langchain_core.structured_query import StructuredQuery, Visitor
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever
from langchain_text_splitters import CharacterTextSplitter
from langgraph.graph import END, START, StateGraph

from embedrouter import Router, TieredRouter, tier
from embedrouter.langchain import RouterEmbeddings, TieredRetriever, with_tier
from embedrouter.testing import FakeBackend
from tests.pairwise import pairwise
from tests.tier_backends import TierBackends

pytestmark = pytest.mark.filterwarnings("ignore:The apredict_and_parse method is deprecated")

Step = Runnable[Any, Any]
Build = Callable[[Any], Step]


class Scored(InMemoryVectorStore):
    """A store with relevance scores, which two retrievers ask for."""

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return abs


class Model(FakeListLLM):
    """A language model that answers in turn, and counts without a tokenizer."""

    def get_num_tokens(self, text: str) -> int:
        return len(text.split())


class AsTheyCome(BaseDocumentCompressor):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
        return documents


class Untranslated(Visitor):
    """Translates queries without filters."""

    def visit_operation(self, operation: Any) -> Any:
        raise NotImplementedError

    def visit_comparison(self, comparison: Any) -> Any:
        raise NotImplementedError

    def visit_structured_query(self, structured_query: StructuredQuery) -> Any:
        return structured_query.query, {}


def model(*answers: str) -> Model:
    return Model(responses=list(answers or ("an answer",)))


def remembering(memory: Any) -> Step:
    async def aload(inputs: dict[str, Any]) -> Any:
        return await memory.aload_memory_variables(inputs)

    return RunnableLambda(lambda inputs: memory.load_memory_variables(inputs), afunc=aload)


SHOWN = PromptTemplate.from_template("{page_content}")
ASKED = PromptTemplate.from_template("{question}")


def stuffed() -> StuffDocumentsChain:
    llm_chain = LLMChain(llm=model(), prompt=PromptTemplate.from_template("{context}"))
    return StuffDocumentsChain(llm_chain=llm_chain, document_prompt=SHOWN, document_variable_name="context")


def conversation(retriever: BaseRetriever) -> Step:
    generator = LLMChain(llm=model("two"), prompt=ASKED)
    return ConversationalRetrievalChain(
        retriever=retriever, combine_docs_chain=stuffed(), question_generator=generator, response_if_no_docs_found="-"
    )


def flare(retriever: BaseRetriever) -> Step:
    import numpy as np
    from langchain_core.messages import AIMessage

    doubtful = AIMessage("x", response_metadata={"logprobs": {"content": [{"token": "x", "logprob": np.log(0.01)}]}})
    return FlareChain(
        retriever=retriever,
        question_generator_chain=RunnableLambda(lambda _: "two"),
        response_chain=RunnableLambda[Any, Any](lambda asked: "FINISHED" if asked["context"] else doubtful),
    )


def routed(retriever: BaseRetriever) -> Step:
    decision = '```json\n{"destination": "docs", "next_inputs": "two"}\n```'
    infos = [{"name": "docs", "description": "all", "retriever": retriever}]
    return MultiRetrievalQAChain.from_retrievers(
        model(decision, "an answer"), infos, default_retriever=retriever, default_chain_llm=model()
    )


def whole(documents: Any) -> Any:
    return documents


@dataclass(frozen=True)
class Row:
    """Something that takes a retriever."""

    build: Build
    input: Any = "one"
    of_store: bool = False
    """Whether the class is built of a vector store, and its object is the retriever that is wrapped."""
    store_retriever: bool = False
    """Whether the class takes a VectorStoreRetriever only."""
    synchronous_alone: bool = False
    passes: bool = False
    """Whether the configuration of a direct call is passed to the retriever."""
    in_context: bool = True
    """Whether the configuration is in the context, too, where the embedder of a plain retriever looks."""


QUESTION = {"input": "one", "chat_history": []}
TABLE: dict[str, Row] = {
    # retrievers around retrievers
    "ContextualCompressionRetriever": Row(
        lambda r: ContextualCompressionRetriever(base_retriever=r, base_compressor=AsTheyCome())
    ),
    "EnsembleRetriever": Row(
        lambda r: EnsembleRetriever(retrievers=[r, r], weights=[0.5, 0.5]), passes=True, in_context=False
    ),
    "MergerRetriever": Row(lambda r: MergerRetriever(retrievers=[r, r])),
    "MultiQueryRetriever": Row(lambda r: MultiQueryRetriever.from_llm(r, model("two\nthree"), include_original=True)),
    "RePhraseQueryRetriever": Row(lambda r: RePhraseQueryRetriever.from_llm(r, model("two")), synchronous_alone=True),
    # retrievers over stores
    "MultiVectorRetriever": Row(lambda s: MultiVectorRetriever(vectorstore=s, docstore=InMemoryStore()), of_store=True),
    "ParentDocumentRetriever": Row(
        lambda s: ParentDocumentRetriever(
            vectorstore=s, docstore=InMemoryStore(), child_splitter=CharacterTextSplitter()
        ),
        of_store=True,
    ),
    "SelfQueryRetriever": Row(
        lambda s: SelfQueryRetriever(
            vectorstore=s,
            llm_chain=RunnableLambda(lambda _: StructuredQuery(query="two", filter=None, limit=None)),
            structured_query_translator=Untranslated(),
        ),
        of_store=True,
    ),
    "TimeWeightedVectorStoreRetriever": Row(lambda s: TimeWeightedVectorStoreRetriever(vectorstore=s), of_store=True),
    # chains
    "ConversationalRetrievalChain": Row(conversation, {"question": "one", "chat_history": [("a", "b")]}),
    "FlareChain": Row(flare, {"user_input": "one"}, synchronous_alone=True),
    "MultiRetrievalQAChain": Row(routed, {"input": "one"}),
    "RetrievalQA": Row(lambda r: RetrievalQA(retriever=r, combine_documents_chain=stuffed()), {"query": "one"}),
    "RetrievalQAWithSourcesChain": Row(
        lambda r: RetrievalQAWithSourcesChain(retriever=r, combine_documents_chain=stuffed()), {"question": "one"}
    ),
    "create_history_aware_retriever": Row(
        lambda r: create_history_aware_retriever(model("two"), r, ChatPromptTemplate.from_template("{input}")),
        {"input": "one", "chat_history": [HumanMessage("before")]},
        passes=True,
    ),
    "create_retrieval_chain": Row(
        lambda r: create_retrieval_chain(r, RunnableLambda(lambda _: "an answer")), QUESTION, passes=True
    ),
    "create_retriever_tool": Row(lambda r: create_retriever_tool(r, "search", "Searches."), passes=True),
    # memories
    "VectorStoreRetrieverMemory": Row(
        lambda r: remembering(VectorStoreRetrieverMemory(retriever=r)),
        {"prompt": "one"},
        store_retriever=True,
        passes=True,
    ),
    "ConversationVectorStoreTokenBufferMemory": Row(
        lambda r: remembering(ConversationVectorStoreTokenBufferMemory(retriever=r, llm=model())),
        {"prompt": "one"},
        store_retriever=True,
        passes=True,
    ),
}
NOT_IN_THE_TABLE = {
    "ChatVectorDBChain": "takes a vector store, and asks its embedder without a retriever",
    "VectorDBQA": "the same",
}


def test_the_table_has_all_that_takes_a_retriever() -> None:
    """Every class that is a retriever or has a field for one, and every function with a parameter for one."""
    spec = find_spec("langchain_classic")
    assert spec is not None
    assert spec.origin is not None
    found = {"create_retriever_tool"}  # of langchain-core, which langchain-classic hands on
    for path in Path(spec.origin).parent.rglob("*.py"):
        if "Retriev" in (source := path.read_text()):
            found.update(with_a_retriever(ast.parse(source)))

    assert found == TABLE.keys() | NOT_IN_THE_TABLE.keys()


def with_a_retriever(tree: ast.Module) -> Iterator[str]:
    def named(annotation: ast.expr | None) -> bool:
        return annotation is not None and "Retriever" in ast.unparse(annotation)

    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields = any(isinstance(part, ast.AnnAssign) and named(part.annotation) for part in node.body)
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            given = any(named(argument.annotation) for method in methods for argument in method.args.args)
            bases = any("Retriev" in ast.unparse(base) for base in node.bases)
            if (fields or given or bases) and not node.name.startswith("_"):
                yield node.name
        elif isinstance(node, ast.FunctionDef) and any(named(argument.annotation) for argument in node.args.args):
            yield node.name


# The retriever inside


class World(TierBackends):
    """Three tiers of one space in one store, and a store of its own for each of two spaces."""

    def __init__(self) -> None:
        super().__init__()
        router = Router(self.models(), cache=None, cache_memory=0, ledger=":memory:", query_tier="medium")
        self.store = Scored(RouterEmbeddings(router))
        self.spaces = {name: FakeBackend(space=name) for name in ("low", "high")}
        routers = {
            name: Router([backend.model(f"other:{name}")], cache=None, cache_memory=0, ledger=":memory:")
            for name, backend in self.spaces.items()
        }
        self.tiered = TieredRetriever.from_router(TieredRouter(routers), k=1)
        self.store.add_texts(["a", "b"])
        self.tiered.add_texts(["a", "b"])

    def asked(self) -> set[str]:
        """Return the tiers of the queries that were embedded since the last call."""
        names: set[str] = set()
        for name, backend in [*self.backends.items(), *self.spaces.items()]:
            names.update(name for call in backend.calls if call.input_type == "query")
            backend.calls.clear()
        return names


@pytest.fixture(scope="module")
def world() -> World:
    return World()


RETRIEVERS: dict[str, Callable[[World], BaseRetriever]] = {
    "a plain retriever": lambda world: world.store.as_retriever(),
    "with_tier(…)": lambda world: with_tier(world.store.as_retriever()),
    "a TieredRetriever": lambda world: world.tiered,
    "with_tier(a TieredRetriever)": lambda world: with_tier(world.tiered),
}


def built(name: str, inside: str, world: World) -> Step:
    row = TABLE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if not row.of_store:
            return row.build(RETRIEVERS[inside](world))
        retriever = row.build(world.store)
    return with_tier(retriever) if inside == "with_tier(…)" else retriever


def fits(name: str, inside: str, asynchronous: bool = False) -> bool:
    row = TABLE[name]
    tiered = "TieredRetriever" in inside
    return not (tiered and (row.of_store or row.store_retriever)) and not (asynchronous and row.synchronous_alone)


# Ways to ask for the tier "low"

CONFIGURED: RunnableConfig = {"configurable": {"embedding_tier": "low"}}
CONTEXT = {"embedding_tier": "low"}


class State(TypedDict):
    value: Any


def node(step: Step) -> Step:
    """Return a graph whose node calls a chain without a configuration."""

    async def acall(state: State) -> State:
        await step.ainvoke(state["value"])
        return state

    builder = StateGraph(State)
    builder.add_node("node", RunnableLambda(lambda state: (step.invoke(state["value"]), state)[1], afunc=acall))
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


@dataclass(frozen=True)
class Way:
    wrap: Callable[[Step], Step] = whole
    input: Callable[[Any], Any] = whole
    settings: dict[str, Any] = field(default_factory=dict)
    block: bool = False


WAYS = {
    "with tier(…)": Way(block=True),
    "with_tier(chain)": Way(with_tier, settings={"config": CONFIGURED}),
    "a step's configuration": Way(
        lambda step: RunnableLambda(itemgetter("value")) | RunnableLambda(lambda value: step.invoke(value)),
        lambda value: {"value": value},
        {"config": CONFIGURED},
    ),
    "configurable of a graph": Way(node, lambda value: {"value": value}, {"config": CONFIGURED}),
    "the context of a graph": Way(node, lambda value: {"value": value}, {"context": CONTEXT}),
}


def call(step: Step, value: Any, asynchronous: bool, **settings: Any) -> Any:
    return asyncio.run(step.ainvoke(value, **settings)) if asynchronous else step.invoke(value, **settings)


@pytest.mark.parametrize(
    ("name", "inside", "way", "form"),
    pairwise(TABLE, RETRIEVERS, WAYS, ("sync", "async"), allowed=lambda n, i, w, f: fits(n, i, f == "async")),
)
def test_the_tier_is_that_asked_for(world: World, name: str, inside: str, way: str, form: str) -> None:
    row, asks = TABLE[name], WAYS[way]
    world.asked()
    step = asks.wrap(built(name, inside, world))
    with tier("low") if asks.block else nullcontext():
        call(step, asks.input(row.input), form == "async", **asks.settings)

    assert world.asked() == {"low"}


def test_what_langchain_drops_is_noticed(world: World) -> None:
    """A configuration of a direct call: where no retriever is given it, only the wrapper around all of it reads it."""
    found, expected = {}, {}
    world.asked()
    for name, inside in ((name, inside) for name in TABLE for inside in RETRIEVERS if fits(name, inside)):
        row = TABLE[name]
        reaches = row.passes and (row.in_context or inside != "a plain retriever")
        reaches = reaches or (row.of_store and inside == "with_tier(…)")
        expected[name, inside] = {"low" if reaches else "high" if "Tiered" in inside else "medium"}
        built(name, inside, world).invoke(row.input, CONFIGURED)
        found[name, inside] = world.asked()

    assert found == expected


# with_tier(retriever) is a retriever


def test_a_wrapped_retriever_is_one_with_the_attributes_that_it_had(world: World) -> None:
    """Read and set in the retriever itself, whichever of the two is changed."""
    plain = world.store.as_retriever(search_kwargs={"k": 1}, tags=["t"])
    wrapped = with_tier(plain)

    assert isinstance(wrapped, VectorStoreRetriever)
    assert wrapped.vectorstore is world.store
    assert wrapped.tags is plain.tags
    assert not hasattr(wrapped, "nothing")
    plain.search_kwargs = {"k": 2}
    assert wrapped.search_kwargs == {"k": 2}
    wrapped.search_kwargs = {"k": 1}
    assert len(plain.invoke("q")) == 1
    wrapped.search_kwargs["k"] = 2
    assert len(wrapped.invoke("q")) == 2
    assert wrapped.add_documents([Document("c", id="c")]) == ["c"]
    world.store.delete(["c"])
    assert with_tier(world.tiered).stores == world.tiered.stores
    assert not isinstance(with_tier(world.tiered), VectorStoreRetriever)


def test_a_wrapped_retriever_is_copied_and_travels(world: World) -> None:
    world.asked()
    wrapped: Any = with_tier(world.store.as_retriever(search_kwargs={"k": 1}), "low")
    for copied in (
        copy.copy(wrapped),
        copy.deepcopy(wrapped),
        wrapped.model_copy(),
        pickle.loads(pickle.dumps(wrapped)),
    ):
        assert isinstance(copied, VectorStoreRetriever)
        assert copied.search_kwargs == {"k": 1}
        assert "'low')" in repr(copied)
    copy.copy(wrapped).invoke("q")
    assert world.asked() == {"low"}


def test_a_wrapped_retriever_can_be_configured(world: World) -> None:
    """As the retriever itself can be."""
    step: Any = with_tier(world.store.as_retriever(), "low").configurable_fields(
        search_kwargs=ConfigurableField("search")
    )
    world.asked()

    assert len(step.invoke("q", {"configurable": {"search": {"k": 1}}})) == 1
    assert world.asked() == {"low"}
