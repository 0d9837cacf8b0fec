"""Sign exported rows with a key that both sides have, and check the signatures of rows that are imported.

Each row has a signature of its own, HMAC-SHA256 of its key and its value, so that a row is checked before it is taken,
however long the file is. The file's header has a signature of the key alone, which tells a file that was signed with
another key from one that was changed. A row that is left out of a file is not noticed: it is a miss.
"""

import hmac
import os
from pathlib import Path

from ..errors import ConfigError

ALGORITHM = "hmac-sha256"
LEAST = 16
"""Bytes of a key."""


class Signer:
    """Signs rows with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def mark(self) -> str:
        """What a file says in its header of the key."""
        return f"{ALGORITHM}:{self._sign(b'embedrouter cache export').hex()}"

    def sign(self, key: bytes, value: bytes) -> bytes:
        """Return the signature of a row."""
        return self._sign(len(key).to_bytes(8, "big") + key + value)

    def is_own(self, key: bytes, value: bytes, signature: object) -> bool:
        """Check the signature of a row."""
        return isinstance(signature, bytes) and hmac.compare_digest(self.sign(key, value), signature)

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")


def read_signer(name: str | None) -> Signer | None:
    """Return the signer with the key in an environment variable, or in a file.

    A key itself is no argument, because other users of a machine see the arguments of commands.

    Raises:
        ConfigError: there is neither such a variable nor such a file, or the key is too short. The message does not
            repeat what may be the key.
    """
    if name is None:
        return None
    if name in os.environ:
        key = os.environ[name].encode()
    else:
        try:
            key = Path(name).expanduser().read_bytes()
        except (OSError, ValueError) as error:
            raise ConfigError(
                "The key to sign with is neither in an environment variable nor in a file of that name. Name one of "
                "the two, not the key itself."
            ) from error
    key = key.strip()
    if len(key) < LEAST:
        raise ConfigError(
            f"The key to sign with has {len(key)} bytes, at least {LEAST} are needed. Make one: openssl rand -hex 32"
        )
    return Signer(key)
