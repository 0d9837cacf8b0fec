"""What follows a transformer, in numpy: pooling, dense layers, normalisation, as the model's own files say.

The files are those of sentence-transformers (``modules.json`` and a folder for each module), and the numbers are
computed as its modules compute them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..types import Vectors

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.int64]
Module: TypeAlias = Callable[[Floats], Floats]

WHOLE = "sentence_embedding"
"""The output of a graph that holds all modules."""

OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The switches in older files, in the order in which their vectors are joined."""


@dataclass(frozen=True, slots=True)
class Last:
    """The modules after the transformer."""

    dimensions: int
    poolings: Sequence[str]
    """Empty: the graph's own output is the vector."""
    modules: Sequence[Module]
    skips_prompt: bool = False
    """Whether the tokens of the prompt do not count."""

    def vectors(self, output: NDArray[Any], mask: Mask, skipped: int) -> Vectors:
        """Return the vectors of a batch, of shape (texts, dimensions).

        Args:
            output: that of the graph, of shape (texts, tokens, width); without poolings (texts, width).
            mask: 1 for tokens, 0 for padding; of shape (texts, tokens).
            skipped: tokens of the prompt that do not count.
        """
        found = np.asarray(output, np.float32)
        if self.poolings:
            found = pool(found, mask, self.poolings, skipped)
        for module in self.modules:
            found = module(found)
        return found[:, : self.dimensions]


def read_last(modules: Sequence[tuple[str, Path]], dimensions: int) -> Last:
    """Read the modules after the first.

    Args:
        modules: kind and folder of each module of the model.
        dimensions: length of the model's vectors.

    Raises:
        OSError, LookupError: a file is missing or broken.
        ValueError: a module, or its setting, is none of those that are computed here.
    """
    poolings: Sequence[str] = ["mean"]  # of a plain transformer
    skips_prompt = False
    last: list[Module] = []
    for position, (kind, folder) in enumerate(modules[1:], 1):
        settings = json.loads(path.read_text("utf-8")) if (path := folder / "config.json").exists() else {}
        if kind == "Pooling" and position == 1:
            poolings, skips_prompt = _poolings(settings), not settings.get("include_prompt", True)
        elif kind == "Dense":
            last.append(_dense(folder, settings))
        elif kind == "LayerNorm":
            last.append(_layer_norm(folder))
        elif kind == "Normalize":
            last.append(normalized)
        elif kind != "Dropout":
            raise ValueError(f"its module {position} is a {kind}")
    return Last(dimensions, poolings, last, skips_prompt)


def _poolings(settings: Mapping[str, Any]) -> list[str]:
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in OLD_POOLINGS.items() if settings.get(name)] or ["mean"]
    found = [modes] if isinstance(modes, str) else list(modes)
    if unknown := set(found) - set(OLD_POOLINGS.values()):
        raise ValueError(f"its pooling is {min(unknown)!r}")
    return found


def pool(states: Floats, mask: Mask, poolings: Sequence[str], skipped: int = 0) -> Floats:
    """Return one vector for each text, those of several poolings joined end to end."""
    counted = mask.copy()
    beginnings = mask.argmax(axis=1)[:, None]
    positions = np.arange(mask.shape[1])[None, :]
    if skipped:
        counted[positions < beginnings + skipped] = 0
    weights = counted[:, :, None].astype(np.float32)
    rows = np.arange(len(states))

    def pooled(mode: str) -> Floats:
        if mode == "cls":
            found = states[rows, counted.argmax(axis=1)]
        elif mode == "lasttoken":
            found = states[rows, mask.shape[1] - 1 - counted[:, ::-1].argmax(axis=1)]
        elif mode == "max":
            found = np.where(weights == 0, -np.inf, states).max(axis=1)
        elif mode == "weightedmean":
            weighted = weights * (positions + 1 - beginnings)[:, :, None]
            found = (states * weighted).sum(axis=1) / np.maximum(weighted.sum(axis=1), 1e-9)
        else:
            number = np.maximum(weights.sum(axis=1), 1e-9)
            found = (states * weights).sum(axis=1) / (number if mode == "mean" else np.sqrt(number))
        return np.asarray(found, np.float32)

    return np.concatenate([pooled(mode) for mode in poolings], axis=1)


def normalized(vectors: Floats) -> Floats:
    """Scale vectors to length 1; one of zeros stays."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


ACTIVATIONS: Mapping[str, Callable[[Floats], NDArray[Any]]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "GELU": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
}
"""The ends of the names of torch's classes."""


def _erf(numbers: Floats) -> Floats:
    return np.array([math.erf(number) for number in numbers.ravel()], np.float32).reshape(numbers.shape)


def _dense(folder: Path, settings: Mapping[str, Any]) -> Module:
    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation of its dense layer is {name}")
    if settings.get("use_residual") or settings.get("module_input_name", WHOLE) != WHOLE:
        raise ValueError("its dense layer has a residual, or works on tokens")
    activation, tensors = ACTIVATIONS[name], dict(_tensors(folder))
    weight, bias = tensors["linear.weight"].T, tensors.get("linear.bias", np.float32(0))
    return lambda vectors: np.asarray(activation(vectors @ weight + bias), np.float32)


def _layer_norm(folder: Path) -> Module:
    tensors = dict(_tensors(folder))
    weight, bias = tensors["norm.weight"], tensors["norm.bias"]

    def norm(vectors: Floats) -> Floats:
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
        return np.asarray(centred / spread * weight + bias, np.float32)

    return norm


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield a module's weights.

    Raises:
        FileNotFoundError: they are not there as safetensors, the one format that is read without torch.
    """
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            yield name, np.asarray(file.get_tensor(name), np.float32)
