"""What every local model of tokens does before and after its vectors are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InputRejectedError
from ..models import Model
from ..types import Answer, Vectors


def require_within(
    model: Model, texts: Sequence[str], prompt: str, limit: float, count: Callable[[Sequence[str]], list[int]]
) -> None:
    """Refuse texts that the model would have to cut.

    Args:
        prompt: the text before each text.
        limit: tokens of one text, its prompt and special tokens included.
        count: counts the tokens of texts.

    Raises:
        InputRejectedError: a text is over the limit.
    """
    if limit == math.inf:
        return
    # ASCII text has at most one token per letter and one more; other text may grow when it is normalised.
    room = limit - count([""])[0] - len(prompt) - 1
    doubtful = [index for index, text in enumerate(texts) if len(text) > room or not (prompt + text).isascii()]
    counts = count([prompt + texts[index] for index in doubtful])
    if long := [index for index, tokens in zip(doubtful, counts, strict=True) if tokens > limit]:
        raise InputRejectedError(
            f"longer than the {limit:.0f} tokens that the model takes; sentence-transformers would have cut it",
            model=model.name,
            too_long=True,
            indices=long,
        )


def finished(model: Model, vectors: Vectors, dimensions: int) -> Answer:
    """Cut vectors to the dimensions asked for, and only then scale them to length 1.

    Raises:
        InputRejectedError: a text has no token in the model's vocabulary, so its vector is zero.
    """
    cut = vectors[:, :dimensions]
    if blank := np.flatnonzero(~cut.any(axis=1)).tolist():
        raise InputRejectedError(
            "the model has no token for any part of it, so it has no vector. Leave it out.",
            model=model.name,
            indices=blank,
        )
    if cut.shape != vectors.shape:
        cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    return Answer(np.ascontiguousarray(cut, np.float32), tokens=None)
