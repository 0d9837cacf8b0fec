"""The file store of one provider: what clients uploaded, and what batches wrote.

A file is bytes, or lines that are made when the file is read: the output of a batch of 50,000 requests would fill
hundreds of megabytes. A file whose time is up is gone, as one that was deleted.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.emulator.clock import Clock

KEPT = 30 * 24 * 3600
"""Files of batches expire after 30 days unless the client says otherwise."""


class Written(Protocol):
    """Content that is made while it is read, the same each time."""

    @property
    def size(self) -> int:
        """The length in bytes; counted when asked for."""
        ...

    def pieces(self) -> Iterable[bytes]:
        """Make the content."""
        ...


@dataclass(frozen=True, slots=True)
class File:
    """One file; `shown` is the object that OpenAI's API answers."""

    id: str
    filename: str
    purpose: str
    created_at: int
    expires_at: int | None
    content: bytes | Written

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    def shown(self) -> dict[str, Any]:
        return {
            "object": "file",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """The files of one account, oldest first."""

    def __init__(self, clock: Clock, new_id: Callable[[], str] = lambda: f"file-{uuid.uuid4().hex[:22]}") -> None:
        self._clock = clock
        self._new_id = new_id
        self._lock = threading.Lock()
        self._files: dict[str, File] = {}

    def add(self, filename: str, purpose: str, content: bytes | Written, kept: int | None) -> File:
        """Keep a file for `kept` seconds (None: for good)."""
        now = self._clock.now
        file = File(self._new_id(), filename, purpose, now, now + kept if kept else None, content)
        with self._lock:
            self._files[file.id] = file
        return file

    def get(self, file_id: str) -> File | None:
        with self._lock:
            file = self._files.get(file_id)
        return file if file is not None and self._alive(file) else None

    def remove(self, file_id: str) -> None:
        with self._lock:
            self._files.pop(file_id, None)

    def all(self) -> tuple[File, ...]:
        with self._lock:
            return tuple(file for file in self._files.values() if self._alive(file))

    def forget(self) -> None:
        with self._lock:
            self._files.clear()

    def _alive(self, file: File) -> bool:
        return file.expires_at is None or self._clock.now < file.expires_at
