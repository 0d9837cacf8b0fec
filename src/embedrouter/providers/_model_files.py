"""The description of a local model, before it is loaded: where it is, its identity, and its card.

Only JSON files are read and weights hashed: neither torch nor sentence-transformers is imported and no socket opened.
Dimensions, longest input and prompts equal those of the loaded model: the tests load models of many kinds and compare.
The identity of a folder is the hash of everything in it that can change a vector (``_model_digest``), that of a hub
model the commit that is on this machine.
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

from ..errors import ConfigError
from ..models import Card, Catalogue, Model, custom_card
from ..types import InputType
from . import Description, needs_extra
from ._model_digest import folder_digest

PROVIDER = "sentence-transformers"
"""The provider, the extra, and the organisation that the hub assumes where a model's name has none."""

CACHE = "SENTENCE_TRANSFORMERS_HOME"
"""Names the folder that the library uses in place of the hub's own cache."""

FOLDER = "sha256:"
"""The beginning of a local folder's identity; the folder's hash follows."""

NEEDS_REMOTE_CODE = frozenset({"voyageai/voyage-4-nano"})
"""Catalogued models whose architecture is Python code in the model repository."""

COMMIT = re.compile(r"[0-9a-f]+")
"""A revision that cannot be moved, as branches and tags can."""

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)

MAX_TEXTS = 256
"""Texts in one request."""

WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""The names of the width of a token's vector in different architectures."""

