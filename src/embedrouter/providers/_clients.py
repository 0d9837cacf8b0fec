"""The SDK clients of one backend: made when first needed, one for all threads and one for each event loop.

A client the user brought is used as it is and never closed. One of ours is lent to each call, and closed by the last
one that uses it: closed any earlier, it would lose answers that are paid for and connections that are being made. One
that nobody closed is closed when its backend is forgotten. A forked child makes its own: connections cannot be shared
between processes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Generic, TypeVar

from .._process import PerLoop
from ..errors import ConfigError
from ..models import Model

__all__ = ["Clients", "check_given"]

S = TypeVar("S")
A = TypeVar("A")
C = TypeVar("C")
R = TypeVar("R")


def check_given(model: Model, kind: str, async_kind: str, sends: Callable[[Any], Any]) -> None:
    """Refuse a client of the user's that is none.

    Args:
        kind: the SDK's synchronous client, for the message.
        async_kind: its asynchronous client.
        sends: returns the method of a client that sends requests.

    Raises:
        ConfigError: it has no such method, or one of the other kind.
    """
    given = (("client", model.client, kind, False), ("async_client", model.async_client, async_kind, True))
    for name, client, wanted, asynchronous in given:
        if client is not None:
            try:
                fits = iscoroutinefunction(sends(client)) is asynchronous
            except AttributeError:
                fits = False
            if not fits:
                raise ConfigError(f"{model.name}: {name}= takes a {wanted}, not {type(client).__name__}.")


@dataclass(slots=True, eq=False)
class _Lent(Generic[C, R]):
    client: C
    close: Callable[[], R]
    users: int = 1
    """The calls that use it, and who lends it."""


class Clients(Generic[S, A]):
    """Args: how to make and close each kind of client, and the user's own clients, if any."""

    def __init__(
        self,
        make: Callable[[], S],
        make_async: Callable[[], A],
        close: Callable[[S], object],
        close_async: Callable[[A], Awaitable[object]],
        *,
        given: S | None = None,
        given_async: A | None = None,
    ) -> None:
        self._make, self._make_async = make, make_async
        self._close, self._close_async = close, close_async
        self._given, self._given_async = given, given_async
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._lent: _Lent[S, object] | None = None
        self._of_loops: PerLoop[_Lent[A, Awaitable[object]]] = PerLoop(self._new_async)

    def _new(self) -> _Lent[S, object]:
        client = self._make()
        close = weakref.finalize(self, self._close, client)
        close.atexit = False
        return _Lent(client, close)

    def _new_async(self) -> _Lent[A, Awaitable[object]]:
        client = self._make_async()
        return _Lent(client, partial(self._close_async, client))

    @contextmanager
    def sync(self) -> Iterator[S]:
        """Lend the synchronous client."""
        if self._given is not None:
            yield self._given
            return
        if self._process != os.getpid():
            self._start()
        with self._lock:
            lent = self._lent = self._lent or self._new()
            lent.users += 1
        try:
            yield lent.client
        finally:
            self._give_back(lent)

    @asynccontextmanager
    async def asynchronous(self) -> AsyncIterator[A]:
        """Lend the running event loop's client."""
        if self._given_async is not None:
            yield self._given_async
            return
        if self._process != os.getpid():
            self._start()
        lent = self._of_loops.get()
        lent.users += 1
        try:
            yield lent.client
        finally:
            await self._agive_back(lent)

    def close(self) -> None:
        """Close the synchronous client, if one was made, when no call uses it."""
        with self._lock:
            lent, self._lent = self._lent, None
        if lent is not None:
            self._give_back(lent)

    async def aclose(self) -> None:
        """Close the synchronous client and the running loop's, each when no call uses it."""
        self.close()
        lent = self._of_loops.pop()
        if lent is not None:
            await self._agive_back(lent)

    def _give_back(self, lent: _Lent[S, object]) -> None:
        with self._lock:
            lent.users -= 1
            last = not lent.users
        if last:
            lent.close()

    @staticmethod
    async def _agive_back(lent: _Lent[A, Awaitable[object]]) -> None:
        lent.users -= 1
        if not lent.users:
            await lent.close()
