"""Models that run in this process through sentence-transformers, from a folder or from the hub.

Promises:

- ``describe`` reads JSON files and hashes weights. It imports neither torch nor sentence-transformers and opens no
  socket; the first call that needs vectors does.
- What ``describe`` said is compared with the loaded model before the first vector is made: dimensions, prompts and,
  for a folder, the files themselves. So no vector is cached under another model's name.
- Prompts are chosen as the library's ``encode_query`` and ``encode_document`` choose them. A model that it loads always
  has the prompts "query" and "document", if only empty, and they come before "passage", "corpus" and the default
  prompt: a model that was saved with a "passage" prompt and no "document" one embeds documents without a prompt. Pass
  ``prompts=`` to change that.
- No text is cut. The library cuts at the model's limit without a word; here such a text is refused.
- Vectors are as long as the model makes them. Only where fewer dimensions are asked for are they cut and then scaled
  to length 1. Whether a model bears that is for its user to know: it must have been trained for it (Matryoshka).
- One lock per model: sentence-transformers does not promise that ``encode`` may run twice at once (older tokenizers
  raise "Already borrowed"), and torch keeps all cores busy with one batch anyway.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np

from ..errors import ConfigError, InputRejectedError, UnavailableError
from ..models import Card, Model, custom_card
from ..types import Answer, Candidate, InputType, TokenCounts, Vectors
from . import Backend, Description, missing_extra
from ._model_files import (
    Facts,
    choose_prompts,
    finite,
    folder_digest,
    is_symmetric,
    read_facts,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger("embedrouter")

PROVIDER = "sentence-transformers"
"""The provider, the extra, and the organisation whose models the hub knows by their bare name."""

FOLDER = "sha256:"
"""How the identity of a local folder begins; its hash follows."""

NEEDS_REMOTE_CODE = frozenset({"voyageai/voyage-4-nano"})
"""Catalogued models whose architecture is Python code in the model repository."""

COMMIT = re.compile(r"[0-9a-f]+")
"""A revision that stays what it is: no branch, no tag."""

TEXTS = 256
"""Texts in one request."""

BATCH = 32
"""Texts in one forward pass, as is the library's default."""

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)

Counter: TypeAlias = Callable[[Sequence[str]], list[int]]
"""Counts the tokens of texts as the model sees them: special tokens included, nothing cut."""


# What is known of a model


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the catalogue's facts, or those that the model's files tell.

    Raises:
        ConfigError: the files are not on this machine or do not tell enough, or code would run that was not allowed.
    """
    name, folder = _place(model)
    if folder is not None:
        digest = folder_digest(folder)
        return _described(model, dimensions, folder, space=f"local/{digest[:16]}", identity=f"{FOLDER}{digest}")
    _check_remote_code(model, name)
    if (card := cards.get(model.name) or cards.get(f"{PROVIDER}:{name}")) is not None:
        return Description(card, local=True, identity=f"{name}@{model.revision or 'main'}")
    snapshot = _snapshot(model, name)
    if snapshot is not None:
        space = name + (f"@{model.revision}" if model.revision else "")
        return _described(model, dimensions, snapshot, space=space, identity=f"{name}@{snapshot.name}")
    if model.client is not None:
        return Description(_client_card(model), local=True, identity=name)
    raise _not_downloaded(model, name)


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    return SentenceTransformersBackend(model, known, candidate)


def _described(model: Model, dimensions: int | None, files: Path, *, space: str, identity: str) -> Description:
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
        texts=TEXTS,
        symmetric=facts.symmetric,
        price=Decimal(0),
        source="the model's own files",
    )
    return Description(card, local=True, identity=identity, files=files)


def _place(model: Model) -> tuple[str, Path | None]:
    """Return what the library loads, a folder's path or a hub id, and the folder if it is one."""
    path = Path(model.id).expanduser()
    if path.is_dir():
        return str(path.absolute()), path.absolute()
    if path.is_absolute() or model.id.startswith((".", "~")) or model.id.count("/") > 1 or "\\" in model.id:
        raise ConfigError(f"{model.name}: there is no folder {str(path.absolute())!r}. Check the path.")
    return (model.id if "/" in model.id else f"{PROVIDER}/{model.id}"), None


