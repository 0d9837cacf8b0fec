"""When a model may be asked: concurrency, rate limits, and a circuit breaker for a model that keeps failing.

First ``ModelLimits`` alone, with times passed in; then through a router on a clock of the test's own; then over a
socket.
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    CircuitOpenError,
    DegradedWarning,
    InputRejectedError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.limits import MINUTE, Admission, ModelLimits, Wait
from embedrouter.limits._circuit_breaker import FAILURES, LONGEST_OPEN, PROBE_POLL
from embedrouter.limits._rate_limiter import (
    FIRST_ANSWER_POLL,
    LONGEST_FLIGHT,
    LONGEST_WAIT,
    SOON_FREE,
    UNKNOWN_LIMIT,
)
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType, RateLimits
from tests.either import embed
from tests.emulator import Emulator, Fault, Received, Sliding
from tests.properties import examples
from tests.side_by_side import HANG
from tests.virtual_time import FastTime, VirtualTime

DOWN = UnavailableError("down")


def model_limits(
    requests: int | None = None,
    tokens: int | None = None,
    *,
    concurrency: int = 1000,
    cooldown: float = 10,
    lease: float = 60,
) -> ModelLimits:
    return ModelLimits(concurrency=concurrency, requests=requests, tokens=tokens, cooldown=cooldown, lease=lease)


def admitted(limits: ModelLimits, now: float, tokens: int = 1, **how: Any) -> Admission:
    answer = limits.admit(tokens, now, **how)
    assert isinstance(answer, Admission), answer
    return answer


def wait(limits: ModelLimits, now: float, tokens: int = 1, **how: Any) -> Wait:
    answer = limits.admit(tokens, now, **how)
    assert isinstance(answer, Wait)
    return answer


def in_line(limits: ModelLimits, now: float = 0.0) -> Any:
    """Return the place in the queue of a new caller that has to wait for a slot."""
    slot = wait(limits, now).slot
    assert slot is not None
    return slot


def fail(limits: ModelLimits, now: float, error: BackendError = DOWN, times: int = 1, **how: Any) -> None:
    for _ in range(times):
        limits.failed(admitted(limits, now), error, now, **how)


def patiently(limits: ModelLimits, tokens: int, now: float) -> tuple[Admission, float]:
    """Wait as often as the limits ask for; return the admission and the time."""
    for _ in range(100):
        answer = limits.admit(tokens, now)
        if isinstance(answer, Admission):
            return answer, now
        now += answer.seconds
    raise AssertionError("no request is admitted")


# The rate, under limits that the user declared


@given(
    gaps=st.lists(st.one_of(st.just(0.0), st.floats(0, 100)), max_size=80),
    sizes=st.lists(st.integers(1, 100), min_size=80, max_size=80),
    bills=st.lists(st.integers(0, 100), min_size=80, max_size=80),
    requests=st.one_of(st.none(), st.integers(1, 12)),
    tokens=st.one_of(st.none(), st.integers(100, 400)),
)
def test_no_window_of_a_minute_ever_holds_more_than_the_limits(
    gaps: list[float], sizes: list[int], bills: list[int], requests: int | None, tokens: int | None
) -> None:
    """However unevenly requests come. A bill counts as soon as it is known, so here it is never over the estimate."""
    limits = model_limits(requests, tokens)
    now, sent = 0.0, []
    for gap, size, bill in zip(gaps, sizes, bills, strict=False):
        admission, now = patiently(limits, size, now + gap)
        billed = min(size, bill)
        limits.answered(admission, billed, None, now)
        sent.append((now, billed))

    times = [at for at, _ in sent]
    for first, (at, _) in enumerate(sent):
        window = sent[first : bisect_right(times, at + 60.0)]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(amount for _, amount in window[:-1]) + sizes[first + len(window) - 1] <= tokens


def test_a_steady_sender_reaches_nearly_all_of_the_limit() -> None:
    """Wasting a tenth of the limit makes a long job a tenth longer."""
    limit, size = 100_000, 500
    limits = model_limits(tokens=limit)
    now, sent = 0.0, 0
    while True:
        admission, now = patiently(limits, size, now)
        if now >= 3 * MINUTE:
            break
        limits.answered(admission, size, None, now)
        sent += size

    assert sent >= 0.95 * 3 * MINUTE / 60 * limit


def test_a_request_over_the_whole_limit_still_goes_out_alone() -> None:
    """The provider decides about it; here it would wait for ever."""
    limits = model_limits(tokens=100)
    limits.answered(admitted(limits, 0.0, 60), 60, None, 0.0)

    assert wait(limits, 1.0, 1000).seconds == MINUTE - 1
    limits.answered(admitted(limits, MINUTE, 1000), 1000, None, MINUTE)
    assert wait(limits, MINUTE + 1, 1).seconds == MINUTE - 1


def test_what_was_billed_takes_the_place_of_the_estimate() -> None:
    """An estimate is an upper bound, and often twice the bill."""
    limits = model_limits(tokens=100)
    first = admitted(limits, 0.0, 90)
    assert isinstance(limits.admit(50, 0.0), Wait)
    limits.answered(first, 30, None, 1.0)

    admitted(limits, 1.0, 50)


def test_while_requests_are_in_flight_a_small_bill_is_waited_for() -> None:
    """For a second at a time; where no bill could help, until a minute has passed."""
    limits = model_limits(tokens=100)
    admitted(limits, 0.0, 90)

    assert wait(limits, 0.0, 50).seconds == SOON_FREE
    limits.answered(admitted(limits, 0.0, 10), 10, None, 0.0)
    assert wait(limits, 0.5, 100).seconds == MINUTE


def test_the_minute_of_a_request_begins_with_its_answer() -> None:
    """It may have arrived only then; but not later than LONGEST_FLIGHT seconds after it went out."""
    limits = model_limits(requests=1)
    limits.answered(admitted(limits, 0.0), 1, None, 2.0)
    assert wait(limits, 10.0).seconds == MINUTE - 8
    late = MINUTE + 2 + LONGEST_FLIGHT
    limits.answered(admitted(limits, MINUTE + 2), 1, None, late + 10)

    assert wait(limits, late + 10).seconds == pytest.approx(MINUTE - 10)


def test_answers_out_of_turn_make_no_wait_that_does_not_end() -> None:
    """A late one counts from before its answer, but not from before others: it leaves the window after them."""
    limits = model_limits(tokens=100)
    slow = admitted(limits, 0.0, 10)
    limits.answered(admitted(limits, 61.0, 80), 80, None, 61.0)
    limits.answered(slow, 10, None, 64.0)
    now, asked = 65.0, 0
    while isinstance(answer := limits.admit(100, now), Wait):
        now += answer.seconds
        asked += 1

    assert (now, asked) == (61.0 + MINUTE, 1)


def test_an_answer_that_took_more_than_a_minute_does_not_change_the_next_one() -> None:
    """Its request is forgotten by then: counting the difference again would shift the limit for good."""
    limits = model_limits(tokens=100)
    slow = admitted(limits, 0.0, 90)
    over = LONGEST_FLIGHT + MINUTE
    limits.answered(admitted(limits, over, 100), 100, None, over)
    limits.answered(slow, 1, None, over + 1)

    assert isinstance(limits.admit(1, over + 2), Wait)
    admitted(limits, over + MINUTE, 100)


def test_a_request_that_was_not_sent_takes_nothing_of_the_limit() -> None:
    """The budget refused it, or its call was stopped."""
    limits = model_limits(requests=1, tokens=100)
    limits.release(admitted(limits, 0.0, 100))

    admission = admitted(limits, 0.0, 100)
    limits.answered(admission, 100, None, 0.0)
    limits.release(admission)
    assert wait(limits, 0.0).seconds == MINUTE


def test_of_a_request_that_does_not_fit_the_beginning_may_go_first() -> None:
    """As much as there is room for, when nothing is in flight and no more becomes free at once."""
    limits = model_limits(tokens=100)
    in_flight = admitted(limits, 0.0, 60)
    assert limits.admit(90, 0.0, least=10) == Wait(SOON_FREE)
    limits.answered(in_flight, 40, None, 0.0)
    part = limits.admit(90, 0.0, least=10)

    assert isinstance(part, Admission)
    assert part.tokens == 60
    limits.answered(part, 60, None, 30.0)
    assert limits.admit(90, 30.0, least=10) == Wait(MINUTE - 30)


# The rate, as the provider reports it


def test_limits_that_an_answer_reports_are_kept_where_none_are_declared() -> None:
    """OpenAI and Voyage report them with each answer."""
    limits = model_limits()
    limits.answered(admitted(limits, 0.0, 10), 10, RateLimits(requests=3, tokens=100), 0.0)
    limits.answered(admitted(limits, 0.0, 10), 10, None, 0.0)
    assert wait(limits, 0.0, 81).seconds == MINUTE
    limits.answered(admitted(limits, 0.0, 10), 10, None, 0.0)

    assert wait(limits, 1.0, 1).seconds == MINUTE - 1


@pytest.mark.parametrize("outcome", ["answer", "failure"])
def test_until_the_first_outcome_few_tokens_are_let_out(outcome: str) -> None:
    """The first answer may say that all the others are too many. No request is so large that it never goes."""
    limits = model_limits()
    first = admitted(limits, 0.0, UNKNOWN_LIMIT + 1)
    held = wait(limits, 0.0, 1)
    if outcome == "answer":
        limits.answered(first, None, None, 0.2)
    else:
        limits.failed(first, DOWN, 0.2)
    for _ in range(3):
        admitted(limits, 0.2, UNKNOWN_LIMIT)

    assert held == Wait(FIRST_ANSWER_POLL)


def test_a_429_tells_nothing_of_the_limit() -> None:
    """The others go on one by one, until one is answered."""
    limits = model_limits()
    limits.failed(admitted(limits, 0.0, UNKNOWN_LIMIT), RateLimitedError("slow down"), 0.1)
    admitted(limits, 0.1, UNKNOWN_LIMIT)

    assert wait(limits, 0.1, 1) == Wait(FIRST_ANSWER_POLL)


def test_what_the_user_declares_goes_before_what_is_reported() -> None:
    """A share of the account's limit, say."""
    limits = model_limits(requests=1)
    limits.answered(admitted(limits, 0.0), 1, RateLimits(requests=1000), 0.0)

    assert isinstance(limits.admit(1, 0.0), Wait)


