"""When a model may be asked: the pace its provider bears, and a breaker for what keeps failing.

First the gate alone, with a clock of its own; then through a router and a socket.
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from embedrouter.limits._gate import (
    AGAIN,
    FAILURES,
    LONGEST,
    MINUTE,
    SOON,
    TRAVEL,
    UNKNOWN,
    Admission,
    Gate,
    Wait,
)
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
from embedrouter.limits import _gate as health
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType, RateLimits
from tests.either import embed
from tests.emulator import Emulator, Fault, Received
from tests.properties import examples
from tests.side_by_side import HANG

DOWN = UnavailableError("down")


def gate(requests: int | None = None, tokens: int | None = None, cooldown: float = 10, lease: float = 60) -> Gate:
    return Gate(requests=requests, tokens=tokens, cooldown=cooldown, lease=lease)


def admitted(door: Gate, now: float, tokens: int = 1) -> Admission:
    answer = door.admit(tokens, now)
    assert isinstance(answer, Admission), answer
    return answer


def wait(door: Gate, now: float, tokens: int = 1) -> Wait:
    answer = door.admit(tokens, now)
    assert isinstance(answer, Wait)
    return answer


def fail(door: Gate, now: float, error: BackendError = DOWN, times: int = 1, **how: Any) -> None:
    for _ in range(times):
        door.failed(admitted(door, now), error, now, **how)


def patiently(door: Gate, tokens: int, now: float) -> tuple[Admission, float]:
    """Wait as often as the gate asks for; return the admission and the time."""
    for _ in range(100):
        answer = door.admit(tokens, now)
        if isinstance(answer, Admission):
            return answer, now
        now += answer.seconds
    raise AssertionError("the gate does not open")


# The pace, under limits the user declared


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
    """Whatever arrives when. What is billed counts as soon as it is known, so here it is never over the estimate."""
    door = gate(requests, tokens)
    now, sent = 0.0, []
    for gap, size, bill in zip(gaps, sizes, bills, strict=False):
        admission, now = patiently(door, size, now + gap)
        billed = min(size, bill)
        door.answered(admission, billed, None, now)
        sent.append((now, billed))

    times = [at for at, _ in sent]
    for first, (at, _) in enumerate(sent):
        window = sent[first : bisect_right(times, at + 60.0)]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(amount for _, amount in window[:-1]) + sizes[first + len(window) - 1] <= tokens


def test_a_steady_sender_reaches_nearly_all_of_the_limit() -> None:
    """Pacing that wastes a tenth of the limit makes a long job a tenth longer."""
    limit, size = 100_000, 500
    door = gate(tokens=limit)
    now, sent = 0.0, 0
    while True:
        admission, now = patiently(door, size, now)
        if now >= 3 * MINUTE:
            break
        door.answered(admission, size, None, now)
        sent += size

    assert sent >= 0.95 * 3 * MINUTE / 60 * limit


def test_a_request_over_the_whole_limit_still_goes_out_alone() -> None:
    """The provider decides about it; here it would wait for ever."""
    door = gate(tokens=100)
    door.answered(admitted(door, 0.0, 60), 60, None, 0.0)

    assert wait(door, 1.0, 1000).seconds == MINUTE - 1
    door.answered(admitted(door, MINUTE, 1000), 1000, None, MINUTE)
    assert wait(door, MINUTE + 1, 1).seconds == MINUTE - 1


def test_what_was_billed_takes_the_place_of_the_estimate() -> None:
    """An estimate is an upper bound, and often twice the bill."""
    door = gate(tokens=100)
    first = admitted(door, 0.0, 90)
    assert isinstance(door.admit(50, 0.0), Wait)
    door.answered(first, 30, None, 1.0)

    admitted(door, 1.0, 50)


def test_while_requests_are_in_flight_a_small_bill_is_waited_for() -> None:
    """For a second at a time; where no bill could help, until a minute has passed."""
    door = gate(tokens=100)
    admitted(door, 0.0, 90)

    assert wait(door, 0.0, 50).seconds == AGAIN
    door.answered(admitted(door, 0.0, 10), 10, None, 0.0)
    assert wait(door, 0.5, 100).seconds == MINUTE


def test_the_minute_of_a_request_begins_with_its_answer() -> None:
    """It may have arrived only then; but not later than TRAVEL seconds after it went out."""
    door = gate(requests=1)
    door.answered(admitted(door, 0.0), 1, None, 2.0)
    assert wait(door, 10.0).seconds == MINUTE - 8
    late = MINUTE + 2 + TRAVEL
    door.answered(admitted(door, MINUTE + 2), 1, None, late + 10)

    assert wait(door, late + 10).seconds == pytest.approx(MINUTE - 10)


def test_answers_out_of_turn_make_no_wait_that_does_not_end() -> None:
    """A late one counts from before its answer, but not from before others: it is forgotten after them."""
    door = gate(tokens=100)
    slow = admitted(door, 0.0, 10)
    door.answered(admitted(door, 61.0, 80), 80, None, 61.0)
    door.answered(slow, 10, None, 64.0)
    now, asked = 65.0, 0
    while isinstance(answer := door.admit(100, now), Wait):
        now += answer.seconds
        asked += 1

    assert (now, asked) == (61.0 + MINUTE, 1)


def test_an_answer_that_took_more_than_a_minute_does_not_change_the_next_one() -> None:
    """Its request is forgotten by then: counting the difference again would shift the limit for good."""
    door = gate(tokens=100)
    slow = admitted(door, 0.0, 90)
    over = TRAVEL + MINUTE
    door.answered(admitted(door, over, 100), 100, None, over)
    door.answered(slow, 1, None, over + 1)

    assert isinstance(door.admit(1, over + 2), Wait)
    admitted(door, over + MINUTE, 100)


def test_a_request_that_stood_in_line_counts_from_when_it_goes_out() -> None:
    """For a slot, behind slow ones: a whole minute's requests would go out on top of the next minute's."""
    door = gate(requests=2)
    early = [admitted(door, 0.0) for _ in range(2)]
    over = TRAVEL + MINUTE
    for admission in (admitted(door, over) for _ in range(2)):
        assert door.depart(admission, over) is None
        door.answered(admission, 1, None, over)

    assert [door.depart(admission, over + 10) for admission in early] == [Wait(MINUTE - 10, down=False)] * 2
    assert isinstance(door.admit(1, over + 10), Wait)


def test_of_a_request_that_does_not_fit_the_beginning_may_go_first() -> None:
    """As much as there is room for, when nothing is in flight and no more becomes free at once."""
    door = gate(tokens=100)
    flying = admitted(door, 0.0, 60)
    assert door.admit(90, 0.0, least=10) == Wait(AGAIN, down=False)
    door.answered(flying, 40, None, 0.0)
    part = door.admit(90, 0.0, least=10)

    assert isinstance(part, Admission)
    assert part.tokens == 60
    door.answered(part, 60, None, 30.0)
    assert door.admit(90, 30.0, least=10) == Wait(MINUTE - 30, down=False)


def test_a_request_that_stood_in_line_does_not_go_out_to_a_model_that_fails_by_now() -> None:
    """Five hundred tasks in line would each find out for themselves."""
    door = gate()
    line = [admitted(door, 0.0) for _ in range(FAILURES + 1)]
    for admission in line[:-1]:
        assert door.depart(admission, 0.5) is None
        door.failed(admission, DOWN, 0.5)

    assert door.depart(line[-1], 0.6) == Wait(pytest.approx(9.9), down=True)
    probe = admitted(door, 10.5)
    assert door.depart(probe, 10.6) is None
    assert door.depart(probe, 15.0) is None


# The pace, as the provider reports it


def test_limits_that_an_answer_reports_are_kept_where_none_are_declared() -> None:
    """OpenAI and Voyage say them with each answer."""
    door = gate()
    door.answered(admitted(door, 0.0, 10), 10, RateLimits(requests=3, tokens=100), 0.0)
    door.answered(admitted(door, 0.0, 10), 10, None, 0.0)
    assert wait(door, 0.0, 81).seconds == MINUTE
    door.answered(admitted(door, 0.0, 10), 10, None, 0.0)

    assert wait(door, 1.0, 1).seconds == MINUTE - 1


@pytest.mark.parametrize("outcome", ["answer", "failure"])
def test_until_something_is_heard_of_a_model_not_much_is_let_out(outcome: str) -> None:
    """Its first answer may say that all the others are too many. Nothing is so large that it never goes."""
    door = gate()
    first = admitted(door, 0.0, UNKNOWN + 1)
    held = wait(door, 0.0, 1)
    if outcome == "answer":
        door.answered(first, None, None, 0.2)
    else:
        door.failed(first, DOWN, 0.2)
    for _ in range(3):
        admitted(door, 0.2, UNKNOWN)

    assert held == Wait(SOON, down=False)


def test_a_429_tells_nothing_of_the_limit() -> None:
    """The others go on one by one, until one is answered."""
    door = gate()
    door.failed(admitted(door, 0.0, UNKNOWN), RateLimitedError("slow down"), 0.1)
    admitted(door, 0.1, UNKNOWN)

    assert wait(door, 0.1, 1) == Wait(SOON, down=False)


def test_what_the_user_declares_goes_before_what_is_reported() -> None:
    """A share of the account's limit, say."""
    door = gate(requests=1)
    door.answered(admitted(door, 0.0), 1, RateLimits(requests=1000), 0.0)

    assert isinstance(door.admit(1, 0.0), Wait)


