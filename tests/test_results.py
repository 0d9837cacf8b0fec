"""What a call returns behaves as a sequence of its vectors, and shows itself in few lines."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedrouter import EmbeddingResult, Router
from embedrouter.testing import FakeBackend, MemoryCache


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    model = FakeBackend(dimensions=8).model("fake:one", price="2")
    with Router([model], cache=MemoryCache(), ledger=tmp_path / "ledger.db") as made:
        yield made


@pytest.fixture
def result(router: Router) -> EmbeddingResult:
    router.embed(["one"], input_type="document")
    return router.embed(["one", "two", "three"], input_type="document")


def test_it_is_a_sequence_of_vectors(result: EmbeddingResult) -> None:
    """As the results of other libraries are."""
    assert len(result) == 3
    assert np.array_equal(result[0], result.vectors[0])
    assert result[1:].shape == (2, 8)
    assert [vector.shape for vector in result] == [(8,)] * 3
    assert np.array_equal(np.asarray(result), result.vectors)
    assert np.asarray(result).dtype == np.float32
    assert np.asarray(result, dtype=np.float64).dtype == np.float64
    assert np.array(result).shape == (3, 8)
    assert not np.shares_memory(np.array(result, copy=True), result.vectors)
    assert result.to_list() == result.vectors.tolist()
    assert type(result.to_list()[0][0]) is float


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cost", "result.usage.cost"),
        ("tokens", "result.usage.tokens"),
        ("embeddings", "result.vectors"),
        ("data", "result.vectors"),
        ("model", "result.models"),
        ("tolist", "result.to_list()"),
        ("dimensions", "result.space.dimensions"),
    ],
)
def test_another_librarys_name_gets_the_right_one(result: EmbeddingResult, name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=meant.replace("(", r"\(").replace(")", r"\)")):
        getattr(result, name)
    assert not hasattr(result, "no_such_thing")


def test_copies_and_pickles_are_the_same(result: EmbeddingResult) -> None:
    """The hint for unknown names stands in nobody's way."""
    for other in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert np.array_equal(other.vectors, result.vectors)
        assert other.usage == result.usage


def test_many_vectors_are_shown_in_one_line(router: Router) -> None:
    """A notebook's cell that ends with the result is not flooded."""
    result = router.embed([f"text {number}" for number in range(5_000)], input_type="document")
    shown = repr(result)
    assert "\n" not in shown
    assert len(shown) < 200
    assert "5,000 vectors" in shown
    assert "0 from the cache" in shown
    assert len(result._repr_html_()) < 1_000


def test_a_notebook_shows_where_vectors_came_from(result: EmbeddingResult, router: Router) -> None:
    shown = result._repr_html_()
    assert "<td>from the cache</td><td>1</td>" in shown
    assert "<td>embedded</td><td>2</td>" in shown
    estimate = router.estimate(["four"], input_type="document")
    for item in (result.usage, estimate):
        assert item._repr_html_() == f"<p>{item}</p>"


def test_accounts_and_health_are_tables(router: Router, result: EmbeddingResult) -> None:
    """Dictionaries still, in a form that can be read."""
    totals = router.ledger.totals("model")
    assert dict(totals) == {"fake:one": totals["fake:one"]}
    lines = repr(totals).splitlines()
    assert lines[0].split()[:3] == ["requests", "texts", "tokens"]
    assert lines[1].startswith("fake:one")
    assert "$" in lines[1]
    assert "E-" not in repr(totals)
    assert "unconfirmed" not in lines[0], "nothing is unconfirmed"
    assert totals._repr_html_().startswith("<table><thead>")

    health = router.health()
    assert health["fake:one"].state == "closed"
    assert "closed" in repr(health)
    assert repr(router.ledger.totals("tag")) != ""


def test_names_are_escaped_in_html(router: Router) -> None:
    """A tag is anybody's text."""
    import embedrouter

    with embedrouter.tag("<script>alert(1)</script>"):
        router.embed(["five"], input_type="document")
    shown = router.ledger.totals("tag")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