@pytest.mark.parametrize(
    ("limit", "left", "reset", "period"),
    [(2, 1, 1.0, 1.0), (2, 0, 1.0, 1.0), (20, 19, 0.05, 1.0), (5, 3, 4.0, 4.0), (30, 0, 10.0, 10.0)],
)
def test_a_limit_that_fills_up_within_seconds_is_no_limit_per_minute(
    limit: int, left: int, reset: float, period: float
) -> None:
    """Some servers limit the requests per second: the rest of a minute is not waited for."""
    limits = model_limits()
    reported = RateLimits(requests=limit, requests_left=left, requests_reset=reset)
    limits.answered(admitted(limits, 0.0), 1, reported, 0.0)
    now, times = 0.0, []
    for _ in range(3 * limit):
        admission, now = patiently(limits, 1, now)
        times.append(now)
        limits.answered(admission, 1, None, now)

    assert now <= 4 * period
    assert all(later - earlier >= period - 1e-6 for earlier, later in zip(times, times[limit:], strict=False))


@pytest.mark.parametrize(
    ("limit", "left", "reset"), [(10_000, 9_999, 0.006), (500, 490, 1.2), (100, 99, 59.0), (60, 0, 60.0), (3, 2, 20.0)]
)
def test_a_reset_of_part_of_a_minute_leaves_a_limit_per_minute(limit: int, left: int, reset: float) -> None:
    """OpenAI reports when the part that was used is free again."""
    limits = model_limits()
    reported = RateLimits(requests=limit, requests_left=left, requests_reset=reset)
    for _ in range(limit):
        admission = admitted(limits, 0.0)
        limits.answered(admission, 1, None, 0.0)
    limits.answered(admission, 1, reported, 0.0)

    assert wait(limits, 30.0).seconds == pytest.approx(MINUTE - 30.0)


