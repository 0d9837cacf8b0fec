"""The stages of a call, driven by a script: no clock, no threads, no event loop, no network.

``tests.scripted`` answers requests from a script and lets a virtual clock go on. First whole calls, then single stages
with fakes around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Budget, EmbeddingResult, Estimate, RetryPolicy, Space, Usage
from embedrouter.cache import QueryMemory, VectorCache, key_function
from embedrouter.calls import SizedText
from embedrouter.calls._attempt import OneAttempt, Outcome
from embedrouter.calls._call import Call, Embedded
from embedrouter.calls._effects import Stopped
from embedrouter.calls._learned import Learned
from embedrouter.calls._look_up import CacheReader, LookUp
from embedrouter.calls._micro_batch import MicroBatch
from embedrouter.calls._recall import Recall
from embedrouter.calls._retries import Retries
from embedrouter.calls._share import Share
from embedrouter.calls._single_flight import SingleFlight
from embedrouter.calls._sync import run
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    CircuitOpenError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.events import Events
from embedrouter.limits import MINUTE, Admission, ModelLimits
from embedrouter.models import plausible_count
from embedrouter.spending import Charge
from embedrouter.testing import MemoryCache
from embedrouter.types import (
    Answer,
    Candidate,
    Entry,
    Found,
    InputType,
    Origin,
    OverlongPolicy,
    Vectors,
    dollars,
)
from tests.scripted import (
    Script,
    ScriptedEffects,
    answer,
    ask,
    calls,
    candidate,
    question,
    scripted_call,
    states,
    vector,
)

# Duplicates, cache, order


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=30))
def test_each_distinct_text_is_sent_once_and_every_position_gets_its_vector(texts: list[str]) -> None:
    """Paying twice for a text is waste; mixing up positions is worse."""
    script = Script()
    result = ask(script, texts, [candidate("a", texts=4)])

    sent = [text for _, request in script.sent for text in request]
    assert sorted(sent) == sorted(set(texts))
    assert [tuple(row) for row in result.vectors] == [tuple(vector(text)) for text in texts]


@given(st.sets(st.text("abc", min_size=1, max_size=3)), st.sets(st.text("abc", min_size=1, max_size=3)))
def test_what_was_answered_before_is_not_asked_again(first: set[str], second: set[str]) -> None:
    """The cache serves exactly the overlap."""
    script = Script()
    ask(script, sorted(first), [candidate("a")])
    script.requests.clear()
    texts = sorted(second)
    result = ask(script, texts, [candidate("a")])

    assert {text for _, request in script.sent for text in request} == second - first
    assert result.cached == tuple(text in first for text in texts)


def test_a_better_cached_vector_beats_a_cheaper_call() -> None:
    """It is already paid for."""
    large, lite = candidate("large", 2, "10"), candidate("other", 0, "1")
    script = Script()
    ask(script, ["t"], [large, lite], rank=2)
    result = ask(script, ["t"], [large, lite], rank=0)

    assert script.sent == [("large", ("t",))]
    assert result.models == ("large",)
    assert result.cached == (True,)


def test_a_cached_vector_below_the_asked_tier_is_not_used() -> None:
    """Quality that was asked for is delivered."""
    large, lite = candidate("large", 2, "10"), candidate("other", 0, "1")
    script = Script()
    ask(script, ["t"], [large, lite], rank=0)
    result = ask(script, ["t"], [large, lite], rank=2)

    assert [model for model, _ in script.sent] == ["other", "large"]
    assert result.models == ("large",)


def test_the_cheapest_model_that_is_good_enough_is_asked() -> None:
    """Unknown prices come last, then the order of declaration."""
    script = Script()
    ask(script, ["t"], [candidate("dear", price="5"), candidate("unknown", price=None), candidate("cheap", price="1")])

    assert script.sent == [("cheap", ("t",))]


def test_a_tier_above_every_model_is_refused_before_any_request() -> None:
    """Nothing was spent, and the message says what to do."""
    script = Script()
    with pytest.raises(NoModelAvailableError, match="Ask for a lower tier"):
        ask(script, ["t"], [candidate("low", 0)], rank=2)

    assert script.sent == []


def test_an_answer_is_cached_and_booked_before_the_next_request() -> None:
    """A run that dies later has lost nothing that was paid for."""
    script = Script()
    ask(script, ["a", "b", "c"], [candidate("a", texts=1)])

    assert [request.cached for request in script.requests] == [0, 1, 2]
    assert states(script.ledger) == {"settled"}


def test_when_a_later_request_fails_the_earlier_ones_are_cached() -> None:
    """The next run pays for the rest only."""
    script = Script(outcomes=[None, AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        ask(script, ["a", "b", "c"], [candidate("a", texts=1)])
    script.requests.clear()
    ask(script, ["a", "b", "c"], [candidate("a", texts=1)])

    assert script.sent == [("a", ("b",)), ("a", ("c",))]


def test_a_local_model_gets_texts_of_equal_length_together() -> None:
    """They need no padding; the result is in the user's order all the same."""
    script = Script()
    texts = ["cccc", "a", "bb", "dddd", "e", "ff"]
    result = ask(script, texts, [candidate("a", price="0", texts=2, local=True)])

    assert [request for _, request in script.sent] == [("a", "e"), ("bb", "ff"), ("cccc", "dddd")]
    assert [tuple(row) for row in result.vectors] == [tuple(vector(text)) for text in texts]


# Trying again


def test_a_retryable_failure_is_tried_again_after_a_pause() -> None:
    """As often as the policy allows."""
    script = Script(outcomes=[RateLimitedError("slow"), UnavailableError("down"), None])
    ask(script, ["t"], [candidate("a")], retry=RetryPolicy(attempts=3, initial_wait=1))

    assert len(script.requests) == 3
    assert script.sleeps == [2, 4]


def test_the_wait_a_provider_asks_for_is_kept() -> None:
    """Never shorter than asked; a little longer, so that callers do not return together."""
    script = Script(outcomes=[RateLimitedError("slow", retry_after=7.0)])
    ask(script, ["t"], [candidate("a")])

    (seconds,) = script.sleeps
    assert 7 <= seconds <= 8


