"""Record submitted batches beside the accounts: in the ledger's file, or on its server (see ``_redis_records``).

A record is written before its batch is submitted, under a client reference that the provider's batch has, too: so no
batch is billed and unknown at any moment. Texts are recorded as cache keys alone, under which the answers are stored
when the batch is collected, also after a restart.
"""

import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..errors import ConfigError, UnavailableError
from ..spending import Ledger
from ..types import Candidate, InputType, Spending

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
class BatchStatus:
    """The progress of a job."""

    ended: bool
    """Whether every batch has ended and its answers are in the cache."""
    texts: int
    """Texts in the batches of the job."""
    answered: int
    failures: tuple[BatchFailure, ...]
    """Texts without a vector; ``submit_batch`` and ``embed`` try such texts again."""


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


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that is about to be submitted."""

    candidate: Candidate
    spending: Spending
    """Its cost, to be set aside."""
    texts: Sequence[tuple[bytes, int, int]]
    """Of each the cache key, the position in the texts of the call, and the estimated tokens."""
    reservation: int | None
    """The number of its reservation, where it is known before."""
    reference: str = field(default_factory=lambda: f"batch-{secrets.token_hex(6)}")


class BatchRecords(ABC):
    """The batch records of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """Change records and money together, as far as the place can.

        On a server each step is for itself. So a record is there before its reservation, and is ended after it: what is
        left undone by a process that is killed is found and done by the next ``poll``.

        Raises:
            ConfigError: the ledger is in memory.
        """

    @abstractmethod
    def under_way(self, keys: Container[bytes]) -> tuple[dict[bytes, str], int]:
        """Return the batch of each text that is in one that has not ended, by cache key; and a number for ``add``."""

    @abstractmethod
    def add(self, batches: Sequence[NewBatch], seen: int) -> bool:
        """Write the records of batches that are about to be submitted.

        Args:
            seen: what ``under_way`` has returned.

        Returns:
            ``False`` if another process has submitted or ended a batch since, and nothing was written.
        """

    @abstractmethod
    def set_reservation(self, reference: str, reservation: int) -> None:
        """Record the reservation of a batch, which was not known before."""

    @abstractmethod
    def set_provider_id(self, reference: str, provider_id: str) -> None:
        """Record the provider's id of a batch."""

    @abstractmethod
    def end(self, reference: str, failures: Mapping[bytes, str | None]) -> bool:
        """Record the end of a batch; return ``False`` if the end is on record already.

        Args:
            failures: why a text has no vector; ``None`` for a text that has one.
        """

    @abstractmethod
    def drop(self, reference: str) -> None:
        """Delete the record of a batch."""

    def get(self, reference: str) -> BatchRecord:
        """Return one record.

        Raises:
            UnavailableError: the record does not exist, because the batch was never submitted.
        """
        for record in self.all():
            if record.reference == reference:
                return record
        raise UnavailableError(f"{reference} was never submitted. Submit its texts again.", retryable=False)

    @abstractmethod
    def all(self) -> list[BatchRecord]:
        """Return all records, the oldest first."""

    @abstractmethod
    def texts(self, reference: str) -> dict[bytes, int]:
        """Return the keys of a batch's texts with the estimated tokens."""

    @abstractmethod
    def failures(self, reference: str) -> list[BatchFailure]:
        """Return the texts that failed, in the order of their positions."""


class SQLiteBatchRecords(BatchRecords):
    """Records in the ledger's file: what changes in one ``transaction`` is in the file as a whole, or not at all."""

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._ledger.transaction() as database:
            if not self._ledger.is_persistent:
                raise ConfigError(
                    "A batch takes hours and is remembered in the ledger, which is in memory here. Build the "
                    "router with a ledger in a file: ledger=…."
                )
            for statement in SCHEMA:
                database.execute(statement)
            yield database

    def under_way(self, keys: Container[bytes]) -> tuple[dict[bytes, str], int]:
        query = "SELECT key, mark FROM batches JOIN batch_texts USING (mark) WHERE NOT ended"
        with self.transaction() as database:
            return {key: mark for key, mark in database.execute(query) if key in keys}, 0

    def add(self, batches: Sequence[NewBatch], seen: int) -> bool:
        with self.transaction() as database:
            for new in batches:
                about = new.candidate.name, new.candidate.fingerprint, new.reservation or 0, len(new.texts)
                row = (new.reference, time.time(), *about)
                database.execute("INSERT INTO batches VALUES (?, ?, NULL, 0, ?, ?, ?, ?)", row)
                rows = [(new.reference, *text) for text in new.texts]
                database.executemany("INSERT INTO batch_texts VALUES (?, ?, ?, ?, NULL)", rows)
        return True

    def set_reservation(self, reference: str, reservation: int) -> None:
        with self.transaction() as database:
            database.execute("UPDATE batches SET reservation = ? WHERE mark = ?", (reservation, reference))

    def set_provider_id(self, reference: str, provider_id: str) -> None:
        with self.transaction() as database:
            database.execute("UPDATE batches SET provider_id = ? WHERE mark = ?", (provider_id, reference))

    def end(self, reference: str, failures: Mapping[bytes, str | None]) -> bool:
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
        with self.transaction() as database:
            database.execute("DELETE FROM batches WHERE mark = ?", (reference,))
            database.execute("DELETE FROM batch_texts WHERE mark = ?", (reference,))

    def all(self) -> list[BatchRecord]:
        with self.transaction() as database:
            return [
                BatchRecord(reference, datetime.fromtimestamp(at, UTC), provider_id, bool(ended), *others)
                for reference, at, provider_id, ended, *others in database.execute(ALL)
            ]

    def texts(self, reference: str) -> dict[bytes, int]:
        with self.transaction() as database:
            return dict(database.execute("SELECT key, tokens FROM batch_texts WHERE mark = ?", (reference,)))

    def failures(self, reference: str) -> list[BatchFailure]:
        with self.transaction() as database:
            query = "SELECT position, failure FROM batch_texts WHERE mark = ? AND failure NOTNULL ORDER BY position"
            return [BatchFailure(*row) for row in database.execute(query, (reference,))]
