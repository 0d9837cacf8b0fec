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

import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .._display import get_logger
from .._process import PerProcess
from ..errors import ConfigError
from ..models import Catalogue, Model
from ..types import Answer, Candidate, InputType, TokenCounts, Vectors
from . import Backend, Description
from ._conversion import ConversionError, open_converted, runtimes_for
from ._loaded_model import describe_client, require_described, require_unchanged
from ._local import finished, require_within
from ._model_files import (
    INPUT_TYPES,
    choose_prompts,
    chosen_prompts,
    find_files,
    finite,
    matches_folder,
    read_facts,
)
from ._model_files import describe as describe_files
from ._runtimes import PACKAGES, Runtime, version_of
from ._torch_model import Counter, client_counter, file_counter, memory_errors, torch_client

__all__ = ["SentenceTransformersBackend", "create", "describe"]

logger = get_logger("embedrouter.models")

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

    encode: Callable[[list[str], InputType], Vectors]
    """Returns vectors as long as the model makes them."""
    count: Counter
    prompts: Mapping[InputType, str]
    """The text before each input: the user's, or the model's own."""
    limits: Mapping[InputType, float]
    """Tokens of one text, its prompt and special tokens included."""
    commit: str | None
    """What was loaded, where the description could not say it: the model was not on this machine."""
    runtime: str
    """What computes, with its version, and why not what was to be tried first."""


_Counting: TypeAlias = tuple[Counter, Mapping[InputType, str]]


@dataclass(slots=True, eq=False)
class _State:
    """What one process has loaded; in a forked child, a lock that another thread held is never released."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: Loaded | None = None
    counting: _Counting | None = None
    """The tokenizer and the prompts, read from files while the model is not loaded."""


class SentenceTransformersBackend(Backend):
    """Embeds texts in this process, with torch or a faster runtime."""

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
        require_within(self._model, texts, loaded.prompts[input_type], loaded.limits[input_type], loaded.count)
        return list(texts)

    def send(self, loaded: Loaded, request: list[str], input_type: InputType) -> Vectors:
        """Run the model."""
        with self._states.get().lock:
            return loaded.encode(request, input_type)

    def parse_answer(self, vectors: Vectors) -> Answer:
        """Cut vectors to the dimensions asked for, and only then scale them to length 1.

        Raises:
            InputRejectedError: a text has no token in the model's vocabulary.
        """
        return finished(self._model, vectors, self._candidate.space.dimensions)

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

    @property
    def runtime(self) -> str:
        """What computes the vectors in this process; before the model is loaded, empty."""
        loaded = self._states.get().loaded
        return loaded.runtime if loaded else ""

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
                forked = self._process != os.getpid()
                if forked and (torch := sys.modules.get("torch")):
                    torch.set_num_threads(1)
                state.loaded = load(self._model, self._known, self._candidate, forked=forked)
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


def load(model: Model, known: Description, candidate: Candidate, *, forked: bool = False) -> Loaded:
    """Load a model, in the fastest runtime that there is, and compare it with its description.

    Args:
        forked: whether this process was forked from one that may have loaded the model.

    Raises:
        ConfigError: a package is missing, or the model is not the one described.
        UnavailableError: the model cannot be loaded.
    """
    client: Any = None

    def torch_model() -> Any:
        nonlocal client
        if client is None:
            client = model.client if model.client is not None else torch_client(model, known)
            require_described(model, known, client)
        return client

    refused: list[str] = []
    for runtime in runtimes_for(model):
        if known.files is None:
            torch_model()  # downloads the files
        name, files = find_files(model, known)
        try:
            if runtime == "openvino" and forked and runtime in sys.modules:
                raise ConversionError("its threads do not survive a fork")  # a call would wait for ever
            if files is None:
                raise ConversionError(f"{name} has no files in the hub's folder")
            return _converted(model, known, candidate, files, runtime, torch_model)
        except ConversionError as error:
            refused.append(f"{PACKAGES[runtime]}: {error}")
            level = logging.INFO if model.runtime == "auto" else logging.WARNING
            logger.log(level, "%s is computed by torch, not by %s", model.name, refused[-1])
    return _in_torch(model, known, candidate, torch_model(), refused)


def _converted(
    model: Model,
    known: Description,
    candidate: Candidate,
    files: Path,
    runtime: Runtime,
    torch_model: Callable[[], Any],
) -> Loaded:
    if not matches_folder(model, known):
        raise ConfigError(f"{files} has changed since the router was built. Build the router again.")
    facts, commit = read_facts(model, files), _loaded_commit(model, known)
    encoder = open_converted(model, files, commit or known.identity or "", facts, runtime, torch_model)
    prompts = chosen_prompts(model, facts.prompts)
    return Loaded(
        encode=lambda texts, kind: encoder.encode(texts, prompts[kind]),
        count=encoder.reader.count,
        prompts=prompts,
        limits=dict.fromkeys(INPUT_TYPES, _least(candidate.limits.input_tokens, facts.input_tokens)),
        commit=commit,
        runtime=f"{runtime} ({PACKAGES[runtime]} {version_of(PACKAGES[runtime])})",
    )


def _in_torch(model: Model, known: Description, candidate: Candidate, client: Any, refused: Sequence[str]) -> Loaded:
    if client is model.client:
        require_unchanged(model, known)
    own = choose_prompts(client.prompts, client.default_prompt_name)
    count, taken = client_counter(client)
    limits = (candidate.limits.input_tokens, finite(client.max_seq_length), taken)

    def encode(texts: list[str], kind: InputType) -> Vectors:
        run = client.encode_query if kind == "query" else client.encode_document
        prompt = (model.prompts or {}).get(kind)
        return np.asarray(run(texts, prompt=prompt, batch_size=BATCH, show_progress_bar=False), np.float32)

    return Loaded(
        encode=encode,
        count=count,
        prompts=chosen_prompts(model, own),
        limits={kind: _least(*limits, getattr(client[0], f"{kind}_length", None)) for kind in INPUT_TYPES},
        commit=_loaded_commit(model, known),
        runtime="; ".join([f"torch (torch {version_of('torch')})", *refused]),
    )


def _least(*limits: int | None) -> float:
    return min((limit for limit in limits if limit), default=math.inf)


def _loaded_commit(model: Model, known: Description) -> str | None:
    """Return the name and the commit of a model that was downloaded just now, whose description has no commit."""
    if known.files is not None or model.client is not None:
        return None
    name, files = find_files(model, known)
    return f"{name}@{files.name}" if files else None
