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


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("work", ["paragraphs", "query"])
def test_a_faster_runtime(contest: Contest, work: str, runtime: str) -> None:
    """With what is installed for the processor, at least twice the speed of sentence-transformers' own ``encode``."""
    contest.ours(f"local:{work}_{runtime}")
    contest.limit("encode, in torch", f"local:{work}_bare", goals={RATE: 2.0})
    contest.run(f"Local {work}, {runtime}", rounds=9)
