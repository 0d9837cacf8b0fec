"""Keep rows as small objects of a file system of fsspec: S3, Google Cloud Storage, Azure, SFTP, a shared folder.

An object is named after its key, in a folder for each model and each of 256 beginnings of the hash. Objects are read
and written many at a time, concurrently where the file system can do so. What reads them once is best put behind a
folder: ``cache=["~/.cache/embedrouter", "s3://bucket/vectors"]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from .._display import masked
from .._process import PerProcess, importing
from ..errors import ConfigError
from ._addresses import without_password
from ._failing import failing
from ._keys import split_key

MOST_AT_ONCE = 500
"""Objects in one call of the file system."""
ADVICE = (
    "Look at the address, its options (FSSPEC_… in the environment, ~/.config/fsspec) and the rights; until it works "
    "texts are paid for that it would have."
)


class FileSystemCache:
    """A store of rows under an address of fsspec.

    Options of the file system, such as an endpoint, are those of fsspec's configuration: variables such as
    ``FSSPEC_S3_ENDPOINT_URL``, or files in ``~/.config/fsspec``; credentials are found as the file system finds them.

    Args:
        address: such as ``"s3://bucket/vectors"``.

    Raises:
        StoreError: from every method but ``close``: the file system failed.
        ConfigError: fsspec, or the package of this kind of file system, is not installed; or there is no such kind.
    """

    def __init__(self, address: str) -> None:
        if find_spec("fsspec") is None:
            raise ConfigError(
                f"cache={address.partition('://')[0]}://… needs fsspec, which is not installed. Run: "
                "pip install 'embedrouter[fsspec]'"
            )
        _require_known(address)
        self._address = address
        self._opened = PerProcess(lambda: _open(address))

    def __repr__(self) -> str:
        return f"FileSystemCache({self.place!r})"

    def __reduce__(self) -> tuple[type[FileSystemCache], tuple[str]]:
        return FileSystemCache, (self._address,)

    @property
    def place(self) -> str:
        """The address without user and password, for messages."""
        return without_password(self._address)

    @property
    def persistent(self) -> bool:
        """Whether the objects outlive the process."""
        return not self._address.startswith("memory:")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        found: dict[bytes, bytes] = {}
        with failing(ADVICE):
            system, root = self._opened.get()
            for start in range(0, len(keys), MOST_AT_ONCE):
                names = {_path(root, key): key for key in keys[start : start + MOST_AT_ONCE]}
                for name, value in _contents(system, list(names)).items():
                    found[names[name]] = value
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones."""
        with failing(ADVICE):
            system, root = self._opened.get()
            rows = [(_path(root, key), value) for key, value in values.items()]
            for start in range(0, len(rows), MOST_AT_ONCE):
                _write(system, dict(rows[start : start + MOST_AT_ONCE]))

    def close(self) -> None:
        """Do nothing: fsspec keeps its file systems, and their connections, for the process."""


def _require_known(address: str) -> None:
    """Refuse a kind of file system that there is not, or whose package is not installed."""
    with importing:
        from fsspec import get_filesystem_class

        try:
            for part in address.split("::"):  # "simplecache::s3://bucket"
                get_filesystem_class(part.partition("://")[0])
        except (ValueError, ImportError) as error:  # "Protocol not known", "Install s3fs to access S3"
            scheme = address.partition("://")[0]
            raise ConfigError(f"cache={scheme}://… cannot be opened by fsspec: {masked(str(error))}.") from error


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the folder in it."""
    with importing:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(address)
    return system, root.rstrip("/")


def _path(root: str, key: bytes) -> str:
    mark, rest = split_key(key)
    name = rest.hex()
    return "/".join(part for part in (root, mark.hex(), name[:2], name) if part)


def _contents(system: Any, paths: list[str]) -> dict[str, bytes]:
    """Return the contents of the objects that exist.

    Where a user may not list a bucket, S3 answers for an absent object as for a forbidden one.

    Raises:
        Exception: nothing could be read, and not because it is absent.
    """
    answers = system.cat(paths, on_error="return")
    found = {path: answers[path] for path in paths if isinstance(answers.get(path), bytes)}
    problems = [answer for answer in answers.values() if isinstance(answer, Exception)]
    others = [problem for problem in problems if not isinstance(problem, FileNotFoundError)]
    if others and not found and len(others) == len(problems):
        raise others[0]
    return found


def _write(system: Any, contents: dict[str, bytes]) -> None:
    try:
        system.pipe(contents)
    except FileNotFoundError:  # a file system with folders
        for folder in {path.rpartition("/")[0] for path in contents}:
            system.makedirs(folder, exist_ok=True)
        system.pipe(contents)
