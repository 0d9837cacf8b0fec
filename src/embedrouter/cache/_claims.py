"""Define the claims of texts, with which one of several processes pays for a text that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

ClaimState: TypeAlias = Literal["own", "other", "done"]
"""Who has a text: this call, another one, or none any more, because it was embedded a moment ago."""


class Claims(Protocol):
    """Claims of texts by name. ``claim`` and ``release`` block, and may be called again with the same arguments.

    A claim ends when it is released, and some time after its process was killed.
    """

    def begin(self) -> str:
        """Return an id for a call that is going to claim texts."""
        ...

    def end(self, call: str) -> None:
        """Let the claims end that a call has not released."""
        ...

    def claim(self, call: str, names: Sequence[bytes], again: Sequence[bytes] = ()) -> list[ClaimState]:
        """Claim texts that no other call has, and say of each who has it now.

        Args:
            again: names that are claimed although they were embedded: their vectors were not found.
        """
        ...

    def release(self, call: str, embedded: Sequence[bytes], others: Sequence[bytes] = ()) -> None:
        """Give back claims: of texts whose vectors are in the cache, and of others."""
        ...
