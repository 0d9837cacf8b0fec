"""LangChain's own standard tests of the LangChain adapter."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from embedrouter import Router
from embedrouter.langchain import RouterEmbeddings
from embedrouter.testing import FakeBackend


class TestStandardUnit(EmbeddingsUnitTests):
    """LangChain's unit tests for every embedder."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return RouterEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"router": Router([FakeBackend().model()], cache=None)}


class TestStandardIntegration(EmbeddingsIntegrationTests):
    """LangChain's integration tests, with a real model: the embedded default."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return RouterEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"router": Router(["wordllama:l2_supercat_256"], cache=None)}
