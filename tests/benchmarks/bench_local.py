"""Models on this machine, through the router and bare: nothing may be lost on the way."""

from __future__ import annotations

import pytest

from .contest import Contest
from .table import RATE


@pytest.mark.parametrize(("model", "number", "goal"), [("minilm_torch", 150, 0.97), ("wordllama", 20_000, 0.97)])
def test_documents(contest: Contest, model: str, number: int, goal: float) -> None:
    """The router may take three percent."""
    contest.ours(f"local:{model}_router", number=number)
    contest.limit("the bare model", f"local:{model.removesuffix('_torch')}_bare", goals={RATE: goal}, number=number)
    contest.run(f"Local documents, {model}", rounds=9)


def beside_torch(contest: Contest, work: str) -> None:
    contest.peer("sentence-transformers, torch", f"local:{work}_bare", goals={RATE: 2.0}, at_home=True)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_paragraphs_in_a_faster_runtime(contest: Contest, runtime: str) -> None:
    """Beside sentence-transformers' own ``encode``, and the products of matrices, which no runtime can leave out."""
    contest.ours(f"local:paragraphs_{runtime}")
    beside_torch(contest, "paragraphs")
    contest.limit("the layers' matrix products alone", "local:paragraphs_products")
    contest.run(f"Local paragraphs, {runtime}", rounds=9)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_query_in_a_faster_runtime(contest: Contest, runtime: str) -> None:
    """At least twice the speed of sentence-transformers' own ``encode``."""
    contest.ours(f"local:query_{runtime}")
    beside_torch(contest, "query")
    contest.run(f"Local query, {runtime}", rounds=9)
