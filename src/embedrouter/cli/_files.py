"""New files that commands write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, EmbedRouterError


def require_new(path: Path, *, replace: bool = False) -> None:
    """Refuse a name that is taken.

    Raises:
        ConfigError: there is a file that is not to be replaced, or what is there is no file.
    """
    if path.exists() and not (replace and path.is_file()):
        raise ConfigError(f"{path} exists already. Choose another name, or remove the file first.")


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give the path to write to; the file gets its name when it is complete. After a failure no file is left.

    Args:
        path: the name; with ``replace`` a file of that name is replaced.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        require_new(path, replace=replace)
        part.unlink(missing_ok=True)
        part.touch(exist_ok=False)  # which follows no link
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except EmbedRouterError:  # one that is a TimeoutError is an OSError, too
        raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}). Check the path and the free disk space."
        ) from error
