"""RAG in LlamaIndex: a router where LlamaIndex expects a ``BaseEmbedding``.

A second build of the index costs nothing, because every vector is in the router's cache. The retriever returns nodes
with scores; a query engine passes the nodes to your language model. With an API's model:
python examples/llama_index_rag.py openai:text-embedding-3-small

Needs the extras llama-index and wordllama, and no key.
"""

import sys

from llama_index.core import Document, VectorStoreIndex

from embedrouter.llama_index import RouterEmbedding

model = sys.argv[1] if len(sys.argv) > 1 else "wordllama:l2_supercat_256"
embed_model = RouterEmbedding(model, index="handbook", cache="./cache", ledger="./cache/ledger.db")

documents = [
    Document(text="Employees have thirty days of holiday each year."),
    Document(text="Travel expenses are paid back within two weeks."),
    Document(text="The office kitchen is cleaned every evening."),
]

for build in ("first", "second"):
    before = embed_model.router.usage.requests
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    print(f"{build} build: {embed_model.router.usage.requests - before} requests")

retriever = index.as_retriever(similarity_top_k=1)
for found in retriever.retrieve("When are travel expenses paid back?"):
    print(f"{found.score:.2f} {found.text}")
