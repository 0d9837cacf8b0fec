"""The identity of a model in memory: what is loaded is asked, not what was declared.

A model that its user has loaded (``client=``) is compared with the files that it is declared to be: modules, weights,
settings and tokenizer. Weights are read one by one, so the model is not in memory twice. Without files on this machine,
the hash of what is loaded becomes part of the identity. The pooling layer of a transformer counts only where no module
replaces it: the library fills it with random numbers where the files have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..models import Model
from ..models.agreement import PROBE_TEXTS
from ..types import InputType
from . import Description
from ._model_files import choose_prompts, chosen_prompts, matches_folder, module_folders, read_facts

VOLATILE = frozenset({"transformers_version", "dtype", "torch_dtype", "architectures", "name_or_path", "use_cache"})
"""Settings of a transformer that differ between releases, say where it was loaded from, or change no vector."""

OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Names of weights in old files."""


def describe_client(model: Model, known: Description) -> Description:
    """Return the description of a model that its user has loaded.

    Raises:
        ConfigError: the loaded model is not the one that its name says.
    """
    require_described(model, known, model.client)
    if known.files is not None:
        return known
    return replace(known, identity=f"{known.identity}#{loaded_digest(model.client)}")


def require_described(model: Model, known: Description, client: Any) -> None:
    """Refuse a loaded model that contradicts its description.

    Raises:
        ConfigError: files, dimensions, prompts or, of the user's own, anything else differs.
    """
    card, files = known.card, known.files
    if not matches_folder(model, known):
        raise ConfigError(f"{files} has changed since the router was built. Build the router again.")
    width = client.get_embedding_dimension()
    if width != card.dimensions:
        raise ConfigError(
            f"{model.name} makes {width} dimensions and was described with {card.dimensions}. Correct the description "
            "(dimensions=, the catalogue), or give client= without truncate_dim."
        )
    own = choose_prompts(client.prompts, client.default_prompt_name)
    used = chosen_prompts(model, own)
    described = chosen_prompts(model, read_facts(model, files).prompts) if files else used
    if used != described or (card.symmetric and not model.prompts and used["document"] != used["query"]):
        raise ConfigError(
            f"{model.name} puts other prompts before texts than its description says. Say so, and they are kept "
            f"apart: Model({model.name!r}, prompts={dict(own)})."
        )
    if client is model.client and files is not None and (difference := _difference(model, files)):
        raise ConfigError(
            f"{model.name}: the loaded model is not the one in {files}: {difference}. Leave client= out; or give the "
            'loaded model a name and a space of its own: Model("sentence-transformers:mine", space="mine", client=…).'
        )


def require_unchanged(model: Model, known: Description) -> None:
    """Refuse a model of the user's that was changed since its description.

    Raises:
        ConfigError: its weights or settings are others.
    """
    identity = known.identity or ""
    if known.files is None and not identity.endswith(f"#{loaded_digest(model.client)}"):
        raise ConfigError(f"{model.name} has changed since the router was built. Build the router again.")


def loaded_digest(client: Any) -> str:
    """Return the hash of a loaded model: modules, weights, settings, tokenizer and prompts."""
    whole = hashlib.sha256()
    modules = list(client)
    for module in modules:
        _add_module(whole, module, pooled=len(modules) > 1)
    prompts: Mapping[InputType, str] = choose_prompts(client.prompts, client.default_prompt_name)
    whole.update(_text([type(client).__qualname__, prompts, client.truncate_dim, _vocabulary(client.tokenizer)]))
    return whole.hexdigest()[:32]


def _add_module(whole: Any, module: Any, *, pooled: bool) -> None:
    settings: Any = module.get_config_dict() if hasattr(module, "get_config_dict") else None
    parts = [(name, type(part).__qualname__, part.extra_repr()) for name, part in module.named_modules()]
    whole.update(_text([type(module).__qualname__, settings, parts, _settings(module)]))
    for name, tensor in sorted(module.state_dict().items()):
        if pooled and ".pooler." in f".{name}":
            continue
        whole.update(_text([name, str(tensor.dtype), list(tensor.shape)]))
        whole.update(_bytes(tensor))


def _bytes(tensor: Any) -> NDArray[np.uint8]:
    import torch

    numbers: NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return numbers


def _text(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, default=lambda item: type(item).__qualname__).encode()


def _settings(module: Any) -> Any:
    """Return the settings of the transformer in a module; ``None`` where there is none."""
    config: Any = next((part.config for part in module.modules() if hasattr(part, "config")), None)
    return _lasting(config.to_dict()) if hasattr(config, "to_dict") else None


