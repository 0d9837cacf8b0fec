"""What there is in a history: models, a budget, processes and callers, all decided before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal, TypeVar

from embedrouter import Budget, RetryPolicy, Space
from embedrouter.cache import key_function
from embedrouter.types import Candidate, InputType, Limits, OverlongPolicy

from .choices import Choices

T = TypeVar("T")

Form = Literal["thread", "main", "task", "blocking"]
"""A thread, the main thread, a task of an event loop, or a synchronous call that blocks an event loop."""
SPACE = Space("space", 4)
POOL = ("a", "bb", "ccc", "dddd", "eeeee", "ffffff", "long text one", "the long text two")
"""All texts; the last two are over the limit of some models."""


@dataclass(frozen=True)
class Ask:
    """One call that a caller is to make."""

    texts: tuple[str, ...]
    rank: int
    input_type: InputType
    tag: str
    timeout: float | None


@dataclass(frozen=True)
class Caller:
    """One that makes calls, one after the other."""

    name: str
    where: int
    """The process."""
    form: Form
    loop: int
    at: float
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is decided beforehand."""

    candidates: tuple[Candidate, ...]
    budget: Budget
    retry: RetryPolicy
    on_too_long: OverlongPolicy
    when_unavailable: str
    window: float
    memory: int
    cached: bool
    """Whether there is a cache."""
    dtype: str
    exact: bool
    poison: str
    """A text that the provider refuses."""
    broken: str
    """A text with which the provider fails."""
    most_texts: int
    """That the provider takes in a request; 0 is any number."""
    names_limits: bool
    """Whether refusals say what is refused."""
    processes: int
    callers: tuple[Caller, ...]

    def told(self) -> list[str]:
        """Describe what there is, in lines."""
        lines = [f"  {item.name}: {_differences(item)}" for item in self.candidates]
        return [*lines, f"  {_differences(self)}"]

    def key(self, candidate: Candidate, input_type: InputType, text: str) -> bytes:
        return key_function(candidate, input_type, dtype=self.dtype)(text)


def _differences(item: Candidate | Plan) -> str:
    """Describe a model or a plan, without the fields that say nothing."""
    left_out = ("index", "name", "space", "fingerprint", "candidates", "callers")
    told = {field.name: getattr(item, field.name) for field in fields(item) if field.name not in left_out}
    return ", ".join(f"{name}={value}" for name, value in told.items() if value not in (None, "", 0, False, ()))


def plan(choices: Choices) -> Plan:
    """Decide what there is. The first option of each decision is the simplest."""

    def option(what: str, *options: T) -> T:
        return choices.pick("plan", what, 0.5, options)

    models = [_model(option, index) for index in range(option("models", 1, 1, 2, 3))]
    budget: dict[str, Any] = option(
        "budget",
        {},
        {"total": "0.000020"},
        {"total": "0.000060"},
        {"per_day": "0.000030"},
        {"per_day": "0.000010"},
        {"per_month": "0.000060", "per_call": "0.000030"},
        {"total": "0.001"},
        {"total": "0.000060", "tags": {"tag": {"per_day": "0.000015"}}},
        {"tags": {"tag": {"total": "0.000020"}}},
        {"tags": {"tag": {"per_month": "0.000040", "per_call": "0.000015"}}},
    )
    if "tags" in budget:
        policy: Any = option("over the budget of a tag", None, "raise", "degrade")
        budget = {**budget, "tags": {"tag": Budget(**budget["tags"]["tag"], when_exceeded=policy)}}
    processes = option("processes", 1, 1, 2)
    ranks = sorted({item.rank for item in models})
    names = [f"caller {number}" for number in range(8)]
    present = [name for name in names if choices.pick(name, "is there", 0.8, (False, True))]
    return Plan(
        candidates=tuple(models),
        budget=Budget(**budget, when_exceeded=option("over budget", "raise", "degrade")),
        retry=RetryPolicy(
            attempts=option("attempts", 3, 1, 2, 5),
            timeout=option("retry for", 60.0, 8.0),
            cooldown=option("cooldown", 10.0, 0.0),
        ),
        on_too_long=option("too long", "error", "truncate", "mean"),
        when_unavailable=option("unavailable", "raise", "degrade"),
        window=option("window", 0.0, 0.01),
        memory=option("memory", 0, 100_000),
        cached=option("cache", True, True, True, True, False),
        dtype=option("dtype", "float32", "float32", "float16"),
        exact=option("exact", True, False),
        poison=option("poison", "", "", "", *POOL[:3]),
        broken=option("broken", "", "", "", "", *POOL[3:5]),
        most_texts=option("most texts", 0, 0, 0, 1, 2),
        names_limits=option("names limits", True, False),
        processes=processes,
        callers=tuple(_caller(choices, name, processes, ranks) for name in present),
    )


def _model(option: Callable[..., Any], index: int) -> Candidate:
    name = f"model {index}"
    rank = option(f"{name}: rank", index, index, 1)
    return Candidate(
        index=index,
        name=name,
        tier=("low", "medium", "high")[rank],
        rank=rank,
        space=SPACE,
        fingerprint=name,
        symmetric=option(f"{name}: symmetric", False, False, True),
        price=option(f"{name}: price", Decimal(1), Decimal(2), Decimal(4), Decimal(4), None),
        free_tokens=option(f"{name}: free", 0, 0, 0, 0, 20),
        limits=Limits(
            texts=option(f"{name}: texts", 10, 1, 2, 3),
            input_tokens=option(f"{name}: longest", None, None, 8),
        ),
        concurrency=option(f"{name}: concurrency", 3, 1, 2),
        requests_per_minute=option(f"{name}: requests per minute", None, None, None, 6),
        tokens_per_minute=option(f"{name}: tokens per minute", None, None, None, 60),
        timeout=option(f"{name}: timeout", 30.0, 5.0),
    )


def _caller(choices: Choices, name: str, processes: int, ranks: list[int]) -> Caller:
    def option(what: str, *options: T) -> T:
        return choices.pick(name, what, 0.5, options)

    def ask() -> Ask:
        count = option("texts", 1, 1, 2, 3, 5)
        return Ask(
            texts=tuple(POOL[(option("text", *range(len(POOL))) + place) % len(POOL)] for place in range(count)),
            rank=option("rank", *ranks),
            input_type=option("input type", "document", "query"),
            tag=option("tag", "", "", "", "tag", "tag"),
            timeout=option("timeout", None, None, 0.5, 3.0, 25.0),
        )

    return Caller(
        name,
        where=option("process", *range(processes)),
        form=option("form", "thread", "task", "task", "main", "blocking"),
        loop=option("loop", 0, 0, 0, 1),
        at=option("at", 0.0, 0.0, 0.005, 0.12, 2.0, 30.0),
        asks=tuple(ask() for _ in range(option("calls", 1, 2, 4, 7))),
    )
