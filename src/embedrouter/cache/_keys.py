"""Cache keys: everything that decides what a vector is, joined without ambiguity and hashed.

A key is made of the model's fingerprint, the cache's number type, the input type where the model is asymmetric, the
over-long policy where the text was over the limit, and the exact text. No endpoint and no API key is in it: the same
model served elsewhere, or paid with another key, gives the same vector.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from ..types import Candidate, InputType

KEY_BYTES = 20
"""Length of every key: 160 bits, so that two texts never share a key by accident or on purpose."""


def key_function(
    candidate: Candidate, input_type: InputType, *, fingerprint: str = "", dtype: str = "float32", policy: str = ""
) -> Callable[[str], bytes]:
    """Return the function from a text to its cache key under one model.

    Args:
        candidate: the model.
        input_type: counts only where the model is asymmetric.
        fingerprint: used in place of the model's own fingerprint, to look for its vectors of full length.
        dtype: the number type of the cache's rows.
        policy: the over-long policy, for texts over the model's limit.

    Each part is preceded by its length, so no two different tuples of parts give the same bytes to hash.
    """
    asymmetry = "" if candidate.symmetric else input_type
    return _key_function(fingerprint or candidate.fingerprint, dtype, asymmetry, policy)


@lru_cache(maxsize=256)
def _key_function(*parts: str) -> Callable[[str], bytes]:
    prefix = b"".join(len(data).to_bytes(8, "big") + data for data in map(str.encode, parts))
    prefix_hash = blake2b(prefix, digest_size=KEY_BYTES)

    def key(text: str) -> bytes:
        text_hash = prefix_hash.copy()
        text_hash.update(text.encode())  # the last part needs no length
        return text_hash.digest()

    return key