def _lasting(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {
            str(name): _lasting(value)
            for name, value in settings.items()
            if name not in VOLATILE and not str(name).startswith("_")
        }
    return [_lasting(item) for item in settings] if isinstance(settings, list | tuple) else settings


def _vocabulary(tokenizer: Any) -> Any:
    """Return a tokenizer's vocabulary, and how it reads a few texts."""
    from tokenizers import Tokenizer

    is_fast = isinstance(tokenizer, Tokenizer)
    fast: Any = tokenizer if is_fast else getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return [tokenizer.get_vocab(), [tokenizer(text, truncation=False)["input_ids"] for text in PROBE_TEXTS]]
    own = Tokenizer.from_str(fast.to_str())  # calls change the padding of the one in use
    own.no_truncation()
    own.no_padding()
    return [own.get_vocab(), [own.encode(text).ids for text in PROBE_TEXTS]]


# Comparison with files


def _difference(model: Model, files: Path) -> str | None:
    """Return what differs between a loaded model and its files; ``None`` where nothing does."""
    modules, described = list(model.client), module_folders(files)
    kinds = [type(module).__name__ for module in modules]
    if len(described) == 1 and len(modules) == 2:  # a plain transformer, to which the library adds pooling
        pooling = modules.pop()
        if kinds.pop() != "Pooling" or _hash(pooling) != _hash(type(pooling)(pooling.get_embedding_dimension())):
            return "its modules are others"
    if kinds != [kind for kind, _ in described]:
        return "its modules are others"
    for number, (module, (kind, folder)) in enumerate(zip(modules, described, strict=True)):
        if kind == "Transformer":
            difference = _transformer_difference(model, module, folder, pooled=len(kinds) > 1 or len(described) == 1)
        else:
            loaded = type(module).load(str(folder), local_files_only=True)
            difference = None if _hash(module) == _hash(loaded) else f"module {number} ({kind}) is another"
        if difference:
            return difference
    facts = read_facts(model, files)
    if facts.tokenizer is not None:
        from tokenizers import Tokenizer

        if _vocabulary(model.client.tokenizer) != _vocabulary(Tokenizer.from_file(str(facts.tokenizer))):
            return "its tokenizer is another"
    return None if bool(getattr(modules[0], "do_lower_case", False)) == facts.lower else "do_lower_case is another"


def _hash(module: Any) -> str:
    whole = hashlib.sha256()
    _add_module(whole, module, pooled=False)
    return whole.hexdigest()


def _transformer_difference(model: Model, module: Any, folder: Path, *, pooled: bool) -> str | None:
    from transformers import AutoConfig

    saved = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=model.trust_remote_code
    ).to_dict()
    if _text(_settings(module)) != _text(_lasting(saved)):
        return "its settings are others"
    return "its weights are others" if _has_other_weights(module, folder, pooled=pooled) else None


def _has_other_weights(module: Any, folder: Path, *, pooled: bool) -> bool:
    """Return whether a weight is in no file under its name, or the files' numbers are others."""
    weights = dict(module.named_parameters(remove_duplicate=False))
    names: dict[str, list[str]] = {}
    for name in weights:
        if not (pooled and ".pooler." in f".{name}"):
            parts = name.split(".")
            for first in (1, 2):  # the attribute of the module, and the prefix of a model with another head
                names.setdefault(".".join(parts[first:]), []).append(name)
    missing = {id(weights[name]) for found in names.values() for name in found}
    for key, saved in _saved_weights(folder):
        parts = [OLD_NAMES.get(part, part) for part in key.split(".")]
        for first in range(min(3, len(parts))):
            for name in names.get(".".join(parts[first:]), ()):
                if id(weights[name]) in missing and _equal(weights[name], saved):
                    missing.discard(id(weights[name]))
    return bool(missing) or not weights


def _equal(weight: Any, saved: Any) -> bool:
    """Return whether a weight has the numbers of the file; a shorter number type does not hold these."""
    if weight.shape != saved.shape or weight.element_size() < saved.element_size():
        return False
    return np.array_equal(_bytes(weight), _bytes(saved.to(weight.dtype)))  # torch's threads do not survive a fork


def _saved_weights(folder: Path) -> Iterator[tuple[str, Any]]:
    import torch
    from safetensors import safe_open

    found = sorted(folder.glob("*.safetensors"))
    for path in found:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                yield name, file.get_tensor(name)
    for path in [] if found else sorted(folder.glob("pytorch_model*.bin")):
        yield from torch.load(path, map_location="cpu", weights_only=True).items()
