"""What is known of a local model before it is loaded: where it is, its identity, and its card.

Only JSON files are read and weights hashed: neither torch nor sentence-transformers is imported and no socket opened.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from ..errors import ConfigError
from ..models import Card, Model, custom_card
from . import Description, needs_extra
from ._model_files import choose_prompts, finite, folder_digest, is_symmetric, read_facts

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

MAX_TEXTS = 256
"""Texts in one request."""


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the catalogue's facts, or those of the model's files.

    Raises:
        ConfigError: the files are not on this machine or do not suffice, or code would run that was not allowed.
    """
    name, folder = locate(model)
    if folder is not None:
        digest = folder_digest(folder)
        return _from_files(model, dimensions, folder, space=f"local/{digest[:16]}", identity=f"{FOLDER}{digest}")
    _check_remote_code(model, name)
    if (card := cards.get(model.name) or cards.get(f"{PROVIDER}:{name}")) is not None:
        return Description(card, local=True, identity=f"{name}@{model.revision or 'main'}")
    snapshot = find_snapshot(model, name)
    if snapshot is not None:
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
    with needs_extra(model, PROVIDER):
        from huggingface_hub import try_to_load_from_cache
    for file in ("modules.json", "config.json"):
        found = try_to_load_from_cache(name, file, cache_dir=os.environ.get(CACHE), revision=model.revision)
        if isinstance(found, str):
            folder = Path(found).parent
            try:
                read_facts(model, folder)
            except ConfigError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    return None
                raise
            return folder if any(path.suffix in (".safetensors", ".bin") for path in folder.rglob("*")) else None
    return None


def matches_folder(known: Description) -> bool:
    """Return whether a described folder still holds the same files; true of a hub model, whose commit cannot change."""
    described = known.identity or ""
    return known.files is None or not described.startswith(FOLDER) or described == FOLDER + folder_digest(known.files)


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
    return Description(card, local=True, identity=identity, files=files)


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
        f"Run: {shlex.join(command)}. Or give a folder: Model('{PROVIDER}:./folder')."
    )
