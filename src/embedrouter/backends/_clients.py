"""The SDK clients of one backend: made when first needed, one for all threads and one for each event loop.

A client the user brought is used as it is and never closed. One of ours that nobody closed is closed when its backend
is forgotten. A forked child makes its own: connections cannot be shared between processes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..loops import PerLoop

__all__ = ["Clients"]

S = TypeVar("S")
A = TypeVar("A")


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
        self._client: S | None = None
        self._async_clients: PerLoop[A] = PerLoop(self._make_async)

    def sync(self) -> S:
        """Return the synchronous client."""
        if self._given is not None:
            return self._given
        if self._process != os.getpid():
            self._start()
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._make()
                    self._forgotten = weakref.finalize(self, self._close, self._client)
                    self._forgotten.atexit = False
        return self._client

    def asynchronous(self) -> A:
        """Return the running event loop's client."""
        if self._given_async is not None:
            return self._given_async
        if self._process != os.getpid():
            self._start()
        return self._async_clients.get()

    def close(self) -> None:
        """Close the synchronous client, if one was made."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            self._forgotten()

    async def aclose(self) -> None:
        """Close the synchronous client and the running loop's."""
        self.close()
        client = self._async_clients.pop()
        if client is not None:
            await self._close_async(client)
