"""Put a router where LlamaIndex expects a ``BaseEmbedding``.

A second build of the index costs nothing, because every vector is in the router's cache. The retriever returns nodes
with scores; a query engine passes the nodes to your language model.

Needs OPENAI_API_KEY and the extra llama-index.
"""

from llama_index.core import Document, VectorStoreIndex

from embedrouter import Router
from embedrouter.llama_index import RouterEmbedding

router = Router(["openai:text-embedding-3-small"])
embed_model = RouterEmbedding(router=router)

documents = [
    Document(text="Employees have thirty days of holiday each year."),
    Document(text="Travel expenses are paid back within two weeks."),
    Document(text="The office kitchen is cleaned every evening."),
]

for build in ("first", "second"):
    before = router.usage.requests
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    print(f"{build} build: {router.usage.requests - before} requests")

retriever = index.as_retriever(similarity_top_k=1)
for found in retriever.retrieve("When are travel expenses paid back?"):
    print(f"{found.score:.2f} {found.text}")