def _check_remote_code(model: Model, name: str) -> None:
    pinned = COMMIT.fullmatch(model.revision or "") is not None
    if (model.trust_remote_code and not pinned) or (name in NEEDS_REMOTE_CODE and not model.trust_remote_code):
        raise ConfigError(
            f"{model.name} runs Python code from https://huggingface.co/{name}. Read that code, then allow the commit "
            f'that you have read and no other: Model("{model.name}", revision="<commit>", trust_remote_code=True).'
        )


def _snapshot(model: Model, name: str) -> Path | None:
    """Return the folder of a hub model in the local cache, which is named after its commit; ``None``: not all there."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise missing_extra(model, PROVIDER, error) from error
    for file in ("modules.json", "config.json"):
        found = try_to_load_from_cache(name, file, cache_dir=_cache_dir(), revision=model.revision)
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


def _cache_dir() -> str | None:
    """Return the cache that the library uses in place of the hub's own."""
    return os.environ.get("SENTENCE_TRANSFORMERS_HOME")


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
        texts=TEXTS,
        symmetric=is_symmetric(prompts, (type(module).__name__ for module in client)),
        price=Decimal(0),
        source="the loaded model",
    )
    return replace(card, dimensions=width)


def _with_users(model: Model, prompts: Mapping[InputType, str]) -> dict[InputType, str]:
    return {kind: (model.prompts or {}).get(kind, prompts[kind]) for kind in INPUT_TYPES}


