"""New files that commands write, and the package for Parquet."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..providers.versions import check_versions


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the path to write to; the file gets its name when it is complete. After a failure no file is left.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        if path.exists():
            raise ConfigError(f"{path} exists already. Choose another name, or remove the file first.")
        part.unlink(missing_ok=True)
        part.touch(exist_ok=False)  # through no link that somebody has put there
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}). Check the path and the free disk space."
        ) from error


def load_pyarrow(otherwise: str) -> tuple[Any, Any]:
    """Return ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ConfigError: the package is not installed; ``otherwise`` names a format that needs no package.
    """
    check_versions("A Parquet file", "parquet")
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"Parquet files need {error.name or 'pyarrow'}, which is not installed. "
            f"Run: pip install 'embedrouter[parquet]'; or use {otherwise}, which needs no package."
        ) from error