def test_a_wait_beyond_the_time_allowed_is_not_begun() -> None:
    """Waiting for nothing helps no caller: fail, or go to the next model, at once."""
    script = Script(outcomes=[RateLimitedError("slow", retry_after=120.0)])
    result = ask(script, ["t"], [candidate("a", price="1"), candidate("b", price="2")], retry=RetryPolicy(timeout=60))

    assert script.sleeps == []
    assert result.models == ("b",)


def test_a_failure_that_cannot_pass_is_not_tried_again() -> None:
    """A used-up quota stays used up."""
    script = Script(outcomes=[RateLimitedError("quota", retryable=False)])
    with pytest.raises(NoModelAvailableError):
        ask(script, ["t"], [candidate("a")])

    assert len(script.requests) == 1


def test_the_next_model_takes_over_when_tries_run_out() -> None:
    """Within the space, so the vectors stay comparable."""
    script = Script(outcomes=[UnavailableError("down")] * 3)
    result = ask(script, ["t"], [candidate("a", price="1"), candidate("b", price="2")])

    assert [model for model, _ in script.sent] == ["a", "a", "a", "b"]
    assert result.models == ("b",)


def test_the_next_model_gets_requests_of_its_own_size() -> None:
    """Providers differ in what one request may hold."""
    script = Script(outcomes=[UnavailableError("down", retryable=False)])
    ask(script, list("abcde"), [candidate("a", price="1", texts=10), candidate("b", price="2", texts=2)])

    assert [(model, len(request)) for model, request in script.sent] == [("a", 5), ("b", 2), ("b", 2), ("b", 1)]


def test_what_the_first_model_answered_is_not_sent_to_the_second() -> None:
    """Half a request that is paid for stays paid for."""
    script = Script(outcomes=[UnavailableError("x", retryable=False), None, UnavailableError("x", retryable=False)])
    models = [candidate("a", price="1"), candidate("b", price="2", texts=2), candidate("c", price="3")]
    ask(script, list("wxyz"), models)

    assert script.sent == [("a", tuple("wxyz")), ("b", ("w", "x")), ("b", ("y", "z")), ("c", ("y", "z"))]


def test_the_last_error_tells_the_whole_story() -> None:
    """Every attempt with its model and cause, in order."""
    script = Script(outcomes=[UnavailableError("one"), RateLimitedError("two"), RequestTimeoutError("three")])
    with pytest.raises(NoModelAvailableError) as caught:
        ask(script, ["t"], [candidate("a", price="1"), candidate("b", price="2")], retry=RetryPolicy(attempts=1))

    assert [(attempt.model, type(attempt.error)) for attempt in caught.value.attempts] == [
        ("a", UnavailableError),
        ("b", RateLimitedError),
    ]
    assert isinstance(caught.value.__cause__, RateLimitedError)
    assert "1. a: UnavailableError: one" in str(caught.value)


def test_a_missing_key_is_never_a_silent_step_to_a_dearer_model() -> None:
    """The user would learn it from the bill."""
    script = Script(outcomes=[AuthenticationError("no key")])
    with pytest.raises(AuthenticationError, match="no key"):
        ask(script, ["t"], [candidate("cheap", price="1"), candidate("dear", price="2")])

    assert len(script.requests) == 1


def test_with_a_wrong_key_a_model_of_the_same_price_takes_over() -> None:
    """One model in two places: a revoked key in one is no reason to fail."""
    script = Script(outcomes=[AuthenticationError("revoked")])
    result = ask(script, ["t"], [candidate("a", price="1"), candidate("b", price="1")])

    assert result.models == ("b",)


def test_a_configuration_error_stops_at_once() -> None:
    """A missing package is not a provider's failure."""
    script = Script(outcomes=[ConfigError("pip install")])
    with pytest.raises(ConfigError, match="pip install"):
        ask(script, ["t"], [candidate("a", price="1"), candidate("b", price="2")])

    assert len(script.requests) == 1


@pytest.mark.parametrize("retry", [RetryPolicy(timeout=10), RetryPolicy(timeout=100)])
def test_a_request_and_its_tries_end_in_time(retry: RetryPolicy) -> None:
    """Attempts are given what is left of the policy's time, and of the call's."""
    script = Script(outcomes=[UnavailableError("down")] * 50, pace=3)
    with pytest.raises(NoModelAvailableError):
        ask(script, ["t"], [candidate("a")], retry=retry, deadline=12)

    allowed = min(retry.timeout, 12)
    assert script.now <= allowed + 3
    assert all(request.timeout <= allowed for request in script.requests)


@given(
    outcomes=st.lists(
        st.sampled_from(
            [
                None,
                UnavailableError("x"),
                RateLimitedError("x", retry_after=3.0),
                RateLimitedError("x", retryable=False),
                RequestTimeoutError("x"),
                AuthenticationError("x"),
                InputRejectedError("x"),
                InputRejectedError("x", too_long=True),
                BackendError("x"),
                Answer(np.zeros((1, 2), np.float32), 5),
            ]
        ),
        max_size=40,
    ),
    attempts=st.integers(1, 4),
    policy=st.sampled_from(["error", "truncate", "mean"]),
)
def test_every_script_ends_with_vectors_or_an_error_of_ours(
    outcomes: list[Any], attempts: int, policy: OverlongPolicy
) -> None:
    """Within the number of requests that the policy allows; every vector is the one of its text; money is settled."""
    script = Script(outcomes=list(outcomes), exact=False)
    models = [candidate("a", price="1", texts=2, longest=5), candidate("b", price="2", texts=3, longest=5)]
    texts = ["t", "uu", "vvv", "wwwwww"]
    try:
        result = ask(script, texts, models, retry=RetryPolicy(attempts=attempts, timeout=20), on_too_long=policy)
    except (BackendError, NoModelAvailableError):
        pass
    else:
        for row, text, short in zip(result.vectors, texts, result.shortened, strict=True):
            assert short or tuple(row) == tuple(vector(text))
    assert len(script.requests) <= attempts * len(models) * 8
    assert states(script.ledger) <= {"settled", "unconfirmed"}


