"""Tell a failure of another program's store from one of our own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._display import masked
from ..errors import EmbedRouterError


class StoreError(Exception):
    """A store that another program keeps has failed.

    Attributes:
        kind: the class of the error that the store has raised.
        advice: what to do.
    """

    def __init__(self, message: str, kind: type[Exception], advice: str) -> None:
        super().__init__(message)
        self.kind, self.advice = kind, advice


@contextmanager
def failing(advice: str) -> Iterator[None]:
    """Turn every error of the block into a ``StoreError``: a library of others may raise ``KeyError`` of a bad network.

    Raises:
        StoreError: the block has failed.
        EmbedRouterError: an error of ours, such as that of a wrong setting, is passed on.
    """
    try:
        yield
    except (EmbedRouterError, StoreError):
        raise
    except Exception as error:
        raise StoreError(masked(f"{type(error).__name__}: {error}"), type(error), advice) from error