def test_texts_are_limited_per_minute_as_requests_are() -> None:
    """Cohere counts inputs: a request of many texts goes in parts."""
    limits = ModelLimits(concurrency=9, requests=None, texts=100, tokens=None, cooldown=10, lease=60)
    sent, now = [], 0.0
    left = 250
    while left:
        answer = limits.admit(10 * left, now, texts=left, least=10)
        if isinstance(answer, Wait):
            now += answer.seconds
            continue
        sent.append((now, answer.texts))
        left -= answer.texts
        limits.answered(answer, 10 * answer.texts, None, now)

    assert sum(texts for _, texts in sent) == 250
    for begin, _ in sent:
        assert sum(texts for at, texts in sent if begin <= at < begin + 60) <= 100
    assert len(sent) == 3
    assert now == 2 * MINUTE


def test_when_nothing_remains_the_next_request_waits_for_the_reset() -> None:
    """Others share the account."""
    limits = model_limits()
    limits.answered(admitted(limits, 0.0), 1, RateLimits(requests=100, requests_left=0, requests_reset=6.0), 10.0)

    assert wait(limits, 12.0).seconds == 4.0
    admitted(limits, 16.0)


def test_when_few_tokens_remain_a_request_waits_until_it_fits() -> None:
    """They come back steadily: 20 tokens of 600 a minute take 2 seconds."""
    limits = model_limits()
    limits.answered(admitted(limits, 0.0), 1, RateLimits(tokens=600, tokens_left=30, tokens_reset=57.0), 0.0)
    admitted(limits, 0.0, 30)

    assert wait(limits, 0.5, 20).seconds == pytest.approx(1.5)
    admitted(limits, 2.0, 20)


def test_azures_zero_without_a_time_holds_no_request_back() -> None:
    """Azure reports it while it goes on answering."""
    limits = model_limits()
    limits.answered(admitted(limits, 0.0), 1, RateLimits(requests_left=0, tokens_left=0), 0.0)

    admitted(limits, 0.0, 1000)


def test_after_a_429_every_request_to_the_model_waits_and_not_for_ever() -> None:
    """As long as the provider asks, at most LONGEST_WAIT."""
    limits = model_limits()
    fail(limits, 0.0, RateLimitedError("slow", retry_after=7.0))
    assert wait(limits, 1.0) == Wait(6.0)
    fail(limits, 7.0, RateLimitedError("slow", retry_after=1e6))
    assert wait(limits, 7.0) == Wait(LONGEST_WAIT)
    fail(limits, 7.0 + LONGEST_WAIT, RateLimitedError("slow"))
    fail(limits, 7.0 + LONGEST_WAIT, RateLimitedError("the quota is used up", retry_after=9.0, retryable=False))

    admitted(limits, 7.0 + LONGEST_WAIT)


# Concurrency


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    """A slot is free again after an answer, after a failure, and after a request that was not sent."""
    limits = model_limits(concurrency=3)
    answered, failed, withdrawn = (admitted(limits, 0.0) for _ in range(3))
    limits.give_up(in_line(limits))
    limits.answered(answered, 1, None, 1.0)
    limits.answered(answered, 1, None, 1.0)
    limits.failed(failed, DOWN, 1.0)
    limits.release(withdrawn)
    limits.release(withdrawn)
    for _ in range(3):
        admitted(limits, 1.0)

    assert wait(limits, 1.0).slot is not None


def test_callers_in_line_get_slots_in_order() -> None:
    """A caller that comes when a slot was just given to another one goes to the end."""
    limits = model_limits(concurrency=1)
    admission, line = admitted(limits, 0.0), []
    for _ in range(3):
        line.append(in_line(limits))
    for place in range(3):
        limits.answered(admission, 1, None, 1.0)
        assert [slot.done() for slot in line] == [True] * (place + 1) + [False] * (len(line) - place - 1)
        line.append(in_line(limits, 1.0))
        admission = admitted(limits, 1.0, slot=line[place])


def test_a_caller_that_asks_again_keeps_its_place() -> None:
    """It asks every second, in case it was not told."""
    limits = model_limits(concurrency=1)
    admission = admitted(limits, 0.0)
    first, second = in_line(limits), in_line(limits)
    for now in (1.0, 2.0):
        assert wait(limits, now, slot=second).slot is second
        assert wait(limits, now, slot=first).slot is first
    limits.answered(admission, 1, None, 3.0)

    assert (first.done(), second.done()) == (True, False)


def test_a_caller_that_gives_up_leaves_its_slot_to_the_next() -> None:
    """Its time is up, or its call was stopped: before it was given the slot, or just then."""
    limits = model_limits(concurrency=1)
    admission = admitted(limits, 0.0)
    before, after, last = (in_line(limits) for _ in range(3))
    limits.give_up(before)
    limits.answered(admission, 1, None, 1.0)
    assert (after.done(), last.done()) == (True, False)
    limits.give_up(after)
    assert last.done()
    limits.give_up(after)

    admission = admitted(limits, 1.0, slot=last)
    limits.give_up(last)
    assert wait(limits, 1.0).slot is not None


def test_a_caller_that_must_wait_for_the_rate_leaves_the_line() -> None:
    """A slot that was given to it would stand idle meanwhile. The beginning of another request may fit."""
    limits = model_limits(tokens=100, concurrency=2)
    admissions = [admitted(limits, 0.0, 40), admitted(limits, 0.0, 40)]
    large, small = wait(limits, 0.0, 20).slot, wait(limits, 0.0, 10).slot
    assert large is not None
    assert small is not None
    limits.answered(admissions[0], 80, None, 1.0)
    assert (large.done(), small.done()) == (True, False)
    assert wait(limits, 1.0, 90, slot=large).slot is None

    assert small.done()
    limits.answered(admissions[1], 0, None, 1.0)
    admitted(limits, 1.0, 10, slot=small)
    admitted(limits, MINUTE + 1, 90, slot=large)


def test_a_slot_that_its_caller_does_not_take_is_taken_by_another() -> None:
    """Its event loop may be blocked, perhaps by the very call that waits behind it. The limit holds all the same."""
    limits = model_limits(concurrency=1)
    admission = admitted(limits, 0.0)
    blocked, patient = in_line(limits), in_line(limits)
    limits.answered(admission, 1, None, 0.5)
    admission = admitted(limits, 1.5, slot=patient)

    again = wait(limits, 2.0, slot=blocked).slot
    assert again is not None
    limits.answered(admission, 1, None, 3.0)
    assert again.done()
    admitted(limits, 3.0, slot=again)


