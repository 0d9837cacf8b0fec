"""Record submitted batches in the ledger's file.

A record is written before its batch is submitted, under a client reference that the provider's batch has, too: so no
batch is billed and unknown at any moment. Texts are recorded as cache keys alone, under which the answers are stored
when the batch is collected, also after a restart.
"""

import sqlite3
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import ConfigError, UnavailableError
from ..spending import Ledger
from ..types import Candidate, InputType

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS batches (
        mark TEXT PRIMARY KEY,       -- the client reference
        at REAL NOT NULL,           -- seconds since 1970
        provider_id TEXT,           -- NULL until the provider has named it
        ended INTEGER NOT NULL,
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        reservation INTEGER NOT NULL,
        texts INTEGER NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS batch_texts (
        mark TEXT NOT NULL,
        key BLOB NOT NULL,          -- of the cache
        position INTEGER NOT NULL,  -- in the texts of the call that submitted it
        tokens INTEGER NOT NULL,    -- as estimated
        failure TEXT,
        PRIMARY KEY (mark, key)
    ) WITHOUT ROWID""",
)

ALL = (
    "SELECT b.mark, b.at, b.provider_id, b.ended, b.model, b.fingerprint, b.reservation, b.texts,"
    " r.input_type, COALESCE(r.tag, '')"
    " FROM batches AS b LEFT JOIN requests AS r ON r.id = b.reservation ORDER BY b.at, b.mark"
)


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """A text that a batch did not embed."""

    index: int
    """Position of the text in the call that submitted the batch."""
    reason: str


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """The record of one batch."""

    reference: str
    at: datetime
    provider_id: str | None
    ended: bool
    model: str
    fingerprint: str
    reservation: int
    texts: int
    input_type: InputType | None
    """As booked; ``None`` where the batch has ended and the detail of its booking is no longer kept."""
    tag: str
    """Under which it is booked."""

    def is_of(self, candidate: Candidate) -> bool:
        """Check whether the batch was submitted to this model."""
        return (candidate.name, candidate.fingerprint) == (self.model, self.fingerprint)


class BatchRecords:
    """The batch records of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the ledger's write lock, so that records and money change together.

        Raises:
            ConfigError: the ledger is not in a file.
        """
        with self._ledger.transaction() as database:
            if not self._ledger.is_persistent:
                raise ConfigError(
                    "A batch takes hours and is remembered in the ledger, which is in memory here. Build the "
                    "router with a ledger in a file: ledger=…."
                )
            for statement in SCHEMA:
                database.execute(statement)
            yield database

    def add(
        self, reference: str, candidate: Candidate, reservation: int, texts: Sequence[tuple[bytes, int, int]]
    ) -> None:
        """Write the record of a batch that is about to be submitted.

        Args:
            texts: of each the cache key, the position in the texts of the call, and the estimated tokens.
        """
        with self.transaction() as database:
            database.execute(
                "INSERT INTO batches VALUES (?, ?, NULL, 0, ?, ?, ?, ?)",
                (reference, time.time(), candidate.name, candidate.fingerprint, reservation, len(texts)),
            )
            rows = [(reference, *text) for text in texts]
            database.executemany("INSERT INTO batch_texts VALUES (?, ?, ?, ?, NULL)", rows)

    def under_way(self, keys: Container[bytes]) -> dict[bytes, str]:
        """Return the texts in batches that have not ended: the batch's reference by cache key."""
        query = "SELECT key, mark FROM batches JOIN batch_texts USING (mark) WHERE NOT ended"
        with self.transaction() as database:
            return {key: mark for key, mark in database.execute(query) if key in keys}

    def set_provider_id(self, reference: str, provider_id: str) -> None:
        """Record the provider's id of a batch."""
        with self.transaction() as database:
            database.execute("UPDATE batches SET provider_id = ? WHERE mark = ?", (provider_id, reference))

    def end(self, reference: str, failures: Mapping[bytes, str | None]) -> bool:
        """Record the end of a batch; return ``False`` if the end is on record already.

        Args:
            failures: why a text has no vector; ``None`` for a text that has one.
        """
        with self.transaction() as database:
            if not database.execute("UPDATE batches SET ended = 1 WHERE mark = ? AND NOT ended", (reference,)).rowcount:
                return False
            database.executemany(
                "UPDATE batch_texts SET failure = ? WHERE mark = ? AND key = ?",
                [(reason, reference, key) for key, reason in failures.items()],
            )
            database.execute("DELETE FROM batch_texts WHERE mark = ? AND failure IS NULL", (reference,))
        return True

    def drop(self, reference: str) -> None:
        """Delete the record of a batch."""
        with self.transaction() as database:
            database.execute("DELETE FROM batches WHERE mark = ?", (reference,))
            database.execute("DELETE FROM batch_texts WHERE mark = ?", (reference,))

    def get(self, reference: str) -> BatchRecord:
        """Return one record.

        Raises:
            UnavailableError: the record does not exist, because the batch was never submitted.
        """
        for record in self.all():
            if record.reference == reference:
                return record
        raise UnavailableError(f"{reference} was never submitted. Submit its texts again.", retryable=False)

    def all(self) -> list[BatchRecord]:
        """Return all records, the oldest first."""
        with self.transaction() as database:
            return [
                BatchRecord(reference, datetime.fromtimestamp(at, UTC), provider_id, bool(ended), *others)
                for reference, at, provider_id, ended, *others in database.execute(ALL)
            ]

    def texts(self, reference: str) -> dict[bytes, int]:
        """Return the keys of a batch's texts with the estimated tokens."""
        with self.transaction() as database:
            return dict(database.execute("SELECT key, tokens FROM batch_texts WHERE mark = ?", (reference,)))

    def failures(self, reference: str) -> list[BatchFailure]:
        """Return the texts that failed, in the order of their positions."""
        with self.transaction() as database:
            query = "SELECT position, failure FROM batch_texts WHERE mark = ? AND failure NOTNULL ORDER BY position"
            return [BatchFailure(*row) for row in database.execute(query, (reference,))]
