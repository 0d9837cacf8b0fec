"""The decisions of a call, asked directly: no clock, no threads, no network.

``play`` answers a flow's effects from a script and returns what it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Budget, Estimate, RetryPolicy, Space, Usage
from embedrouter.cache import QueryMemory
from embedrouter.calls import Job, Rules
from embedrouter.calls._effects import (
    Admit,
    Afford,
    Allowance,
    Call,
    Count,
    Cut,
    Effect,
    Flow,
    Join,
    Pause,
    Read,
    Reserve,
    Settle,
    Together,
    Write,
)
from embedrouter.calls._flow import embed
from embedrouter.calls._request import _shares
from embedrouter.calls._single_flight import Flights
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.limits import Gate
from embedrouter.models._tokens import pieces
from embedrouter.spending import Ledger
from embedrouter.types import (
    Answer,
    Candidate,
    EmbeddingResult,
    Entry,
    InputType,
    Limits,
    OverlongPolicy,
    TokenCounts,
    Vectors,
    dollars,
)

SPACE = Space("space", 2)


def candidate(name: str, rank: int = 2, price: str | None = "1", **settings: Any) -> Candidate:
    limits = settings.pop("limits", Limits(texts=settings.pop("texts", 10), input_tokens=settings.pop("longest", None)))
    return Candidate(
        **{
            "index": ord(name[0]),
            "name": name,
            "tier": ("low", "medium", "high")[rank],
            "rank": rank,
            "space": SPACE,
            "fingerprint": name,
            "symmetric": False,
            "price": None if price is None else Decimal(price),
            "limits": limits,
            "concurrency": 4,
            "timeout": 30,
            **settings,
        }
    )


@dataclass
class World:
    """Performs effects in order and remembers them; ``outcomes`` scripts the calls, ``None`` is a good answer."""

    outcomes: list[Answer | Exception | None] = field(default_factory=list)
    cache: dict[bytes, Entry] = field(default_factory=dict)
    exact: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    budget: Budget = field(default_factory=Budget)
    now: float = 0.0
    call_seconds: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    gate: Callable[[], Gate] = lambda: Gate(requests=None, tokens=None, cooldown=0, lease=60)
    gates: dict[str, Gate] = field(default_factory=dict)
    under_way: dict[Hashable, Future[Any]] = field(default_factory=dict)

    def play(self, flow: Flow[Any]) -> Any:
        outcome: Any = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration as end:
                return end.value
            self.effects.append(effect)
            outcome = self.perform(effect)

    def perform(self, effect: Effect) -> Any:
        match effect:
            case Read(keys):
                return {key: self.cache[key] for key in keys if key in self.cache}
            case Write(entries):
                self.cache.update(entries)
            case Count(_, texts):
                return TokenCounts([len(text) for text in texts], self.exact)
            case Cut(_, text, _, limit, policy):
                return pieces(text, limit, policy, len)
            case Allowance(model):
                return self.ledger.free_tokens(model.name, model.free_tokens)
            case Afford(amount):
                return self.ledger.refusal(self.budget, amount)
            case Reserve(spending):
                return self.ledger.reserve(self.budget, spending)
            case Settle(reservation, billed, unconfirmed, entries):
                self.cache.update(entries)
                if billed is not None:
                    return self.ledger.settle(reservation, *billed)
                if unconfirmed:
                    self.ledger.mark_unconfirmed(reservation)
                else:
                    self.ledger.release(reservation)
            case Join(names):
                return {name: future for name, future in self.under_way.items() if name in names}
            case Admit(model, amount, least):
                return self.gates.setdefault(model.name, self.gate()).admit(amount, self.now, least=least)
            case Pause(seconds):
                self.now += seconds
            case Together(flows):
                for flow in flows:
                    self.play(flow)
            case Call(model, texts):
                self.now += self.call_seconds
                outcome = (self.outcomes.pop(0) if self.outcomes else None) or answer(texts)
                gate = self.gates[model.name]
                if isinstance(outcome, Answer):
                    gate.answered(effect.admission, outcome.tokens, outcome.limits, self.now)
                elif isinstance(outcome, BackendError):
                    gate.failed(effect.admission, outcome, self.now)
                return outcome
        return None

    def asked(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def calls(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(call.candidate.name, tuple(call.texts)) for call in self.asked(Call)]


def vector(text: str) -> Vectors:
    return np.array([len(text), 1 + sum(map(ord, text))], np.float32)


def answer(texts: Sequence[str], tokens: int | None = None) -> Answer:
    return Answer(np.stack([vector(text) for text in texts]), tokens)


def ask(
    world: World,
    texts: Sequence[str],
    candidates: Sequence[Candidate],
    *,
    rank: int = 0,
    on_too_long: OverlongPolicy = "error",
    retry: RetryPolicy | None = None,
    budget: Budget | None = None,
    deadline: float | None = None,
    chance: Callable[[], float] = lambda: 1.0,
    input_type: InputType = "document",
    when_unavailable: Literal["raise", "degrade"] = "raise",
    space: Space = SPACE,
) -> EmbeddingResult:
    world.budget = budget or Budget()
    job = Job(
        rules=Rules(
            candidates=candidates,
            space=space,
            retry=retry or RetryPolicy(attempts=3),
            on_too_long=on_too_long,
            when_unavailable=when_unavailable,
            budget=budget or Budget(),
            flights=Flights(),
            memory=QueryMemory(0),
            cached=True,
            cache_dtype="float32",
            together=False,
            book=lambda job: None,
            abandon=world.ledger.mark_unconfirmed,
            withdraw=lambda model, admission: world.gates[model.name].withdraw(admission),
            clock=lambda: world.now,
            chance=chance,
        ),
        texts=texts,
        input_type=input_type,
        rank=rank,
        deadline=deadline,
    )
    result: EmbeddingResult = world.play(embed(job))
    return result


# Duplicates, cache, order


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=30))
def test_each_distinct_text_is_sent_once_and_every_position_gets_its_vector(texts: list[str]) -> None:
    """Paying twice for a text is waste; mixing up positions is worse."""
    world = World()
    result = ask(world, texts, [candidate("a", texts=4)])

    sent = [text for _, batch in world.calls for text in batch]
    assert sorted(sent) == sorted(set(texts))
    assert [tuple(row) for row in result.vectors] == [tuple(vector(text)) for text in texts]


@given(st.sets(st.text("abc", min_size=1, max_size=3)), st.sets(st.text("abc", min_size=1, max_size=3)))
def test_what_was_answered_before_is_not_asked_again(first: set[str], second: set[str]) -> None:
    """The cache serves exactly the overlap."""
    world = World()
    ask(world, sorted(first), [candidate("a")])
    world.effects.clear()
    texts = sorted(second)
    result = ask(world, texts, [candidate("a")])

    assert {text for _, batch in world.calls for text in batch} == second - first
    assert result.cached == tuple(text in first for text in texts)


def test_a_better_cached_vector_beats_a_cheaper_call() -> None:
    """It is already paid for."""
    large, lite = candidate("large", 2, "10"), candidate("lite", 0, "1")
    world = World()
    ask(world, ["t"], [large, lite], rank=2)
    result = ask(world, ["t"], [large, lite], rank=0)

    assert world.calls == [("large", ("t",))]
    assert result.models == ("large",)
    assert result.cached == (True,)


def test_a_cached_vector_below_the_asked_tier_is_not_used() -> None:
    """Quality that was asked for is delivered."""
    large, lite = candidate("large", 2, "10"), candidate("lite", 0, "1")
    world = World()
    ask(world, ["t"], [large, lite], rank=0)
    result = ask(world, ["t"], [large, lite], rank=2)

    assert [name for name, _ in world.calls] == ["lite", "large"]
    assert result.models == ("large",)


def test_the_cheapest_model_that_is_good_enough_is_asked() -> None:
    """Unknown prices last, then the order of declaration."""
    world = World()
    ask(world, ["t"], [candidate("dear", price="5"), candidate("unknown", price=None), candidate("cheap", price="1")])

    assert world.calls == [("cheap", ("t",))]


def test_a_tier_above_every_model_is_refused_before_any_call() -> None:
    """Nothing was spent, and the message says what to do."""
    world = World()
    with pytest.raises(NoModelAvailableError, match="Ask for a lower tier"):
        ask(world, ["t"], [candidate("low", 0)], rank=2)

    assert world.calls == []


def test_an_answer_is_written_before_the_next_request_is_decided() -> None:
    """A run that dies later has lost nothing that was paid for."""
    world = World()
    ask(world, ["a", "b"], [candidate("a", texts=1)])
    done = [effect for effect in world.effects if isinstance(effect, Call | Settle)]

    assert [type(effect) for effect in done] == [Call, Settle, Call, Settle]
    assert [len(effect.entries) for effect in done if isinstance(effect, Settle)] == [1, 1]


def test_when_a_later_request_fails_the_earlier_ones_are_cached() -> None:
    """The next run pays for the rest only."""
    world = World(outcomes=[None, AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        ask(world, ["a", "b", "c"], [candidate("a", texts=1)])
    world.effects.clear()
    ask(world, ["a", "b", "c"], [candidate("a", texts=1)])

    assert world.calls == [("a", ("b",)), ("a", ("c",))]


def test_a_local_model_gets_texts_of_equal_length_together() -> None:
    """They need no padding; the result is in the user's order all the same."""
    world = World()
    texts = ["cccc", "a", "bb", "dddd", "e", "ff"]
    result = ask(world, texts, [candidate("a", price="0", texts=2, local=True)])

    assert [batch for _, batch in world.calls] == [("a", "e"), ("bb", "ff"), ("cccc", "dddd")]
    assert [tuple(row) for row in result.vectors] == [tuple(vector(text)) for text in texts]