@given(
    concurrency=st.integers(1, 3),
    script=st.lists(st.tuples(st.sampled_from(["come", "come", "ask", "end", "give up"]), st.integers(0, 9))),
)
def test_the_limit_holds_and_no_slot_is_lost(concurrency: int, script: list[tuple[str, int]]) -> None:
    """Callers come, ask again, end and give up in any order: while one waits, all slots are taken or given."""
    limits = model_limits(concurrency=concurrency)
    in_flight: list[Admission] = []
    line: list[Any] = []
    for what, which in script:
        if what == "come" or (what == "ask" and line):
            slot = line.pop(which % len(line)) if what == "ask" else None
            answer = limits.admit(1, 0.0, slot=slot)
            if isinstance(answer, Admission):
                in_flight.append(answer)
            else:
                line.append(answer.slot)
        elif what == "end" and in_flight:
            limits.answered(in_flight.pop(which % len(in_flight)), 1, None, 0.0)
        elif what == "give up" and line:
            limits.give_up(line.pop(which % len(line)))
        given = sum(slot.done() for slot in line)
        assert len(in_flight) <= concurrency
        assert given == len(line) or len(in_flight) + given >= concurrency


def test_a_caller_in_line_is_not_admitted_to_a_model_that_fails_by_now() -> None:
    """Five hundred tasks in line would each find out for themselves."""
    limits = model_limits(concurrency=FAILURES)
    requests = [admitted(limits, 0.0) for _ in range(FAILURES)]
    slot = in_line(limits)
    for admission in requests:
        limits.failed(admission, DOWN, 0.5)

    assert slot.done()
    answer = wait(limits, 0.6, slot=slot)
    assert (answer.circuit_open, answer.slot) == (True, None)
    assert answer.seconds == pytest.approx(9.9)
    for _ in range(FAILURES):
        limits.failed(admitted(limits, 10.5), RateLimitedError("429"), 10.5)


def test_a_caller_in_line_is_not_admitted_when_the_provider_asks_to_wait() -> None:
    """The request before it was refused with 429."""
    limits = model_limits(concurrency=1)
    admission = admitted(limits, 0.0)
    slot = in_line(limits)
    limits.failed(admission, RateLimitedError("slow", retry_after=7.0), 1.0)

    assert limits.admit(1, 1.0, slot=slot) == Wait(7.0)
    admitted(limits, 8.0, slot=slot)


# The circuit breaker


def test_it_opens_after_failures_in_a_row_and_an_answer_closes_it() -> None:
    """One answer in between, and the count begins anew."""
    limits = model_limits()
    fail(limits, 0.0, times=FAILURES - 1)
    limits.answered(admitted(limits, 0.0), 1, None, 0.0)
    fail(limits, 0.0, times=FAILURES - 1)
    assert limits.health("m", 0.0).state == "closed"
    fail(limits, 0.0)

    assert wait(limits, 4.0) == Wait(6.0, circuit_open=True)
    seen = limits.health("m", 4.0)
    assert (seen.model, seen.state, seen.failures, seen.retry_in) == ("m", "open", FAILURES, 6.0)
    assert repr(seen.error) == repr(DOWN)
    limits.answered(admitted(limits, 10.0), 1, None, 10.0)
    seen = limits.health("m", 10.0)
    assert (seen.state, seen.failures, seen.retry_in, seen.error) == ("closed", 0, 0.0, None)


def test_one_request_at_a_time_goes_to_a_half_open_circuit() -> None:
    """The others ask again every second."""
    limits = model_limits()
    fail(limits, 0.0, times=FAILURES)
    probe = admitted(limits, 10.0)

    assert limits.health("m", 10.0).state == "half-open"
    assert [wait(limits, 10.0) for _ in range(5)] == [Wait(PROBE_POLL, circuit_open=True)] * 5
    limits.answered(probe, 1, None, 11.0)
    for _ in range(5):
        admitted(limits, 11.0)


def test_each_probe_that_fails_doubles_the_time_up_to_the_longest() -> None:
    """10, 20, 40 … seconds."""
    limits = model_limits()
    fail(limits, 0.0, times=FAILURES)
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(wait(limits, now).seconds)
        now += waits[-1]
        fail(limits, now)

    assert waits == [10, 20, 40, 80, 160, LONGEST_OPEN, LONGEST_OPEN, LONGEST_OPEN]


@pytest.mark.parametrize("late", [1.0, 25.0])
def test_late_failures_of_requests_in_flight_do_not_escalate(late: float) -> None:
    """A time-out comes after the cooldown that an earlier one began; none of them was a probe."""
    limits = model_limits()
    requests = [admitted(limits, 0.0) for _ in range(FAILURES + 20)]
    for admission in requests[:FAILURES]:
        limits.failed(admission, DOWN, 0.0)
    probe = admitted(limits, 25.0) if late >= 25.0 else None
    for admission in requests[FAILURES:]:
        limits.failed(admission, DOWN, late)
    if probe is not None:
        assert wait(limits, late) == Wait(PROBE_POLL, circuit_open=True)
        limits.failed(probe, DOWN, late)

    assert wait(limits, late).seconds == (9.0 if probe is None else 20.0)


def test_after_an_answer_that_came_late_the_model_is_trusted_and_can_fail_again() -> None:
    """The circuit opens again, and for the first cooldown."""
    limits = model_limits(cooldown=100)
    late = admitted(limits, 0.0)
    fail(limits, 0.0, times=FAILURES)
    limits.answered(late, 1, None, 5.0)
    fail(limits, 6.0, times=FAILURES)

    assert wait(limits, 6.0) == Wait(100.0, circuit_open=True)


def test_a_probe_whose_outcome_never_comes_is_forgotten() -> None:
    """Its event loop was stopped, say; the circuit must not stay open for ever."""
    limits = model_limits(lease=60)
    fail(limits, 0.0, times=FAILURES)
    admitted(limits, 10.0)

    assert isinstance(limits.admit(1, 69.0), Wait)
    admitted(limits, 70.0)