def test_when_nothing_remains_the_next_request_waits_for_the_reset() -> None:
    """Others share the account."""
    door = gate()
    door.answered(admitted(door, 0.0), 1, RateLimits(requests=100, requests_left=0, requests_reset=6.0), 10.0)

    assert wait(door, 12.0).seconds == 4.0
    admitted(door, 16.0)


def test_when_few_tokens_remain_a_request_waits_until_it_fits() -> None:
    """They come back steadily: 20 tokens of 600 a minute take 2 seconds."""
    door = gate()
    door.answered(admitted(door, 0.0), 1, RateLimits(tokens=600, tokens_left=30, tokens_reset=57.0), 0.0)
    admitted(door, 0.0, 30)

    assert wait(door, 0.5, 20).seconds == pytest.approx(1.5)
    admitted(door, 2.0, 20)


def test_azures_zero_without_a_time_holds_nobody() -> None:
    """It says so while it goes on answering."""
    door = gate()
    door.answered(admitted(door, 0.0), 1, RateLimits(requests_left=0, tokens_left=0), 0.0)

    admitted(door, 0.0, 1000)


def test_after_a_429_every_request_to_the_model_waits_and_not_for_ever() -> None:
    """As long as the provider says, at most LONGEST."""
    door = gate()
    early = admitted(door, 0.0)
    fail(door, 0.0, RateLimitedError("slow", retry_after=7.0))
    assert wait(door, 1.0) == Wait(6.0, down=False)
    assert door.depart(early, 1.0) == Wait(6.0, down=False)
    fail(door, 7.0, RateLimitedError("slow", retry_after=1e6))
    assert wait(door, 7.0) == Wait(LONGEST, down=False)
    fail(door, 7.0 + LONGEST, RateLimitedError("slow"))
    fail(door, 7.0 + LONGEST, RateLimitedError("the quota is used up", retry_after=9.0, retryable=False))

    admitted(door, 7.0 + LONGEST)


