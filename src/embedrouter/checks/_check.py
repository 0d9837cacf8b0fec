"""What a comparison of stored vectors with new ones has found."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from ..models.agreement import SAME_MODEL_COSINE
from ..types import Space

MATCH = SAME_MODEL_COSINE
"""The lowest cosine of a stored vector and a new one of the same text by the same model."""
NEAR = 0.98
"""The lowest cosine of a near miss: nearly the same text, prompt, model or number format, and not the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What stored vectors are, and what to do about them."""

    text: str = ""
    advice: str = ""
    same_space: bool = False


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class VectorCheck:
    """The comparison of stored vectors with new ones of the same texts."""

    model: str
    """The models of the router, ``provider:name``."""
    space: Space
    """The space of the router."""
    cosines: NDArray[np.float64]
    """The cosine of the stored and the new vector of each text, of shape ``(compared,)``; of vectors of another length
    that of their common beginning."""
    compared_whole: bool
    """Whether the stored vectors are as long as the new ones."""
    same_space: bool
    """Whether the router's queries may be compared with the stored vectors: where these match, and where they are of
    the same model and of slightly other texts."""
    finding: str
    """What the stored vectors are; empty where there is nothing to say."""
    advice: str
    """The next action; empty where there is nothing to do."""
    cost: Decimal | None
    """US dollars that the comparison took; ``None`` where a price is unknown."""

    @property
    def compared(self) -> int:
        """The number of vectors that were compared."""
        return len(self.cosines)

    @property
    def matching(self) -> int:
        """The number of vectors whose cosine is at least 0.999; none of another length."""
        return int((self.cosines >= MATCH).sum()) if self.compared_whole else 0

    @property
    def matches(self) -> bool:
        """Whether all vectors match."""
        return self.matching == self.compared

    def __str__(self) -> str:
        """Describe the comparison; in one line where the vectors match."""
        price = "at an unknown price" if self.cost is None else f"${self.cost.normalize():f}"
        head = f"{self.matching:,} of {self.compared:,} stored vectors match {self.model}, {price}"
        rest = " ".join(part for part in (self.finding, self.advice) if part)
        return f"{head}. {rest}" if rest else head

    def __repr__(self) -> str:
        return f"<VectorCheck: {self.matching:,} of {self.compared:,} stored vectors match {self.model}>"
