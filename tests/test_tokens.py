"""Estimated token counts, and cutting texts."""

from __future__ import annotations

import importlib.util
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter.models import split_text
from embedrouter.models._tokens import estimate
from embedrouter.providers import encoding


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog, twice.",
        "你好，世界。今天的天气很好，我们去公园散步吧。",
        "こんにちは、世界。お元気ですか。",
        "안녕하세요 세계",
        "Привет, как дела? Сегодня хорошая погода.",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "😀😃🎉👩‍👩‍👧",
        "é à ü ñ ß " * 4,
        "1234567890" * 5,
        "   \n\n\n   " * 30,
        "def f(x):\n    return {'a': [x ** 2, None]}\n",
        "".join(chr(0x4E00 + number * 37 % 20000) for number in range(300)),
        "<|endoftext|>",
        pytest.param(b64encode(Random(1).randbytes(3000)).decode(), id="an image in a notebook"),
        pytest.param(
            "\n".join(b64encode(Random(n).randbytes(57)).decode() for n in range(40)), id="a mail's attachment"
        ),
        pytest.param(Random(2).randbytes(2000).hex(), id="a hash"),
    ],
)
def test_the_estimate_is_not_below_a_real_tokenizer(text: str) -> None:
    """Budgets and limits trust it; a quarter of the characters would be far too low for Chinese."""
    encoder = encoding("cl100k_base")
    assert encoder is not None

    assert estimate(text) >= len(encoder.encode_ordinary(text))


def test_on_english_the_estimate_is_within_twice_the_truth(shared: Path) -> None:
    """Conservative, but still of use: on 2,067 real paragraphs."""
    encoder = encoding("cl100k_base")
    assert encoder is not None
    lines = (shared / "retrieval/squad-dev/corpus.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    truth = [len(encoder.encode_ordinary(text)) for text in texts]

    assert all(estimate(text) >= tokens for text, tokens in zip(texts, truth, strict=True))
    assert sum(map(estimate, texts)) < 2 * sum(truth)


def test_a_line_that_is_drawn_is_no_image() -> None:
    """Its characters are few, and cost next to nothing."""
    assert estimate("x" * 4000) <= 1100


def words(text: str) -> int:
    return len(text.split())


@given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 9))
def test_pieces_give_the_text_back_and_keep_the_limit(text: str, limit: int) -> None:
    """Nothing is lost between two parts, and none is over the limit."""
    parts = split_text(text, limit, "mean", words)

    assert "".join(parts) == text
    assert all(words(part) <= limit for part in parts)


@given(st.text(max_size=200), st.integers(8, 30))
def test_truncating_keeps_a_beginning_within_the_limit(text: str, limit: int) -> None:
    """One part, in any script."""
    parts = split_text(text, limit, "truncate", estimate)

    assert len(parts) <= 1
    assert all(text.startswith(part) and estimate(part) <= limit for part in parts)


def test_words_stay_whole_where_they_can() -> None:
    """A part that ends in the middle of a word embeds another word."""
    text = "alpha beta gamma delta " * 20
    parts = split_text(text, 30, "mean", estimate)

    assert len(parts) > 1
    assert all(part.endswith(" ") for part in parts)


@pytest.fixture
def no_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Return tiktoken's folder, which is empty, on a machine without llama-index-core and its vocabulary."""
    found = importlib.util.find_spec
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "llama" in name else found(name))
    encoding.cache_clear()
    yield tmp_path
    encoding.cache_clear()


@pytest.mark.usefixtures("no_vocabulary")
def test_a_vocabulary_that_is_not_on_the_machine_is_not_downloaded() -> None:
    """Counting degrades to an estimate; it never blocks a call."""
    assert encoding("cl100k_base") is None


def test_a_tampered_vocabulary_is_not_used(no_vocabulary: Path) -> None:
    """tiktoken would delete it and download another in the middle of a call."""
    (no_vocabulary / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(b"aGk= 0\n")

    assert encoding("cl100k_base") is None
