"""Rows of both collections: whether two are equal, which can be embedded, and which are left out, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

from .._display import first_few
from ..calls import Refusal, without_refused
from ..errors import ConfigError, InvalidInputError
from ..stores import Database, StoredText

EMPTY = "no text"
LONG = "longer than the model takes"
REFUSED = "refused by the model"
MOST = 1_000
"""Rows that may be left out: more have a common cause, which is to be looked for."""

Answer = TypeVar("Answer")


def same(one: StoredText, other: StoredText | None) -> bool:
    """Return whether two rows hold the same; what has no place of its own in one store may be metadata in it."""
    return other is not None and facts(one) == facts(other)


def facts(row: StoredText) -> tuple[object, ...]:
    """Return what is to be equal in both collections."""
    return row.id, row.text, row.content, row.entries()


def digest(text: str) -> bytes:
    """Return a short stand-in for a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class LeftOut:
    """Rows that cannot be embedded or kept: their ids, by the reason.

    Args:
        allowed: whether they are left out of the new collection; otherwise one is an error.
    """

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self._ids: dict[str, dict[str, None]] = {}
        self._refusals: dict[tuple[str, bytes], str] = {}
        """The reason for each row whose text the model has refused, which is not asked again."""

    def clear(self) -> None:
        """Forget the ids; which texts the model has refused stays known."""
        self._ids.clear()

    def __contains__(self, identifier: str) -> bool:
        return any(identifier in ids for ids in self._ids.values())

    def add(self, reason: str, identifier: str) -> None:
        self._ids.setdefault(reason, {})[identifier] = None

    @property
    def by_reason(self) -> dict[str, tuple[str, ...]]:
        """The ids of each reason."""
        return {reason: tuple(ids) for reason, ids in self._ids.items()}

    def usable(self, rows: Sequence[StoredText], database: Database) -> list[StoredText]:
        """Return the rows that have a text and that the new store keeps without loss; add the others."""
        found = []
        for row in rows:
            if not row.text:
                self.add(EMPTY, row.id)
            elif reason := database.refusal(row):
                self.add(f"not kept there without loss: {reason}", row.id)
            elif known := self._refusals.get((row.id, digest(row.text))):
                self.add(known, row.id)
            else:
                found.append(row)
        return found

    def ask(
        self, rows: Sequence[StoredText], call: Callable[[list[str]], Answer]
    ) -> tuple[list[StoredText], Answer | None]:
        """Call a router's method with the texts of rows; add those that it refuses, and call again with the others.

        Returns:
            The rows of the last call and its answer; ``None`` where no row is left.

        Raises:
            InvalidInputError: a text is refused, and none may be left out; the message names ids.
        """

        def refuse(error: Refusal, rest: list[StoredText]) -> None:
            long = isinstance(error, InvalidInputError) or error.too_long
            for row in (rest[index] for index in error.indices):
                reason = self._refusals[row.id, digest(row.text)] = LONG if long else REFUSED
                self.add(reason, row.id)
            self.require_none()

        return without_refused(rows, lambda rest: call([row.text for row in rest]) if rest else None, refuse)

    def require_none(self) -> None:
        """Refuse rows that may not be left out.

        Raises:
            InvalidInputError: there are some; the message names them and what can be done.
        """
        if not self._ids or self.allowed:
            return
        shorter = " Have long texts shortened with on_too_long='mean' or 'truncate'." if LONG in self._ids else ""
        raise InvalidInputError(
            f"Some rows cannot be moved: {reasons(self.by_reason)}. Set them right in the old collection, or "
            f"leave them out of the new one: skip_bad=True, --skip-bad.{shorter} What is paid for is kept."
        )

    def require_few(self) -> None:
        """Refuse more rows than are plausible.

        Raises:
            ConfigError: there are more than ``MOST``.
        """
        if sum(map(len, self._ids.values())) > MOST:
            raise ConfigError(
                f"More than {MOST:,} rows cannot be moved: {reasons(self.by_reason)}. Look for the cause: is "
                "the text in another field, is another model needed?"
            )


def reasons(by_reason: Mapping[str, Sequence[str]]) -> str:
    """Return each reason with its first ids: "no text: 7 (a, b, c, d, e and 2 more)"."""
    return "; ".join(f"{reason}: {len(ids):,} ({first_few(ids)})" for reason, ids in by_reason.items())
