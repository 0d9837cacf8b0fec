"""LangChain's and LangGraph's own tests with adapters in place of their fakes: the cheapest part of them.

``nox -s frameworks`` runs all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.__main__ import Unreachable, compare
from tests.frameworks.suites import SUITES, Suite


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES[:2], ids=lambda suite: suite.title)
def test_what_passes_with_their_fakes_passes_with_ours(suite: Suite, tmp_path: Path) -> None:
    pytest.importorskip("pytest_mock", reason="the tests of the frameworks need pytest-mock")
    try:
        result = compare(suite, tmp_path)
    except Unreachable as error:
        pytest.skip(f"PyPI does not answer: {error}")
    assert result.fine, (result.lost, result.mended, result.log.read_text("utf-8")[-3000:])