def test_a_probe_that_was_not_sent_lets_the_next_one_out() -> None:
    """The budget refused it, or its call was stopped."""
    limits = model_limits()
    fail(limits, 0.0, times=FAILURES)
    limits.release(admitted(limits, 10.0))

    admitted(limits, 10.0)


HARMLESS = [
    AuthenticationError("401", status=401),
    BackendError("402", status=402),
    RateLimitedError("429", status=429),
    RateLimitedError("quota", retryable=False),
    InputRejectedError("400", status=400),
    UnavailableError("404", status=404, retryable=False),
]


@pytest.mark.parametrize("error", HARMLESS, ids=str)
def test_what_is_the_callers_fault_never_opens_it(error: BackendError) -> None:
    """A wrong key is no outage, and would be hidden by one."""
    limits = model_limits()
    fail(limits, 0.0, error, times=3 * FAILURES)

    admitted(limits, 0.0)
    assert limits.health("m", 0.0).state == "closed"


@pytest.mark.parametrize("error", HARMLESS, ids=str)
def test_a_probe_that_ends_in_the_callers_fault_lets_the_next_one_out(error: BackendError) -> None:
    """Otherwise all would wait until the probe is given up."""
    limits = model_limits()
    fail(limits, 0.0, times=FAILURES)
    fail(limits, 10.0, error)

    admitted(limits, 10.0)


@pytest.mark.parametrize("error", [DOWN, RequestTimeoutError("late"), BadResponseError("nonsense")], ids=str)
def test_what_may_be_the_models_fault_opens_it(error: BackendError) -> None:
    """Errors, silence and nonsense."""
    limits = model_limits()
    fail(limits, 0.0, error, times=FAILURES)

    assert wait(limits, 0.0).circuit_open


@pytest.mark.parametrize("errors", [[RateLimitedError("429"), DOWN], [DOWN, RateLimitedError("429")]])
def test_the_last_failure_is_the_one_that_is_told(errors: list[BackendError]) -> None:
    """Of any kind, until the model answers."""
    limits = model_limits()
    for error in errors:
        fail(limits, 0.0, error)
    assert repr(limits.health("m", 0.0).error) == repr(errors[-1])
    limits.answered(admitted(limits, 0.0), 1, None, 0.0)

    assert limits.health("m", 0.0).error is None


@pytest.mark.parametrize("base", [UnavailableError, RequestTimeoutError, RateLimitedError])
def test_an_error_of_the_users_own_is_remembered_as_it_is(base: type[BackendError]) -> None:
    """Its constructor may take other arguments than ours: it is not called again."""

    class Own(base):  # type: ignore[misc, valid-type]
        def __init__(self, code: int, *, server: str) -> None:
            super().__init__(f"code {code}", model="m", status=code)
            self.server = server

    limits = model_limits()
    error = Own(503, server="b")
    fail(limits, 0.0, error)
    seen = limits.health("m", 0.0).error

    assert isinstance(seen, Own)
    assert (str(seen), seen.server) == ("code 503", "b")
    assert vars(seen) == vars(error)


def test_a_call_in_a_hurry_does_not_open_it() -> None:
    """Its own short time limit says nothing about the model; as a probe it lets the next one out."""
    limits = model_limits()
    fail(limits, 0.0, RequestTimeoutError("hurried"), times=3 * FAILURES, counts=False)
    fail(limits, 0.0, times=FAILURES)
    fail(limits, 10.0, RequestTimeoutError("hurried"), counts=False)

    admitted(limits, 10.0)


def test_without_a_cooldown_the_model_is_always_asked() -> None:
    """RetryPolicy(cooldown=0)."""
    limits = model_limits(cooldown=0)

    fail(limits, 0.0, times=5 * FAILURES)


events = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(["answer", "down", "rejected", "429", "silence"]), st.integers(0, 5)),
    max_size=60,
)


@examples(200)
@given(events)
def test_the_circuit_always_closes_again(script: list[tuple[float, str, int]]) -> None:
    """Failures, answers and silence in any order: within the longest wait or the lease a request is let out."""
    limits, now = model_limits(), 0.0
    out: list[Admission] = []
    for gap, what, which in script:
        now += gap
        answer = limits.admit(1, now)
        if isinstance(answer, Admission):
            out.append(answer)
        if not out or what == "silence":
            continue
        admission = out.pop(which % len(out))
        if what == "answer":
            limits.answered(admission, 1, None, now)
        else:
            errors = {"down": DOWN, "rejected": InputRejectedError("no"), "429": RateLimitedError("x", retry_after=5.0)}
            limits.failed(admission, errors[what], now)
    _, opened = patiently(limits, 1, now)

    assert opened - now <= LONGEST_OPEN + 60


# The circuit breaker through a router


class Place(FakeBackend):
    """Serves a model, or is down."""

    def __init__(self) -> None:
        super().__init__(space="one model in two places")
        self.down = True

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        answer = super().embed(texts, input_type, timeout=timeout)
        if self.down:
            raise DOWN
        return answer


def one_try(cooldown: float = 60, **settings: Any) -> RetryPolicy:
    return RetryPolicy(attempts=1, initial_wait=0, max_wait=0, cooldown=cooldown, **settings)


def router_in(virtual: VirtualTime, models: Sequence[Model], **settings: Any) -> Router:
    """Return a router on whose clock time passes only while it sleeps."""
    asked: dict[str, Any] = {"cache": None, "ledger": ":memory:", "clock": virtual, "sleep": virtual.sleep}
    return Router(models, **{**asked, **settings})


def let_it_fail(router: Router, asynchronous: bool, **asked: Any) -> None:
    for number in range(FAILURES):
        embed(router, asynchronous, [f"failing {number}"], **asked)


def let_all_fail(router: Router, asynchronous: bool) -> None:
    for _ in range(FAILURES):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["a"], input_type="document")


@pytest.fixture
def first() -> Place:
    """Return the place that is asked first, which is down."""
    return Place()