# The breaker


def test_it_opens_after_failures_in_a_row_and_an_answer_closes_it() -> None:
    """One answer in between, and the count begins anew."""
    door = gate()
    fail(door, 0.0, times=FAILURES - 1)
    door.answered(admitted(door, 0.0), 1, None, 0.0)
    fail(door, 0.0, times=FAILURES - 1)
    assert door.health("m", 0.0).state == "up"
    fail(door, 0.0)

    assert wait(door, 4.0) == Wait(6.0, down=True)
    seen = door.health("m", 4.0)
    assert (seen.state, seen.failures, seen.retry_in, repr(seen.error)) == ("down", FAILURES, 6.0, repr(DOWN))
    door.answered(admitted(door, 10.0), 1, None, 10.0)
    seen = door.health("m", 10.0)
    assert (seen.state, seen.failures, seen.retry_in, seen.error) == ("up", 0, 0.0, None)


def test_one_request_at_a_time_probes() -> None:
    """The others ask again every second."""
    door = gate()
    fail(door, 0.0, times=FAILURES)
    probe = admitted(door, 10.0)

    assert door.health("m", 10.0).state == "probing"
    assert [wait(door, 10.0) for _ in range(5)] == [Wait(1.0, down=True)] * 5
    door.answered(probe, 1, None, 11.0)
    for _ in range(5):
        admitted(door, 11.0)


