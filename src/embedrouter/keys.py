"""Cache keys: everything that decides what a vector is, joined without ambiguity and hashed.

A key holds the model's fingerprint, the cache's number type, the input type where the model is asymmetric, the
over-long policy where the text was over the limit, and the exact text. It holds no endpoint and no API key: the same
model served elsewhere, or paid with another key, gives the same vector.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from .types import Candidate, InputType

__all__ = ["keyer"]

KEY_BYTES = 20


def keyer(
    candidate: Candidate, input_type: InputType, *, dtype: str = "float32", policy: str = ""
) -> Callable[[str], bytes]:
    """Return the function from a text to its cache key under one model.

    Each part is preceded by its length, so no two different tuples of parts give the same bytes to hash.
    """
    prefix = blake2b(digest_size=KEY_BYTES)
    for part in (candidate.fingerprint, dtype, "" if candidate.symmetric else input_type, policy):
        data = part.encode()
        prefix.update(len(data).to_bytes(8, "big"))
        prefix.update(data)

    def key(text: str) -> bytes:
        digest = prefix.copy()
        digest.update(text.encode())  # the last part needs no length
        return digest.digest()

    return key
