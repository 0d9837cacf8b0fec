"""Cache keys: everything that decides what a vector is, joined without ambiguity and hashed.

A key is made of the model's fingerprint, the number type, the input type where the model is asymmetric, the
over-long policy where the text was over the limit, and the exact text. No endpoint and no API key is in it: the same
model served elsewhere, or paid with another key, gives the same vector.

A key begins with the mark of its fingerprint, by which the rows of one model are found, and ends with the hash of all
parts, which alone decides whether two keys are of one vector. Keys of earlier versions are the hash without a mark.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from ..types import Candidate, InputType

MARK_BYTES = 4
HASH_BYTES = 20
"""160 bits, so that two texts never share a key by accident or on purpose."""
KEY_BYTES = MARK_BYTES + HASH_BYTES


def is_key(key: bytes) -> bool:
    """Check whether bytes are as long as a key, of this version or of an earlier one."""
    return len(key) in (KEY_BYTES, HASH_BYTES)


def split_key(key: bytes) -> tuple[bytes, bytes]:
    """Return the mark, empty in other keys than those of this version, and the rest of the key."""
    return (key[:MARK_BYTES], key[MARK_BYTES:]) if len(key) == KEY_BYTES else (b"", key)


def mark(fingerprint: str) -> bytes:
    """Return the beginning of all keys under a fingerprint."""
    return blake2b(fingerprint.encode(), digest_size=MARK_BYTES).digest()


def key_function(
    candidate: Candidate, input_type: InputType, *, fingerprint: str = "", dtype: str = "float32", policy: str = ""
) -> Callable[[str], bytes]:
    """Return the function from a text to its cache key under one model.

    Args:
        candidate: the model.
        input_type: counts only where the model is asymmetric.
        fingerprint: used in place of the model's own fingerprint, to look for its vectors of full length.
        dtype: the number type of floats in the cache's rows.
        policy: the over-long policy, for texts over the model's limit.

    Each part is preceded by its length, so no two different tuples of parts give the same bytes to hash.
    """
    asymmetry = "" if candidate.symmetric else input_type
    return _key_function(fingerprint or candidate.fingerprint, candidate.output_dtype or dtype, asymmetry, policy)


@lru_cache(maxsize=256)
def _key_function(*parts: str) -> Callable[[str], bytes]:
    prefix = b"".join(len(data).to_bytes(8, "big") + data for data in map(str.encode, parts))
    prefix_hash = blake2b(prefix, digest_size=HASH_BYTES)
    beginning = mark(parts[0])

    def key(text: str) -> bytes:
        text_hash = prefix_hash.copy()
        text_hash.update(text.encode())  # the last part needs no length
        return beginning + text_hash.digest()

    return key
