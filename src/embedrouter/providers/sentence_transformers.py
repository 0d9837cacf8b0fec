"""Models that run in this process through sentence-transformers, from a folder or from the hub.

Promises:

- ``describe`` reads JSON files and hashes weights. It imports neither torch nor sentence-transformers and opens no
  socket; the first call that needs vectors does (see ``_model_identity``).
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
import sys
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from .._process import watch_forks
from ..errors import InputRejectedError
from ..models import Model
from ..types import Answer, Candidate, InputType, TokenCounts, Vectors
from . import Backend, Description
from ._model_files import read_facts
from ._model_identity import describe, find_snapshot, locate
from ._model_loading import Counter, Loaded, chosen_prompts, file_counter, load, out_of_memory

__all__ = ["SentenceTransformersBackend", "create", "describe"]

BATCH = 32
"""Texts in one forward pass, as is the library's default."""


class SentenceTransformersBackend(Backend):
    """Embeds texts with torch, in this process."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._model = model
        self._known = known
        self._candidate = candidate
        self._forked = False
        self._start()
        watch_forks(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self._counting: tuple[Counter, Mapping[InputType, str]] | None = None

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
        try:
            vectors = self.send(loaded, request, input_type)
        except (RuntimeError, MemoryError) as error:
            failure = self.translate_error(error)
            if failure is error:
                raise
            raise failure from error
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
        with self._lock:
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

    def translate_error(self, error: Exception) -> Exception:
        """Return our error for a lack of memory, or ``error`` itself, which is a programming error."""
        return out_of_memory(error, self._model) or error

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with the model's own tokenizer, special tokens and prompt included.

        Torch is loaded only for a model that has no ``tokenizer.json``. A hub model that is not on this machine is not
        downloaded to count: that is an estimate.
        """
        counting = (self._loaded.count, self._loaded.prompts) if self._loaded else self._counting or self._from_files()
        if counting is None:
            return super().count(texts, input_type)
        count, prompts = counting
        return TokenCounts(count([prompts[input_type] + text for text in texts]), exact=True)

    def close(self) -> None:
        """Release the model's memory; the next call loads the model again."""
        self._loaded = self._counting = None

    def before_fork(self) -> None:
        """Do nothing: the parent keeps its model."""

    def after_fork(self, *, in_child: bool) -> None:
        """Begin anew in a child, where a lock that another thread held is never released."""
        if in_child:
            self._forked = True
            self._start()

    def _load(self) -> Loaded:
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
                if loaded is None:
                    self._limit_threads()
                    loaded = self._loaded = load(self._model, self._known, self._candidate)
        return loaded

    def _limit_threads(self) -> None:
        """Have torch use one thread in a forked child.

        Torch's threads do not survive a fork: the first forward pass in the child waits for them for ever, even that of
        a model loaded anew.
        """
        if self._forked and (torch := sys.modules.get("torch")):
            torch.set_num_threads(1)

    def _from_files(self) -> tuple[Counter, Mapping[InputType, str]] | None:
        files = self._known.files or find_snapshot(self._model, locate(self._model)[0])
        if files is None and self._model.client is None:
            return None
        facts = read_facts(self._model, files) if files else None
        if facts is None or facts.tokenizer is None:
            loaded = self._load()
            return loaded.count, loaded.prompts
        self._counting = file_counter(self._model, facts), chosen_prompts(self._model, facts.prompts)
        return self._counting


create = SentenceTransformersBackend
