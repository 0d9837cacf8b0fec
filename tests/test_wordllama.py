"""WordLlama, the embedded default, with its real model."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import providers
from embedrouter.errors import ConfigError, InputRejectedError
from embedrouter.models import Model
from embedrouter.providers import wordllama as words
from tests.in_process import TEXTS, backend_of, described, run

pytest.importorskip("wordllama")

WORDLLAMA = Model("wordllama:l2_supercat_256")


@pytest.fixture(scope="session")
def library() -> Any:
    """Return the package's own model, loaded offline."""
    import wordllama

    if version("wordllama").startswith("0.2."):
        pytest.skip("this release cannot load its own model offline")
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


@pytest.mark.parametrize("dimensions", [256, 128, 64])
def test_wordllama_vectors_are_the_librarys(library: Any, dimensions: int) -> None:
    """We read its files and average its rows ourselves."""
    texts = [*TEXTS, *(" ".join(TEXTS[: n % 5 + 1] * (n % 7 + 1)) for n in range(200))]
    answer = backend_of(WORDLLAMA, dimensions).embed(texts, "document", timeout=1)
    expected = library.embed(texts)[:, :dimensions]

    assert answer.vectors.dtype == np.float32
    assert answer.vectors.flags.c_contiguous
    np.testing.assert_allclose(answer.vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert answer.tokens == sum(len(ids) for ids in library.tokenizer.encode_batch(texts, add_special_tokens=False)) - (
        sum(encoding.attention_mask.count(0) for encoding in library.tokenize(texts))
    )


def test_wordllama_knows_a_vector_for_every_character() -> None:
    """White space is sent, so it must come back as a vector; no character of Unicode is without one."""
    texts = ["\n", "\x00", " ", "\u200b", "\ufeff", "🎉", "   ", "\u3000", "\x7f", "\U0010ffff"]
    texts += [chr(code) for code in range(1, 0x30000, 7) if not 0xD800 <= code < 0xE000]
    vectors = backend_of(WORDLLAMA).embed(texts, "query", timeout=1).vectors

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_wordllama_refuses_an_empty_text() -> None:
    """The library returns NaN, which a vector store would keep."""
    with pytest.raises(InputRejectedError) as caught:
        backend_of(WORDLLAMA).embed(["a", "", "b", ""], "document", timeout=1)
    assert caught.value.indices == (1, 3)


def test_wordllamas_vector_of_a_text_does_not_depend_on_the_texts_beside_it() -> None:
    """To the last bit, of short texts and of long ones."""
    backend = backend_of(WORDLLAMA)
    texts = [f"number {number} " * (number % 40 + 1) for number in range(600)]
    together = backend.embed(texts, "document", timeout=1)
    alone = [backend.embed([text], "document", timeout=1) for text in texts]

    np.testing.assert_array_equal(together.vectors, np.concatenate([answer.vectors for answer in alone]))
    assert together.tokens == sum(answer.tokens or 0 for answer in alone)
    assert max(answer.tokens or 0 for answer in alone) > 64 > min(answer.tokens or 0 for answer in alone)


def test_wordllama_is_symmetric_and_free() -> None:
    """One vector serves both input types."""
    description, candidate = described(WORDLLAMA)
    backend = providers.create(WORDLLAMA, description, candidate)
    asked = backend.embed(["a text"], "query", timeout=1).vectors

    np.testing.assert_array_equal(asked, backend.embed(["a text"], "document", timeout=1).vectors)
    assert candidate.symmetric
    assert candidate.local
    assert candidate.price == Decimal(0)
    assert backend.count(["a text"], "document").exact is False


def test_wordllama_loads_without_side_effects() -> None:
    """Its package would install a log handler on the root logger; torch and the network are not touched either."""
    printed = run(
        """
        import logging, socket, sys
        socket.socket.connect = None
        from embedrouter import providers
        from embedrouter.models import Model, load_catalogue, resolve
        model = Model("wordllama:l2_supercat_256")
        known = providers.describe(model, load_catalogue(), None)
        candidate = resolve(model, known.card, dimensions=64, index=0, rank=0, local=True, identity=known.identity)
        backend = providers.create(model, known, candidate)
        print("tokenizers" in sys.modules)
        print(backend.embed(["a text"], "query", timeout=1).vectors.shape)
        print(logging.root.handlers, logging.root.level)
        print({"torch", "requests", "httpx", "wordllama"} & set(sys.modules))
        """
    )

    assert printed.splitlines() == ["False", "(1, 64)", "[] 30", "set()"]


def test_wordllama_leaves_a_configured_logger_alone() -> None:
    """Neither handlers nor level change."""
    words.read_files.cache_clear()
    before = logging.root.handlers[:], logging.root.level
    backend_of(WORDLLAMA).embed(["a text"], "query", timeout=1)

    assert (logging.root.handlers, logging.root.level) == before


def test_wordllama_serves_many_threads() -> None:
    """Without a lock: nothing is written after loading."""
    words.read_files.cache_clear()
    backend = backend_of(WORDLLAMA)
    together = threading.Barrier(8)

    def embed(number: int) -> Any:
        together.wait()
        return [backend.embed([f"text {number} {n}" * n for n in range(1, 80)], "query", timeout=1) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(embed, range(8)))
    for number, several in enumerate(answers):
        alone = backend.embed([f"text {number} {n}" * n for n in range(1, 80)], "query", timeout=1)
        for answer in several:
            np.testing.assert_array_equal(answer.vectors, alone.vectors)


def test_routers_share_wordllamas_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 MB once, not per router."""
    backend_of(WORDLLAMA).embed(["a text"], "query", timeout=1)
    monkeypatch.setattr(Path, "read_bytes", None)

    backend_of(Model("wordllama:l2_supercat_256", tier="low")).embed(["a text"], "query", timeout=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_wordllama_embeds_in_a_forked_child() -> None:
    """There is no lock that it could inherit."""
    printed = run(
        """
        import os
        import numpy as np
        from embedrouter import providers
        from embedrouter.models import Model, load_catalogue, resolve
        model = Model("wordllama:l2_supercat_256")
        known = providers.describe(model, load_catalogue(), None)
        candidate = resolve(model, known.card, dimensions=None, index=0, rank=0, local=True, identity=known.identity)
        backend = providers.create(model, known, candidate)
        texts = ["a text of some words"] * 200
        parent = backend.embed(texts, "query", timeout=30).vectors
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status))
        else:
            os._exit(0 if np.array_equal(parent, backend.embed(texts, "query", timeout=30).vectors) else 1)
        """,
        TOKENIZERS_PARALLELISM="false",
    )

    assert printed == "0\n"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model("wordllama:l3_supercat_512"), "would be downloaded"),
        (Model("wordllama:l2_supercat_256", prompts={"query": "q: "}), "Leave prompts= out"),
        (Model("wordllama:l2_supercat_256", client=object()), "Leave client= out"),
        (Model("wordllama:l2_supercat_256", dimensions=100), "does not offer 100 dimensions"),
    ],
)
def test_wordllama_refuses_what_it_does_not_have(model: Model, message: str) -> None:
    """When the router is built, saying what to write instead."""
    with pytest.raises(ConfigError, match=message):
        described(model)


def test_other_weights_than_the_known_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity promises these bytes; a release with others must not fill the same cache."""
    monkeypatch.setattr(words, "FILES", dict.fromkeys(words.FILES, "0" * 64))
    words.read_files.cache_clear()

    with pytest.raises(ConfigError, match="not the file that this version of embedrouter expects"):
        backend_of(WORDLLAMA).embed(["a text"], "query", timeout=1)


def test_wordllama_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And describing it works without the package, so that a warm cache still serves."""
    words.read_files.cache_clear()
    monkeypatch.setitem(sys.modules, "wordllama", None)
    backend = backend_of(WORDLLAMA)

    with pytest.raises(ConfigError, match=r"needs 'wordllama'.*pip install 'embedrouter\[wordllama\]'"):
        backend.embed(["a text"], "query", timeout=1)
