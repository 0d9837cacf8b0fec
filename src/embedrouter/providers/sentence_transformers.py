"""Models that run in this process through sentence-transformers, from a folder or from the hub.

Promises:

- ``describe`` reads JSON files and hashes weights. It imports neither torch nor sentence-transformers and opens no
  socket; the first call that needs vectors does (see ``_model_files``).
- The loaded model is compared with its description before the first vector is made: dimensions, prompts and, for a
  folder, the files themselves. So no vector is cached under another model's name (see ``_model_loading``).
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from .._process import PerProcess
from ..errors import InputRejectedError
from ..models import Model
from ..types import Answer, Candidate, InputType, TokenCounts, Vectors
from . import Backend, Description
from ._model_files import describe, find_snapshot, locate, read_facts
from ._model_loading import Counter, Loaded, chosen_prompts, file_counter, load, memory_errors

__all__ = ["SentenceTransformersBackend", "create", "describe"]

BATCH = 32
"""Texts in one forward pass, as is the library's default."""


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
        return self.parse_answer(vectors)

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
            files = self._known.files or find_snapshot(self._model, locate(self._model)[0])
            facts = read_facts(self._model, files) if files else None
            if facts and facts.tokenizer:
                state.counting = file_counter(self._model, facts), chosen_prompts(self._model, facts.prompts)
            elif files or self._model.client is not None:
                self._load()
        loaded = state.loaded
        return (loaded.count, loaded.prompts) if loaded else state.counting


create = SentenceTransformersBackend
