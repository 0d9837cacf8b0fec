"""A sentence-transformers model as a graph that OpenVINO and onnxruntime compute, made once and kept.

Promises:

- The graph is made from the loaded model by torch's own exporter (``torch.onnx.export``) and holds all modules, from
  tokens to the vector. sentence-transformers' ``backend="openvino"`` is not used: optimum-intel 2.2 needs transformers
  5.5. OpenVINO's own reader of torch models (``openvino.frontend``) brings nothing more: measured with
  all-MiniLM-L6-v2, its graph takes 1.01 times as long.
- It is kept only if its vectors agree with torch's: of each of the texts below, alone and in a batch, for documents and
  queries, the cosine is at least ``AGREEMENT``. Otherwise torch is used, and the reason is kept in its place.
- It lies in the user's cache folder, never in the model's, under the identity of the model and the versions of what
  made it. It is made under a lock in a folder of another name, which is then renamed: two processes convert once, and
  one that is killed leaves nothing that is taken for a model. Anything in that folder may be deleted at any time.
- With a kept graph, torch is not imported.

The fingerprint of a model does not name the runtime. A fingerprint stands for one vector up to the rounding of float32,
which also differs between processors and with the texts of a batch: measured with all-MiniLM-L6-v2, the largest
difference of one number is 1.8e-7 between torch and OpenVINO, and 1.8e-7 between torch with one text and with many.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from .._display import get_logger
from ..errors import ConfigError
from ..models import Model
from ..models.agreement import PROBE_TEXTS
from ..types import InputType, Vectors
from ._encoder import Encoder, Reader
from ._last_modules import WHOLE, Last
from ._model_files import INPUT_TYPES, SYMMETRIC, Facts, choose_prompts, module_folders
from ._runtimes import PACKAGES, Runtime, installed, on_cpu, open_graph, version_of

logger = get_logger("embedrouter.models")

AGREEMENT = 0.9999
"""The least cosine of a text's two vectors."""

TEXTS = (*PROBE_TEXTS, "x", "A word.", " ".join(PROBE_TEXTS[:2] * 2))
"""Texts of different lengths, so that a batch is padded."""

LARGEST = 2 * 2**30
"""Bytes of weights; of a larger model the conversion would need more memory than the model, and is not made unasked."""

MAKERS = ("torch", "transformers", "sentence-transformers", "onnx")
LAYOUT = 2
"""Changes with how a graph is made, and with what it takes and gives."""

FILE, STATEMENT = "model.onnx", "agreement.json"


class ConversionError(Exception):
    """The model has no graph in this runtime; the message ends "torch is used: …"."""


def runtimes_for(model: Model) -> list[Runtime]:
    """Return the runtimes to try before torch, best first. Packages are looked for and not imported.

    Raises:
        ConfigError: the runtime that the user names is not installed.
    """
    if model.runtime == "torch" or model.client is not None:
        return []
    if model.runtime != "auto":
        for package in (PACKAGES[model.runtime], "onnx"):
            if not version_of(package):
                raise ConfigError(
                    f"{model.name}: runtime={model.runtime!r} needs {package}, which is not installed. Run: "
                    f"pip install 'embedrouter[{model.runtime}]'"
                )
        return [model.runtime]
    return installed() if version_of("onnx") and on_cpu(model.device) else []


def folder_of(identity: str, runtime: Runtime) -> Path:
    """Return the place of a model's graph."""
    made_by = {name: version_of(name) for name in (*MAKERS, PACKAGES[runtime])}
    key = json.dumps([LAYOUT, identity, runtime, platform.machine(), made_by])
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("embedrouter", appauthor=False), "runtimes", name)


def open_converted(
    model: Model, files: Path, identity: str, facts: Facts, runtime: Runtime, torch_model: Callable[[], Any]
) -> Encoder:
    """Open a model's graph, which is made if there is none.

    Args:
        files: the model's folder.
        identity: what the files are.
        torch_model: loads the model, or returns the loaded one.

    Raises:
        ConversionError: there is none, for the reason in the message.
    """
    _require_convertible(model, files, facts)
    place = folder_of(identity, runtime)
    if not (place / STATEMENT).exists():
        _convert_once(place, files, facts, runtime, torch_model)
    statement: Mapping[str, Any] = json.loads((place / STATEMENT).read_text("utf-8"))
    if reason := statement["refused"]:
        raise ConversionError(reason)
    try:
        return _encoder(place / FILE, files, facts, runtime, statement["dimensions"])
    except Exception as error:
        raise ConversionError(f"{place} cannot be read ({error}). Delete it, and it is made again") from error


def _require_convertible(model: Model, files: Path, facts: Facts) -> None:
    kinds = [kind for kind, _ in module_folders(files)]
    if kinds[0] != "Transformer" or not SYMMETRIC.issuperset(kinds):
        raise ConversionError(f"a model of {' and '.join(dict.fromkeys(kinds))} is not converted")
    if facts.tokenizer is None:
        raise ConversionError("the model has no tokenizer.json")
    if model.runtime == "auto":
        size = sum(path.stat().st_size for path in files.rglob("*") if path.suffix in (".safetensors", ".bin"))
        if size > LARGEST:
            raise ConversionError(f"a model of {size / 2**30:.1f} GiB is converted only if runtime= names a runtime")


