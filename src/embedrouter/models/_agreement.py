"""Fixed texts whose vectors tell models apart: whether two places serve the same model, and whether one has changed.

Vectors of one model are compared text by text (``SAME``). Two models of one family never give equal vectors, so there
the question is whether a text's two vectors know each other: they must be far nearer to each other than to the vectors
of the other texts (``NEARER``). The texts share no subject, most share no language, and each is under 100 tokens.

Measured with all-MiniLM-L6-v2 on these texts: one text at a time or all together 1.0000, float16 0.99999, bfloat16
0.9999; a prompt that is put in front 0.92 to 0.994, a text that is cut 0.79, a model without its last layer 0.3 to 0.6.
For voyage-4-nano beside the hosted members of its family others report 0.89 to 0.97 for the same text and 0.32 to 0.36
for unrelated ones (https://pypi.org/project/voyage-4-nano-mlx/, not the maker's figures).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from ..errors import SpaceMismatchError
from ..types import InputType, Vectors

__all__ = [
    "NEARER",
    "SAME",
    "TEXTS",
    "VERSION",
    "Agreement",
    "Place",
    "advice",
    "agreements",
    "cosine",
    "labels",
    "nearest",
    "require",
]

VERSION = 1
"""Of the texts: another text is another set of probes, and what was stored for the old one says nothing of it."""

TEXTS = (
    "The ferry to the island leaves at seven in the morning.",
    "Die Miete ist am ersten Werktag des Monats fällig.",
    "雨が降ると、庭の蛙が鳴き始める。",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Bread rises because yeast feeds on the sugar in the flour and gives off a gas. The gas is caught in a net of "
    "gluten, which the baker makes strong by kneading. In a cold kitchen this takes the whole night, in a warm one two "
    "hours; dough that was left too long collapses in the oven and tastes sour.",
)

SAME = 0.999
"""The least cosine of two vectors of one text by one model. Other hardware, batches and number formats stay above
0.9999; whatever changes what is embedded, and be it two words in front of the text, falls below 0.995."""

NEARER = 0.5
"""Between two models of one space: the most that a text's vectors may be apart, as a share of their distance (1 minus
the cosine) to any other text. The family above reaches 0.17; two spaces that were trained apart stay near 1."""


@dataclass(frozen=True, slots=True)
class Place:
    """A model somewhere, and what it made of the texts."""

    name: str
    fingerprint: str
    vectors: Mapping[InputType, Vectors]
    """Each of shape (texts, dimensions)."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether the vectors of two places may be mixed."""

    one: str
    other: str
    claim: Literal["same model", "same space"]
    """What the places say of themselves."""
    cosine: float
    """Of the two vectors of one text: the least over all texts and input types."""
    nearest_other: float
    """The largest cosine of one place's vector of a text and the other place's vector of another text."""
    agrees: bool

    def __str__(self) -> str:
        """Return it for people."""
        verdict = "agree" if self.agrees else "do not agree"
        others = "" if self.claim == "same model" else f", different texts at most {self.nearest_other:.4f}"
        return f"{self.one} and {self.other} {verdict}: cosine of the same text at least {self.cosine:.4f}{others}"


def labels(names: Sequence[str]) -> list[str]:
    """Return the names of a router's models, those that stand for several with their place among the models."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} (no. {number})" for number, name in enumerate(names, 1)]


def cosine(one: Vectors, other: Vectors) -> float:
    """Return the least cosine of the corresponding vectors of two sets; 0 where their dimensions differ."""
    if one.shape != other.shape:
        return 0.0
    return float(np.diagonal(_cosines(one, other)).min())


def nearest(vectors: Vectors) -> float:
    """Return the largest cosine of the vectors of two different texts."""
    return float(_nearest_other(_cosines(vectors, vectors)).max())


def agreements(places: Sequence[Place]) -> list[Agreement]:
    """Compare every two places, under each input type that both were asked for."""
    return [_compare(one, other) for one, other in combinations(places, 2)]


def require(found: Sequence[Agreement]) -> None:
    """Refuse places that do not agree.

    Raises:
        SpaceMismatchError: the message names the first two, and says what to look at.
    """
    for item in found:
        if not item.agrees:
            raise SpaceMismatchError(f"{item}. {advice(item)}")


def advice(item: Agreement) -> str:
    """Return what to do about two places that do not agree."""
    if item.claim == "same model":
        return (
            "They claim to be the same model and share cache entries. Compare deployment, revision, prompts and "
            "number format of the two, and take one out of the router until they agree."
        )
    return (
        "Their vectors cannot be told apart by subject, so they are not in one space. Check space= and base_url of "
        "both, and give each space a router of its own."
    )


def _compare(one: Place, other: Place) -> Agreement:
    tables = [_cosines(one.vectors[kind], other.vectors[kind]) for kind in one.vectors if kind in other.vectors]
    same = one.fingerprint == other.fingerprint
    own = np.array([np.diagonal(table) for table in tables])
    others = np.array([_nearest_other(table) for table in tables])
    agrees = own.min() >= SAME if same else bool(np.all(1 - own < NEARER * (1 - others)))
    return Agreement(
        one.name,
        other.name,
        "same model" if same else "same space",
        float(own.min()),
        float(others.max()),
        bool(agrees),
    )


def _cosines(one: Vectors, other: Vectors) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the cosine of every vector of one set and every vector of the other."""
    first, second = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (one.astype(np.float64), other.astype(np.float64))
    )
    return np.asarray(first @ second.T)


def _nearest_other(
    table: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return for each text the largest cosine with another text, looked at from either side."""
    rest = table.copy()
    np.fill_diagonal(rest, -1.0)
    return np.asarray(np.maximum(rest.max(axis=0), rest.max(axis=1)))
