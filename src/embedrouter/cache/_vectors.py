"""Read and write vectors in a store of bytes, checking every row that is read.

A store that fails fails no call: rows that cannot be read count as absent, rows that cannot be written are not kept. A
programming error in a user's own store is raised, so that its author sees it.
"""

import errno
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from .._sqlite import ForeignError, failure
from ..errors import CacheError, CacheWarning
from ..events import CacheFailed, CacheRowsDamaged, Events
from ..types import Entry, Vectors
from ._codec import decode, encode, is_vector, rounded
from ._keys import MARK_BYTES
from ._names import record_name
from ._store import Cache

PROGRAMMING_ERRORS = (
    TypeError,
    ValueError,
    AttributeError,
    NameError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
)
"""Raised by wrong code, not by a failing disk or server."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class VectorCache:
    """Reads and writes entries. Without a store every read is empty and nothing is kept.

    Args:
        names: the models' names by the mark in their keys, to be recorded beside a store that has a folder.

    Attributes:
        store: keeps the rows.
        dtype: the number type of the floats in rows that are written. Rows of every type are read.
        damaged: rows found damaged so far; each counted as absent.
        failures: how often the store could not be read, written or closed so far.
        must_keep: whether a call whose new vectors cannot be kept ends with ``CacheError`` after that request.
    """

    def __init__(
        self,
        store: Cache | None,
        dtype: str = "float32",
        names: Mapping[bytes, str] | None = None,
        events: Events | None = None,
    ) -> None:
        self.store = store
        self.dtype = dtype
        self._events = events or Events()
        self.damaged = 0
        self.failures = 0
        self.must_keep = False
        self._unrecorded = dict(names or {})
        self._reported: set[tuple[object, ...]] = set()
        """What was done and why it failed, until it works again."""
        self._last: Exception | None = None
        """Why it failed last."""

    def read(self, keys: Sequence[bytes], dimensions: int, number: str = "float32") -> dict[bytes, Entry]:
        """Return the sound entries that exist, by key; a row of another length or number type is damaged."""
        store = self.store
        if store is None:
            return {}
        rows: dict[bytes, bytes] = {}
        consequence = "its texts are embedded, and paid for, as if it were empty"
        self._attempt(lambda: rows.update(store.get_many(keys)), "read", consequence)
        entries: dict[bytes, Entry] = {}
        damaged, expected = self.damaged, np.dtype(number)
        for key, row in rows.items():
            own = row if type(row) is bytes else bytes(memoryview(row))  # a user's store may use its buffer again
            entry = decode(own, dimensions)
            if entry is None or entry.vector.dtype != expected or not is_vector(entry.vector):
                self.damaged += 1
            else:
                entries[key] = entry
        if self.damaged > damaged == 0:
            self._events.emit(CacheRowsDamaged, place=self._place, rows=self.damaged)
        return entries

    def rounded(self, vectors: Vectors) -> Vectors:
        """Round vectors to what a later read returns, so that a miss and the hit after it agree."""
        if self.dtype == "float32" or vectors.dtype != np.float32:  # arrays that are no vectors are refused later
            return vectors
        return rounded(vectors, self.dtype)

    def write(self, entries: Mapping[bytes, Entry]) -> bool:
        """Write entries and return whether they are kept."""
        store = self.store
        if store is None or not entries:
            return store is not None
        rows = {key: encode(entry, self.dtype) for key, entry in entries.items()}
        consequence = "vectors that are paid for are returned, but not kept"
        kept = self._attempt(lambda: store.put_many(rows), "written", consequence)
        folder = getattr(store, "folder", None)
        if kept and self._unrecorded and isinstance(folder, Path):
            for beginning in {key[:MARK_BYTES] for key in rows}:
                if (model := self._unrecorded.pop(beginning, None)) is not None:
                    record_name(folder, beginning, model)
        return kept

    def require_keeping(self, size: int = 0) -> None:
        """Refuse a store that cannot keep new vectors, before they are paid for.

        A store of a user's own is asked only if it has the method ``require_room`` of ``DiskCache``.

        Args:
            size: bytes that the vectors take (``disk_size``).

        Raises:
            CacheError: there is no store, or it cannot be written, or its disk is too small for them.
        """
        if self.store is None:
            raise CacheError("There is no cache to keep vectors in, so nothing was called. Set cache=… to a folder.")
        require_room = getattr(self.store, "require_room", None)
        if require_room is None:
            return
        try:
            require_room(size)
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:
            raise self.refusal(error, "nothing was called") from error

    def refusal(self, error: Exception | None = None, consequence: str = "nothing more is called") -> CacheError:
        """Return the error for a store that keeps nothing, by default for the last failure."""
        cause = error or self._last
        reason = f" ({cause})" if cause is not None else ""
        advice = f" {_advice(cause, self._place)}" if cause is not None else ""
        return CacheError(f"The cache {self._place} cannot keep new vectors{reason}: {consequence}.{advice}")

    def close(self) -> None:
        """Close the store; a later call opens it again."""
        if self.store is not None:
            self._attempt(self.store.close, "closed", "what was written before is kept")

    @property
    def _place(self) -> str:
        return str(getattr(self.store, "folder", None) or type(self.store).__name__)

    def _attempt(
        self, action: Callable[[], None], what: Literal["read", "written", "closed"], consequence: str
    ) -> bool:
        """Run an action of the store and return whether it works. If not, count it and warn once for each cause."""
        try:
            action()
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - a user's store may raise errors of its own
            self.failures += 1
            self._last = error.with_traceback(None)
            cause: tuple[object, ...] = (
                ("foreign",)
                if isinstance(error, ForeignError)
                else (what, type(error), getattr(error, "sqlite_errorcode", None), getattr(error, "errno", None))
            )
            if cause not in self._reported:
                self._reported.add(cause)
                event = CacheFailed(
                    place=self._place,
                    action=what,
                    reason=str(error),
                    consequence=consequence,
                    advice=_advice(error, self._place),
                )
                self._events.report(event)
                if what != "written" or not self.must_keep:  # then it is an error
                    warnings.warn(str(event), CacheWarning, stacklevel=3)
            return False
        if self._reported and what != "closed":
            self._reported = {cause for cause in list(self._reported) if cause[0] not in (what, "foreign")}
        return True


def _advice(error: Exception, place: object) -> str:
    match "full" if getattr(error, "errno", None) in DISK_FULL else failure(error):
        case "damaged":
            return f"Check it with: embedrouter cache verify --cache {place}; or move it away, and a new one is made."
        case "busy":
            return "Another process has locked it: wait until that process has finished, or end it."
        case "foreign":
            return "Another program made or changed it: move it away, and a new one is made; or name another: cache=…."
        case "slow":
            return "It took too long: give it a faster disk, or name another: cache=…, or None for no cache."
        case "full":
            return "Free space on its disk."
        case "read-only":
            return "Give the right to write it and its folder; or copy the folder, and name the copy: cache=…."
        case "no locks":
            return "Name a folder on a disk of this machine: cache=…, or None for no cache."
    return "Give the right to read and write it and space on its disk, or name another: cache=…, or None for no cache."