# The backend


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory."""

    client: Any
    count: Counter
    prompts: Mapping[InputType, str]
    """What is put before each text: the user's, or the model's own."""
    limits: Mapping[InputType, float]
    """Tokens of one text, its prompt and special tokens included."""


class SentenceTransformersBackend(Backend):
    """Embeds texts with torch, in this process."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._model = model
        self._known = known
        self._candidate = candidate
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._counting: tuple[Counter, Mapping[InputType, str]] | None = None

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Embed texts, 32 in one forward pass.

        ``timeout`` has no meaning here: a forward pass cannot be interrupted. ``tokens`` is ``None``: the router has
        counted the same texts with the same tokenizer, and once is enough.

        Raises:
            InputRejectedError: a text is over the model's limit, or the model knows no token of it.
            UnavailableError: the model cannot be loaded, or memory does not suffice.
            ConfigError: the package is missing, or the loaded model is not the one that was described.
        """
        loaded = self._ready()
        self._refuse_too_long(texts, input_type, loaded)
        encode = loaded.client.encode_query if input_type == "query" else loaded.client.encode_document
        with self._lock, _out_of_memory(self._model):
            vectors = encode(
                list(texts),
                prompt=(self._model.prompts or {}).get(input_type),
                batch_size=BATCH,
                show_progress_bar=False,
            )
        return Answer(self._finished(np.asarray(vectors, np.float32)), tokens=None)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with the model's own tokenizer, special tokens and prompt included.

        Torch is loaded only for a model that has no ``tokenizer.json``. A hub model that is not on this machine is not
        downloaded to count: that is an estimate.
        """
        self._check_process()
        counting = (self._loaded.count, self._loaded.prompts) if self._loaded else self._counting or self._from_files()
        if counting is None:
            return super().count(texts, input_type)
        count, prompts = counting
        return TokenCounts(count([prompts[input_type] + text for text in texts]), exact=True)

    def close(self) -> None:
        """Let the model go; the next call loads it again."""
        self._check_process()
        self._loaded = self._counting = None

    def _ready(self) -> _Loaded:
        self._check_process()
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
                if loaded is None:
                    loaded = self._loaded = _load(self._model, self._known, self._candidate)
        return loaded

    def _check_process(self) -> None:
        """Start afresh in a forked child, where a lock may be held for ever.

        Torch's threads do not survive a fork either: the first forward pass in the child waits for them for ever, even
        that of a model loaded anew. A single thread does not.
        """
        if os.getpid() != self._process:
            self._start()
            if torch := sys.modules.get("torch"):
                torch.set_num_threads(1)

    def _from_files(self) -> tuple[Counter, Mapping[InputType, str]] | None:
        files = self._known.files or _snapshot(self._model, _place(self._model)[0])
        if files is None and self._model.client is None:
            return None
        facts = read_facts(self._model, files) if files else None
        if facts is None or facts.tokenizer is None:
            loaded = self._ready()
            return loaded.count, loaded.prompts
        self._counting = _file_counter(self._model, facts), _with_users(self._model, facts.prompts)
        return self._counting

    def _refuse_too_long(self, texts: Sequence[str], input_type: InputType, loaded: _Loaded) -> None:
        limit, prompt = loaded.limits[input_type], loaded.prompts[input_type]
        if limit == math.inf:
            return
        # ASCII text has at most one token per letter and one more; other text may grow when it is normalised.
        room = limit - loaded.count([""])[0] - len(prompt) - 1
        doubtful = [index for index, text in enumerate(texts) if len(text) > room or not (prompt + text).isascii()]
        counts = loaded.count([prompt + texts[index] for index in doubtful])
        if long := [index for index, tokens in zip(doubtful, counts, strict=True) if tokens > limit]:
            raise InputRejectedError(
                f"longer than the {limit:.0f} tokens that the model takes; sentence-transformers would have cut it",
                model=self._model.name,
                too_long=True,
                indices=long,
            )

    def _finished(self, vectors: Vectors) -> Vectors:
        """Cut to the dimensions asked for, and only then scale to length 1."""
        cut = vectors[:, : self._candidate.space.dimensions]
        if blank := np.flatnonzero(~cut.any(axis=1)).tolist():
            raise InputRejectedError(
                "the model knows no token of it, so it has no vector. Leave it out.",
                model=self._model.name,
                indices=blank,
            )
        if cut.shape != vectors.shape:
            cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        return np.ascontiguousarray(cut, np.float32)


# Loading


def _load(model: Model, known: Description, candidate: Candidate) -> _Loaded:
    """Load a model and compare it with its description.

    Raises:
        ConfigError: the package is missing, or the model is not the one described.
        UnavailableError: it cannot be loaded.
    """
    client = model.client if model.client is not None else _client(model, known)
    own = choose_prompts(client.prompts, client.default_prompt_name)
    _compare(model, known, client.get_embedding_dimension(), own)
    count, taken = _client_counter(client)
    limits = (candidate.limits.input_tokens, finite(client.max_seq_length), taken)
    return _Loaded(
        client=client,
        count=count,
        prompts=_with_users(model, own),
        limits={
            kind: min((n for n in (*limits, getattr(client[0], f"{kind}_length", None)) if n), default=math.inf)
            for kind in INPUT_TYPES
        },
    )


def _client(model: Model, known: Description) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise missing_extra(model, PROVIDER, error) from error
    name, folder = _place(model)
    revision = model.revision
    files = known.files or _snapshot(model, name)
    if files is None:
        logger.info("%s is not on this machine yet and will be downloaded from huggingface.co", name)
    elif folder is None:
        revision = files.name  # the very commit that is here
    with _without_bar(), _not_loaded(model):
        return SentenceTransformer(
            name,
            revision=revision,
            trust_remote_code=model.trust_remote_code,
            device=model.device,
            local_files_only=files is not None,
        )