def test_each_probe_that_fails_doubles_the_time_up_to_the_longest() -> None:
    """10, 20, 40 … seconds."""
    door = gate()
    fail(door, 0.0, times=FAILURES)
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(wait(door, now).seconds)
        now += waits[-1]
        fail(door, now)

    assert waits == [10, 20, 40, 80, 160, LONGEST, LONGEST, LONGEST]


@pytest.mark.parametrize("late", [1.0, 25.0])
def test_late_failures_of_requests_in_flight_do_not_escalate(late: float) -> None:
    """A time-out comes after the cooldown that an earlier one began; none of them was a probe."""
    door = gate()
    line = [admitted(door, 0.0) for _ in range(FAILURES + 20)]
    for admission in line[:FAILURES]:
        door.failed(admission, DOWN, 0.0)
    probe = admitted(door, 25.0) if late >= 25.0 else None
    for admission in line[FAILURES:]:
        door.failed(admission, DOWN, late)
    if probe is not None:
        assert wait(door, late) == Wait(1.0, down=True)
        door.failed(probe, DOWN, late)

    assert wait(door, late).seconds == (9.0 if probe is None else 20.0)


def test_after_an_answer_that_came_late_the_model_is_trusted_and_can_fail_again() -> None:
    """The breaker opens again, and for the first cooldown."""
    door = gate(cooldown=100)
    late = admitted(door, 0.0)
    fail(door, 0.0, times=FAILURES)
    door.answered(late, 1, None, 5.0)
    fail(door, 6.0, times=FAILURES)

    assert wait(door, 6.0) == Wait(100.0, down=True)


def test_a_probe_that_nobody_heard_of_again_is_forgotten() -> None:
    """Its process was stopped, say; the model must not be left alone for ever."""
    door = gate(lease=60)
    fail(door, 0.0, times=FAILURES)
    admitted(door, 10.0)

    assert isinstance(door.admit(1, 69.0), Wait)
    admitted(door, 70.0)


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
    door = gate()
    fail(door, 0.0, error, times=3 * FAILURES)

    admitted(door, 0.0)
    assert door.health("m", 0.0).state == "up"


@pytest.mark.parametrize("error", HARMLESS, ids=str)
def test_a_probe_that_ends_in_the_callers_fault_lets_the_next_one_out(error: BackendError) -> None:
    """Otherwise all would wait until the probe is given up."""
    door = gate()
    fail(door, 0.0, times=FAILURES)
    fail(door, 10.0, error)

    admitted(door, 10.0)


@pytest.mark.parametrize("error", [DOWN, RequestTimeoutError("late"), BadResponseError("nonsense")], ids=str)
def test_what_may_be_the_models_fault_opens_it(error: BackendError) -> None:
    """Errors, silence and nonsense."""
    door = gate()
    fail(door, 0.0, error, times=FAILURES)

    assert wait(door, 0.0).down


@pytest.mark.parametrize("base", [UnavailableError, RequestTimeoutError, RateLimitedError])
def test_an_error_of_the_users_own_is_remembered_as_it_is(base: type[BackendError]) -> None:
    """Whatever it is made of; it is not made again."""

    class Own(base):  # type: ignore[misc, valid-type]
        def __init__(self, code: int, *, server: str) -> None:
            super().__init__(f"code {code}", model="m", status=code)
            self.server = server

    door = gate()
    error = Own(503, server="b")
    fail(door, 0.0, error)
    seen = door.health("m", 0.0).error

    assert isinstance(seen, Own)
    assert (str(seen), seen.server) == ("code 503", "b")
    assert vars(seen) == vars(error)


