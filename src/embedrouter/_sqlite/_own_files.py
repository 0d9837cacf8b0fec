"""Files and folders for their owner alone, also where others may write: none is made, or changed, through a link.

A link that leads somewhere is followed to a folder or a database that is there, because users place these elsewhere.
"""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from .._process import PerProcess

_making: PerProcess[threading.Lock] = PerProcess(threading.Lock)


def make_folder(folder: Path) -> None:
    """Make a folder and each missing one above it: ``mkdir`` gives those above the rights of the umask.

    Raises:
        OSError: it cannot be made, or is a link that leads nowhere.
    """
    if not folder.is_dir():
        refuse_link(folder)
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file, unless there is one.

    Raises:
        OSError: it cannot be made, or is a link that leads nowhere, or to a file without a byte.
    """
    with _making.get(), suppress(FileExistsError):  # closing a file gives up the locks that SQLite has on it meanwhile
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if not path.exists() or not path.stat().st_size:
        refuse_link(path)


def refuse_link(path: Path) -> None:
    """Refuse what would be made, or changed, at the end of a link.

    Raises:
        OSError: the path is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "It is a link, through which nothing is made. Remove it, or name its end", str(path))