# Trying again


def test_a_retryable_failure_is_tried_again_after_a_pause() -> None:
    """As often as the policy allows."""
    world = World(outcomes=[RateLimitedError("slow"), UnavailableError("down"), None])
    ask(world, ["t"], [candidate("a")], retry=RetryPolicy(attempts=3, initial_wait=1))

    assert len(world.calls) == 3
    assert [pause.seconds for pause in world.asked(Pause)] == [2, 4]


def test_the_wait_a_provider_asks_for_is_kept() -> None:
    """Never shorter than asked; a little longer, so that callers do not return together."""
    world = World(outcomes=[RateLimitedError("slow", retry_after=7.0)])
    ask(world, ["t"], [candidate("a")])

    (pause,) = world.asked(Pause)
    assert 7 <= pause.seconds <= 8


def test_a_wait_beyond_the_time_allowed_is_not_begun() -> None:
    """Waiting for nothing helps nobody: fail, or go to the next model, at once."""
    world = World(outcomes=[RateLimitedError("slow", retry_after=120.0)])
    result = ask(world, ["t"], [candidate("a", price="1"), candidate("b", price="2")], retry=RetryPolicy(timeout=60))

    assert world.asked(Pause) == []
    assert result.models == ("b",)


def test_a_failure_that_cannot_pass_is_not_tried_again() -> None:
    """A used-up quota stays used up."""
    world = World(outcomes=[RateLimitedError("quota", retryable=False)])
    with pytest.raises(NoModelAvailableError):
        ask(world, ["t"], [candidate("a")])

    assert len(world.calls) == 1