def test_a_call_in_a_hurry_does_not_open_it() -> None:
    """Its own short time limit says nothing about the model; as a probe it lets the next one out."""
    door = gate()
    fail(door, 0.0, RequestTimeoutError("hurried"), times=3 * FAILURES, counts=False)
    fail(door, 0.0, times=FAILURES)
    fail(door, 10.0, RequestTimeoutError("hurried"), counts=False)

    admitted(door, 10.0)


def test_without_a_cooldown_the_model_is_always_asked() -> None:
    """RetryPolicy(cooldown=0)."""
    door = gate(cooldown=0)

    fail(door, 0.0, times=5 * FAILURES)


events = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(["answer", "down", "rejected", "429", "silence"]), st.integers(0, 5)),
    max_size=60,
)


@examples(200)
@given(events)
def test_the_gate_always_opens_again(script: list[tuple[float, str, int]]) -> None:
    """Whatever happened, in whatever order: within the longest wait or the lease somebody is let out."""
    door, now = gate(), 0.0
    out: list[Admission] = []
    for gap, what, which in script:
        now += gap
        answer = door.admit(1, now)
        if isinstance(answer, Admission):
            out.append(answer)
        if not out or what == "silence":
            continue
        admission = out.pop(which % len(out))
        if what == "answer":
            door.answered(admission, 1, None, now)
        else:
            errors = {"down": DOWN, "rejected": InputRejectedError("no"), "429": RateLimitedError("x", retry_after=5.0)}
            door.failed(admission, errors[what], now)
    _, opened = patiently(door, 1, now)

    assert opened - now <= LONGEST + 60


# Through a router and a socket


def small(emulator: Emulator, **settings: Any) -> Model:
    return Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", **settings)


def azure(emulator: Emulator, **settings: Any) -> Model:
    name = "azure_openai:text-embedding-3-small"
    return Model(name, base_url=emulator.azure_url, api_key="k", api_version="2024-10-21", **settings)


def one_try(cooldown: float = 60, **settings: Any) -> RetryPolicy:
    return RetryPolicy(attempts=1, initial_wait=0, max_wait=0, cooldown=cooldown, **settings)


def openai_is_down(received: Received) -> Fault | None:
    return Fault.unavailable() if received.deployment is None else None


def break_it(router: Router, asynchronous: bool, **asked: Any) -> None:
    for number in range(FAILURES):
        embed(router, asynchronous, [f"breaking {number}"], **asked)


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_while_one_place_is_down_the_other_is_asked_at_once(
    emulator: Emulator, asynchronous: bool, input_type: Any
) -> None:
    """The dead one is not tried for each request, only by a probe now and then."""
    emulator.fault_for = openai_is_down
    router = Router([small(emulator), azure(emulator)], cache=None, ledger=":memory:", retry=one_try())
    break_it(router, asynchronous, input_type=input_type)
    asked = len([received for received in emulator.received if received.deployment is None])
    for number in range(5):
        result = embed(router, asynchronous, [f"later {number}"], input_type=input_type)
        assert result.models == ("azure_openai:text-embedding-3-small",)

    assert asked == FAILURES
    assert len([received for received in emulator.received if received.deployment is None]) == FAILURES
    seen = router.health()
    down, up = seen["openai:text-embedding-3-small"], seen["azure_openai:text-embedding-3-small"]
    assert (down.state, down.failures) == ("down", FAILURES)
    assert 0 < down.retry_in <= 60
    assert isinstance(down.error, UnavailableError)
    assert (up.state, up.failures, up.retry_in, up.error) == ("up", 0, 0.0, None)


class Text(str):
    """A string that tells whether it is still held."""

    __slots__ = ("__weakref__",)


def test_what_failed_is_remembered_without_the_call(emulator: Emulator, asynchronous: bool) -> None:
    """Its texts, its vectors and its connection would live as long as the router."""
    emulator.fault_for = openai_is_down
    router = Router([small(emulator)], cache=None, ledger=":memory:", retry=one_try())
    text = Text("one document")
    held = weakref.ref(text)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, [text], input_type="document")
    del text
    gc.collect()

    assert isinstance(router.health()["openai:text-embedding-3-small"].error, UnavailableError)
    assert held() is None


