"""Test your own code without a network, a key, a bill or a wait: ``python -m pytest examples/test_without_network.py``.

``FakeBackend`` is a model whose vectors depend on the text alone. Its outcomes can be scripted: a rate limit, an
outage, a wrong key. The router around it is the real one, with its cache, retries, limits and ledger.

Needs the extra langchain and pytest, and no key.
"""

from langchain_core.vectorstores import InMemoryVectorStore

from embedrouter import Router
from embedrouter.errors import AuthenticationError, NoModelAvailableError, RateLimitedError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.testing import NO_WAITING, FakeBackend


def index_pages(embeddings: RouterEmbeddings, pages: list[str]) -> InMemoryVectorStore:
    """Your code: it takes an embedder, as the framework's stores do."""
    return InMemoryVectorStore.from_texts(pages, embeddings)


def test_equal_pages_are_sent_once() -> None:
    fake = FakeBackend(dimensions=8)
    with Router([fake.model()], cache=None, ledger=":memory:") as router:
        index_pages(RouterEmbeddings(router), ["a page", "another page", "a page"])

        assert [call.texts for call in fake.calls] == [("a page", "another page")]


def test_a_rate_limit_is_waited_out() -> None:
    fake = FakeBackend(dimensions=8, outcomes=[RateLimitedError("slow down"), None])
    with Router([fake.model()], cache=None, ledger=":memory:", retry=NO_WAITING) as router:
        store = index_pages(RouterEmbeddings(router), ["a page"])

        assert store.similarity_search("a page", k=1)[0].page_content == "a page"
        assert len(fake.calls) == 3  # refused, repeated, and the query


def test_a_wrong_key_is_an_error_and_no_retry() -> None:
    fake = FakeBackend(dimensions=8, outcomes=[AuthenticationError("wrong key")])
    with Router([fake.model()], cache=None, ledger=":memory:", retry=NO_WAITING) as router:
        try:
            index_pages(RouterEmbeddings(router), ["a page"])
        except (AuthenticationError, NoModelAvailableError):
            pass
        else:
            raise AssertionError("no error")
        assert len(fake.calls) == 1