# What an answer must be


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (np.ones((1, 2), np.float32), r"shape \(1, 2\) came for 2 texts"),
        (np.ones((3, 2), np.float32), r"shape \(3, 2\) came for 2 texts"),
        (np.ones((2, 3), np.float32), r"vectors of 3 dimensions came, not of 2: declare Model\(…, dimensions=3\)"),
        (np.full((2, 2), 0.7, np.float64).view(np.float32), "64 bits came in base64, .*: declare .*'float'"),
        (np.full((2, 4), 0.5, np.float32), r"declare Model\(…, dimensions=4\)"),
        (np.ones((2,), np.float32), "shape"),
        (np.array([[-np.inf, 1], [np.nan, 1]], np.float32), "not finite"),
        (np.array([[0, 0], [np.inf, 1]], np.float32), "not finite"),
        (np.array([[0, 0], [0, 0]], np.float32), "all zeros"),
        (np.ones((2, 2), np.float64), "float64"),
    ],
)
def test_an_answer_that_is_not_the_vectors_asked_for_is_a_failed_attempt(vectors: Vectors, complaint: str) -> None:
    """Never a None, never a cache entry."""
    script = Script(outcomes=[Answer(vectors, 7)] * 3)
    with pytest.raises(NoModelAvailableError, match=complaint) as caught:
        ask(script, ["a", "b"], [candidate("a")])

    assert isinstance(caught.value.__cause__, BadResponseError)
    once, twice = "declare" in complaint, vectors.shape == (2, 2) and vectors.dtype == np.float32
    assert len(script.requests) == (1 if once else 2 if twice else 3), "the same dimensions would come again"
    assert script.store.rows == {}


def test_a_wrong_answer_is_tried_again_and_what_it_cost_is_counted() -> None:
    """The provider bills it all the same."""
    script = Script(outcomes=[Answer(np.ones((1, 2), np.float32), 7)])
    result = ask(script, ["a", "b"], [candidate("a")])

    assert result.usage.tokens == 7 + 2
    assert [tuple(row) for row in result.vectors] == [tuple(vector("a")), tuple(vector("b"))]


# Texts over the limit


def test_a_text_known_to_be_too_long_is_refused_before_anything_is_sent() -> None:
    """The error lists positions, names the limit and the ways out."""
    script = Script()
    with pytest.raises(InvalidInputError, match=r"5 tokens.*on_too_long='truncate'") as caught:
        ask(script, ["ok", "too long", "ok", "too long"], [candidate("a", longest=5)])

    assert caught.value.indices == (1, 3)
    assert script.sent == []


def test_truncate_embeds_the_beginning_and_says_so() -> None:
    """Never a silent cut."""
    script = Script()
    result = ask(script, ["ok", "abcdefgh"], [candidate("a", longest=5)], on_too_long="truncate")

    assert result.shortened == (False, True)
    assert tuple(result.vectors[1]) == tuple(vector("abcde"))