@pytest.fixture
def second() -> Place:
    """Return the place that is asked second, which is up."""
    place = Place()
    place.down = False
    return place


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_while_one_place_is_down_the_other_is_asked_at_once(
    first: Place, second: Place, asynchronous: bool, input_type: InputType
) -> None:
    """The dead one is not tried for each request, only by a probe now and then."""
    virtual = VirtualTime()
    router = router_in(virtual, [first.model("fake:first"), second.model("fake:second")], retry=one_try())
    let_it_fail(router, asynchronous, input_type=input_type)
    assert len(first.calls) == FAILURES
    virtual.now += 20
    for number in range(5):
        assert embed(router, asynchronous, [f"later {number}"], input_type=input_type).models == ("fake:second",)

    assert len(first.calls) == FAILURES
    seen = router.health()
    down, up = seen["fake:first"], seen["fake:second"]
    assert (down.state, down.failures, down.retry_in) == ("open", FAILURES, 40)
    assert isinstance(down.error, UnavailableError)
    assert (up.state, up.failures, up.retry_in, up.error) == ("closed", 0, 0.0, None)


def test_a_model_that_answers_its_probe_is_asked_again(first: Place, second: Place, asynchronous: bool) -> None:
    """It was the first choice."""
    virtual = VirtualTime()
    router = router_in(virtual, [first.model("fake:first"), second.model("fake:second")], retry=one_try())
    let_it_fail(router, asynchronous, input_type="query")
    first.down = False
    virtual.now += router.health()["fake:first"].retry_in
    assert router.health()["fake:first"].state == "half-open"

    assert embed(router, asynchronous, ["later"], input_type="query").models == ("fake:first",)
    assert router.health()["fake:first"].state == "closed"
    assert virtual.sleeps == []


def test_the_last_candidate_waits_for_its_probe(first: Place, asynchronous: bool) -> None:
    """No other model can answer."""
    virtual = VirtualTime()
    router = router_in(virtual, [first.model()], retry=one_try(cooldown=50))
    let_all_fail(router, asynchronous)
    first.down = False
    embed(router, asynchronous, ["a"], input_type="document")

    assert virtual.sleeps == [50]
    assert len(first.calls) == FAILURES + 1


@pytest.mark.parametrize(("patience", "timeout"), [(5.0, None), (60.0, 5.0)])
def test_the_last_candidate_is_not_waited_for_longer_than_allowed(
    first: Place, asynchronous: bool, patience: float, timeout: float | None
) -> None:
    """It fails at once, sends nothing, and says why."""
    virtual = VirtualTime()
    router = router_in(virtual, [first.model()], retry=one_try(cooldown=50, timeout=patience))
    let_all_fail(router, asynchronous)
    with pytest.raises(NoModelAvailableError, match="it keeps failing"):
        embed(router, asynchronous, ["a"], input_type="document", timeout=timeout)

    assert len(first.calls) == FAILURES
    assert virtual.sleeps == []


def test_when_every_place_is_down_they_are_asked_in_order_once_more(
    first: Place, second: Place, asynchronous: bool
) -> None:
    """Demoted is not dismissed."""
    second.down = True
    virtual = VirtualTime()
    models = [first.model("fake:first"), second.model("fake:second")]
    router = router_in(virtual, models, retry=one_try(cooldown=10))
    let_all_fail(router, asynchronous)
    second.down = False
    result = embed(router, asynchronous, ["a"], input_type="document")

    assert result.models == ("fake:second",)
    assert (len(first.calls), len(second.calls)) == (FAILURES + 1, FAILURES + 1)
    assert virtual.sleeps == [10]


def test_queries_that_may_degrade_do_not_wait_for_a_probe(asynchronous: bool) -> None:
    """A lower tier answers at once; documents wait for the better model."""
    fake = FakeBackend(space="s", outcomes=[DOWN] * FAILURES)
    low = FakeBackend(space="s")
    models = [fake.model("fake:high", price="1"), low.model("fake:low", tier="low", price="0")]
    virtual = VirtualTime()
    router = router_in(virtual, models, retry=one_try(cooldown=50), when_unavailable="degrade")
    let_all_fail(router, asynchronous)
    with pytest.warns(DegradedWarning):
        result = embed(router, asynchronous, ["q"], input_type="query")

    assert (result.models, result.degraded) == (("fake:low",), (True,))
    assert (len(fake.calls), virtual.sleeps) == (FAILURES, [])
    assert embed(router, asynchronous, ["d"], input_type="document").models == ("fake:high",)
    assert virtual.sleeps == [50]


def test_the_story_of_a_failure_names_the_model_whose_circuit_is_open(asynchronous: bool) -> None:
    """Otherwise it stays unknown why the cheap model was not asked."""
    first = FakeBackend(space="s", outcomes=[DOWN] * 99)
    second = FakeBackend(space="s", outcomes=[None] * FAILURES + [DOWN])
    models = [first.model("fake:one", price="1"), second.model("fake:two", price="2")]
    router = router_in(VirtualTime(), models, retry=one_try(timeout=5))
    let_it_fail(router, asynchronous, input_type="query")
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, ["a"], input_type="query")

    assert {type(attempt.error) for attempt in caught.value.attempts} == {CircuitOpenError, UnavailableError}


class Text(str):
    """A string that tells whether it is still held."""

    __slots__ = ("__weakref__",)


def test_what_failed_is_remembered_without_the_call(emulator: Emulator, asynchronous: bool) -> None:
    """Its texts, its vectors and its connection would live as long as the router."""
    emulator.fault_for = lambda received: Fault.unavailable()
    router = Router([small(emulator)], cache=None, ledger=":memory:", retry=one_try())
    text = Text("one document")
    held = weakref.ref(text)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, [text], input_type="document")
    del text
    gc.collect()

    assert isinstance(router.health()["openai:text-embedding-3-small"].error, UnavailableError)
    assert held() is None


def small(emulator: Emulator, **settings: Any) -> Model:
    return Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", **settings)


# Concurrency through a router