def test_a_model_that_answers_its_probe_is_asked_again(emulator: Emulator, asynchronous: bool) -> None:
    """It was the first choice."""
    emulator.fault_for = openai_is_down
    router = Router([small(emulator), azure(emulator)], cache=None, ledger=":memory:", retry=one_try(cooldown=0.3))
    break_it(router, asynchronous, input_type="query")
    emulator.fault_for = None
    time.sleep(router.health()["openai:text-embedding-3-small"].retry_in)

    assert embed(router, asynchronous, ["later"], input_type="query").models == ("openai:text-embedding-3-small",)
    assert router.health()["openai:text-embedding-3-small"].state == "up"


def test_the_last_candidate_waits_for_its_probe(emulator: Emulator, asynchronous: bool) -> None:
    """Nobody else can answer."""
    emulator.fault_for = openai_is_down
    router = Router([small(emulator)], cache=None, ledger=":memory:", retry=one_try(cooldown=0.5))
    for _ in range(FAILURES):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["a"], input_type="document")
    emulator.fault_for = None
    calls = emulator.calls
    embed(router, asynchronous, ["a"], input_type="document")

    assert emulator.calls == calls + 1


@pytest.mark.parametrize(("patience", "timeout"), [(5.0, None), (60.0, 5.0)])
def test_the_last_candidate_is_not_waited_for_longer_than_allowed(
    emulator: Emulator, asynchronous: bool, patience: float, timeout: float | None
) -> None:
    """It fails at once, sends nothing, and says why."""
    emulator.fault_for = openai_is_down
    retry = one_try(cooldown=50, timeout=patience)
    router = Router([small(emulator)], cache=None, ledger=":memory:", retry=retry)
    for _ in range(FAILURES):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["a"], input_type="document")
    calls, began = emulator.calls, time.monotonic()
    with pytest.raises(NoModelAvailableError, match="it keeps failing"):
        embed(router, asynchronous, ["a"], input_type="document", timeout=timeout)

    assert emulator.calls == calls
    assert time.monotonic() - began < 4


def test_when_every_place_is_down_they_are_asked_in_order_once_more(emulator: Emulator, asynchronous: bool) -> None:
    """Demoted is not dismissed."""
    emulator.fault_for = lambda received: Fault.unavailable()
    router = Router([small(emulator), azure(emulator)], cache=None, ledger=":memory:", retry=one_try(cooldown=1.0))
    for _ in range(FAILURES):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["a"], input_type="document")
    emulator.fault_for = openai_is_down
    calls = emulator.calls
    result = embed(router, asynchronous, ["a"], input_type="document")

    assert result.models == ("azure_openai:text-embedding-3-small",)
    assert emulator.calls == calls + 2


def test_queries_that_may_degrade_do_not_wait_for_a_probe(emulator: Emulator, asynchronous: bool) -> None:
    """A lower tier answers at once; documents wait for the better model."""
    fake = FakeBackend(space="s", outcomes=[DOWN] * FAILURES)
    low = FakeBackend(space="s")
    models = [fake.model("fake:high", price="1"), low.model("fake:low", tier="low", price="0")]
    router = Router(models, cache=None, ledger=":memory:", retry=one_try(cooldown=0.5), when_unavailable="degrade")
    for _ in range(FAILURES):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["d"], input_type="document")
    with pytest.warns(DegradedWarning):
        result = embed(router, asynchronous, ["q"], input_type="query")

    assert (result.models, result.degraded) == (("fake:low",), (True,))
    assert len(fake.calls) == FAILURES
    assert embed(router, asynchronous, ["d"], input_type="document").models == ("fake:high",)


def test_the_story_of_a_failure_names_the_model_whose_breaker_is_open(asynchronous: bool) -> None:
    """Otherwise nobody knows why the cheap model was not asked."""
    first = FakeBackend(space="s", outcomes=[DOWN] * 99)
    second = FakeBackend(space="s", outcomes=[None] * FAILURES + [DOWN])
    models = [first.model("fake:one", price="1"), second.model("fake:two", price="2")]
    router = Router(models, cache=None, ledger=":memory:", retry=one_try(timeout=5))
    break_it(router, asynchronous, input_type="query")
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, ["a"], input_type="query")

    assert {type(attempt.error) for attempt in caught.value.attempts} == {CircuitOpenError, UnavailableError}


