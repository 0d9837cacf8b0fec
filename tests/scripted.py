"""Calls without threads, event loops, clocks or networks: effects that answer requests from a script.

    script = Script(outcomes=[UnavailableError("down")])
    result = ask(script, ["text"], [candidate("a")])
    assert [request.model for request in script.requests] == ["a", "a"]

A stage is a coroutine that waits in its effects alone. These never suspend, so ``run`` steps a whole call in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np

from embedrouter import Budget, EmbeddingResult, RetryPolicy, Space
from embedrouter.cache import QueryMemory, ServedNames, VectorCache
from embedrouter.calls import Calls, Degradation, Question, Wiring
from embedrouter.calls._call import Call
from embedrouter.calls._effects import Stopped
from embedrouter.calls._sync import run
from embedrouter.events import Event, Events
from embedrouter.models import Backend
from embedrouter.spending import Ledger, UsageTotals
from embedrouter.testing import MemoryCache
from embedrouter.types import Answer, Candidate, InputType, Limits, OverlongPolicy, TokenCounts, Vectors

__all__ = [
    "SPACE",
    "CharacterBackend",
    "Outcome",
    "Request",
    "Script",
    "ScriptedEffects",
    "answer",
    "ask",
    "calls",
    "candidate",
    "question",
    "scripted_call",
    "states",
    "vector",
]

T = TypeVar("T")
P = ParamSpec("P")

SPACE = Space("space", 2)

Outcome: TypeAlias = "Answer | BaseException | Literal['pending'] | None"
"""What becomes of a request: it is answered or fails, it is pending until the test resumes the call with ``send``, or
(``None``) it gets the right answer."""


def vector(text: str) -> Vectors:
    """Return the right vector of a text."""
    return np.array([len(text), 1 + sum(map(ord, text))], np.float32)


def answer(texts: Sequence[str], tokens: int | None = None) -> Answer:
    """Return the right answer to a request."""
    return Answer(np.stack([vector(text) for text in texts]), tokens)


def candidate(name: str, rank: int = 2, price: str | None = "1", **settings: Any) -> Candidate:
    """Return a model with a request of at most ``texts=`` texts, and ``longest=`` tokens in one text."""
    limits = settings.pop("limits", Limits(texts=settings.pop("texts", 10), input_tokens=settings.pop("longest", None)))
    facts: dict[str, Any] = {
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
    }
    return Candidate(**{**facts, **settings})


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model."""

    model: str
    texts: tuple[str, ...]
    timeout: float
    cached: int
    """Rows in the cache when the request was made."""


@dataclass
class Script:
    """What happens to requests, and what calls have done so far.

    Calls that are given the same script share its cache, its ledger and its clock.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    """Of the next requests; those after the last get the right answer."""
    seconds: list[float] = field(default_factory=list)
    """That the next requests take, no longer than their timeout; those after the last take ``pace``."""
    pace: float = 0.0
    exact: bool = True
    """Whether the models' tokenizers are known: a character is a token."""
    now: float = 0.0
    store: MemoryCache = field(default_factory=MemoryCache)
    ledger: Ledger = field(default_factory=Ledger)
    requests: list[Request] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)

    @property
    def sent(self) -> list[tuple[str, tuple[str, ...]]]:
        """The model and the texts of each request."""
        return [(request.model, request.texts) for request in self.requests]