SYMMETRIC = frozenset({"Transformer", "StaticEmbedding", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"})
"""Modules that treat documents and queries alike; the library's Router does not, and other modules may not."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the catalogue's facts, or those of the model's files.

    Raises:
        ConfigError: the files are not on this machine or do not suffice, or code would run that was not allowed.
    """
    name, folder = locate(model)
    if folder is not None:
        digest = _digest(model, folder)
        return _from_files(model, dimensions, folder, space=f"local/{digest[:16]}", identity=f"{FOLDER}{digest}")
    if model.provider == PROVIDER:
        _check_remote_code(model, name)
    if (card := catalogue.get(model.name) or catalogue.get(f"{PROVIDER}:{name}")) is not None:
        here = _catalogued_snapshot(model, name)
        commit = here.name if here else model.revision or "main"
        return Description(card, local=True, identity=f"{name}@{commit}", files=here)
    if (snapshot := find_snapshot(model, name)) is not None:
        space = name + (f"@{model.revision}" if model.revision else "")
        return _from_files(model, dimensions, snapshot, space=space, identity=f"{name}@{snapshot.name}")
    if model.client is not None:
        return Description(_client_card(model), local=True, identity=name)
    raise _not_downloaded(model, name)


def locate(model: Model) -> tuple[str, Path | None]:
    """Return what the library loads, a folder's path or a hub id, and the folder if it is one.

    Raises:
        ConfigError: the name is a path, and there is no folder.
    """
    path = Path(model.id).expanduser()
    if path.is_dir():
        return str(path.absolute()), path.absolute()
    if path.is_absolute() or model.id.startswith((".", "~")) or model.id.count("/") > 1 or "\\" in model.id:
        raise ConfigError(f"{model.name}: there is no folder {str(path.absolute())!r}. Check the path.")
    return (model.id if "/" in model.id else f"{PROVIDER}/{model.id}"), None


def find_snapshot(model: Model, name: str) -> Path | None:
    """Return the folder of a hub model in the local cache, named after its commit; ``None`` where it is not complete.

    Raises:
        ConfigError: the package is missing, or a file is broken.
    """
    with needs_extra(model, model.provider):
        from huggingface_hub import try_to_load_from_cache
    for file in ("modules.json", "config.json"):
        found = try_to_load_from_cache(name, file, cache_dir=os.environ.get(CACHE), revision=model.revision)
        if isinstance(found, str):
            return _whole(model, Path(found).parent)
    return None


def _whole(model: Model, folder: Path) -> Path | None:
    """Return a snapshot's folder, or ``None`` where files are missing.

    Raises:
        ConfigError: a file is broken.
    """
    try:
        read_facts(model, folder)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    weights = (".safetensors", ".bin") if model.provider == PROVIDER else (".onnx",)
    return folder if any(path.suffix in weights for path in folder.rglob("*")) else None


def _catalogued_snapshot(model: Model, name: str) -> Path | None:
    """Return what ``find_snapshot`` does, without its package: building a router loads no SDK.

    What is broken is told when the model is loaded.
    """
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    commit = revision = model.revision or "main"
    with suppress(OSError, ValueError):
        commit = (repository / "refs" / revision).read_text("utf-8").strip()
    folder = repository / "snapshots" / commit
    with suppress(ConfigError):
        return _whole(model, folder) if folder.is_dir() else None
    return None


def _hub_cache() -> Path:
    """Return the folder of downloads, from the variables that the hub documents."""
    for name in (CACHE, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(name):
            return Path(folder).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def find_files(model: Model, known: Description) -> tuple[str, Path | None]:
    """Return what the library loads, and the folder of the model's files if they are on this machine."""
    name, _ = locate(model)
    return name, known.files or find_snapshot(model, name)


def matches_folder(model: Model, known: Description) -> bool:
    """Return whether a described folder still holds the same files; true of a hub model, whose commit cannot change."""
    described = known.identity or ""
    files = known.files
    return files is None or not described.startswith(FOLDER) or described == FOLDER + _digest(model, files)


def _digest(model: Model, folder: Path) -> str:
    try:
        return folder_digest(folder)
    except OSError as error:
        raise ConfigError(
            f"{model.name}: {error.filename or folder} cannot be read ({error.strerror}). Check the rights, or copy "
            "the model again."
        ) from error


def _from_files(model: Model, dimensions: int | None, files: Path, *, space: str, identity: str) -> Description:
    facts = read_facts(model, files)
    native = facts.dimensions or model.dimensions or dimensions
    if native is None:
        raise ConfigError(
            f"{model.name}: its files do not tell how many dimensions its vectors have. "
            f"Say so: Model({model.name!r}, dimensions=…)."
        )
    card = Card(
        model=model.name,
        space=model.space or space,
        dimensions=native,
        allowed="any",
        input_tokens=facts.input_tokens,
        texts=MAX_TEXTS,
        symmetric=facts.symmetric,
        price=Decimal(0),
        source="the model's own files",
    )
    return Description(card, local=True, instant=facts.static, identity=identity, files=files)


def _client_card(model: Model) -> Card:
    """Return the card of a model that exists only as a loaded one; its user must name the space."""
    client = model.client
    prompts = choose_prompts(client.prompts, client.default_prompt_name)
    width: int = client.get_embedding_dimension()
    card = custom_card(
        model,
        width,
        allowed="any",
        input_tokens=finite(client.max_seq_length),
        texts=MAX_TEXTS,
        symmetric=is_symmetric(prompts, (type(module).__name__ for module in client)),
        price=Decimal(0),
        source="the loaded model",
    )
    return replace(card, dimensions=width)


def _check_remote_code(model: Model, name: str) -> None:
    pinned = COMMIT.fullmatch(model.revision or "") is not None
    if (model.trust_remote_code and not pinned) or (name in NEEDS_REMOTE_CODE and not model.trust_remote_code):
        raise ConfigError(
            f"{model.name} runs Python code from https://huggingface.co/{name}. Read that code, then allow the commit "
            f'that you have read and no other: Model("{model.name}", revision="<commit>", trust_remote_code=True).'
        )


def _not_downloaded(model: Model, name: str) -> ConfigError:
    command = ["hf", "download", name]
    if model.revision:
        command += ["--revision", model.revision]
    if folder := os.environ.get(CACHE):
        command += ["--cache-dir", folder]
    return ConfigError(
        f"{model.name} is not in the catalogue, so its facts are read from its files, which are not on this machine. "
        f"Run: {shlex.join(command)}. Or give a folder: Model('{model.provider}:./folder')."
    )


# Facts in files


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
    modules = module_folders(folder)
    saved: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if (folder / "modules.json").exists():
        saved = _json(folder / "config_sentence_transformers.json", {})
        # sentence_bert_config.json, sentence_xlnet_config.json, …: the name differs between versions of the library
        settings = next(map(_json, modules[0][1].glob("sentence_*_config.json")), {})
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


def module_folders(folder: Path) -> list[tuple[str, Path]]:
    """Return the kind and the folder of each module; of a plain transformer, to which the library adds pooling, one."""
    if not (folder / "modules.json").exists():
        return [("Transformer", folder)]
    return [(part["type"].rpartition(".")[2], folder / part["path"]) for part in _json(folder / "modules.json")]


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


def chosen_prompts(model: Model, own: Mapping[InputType, str]) -> dict[InputType, str]:
    """Return the user's prompts, and the model's own where the user gave none."""
    return {kind: (model.prompts or {}).get(kind, own[kind]) for kind in INPUT_TYPES}