class Overlapping(FakeBackend):
    """Takes a moment for each request, and counts the most that were in flight at once."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.most = self._in_flight = 0
        self._counting = threading.Lock()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
        yield
        with self._counting:
            self._in_flight -= 1

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with self._counted():
            time.sleep(0.005)
            return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with self._counted():
            await asyncio.sleep(0.005)
            return super().embed(texts, input_type, timeout=timeout)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_max_concurrency_counts_all_threads_and_event_loops_together(concurrency: int) -> None:
    """A wrapped embedder that does not support threads must never be entered twice."""
    fake = Overlapping()
    model = fake.model(max_concurrency=concurrency, batch_size=2)
    router = Router([model], cache=None, ledger=":memory:", micro_batch_window=0)

    def in_thread(who: int) -> None:
        router.embed([f"thread {who}, text {number}" for number in range(8)], input_type="document")

    def in_loop(who: int) -> None:
        async def crowd() -> None:
            calls = (router.aembed([f"loop {who}, text {n}"], input_type="document") for n in range(8))
            await asyncio.gather(*calls)

        asyncio.run(crowd())

    threads = [threading.Thread(target=in_thread, args=(who,)) for who in range(4)]
    threads += [threading.Thread(target=in_loop, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)

    assert fake.most == concurrency
    assert sum(len(call.texts) for call in fake.calls) == 4 * 8 + 2 * 8


class Busy(FakeBackend):
    """Takes for the first request as long as the test wants."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.begun, self.ended = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if texts[0] == "first":
            self.begun.set()
            self.ended.wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return await asyncio.to_thread(self.embed, texts, input_type, timeout=timeout)

    def routed(self, asynchronous: bool, **settings: Any) -> tuple[Router, Callable[..., Awaitable[Any]]]:
        """Return a router that sends one request at a time, and how to call it: by a task or by a thread."""
        model = self.model(max_concurrency=1, price="1")
        router = Router([model], cache=None, ledger=":memory:", **{"micro_batch_window": 0, **settings})

        async def call(text: str, **asked: Any) -> Any:
            if asynchronous:
                return await router.aembed([text], input_type="document", **asked)
            return await asyncio.to_thread(router.embed, [text], input_type="document", **asked)

        return router, call


class Held(FakeBackend):
    """Answers asynchronous requests when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go_on = asyncio.Event(), asyncio.Event()

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.started.set()
        await self.go_on.wait()
        return super().embed(texts, input_type, timeout=timeout)


async def test_a_call_that_blocks_an_event_loop_does_not_wait_for_its_tasks() -> None:
    """They cannot end while the loop is blocked; a synchronous retriever in asynchronous code would hang for ever."""
    slow = Held()
    router = Router([slow.model(max_concurrency=1)], cache=None, ledger=":memory:", micro_batch_window=0)
    task = asyncio.create_task(router.aembed(["of a task"], input_type="document"))
    await slow.started.wait()
    result = router.embed(["of a call that blocks"], input_type="document", timeout=HANG)
    slow.go_on.set()

    assert (len(result), len(await task)) == (1, 1)
    await router.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_call_in_line_behind_another_waits_no_longer_than_it_may(asynchronous: bool) -> None:
    """The time for a call is for all of it; nothing was sent, so nothing is paid."""
    busy = Busy()
    router, call = busy.routed(asynchronous)
    first = asyncio.ensure_future(call("first"))
    await asyncio.to_thread(busy.begun.wait, HANG)
    with pytest.raises(NoModelAvailableError) as caught:
        await asyncio.wait_for(call("second", timeout=0.1), HANG)
    error = caught.value.attempts[-1].error
    busy.ended.set()
    await first
    await call("third", timeout=HANG)
    (account,) = router.ledger.totals("model").values()

    assert isinstance(error, RequestTimeoutError)
    assert not error.perhaps_billed
    assert [call.texts for call in busy.calls] == [("first",), ("third",)]
    assert account.requests == 2
    assert not router.ledger.unconfirmed()


async def test_a_call_in_line_that_is_cancelled_does_not_take_the_slot_along() -> None:
    """It ends at once and sends nothing, and the next call gets its turn."""
    busy = Busy()
    router, call = busy.routed(asynchronous=True)
    calls = {}
    for text in ("first", "second", "third"):
        calls[text] = asyncio.ensure_future(call(text))
        await asyncio.to_thread(busy.begun.wait, HANG)
        await asyncio.sleep(0.05)
    calls["second"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls["second"]
    assert not busy.calls
    busy.ended.set()
    await asyncio.wait_for(asyncio.gather(calls["first"], calls["third"]), HANG)
    await router.aclose()

    assert [call.texts for call in busy.calls] == [("first",), ("third",)]
    assert not router.ledger.unconfirmed()


@pytest.mark.parametrize("window", [0, 0.01])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_call_that_may_wait_for_ever_waits_like_one_without_a_time_limit(
    asynchronous: bool, window: float
) -> None:
    """In line, and for calls that are sent together: no lock can be waited for that long."""
    busy = Busy()
    _, call = busy.routed(asynchronous, micro_batch_window=window)
    calls = [asyncio.ensure_future(call("first", timeout=math.inf))]
    await asyncio.to_thread(busy.begun.wait, HANG)
    calls += [asyncio.ensure_future(call(text, timeout=math.inf)) for text in ("second", "third")]
    await asyncio.sleep(0.1)
    busy.ended.set()

    assert [len(result) for result in await asyncio.gather(*calls)] == [1, 1, 1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_time_in_line_behind_another_call_is_not_taken_from_the_tries(asynchronous: bool) -> None:
    """Their time limit is the provider's."""
    virtual = VirtualTime()
    retry = RetryPolicy(attempts=2, timeout=1.0, initial_wait=0, max_wait=0, cooldown=0)
    busy = Busy(outcomes=[None, DOWN])
    _, call = busy.routed(asynchronous, retry=retry, clock=virtual, sleep=virtual.sleep)
    first = asyncio.ensure_future(call("first"))
    await asyncio.to_thread(busy.begun.wait, HANG)
    second = asyncio.ensure_future(call("second"))
    await asyncio.sleep(0.1)
    virtual.now += 100
    busy.ended.set()
    await first
    await second

    assert [call.texts for call in busy.calls] == [("first",), ("second",), ("second",)]


