"""RAG in LangChain: a router where LangChain expects ``Embeddings``, in a vector store, a retriever and a chain.

The chain ends with the prompt; append your chat model with ``| model``. With an API's model:
python examples/langchain_rag.py openai:text-embedding-3-small

Needs the extras langchain and wordllama, and no key.
"""

import sys

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from embedrouter.langchain import RouterEmbeddings

model = sys.argv[1] if len(sys.argv) > 1 else "wordllama:l2_supercat_256"
embeddings = RouterEmbeddings(model, index="handbook", budget="1.00/day", cache="./cache", ledger="./cache/ledger.db")

store = InMemoryVectorStore(embeddings)
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
print(embeddings.router.ledger.totals("model"))
