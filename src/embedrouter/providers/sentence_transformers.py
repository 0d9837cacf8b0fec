"""Models that run in this process through sentence-transformers, from a folder or from the hub.

Promises:

- ``describe`` reads JSON files and hashes weights. It imports neither torch nor sentence-transformers and opens no
  socket; the first call that needs vectors does (see ``_model_files``).
- The loaded model is compared with its description before the first vector is made: dimensions, prompts and, for a
  folder, the files themselves; a model that was handed in (``client=``) also in weights, settings and tokenizer (see
  ``_loaded_model``). The description keys the cache, so no vector is cached under another model's name. The commit of a
  hub model that is downloaded only then is told with each answer, as servers tell the name of their model.
- Prompts are chosen as the library's ``encode_query`` and ``encode_document`` choose them. A model that it loads always
  has the prompts "query" and "document", if only empty, and they come before "passage", "corpus" and the default
  prompt: a model that was saved with a "passage" prompt and no "document" one embeds documents without a prompt. Pass
  ``prompts=`` to change that.
- No text is cut. The library cuts at the model's limit without a word; here such a text is refused.
- Vectors are as long as the model makes them. Only where fewer dimensions are asked for are they cut and then scaled
  to length 1. Only a model that was trained for it (Matryoshka) can be cut, which its user has to check.
- One lock per model: sentence-transformers does not promise that ``encode`` may run twice at once (older tokenizers
  raise "Already borrowed"), and torch keeps all cores busy with one batch anyway.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._display import get_logger
from .._process import PerProcess
from ..errors import ConfigError, InputRejectedError, UnavailableError
from ..models import Catalogue, Model
from ..types import Answer, Candidate, InputType, TokenCounts, Vectors
from . import Backend, Description, needs_extra
from ._loaded_model import describe_client, require_described, require_unchanged
from ._model_files import INPUT_TYPES, PROVIDER, Facts, choose_prompts, chosen_prompts, find_files, finite, read_facts
from ._model_files import describe as describe_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["SentenceTransformersBackend", "create", "describe"]

logger = get_logger("embedrouter.models")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Torch's messages, on each kind of device; the exceptions differ and some are plain ``RuntimeError``."""

Counter: TypeAlias = Callable[[Sequence[str]], list[int]]
"""Counts the tokens of texts as the model takes them: special tokens included, nothing cut."""

BATCH = 32
"""Texts in one forward pass, as is the library's default."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the catalogue's facts, or those of the model's files; of a loaded model, its own identity.

    Raises:
        ConfigError: the files are not on this machine or do not suffice, code would run that was not allowed, or the
            loaded model is not the one that its name says.
    """
    known = describe_files(model, catalogue, dimensions)
    return known if model.client is None else describe_client(model, known)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    client: Any
    count: Counter
    prompts: Mapping[InputType, str]
    """The text before each input: the user's, or the model's own."""
    limits: Mapping[InputType, float]
    """Tokens of one text, its prompt and special tokens included."""
    commit: str | None
    """What was loaded, where the description could not say it: the model was not on this machine."""


_Counting: TypeAlias = tuple[Counter, Mapping[InputType, str]]


@dataclass(slots=True, eq=False)
class _State:
    """What one process has loaded; in a forked child, a lock that another thread held is never released."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: Loaded | None = None
    counting: _Counting | None = None
    """The tokenizer and the prompts, read from files while the model is not loaded."""


class SentenceTransformersBackend(Backend):
    """Embeds texts with torch, in this process."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._model, self._known, self._candidate = model, known, candidate
        self._process = os.getpid()
        self._states = PerProcess(_State)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Embed texts, 32 in one forward pass.

        ``timeout`` has no effect: a forward pass cannot be interrupted. ``tokens`` is ``None``: the router has counted
        the same texts with the same tokenizer, and once is enough.

        Raises:
            InputRejectedError: a text is over the model's limit, or has no token in the model's vocabulary.
            UnavailableError: the model cannot be loaded, or memory does not suffice.
            ConfigError: the package is missing, or the loaded model is not the one that was described.
        """
        loaded = self._load()
        request = self.build_request(loaded, texts, input_type)
        with memory_errors(self._model):
            vectors = self.send(loaded, request, input_type)
        return replace(self.parse_answer(vectors), model=loaded.commit)

    def build_request(self, loaded: Loaded, texts: Sequence[str], input_type: InputType) -> list[str]:
        """Return the texts as a list.

        Raises:
            InputRejectedError: a text is over the model's limit.
        """
        limit, prompt = loaded.limits[input_type], loaded.prompts[input_type]
        if limit == math.inf:
            return list(texts)
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
        return list(texts)

    def send(self, loaded: Loaded, request: list[str], input_type: InputType) -> Vectors:
        """Run the model."""
        encode = loaded.client.encode_query if input_type == "query" else loaded.client.encode_document
        prompt = (self._model.prompts or {}).get(input_type)
        with self._states.get().lock:
            vectors = encode(request, prompt=prompt, batch_size=BATCH, show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    def parse_answer(self, vectors: Vectors) -> Answer:
        """Cut vectors to the dimensions asked for, and only then scale them to length 1.

        Raises:
            InputRejectedError: a text has no token in the model's vocabulary.
        """
        cut = vectors[:, : self._candidate.space.dimensions]
        if blank := np.flatnonzero(~cut.any(axis=1)).tolist():
            raise InputRejectedError(
                "the model has no token for any part of it, so it has no vector. Leave it out.",
                model=self._model.name,
                indices=blank,
            )
        if cut.shape != vectors.shape:
            cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        return Answer(np.ascontiguousarray(cut, np.float32), tokens=None)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with the model's own tokenizer, special tokens and prompt included.

        Torch is loaded only for a model that has no ``tokenizer.json``. A hub model that is not on this machine is not
        downloaded to count: that is an estimate.
        """
        counting = self._counting()
        if counting is None:
            return super().count(texts, input_type)
        count, prompts = counting
        return TokenCounts(count([prompts[input_type] + text for text in texts]), exact=True)

    def close(self) -> None:
        """Release the model's memory; the next call loads the model again."""
        state = self._states.get()
        state.loaded = state.counting = None

    def _load(self) -> Loaded:
        state = self._states.get()
        with state.lock:
            if state.loaded is None:
                # Torch's threads do not survive a fork: the first forward pass in the child would wait for them for
                # ever, even that of a model loaded anew.
                if self._process != os.getpid() and (torch := sys.modules.get("torch")):
                    torch.set_num_threads(1)
                state.loaded = load(self._model, self._known, self._candidate)
            return state.loaded

    def _counting(self) -> _Counting | None:
        state = self._states.get()
        if state.loaded is None and state.counting is None:
            _, files = find_files(self._model, self._known)
            facts = read_facts(self._model, files) if files else None
            if facts and facts.tokenizer:
                state.counting = file_counter(self._model, facts), chosen_prompts(self._model, facts.prompts)
            elif files or self._model.client is not None:
                self._load()
        loaded = state.loaded
        return (loaded.count, loaded.prompts) if loaded else state.counting


