"""Share texts between calls (single flight): wait for a text that another call is embedding, and pay once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Literal

from .._process import Future
from ..errors import EmbedRouterError
from ..events import Events, RequestShared
from ..types import Found
from ._call import Call, Embedded, Stage, without
from ._look_up import CacheReader
from ._single_flight import Resolution, SingleFlight

STALLED = 120.0
"""Seconds without a resolved claim, after which a call stops waiting. The other call may belong to an event loop that
is blocked, perhaps by the waiting call."""


class Share:
    """Claim texts, and wait for texts that another call has claimed.

    From this stage on a call spends money, so a cancelled call is stopped and ends in the background.

    Args:
        stalled: seconds without a resolved claim, after which a call stops waiting for other calls.
    """

    def __init__(
        self,
        claims: SingleFlight[Found],
        reader: CacheReader,
        clock: Callable[[], float],
        events: Events,
        following: Stage,
        *,
        stalled: float = STALLED,
    ) -> None:
        self._claims, self._reader, self._clock, self._following = claims, reader, clock, following
        self._events, self._stalled = events, stalled

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        shared = call.effects.group is not None and not call.unlimited
        stage = self._embed_shared(call, texts) if shared else self._following.embed(call, texts)
        return await call.effects.run_until_stopped(stage)

    async def _embed_shared(self, call: Call, texts: Sequence[str]) -> Embedded:
        embedded = Embedded()
        alone = False
        while texts:
            waiting = {} if alone else self._claims.claim(kind_of(call), texts)
            embedded.add(await self._embed_claimed(call, without(texts, waiting), release=not alone))
            began = self._clock() if waiting and self._events.wanted(RequestShared) else None
            await self._wait(call, list(waiting.values()))
            resolutions = {text: _resolution(future) for text, future in waiting.items()}
            shared = {text: found.again() for text, found in resolutions.items() if isinstance(found, Found)}
            if shared and began is not None:
                seconds = self._clock() - began
                self._events.emit(RequestShared, **call.asks(), texts=len(shared), by="single flight", seconds=seconds)
            embedded.found |= shared
            texts = without(waiting, embedded.found)
            alone = "failed" in resolutions.values()
        return embedded

    async def _embed_claimed(self, call: Call, texts: Sequence[str], *, release: bool) -> Embedded:
        """Embed claimed texts, and resolve the claims as soon as each request is answered."""
        kind, found = kind_of(call), dict[str, Found]()
        unresolved = dict.fromkeys(texts)  # a resolved text may be claimed by another call
        left: Literal["handed over", "failed"] = "handed over"  # the call was stopped, or its requests failed

        def report(embedded: Embedded) -> None:
            own = [text for text in embedded.found if text in unresolved]
            self._claims.resolve(kind, own, lambda text: _copied(embedded.found[text]))
            for text in own:
                del unresolved[text]
            call.report(embedded)

        try:
            if self._claims.completed != call.completed:  # perhaps one of these, since the cache was read
                found = await self._reader.look_up(call, texts)
            embedded = Embedded(found)
            if missing := without(texts, found):
                embedded.add(await self._following.embed(replace(call, report=report) if release else call, missing))
            found = embedded.found
            return embedded
        except EmbedRouterError:
            raise
        except Exception:  # a defect, which each waiting call would meet in turn
            left = "failed"
            raise
        finally:
            if release:
                self._claims.resolve(kind, unresolved, lambda text: _copied(found[text]) if text in found else left)

    async def _wait(self, call: Call, futures: Sequence[Future[Resolution[Found]]]) -> None:
        """Wait until the claims are resolved, the time is up, or no claim was resolved for a long time."""
        try:
            before = -1
            while before != self._claims.completed and not all(future.done() for future in futures):
                before = self._claims.completed
                left = min(self._stalled, call.seconds_left(self._clock()))
                await call.effects.wait_for(futures, left)
                if left < self._stalled:
                    return
        finally:
            for future in futures:
                future.cancel()


def kind_of(call: Call) -> Hashable:
    """Return the key of calls that can use the same vector for a text."""
    return (call.rank, call.input_type)


def _resolution(future: Future[Resolution[Found]]) -> Resolution[Found]:
    """Return the resolution of a claim, "failed" where the wait was given up."""
    return "failed" if future.cancelled() else future.result()


def _copied(found: Found) -> Found:
    return found._replace(vector=found.vector.copy())
