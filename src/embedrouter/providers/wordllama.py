"""WordLlama: static word vectors that ship inside a package, for demos, tests and machines without torch.

Promises:

- No network, no torch, 0.15 seconds to load. Only ``l2_supercat_256`` is offered, because its files are part of
  the ``wordllama`` package; the others would be downloaded.
- Those two files are read with ``safetensors`` and ``tokenizers``, which the package depends on anyway. The package
  itself is never imported: its import configures the root logger (``logging.basicConfig(level=INFO)``), and undoing
  that could change the user's own logging configuration in another thread. A vector is the mean of the rows of the
  text's tokens, as in ``WordLlamaInference.embed``; the tests compare the two.
- Vectors have length 1; 128 and 64 dimensions are cut from 256 and normalised again. The model was trained for that.
- Every non-empty text has a vector. The tokenizer puts a mark before the text and has a token for every byte, so white
  space, control characters, zero-width characters and emoji all have tokens, and no row is zero. Only ``""`` has no
  token: the library divides zero by zero and returns NaN; here the text is refused.
- Documents and queries are embedded alike, and texts of any length are taken whole.
- Any number of threads may embed at once: nothing is written after loading, so no lock is needed, and a forked child
  inherits none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, InputRejectedError
from ..models import Card, Model
from ..types import Answer, Candidate, InputType, Vectors
from . import Backend, Description, missing_extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "l2_supercat_256"
FILES = {
    f"weights/{NAME}.safetensors": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    "tokenizers/l2_supercat_tokenizer_config.json": "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
"""The model's files inside the package and their sha256."""

REINSTALL = "Run: pip install --force-reinstall 'wordllama==0.4.0.post1'"

BATCH = 256
"""Texts tokenized and added up together."""
SHORT = 64
"""Tokens of texts that are added up side by side; of longer ones few have the same length."""


# What is known of the model


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the catalogue's facts.

    The identity holds the hashes of the files that this version of embedrouter expects, and loading compares them. So
    cached vectors stay valid, and a warm call needs neither the files nor the package.

    Raises:
        ConfigError: the declaration names another model, or a setting that this model does not have.
    """
    if model.id != NAME:
        raise ConfigError(
            f"{model.name} is not offered: of WordLlama's models only {NAME!r} is part of the package, others would be "
            f"downloaded. Write Model('wordllama:{NAME}', dimensions=…) with 256, 128 or 64 dimensions."
        )
    if model.prompts:
        raise ConfigError(f"{model.name} averages words and takes no prompts. Leave prompts= out.")
    if model.client is not None:
        raise ConfigError(f"{model.name} reads its files itself, in 0.15 seconds. Leave client= out.")
    files = "+".join(digest[:16] for digest in FILES.values())
    return Description(cards[model.name], local=True, identity=f"{model.name}@{files}")


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    """Return the backend of the model."""
    return WordLlamaBackend(model, candidate)


# The backend


class WordLlamaBackend(Backend):
    """Averages word vectors in this process."""

    def __init__(self, model: Model, candidate: Candidate) -> None:
        self._model = model
        self._dimensions = candidate.space.dimensions

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Embed texts and count their tokens. ``timeout`` has no effect: a request takes milliseconds."""
        try:
            tokenizer, rows = read_files()
        except ImportError as error:
            raise self.translate_error(error) from error
        tokens = self.build_request(tokenizer, texts)
        return self.parse_answer(self.send(rows, tokens), tokens)

    def build_request(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text.

        Raises:
            InputRejectedError: a text is empty.
        """
        tokens: list[list[int]] = []
        for start in range(0, len(texts), BATCH):
            encodings = tokenizer.encode_batch_fast(list(texts[start : start + BATCH]), add_special_tokens=False)
            tokens += [encoding.ids for encoding in encodings]
        if not all(tokens):
            indices = [index for index, ids in enumerate(tokens) if not ids]
            raise InputRejectedError(
                "an empty text has no vector. Leave it out.", model=self._model.name, indices=indices
            )
        return tokens

    def send(self, rows: Vectors, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Return the sum of each text's rows, which has the direction of their mean."""
        sums = np.empty((len(tokens), self._dimensions), np.float32)
        for start in range(0, len(tokens), BATCH):
            sums[start : start + BATCH] = _add_up(rows, tokens[start : start + BATCH])[:, : self._dimensions]
        return sums

    def parse_answer(self, sums: Vectors, tokens: Sequence[Sequence[int]]) -> Answer:
        """Scale the sums to length 1."""
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return Answer(sums, sum(map(len, tokens)))

    def translate_error(self, error: ImportError) -> ConfigError:
        """Return the error that names the extra to install."""
        return missing_extra(self._model, "wordllama", error)


def _add_up(rows: Vectors, tokens: Sequence[Sequence[int]]) -> Vectors:
    """Add up the rows of each text: those of all short texts side by side, first with first, second with second.

    Either way the rows of a text are added in their order, so that its sum does not depend on the other texts.
    """
    sums = np.empty((len(tokens), rows.shape[1]), np.float32)
    short = []
    for place, ids in enumerate(tokens):
        if len(ids) <= SHORT:
            short.append(place)
        else:
            np.add.reduce(rows.take(ids, axis=0), axis=0, out=sums[place])
    short.sort(key=lambda place: -len(tokens[place]))
    if short:
        columns = zip_longest(*(tokens[place] for place in short))
        total = rows.take(next(columns), axis=0)
        for column in columns:
            ids = [token for token in column if token is not None]
            total[: len(ids)] += rows.take(ids, axis=0)
        sums[short] = total
    return sums


# Files


@cache
def read_files() -> tuple[Tokenizer, Vectors]:
    """Read the tokenizer, and one row of 256 numbers per token, once for the process: all routers share 32 MB.

    Two threads that call first at the same moment may both read; the results are equal and one is kept.

    Raises:
        ImportError: a package is missing.
        ConfigError: the package holds other files than this version of embedrouter expects.
    """
    from safetensors.numpy import load as tensors
    from tokenizers import Tokenizer

    weights, vocabulary = (_content(name, digest) for name, digest in FILES.items())
    rows = tensors(weights)["embedding.weight"].astype(np.float32)
    return Tokenizer.from_buffer(vocabulary), rows


def _content(name: str, digest: str) -> bytes:
    package = find_spec("wordllama")  # finds the folder without importing the package
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'wordllama'", name="wordllama")
    path = Path(package.submodule_search_locations[0], name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). {REINSTALL}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(
            f"{path} is not the file that this version of embedrouter expects, so its vectors would not be comparable "
            f"with those in caches and indexes. {REINSTALL}"
        )
    return content
