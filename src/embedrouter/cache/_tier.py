"""One store of a router's cache: a failure of it fails no call, is counted, and is told once.

A store that lets callers wait before it fails, such as a server that does not answer, is left alone for a while, so
that not each call waits for it. A folder is always tried.
"""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from .._process import Lock, PerProcess
from .._sqlite import ForeignError, failure
from ..errors import CacheWarning
from ..events import CacheFailed, Events
from ._failing import StoreError
from ._keys import MARK_BYTES
from ._names import record_name
from ._store import Cache

Action: TypeAlias = Literal["read", "written", "closed"]

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
SLOW = 0.25
"""Seconds from which a failure counts as one that callers have waited for."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds for which a store is left alone that failed slowly, doubled with each time in a row."""


class Tier:
    """Reads and writes rows of one store.

    Args:
        names: the models' names by the mark in their keys, to be recorded beside a store that has a folder.
        clock: seconds, monotonic.

    Attributes:
        failures: how often the store could not be read, written or closed so far.
        last: why it failed last, and when.
        persistent: whether what it keeps outlives the process.
    """

    def __init__(
        self,
        store: Cache,
        events: Events,
        names: Mapping[bytes, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.persistent = bool(getattr(store, "persistent", True))
        folder = getattr(store, "folder", None)
        self.folder = folder if isinstance(folder, Path) else None
        self.failures = 0
        self.last: tuple[float, Exception] | None = None
        self._events, self._clock = events, clock
        self._unrecorded = dict(names)
        self._reported: set[tuple[object, ...]] = set()
        """What was done and why it failed, until it works again."""
        self._lock = PerProcess(Lock)
        self._pause = self._until = 0.0

    @property
    def place(self) -> str:
        """The folder or the address of the store, or its class."""
        return str(self.folder or getattr(self.store, "place", None) or type(self.store).__name__)

    def read(self, keys: Sequence[bytes], consequence: str) -> Mapping[bytes, bytes] | None:
        """Return the rows that exist, or ``None`` where the store fails or is left alone."""
        rows: dict[bytes, bytes] = {}
        read = self._attempt(lambda: rows.update(self.store.get_many(keys)), "read", consequence)
        return rows if read else None

    def write(self, rows: Mapping[bytes, bytes], consequence: str, *, always: bool = False, warn: bool = True) -> bool:
        """Write rows and return whether they are kept.

        Args:
            always: whether a store that is left alone is tried all the same.
            warn: whether a failure is a warning, besides its event.
        """
        kept = self._attempt(lambda: self.store.put_many(rows), "written", consequence, always=always, warn=warn)
        if kept and self._unrecorded and self.folder is not None:
            for beginning in {key[:MARK_BYTES] for key in rows}:
                if (model := self._unrecorded.pop(beginning, None)) is not None:
                    record_name(self.folder, beginning, model)
        return kept

    def close(self) -> None:
        """Close the store; a later call opens it again."""
        self._attempt(self.store.close, "closed", "what was written before is kept", always=True)

    def _attempt(
        self, action: Callable[[], None], what: Action, consequence: str, *, always: bool = False, warn: bool = True
    ) -> bool:
        """Run an action of the store and return whether it works. If not, count it and tell it once for each cause."""
        if not always and self._is_left_alone():
            return False
        began = self._clock()
        try:
            action()
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - a user's store may raise errors of its own
            self._leave_alone(self._clock() - began)
            self.failures += 1
            self.last = self._clock(), error.with_traceback(None)
            if (cause := _cause(error, what)) not in self._reported:
                self._reported.add(cause)
                event = CacheFailed(
                    place=self.place,
                    action=what,
                    reason=str(error),
                    consequence=consequence,
                    advice=advice(error, self.place),
                )
                self._events.report(event)
                if warn:
                    warnings.warn(str(event), CacheWarning, stacklevel=4)
            return False
        self._pause = self._until = 0.0
        if self._reported and what != "closed":
            self._reported = {cause for cause in list(self._reported) if cause[0] not in (what, "foreign")}
        return True

    def _is_left_alone(self) -> bool:
        """Return whether the store is not to be asked now. After a pause one caller asks; the others do not wait."""
        if not self._until:
            return False
        with self._lock.get():
            now = self._clock()
            if now < self._until:
                return True
            self._until = now + self._pause
        return False

    def _leave_alone(self, waited: float) -> None:
        if waited < SLOW or self.folder is not None:
            self._pause = self._until = 0.0
            return
        with self._lock.get():
            self._pause = min(LONGEST_PAUSE, 2 * self._pause) if self._pause else FIRST_PAUSE
            self._until = self._clock() + self._pause


def _cause(error: Exception, what: Action) -> tuple[object, ...]:
    if isinstance(error, ForeignError):
        return ("foreign",)
    kind = error.kind if isinstance(error, StoreError) else type(error)
    return (what, kind, getattr(error, "sqlite_errorcode", None), getattr(error, "errno", None))


def advice(error: Exception, place: object) -> str:
    """Return what to do about a store that failed, as a sentence."""
    if isinstance(error, StoreError):
        return error.advice
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
