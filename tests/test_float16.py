"""A cache of float16 numbers: half the disk, no other answers, and what comes back is known beforehand."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from embedrouter import Router
from embedrouter.cache import VectorCache, is_sound
from embedrouter.cache._codec import decode, decode_any, encode, is_newer, rounded
from embedrouter.cache._keys import KEY_BYTES
from embedrouter.retrieval.calibration import ndcg, nearest_documents, overlap
from embedrouter.testing import MemoryCache
from embedrouter.types import Entry

NUMBERS = st.floats(width=32)
"""With infinity, NaN, and those too large or too small for float16."""


@given(arrays(np.float32, st.integers(1, 64), elements=NUMBERS), st.integers(0, 2**32 - 1))
def test_a_row_gives_back_the_rounded_numbers(vector: np.ndarray, tokens: int) -> None:
    """So that a miss, which is rounded before it is returned, and the hit after it agree bit for bit."""
    row = encode(Entry(vector, tokens), "float16")
    entry = decode(row, vector.size)

    assert entry is not None
    assert entry.vector.dtype == np.float32
    assert entry.vector.tobytes() == rounded(vector, "float16").tobytes()
    assert entry.tokens == tokens
    assert not entry.vector.flags.writeable
    assert len(row) == 16 + 2 * vector.size
    assert decode_any(row) is not None
    assert is_sound(bytes(KEY_BYTES), row) == (bool(entry.vector.any()) and bool(np.isfinite(entry.vector).all()))


@given(arrays(np.float32, array_shapes(max_dims=2), elements=NUMBERS))
def test_rounding_twice_changes_nothing(vectors: np.ndarray) -> None:
    """Vectors of any shape; and float32 is not rounded at all."""
    once = rounded(vectors, "float16")

    assert once.shape == vectors.shape
    assert rounded(once, "float16").tobytes() == once.tobytes()
    assert rounded(vectors, "float32").tobytes() == vectors.tobytes()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(65_504, 65_504), (65_519, 65_504), (65_520, np.inf), (-1e9, -np.inf), (6e-8, 2**-24), (2.9e-8, 0), (0.1, 0.1)],
)
def test_where_float16_ends(number: float, expected: float) -> None:
    """Too large is infinite, which the router takes for a failed answer; too small is 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = rounded(np.array([number], np.float32), "float16")

    assert found == pytest.approx(expected, rel=0.0005)


@given(st.data())
def test_any_flipped_bit_makes_a_row_absent(data: st.DataObject) -> None:
    """The number type in the header too: the same bytes are not read as the other."""
    row = bytearray(encode(Entry(np.arange(8, dtype=np.float32), 3), "float16"))
    position = data.draw(st.integers(0, len(row) - 1))
    row[position] ^= 1 << data.draw(st.integers(0, 7))

    assert decode(bytes(row), 8) is None
    assert decode(bytes(row), 4) is None


@given(st.integers(0, 255), st.binary(max_size=200), st.integers(0, 64))
def test_foreign_bytes_are_no_row(number: int, rest: bytes, dimensions: int) -> None:
    """With any number type that a row claims."""
    row = b"ER\x01" + bytes([number]) + rest

    assert decode(row, dimensions) is None
    assert decode_any(row) is None
    assert not is_newer(row)


def test_a_cache_reads_the_rows_of_both_types() -> None:
    """The header says which; what is written follows ``dtype``."""
    store, vector = MemoryCache(), np.linspace(-1, 1, 8, dtype=np.float32)
    VectorCache(store).write({b"whole": Entry(vector, 1)})
    VectorCache(store, "float16").write({b"half": Entry(vector, 1)})
    found = VectorCache(store).read([b"whole", b"half"], 8)

    assert len(store.rows[b"whole"]) - len(store.rows[b"half"]) == 16
    assert np.array_equal(found[b"whole"].vector, vector)
    assert np.array_equal(found[b"half"].vector, rounded(vector, "float16"))


@pytest.mark.slow
@pytest.mark.parametrize("collection", ["squad-dev", "banking77"])
def test_retrieval_is_the_same_to_the_third_decimal(collection: str, shared: Path) -> None:
    """Real questions and documents, wordllama's vectors, both sides rounded."""
    pytest.importorskip("safetensors")
    folder = shared / "retrieval" / collection

    def texts(name: str) -> dict[str, str]:
        rows = [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]
        return {row["id"]: row["text"] for row in rows}

    documents, queries = texts("corpus.jsonl"), texts("queries.jsonl")
    relevant = judgements(folder, list(documents), list(queries))
    with Router(["wordllama:l2_supercat_256"], cache=None) as router:
        corpus = router.embed(list(documents.values()), input_type="document").vectors
        asked = router.embed(list(queries.values()), input_type="query").vectors
    found, _ = nearest_documents(corpus, asked)
    again, _ = nearest_documents(rounded(corpus, "float16"), rounded(asked, "float16"))

    assert ndcg(found, relevant).mean() > 0.6
    assert abs(ndcg(again, relevant).mean() - ndcg(found, relevant).mean()) <= 0.0004
    assert overlap(again, found).mean() >= 0.999


def judgements(folder: Path, documents: list[str], queries: list[str]) -> list[dict[int, float]]:
    """Return for each query the indices of what is relevant: by judgement, or because the intent is the same."""
    if (folder / "qrels.tsv").exists():
        place = {name: index for index, name in enumerate(documents)}
        relevant: dict[str, dict[int, float]] = {}
        for line in (folder / "qrels.tsv").read_text("utf-8").splitlines():
            query, document, grade = line.split("\t")
            relevant.setdefault(query, {})[place[document]] = float(grade)
        return [relevant[query] for query in queries]
    labels = json.loads((folder / "labels.json").read_text("utf-8"))
    same: dict[str, dict[int, float]] = {}
    for index, name in enumerate(documents):
        same.setdefault(labels["corpus"][name], {})[index] = 1.0
    return [same[labels["queries"][name]] for name in queries]
