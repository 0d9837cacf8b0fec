"""Agreement of models: probe texts whose vectors show whether models give the same vectors, or share a space.

Vectors of one model are compared text by text: their cosine must be at least ``SAME_MODEL_COSINE``. Two models of one
family never give equal vectors. Of these, the two vectors of one text must be far nearer to each other than to the
vectors of the other texts (``SAME_SPACE_RATIO``). The probe texts have different subjects, most have different
languages, and each has fewer than 100 tokens.

Measured with all-MiniLM-L6-v2 on the probe texts: one text at a time or all together 1.0000, float16 0.99999, bfloat16
0.9999; with a prompt before the text 0.92 to 0.994, with a text that is cut 0.79, without the model's last layer 0.3 to
0.6. For voyage-4-nano beside the hosted members of its family, others report 0.89 to 0.97 for the same text and 0.32 to
0.36 for unrelated texts (https://pypi.org/project/voyage-4-nano-mlx/, not the maker's figures).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import SpaceMismatchError
from ..types import PACKED, Candidate, InputType, OutputDtype, Vectors

PROBE_VERSION = 1
"""Version of ``PROBE_TEXTS``. Stored vectors of another version cannot be compared."""

PROBE_TEXTS = (
    "The ferry to the island leaves at seven in the morning.",
    "Die Miete ist am ersten Werktag des Monats fällig.",
    "雨が降ると、庭の蛙が鳴き始める。",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Bread rises because yeast feeds on the sugar in the flour and gives off a gas. The gas is caught in a net of "
    "gluten, which the baker makes strong by kneading. In a cold kitchen this takes the whole night, in a warm one two "
    "hours; dough that was left too long collapses in the oven and tastes sour.",
)

SAME_MODEL_COSINE = 0.999
"""The lowest cosine of two vectors of one text by one model. Other hardware, batches and number formats stay above
0.9999; a change of the embedded text, even two words before the text, falls below 0.995."""

SAME_SPACE_RATIO = 0.5
"""Between two models of one space: the highest ratio of the distance (1 minus the cosine) between the vectors of one
text to the distance to any other text. The family above reaches 0.17; two spaces that were trained apart stay near 1.
"""

_Claim: TypeAlias = Literal["same model", "same space"]
_CosineTable: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """The vectors of the probe texts by one model at one provider."""

    name: str
    fingerprint: str
    vectors: Mapping[InputType, Vectors]
    """Each of shape (texts, dimensions), as ``comparable`` returns it."""

    @classmethod
    def of(cls, candidate: Candidate, name: str, vectors: Mapping[InputType, Vectors]) -> Self:
        """Return the vectors that a model gave for the probe texts."""
        usable: dict[InputType, Vectors] = {
            kind: comparable(given, candidate.output_dtype) for kind, given in vectors.items()
        }
        return cls(name, candidate.fingerprint, usable)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The comparison of two models: whether their vectors may be mixed."""

    one: str
    other: str
    claim: _Claim
    """What the declarations of the models say."""
    cosine: float
    """The lowest cosine of the two vectors of one text, over all texts and input types."""
    nearest_other: float
    """The highest cosine of one model's vector of a text and the other model's vector of another text."""
    agrees: bool

    @property
    def advice(self) -> str:
        """The next action when the models do not agree."""
        if self.claim == "same model":
            return (
                "They claim to be the same model and share cache entries. Compare deployment, revision, prompts and "
                "number format of the two, and take one out of the router until they agree."
            )
        return (
            "Their vectors do not distinguish subjects alike, so the models are not in one space. Check space= and "
            "base_url of both, and give each space a router of its own."
        )

    def __str__(self) -> str:
        """Describe the comparison in one line."""
        verdict = "agree" if self.agrees else "do not agree"
        others = "" if self.claim == "same model" else f", different texts at most {self.nearest_other:.4f}"
        return f"{self.one} and {self.other} {verdict}: cosine of the same text at least {self.cosine:.4f}{others}"


def comparable(vectors: Vectors, output_dtype: OutputDtype | None) -> Vectors:
    """Return vectors as the functions here compare them: uint8 around zero, packed bits one by one as booleans."""
    if output_dtype in PACKED:
        return np.unpackbits(vectors.view(np.uint8), axis=1).astype(np.bool_)  # an offset flips the same bits in each
    return vectors.astype(np.float32) - 128 if output_dtype == "uint8" else vectors


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names of a router's models, each repeated name with its position among the models."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} (no. {number})" for number, name in enumerate(names, 1)]


def lowest_cosine(one: Vectors, other: Vectors) -> float:
    """Return the lowest cosine of the corresponding vectors of two sets; 0 where their dimensions differ."""
    if one.shape != other.shape:
        return 0.0
    return float(np.diagonal(_cosines(one, other)).min())


def highest_cosine_between_texts(vectors: Vectors) -> float:
    """Return the highest cosine of the vectors of two different texts."""
    return float(_nearest_other(_cosines(vectors, vectors)).max())


def compare_models(probed: Sequence[ProbeVectors]) -> list[Agreement]:
    """Compare every two models, under each input type that both were probed with."""
    return [_compare(one, other) for one, other in combinations(probed, 2)]


def require_agreement(found: Sequence[Agreement]) -> None:
    """Refuse models that do not agree.

    Raises:
        SpaceMismatchError: the message names the first two such models and the settings to check.
    """
    for item in found:
        if not item.agrees:
            raise SpaceMismatchError(f"{item}. {item.advice}")


def _compare(one: ProbeVectors, other: ProbeVectors) -> Agreement:
    tables = [_cosines(one.vectors[kind], other.vectors[kind]) for kind in one.vectors if kind in other.vectors]
    same_model = one.fingerprint == other.fingerprint
    own = np.array([np.diagonal(table) for table in tables])
    others = np.array([_nearest_other(table) for table in tables])
    agrees = own.min() >= SAME_MODEL_COSINE if same_model else np.all(1 - own < SAME_SPACE_RATIO * (1 - others))
    claim: _Claim = "same model" if same_model else "same space"
    return Agreement(one.name, other.name, claim, float(own.min()), float(others.max()), bool(agrees))


def _cosines(one: Vectors, other: Vectors) -> _CosineTable:
    """Return the cosine of every vector of one set and every vector of the other.

    Of bits, which are the signs of floats, it is the cosine of the floats, estimated from the share of equal signs.
    """
    bits = one.dtype == np.bool_
    first, second = ((2.0 * side - 1) if bits else side.astype(np.float64) for side in (one, other))
    lengths = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    table = np.asarray(first @ second.T / lengths)
    return np.sin(np.pi / 2 * table) if bits else table


def _nearest_other(table: _CosineTable) -> NDArray[np.float64]:
    """Return for each text the highest cosine with another text, in either direction."""
    rest = table.copy()
    np.fill_diagonal(rest, -1.0)
    return np.asarray(np.maximum(rest.max(axis=0), rest.max(axis=1)))
