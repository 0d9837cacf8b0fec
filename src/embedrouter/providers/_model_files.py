"""The facts in the files of a sentence-transformers model, read without torch and without the library.

Dimensions, longest input and prompts equal those of the loaded model: the tests load models of many kinds and compare.
``folder_digest`` is the hash of everything that can change a vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError
from ..models import Model
from ..types import InputType

SETTINGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""The files of the first module's settings, under the names of all versions of the library."""

WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""The names of the width of a token's vector in different architectures."""

SYMMETRIC = frozenset({"Transformer", "StaticEmbedding", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"})
"""Modules that treat documents and queries alike; the library's Router does not, and other modules may not."""

CONTENT = frozenset({".json", ".safetensors", ".bin", ".txt", ".model", ".jinja", ".py"})
"""Weights, settings, vocabularies, templates, code: the files that can change a vector."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that the loaded model has too."""

    dimensions: int | None
    input_tokens: int | None
    prompts: Mapping[InputType, str]
    symmetric: bool
    tokenizer: Path | None
    """The file the library's tokenizer is built from."""
    static: bool
    """Whether it averages word vectors, without special tokens."""
    lower: bool
    """Whether texts are lower-cased before they are tokenized."""


def read_facts(model: Model, folder: Path) -> Facts:
    """Read the facts in a model's files.

    Raises:
        ConfigError: a file is missing, broken, or of another kind of model.
    """
    try:
        return _read(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{model.name}: {folder} is not a whole sentence-transformers model ({type(error).__name__}: {error}). "
            "Copy or download it again."
        ) from error


def _read(folder: Path) -> Facts:
    modules = [("Transformer", folder)]  # a plain transformer: the library adds pooling
    saved: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if (folder / "modules.json").exists():
        modules = [(part["type"].rpartition(".")[2], folder / part["path"]) for part in _json(folder / "modules.json")]
        saved = _json(folder / "config_sentence_transformers.json", {})
        settings = next((_json(modules[0][1] / name) for name in SETTINGS if (modules[0][1] / name).exists()), {})
    if (family := saved.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise ValueError(f"it is a {family}")
    kind, first = modules[0]
    dimensions = _dimensions(modules, settings)
    if dimensions is not None and saved.get("truncate_dim") is not None:
        dimensions = min(dimensions, saved["truncate_dim"])
    named = {"query": None, "document": None, **saved.get("prompts", {})}
    prompts = choose_prompts(named, saved.get("default_prompt_name"))
    tokenizer = first / "tokenizer.json"
    return Facts(
        dimensions=dimensions,
        input_tokens=_longest_input(kind, first, settings),
        prompts=prompts,
        symmetric=is_symmetric(prompts, (name for name, _ in modules)),
        tokenizer=tokenizer if tokenizer.exists() else None,
        static=kind == "StaticEmbedding",
        lower=bool(settings.get("do_lower_case")),
    )


def _json(path: Path, default: Any = ...) -> Any:
    if default is not ... and not path.exists():
        return default
    return json.loads(path.read_text("utf-8"))


def _dimensions(modules: Sequence[tuple[str, Path]], settings: Mapping[str, Any]) -> int | None:
    """Return the width of the last module that has one; ``None`` where only the module's code determines it."""
    kind, path = next(module for module in reversed(modules) if module[0] not in ("Normalize", "Dropout"))
    if kind == "StaticEmbedding":
        return _static_width(path / "model.safetensors")
    if kind not in ("Dense", "LayerNorm", "Pooling", "Transformer"):
        return None
    config: dict[str, Any] = _json(path / "config.json")
    if kind == "Dense":
        return cast(int, config["out_features"])
    if kind == "LayerNorm":
        return cast(int, config["dimension"])
    if kind == "Pooling":
        width = config.get("embedding_dimension") or config["word_embedding_dimension"]
        return cast(int, width) * _poolings(config)
    if settings.get("module_output_name") == "sentence_embedding" and "projection_dim" in config:
        return cast(int, config["projection_dim"])
    return next((config[name] for name in WIDTHS if name in config), None)


def _poolings(config: Mapping[str, Any]) -> int:
    """Return how many vectors a pooling module joins end to end."""
    modes = config.get("pooling_mode")
    if modes is None:  # older files have a switch for each
        modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on]
    return 1 if isinstance(modes, str) else max(1, len(modes))


def _static_width(path: Path) -> int | None:
    """Read the width of a table of word vectors from the header of its safetensors file."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    table = head.get("embedding.weight") or head.get("embeddings")
    return cast(int, table["shape"][1]) if table else None


def _longest_input(kind: str, first: Path, settings: Mapping[str, Any]) -> int | None:
    """Return the tokens of one text that the first module takes, special tokens included; ``None``: any number."""
    if kind == "StaticEmbedding":  # no limit, unless its tokenizer was saved with one
        return cast("int | None", (_json(first / "tokenizer.json").get("truncation") or {}).get("max_length"))
    arguments = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    declared = arguments.get("model_max_length", settings.get("max_seq_length"))
    if declared is not None:
        return finite(declared)
    positions = _json(first / "config.json", {}).get("max_position_embeddings", -1)  # XLNet writes -1: no limit
    limits = (_json(first / "tokenizer_config.json", {}).get("model_max_length"), positions if positions > 0 else None)
    return finite(min((limit for limit in limits if limit is not None), default=None))


def finite(limit: float | None) -> int | None:
    """Return a limit, or ``None`` for the 10^30 that transformers writes where there is none."""
    return None if limit is None or limit >= 10**9 else int(limit)


def is_symmetric(prompts: Mapping[InputType, str], modules: Iterable[str]) -> bool:
    """Return whether documents and queries are embedded alike."""
    return prompts["document"] == prompts["query"] and SYMMETRIC.issuperset(modules)


def choose_prompts(named: Mapping[str, str | None], default: str | None) -> dict[InputType, str]:
    """Choose among a model's prompts as the library's ``encode_query`` and ``encode_document`` do."""

    def first(*names: str) -> str:
        return named[next((name for name in names if name in named), default or "")] or ""

    named = {"": None, **named}
    return {"document": first("document", "passage", "corpus"), "query": first("query")}


def folder_digest(folder: Path) -> str:
    """Return the sha256 of a model's files: their names within the folder and their contents.

    A file is read again only when its size or time has changed.
    """
    whole = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in CONTENT}
    for name, path in sorted(files.items()):
        if f"/{name}".find("/.") < 0 and path.is_file():  # hidden files are not the model's
            state = path.stat()
            whole.update(f"{name}\0{_file_digest(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return whole.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