class CharacterBackend(Backend):
    """A model that counts a character as a token, and leaves requests to the effects."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self._script = script

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        raise AssertionError("requests are made by the effects")

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        self._script.counted += texts
        return TokenCounts([len(text) for text in texts], self._script.exact)


class _Pending:
    """Suspends a coroutine until it is resumed with an answer."""

    def __await__(self) -> Generator[None, Answer, Answer]:
        return (yield)


class ScriptedEffects:
    """Answers requests from a script; what would wait lets the script's clock go on instead.

    Args:
        meanwhile: what happens while the call waits for a future for the first time.
    """

    def __init__(self, script: Script, meanwhile: Callable[[], object] | None = None) -> None:
        self.script = script
        self._meanwhile = meanwhile
        self.background: list[Coroutine[Any, Any, None]] = []
        """What was started and has not run yet."""
        self._stopped = False

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        return function(*args, **settings)

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        script = self.script
        assert isinstance(backend, CharacterBackend)
        script.requests.append(Request(backend.name, tuple(texts), timeout, len(script.store.rows)))
        script.now += min(timeout, script.seconds.pop(0) if script.seconds else script.pace)
        outcome = script.outcomes.pop(0) if script.outcomes else None
        if outcome == "pending":
            return await _Pending()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Answer) else answer(texts)

    async def sleep(self, seconds: float) -> None:
        self.check()
        self.script.sleeps.append(seconds)
        self.script.now += seconds
        self.check()

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        self.check()
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        if not all(future.done() for future in futures):
            assert seconds is not None, "nothing here will ever resolve this future"
            self.script.now += max(0.0, seconds)
        self.check()

    async def run_concurrently(self, stages: Sequence[Coroutine[Any, Any, T]], width: int) -> list[T]:
        waiting = list(stages)
        try:
            return [await waiting.pop(0) for _ in stages]
        finally:
            for stage in waiting:
                stage.close()

    async def run_until_stopped(self, stage: Coroutine[Any, Any, T]) -> T:
        return await stage

    def start(self, stage: Coroutine[Any, Any, None]) -> None:
        self.background.append(stage)

    @property
    def group(self) -> Hashable:
        return "script"

    @property
    def loop(self) -> None:
        return None

    @property
    def blocked_loop(self) -> None:
        return None

    def detached(self) -> ScriptedEffects:
        effects = ScriptedEffects(self.script)
        effects.background = self.background
        return effects

    def run_background(self) -> None:
        """Run what was started."""
        while self.background:
            run(self.background.pop(0))

    def check(self) -> None:
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        self._stopped = True


def calls(
    script: Script,
    candidates: Sequence[Candidate],
    *,
    on_too_long: OverlongPolicy = "error",
    retry: RetryPolicy | None = None,
    budget: Budget | None = None,
    random: Callable[[], float] = lambda: 1.0,
    when_unavailable: Literal["raise", "degrade"] = "raise",
    space: Space = SPACE,
    cache_memory: int = 0,
    micro_batch_window: float = 0,
    on_event: Callable[[Event], object] | None = None,
) -> Calls:
    """Return the calls of a router with these models, as a script plays them."""
    budget = budget or Budget()
    return Calls(
        Wiring(
            candidates=candidates,
            backends={item.index: CharacterBackend(item.name, script) for item in candidates},
            space=space,
            default_tiers={"query": "high", "document": "high"},
            folder=None,  # type: ignore[arg-type]
            cache=VectorCache(script.store),
            served=ServedNames(None),
            memory=QueryMemory(cache_memory),
            ledger=script.ledger,
            budget=budget,
            totals=UsageTotals(script.ledger),
            retry=retry or RetryPolicy(attempts=3, cooldown=0),
            on_too_long=on_too_long,
            degradation=Degradation(
                over_budget=budget.when_exceeded == "degrade",
                unavailable=when_unavailable == "degrade",
                over_budget_of={tag: own.when_exceeded == "degrade" for tag, own in budget.by_tag.items()},
            ),
            micro_batch_window=micro_batch_window,
            clock=lambda: script.now,
            sleep=None,
            random=random,
            events=Events(on_event),
            tiers=("low", "medium", "high"),
        )
    )


def question(
    texts: Sequence[str], *, rank: int = 0, input_type: InputType = "document", deadline: float | None = None
) -> Question:
    return Question(texts=texts, input_type=input_type, rank=rank, tag="", deadline=deadline)


def ask(
    script: Script,
    texts: Sequence[str],
    candidates: Sequence[Candidate],
    *,
    rank: int = 0,
    input_type: InputType = "document",
    deadline: float | None = None,
    **settings: Any,
) -> EmbeddingResult:
    """Return what a call of a new router comes to; ``settings`` are arguments of ``calls``."""
    asked = question(texts, rank=rank, input_type=input_type, deadline=deadline)
    return run(calls(script, candidates, **settings).embed(ScriptedEffects(script), asked))


def scripted_call(script: Script, candidates: Sequence[Candidate], **settings: Any) -> Call:
    """Return a call to hand to a single stage; ``settings`` are its fields."""
    asked: dict[str, Any] = {"input_type": "document", "rank": 0, "tag": "", "deadline": None}
    return Call(effects=ScriptedEffects(script), candidates=candidates, **{**asked, **settings})


def states(ledger: Ledger) -> set[str]:
    """Return the states of a ledger's requests."""
    with ledger.transaction() as database:
        return {state for (state,) in database.execute("SELECT state FROM requests")}
