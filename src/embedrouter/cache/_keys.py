"""Cache keys: everything that decides what a vector is, joined without ambiguity and hashed.

A key holds the model's fingerprint, the cache's number type, the input type where the model is asymmetric, the
over-long policy where the text was over the limit, and the exact text. It holds no endpoint and no API key: the same
model served elsewhere, or paid with another key, gives the same vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from ..types import Candidate, InputType

__all__ = ["key_function"]

KEY_BYTES = 20


def key_function(
    candidate: Candidate,
    input_type: InputType,
    *,
    fingerprint: str = "",
    dtype: str = "float32",
    policy: str = "",
) -> Callable[[str], bytes]:
    """Return the function from a text to its cache key under one model.

    Args:
        fingerprint: in place of the model's own, for its longer vectors.

    Each part is preceded by its length, so no two different tuples of parts give the same bytes to hash.
    """
    asymmetry = "" if candidate.symmetric else input_type
    return _key_function(fingerprint or candidate.fingerprint, dtype, asymmetry, policy)


@lru_cache(maxsize=256)
def _key_function(*parts: str) -> Callable[[str], bytes]:
    prefix = b"".join(len(data).to_bytes(8, "big") + data for data in map(str.encode, parts))
    begun = blake2b(prefix, digest_size=KEY_BYTES)

    def key(text: str) -> bytes:
        hash_ = begun.copy()
        hash_.update(text.encode())  # the last part needs no length
        return hash_.digest()

    return key