def test_the_next_model_takes_over_when_tries_run_out() -> None:
    """Within the space, so the vectors stay comparable."""
    world = World(outcomes=[UnavailableError("down")] * 3)
    result = ask(world, ["t"], [candidate("a", price="1"), candidate("b", price="2")])

    assert [name for name, _ in world.calls] == ["a", "a", "a", "b"]
    assert result.models == ("b",)


def test_the_next_model_gets_requests_of_its_own_size() -> None:
    """Providers differ in what one request may hold."""
    world = World(outcomes=[UnavailableError("down", retryable=False)])
    ask(world, list("abcde"), [candidate("a", price="1", texts=10), candidate("b", price="2", texts=2)])

    assert [(name, len(batch)) for name, batch in world.calls] == [("a", 5), ("b", 2), ("b", 2), ("b", 1)]


def test_what_the_first_model_answered_is_not_sent_to_the_second() -> None:
    """Half a batch that is paid for stays paid for."""
    world = World(outcomes=[UnavailableError("x", retryable=False), None, UnavailableError("x", retryable=False)])
    models = [candidate("a", price="1"), candidate("b", price="2", texts=2), candidate("c", price="3")]
    ask(world, list("wxyz"), models)

    assert world.calls == [("a", tuple("wxyz")), ("b", ("w", "x")), ("b", ("y", "z")), ("c", ("y", "z"))]