def _encoder(file: Path, files: Path, facts: Facts, runtime: Runtime, dimensions: int) -> Encoder:
    first = module_folders(files)[0][1]
    return Encoder(open_graph(runtime, file), Reader.of(first, lower=facts.lower), Last(dimensions, (), ()), WHOLE)


def _convert_once(place: Path, files: Path, facts: Facts, runtime: Runtime, torch_model: Callable[[], Any]) -> None:
    from filelock import FileLock  # a dependency of torch

    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if (place / STATEMENT).exists():
                return
            client = torch_model()
            logger.info("%s is converted for %s, once", files, PACKAGES[runtime])
            draft = Path(f"{place}.draft")
            for left in (draft, place):  # of processes that were killed
                shutil.rmtree(left, ignore_errors=True)
            draft.mkdir(mode=0o700)
            try:
                refused = _convert(draft / FILE, client, files, facts, runtime)
                if refused:
                    (draft / FILE).unlink(missing_ok=True)
                statement = {"refused": refused, "dimensions": _width(client), "model": str(files), "runtime": runtime}
                with (draft / STATEMENT).open("w", encoding="utf-8") as file:
                    json.dump(statement, file)
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(place)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ConversionError(f"the converted model cannot be kept in {place.parent} ({error})") from error


def _convert(file: Path, client: Any, files: Path, facts: Facts, runtime: Runtime) -> str:
    """Write a graph, and return why it is not to be used; empty where it is.

    Raises:
        OSError: it cannot be written.
    """
    try:
        export(client, file)
        own = _encoder(file, files, facts, runtime, _width(client))
        cosine = min(_cosine(client, own, kind) for kind in INPUT_TYPES)
    except OSError:
        raise
    except MemoryError as error:
        raise OSError(str(error)) from error
    except Exception as error:  # noqa: BLE001 - of torch's exporter and the runtimes, which have no errors in common
        return f"it cannot be converted ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]})"
    return "" if cosine >= AGREEMENT else f"its vectors do not agree with torch's (cosine {cosine:.4f})"


def _width(client: Any) -> int:
    return int(client.get_embedding_dimension())


def export(client: Any, file: Path) -> None:
    """Write a loaded sentence-transformers model as a graph from tokens to vectors.

    Raises:
        ImportError: the package onnx is missing.
        Exception: of torch's exporter.
    """
    import torch

    read = getattr(client, "preprocess", None) or client.tokenize
    features = {name: value for name, value in read(list(TEXTS)).items() if isinstance(value, torch.Tensor)}
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in features]
    twin = _with_attention_by_matrix_products(client)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.client = twin

        def forward(self, *inputs: Any) -> Any:
            return self.client(dict(zip(names, inputs, strict=True)))[WHOLE]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer; the vectors are compared
        torch.onnx.export(
            Whole().eval(),
            tuple(features[name].cpu() for name in names),
            str(file),
            input_names=names,
            output_names=[WHOLE],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names} | {WHOLE: {0: "texts"}},
            dynamo=False,
        )


def _with_attention_by_matrix_products(client: Any) -> Any:
    """Return a copy, with the same weights, that computes attention step by step; the runtimes join these to one step.

    Torch's own single step (``sdpa``) is written into a graph as many more, which OpenVINO does not put together: with
    all-MiniLM-L6-v2 and paragraphs OpenVINO takes 1.04 times as long, and onnxruntime 1.13 times.
    """
    weights = {id(tensor): tensor for tensor in (*client.parameters(), *client.buffers())}
    twin = copy.deepcopy(client, weights)
    model = next((module for module in twin.modules() if hasattr(module, "set_attn_implementation")), None)
    if model is not None:
        model.set_attn_implementation("eager")
    return twin


def _cosine(client: Any, encoder: Encoder, kind: InputType) -> float:
    """Return the least cosine of a text's vectors in torch and in a runtime, alone and among others."""
    encode = client.encode_query if kind == "query" else client.encode_document
    prompt = choose_prompts(client.prompts, client.default_prompt_name)[kind]
    longest = client.max_seq_length or 512
    texts = [text for text in TEXTS if 0 < encoder.reader.count([prompt + text])[0] <= longest]
    expected = np.asarray(encode(texts, show_progress_bar=False), np.float32)
    alone = np.concatenate([encoder.encode([text], prompt) for text in texts])
    return min(float(cosines(expected, found).min()) for found in (encoder.encode(texts, prompt), alone))


def cosines(one: Vectors, other: Vectors) -> Any:
    """Return the cosine of the vectors in each row; 0 where one is zero."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((one * other).sum(axis=1) / lengths)
