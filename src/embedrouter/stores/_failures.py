"""Errors of the stores, and addresses in messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._display import masked
from ..cache import has_secret, is_address, without_password
from ..errors import ConfigError


@contextmanager
def explained(name: str) -> Iterator[None]:
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


def shown_address(store: str) -> str:
    """Return an address for messages, without user, password and keys; a path as it is."""
    if not is_address(store):
        return store
    whole, _, options = store.partition("?")
    address = without_password(whole)
    harmless = [option for option in options.split("&") if option and not has_secret(f"{address}?{option}")]
    return "?".join(filter(None, (address, "&".join(harmless))))