def test_the_last_error_tells_the_whole_story() -> None:
    """Every attempt with its model and cause, in order."""
    world = World(outcomes=[UnavailableError("one"), RateLimitedError("two"), RequestTimeoutError("three")])
    with pytest.raises(NoModelAvailableError) as caught:
        ask(world, ["t"], [candidate("a", price="1"), candidate("b", price="2")], retry=RetryPolicy(attempts=1))

    assert [(attempt.model, type(attempt.error)) for attempt in caught.value.attempts] == [
        ("a", UnavailableError),
        ("b", RateLimitedError),
    ]
    assert isinstance(caught.value.__cause__, RateLimitedError)
    assert "1. a: UnavailableError: one" in str(caught.value)


def test_a_missing_key_is_never_a_silent_step_to_a_dearer_model() -> None:
    """The user would learn it from the bill."""
    world = World(outcomes=[AuthenticationError("no key")])
    with pytest.raises(AuthenticationError, match="no key"):
        ask(world, ["t"], [candidate("cheap", price="1"), candidate("dear", price="2")])

    assert len(world.calls) == 1


def test_with_a_wrong_key_a_model_of_the_same_price_takes_over() -> None:
    """One model in two places: a revoked key in one is no reason to fail."""
    world = World(outcomes=[AuthenticationError("revoked")])
    result = ask(world, ["t"], [candidate("a", price="1"), candidate("b", price="1")])

    assert result.models == ("b",)


def test_a_configuration_error_stops_at_once() -> None:
    """A missing package is not a provider's failure."""
    world = World(outcomes=[ConfigError("pip install")])
    with pytest.raises(ConfigError, match="pip install"):
        ask(world, ["t"], [candidate("a", price="1"), candidate("b", price="2")])


@pytest.mark.parametrize("retry", [RetryPolicy(timeout=10), RetryPolicy(timeout=100)])
def test_a_request_and_its_tries_end_in_time(retry: RetryPolicy) -> None:
    """Attempts are given what is left of the policy's time, and of the call's."""
    world = World(outcomes=[UnavailableError("down")] * 50, call_seconds=3)
    with pytest.raises(NoModelAvailableError):
        ask(world, ["t"], [candidate("a")], retry=retry, deadline=12)

    allowed = min(retry.timeout, 12)
    assert world.now <= allowed + 3
    assert all(call.timeout <= allowed for call in world.asked(Call))


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
    outcomes: list[Answer | Exception | None], attempts: int, policy: OverlongPolicy
) -> None:
    """Within the number of calls that the policy allows; every vector is the one of its text; money is settled."""
    world = World(outcomes=list(outcomes), exact=False)
    models = [candidate("a", price="1", texts=2, longest=5), candidate("b", price="2", texts=3, longest=5)]
    texts = ["t", "uu", "vvv", "wwwwww"]
    try:
        result = ask(
            world,
            texts,
            models,
            retry=RetryPolicy(attempts=attempts, timeout=20),
            on_too_long=policy,
        )
    except (BackendError, NoModelAvailableError):
        pass
    else:
        for row, text, short in zip(result.vectors, texts, result.shortened, strict=True):
            assert short or tuple(row) == tuple(vector(text))
    assert len(world.calls) <= attempts * len(models) * 8
    assert states(world.ledger) <= {"settled", "unconfirmed"}