create = SentenceTransformersBackend


# Loading


def load(model: Model, known: Description, candidate: Candidate) -> Loaded:
    """Load a model and compare it with its description.

    Raises:
        ConfigError: the package is missing, or the model is not the one described.
        UnavailableError: the model cannot be loaded.
    """
    client = model.client if model.client is not None else _client(model, known)
    require_described(model, known, client)
    if client is model.client:
        require_unchanged(model, known)
    own = choose_prompts(client.prompts, client.default_prompt_name)
    count, taken = _client_counter(client)
    limits = (candidate.limits.input_tokens, finite(client.max_seq_length), taken)
    return Loaded(
        client=client,
        count=count,
        prompts=chosen_prompts(model, own),
        limits={
            kind: min((n for n in (*limits, getattr(client[0], f"{kind}_length", None)) if n), default=math.inf)
            for kind in INPUT_TYPES
        },
        commit=_loaded_commit(model, known),
    )


def _loaded_commit(model: Model, known: Description) -> str | None:
    """Return the name and the commit of a model that was downloaded just now, whose description has no commit."""
    if known.files is not None or model.client is not None:
        return None
    name, files = find_files(model, known)
    return f"{name}@{files.name}" if files else None


def _client(model: Model, known: Description) -> Any:
    with needs_extra(model, PROVIDER):
        from sentence_transformers import SentenceTransformer
    name, files = find_files(model, known)
    revision = model.revision
    if files is None:
        logger.info("%s is not on this machine yet and will be downloaded from huggingface.co", name)
    elif str(files) != name:
        revision = files.name  # the commit that is on this machine
    with _without_progress_bar(), memory_errors(model):
        try:
            return SentenceTransformer(
                name,
                revision=revision,
                trust_remote_code=model.trust_remote_code,
                device=model.device,
                local_files_only=files is not None,
            )
        except OSError as error:  # the hub's errors are among these, after several attempts of its client
            raise UnavailableError(f"cannot be loaded: {error}", model=model.name, retryable=False) from error
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{model.name} cannot be loaded: {error}") from error


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide the progress bar that transformers draws while it loads weights."""
    from transformers.utils import logging as bars

    before = bars.set_tqdm_hook(_hidden)
    try:
        yield
    finally:
        bars.set_tqdm_hook(None if before is _hidden else before)  # two models may be loaded at once


def _hidden(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **{**options, "disable": True})


# Counting


def file_counter(model: Model, facts: Facts) -> Counter:
    """Return a counter that reads the model's ``tokenizer.json``.

    Raises:
        ConfigError: the package is missing.
    """
    with needs_extra(model, PROVIDER):
        from tokenizers import Tokenizer
    count = _counter(Tokenizer.from_file(str(facts.tokenizer)), special=not facts.static)
    return (lambda texts: count([text.lower() for text in texts])) if facts.lower else count


def _client_counter(client: Any) -> tuple[Counter, int | None]:
    """Return a counter that works as the loaded tokenizer does, and the limit that a bare tokenizer was saved with.

    The counter has a copy: the tokenizer in use is changed by each call (padding, truncation) and cannot be shared.
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


@contextmanager
def memory_errors(model: Model) -> Iterator[None]:
    """Translate torch's lack of memory; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in OUT_OF_MEMORY):
            raise
        raise UnavailableError(
            "the memory does not suffice. Send less at once with Model(…, batch_size=8), or set device='cpu'.",
            model=model.name,
            retryable=False,
        ) from error
