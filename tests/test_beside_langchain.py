"""LangChain's own embedders and the router at the same servers: the same texts go out, the same vectors come back.

Each embedder sends what its maker wrote; the emulator answers both. What differs is told: a router asks for numbers in
a shorter form where the server has one, forbids that texts are cut, and tells documents from queries where the model
does.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, Router
from embedrouter.langchain import RouterEmbeddings
from tests.emulator import Emulator

KEY = "a-key"
TEXTS = [f"paragraph {number} about ferries" for number in range(30)]
FORM = {"encoding_format", "embedding_type", "truncate"}
"""Fields about the form of an answer, and about what is refused."""


def mistral(emulator: Emulator) -> Any:
    pytest.importorskip("langchain_mistralai")
    from langchain_mistralai import MistralAIEmbeddings

    kind: Any = MistralAIEmbeddings
    with pytest.warns(UserWarning, match="tokenizer"):  # of the hub, which is not reachable
        return kind(endpoint=f"{emulator.url_of('mistral')}/", mistral_api_key=KEY)


def ollama(emulator: Emulator) -> Any:
    pytest.importorskip("langchain_ollama")
    from langchain_ollama import OllamaEmbeddings

    return OllamaEmbeddings(model="all-minilm", base_url=emulator.url_of("ollama"))


def jina(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the package, whose maintenance ends
        from langchain_community.embeddings import jina as module
    monkeypatch.setattr(module, "JINA_API_URL", f"{emulator.url_of('jina')}/embeddings")
    kind: Any = module.JinaEmbeddings
    return kind(jina_api_key=KEY, model_name="jina-embeddings-v2-base-en")


def router(emulator: Emulator, name: str) -> Router:
    key: dict[str, Any] = {} if name.startswith("ollama") else {"api_key": KEY}
    return Router([Model(name, base_url=emulator.url_of(name.partition(":")[0]), **key)], cache=None, ledger=":memory:")


def bodies(emulator: Emulator, since: int) -> list[dict[str, Any]]:
    """Return what requests said, besides the form of answers."""
    return [
        {name: value for name, value in received.fields.items() if name not in FORM and _says(value)}
        for received in emulator.received[since:]
    ]


def _says(value: Any) -> bool:
    """Return whether a field says anything: some clients send fields without a value, alone or in a table."""
    return any(map(_says, value.values())) if isinstance(value, dict) else value is not None


def joined(requests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return requests as one, with all texts."""
    texts = [text for request in requests for text in request["input"]]
    [rest] = {tuple((name, value) for name, value in sorted(body.items()) if name != "input") for body in requests}
    return dict(rest) | {"input": sorted(texts)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(mistral, "mistral:mistral-embed"), (ollama, "ollama:all-minilm"), (jina, "jina:jina-embeddings-v2-base-en")],
    ids=["mistral", "ollama", "jina"],
)
def test_the_same_bodies_and_the_same_vectors(
    theirs: Callable[..., Any], ours: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = theirs(emulator, monkeypatch) if theirs is jina else theirs(emulator)
    documents, query = embedder.embed_documents(TEXTS * 3), embedder.embed_query("when does the ferry leave?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # they leave their connections open
        del embedder
        gc.collect()
    asked = emulator.calls
    with router(emulator, ours) as own:
        adapter = RouterEmbeddings(own)
        assert np.allclose(adapter.embed_documents(TEXTS * 3), documents, atol=1e-7)
        assert np.allclose(adapter.embed_query("when does the ferry leave?"), query, atol=1e-7)

    before, after = bodies(emulator, 0)[:asked], bodies(emulator, asked)
    assert len(after) <= len(before)
    assert joined(after[:-1])["input"] == sorted(TEXTS), "each distinct text is paid once"
    assert {**joined(before[:-1]), "input": sorted(TEXTS)} == joined(after[:-1])
    assert before[-1] == after[-1]
