"""The SDK clients of one backend: made when first needed, one for all threads and one for each event loop.

A client that the user passed in is used as it is and never closed. One of our making is leased to each call and closed
by the last call that holds a lease: closed any earlier, it would lose answers that are paid for and connections that
are being made. A client that was never closed is closed with its backend, an asynchronous one at the latest when
``asyncio.run`` ends its event loop. A forked child makes its own: connections cannot be shared between processes.

The event loop never waits for an import or a file: an asynchronous client is made in a thread. Reading the file of
certificate authorities takes longer than most requests to a server nearby, and httpx reads it for each client, so all
clients of our making share one SSL context per library.
"""

import asyncio
import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from inspect import iscoroutinefunction
from typing import Any, Generic, TypeVar

from .._display import shown_name
from .._process import PerLoop, PerProcess, in_thread
from ..errors import ConfigError
from ..models import Model
from ._bounded import bounded
from ._connections import redirect_guard

S = TypeVar("S")
A = TypeVar("A")


def check_clients(model: Model, kind: str, async_kind: str, sends: Callable[[Any], Any]) -> None:
    """Refuse a ``client=`` or ``async_client=`` that is no client of the SDK.

    Args:
        kind: the SDK's synchronous client, for the message.
        async_kind: the SDK's asynchronous client.
        sends: returns the method of a client that sends requests.

    Raises:
        ConfigError: the object has no such method, or one of the other kind.
    """
    for name, client, wanted in (("client", model.client, kind), ("async_client", model.async_client, async_kind)):
        fits = client is None
        with suppress(AttributeError):
            fits = fits or iscoroutinefunction(sends(client)) is (name == "async_client")
        if not fits:
            raise ConfigError(f"{model.name}: {name}= takes a {wanted}, not {type(client).__name__}.")


@dataclass(slots=True, eq=False)
class _Leased:
    client: Any
    close: Callable[[], Any] | None
    leases: int = 1
    """Calls that use the client, and one more until the client is closed."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Slot:
    """The place of the client of one process, or of one event loop."""

    lock: Any
    """Held while the client is made, so that all calls share one client; of the process or of the loop."""
    leased: _Leased | None = None


class Clients(Generic[S, A]):
    """Leases SDK clients.

    Args:
        make: returns a synchronous client and what closes it; ``None`` where the client stays open.
        make_async: the same of an asynchronous client; called in a thread.
    """

    def __init__(
        self,
        make: Callable[[], tuple[S, Callable[[], object] | None]],
        make_async: Callable[[], tuple[A, Callable[[], Awaitable[object]] | None]],
    ) -> None:
        self._make, self._make_async = make, make_async
        self._of_process = PerProcess(lambda: _Slot(threading.Lock()))
        self._of_loops = PerProcess(lambda: PerLoop(lambda: _Slot(asyncio.Lock())))

    @contextmanager
    def lease(self) -> Iterator[S]:
        """Lease the synchronous client."""
        slot = self._of_process.get()
        with slot.lock:
            leased = slot.leased = slot.leased or self._new()
            leased.leases += 1
        try:
            yield leased.client
        finally:
            _return(slot, leased)

    @asynccontextmanager
    async def alease(self) -> AsyncIterator[A]:
        """Lease the running event loop's client."""
        slot = self._of_loops.get().get()
        async with slot.lock:
            leased = slot.leased = slot.leased or await _kept(slot, *await in_thread(self._make_async))
            leased.leases += 1
        try:
            yield leased.client
        finally:
            await _areturn(leased)

    def close(self) -> None:
        """Close the synchronous client, if there is one, as soon as no call uses it."""
        slot = self._of_process.get()
        with slot.lock:
            leased, slot.leased = slot.leased, None
        if leased is not None:
            _return(slot, leased)

    async def aclose(self) -> None:
        """Close the synchronous client and the running event loop's, each as soon as no call uses it."""
        await in_thread(self.close)  # another thread may hold the lock while it makes the client
        slot = self._of_loops.get().get()
        async with slot.lock:
            leased, slot.leased = slot.leased, None
        if leased is not None:
            await _areturn(leased)

    def _new(self) -> _Leased:
        client, close = self._make()
        if close is None:
            return _Leased(client, None)
        finalizer = weakref.finalize(self, close)
        finalizer.atexit = False
        return _Leased(client, finalizer)


def _return(slot: _Slot, leased: _Leased) -> None:
    with slot.lock:
        leased.leases -= 1
        last = not leased.leases
    if last and leased.close:
        leased.close()


async def _areturn(leased: _Leased) -> None:
    leased.leases -= 1
    if not leased.leases and leased.close:
        await leased.close()


def http_client(kind: Any, library: Any, model: Model, *, asynchronous: bool, **settings: Any) -> Any:
    """Make an HTTP client that follows the proxies and authorities of the environment, and no redirect elsewhere.

    The client keeps to the ``allowance`` of a request.

    Args:
        kind: the class, of ``httpx``, ``httpx2`` or an SDK.
        library: the module ``httpx`` or ``httpx2``.

    Raises:
        ConfigError: a proxy or the file of authorities cannot be used; the message names the variable.
    """
    verify, hook = ssl_context(library), redirect_guard(model.name, asynchronous=asynchronous)
    try:
        return bounded(kind, library)(verify=verify, event_hooks={"response": [hook]}, **settings)
    except (ValueError, ImportError, library.InvalidURL) as error:  # their messages may repeat a password
        kind_of_error = type(error).__name__
    raise ConfigError(
        f"{model.name}: the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used, or NO_PROXY cannot "
        f"be understood ({kind_of_error}). Write http://host:port; for socks5://host:port run: pip install socksio"
    )


async def _kept(slot: _Slot, client: Any, close: Callable[[], Awaitable[object]] | None) -> _Leased:
    """Return a client that is closed with its event loop, or when its place is gone."""
    if close is None:
        return _Leased(client, None)
    keeper = _keep(close)
    await anext(keeper)
    # Refers to the client, so that a garbage collection of the router does not collect the client's sockets with it.
    weakref.finalize(slot, _drop, keeper).atexit = False
    return _Leased(client, keeper.aclose)


def _drop(keeper: object) -> None:
    """Drop the last reference to a generator."""


async def _keep(close: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    """Wait, as an asynchronous generator does: event loops end those that are left over, and those that are dropped."""
    try:
        yield
    finally:
        await close()


def ssl_context(library: Any) -> ssl.SSLContext:
    """Return the SSL context of ``httpx`` or ``httpx2``, with the certificate authorities of the environment.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` replace the usual authorities, as these libraries have it. Where neither is
    set, those of ``REQUESTS_CA_BUNDLE``, which is the variable of another library, are added to the usual ones.

    Raises:
        ConfigError: there is no such file, or it holds no certificates.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
    given = [os.environ.get(name) or None for name in names]
    try:
        return _ssl_context(library, os.getpid(), *given)
    except OSError as error:
        wrong = next((name for name, value in zip(names, given, strict=True) if value), names[0])
        raise ConfigError(
            f"The certificate authorities of {wrong}={shown_name(os.environ.get(wrong))} cannot be read "
            f"({error.strerror or type(error).__name__}). Set {wrong} to a PEM file, or remove it."
        ) from error


@cache
def _ssl_context(library: Any, _: int, file: str | None, folder: str | None, more: str | None) -> ssl.SSLContext:
    """Make a context; the other arguments tell processes and settings apart."""
    context: ssl.SSLContext = library.create_ssl_context()
    if more and not file and not folder:
        context.load_verify_locations(**{"capath" if os.path.isdir(more) else "cafile": more})  # noqa: PTH112
    return context
