"""Share texts between processes (single flight with leases): of those that need a text one pays, and the others wait.

A call claims its texts on the server of the shared state, and embeds those that it got. For the others it waits until
their vectors are in the cache, or their claims end without a vector because the other call failed or its process was
killed; then it takes over. No claim is held while it waits. While the server does not answer, each process embeds what
it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from ..cache import Claims, key_function
from ..events import Events, RequestShared
from ._call import Call, Embedded, Stage, without
from ._look_up import CacheReader
from ._shared_state import SharedState

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two looks at the claims of other processes; longer each time."""
STALLED = 600.0
"""Seconds without one of the texts that are waited for, after which a call embeds them: a process may be stuck."""


class Claim:
    """Claim texts among all processes, and wait for texts that another process has claimed.

    Args:
        dtype: the number type of floats in the cache's rows, which is part of a text's name.
    """

    def __init__(
        self,
        claims: Claims,
        state: SharedState,
        reader: CacheReader,
        dtype: str,
        clock: Callable[[], float],
        events: Events,
        following: Stage,
    ) -> None:
        self._claims, self._state, self._reader, self._dtype = claims, state, reader, dtype
        self._clock, self._events, self._following = clock, events, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        alone = call.effects.group is None  # it blocks an event loop, whose tasks it must not wait for
        if alone or call.unlimited:
            return await self._following.embed(call, texts)
        claimant = self._claims.begin()
        try:
            return await self._embed(call, texts, claimant)
        finally:
            self._claims.end(claimant)

    async def _embed(self, call: Call, texts: Sequence[str], claimant: str) -> Embedded:
        embedded, names = Embedded(), self._names(call, texts)
        again: list[bytes] = []
        pause, began = FIRST_PAUSE, self._clock()
        moved = began
        while texts:
            now = self._clock()
            asked = None
            if call.seconds_left(now) > 0 and now < moved + STALLED:
                wanted = [names[text] for text in texts]
                asked = await self._state.ask(
                    call.effects, call.seconds_left(now), self._claims.claim, claimant, wanted, again
                )
            if asked is None:  # each process for itself; without time left, nothing is sent
                embedded.add(await self._following.embed(call, texts))
                break
            states = dict(zip(texts, asked.value, strict=True))
            own = [text for text in texts if states[text] == "own"]
            done = [text for text in texts if states[text] == "done"]
            found = await self._reader.look_up(call, done) if done else {}
            if found:
                shared = Embedded(found)
                call.report(shared)
                embedded.add(shared)
                seconds = self._clock() - began
                self._events.emit(RequestShared, **call.asks(), texts=len(found), by="single flight", seconds=seconds)
            if own:
                embedded.add(await self._embed_own(call, own, claimant, names))
            lost = without(done, found)  # embedded, and not kept
            again = [names[text] for text in lost]
            waiting = [text for text in texts if states[text] == "other"]
            texts = [*waiting, *lost]
            if own or done:
                pause, moved = FIRST_PAUSE, self._clock()
            if waiting and not lost:
                await call.effects.sleep(max(0.0, min(pause, call.seconds_left(self._clock()))))
                pause = min(pause * 1.5, LONGEST_PAUSE)
        return embedded

    async def _embed_own(self, call: Call, texts: Sequence[str], claimant: str, names: dict[str, bytes]) -> Embedded:
        """Embed texts that this call has claimed; release each as soon as its request is answered."""
        held = dict.fromkeys(texts)

        def release(embedded: Embedded) -> None:
            own = [text for text in embedded.found if text in held]
            for text in own:
                del held[text]
            if own:
                self._state.start(self._claims.release, claimant, [names[text] for text in own])

        def report(part: Embedded) -> None:
            release(part)
            call.report(part)

        try:
            embedded = await self._following.embed(replace(call, report=report), texts)
            release(embedded)
            return embedded
        finally:
            if held:
                self._state.start(self._claims.release, claimant, [], [names[text] for text in held])

    def _names(self, call: Call, texts: Sequence[str]) -> dict[str, bytes]:
        """Return the names under which texts are claimed: of their vectors in the cache."""
        key = key_function(call.first, call.input_type, dtype=self._dtype)
        return {text: blake2b(key(text), digest_size=16).digest() for text in texts}
