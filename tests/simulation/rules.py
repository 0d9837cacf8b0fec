"""What no request may be, held against each request before it goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import POOL
from .provider import Request

if TYPE_CHECKING:
    from .effects import Effects
    from .world import World

MINUTE = 60.0
STALLED = 100.0
"""Seconds; a little less than those after which a call no longer waits for another one's texts."""


def check_request(world: World, request: Request, effects: Effects, timeout: float) -> None:
    """Raise ``Violation`` where a request must not go out."""
    who, model = request.asker.name, request.candidate
    if effects.stopped:
        raise world.violation("no request after a stop", f"{request.texts} were sent by {who}")
    if timeout < 1e-6 or len(set(request.texts)) < len(request.texts) or len(request.texts) > model.limits.texts:
        raise world.violation("a request is sound", f"{request.texts} were sent for {timeout} s")
    of_model = [item for item in world.provider.requests if item.process is request.process and item.candidate is model]
    for other in of_model:
        if (
            other.state != "open"
            and other.ended < world.current.admitted
            and world.now < other.ended_at + other.held_for
        ):
            raise world.violation(
                "a provider's wait is kept", f"{request.texts} were sent {world.now - other.ended_at:g} s after 429"
            )
    waiting = (
        (made.process.number, made.ask.rank, made.ask.input_type) for made in world.made if made.ended_at is None
    )
    if (request.process.number, request.asker.rank, request.input_type) not in waiting:
        raise world.violation("a request is for a call", f"{who} sends {request.texts}, and no call waits")
    _check_rates(world, request, of_model)
    if not any(made.blocks for made in world.made):  # a call that blocks a loop counts none of its requests
        open_ = sum(other.state == "open" for other in of_model)
        if open_ >= model.concurrency:
            raise world.violation(
                "no more requests than slots", f"{open_} are in flight, and {who} sends {request.texts}"
            )
    _check_not_in_cache(world, request)
    if request.shared and world.now - request.asker.began_at < STALLED:
        _check_single_flight(world, request)


def _check_rates(world: World, request: Request, of_model: list[Request]) -> None:
    model = request.candidate
    if not (model.requests_per_minute or model.tokens_per_minute):
        return
    # the limiter counts a request as arrived after a minute, and blocked loops and slow files hold back some for longer
    recent = [item for item in of_model if item.sent_at > world.now - MINUTE and item.sent_at - item.admitted_at < 30]
    if model.requests_per_minute and len(recent) >= model.requests_per_minute:
        raise world.violation("the limit of the rate is kept", f"{len(recent) + 1} requests in a minute")
    tokens = sum(other.tokens for other in recent)
    if model.tokens_per_minute and recent and tokens + request.tokens > model.tokens_per_minute:
        raise world.violation("the limit of the rate is kept", f"{tokens + request.tokens} tokens in a minute")


def _check_not_in_cache(world: World, request: Request) -> None:
    """Refuse a text that was paid for and stored when the call began."""
    began, store = request.asker.began, world.store
    if store.unread.get(request.process, -1) >= began:
        return
    for text in request.texts:
        if store.stored.get(world.plan.key(request.candidate, request.input_type, text), began) < began:
            story = f"{text!r} is in the cache, and {request.asker.name} sends it again"
            raise world.violation("nothing is paid twice", story)


def _check_single_flight(world: World, request: Request) -> None:
    """Refuse a text that another call of the process sends, or has sent since the call began."""
    asker, store = request.asker, world.store
    excused = world.provider.happened("defect") or "loop is gone" in world.happened  # claims are handed over
    if excused or store.unread.get(request.process, -1) >= asker.began:
        return
    for other in world.provider.requests:
        if other.asker is asker or other.asker.interrupted or not other.shared or other.kind != request.kind:
            continue
        for text in set(request.texts) & set(other.texts) & set(POOL):
            key = world.plan.key(other.candidate, other.input_type, text)
            usable = other.candidate.rank >= asker.rank and key in store.stored
            usable = (
                usable and other.outcome != "another name"
            )  # refused; what is stored may be of the other input type
            if other.state == "open" or (other.sound and other.ended > asker.began and usable):
                story = f"{text!r} is sent by {asker.name}, and at the same time by {other.asker.name}"
                raise world.violation("nothing is paid twice", story)
