"""The vectors: deterministic, of unit length, and meaningful enough to search with.

A vector is a sum of random directions, each drawn from a hash of what it stands for:

* one for each distinct word of the text, so that texts sharing words lie near each other;
* one for the text itself, so that two texts with the same words still differ;
* a small one for the model, so that models of one family are close (cosine about 0.95) and never equal;
* a small one for the role, so that a query and a document of the same words are close and never equal.

Every draw is keyed by the vector space, so different families have nothing in common. The sum is over integers (each
direction is a row of +1 and -1 taken from a hash), which makes it exact: the batch a text travels in cannot change a
bit of its vector. Shorter vectors are the first entries of the native one, scaled back to unit
length where the maker does so.
"""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
from numpy.typing import NDArray

from tests.emulator.models import Model, find

Vector = NDArray[np.float32]

_WORDS = 0.85
_TEXT = 0.5
_MODEL = 0.23
_ROLE = 0.25

_WORD = re.compile(r"[^\W_]{4,}")
_SUFFIX = re.compile(r"(?:ing|ed|es|s)$")
_ROLES = {
    "search_query": "query", "search_document": "document", "retrieval.query": "query", "retrieval.passage": "document",
    "passage": "document", "TEXT_RETRIEVAL": "query", "GENERIC_INDEX": "document",
    "RETRIEVAL_QUERY": "query", "RETRIEVAL_DOCUMENT": "document",
}  # fmt: skip


def vector(model: str, dimensions: int | None, input_type: str | None, text: str) -> Vector:
    """Return exactly what the emulator answers: a read-only float32 vector of unit length.

    `dimensions` None means the model's default. `input_type` is what the request says ("query", "search_query", …);
    models without roles, such as OpenAI's, ignore it.
    """
    row = find(model)
    total = _TEXT * _direction(row, "text", text)
    words = {_SUFFIX.sub("", word) or word for word in _WORD.findall(text.lower())}
    if words:
        total += _WORDS * _unit(_bag(row, words))
    total = _unit(total)
    total += _MODEL * _direction(row, "model", row.name, text)
    role = _ROLES.get(input_type or "", input_type)
    if role is not None and row.roles and row.tasks:
        total += _ROLE * _direction(row, "role", role, text)
    short = total[: dimensions or row.default]
    answer = (_unit(short) if row.scaled else _unit(total)[: len(short)]).astype(np.float32)
    answer.setflags(write=False)
    return answer


def _bag(row: Model, words: set[str]) -> NDArray[np.float64]:
    drawn = b"".join(_draw(row, "word", word) for word in words)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8).reshape(len(words), -1), axis=1)
    signs: NDArray[np.int64] = 2 * bits.sum(axis=0, dtype=np.int64) - len(words)
    return signs.astype(np.float64)


def _direction(row: Model, *what: str) -> NDArray[np.float64]:
    bits = np.unpackbits(np.frombuffer(_draw(row, *what), np.uint8))
    return (2.0 * bits.astype(np.float64) - 1.0) / math.sqrt(row.native)


def _draw(row: Model, *what: str) -> bytes:
    key = "\x1f".join((row.space, *what)).encode("utf-8", "surrogatepass")
    return hashlib.shake_256(key).digest(row.native // 8)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = math.sqrt(float(np.sum(values * values)))
    return values / length if length else values