def test_mean_averages_the_parts_weighted_by_length() -> None:
    """And gives a unit vector."""
    script = Script()
    result = ask(script, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")
    expected = (5 * vector("abcde") + 3 * vector("fgh")) / 8

    assert result.shortened == (True,)
    assert np.allclose(result.vectors[0], expected / np.linalg.norm(expected))


CUT = ("a", "bc", "abcdefgh", "abcdefghijklmno", "abcde")


@pytest.mark.parametrize("policy", ["truncate", "mean"])
@given(texts=st.lists(st.sampled_from(CUT), min_size=1, max_size=9))
def test_repeated_and_cut_texts_have_vectors_of_their_own(policy: OverlongPolicy, texts: list[str]) -> None:
    """Also where there are as many parts as repetitions, or a part is one of the texts."""
    together = ask(Script(), texts, [candidate("a", longest=5)], on_too_long=policy)

    assert together.vectors.shape[0] == len(texts)
    for text, row, shortened in zip(texts, together.vectors, together.shortened, strict=True):
        alone = embedded_alone(text, policy)
        assert np.array_equal(row, alone.vectors[0])
        assert shortened == alone.shortened[0] == (len(text) > 5)


@cache
def embedded_alone(text: str, policy: OverlongPolicy) -> EmbeddingResult:
    return ask(Script(), [text], [candidate("a", longest=5)], on_too_long=policy)


@pytest.mark.parametrize("exact", [True, False])
def test_a_shortened_text_is_a_hit_the_next_time(exact: bool) -> None:
    """Without counting, cutting, asking or writing anything."""
    script = Script(exact=exact, outcomes=[] if exact else [InputRejectedError("too long", too_long=True)])
    first = ask(script, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")
    script.requests.clear()
    script.counted.clear()
    rows = dict(script.store.rows)
    second = ask(script, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert (script.requests, script.counted, script.store.rows) == ([], [], rows)
    assert np.array_equal(first.vectors, second.vectors)
    assert second.shortened == (True,)


def test_policies_do_not_share_cache_entries() -> None:
    """The beginning of a text is another vector than the mean of its parts."""
    script = Script()
    truncated = ask(script, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="truncate")
    averaged = ask(script, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert averaged.cached == (False,)
    assert not np.array_equal(truncated.vectors, averaged.vectors)


def test_the_parts_of_a_long_text_count_before_the_first_paid_request() -> None:
    """A job that does not fit the budget pays for nothing, however its texts are cut."""
    script = Script()
    with pytest.raises(BudgetExceededError, match=r"\$12\.00 more would pass total=\$11\.00"):
        ask(
            script,
            ["abcd", "abcdefgh"],
            [candidate("a", longest=5, price="1000000")],
            on_too_long="mean",
            budget=Budget(total="11"),
        )

    assert not script.sent


def test_a_part_that_is_another_text_or_cached_is_sent_once() -> None:
    """Parts are ordinary texts, and are sent with the others."""
    script = Script()
    ask(script, ["fgh"], [candidate("a", longest=5)])
    result = ask(script, ["abcde", "abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert script.sent == [("a", ("fgh",)), ("a", ("abcde",))]
    assert result.shortened == (False, True)


def test_where_the_count_is_an_estimate_the_provider_decides() -> None:
    """The doubtful text is sent alone, so that its refusal harms no other."""
    script = Script(exact=False)
    result = ask(script, ["a", "doubtful", "b"], [candidate("a", longest=5)])

    assert script.sent == [("a", ("a", "b")), ("a", ("doubtful",))]
    assert result.shortened == (False, False, False)


def test_a_providers_refusal_triggers_the_policy() -> None:
    """The parts are sent as ordinary texts."""
    script = Script(exact=False, outcomes=[None, InputRejectedError("maximum context length", too_long=True)])
    result = ask(script, ["a", "abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert script.sent == [("a", ("a",)), ("a", ("abcdefgh",)), ("a", ("abcde", "fgh"))]
    assert result.shortened == (False, True)


def test_without_a_policy_a_providers_refusal_names_positions_and_ways_out() -> None:
    """The rest is in the cache."""
    script = Script(exact=False, outcomes=[None, InputRejectedError("too long", too_long=True)])
    with pytest.raises(InputRejectedError, match="on_too_long='truncate'") as caught:
        ask(script, ["a", "doubtful", "b", "doubtful"], [candidate("a", longest=5)])

    assert caught.value.indices == (1, 3)
    assert len(script.store.rows) == 2


def test_a_text_that_a_local_model_refuses_is_named() -> None:
    """By its position in the input, which is not the one in the request. Texts of a model without limits are not
    counted, and the others are in the cache.
    """
    script = Script(outcomes=[InputRejectedError("odd", indices=[2])])
    with pytest.raises(InputRejectedError, match="odd") as caught:
        ask(script, ["a", "odd", "b"], [candidate("a", price="0", local=True)])

    assert script.sent == [("a", ("a", "b", "odd")), ("a", ("a", "b"))]
    assert (script.counted, caught.value.indices, len(script.store.rows)) == ([], (1,), 2)


def test_a_backend_that_knows_the_culprits_saves_the_others() -> None:
    """Only they are cut."""
    refusal = InputRejectedError("too long", too_long=True, indices=[1])
    script = Script(exact=False, outcomes=[refusal])
    result = ask(script, ["a", "abcd", "b"], [candidate("a", longest=5)], on_too_long="truncate")

    assert script.sent[:2] == [("a", ("a", "abcd", "b")), ("a", ("a", "b"))]
    assert result.shortened == (False, True, False)


# Money


def test_billed_tokens_are_the_providers_and_split_among_the_texts() -> None:
    """A hit then knows what it saved."""
    script = Script(outcomes=[answer(["aa", "bbbb"], tokens=13)])
    paid = ask(script, ["aa", "bbbb"], [candidate("a", price="2")])
    warm = ask(script, ["aa", "bbbb", "aa"], [candidate("a", price="2")])

    assert paid.usage.tokens == 13
    assert paid.usage.cost == 13 * Decimal("2") / 1_000_000
    assert warm.usage.cost == 0
    assert warm.usage.requests == 0
    assert warm.usage.saved == (13 + 4) * Decimal("2") / 1_000_000


def test_duplicates_inside_a_call_count_as_saved() -> None:
    """They would have been paid for elsewhere."""
    result = ask(Script(), ["aa", "aa", "aa"], [candidate("a", price="1")])

    assert result.usage.tokens == 2
    assert result.usage.saved == 4 * Decimal("1") / 1_000_000


def test_tokens_of_unknown_price_are_listed_apart() -> None:
    """They are not free."""
    result = ask(Script(), ["aaa"], [candidate("a", price=None)])

    assert result.usage.unpriced_tokens == 3
    assert result.usage.cost == 0


def test_a_call_over_the_budget_is_refused_before_the_first_request() -> None:
    """With the figures, and the way out."""
    script = Script()
    with pytest.raises(BudgetExceededError, match=r"per_call=\$0\.000001") as caught:
        ask(script, ["aaaa"], [candidate("a", price="1")], budget=Budget(per_call="0.000001"))

    assert script.sent == []
    assert "$0.000004" in str(caught.value)


def test_a_money_budget_refuses_a_model_of_unknown_price() -> None:
    """Counting it as 0 would break the cap."""
    with pytest.raises(BudgetExceededError, match="price is unknown"):
        ask(Script(), ["a"], [candidate("a", price=None)], budget=Budget(total="5"))


def test_a_spent_budget_stops_the_next_call() -> None:
    """What the provider billed counts, not what was estimated."""
    script = Script(outcomes=[answer(["a"], tokens=200)])
    ask(script, ["a"], [candidate("a", price="1")], budget=Budget(total="0.000201"))
    with pytest.raises(BudgetExceededError, match=r"\$0\.0002 are spent or set aside"):
        ask(script, ["b" * 20_000], [candidate("a", price="1")], budget=Budget(total="0.000201"))


def test_a_refused_request_costs_nothing_and_a_lost_one_stays_counted() -> None:
    """A 429 was never computed; a timeout may have been."""
    script = Script(outcomes=[RateLimitedError("slow"), RequestTimeoutError("late"), answer(["aaaa"], tokens=5)])
    ask(script, ["aaaa"], [candidate("a", price="1")])
    (account,) = script.ledger.totals("model").values()

    assert account.cost == 5 * Decimal(1) / 1_000_000
    assert account.unconfirmed == 4 * Decimal(1) / 1_000_000
    assert [item.tokens for item in script.ledger.unconfirmed()] == [4]


@pytest.mark.parametrize("end", [GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, ZeroDivisionError])
def test_a_call_that_ends_while_a_request_is_in_flight_leaves_it_counted(end: type[BaseException]) -> None:
    """It was probably billed, and counts against the limit of the rate. The event loop was closed, the task cancelled,
    or a backend has a defect.
    """
    script = Script(outcomes=["pending"])
    asked = calls(script, [candidate("a", price="1", requests_per_minute=1)])
    stage = asked.embed(ScriptedEffects(script), question(["aaaa"]))
    stage.send(None)
    assert states(script.ledger) == {"reserved"}

    if end is GeneratorExit:
        stage.close()
    else:
        with pytest.raises(end):
            stage.throw(end())

    assert [item.amount for item in script.ledger.unconfirmed()] == [4 * Decimal(1) / 1_000_000]
    run(asked.embed(ScriptedEffects(script), question(["aaaa"])))
    assert script.sleeps == [MINUTE]


def test_a_call_that_is_stopped_before_its_request_sets_nothing_aside() -> None:
    """Ctrl-C came while money was set aside: nothing was sent, so nothing may be owed."""

    class StoppedMeanwhile(ScriptedEffects):
        async def run_blocking(self, function: Callable[..., Any], /, *args: Any, **settings: Any) -> Any:
            before = states(script.ledger)
            result = function(*args, **settings)
            if before < states(script.ledger):
                self.stop()
            return result

    script = Script()
    asked = calls(script, [candidate("a", price="1")])
    with pytest.raises(Stopped):
        run(asked.embed(StoppedMeanwhile(script), question(["aaaa"])))

    assert script.requests == []
    assert states(script.ledger) == set()
    run(asked.embed(ScriptedEffects(script), question(["aaaa"])))


def test_a_call_that_is_stopped_while_it_waits_makes_no_further_request() -> None:
    """Nothing new is begun."""

    class StoppedAsleep(ScriptedEffects):
        async def sleep(self, seconds: float) -> None:
            self.stop()
            await super().sleep(seconds)

    script = Script(outcomes=[UnavailableError("down")])
    with pytest.raises(Stopped):
        run(calls(script, [candidate("a")]).embed(StoppedAsleep(script), question(["t"])))

    assert len(script.requests) == 1
    assert states(script.ledger) == set()


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("4E-8", "$0.00000004"), ("0", "$0.00"), ("12.3", "$12.30"), ("1E+2", "$100.00"), ("0.020", "$0.02")],
)
def test_money_is_shown_in_full(amount: str, shown: str) -> None:
    """Exponents such as $4E-8 are hard to read."""
    assert dollars(Decimal(amount)) == shown


def test_usage_and_estimate_read_as_sentences() -> None:
    """They are the first thing that users print."""
    usage = Usage(tokens=3, requests=1, cost=Decimal("6E-8"), unpriced_tokens=2)
    estimate = Estimate(3, 2, 1, 5, 1, None, "x:y", False, 3, None, True, 2_500)

    assert str(usage) == "3 tokens in 1 request, $0.00000006, 2 tokens of unknown price; saved $0.00"
    assert str(estimate) == (
        "3 texts, 2 distinct, 1 cached; the rest is about 3 tokens, at most 5, in 1 request to x:y: unknown price; "
        "2.5 kB on disk"
    )


# Lower tiers, where the user allows them


def test_queries_may_fall_to_a_lower_tier_when_no_candidate_answers() -> None:
    """Marked, and in the same space."""
    script = Script(outcomes=[UnavailableError("down", retryable=False)])
    models = [candidate("large", 2, "10"), candidate("other", 0, "1")]
    result = ask(script, ["q"], models, rank=2, input_type="query", when_unavailable="degrade")

    assert [model for model, _ in script.sent] == ["large", "other"]
    assert result.degraded == (True,)
    assert result.models == ("other",)


@pytest.mark.parametrize("when_unavailable", ["raise", "degrade"])
def test_documents_are_never_degraded(when_unavailable: Literal["raise", "degrade"]) -> None:
    """They stay in the index for good."""
    script = Script(outcomes=[UnavailableError("down", retryable=False)])
    models = [candidate("large", 2, "10"), candidate("other", 0, "1")]
    with pytest.raises(NoModelAvailableError):
        ask(script, ["d"], models, rank=2, when_unavailable=when_unavailable)

    assert [model for model, _ in script.sent] == ["large"]


def test_what_is_cached_below_the_tier_is_used_before_a_lower_model_is_called() -> None:
    """And is all there is when every model is down."""
    models = [candidate("large", 2, "10"), candidate("medium", 1, "5"), candidate("other", 0, "1")]
    script = Script()
    ask(script, ["known"], models, rank=0, input_type="query")
    script.outcomes = [UnavailableError("down", retryable=False)] * 3
    script.requests.clear()
    result = ask(script, ["known"], models, rank=2, input_type="query", when_unavailable="degrade")

    assert [model for model, _ in script.sent] == ["large", "medium"]
    assert (result.degraded, result.cached, result.models) == ((True,), (True,), ("other",))


def test_a_missing_key_is_not_degraded_over() -> None:
    """It is a mistake to mend, not an outage to bridge."""
    script = Script(outcomes=[AuthenticationError("no key")])
    models = [candidate("large", 2, "10"), candidate("other", 0, "1")]
    with pytest.raises(AuthenticationError):
        ask(script, ["q"], models, rank=2, input_type="query", when_unavailable="degrade")


def test_a_spent_budget_degrades_only_if_the_budget_says_so() -> None:
    """An outage and a spent budget are two questions."""
    models = [candidate("large", 2, "10"), candidate("free", 0, "0")]
    asked: dict[str, Any] = {"rank": 2, "input_type": "query"}
    for budget in (Budget(per_call="0.0000001"), Budget(total="0.0000001")):
        with pytest.raises(BudgetExceededError):
            ask(Script(), ["q"], models, budget=budget, when_unavailable="degrade", **asked)
    for budget in (
        Budget(per_call="0.0000001", when_exceeded="degrade"),
        Budget(total="0.0000001", when_exceeded="degrade"),
    ):
        script = Script()
        result = ask(script, ["q"], models, budget=budget, **asked)
        assert [model for model, _ in script.sent] == ["free"]
        assert result.degraded == (True,)
    with pytest.raises(BudgetExceededError):
        ask(Script(), ["d"], models, budget=Budget(total="0.0000001", when_exceeded="degrade"), rank=2)


# Beginnings of longer vectors


def test_a_cached_longer_vector_serves_a_shorter_one_where_its_maker_says_so() -> None:
    """Cut and scaled to length 1; nothing is called."""
    long = candidate("a", space=Space("space", 2), fingerprint="a at 2")
    script = Script()
    ask(script, ["text"], [long])
    script.requests.clear()
    short = replace(long, space=Space("space", 1), fingerprint="a at 1", longer=((2, "a at 2"),))
    result = ask(script, ["text"], [short], space=short.space)

    assert script.sent == []
    assert result.cached == (True,)
    assert result.vectors.tolist() == [[1.0]]


def test_a_shorter_vector_never_serves_a_longer_one() -> None:
    """Its rest is lost."""
    short = candidate("a", space=Space("space", 1), fingerprint="a at 1", longer=((2, "a at 2"),))
    script = Script(outcomes=[Answer(np.ones((1, 1), np.float32), 1)])
    ask(script, ["text"], [short], space=short.space)
    script.requests.clear()
    ask(script, ["text"], [candidate("a", fingerprint="a at 2")])

    assert script.sent == [("a", ("text",))]


# Calls that need the same text at the same time


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_a_text_that_another_call_is_embedding_is_waited_for(input_type: InputType) -> None:
    """It is paid once, and is a hit for the call that waited."""
    script = Script(outcomes=["pending"])
    router = calls(script, [candidate("a")])
    first = router.embed(ScriptedEffects(script), question(["t", "u"], input_type=input_type))
    first.send(None)
    paid: list[EmbeddingResult] = []
    effects = ScriptedEffects(script, meanwhile=lambda: paid.append(resume(first, answer(["t", "u"]))))
    second = run(router.embed(effects, question(["t", "v"], input_type=input_type)))

    assert script.sent == [("a", ("t", "u")), ("a", ("v",))]
    assert (paid[0].cached, second.cached) == ((False, False), (True, False))
    assert np.array_equal(paid[0].vectors[0], second.vectors[0])
    assert not np.shares_memory(paid[0].vectors, second.vectors)


def resume(stage: Coroutine[Any, Any, EmbeddingResult], with_answer: Answer) -> EmbeddingResult:
    """Answer the request that a call is waiting for, and return the result of the call."""
    with pytest.raises(StopIteration) as end:
        stage.send(with_answer)
    result: EmbeddingResult = end.value.value
    return result


@pytest.mark.parametrize("end", [asyncio.CancelledError, UnavailableError("gone", retryable=False), ZeroDivisionError])
def test_a_call_that_waited_in_vain_makes_the_request_itself(end: Any) -> None:
    """The other call was stopped, or failed, or its backend has a defect."""
    script = Script(outcomes=["pending"])
    router = calls(script, [candidate("a")])
    first = router.embed(ScriptedEffects(script), question(["t"]))
    first.send(None)

    def fail() -> None:
        with pytest.raises((NoModelAvailableError, asyncio.CancelledError, ZeroDivisionError)):
            first.throw(end)

    second = run(router.embed(ScriptedEffects(script, meanwhile=fail), question(["t"])))

    assert script.sent == [("a", ("t",))] * 2
    assert second.cached == (False,)


def test_a_call_waits_for_another_no_longer_than_it_may() -> None:
    """Then its time is up for a request of its own, too."""
    script = Script(outcomes=["pending"])
    router = calls(script, [candidate("a")])
    first = router.embed(ScriptedEffects(script), question(["t"]))
    first.send(None)
    with pytest.raises(NoModelAvailableError) as caught:
        run(router.embed(ScriptedEffects(script), question(["t"], deadline=5.0)))

    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert (script.now, len(script.requests)) == (5.0, 1)
    resume(first, answer(["t"]))


def test_a_call_that_never_ends_is_not_waited_for_for_ever() -> None:
    """It may belong to an event loop that is blocked until this call has ended. Two minutes without any answer are
    enough.
    """
    script = Script(outcomes=["pending"])
    router = calls(script, [candidate("a")])
    first = router.embed(ScriptedEffects(script), question(["t"]))
    first.send(None)
    second = run(router.embed(ScriptedEffects(script), question(["t"])))

    assert script.sent == [("a", ("t",))] * 2
    assert second.cached == (False,)
    assert 120 <= script.now <= 360
    resume(first, answer(["t"]))


def test_few_texts_of_calls_that_come_together_are_one_request() -> None:
    """While another call is under way. Each call pays for its own texts, and equal ones are paid once."""
    script = Script(outcomes=["pending"])
    router = calls(script, [candidate("a", price="1000000")], micro_batch_window=0.01)
    under_way = router.embed(ScriptedEffects(script), question(["t"]))
    under_way.send(None)
    results: list[EmbeddingResult] = []
    opens = ScriptedEffects(script, meanwhile=lambda: results.append(run(router.embed(joins, question(["vv", "u"])))))
    joins = ScriptedEffects(script, meanwhile=opens.run_background)
    results.append(run(router.embed(opens, question(["u", "www"]))))

    assert script.sent == [("a", ("t",)), ("a", ("u", "www", "vv"))]
    assert script.sleeps == [0.01]
    joined, opened = results
    assert (opened.usage.requests, opened.usage.cost, opened.cached) == (1, Decimal(4), (False, False))
    assert (joined.usage.requests, joined.usage.cost, joined.cached) == (0, Decimal(2), (False, True))
    resume(under_way, answer(["t"]))


# Single stages, with fakes around them


@dataclass
class Following:
    """The stage after the one that is tested: it finds every text, and notes which it was asked for."""

    candidate: Candidate
    asked: list[list[str]] = field(default_factory=list)

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        self.asked.append([*texts])
        origin = Origin(self.candidate, cached=False)
        found = {text: Found(vector(text), len(text), origin) for text in texts}
        call.report(Embedded(found))
        return Embedded(found, [Charge(1, Decimal(0))])


def test_queries_are_recalled_and_documents_pass_by() -> None:
    """A document is embedded once; a vector of a lower tier is not good enough later."""
    low = candidate("a", 0)
    following = Following(low)
    stage = Recall(QueryMemory(10_000), following)
    script = Script()
    for texts in (["q", "r"], ["r", "s"]):
        run(stage.embed(scripted_call(script, [low], input_type="query"), texts))
    again = run(stage.embed(scripted_call(script, [low], input_type="query"), ["q", "s"]))
    run(stage.embed(scripted_call(script, [low], input_type="query", rank=1), ["q"]))
    run(stage.embed(scripted_call(script, [low], input_type="document"), ["q"]))

    assert following.asked == [["q", "r"], ["s"], ["q"], ["q"]]
    assert [found.origin.cached for found in again.found.values()] == [True, True]
    assert again.charges == []


def test_the_cache_answers_what_it_has_and_hands_on_the_rest() -> None:
    """With what had been embedded here until then: other calls may write what was missing a moment ago."""
    model = candidate("a")
    cached = VectorCache(MemoryCache())
    cached.write({key_function(model, "document")("known"): Entry(vector("known"), 5)})
    claims: SingleFlight[Found] = SingleFlight()
    claims.claim((0, "document"), ["before"])
    claims.resolve((0, "document"), ["before"], lambda _: "failed")
    completed: list[int] = []

    class Noted(Following):
        async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
            completed.append(call.completed)
            return await super().embed(call, texts)

    following = Noted(model)
    stage = LookUp(CacheReader(cached, [model], "error"), claims, following)
    embedded = run(stage.embed(scripted_call(Script(), [model]), ["new", "known"]))

    assert (following.asked, completed) == ([["new"]], [1])
    assert {text: found.origin.cached for text, found in embedded.found.items()} == {"known": True, "new": False}


def test_a_claimed_text_that_was_cached_meanwhile_is_not_sent() -> None:
    """Between the look into the cache and the claim another call may have ended."""
    model = candidate("a")
    cached = VectorCache(MemoryCache())
    cached.write({key_function(model, "document")("t"): Entry(vector("t"), 1)})
    claims: SingleFlight[Found] = SingleFlight()
    claims.claim((0, "document"), ["other"])
    claims.resolve((0, "document"), ["other"], lambda _: "failed")
    following = Following(model)
    stage = Share(claims, CacheReader(cached, [model], "error"), lambda: 0.0, Events(), following)
    embedded = run(stage.embed(scripted_call(Script(), [model], completed=0), ["t", "u"]))

    assert following.asked == [["u"]]
    assert [embedded.found[text].origin.cached for text in ("t", "u")] == [True, False]


def test_a_call_that_would_block_an_event_loop_waits_for_no_other_call() -> None:
    """It would wait for a task of the very loop that it blocks."""

    class Alone(ScriptedEffects):
        @property
        def group(self) -> None:
            return None

    model, script = candidate("a"), Script()
    claims: SingleFlight[Found] = SingleFlight()
    following, reader = Following(model), CacheReader(VectorCache(None), [model], "error")
    share = Share(claims, reader, lambda: 0.0, Events(), following)
    stage = MicroBatch(0.01, lambda: 0.0, Events(), share)
    call = replace(scripted_call(script, [model]), effects=Alone(script))
    claims.claim((0, "document"), ["t"])
    run(stage.embed(call, ["t"]))

    assert following.asked == [["t"]]


class Attempts:
    """One attempt after the other, from a script of what became of each and how long it took."""

    def __init__(self, script: Script, outcomes: Sequence[tuple[Outcome, float, float]]) -> None:
        self.script, self.outcomes = script, [*outcomes]
        self.left: list[float] = []
        """Seconds that each attempt was given."""

    async def make(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], number: int, left: float, patient: bool
    ) -> Outcome:
        self.left.append(left)
        outcome, in_line, seconds = self.outcomes.pop(0)
        self.script.now += in_line + seconds
        outcome.seconds = seconds
        return outcome


def test_time_in_line_is_not_taken_from_the_tries() -> None:
    """Their time limit is the provider's; the waits between them count."""
    script = Script()
    failures = [Outcome(error=UnavailableError("down"), sent=True) for _ in range(3)]
    attempts = Attempts(script, [(failure, 100.0, 4.0) for failure in failures])
    policy = RetryPolicy(attempts=9, timeout=12, initial_wait=1, max_wait=1)
    stage = Retries(policy, lambda: script.now, lambda: 1.0, Events(), attempts)  # type: ignore[arg-type]
    tried = run(stage.request(scripted_call(script, [candidate("a")]), candidate("a"), [SizedText("t", 1)], True))

    assert attempts.left == [12, 7, 2]
    assert len(tried.attempts) == 3


def test_an_attempt_that_was_not_sent_is_not_tried_again() -> None:
    """The circuit is open, or the time is up: waiting a moment changes nothing."""
    script = Script()
    attempts = Attempts(script, [(Outcome(error=CircuitOpenError("open", retryable=True)), 0.0, 0.0)])
    stage = Retries(RetryPolicy(), lambda: script.now, lambda: 1.0, Events(), attempts)  # type: ignore[arg-type]
    tried = run(stage.request(scripted_call(script, [candidate("a")]), candidate("a"), [SizedText("t", 1)], True))

    assert (len(tried.attempts), script.sleeps) == (1, [])
    assert isinstance(tried.failure, CircuitOpenError)


def one_attempt(script: Script, model: Candidate, limits: ModelLimits) -> OneAttempt:
    return OneAttempt(calls(script, [model]).wiring, {model.index: limits}, Learned(Events()))


def free_limits(concurrency: int = 4) -> ModelLimits:
    return ModelLimits(concurrency=concurrency, requests=None, tokens=None, cooldown=10, lease=60)


def test_vectors_of_another_model_do_not_make_a_model_one_that_gives_usable_vectors() -> None:
    """They are not kept, and say nothing about the model that was declared."""
    model, learned = candidate("a"), Learned(Events())
    script = Script(outcomes=[replace(answer(["t"], 1), model="another")])
    wiring = calls(script, [model]).wiring
    wiring.served.remember(model.name, model.fingerprint, "one")
    stage = OneAttempt(wiring, {model.index: free_limits()}, learned)
    with pytest.raises(SpaceMismatchError):
        run(stage.make(scripted_call(script, [model]), model, [SizedText("t", 1)], 1, 60.0, True))

    assert learned.useful == set()


@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), min_size=1))
def test_shares_add_up_to_the_bill(total: int, weights: list[int]) -> None:
    """Not a token is lost or invented."""
    model = candidate("a", price=None)
    texts = [SizedText(str(place), weight) for place, weight in enumerate(weights)]
    script = Script(outcomes=[answer([item.text for item in texts], total)])
    stage = one_attempt(script, model, free_limits())
    outcome = run(stage.make(scripted_call(script, [model]), model, texts, 1, 60.0, True))
    shares = [found.tokens for found in outcome.embedded.found.values()]

    (charge,) = outcome.embedded.charges
    believed = plausible_count(total, sum(weights), len(weights))[0]
    assert charge.tokens == (sum(weights) if believed is None else total)
    assert sum(shares) == (charge.tokens if sum(weights) else 0)
    assert all(share >= 0 for share in shares)


def test_a_text_with_which_a_server_fails_is_not_forgotten_beside_one_that_is_too_long() -> None:
    """The halves of the request neither pass nor fail alike: the server fails with one, and refuses the other."""
    failures = [UnavailableError("internal failure", status=500) for _ in range(4)]
    script = Script(outcomes=[*failures, InputRejectedError("too long", too_long=True, limit=2)])
    with pytest.raises(NoModelAvailableError, match="internal failure"):
        ask(script, ["b", "long"], [candidate("a")], on_too_long="truncate")


@pytest.mark.parametrize("deadline", [12.0, 8.0, 10.0, 10.0 + 1e-9])
def test_setting_money_aside_takes_from_the_time_of_the_request(deadline: float) -> None:
    """Another process may hold the ledger. Where no time is left nothing is sent, and nothing stays set aside."""

    class SlowLedger(ScriptedEffects):
        async def run_blocking(self, function: Callable[..., Any], /, *args: Any, **settings: Any) -> Any:
            if not self.script.requests and not states(self.script.ledger):
                self.script.now += 10.0
            return function(*args, **settings)

    model, script = candidate("a"), Script()
    call = replace(scripted_call(script, [model], deadline=deadline), effects=SlowLedger(script))
    stage = one_attempt(script, model, free_limits())
    outcome = run(stage.make(call, model, [SizedText("t", 1)], 1, 60.0, True))

    assert [request.timeout for request in script.requests] == ([2.0] if deadline > 11 else [])
    assert states(script.ledger) == ({"settled"} if deadline > 11 else set())
    assert isinstance(outcome.error, RequestTimeoutError) is (deadline < 11)


def test_a_call_that_wakes_a_billionth_of_a_second_early_sends_nothing() -> None:
    """The request would be given up at once, and might be billed."""
    script = Script()
    with pytest.raises(NoModelAvailableError):
        ask(script, ["t"], [candidate("a")], deadline=1e-9)

    assert (script.requests, states(script.ledger)) == ([], set())


def test_a_caller_in_line_for_a_slot_gives_up_in_time() -> None:
    """Nothing was sent, so nothing may be billed; the slot is there for others."""
    model, script, limits = candidate("a"), Script(), free_limits(concurrency=1)
    in_flight = limits.admit(1, 0.0)
    assert isinstance(in_flight, Admission)
    stage = one_attempt(script, model, limits)
    call = scripted_call(script, [model], deadline=2.5)
    outcome = run(stage.make(call, model, [SizedText("t", 1)], 1, 60.0, True))

    assert isinstance(outcome.error, RequestTimeoutError)
    assert not outcome.error.perhaps_billed
    assert (script.now, script.requests, states(script.ledger)) == (2.5, [], set())
    limits.release(in_flight)
    assert isinstance(limits.admit(1, 2.5), Admission)


def test_a_caller_in_line_for_a_slot_asks_again_when_it_is_its_turn() -> None:
    """Its time begins when it gets the slot."""
    model, script, limits = candidate("a"), Script(pace=1.0), free_limits(concurrency=1)
    in_flight = limits.admit(1, 0.0)
    assert isinstance(in_flight, Admission)

    def meanwhile() -> None:
        script.now += 30.0
        limits.answered(in_flight, 1, None, script.now)

    stage = one_attempt(script, model, limits)
    call = replace(scripted_call(script, [model]), effects=ScriptedEffects(script, meanwhile))
    outcome = run(stage.make(call, model, [SizedText("t", 1)], 1, 60.0, True))

    assert (outcome.error, outcome.seconds, script.now) == (None, 1.0, 31.0)


@pytest.mark.parametrize(("circuit", "patient"), [(True, False), (True, True), (False, False), (False, True)])
def test_an_open_circuit_is_waited_for_by_the_patient_alone(circuit: bool, patient: bool) -> None:
    """The others go to the next model at once. A provider that asks for minutes is treated in the same way."""
    model, script, limits = candidate("a"), Script(), free_limits()
    error = UnavailableError("down") if circuit else RateLimitedError("slow", retry_after=100.0)
    for _ in range(8 if circuit else 1):
        admission = limits.admit(1, 0.0)
        assert isinstance(admission, Admission)
        limits.failed(admission, error, 0.0)
    stage = one_attempt(script, model, limits)
    outcome = run(stage.make(scripted_call(script, [model]), model, [SizedText("t", 1)], 1, 60.0, patient))

    if circuit and patient:
        assert (outcome.error, script.sleeps, len(script.requests)) == (None, [10.0], 1)
    else:
        assert isinstance(outcome.error, CircuitOpenError)
        assert not outcome.sent
        assert (script.sleeps, script.requests) == ([], [])
