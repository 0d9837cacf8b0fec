"""The SDK clients of one backend: made when first needed, one for all threads and one for each event loop.

A client that the user passed in is used as it is and never closed. One of our making is leased to each call and closed
by the last call that holds a lease: closed any earlier, it would lose answers that are paid for and connections that
are being made. A synchronous client that was never closed is closed with its backend. A forked child makes its own:
connections cannot be shared between processes.

The event loop never waits for an import or a file: an asynchronous client is made in a thread.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, Generic, TypeVar

from .._process import PerLoop, PerProcess, in_thread
from ..errors import ConfigError
from ..models import Model

S = TypeVar("S")
A = TypeVar("A")
C = TypeVar("C")
R = TypeVar("R")


def check_clients(model: Model, kind: str, async_kind: str, sends: Callable[[Any], Any]) -> None:
    """Refuse a ``client=`` or ``async_client=`` that is no client of the SDK.

    Args:
        kind: the SDK's synchronous client, for the message.
        async_kind: the SDK's asynchronous client.
        sends: returns the method of a client that sends requests.

    Raises:
        ConfigError: the object has no such method, or one of the other kind.
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
class _Leased(Generic[C, R]):
    client: C
    close: Callable[[], R]
    leases: int = 1
    """Calls that use the client, and one more until the client is closed."""


@dataclass(slots=True, eq=False)
class _OfProcess(Generic[C]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    leased: _Leased[C, object] | None = None


@dataclass(slots=True, eq=False)
class _OfLoop(Generic[C]):
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    leased: _Leased[C, Awaitable[object]] | None = None


class Clients(Generic[S, A]):
    """Leases SDK clients.

    Args:
        make: makes the synchronous client, and returns it with what closes it.
        make_async: the same of the asynchronous client; called in a thread.
        given: the user's synchronous client.
        given_async: the user's asynchronous client.
    """

    def __init__(
        self,
        make: Callable[[], tuple[S, Callable[[], object]]],
        make_async: Callable[[], tuple[A, Callable[[], Awaitable[object]]]],
        *,
        given: S | None = None,
        given_async: A | None = None,
    ) -> None:
        self._make, self._make_async = make, make_async
        self._given, self._given_async = given, given_async
        self._of_process: PerProcess[_OfProcess[S]] = PerProcess(_OfProcess)
        self._of_loops: PerProcess[PerLoop[_OfLoop[A]]] = PerProcess(lambda: PerLoop(_OfLoop))

    @contextmanager
    def lease(self) -> Iterator[S]:
        """Lease the synchronous client."""
        if self._given is not None:
            yield self._given
            return
        own = self._of_process.get()
        with own.lock:
            leased = own.leased = own.leased or self._new()
            leased.leases += 1
        try:
            yield leased.client
        finally:
            _return(own, leased)

    @asynccontextmanager
    async def alease(self) -> AsyncIterator[A]:
        """Lease the running event loop's client."""
        if self._given_async is not None:
            yield self._given_async
            return
        own = self._of_loops.get().get()
        async with own.making:
            if own.leased is None:
                own.leased = _Leased(*await in_thread(self._make_async))
            leased = own.leased
            leased.leases += 1
        try:
            yield leased.client
        finally:
            await _areturn(leased)

    def close(self) -> None:
        """Close the synchronous client, if there is one, as soon as no call uses it."""
        own = self._of_process.get()
        with own.lock:
            leased, own.leased = own.leased, None
        if leased is not None:
            _return(own, leased)

    async def aclose(self) -> None:
        """Close the synchronous client and the running event loop's, each as soon as no call uses it."""
        await in_thread(self.close)  # another thread may hold the lock while it makes the client
        own = self._of_loops.get().get()
        async with own.making:
            leased, own.leased = own.leased, None
        if leased is not None:
            await _areturn(leased)

    def _new(self) -> _Leased[S, object]:
        client, close = self._make()
        finalizer = weakref.finalize(self, close)
        finalizer.atexit = False
        return _Leased(client, finalizer)


def _return(own: _OfProcess[C], leased: _Leased[C, object]) -> None:
    with own.lock:
        leased.leases -= 1
        last = not leased.leases
    if last:
        leased.close()


async def _areturn(leased: _Leased[C, Awaitable[object]]) -> None:
    leased.leases -= 1
    if not leased.leases:
        await leased.close()
