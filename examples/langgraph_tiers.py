"""A quality tier for each request of a LangGraph agent, in one index.

Voyage documents that the voyage-4 models share a space. The documents get the large model once. A question gets the
small model, unless the request asks for more, here in ``context=``; an answer says which model was used.

Needs VOYAGE_API_KEY, the extras voyage and langchain, and the package langgraph.
"""

from typing import Any, TypedDict

from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph

from embedrouter import Router
from embedrouter.langchain import RouterEmbeddings, with_tier

router = Router.preset("voyage-4", cache="./cache", ledger="./cache/ledger.db")
store = InMemoryVectorStore.from_texts(
    [
        "The museum is closed on Mondays.",
        "Tickets for the museum can be bought online.",
        "Dogs are allowed in the park.",
    ],
    RouterEmbeddings(router, index="museum"),
)
retriever = with_tier(store.as_retriever(search_kwargs={"k": 1}))


class State(TypedDict, total=False):
    question: str
    found: str


def retrieve(state: State) -> State:
    return {"found": retriever.invoke(state["question"])[0].page_content}


graph: Any = StateGraph(State)
graph.add_node("retrieve", retrieve)
graph.add_edge(START, "retrieve")
graph.add_edge("retrieve", END)
app = graph.compile()

for question, context in (
    ("Where can I buy museum tickets?", None),
    ("On which days is the museum closed?", {"embedding_tier": "high"}),
):
    print(f"{question} {app.invoke({'question': question}, context=context)['found']}")

for model, spent in sorted(router.ledger.totals("model").items()):
    print(f"{model}: {spent}")