def _compare(model: Model, known: Description, width: int | None, own: Mapping[InputType, str]) -> None:
    """Raise ``ConfigError`` where the loaded model contradicts its description."""
    card, files = known.card, known.files
    is_folder = (known.identity or "").startswith(FOLDER)
    if files is not None and is_folder and known.identity != FOLDER + folder_digest(files):
        raise ConfigError(f"{files} has changed since the router was built. Build the router again.")
    if width != card.dimensions:
        raise ConfigError(
            f"{model.name} makes {width} dimensions and was described with {card.dimensions}. Correct the description "
            "(dimensions=, the catalogue), or give client= without truncate_dim."
        )
    used = _with_users(model, own)
    said = _with_users(model, read_facts(model, files).prompts) if files else used
    if used != said or (card.symmetric and not model.prompts and used["document"] != used["query"]):
        raise ConfigError(
            f"{model.name} puts other prompts before texts than its description says. Say so, and they are kept "
            f"apart: Model({model.name!r}, prompts={dict(own)})."
        )


@contextmanager
def _without_bar() -> Iterator[None]:
    """Hide the progress bar that transformers draws while it loads weights."""
    from transformers.utils import logging as bars

    before = bars.set_tqdm_hook(_hidden)
    try:
        yield
    finally:
        bars.set_tqdm_hook(None if before is _hidden else before)  # two may load at once


def _hidden(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **{**options, "disable": True})


def _file_counter(model: Model, facts: Facts) -> Counter:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing_extra(model, PROVIDER, error) from error
    count = _counter(Tokenizer.from_file(str(facts.tokenizer)), special=not facts.static)
    return (lambda texts: count([text.lower() for text in texts])) if facts.lower else count


def _client_counter(client: Any) -> tuple[Counter, int | None]:
    """Return a counter that works as the loaded tokenizer does, and the limit that a bare tokenizer was saved with.

    It is a copy: the tokenizer in use is changed by each call (padding, truncation), which is not safe to share.
    """
    from tokenizers import Tokenizer

    own = client.tokenizer
    if isinstance(own, Tokenizer):  # word vectors: special tokens are left out
        limit = (own.truncation or {}).get("max_length")
        return _counter(Tokenizer.from_str(own.to_str()), special=False), limit
    if (fast := getattr(own, "backend_tokenizer", None)) is not None:
        return _counter(Tokenizer.from_str(fast.to_str()), special=True), None
    return (lambda texts: [len(own(text, truncation=False)["input_ids"]) for text in texts]), None


def _counter(tokenizer: Tokenizer, *, special: bool) -> Counter:
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found.ids) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]

    return count


# Errors


MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says it, on each kind of device; the classes differ and some are plain ``RuntimeError``."""


@contextmanager
def _out_of_memory(model: Model) -> Iterator[None]:
    """Translate what a forward pass may fail with; anything else is a programming error and passes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in MEMORY):
            raise
        raise UnavailableError(
            "the memory does not suffice. Send less at once with Model(…, batch_size=8), or set device='cpu'.",
            model=model.name,
            retryable=False,
        ) from error


@contextmanager
def _not_loaded(model: Model) -> Iterator[None]:
    """Translate what loading may fail with: no way to the hub or no such file; settings, code or packages it wants."""
    try:
        with _out_of_memory(model):
            yield
    except OSError as error:  # the hub's errors are among them; its client has tried several times
        raise UnavailableError(f"cannot be loaded: {error}", model=model.name, retryable=False) from error
    except (ValueError, ImportError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{model.name} cannot be loaded: {error}") from error


def _not_downloaded(model: Model, name: str) -> ConfigError:
    command = ["hf", "download", name]
    if model.revision:
        command += ["--revision", model.revision]
    if folder := _cache_dir():
        command += ["--cache-dir", folder]
    return ConfigError(
        f"{model.name} is not in the catalogue, so its facts are read from its files, which are not on this machine. "
        f"Run: {shlex.join(command)}. Or give a folder: Model('{PROVIDER}:./folder')."
    )
