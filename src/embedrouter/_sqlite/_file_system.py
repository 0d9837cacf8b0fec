"""What the file system says of a database: which file it is, whether it can be written and locked, how large it is."""

import errno
import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

from ._failures import sqlite_error

try:
    import fcntl
    import resource
except ImportError:  # on Windows, whose file systems have locks
    fcntl = resource = None  # type: ignore[assignment]


def identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        found = None
    return None if found is None else (found.st_dev, found.st_ino)


def size(path: Path | str) -> int:
    """Return the bytes of a file, -1 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - half the time of Path.stat
    except OSError:
        return -1


def is_read_only(path: Path) -> bool:
    """Return whether there is a database that this process may only read.

    Writing needs the right to write the file, and to make SQLite's files beside it where they are not there yet.
    """
    if size(path) <= 0:
        return False
    place = path.resolve()  # SQLite puts its files beside the end of a link
    beside = all(_may_write(f"{place}{suffix}") for suffix in ("-wal", "-shm"))
    return not (_may_write(place) and (beside or _may_write(place.parent)))


def _may_write(path: Path | str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def require_locks(folder: Path) -> None:
    """Refuse a file system without locks, such as some network file systems: SQLite would take it for a busy one.

    Raises:
        sqlite3.OperationalError: its cause is "no locks".
    """
    if fcntl is None:
        return
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise sqlite_error(sqlite3.SQLITE_NOLFS, "its file system has no locks") from error


def free_bytes(path: Path) -> int:
    """Return by how many bytes a file can grow: the free disk, or what the limit of the process leaves."""
    free = shutil.disk_usage(path.parent).free
    if resource is None:
        return free
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return free if limit == resource.RLIM_INFINITY else min(free, max(0, limit - max(0, size(path))))


def size_on_disk(path: Path) -> int:
    """Return the bytes of a database and of SQLite's files beside it."""
    files = (Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm"))
    return sum(file.stat().st_size for file in files if file.exists())
