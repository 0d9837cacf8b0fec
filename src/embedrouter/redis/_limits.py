"""The limits of one model, shared by all workers on a Redis server.

Each question is one script (``_limits_scripts``). The clock is the server's: those of the workers may differ. What no
worker has used for ``FORGOTTEN_AFTER`` seconds is removed by the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..limits import INSTANT, MINUTE, UNKNOWN_LIMIT, Held, Outcome, Quotas, Ticket
from ._limits_scripts import ADMIT, END
from ._server import Server

FORGOTTEN_AFTER = 900
"""Seconds without a request after which the server removes the state of a model; longer than any lease or hold."""
PATIENCE = 40.0
"""Seconds after which a ticket loses its place, if it was not asked with again. No wait is longer than a third."""
REASONS = {b"rate": "rate limit", b"slot": "concurrency limit", b"429": "HTTP 429"}


class RedisLimits:
    """The shared limits of one model.

    Args:
        server: the Redis server.
        name: of the model's account: workers with the same name share the limits.
        quotas: the declared limits of requests, texts and tokens; where none is declared, those count that any worker
            was told by the provider.
        concurrency: requests in flight at once, of all workers; ``None`` for no shared limit.
        clock: seconds since any moment, in place of the server's clock.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        quotas: Quotas,
        concurrency: int | None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._server, self._clock = server, clock
        names = ("state", "queue", "alive", "flight", "tickets", "workers", "seen", "requests", "texts", "tokens")
        self._keys = [server.key("limits", "{" + name + "}", part) for part in names]
        self._concurrency = "" if concurrency is None else concurrency
        self._quotas = _numbers(quotas)

    def admit(self, ticket: Ticket) -> Held | None:
        now = self._clock() if self._clock else ""
        known = ticket.id, ticket.worker, ticket.texts, ticket.tokens, ticket.lease
        settings = PATIENCE, MINUTE, UNKNOWN_LIMIT, INSTANT, self._concurrency
        told = [now, *known, *settings, *self._quotas, ticket.place]
        wait, reason, refusals, place = self._server.run(ADMIT, self._keys, told)
        ticket.refusals, ticket.place = int(refusals), bytes(place).decode()
        seconds = float(wait)
        if seconds <= 0:
            return None
        return Held(seconds, REASONS[bytes(reason)], ticket.refusals)  # type: ignore[arg-type]

    def end(
        self, ticket: Ticket, outcome: Outcome, tokens: int | None = None, hold: float = 0.0, reported: Quotas = ()
    ) -> None:
        now = self._clock() if self._clock else ""
        billed = "" if tokens is None else tokens
        told = [now, ticket.id, outcome, billed, hold, FORGOTTEN_AFTER, *_numbers(reported), ticket.worker]
        self._server.run(END, self._keys, told)


def _numbers(quotas: Quotas) -> Sequence[Any]:
    """Return limits and periods as arguments of a script."""
    given = quotas or ((None, MINUTE),) * 3
    return [number for limit, period in given for number in ("" if limit is None else limit, period)]
