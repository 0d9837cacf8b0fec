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
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, InputRejectedError
from ..models import Catalogue, Model
from ..types import Answer, Candidate, InputType, Vectors
from . import Backend, Description, needs_extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "l2_supercat_256"
FILES = {
    f"weights/{NAME}.safetensors": ("64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",),
    "tokenizers/l2_supercat_tokenizer_config.json": (
        "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
        "bf467c9e0f536bda271283c6ef85eb1a943e3196b621c8a912d64953b205df83",  # before 0.4, without the last line's end
    ),
}
"""The model's files inside the package and their sha256; the first stands in the identity."""

REINSTALL = "Run: pip install --force-reinstall --no-deps 'wordllama==0.2.2.post0'"
"""The release with a wheel for every Python and system."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
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
    files = "+".join(digest[:16] for digest, *_ in FILES.values())
    return Description(catalogue[model.name], local=True, instant=True, identity=f"{model.name}@{files}")


class WordLlamaBackend(Backend):
    """Averages word vectors in this process."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._model = model
        self._dimensions = candidate.space.dimensions

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Embed texts and count their tokens. ``timeout`` has no effect: a request takes milliseconds.

        Raises:
            InputRejectedError: a text is empty.
        """
        with needs_extra(self._model, "wordllama"):
            tokenizer, rows = read_files()
        tokens = [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        if empty := [index for index, ids in enumerate(tokens) if not ids]:
            raise InputRejectedError(
                "an empty text has no vector. Leave it out.", model=self._model.name, indices=empty
            )
        sums = np.array([rows.take(ids, axis=0).sum(axis=0)[: self._dimensions] for ids in tokens], np.float32)
        return Answer(sums / np.linalg.norm(sums, axis=1, keepdims=True), sum(map(len, tokens)))


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

    weights, vocabulary = (_content(name, digests) for name, digests in FILES.items())
    rows = tensors(weights)["embedding.weight"].astype(np.float32)
    return Tokenizer.from_buffer(vocabulary), rows


def _content(name: str, digests: Sequence[str]) -> bytes:
    package = find_spec("wordllama")  # finds the folder without importing the package
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'wordllama'", name="wordllama")
    path = Path(package.submodule_search_locations[0], name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). {REINSTALL}") from error
    if hashlib.sha256(content).hexdigest() not in digests:
        raise ConfigError(
            f"{path} is not the file that this version of embedrouter expects, so its vectors would not be comparable "
            f"with those in caches and indexes. {REINSTALL}"
        )
    return content


create = WordLlamaBackend