class Busy(FakeBackend):
    """Takes one request at a time, and for the first as long as it is told to."""

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

    def asked(self, asynchronous: bool, **settings: Any) -> tuple[Router, Callable[..., Coroutine[Any, Any, Any]]]:
        """Return a router, and how to call it: by a task or by a thread."""
        model = self.model(max_concurrency=1, price="1")
        router = Router([model], cache=None, ledger=":memory:", **{"micro_batch_window": 0, **settings})

        async def call(text: str, **asked: Any) -> Any:
            if asynchronous:
                return await router.aembed([text], input_type="document", **asked)
            return await asyncio.to_thread(router.embed, [text], input_type="document", **asked)

        return router, call


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_who_stands_in_line_behind_another_call_waits_no_longer_than_it_may(asynchronous: bool) -> None:
    """The time for a call is for all of it; nothing was sent, so nothing is paid."""
    busy = Busy()
    router, call = busy.asked(asynchronous)
    first = asyncio.create_task(call("first"))
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


@pytest.mark.parametrize("window", [0, 0.01])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_who_has_for_ever_waits_like_who_has_no_time_limit(asynchronous: bool, window: float) -> None:
    """In line, and for calls that go together: no lock can be waited for that long."""
    busy = Busy()
    _, call = busy.asked(asynchronous, micro_batch_window=window)
    calls = [asyncio.create_task(call("first", timeout=math.inf))]
    await asyncio.to_thread(busy.begun.wait, HANG)
    calls += [asyncio.create_task(call(text, timeout=math.inf)) for text in ("second", "third")]
    await asyncio.sleep(0.1)
    busy.ended.set()

    assert [len(result) for result in await asyncio.gather(*calls)] == [1, 1, 1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_time_in_line_behind_another_call_is_not_taken_from_the_tries(asynchronous: bool) -> None:
    """Their time limit is the provider's."""
    retry = RetryPolicy(attempts=2, timeout=1.0, initial_wait=0, max_wait=0, cooldown=0)
    busy = Busy(outcomes=[None, DOWN])
    _, call = busy.asked(asynchronous, retry=retry)
    first = asyncio.create_task(call("first"))
    await asyncio.to_thread(busy.begun.wait, HANG)
    second = asyncio.create_task(call("second"))
    await asyncio.sleep(1.2)
    busy.ended.set()
    await first
    await second

    assert [call.texts for call in busy.calls] == [("first",), ("second",), ("second",)]


async def test_tasks_in_line_do_not_each_find_out_that_a_model_is_down() -> None:
    """LlamaIndex starts hundreds together; those that wait for a slot when the breaker opens go elsewhere at once."""

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


# Limits over a socket: with minutes that last a second


@pytest.fixture
def short_minutes(monkeypatch: pytest.MonkeyPatch) -> float:
    """Return how long a minute takes at the provider; ours is a little longer, as always."""
    monkeypatch.setattr(health, "MINUTE", 1.0)
    return 0.6


class Limited:
    """Answers 429 to what is over the limit, and counts such answers."""

    def __init__(self, minute: float, requests: int, before: Callable[[Received], Fault | None] | None = None) -> None:
        self.minute, self.requests, self.before = minute, requests, before
        self.arrivals: list[float] = []
        self.provoked = 0
        self.lock = threading.Lock()

    def __call__(self, received: Received) -> Fault | None:
        with self.lock:
            recent = [at for at in self.arrivals if at > received.at - self.minute]
            self.arrivals.append(received.at)
            if len(recent) >= self.requests:
                self.provoked += 1
                return Fault.rate_limited()
        return self.before(received) if self.before else None


@pytest.mark.parametrize("kind", ["one call", "threads", "tasks"])
def test_a_declared_limit_provokes_no_429(emulator: Emulator, short_minutes: float, kind: str) -> None:
    """Its retries counted too: every fourth request fails at first."""
    counted = iter(range(10_000))
    limit = emulator.fault_for = Limited(
        short_minutes, 10, before=lambda received: Fault.status(500) if next(counted) % 4 == 3 else None
    )
    model = small(emulator, requests_per_minute=10, batch_size=1)
    router = Router([model], cache=None, ledger=":memory:", retry=RetryPolicy(initial_wait=0.01, attempts=9))
    texts = [f"text {number}" for number in range(24)]
    if kind == "one call":
        embed(router, asynchronous=False, texts=texts, input_type="document")
    elif kind == "tasks":

        async def crowd() -> None:
            await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))
            await router.aclose()

        asyncio.run(crowd())
    else:
        threads = [threading.Thread(target=router.embed, args=([t],), kwargs={"input_type": "document"}) for t in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    router.close()

    assert limit.provoked == 0
    assert emulator.calls - emulator.calls // 4 == len(texts)


def test_a_declared_limit_of_tokens_is_kept(emulator: Emulator, short_minutes: float, asynchronous: bool) -> None:
    """As billed, in any window."""
    model = small(emulator, tokens_per_minute=60, batch_size=1)
    router = Router([model], cache=None, ledger=":memory:")
    embed(router, asynchronous, [f"five words and a {number}" for number in range(18)], input_type="document")
    router.close()

    share = sum(emulator.billed.values()) / emulator.calls
    times = [received.at for received in emulator.received]
    fullest = max(bisect_right(times, at + short_minutes) - first for first, at in enumerate(times))
    assert fullest * share <= 60
    assert emulator.calls == 18


@pytest.mark.parametrize("how", ["sync", "async"])
def test_cache_hits_take_nothing_of_the_limit(emulator: Emulator, how: str) -> None:
    """H15: limiters in front of the cache are acquired for calls that are never made."""
    router = Router(
        [small(emulator, requests_per_minute=1)], cache=MemoryCache(), ledger=":memory:", retry=RetryPolicy(timeout=1)
    )
    texts = [f"text {number}" for number in range(5)]
    embed(router, how == "async", texts, input_type="document")
    began = time.monotonic()
    for _ in range(5):
        assert all(embed(router, how == "async", texts, input_type="document").cached)

    assert emulator.calls == 1
    assert time.monotonic() - began < 20


def test_a_call_with_less_time_than_the_wait_fails_at_once(emulator: Emulator, asynchronous: bool) -> None:
    """It says what it would have waited for, and sends nothing."""
    router = Router([small(emulator, requests_per_minute=1)], cache=None, ledger=":memory:")
    embed(router, asynchronous, ["a"], input_type="query")
    began = time.monotonic()
    with pytest.raises(NoModelAvailableError, match=r"the time allowed ends before .*its rate limit") as caught:
        embed(router, asynchronous, ["b"], input_type="query", timeout=20)

    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert emulator.calls == 1
    assert time.monotonic() - began < 10
    assert not router.ledger.unconfirmed()


@pytest.mark.usefixtures("short_minutes")
def test_waiting_for_the_limit_is_not_part_of_a_requests_time(emulator: Emulator, asynchronous: bool) -> None:
    """RetryPolicy.timeout is for the provider, not for the queue."""
    router = Router(
        [small(emulator, requests_per_minute=1)], cache=None, ledger=":memory:", retry=RetryPolicy(timeout=0.7)
    )
    for text in ("a", "b", "c"):
        embed(router, asynchronous, [text], input_type="query")

    assert emulator.calls == 3


def test_reported_limits_pace_the_requests_after_the_first(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """Nothing is declared; OpenAI's headers say 10,000 a minute, and a smaller number holds the next request."""
    router = Router([small(emulator)], cache=None, ledger=":memory:")
    embed(router, asynchronous, ["a"], input_type="query")
    (door,) = router._driver._here.gates
    assert door._reported.requests == 10_000

    monkeypatch.setattr(door, "_reported", RateLimits(requests=1))
    with pytest.raises(NoModelAvailableError, match="its rate limit"):
        embed(router, asynchronous, ["b"], input_type="query", timeout=1)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Whoever waits for a gate must not wait for ever."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedrouter")]
