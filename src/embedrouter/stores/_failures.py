"""Errors of the stores, and addresses in messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._display import masked
from ..errors import ConfigError


@contextmanager
def told(name: str) -> Iterator[None]:
    """Raise the errors of a store as one sentence.

    Raises:
        ConfigError: the store could not be opened; the message repeats what the store says, without secrets.
    """
    try:
        yield
    except (ConfigError, ImportError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        if "already exists for" in said:  # Chroma opens a folder once in a process
            raise ConfigError(
                f"The {name} is open in this process with other settings. Pass the open store in place of its path, or "
                "close it first."
            ) from error
        raise ConfigError(
            f"The {name} could not be opened ({type(error).__name__}: {masked(said)}). Check the path or address, and "
            "whether another program has the store open."
        ) from error


def plain(store: str) -> str:
    """Return an address without user and password."""
    scheme, found, rest = store.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else store