# What an answer must be


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (np.ones((1, 2), np.float32), r"shape \(1, 2\) came for 2 texts"),
        (np.ones((3, 2), np.float32), r"shape \(3, 2\) came for 2 texts"),
        (np.ones((2, 3), np.float32), r"shape \(2, 3\)"),
        (np.ones((2,), np.float32), "shape"),
        (np.array([[1, 1], [np.nan, 1]], np.float32), "not finite"),
        (np.array([[1, 1], [np.inf, 1]], np.float32), "not finite"),
        (np.array([[1, 1], [0, 0]], np.float32), "all zeros"),
        (np.ones((2, 2), np.float64), "float64"),
    ],
)
def test_an_answer_that_is_not_the_vectors_asked_for_is_a_failed_attempt(vectors: Vectors, complaint: str) -> None:
    """Never a None, never a cache entry."""
    world = World(outcomes=[Answer(vectors, 7)] * 3)
    with pytest.raises(NoModelAvailableError, match=complaint) as caught:
        ask(world, ["a", "b"], [candidate("a")])

    assert isinstance(caught.value.__cause__, BadResponseError)
    assert len(world.calls) == 3
    assert world.cache == {}


def test_a_wrong_answer_is_tried_again_and_what_it_cost_is_counted() -> None:
    """The provider bills it all the same."""
    world = World(outcomes=[Answer(np.ones((1, 2), np.float32), 7)])
    result = ask(world, ["a", "b"], [candidate("a")])

    assert result.usage.tokens == 7 + 2
    assert [tuple(row) for row in result.vectors] == [tuple(vector("a")), tuple(vector("b"))]


# Texts over the limit


def test_a_text_known_to_be_too_long_is_refused_before_anything_is_sent() -> None:
    """The error lists positions, names the limit and the ways out."""
    world = World()
    with pytest.raises(InvalidInputError, match=r"5 tokens.*on_too_long='truncate'") as caught:
        ask(world, ["ok", "too long", "ok", "too long"], [candidate("a", longest=5)])

    assert caught.value.indices == (1, 3)
    assert world.calls == []


def test_truncate_embeds_the_beginning_and_says_so() -> None:
    """Never a silent cut."""
    world = World()
    result = ask(world, ["ok", "abcdefgh"], [candidate("a", longest=5)], on_too_long="truncate")

    assert result.shortened == (False, True)
    assert tuple(result.vectors[1]) == tuple(vector("abcde"))


