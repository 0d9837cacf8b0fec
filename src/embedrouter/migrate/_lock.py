"""One run of a migration at a time on a machine: a lock that ends with the process, however the process ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import platformdirs

from .._sqlite import make_folder
from ..errors import ConfigError

FOLDER = "migrations"
"""Inside the user's data folder."""


@contextmanager
def one_at_a_time(*names: str) -> Iterator[None]:
    """Hold the lock of one migration.

    Two runs on two machines hold a lock each: they write the same rows, and pay a text twice that both embed at once.

    Args:
        names: what the migration is told by.

    Raises:
        ConfigError: another process, or another thread of this one, holds it.
    """
    folder = Path(platformdirs.user_data_dir("embedrouter", appauthor=False)) / FOLDER
    file = blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest() + ".lock"
    with ExitStack() as stack:
        try:
            make_folder(folder)
            connection = stack.enter_context(closing(sqlite3.connect(folder / file, timeout=0, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        except (OSError, sqlite3.OperationalError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise ConfigError(
                    f"Another run fills {names[-1]!r} at this moment. Wait for its end; nothing was called or changed."
                ) from error
            # a folder in which nothing can be written: the rows and the cache are right without a lock, too
        yield
