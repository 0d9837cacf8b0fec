"""HTTP clients whose answers have an end: a largest size, and a time for the whole exchange.

The time limits of httpx are those of single reads, so a server that sends a byte now and then would never be given up,
and what a small compressed answer becomes is limited by the memory alone. The clients here read an answer piece by
piece and stop at the size, counted after decompression, or at the time. Of an error page only the beginning is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing, closing
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..errors import BadResponseError

MAX_ERROR_PAGE = 2**18
"""Bytes that are read of an error."""
FIRST_ERROR = 400
COMPRESSED_PIECE = 2**12
"""Bytes that are decompressed at once: they become at most a thousand times as many."""
CODINGS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that are about bytes which are no longer there."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an answer may take."""

    model: str
    texts: int
    dimensions: int
    size: int
    """Bytes."""
    until: float
    """Of ``time.monotonic``."""


allowance: ContextVar[Allowance | None] = ContextVar("embedrouter_allowance", default=None)
"""Of the request that is being made; without one a client reads as it always does."""


@cache
def bounded(kind: type[Any], library: Any) -> Callable[..., Any]:
    """Return a class of HTTP clients that keep to the ``allowance``.

    Args:
        kind: a class of synchronous or asynchronous clients.
        library: the module ``httpx`` or ``httpx2``.
    """

    class BoundedClient(kind):  # type: ignore[misc]
        def send(self, request: Any, *, stream: bool = False, **settings: Any) -> Any:
            allowed = allowance.get()
            if stream or allowed is None:
                return super().send(request, stream=stream, **settings)
            response = super().send(request, stream=True, **settings)
            reading = _Reading(allowed, response, library)
            with closing(response), closing(_in_small_pieces(response, library).iter_bytes()) as pieces:
                for piece in pieces:
                    if not reading.take(piece):
                        break
            return reading.whole()

    class AsyncBoundedClient(kind):  # type: ignore[misc]
        async def send(self, request: Any, *, stream: bool = False, **settings: Any) -> Any:
            allowed = allowance.get()
            if stream or allowed is None:
                return await super().send(request, stream=stream, **settings)
            response = await super().send(request, stream=True, **settings)
            reading = _Reading(allowed, response, library)
            try:
                async with aclosing(_in_small_pieces(response, library).aiter_bytes()) as pieces:
                    async for piece in pieces:
                        if not reading.take(piece):
                            break
            finally:
                await response.aclose()
            return reading.whole()

    return AsyncBoundedClient if issubclass(kind, library.AsyncClient) else BoundedClient


def _in_small_pieces(response: Any, library: Any) -> Any:
    """Return a response of which a piece cannot become very large when it is decompressed."""
    if "content-encoding" not in response.headers:
        return response
    asynchronous = isinstance(response.stream, library.AsyncByteStream)
    raw = response.aiter_raw(COMPRESSED_PIECE) if asynchronous else response.iter_raw(COMPRESSED_PIECE)
    return library.Response(response.status_code, headers=response.headers, content=raw, request=response.request)


@dataclass(slots=True)
class _Reading:
    """An answer, as far as it has been read."""

    allowed: Allowance
    response: Any
    library: Any
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def take(self, piece: bytes) -> bool:
        """Keep a piece; return whether more is to be read.

        Raises:
            BadResponseError: the answer is larger than it may be.
            TimeoutException: of the library: the time is up.
        """
        self.size += len(piece)
        if self.response.status_code >= FIRST_ERROR and self.size >= MAX_ERROR_PAGE:
            self.pieces.append(piece[:MAX_ERROR_PAGE])
            return False
        self.pieces.append(piece)
        if self.size > self.allowed.size:
            texts, dimensions = self.allowed.texts, self.allowed.dimensions
            raise BadResponseError(
                f"the answer has more than {self.allowed.size} bytes, too many for {texts} texts of {dimensions} "
                "dimensions. Check base_url and dimensions=.",
                model=self.allowed.model,
                retryable=False,
            )
        if time.monotonic() > self.allowed.until:
            raise self.library.ReadTimeout("the answer did not end in time", request=self.response.request)
        return True

    def whole(self) -> Any:
        """Return the response with its content."""
        response = self.response
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in CODINGS]
        whole = self.library.Response(
            response.status_code,
            headers=headers,
            content=b"".join(self.pieces),
            request=response.request,
            extensions=response.extensions,
            history=response.history,
        )
        whole.elapsed = response.elapsed
        return whole