def test_mean_averages_the_parts_weighted_by_length() -> None:
    """And gives a unit vector."""
    world = World()
    result = ask(world, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")
    expected = (5 * vector("abcde") + 3 * vector("fgh")) / 8

    assert result.shortened == (True,)
    assert np.allclose(result.vectors[0], expected / np.linalg.norm(expected))


@pytest.mark.parametrize("policy", ["truncate", "mean"])
@given(texts=st.lists(st.sampled_from(["a", "bc", "abcdefgh", "abcdefghijklmno", "abcde"]), min_size=1, max_size=9))
def test_whatever_is_repeated_and_cut_each_text_has_its_own_vector(policy: OverlongPolicy, texts: list[str]) -> None:
    """Also where there are as many parts as repetitions, or a part is one of the texts."""
    together = ask(World(), texts, [candidate("a", longest=5)], on_too_long=policy)
    alone = {text: ask(World(), [text], [candidate("a", longest=5)], on_too_long=policy) for text in texts}

    assert together.vectors.shape[0] == len(texts)
    for text, row, shortened in zip(texts, together.vectors, together.shortened, strict=True):
        assert np.array_equal(row, alone[text].vectors[0])
        assert shortened == alone[text].shortened[0] == (len(text) > 5)


@pytest.mark.parametrize("exact", [True, False])
def test_a_shortened_text_is_a_hit_the_next_time(exact: bool) -> None:
    """Without counting, cutting or asking anything."""
    world = World(exact=exact, outcomes=[] if exact else [InputRejectedError("too long", too_long=True)])
    first = ask(world, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")
    world.effects.clear()
    second = ask(world, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert {type(effect) for effect in world.effects} == {Read}
    assert np.array_equal(first.vectors, second.vectors)
    assert second.shortened == (True,)


def test_policies_do_not_share_cache_entries() -> None:
    """The beginning of a text is another vector than the mean of its parts."""
    world = World()
    truncated = ask(world, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="truncate")
    averaged = ask(world, ["abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert averaged.cached == (False,)
    assert not np.array_equal(truncated.vectors, averaged.vectors)


def test_the_parts_of_a_long_text_count_before_the_first_paid_call() -> None:
    """A job that does not fit the budget pays for nothing, however its texts are cut."""
    world = World()
    with pytest.raises(BudgetExceededError, match=r"\$12\.00 more would pass total=\$11\.00"):
        ask(
            world,
            ["abcd", "abcdefgh"],
            [candidate("a", longest=5, price="1000000")],
            on_too_long="mean",
            budget=Budget(total="11"),
        )

    assert not world.calls


def test_a_part_that_is_another_text_or_cached_is_sent_once() -> None:
    """Parts are ordinary texts, and travel with the others."""
    world = World()
    ask(world, ["fgh"], [candidate("a", longest=5)])
    result = ask(world, ["abcde", "abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert world.calls == [("a", ("fgh",)), ("a", ("abcde",))]
    assert result.shortened == (False, True)


def test_where_the_count_is_an_estimate_the_provider_decides() -> None:
    """The doubtful text travels alone, so that its refusal harms no other."""
    world = World(exact=False)
    result = ask(world, ["a", "doubtful", "b"], [candidate("a", longest=5)])

    assert world.calls == [("a", ("a", "b")), ("a", ("doubtful",))]
    assert result.shortened == (False, False, False)


def test_a_providers_refusal_triggers_the_policy() -> None:
    """The parts are sent as ordinary texts."""
    world = World(exact=False, outcomes=[None, InputRejectedError("maximum context length", too_long=True)])
    result = ask(world, ["a", "abcdefgh"], [candidate("a", longest=5)], on_too_long="mean")

    assert world.calls == [("a", ("a",)), ("a", ("abcdefgh",)), ("a", ("abcde", "fgh"))]
    assert result.shortened == (False, True)


def test_without_a_policy_a_providers_refusal_names_positions_and_ways_out() -> None:
    """The rest is in the cache."""
    world = World(exact=False, outcomes=[None, InputRejectedError("too long", too_long=True)])
    with pytest.raises(InputRejectedError, match="on_too_long='truncate'") as caught:
        ask(world, ["a", "doubtful", "b", "doubtful"], [candidate("a", longest=5)])

    assert caught.value.indices == (1, 3)
    assert len(world.cache) == 2


def test_a_backend_that_knows_the_culprits_saves_the_others() -> None:
    """Only they are cut."""
    refusal = InputRejectedError("too long", too_long=True, indices=[1])
    world = World(exact=False, outcomes=[refusal])
    result = ask(world, ["a", "abcd", "b"], [candidate("a", longest=5)], on_too_long="truncate")

    assert world.calls[:2] == [("a", ("a", "abcd", "b")), ("a", ("a", "b"))]
    assert result.shortened == (False, True, False)


# Money


def test_billed_tokens_are_the_providers_and_split_among_the_texts() -> None:
    """A hit then knows what it saved."""
    world = World(outcomes=[answer(["aa", "bbbb"], tokens=13)])
    paid = ask(world, ["aa", "bbbb"], [candidate("a", price="2")])
    warm = ask(world, ["aa", "bbbb", "aa"], [candidate("a", price="2")])

    assert paid.usage.tokens == 13
    assert paid.usage.cost == 13 * Decimal("2") / 1_000_000
    assert warm.usage.cost == 0
    assert warm.usage.requests == 0
    assert warm.usage.saved == (13 + 4) * Decimal("2") / 1_000_000


def test_duplicates_inside_a_call_count_as_saved() -> None:
    """They would have been paid for elsewhere."""
    result = ask(World(), ["aa", "aa", "aa"], [candidate("a", price="1")])

    assert result.usage.tokens == 2
    assert result.usage.saved == 4 * Decimal("1") / 1_000_000


def test_tokens_of_unknown_price_are_listed_apart() -> None:
    """They are not free."""
    result = ask(World(), ["aaa"], [candidate("a", price=None)])

    assert result.usage.unpriced_tokens == 3
    assert result.usage.cost == 0


@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), min_size=1))
def test_shares_add_up_to_the_bill(total: int, weights: list[int]) -> None:
    """Not a token is lost or invented."""
    shares = _shares(total, weights)

    assert sum(shares) == (total if sum(weights) else 0)
    assert all(share >= 0 for share in shares)


def test_a_call_over_the_budget_is_refused_before_the_first_request() -> None:
    """With the figures, and the way out."""
    world = World()
    with pytest.raises(BudgetExceededError, match=r"per_call=\$0\.000001") as caught:
        ask(world, ["aaaa"], [candidate("a", price="1")], budget=Budget(per_call="0.000001"))

    assert world.calls == []
    assert "$0.000004" in str(caught.value)


def test_a_money_budget_refuses_a_model_of_unknown_price() -> None:
    """Counting it as 0 would break the cap."""
    with pytest.raises(BudgetExceededError, match="price is unknown"):
        ask(World(), ["a"], [candidate("a", price=None)], budget=Budget(total="5"))


def test_a_spent_budget_stops_the_next_call() -> None:
    """What the provider billed counts, not what was estimated."""
    world = World(outcomes=[answer(["a"], tokens=900_000)])
    ask(world, ["a"], [candidate("a", price="1")], budget=Budget(total="0.91"))
    with pytest.raises(BudgetExceededError, match=r"\$0\.90 are spent or set aside"):
        ask(world, ["b" * 20_000], [candidate("a", price="1")], budget=Budget(total="0.91"))


def test_a_refused_request_costs_nothing_and_a_lost_one_stays_counted() -> None:
    """A 429 was never computed; a timeout may have been."""
    world = World(outcomes=[RateLimitedError("slow"), RequestTimeoutError("late"), answer(["aaaa"], tokens=5)])
    ask(world, ["aaaa"], [candidate("a", price="1")])
    (account,) = world.ledger.totals("model").values()

    assert account.cost == 5 * Decimal(1) / 1_000_000
    assert account.unconfirmed == 4 * Decimal(1) / 1_000_000
    assert [item.tokens for item in world.ledger.unconfirmed()] == [4]


def test_a_flow_stopped_while_a_request_is_in_flight_leaves_it_counted() -> None:
    """It was probably billed."""
    world = World()
    job = Job(
        rules=Rules(
            candidates=[candidate("a", price="1")],
            space=SPACE,
            retry=RetryPolicy(),
            on_too_long="error",
            when_unavailable="raise",
            budget=Budget(),
            flights=Flights(),
            memory=QueryMemory(0),
            cached=True,
            cache_dtype="float32",
            together=False,
            book=lambda job: None,
            abandon=world.ledger.mark_unconfirmed,
            withdraw=lambda model, admission: world.gates[model.name].withdraw(admission),
            clock=lambda: 0.0,
            chance=lambda: 1.0,
        ),
        texts=["aaaa"],
        input_type="document",
        rank=0,
    )
    effect: Effect = Together([embed(job)], 1)
    while not isinstance(effect, Call):
        if isinstance(effect, Together):
            (flow,) = effect.flows
            effect = next(flow)
        else:
            effect = flow.send(world.perform(effect))
    assert states(world.ledger) == {"reserved"}

    flow.close()

    assert [item.amount for item in world.ledger.unconfirmed()] == [4 * Decimal(1) / 1_000_000]


def states(ledger: Ledger) -> set[str]:
    """Return the states of a ledger's requests."""
    with ledger.transaction() as database:
        return {state for (state,) in database.execute("SELECT state FROM requests")}


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("4E-8", "$0.00000004"), ("0", "$0.00"), ("12.3", "$12.30"), ("1E+2", "$100.00"), ("0.020", "$0.02")],
)
def test_money_is_shown_in_full(amount: str, shown: str) -> None:
    """Nobody reads $4E-8."""
    assert dollars(Decimal(amount)) == shown


def test_usage_and_estimate_read_as_sentences() -> None:
    """They are the first thing everybody prints."""
    usage = Usage(tokens=3, requests=1, cost=Decimal("6E-8"), unpriced_tokens=2)
    estimate = Estimate(3, 2, 1, 5, 1, None, "x:y", exact=False)

    assert str(usage) == "3 tokens in 1 requests, $0.00000006, 2 tokens of unknown price; saved $0.00"
    assert str(estimate) == (
        "3 texts, 2 distinct, 1 cached; the rest is about 5 tokens in 1 requests to x:y: unknown price"
    )


# Lower tiers, where the user allows them


def test_queries_may_fall_to_a_lower_tier_when_nothing_else_answers() -> None:
    """Marked, and in the same space."""
    world = World(outcomes=[UnavailableError("down", retryable=False)])
    models = [candidate("large", 2, "10"), candidate("lite", 0, "1")]
    result = ask(world, ["q"], models, rank=2, input_type="query", when_unavailable="degrade")

    assert [name for name, _ in world.calls] == ["large", "lite"]
    assert result.degraded == (True,)
    assert result.models == ("lite",)


@pytest.mark.parametrize("when_unavailable", ["raise", "degrade"])
def test_documents_are_never_degraded(when_unavailable: Literal["raise", "degrade"]) -> None:
    """They stay in the index for good."""
    world = World(outcomes=[UnavailableError("down", retryable=False)])
    with pytest.raises(NoModelAvailableError):
        ask(
            world,
            ["d"],
            [candidate("large", 2, "10"), candidate("lite", 0, "1")],
            rank=2,
            when_unavailable=when_unavailable,
        )

    assert [name for name, _ in world.calls] == ["large"]


def test_what_is_cached_below_the_tier_is_used_before_a_lower_model_is_called() -> None:
    """And is all there is when every model is down."""
    models = [candidate("large", 2, "10"), candidate("medium", 1, "5"), candidate("lite", 0, "1")]
    world = World()
    ask(world, ["known"], models, rank=0, input_type="query")
    world.outcomes = [UnavailableError("down", retryable=False)] * 3
    world.effects.clear()
    result = ask(world, ["known"], models, rank=2, input_type="query", when_unavailable="degrade")

    assert [name for name, _ in world.calls] == ["large", "medium"]
    assert (result.degraded, result.cached, result.models) == ((True,), (True,), ("lite",))


def test_a_missing_key_is_not_degraded_over() -> None:
    """It is a mistake to mend, not an outage to bridge."""
    world = World(outcomes=[AuthenticationError("no key")])
    models = [candidate("large", 2, "10"), candidate("lite", 0, "1")]
    with pytest.raises(AuthenticationError):
        ask(world, ["q"], models, rank=2, input_type="query", when_unavailable="degrade")


def test_a_spent_budget_degrades_only_if_the_budget_says_so() -> None:
    """An outage and an empty purse are two questions."""
    models = [candidate("large", 2, "10"), candidate("free", 0, "0")]
    asked: dict[str, Any] = {"rank": 2, "input_type": "query"}
    for budget in (Budget(per_call="0.0000001"), Budget(total="0.0000001")):
        with pytest.raises(BudgetExceededError):
            ask(World(), ["q"], models, budget=budget, when_unavailable="degrade", **asked)
    for budget in (
        Budget(per_call="0.0000001", when_exceeded="degrade"),
        Budget(total="0.0000001", when_exceeded="degrade"),
    ):
        world = World()
        result = ask(world, ["q"], models, budget=budget, **asked)
        assert [name for name, _ in world.calls] == ["free"]
        assert result.degraded == (True,)
    with pytest.raises(BudgetExceededError):
        ask(World(), ["d"], models, budget=Budget(total="0.0000001", when_exceeded="degrade"), rank=2)


# Beginnings of longer vectors


def test_a_cached_longer_vector_serves_a_shorter_one_where_its_maker_says_so() -> None:
    """Cut and scaled to length 1; nothing is called."""
    long = candidate("a", space=Space("space", 2), fingerprint="a at 2")
    world = World()
    ask(world, ["text"], [long])
    world.effects.clear()
    short = replace(long, space=Space("space", 1), fingerprint="a at 1", longer=((2, "a at 2"),))
    result = ask(world, ["text"], [short], space=short.space)

    assert world.calls == []
    assert result.cached == (True,)
    assert result.vectors.tolist() == [[1.0]]


def test_a_shorter_vector_never_serves_a_longer_one() -> None:
    """Its rest is lost."""
    short = candidate("a", space=Space("space", 1), fingerprint="a at 1", longer=((2, "a at 2"),))
    world = World(outcomes=[Answer(np.ones((1, 1), np.float32), 1)])
    ask(world, ["text"], [short], space=short.space)
    world.effects.clear()
    ask(world, ["text"], [candidate("a", fingerprint="a at 2")])

    assert world.calls == [("a", ("text",))]