async def test_tasks_in_line_do_not_each_find_out_that_a_model_is_down() -> None:
    """LlamaIndex starts hundreds together; those that wait for a slot when the circuit opens go elsewhere at once."""

    class Dead(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.05)
            return self.embed(texts, input_type, timeout=timeout)

    dead, other = Dead(outcomes=[DOWN] * 999), FakeBackend()
    models = [dead.model("fake:dead", price="1", max_concurrency=4), other.model("fake:other", price="2")]
    router = Router(models, cache=None, ledger=":memory:", retry=one_try(), micro_batch_window=0)
    results = await asyncio.gather(*(router.aembed([str(n)], input_type="document") for n in range(100)))

    assert {result.models for result in results} == {("fake:other",)}
    assert FAILURES <= len(dead.calls) <= FAILURES + 4
    assert len(other.calls) == 100
    assert not router.ledger.unconfirmed()


# Rate limits through a router and a socket. Where requests go out side by side, a minute takes a second.

FAST = FastTime(MINUTE)
PROVIDERS_MINUTE = 0.6
"""Seconds; the router's is a little longer, as always."""


class Limited:
    """Answers 429 to what is over the limit, and counts such answers."""

    def __init__(self, requests: int, before: Callable[[Received], Fault | None]) -> None:
        self.requests, self.before = requests, before
        self.arrivals: list[float] = []
        self.provoked = 0
        self.lock = threading.Lock()

    def __call__(self, received: Received) -> Fault | None:
        with self.lock:
            recent = [at for at in self.arrivals if at > received.at - PROVIDERS_MINUTE]
            self.arrivals.append(received.at)
            if len(recent) >= self.requests:
                self.provoked += 1
                return Fault.rate_limited()
        return self.before(received)


@pytest.mark.parametrize(
    "kind", ["one call", pytest.param("threads", marks=pytest.mark.slow), pytest.param("tasks", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_declared_limit_provokes_no_429(emulator: Emulator, kind: str) -> None:
    """Its retries counted too: every fourth request fails at first."""
    counted = iter(range(10_000))
    limit = Limited(10, before=lambda received: Fault.status(500) if next(counted) % 4 == 3 else None)
    model = small(emulator, requests_per_minute=10, batch_size=1)
    retry = RetryPolicy(initial_wait=1, attempts=9, timeout=3600)
    router = Router([model], cache=None, ledger=":memory:", retry=retry, clock=FAST, sleep=FAST.sleep)
    texts = [f"text {number}" for number in range(16)]

    async def crowd() -> None:
        await router.aembed(["first"], input_type="document")
        emulator.fault_for = limit
        await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))
        await router.aclose()

    if kind == "tasks":
        asyncio.run(crowd())
    else:
        router.embed(["first"], input_type="document")  # an SDK is imported and a connection is made
        emulator.fault_for = limit
        calls = [texts] if kind == "one call" else [[text] for text in texts]
        threads = [threading.Thread(target=router.embed, args=(c,), kwargs={"input_type": "document"}) for c in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
    router.close()

    requests = emulator.calls - 1
    assert limit.provoked == 0
    assert requests - requests // 4 == len(texts)


def test_a_declared_limit_of_tokens_is_kept(emulator: Emulator, asynchronous: bool) -> None:
    """As billed, in any window of a minute."""
    virtual = VirtualTime()
    arrivals: list[float] = []
    emulator.fault_for = lambda received: arrivals.append(virtual.now)
    model = small(emulator, tokens_per_minute=60, batch_size=1, max_concurrency=1)
    router = router_in(virtual, [model])
    embed(router, asynchronous, [f"five words and a {number}" for number in range(18)], input_type="document")

    share = sum(emulator.billed.values()) / emulator.calls
    fullest = max(bisect_right(arrivals, at + 60) - first for first, at in enumerate(arrivals))
    assert fullest * share <= 60
    assert emulator.calls == 18
    assert virtual.now > 60


def test_cache_hits_take_nothing_of_the_limit(asynchronous: bool) -> None:
    """H15: limiters in front of the cache are acquired for calls that are never made."""
    virtual, fake = VirtualTime(), FakeBackend()
    router = router_in(virtual, [fake.model(requests_per_minute=1)], cache=MemoryCache())
    texts = [f"text {number}" for number in range(5)]
    embed(router, asynchronous, texts, input_type="document")
    for _ in range(5):
        assert all(embed(router, asynchronous, texts, input_type="document").cached)

    assert len(fake.calls) == 1
    assert virtual.sleeps == []


def test_a_call_with_less_time_than_the_wait_fails_at_once(asynchronous: bool) -> None:
    """It says what it would have waited for, and sends nothing."""
    virtual, fake = VirtualTime(), FakeBackend()
    router = router_in(virtual, [fake.model(requests_per_minute=1)])
    embed(router, asynchronous, ["a"], input_type="query")
    with pytest.raises(NoModelAvailableError, match=r"the time allowed ends before .*its rate limit") as caught:
        embed(router, asynchronous, ["b"], input_type="query", timeout=20)

    assert isinstance(caught.value.attempts[-1].error, RequestTimeoutError)
    assert len(fake.calls) == 1
    assert virtual.sleeps == []
    assert not router.ledger.unconfirmed()


def test_waiting_for_the_limit_is_not_part_of_a_requests_time(asynchronous: bool) -> None:
    """RetryPolicy.timeout is for the provider, not for the queue."""
    virtual, fake = VirtualTime(), FakeBackend()
    router = router_in(virtual, [fake.model(requests_per_minute=1)], retry=RetryPolicy(timeout=0.7))
    for text in ("a", "b", "c"):
        embed(router, asynchronous, [text], input_type="query")

    assert len(fake.calls) == 3
    assert virtual.sleeps == [MINUTE, MINUTE]


def test_reported_limits_hold_the_requests_after_the_first(asynchronous: bool) -> None:
    """Nothing is declared; OpenAI's headers say how many requests a minute may hold."""
    with Emulator(pace=Sliding(requests=1)) as emulator:
        router = router_in(VirtualTime(), [small(emulator)])
        embed(router, asynchronous, ["a"], input_type="query")
        with pytest.raises(NoModelAvailableError, match="its rate limit"):
            embed(router, asynchronous, ["b"], input_type="query", timeout=1)

        assert emulator.calls == 1
