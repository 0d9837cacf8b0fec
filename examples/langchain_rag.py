"""Put a router where LangChain expects ``Embeddings``.

The large model embeds the documents and the small model embeds the queries; one call of the chain can request a higher
tier, because ``configurable`` reaches the embedder. The chain ends with the prompt; append your chat model with
``| model``.

Needs VOYAGE_API_KEY and the extra langchain.
"""

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from embedrouter import Model, Router
from embedrouter.langchain import RouterEmbeddings

router = Router(
    [Model("voyage:voyage-4-large", tier="high"), Model("voyage:voyage-4-lite", tier="low")],
    query_tier="low",
)

store = InMemoryVectorStore(RouterEmbeddings(router))
store.add_texts(
    [
        "Employees have thirty days of holiday each year.",
        "Travel expenses are paid back within two weeks.",
        "The office kitchen is cleaned every evening.",
    ]
)


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


prompt = ChatPromptTemplate.from_template("Answer from this context alone:\n{context}\n\nQuestion: {question}")
chain = {"context": store.as_retriever(search_kwargs={"k": 1}) | joined, "question": RunnablePassthrough()} | prompt

print(chain.invoke("When are travel expenses paid back?").to_string())

better = chain.invoke("How many days of holiday?", config={"configurable": {"embedding_tier": "high"}})
print(better.to_string())
print(f"billed: {router.usage.requests} requests, ${router.usage.cost:.8f}")
