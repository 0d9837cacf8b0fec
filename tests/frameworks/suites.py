"""Which tests of which release run, and which of them are excepted, with the reason.

In all of them these fakes become adapters: every LangChain ``Embeddings`` and LlamaIndex ``BaseEmbedding`` that the
tests themselves define (``FakeEmbeddings``, ``ConsistentFakeEmbeddings``, ``CharacterEmbeddings``,
``AngularTwoDimensionalEmbeddings`` …), and those of ``LIBRARY``.

The source distributions of LlamaIndex (llama-index-core, its stores, llama-index) hold no tests, neither in November
2026 nor in any release before, so those of llama-index-core run from a checkout, if one is given.
langchain-milvus's holds none either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LIBRARY = (
    "langchain_core.embeddings.fake",  # FakeEmbeddings, DeterministicFakeEmbedding; also of langchain-tests' own tests
    "langchain_community.embeddings.fake",  # the same names once more
    "llama_index.core.embeddings.mock_embed_model",  # MockEmbedding
)
"""Modules of the frameworks that define fakes for users."""

BY_POSITION = "its fake makes a vector of the text's position in the list, so that equal texts have different vectors"
CLASS_NAME = "compares the name of the embedder's class"


@dataclass(frozen=True)
class Suite:
    """Tests of one source distribution.

    Attributes:
        distribution: its name on PyPI; the release is the one that is installed.
        paths: files and folders of tests.
        select: an expression for ``pytest -k``.
        name: of the suite, where a distribution has several.
        database: what the tests' own files say of their PostgreSQL server, and what stands in its place; ``{port}`` is
            the port of ours.
        settings: environment variables of the tests; ``{port}`` as above, ``{whose}`` is a database for each run.
        excepted: the reason for each test that passes with their fakes, and need not with ours.
    """

    distribution: str
    paths: tuple[str, ...]
    select: str = ""
    name: str = ""
    database: tuple[str, str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    excepted: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name or self.distribution


HYDE = "its fake answers one text with ten vectors"

SUITES = (
    Suite("langgraph-checkpoint", ("tests/test_store.py",)),
    Suite(
        "langchain-core",
        ("tests/unit_tests/vectorstores", "tests/unit_tests/example_selectors", "tests/unit_tests/embeddings"),
    ),
    Suite("langchain-core", ("tests/unit_tests/indexing",), name="langchain-core-indexing"),
    Suite(
        "langchain-classic",
        (
            "tests/unit_tests/chains/test_hyde.py",
            "tests/unit_tests/embeddings",
            "tests/unit_tests/indexes",
            "tests/unit_tests/retrievers",
            "tests/unit_tests/schema/test_embeddings.py",
        ),
        excepted={
            "tests/unit_tests/chains/test_hyde.py::test_hyde_from_llm": HYDE,
            "tests/unit_tests/chains/test_hyde.py::test_hyde_from_llm_with_multiple_n": HYDE,
        },
    ),
    Suite(
        "langchain-community",
        (
            "tests/unit_tests/embeddings/test_deterministic_embedding.py",
            "tests/unit_tests/retrievers",
            "tests/unit_tests/tools/test_few_shot.py",
            "tests/unit_tests/vectorstores",
        ),
        excepted={
            "tests/unit_tests/vectorstores/test_faiss.py::test_faiss": CLASS_NAME,
            "tests/unit_tests/vectorstores/test_faiss.py::"
            "test_faiss_mmr_with_metadatas_and_comparison_operators_filter_lt": BY_POSITION,
            "tests/unit_tests/vectorstores/test_faiss.py::"
            "test_faiss_mmr_with_metadatas_and_logical_operators_filter_or_2": BY_POSITION,
        },
    ),
    Suite("langchain-chroma", ("tests/unit_tests", "tests/integration_tests")),
    Suite("langchain-qdrant", ("tests/unit_tests", "tests/integration_tests")),
    Suite("langgraph-checkpoint-sqlite", ("tests/test_store.py", "tests/test_async_store.py")),
    Suite(
        "langgraph-checkpoint-postgres",
        ("tests/test_store.py", "tests/test_async_store.py"),
        # the others embed nothing, and wait minutes for what has a time to live; `halfvec` needs a newer pgvector
        select="(vector or embed or scor) and not halfvec",
        database=("localhost:5441", "127.0.0.1:{port}"),
    ),
    Suite(
        "langchain-postgres",
        (
            "tests/unit_tests/v1/test_vectorstore.py",
            "tests/unit_tests/v1/test_vectorstore_standard_tests.py",
            "tests/unit_tests/v2/test_pg_vectorstore.py",
            "tests/unit_tests/v2/test_pg_vectorstore_standard_suite.py",
        ),
        settings={
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": "{port}",
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "{whose}",
        },
    ),
)

LLAMA_INDEX = Suite("llama-index-core", ("tests",))
"""Runs where a checkout is given."""
