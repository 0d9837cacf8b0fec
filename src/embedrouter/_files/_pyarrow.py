"""The package for Parquet files."""

from importlib import import_module
from typing import Any

from ..errors import ConfigError
from ..providers.versions import check_versions


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
