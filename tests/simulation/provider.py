"""The provider of a history: what it answers, when, and what it bills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.models import Backend
from embedrouter.types import Answer, Candidate, InputType, RateLimits, TokenCounts, Vectors

from .scheduler import suspend

if TYPE_CHECKING:
    from .effects import Asker, Effects
    from .plan import Plan
    from .world import Process, World

MILLION = 1_000_000

SOUND = ("right", "late", "no usage", "no bill", "bill below 0", "bill beyond reason", "limits", "another name")
"""Answers with the right vectors."""
WRONG = ("too few", "too many", "wrong length", "NaN", "zeros", "float64")
"""Answers that are billed and useless."""
LOST = ("timeout", "reset", "web page")
"""Requests that are billed, or not, and never answered."""
REFUSED = ("429", "429, wait", "429, wait long", "503", "500", "unreachable", "400", "401")
OUTCOMES = (*SOUND, *WRONG, *LOST, *LOST, *REFUSED, "429", "503", "defect")
SECONDS = (0.1, 0.0, 0.02, 1.0, 4.0, 20.0)
"""That an answer takes."""

State = Literal["open", "answered", "lost", "refused"]


@dataclass(eq=False)
class Request:
    """One request, as the provider and the driver know it."""

    process: Process
    asker: Asker
    candidate: Candidate
    texts: tuple[str, ...]
    input_type: InputType
    shared: bool
    sent: int
    """The number of effects."""
    sent_at: float
    admitted_at: float
    outcome: str
    billed: int = 0
    told: int = 0
    """Tokens that the ledger is to book."""
    state: State = "open"
    ended: int = 0
    """The number of effects."""
    ended_at: float = 0.0
    held_for: float = 0.0
    """Seconds that the provider asks to wait."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.texts))

    @property
    def kind(self) -> tuple[object, ...]:
        """What two calls have in common that can use the same vector for a text."""
        return self.process, self.asker.rank, self.input_type

    @property
    def sound(self) -> bool:
        return self.state == "answered" and self.outcome in SOUND

    @property
    def good(self) -> tuple[str, ...]:
        """The texts that an answer brought a vector for: one that cannot be used costs the others nothing."""
        if self.state != "answered":
            return ()
        return {"NaN": self.texts[:-1], "zeros": self.texts[1:]}.get(self.outcome, self.texts if self.sound else ())


class Defect(Exception):
    """A defect in a backend of the user's."""


class SimulatedBackend(Backend):
    """A model whose requests are made by the effects."""

    def __init__(self, candidate: Candidate, *, exact: bool) -> None:
        self.candidate, self._exact = candidate, exact

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        raise AssertionError("requests are made by the effects")

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        return TokenCounts([len(text) * (1 if self._exact else 2) for text in texts], self._exact)


@lru_cache(maxsize=4096)
def _vector(model: int, kind: int, text: str, dtype: str) -> Vectors:
    numbers = (model + 1, kind, crc32(text.encode()) % 2039 + 1, len(text))
    return (np.array(numbers, np.float32) / 7).astype(dtype).astype(np.float32)


def vector(candidate: Candidate, input_type: InputType, text: str, dtype: str = "float32") -> Vectors:
    """Return the one right vector of a text under a model, as a cache with this number type keeps it."""
    kind = 3 if candidate.symmetric else 1 + (input_type == "query")
    return _vector(candidate.index, kind, text, dtype)


class Provider:
    """Answers the requests of all processes."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world, self._plan = world, plan
        self.requests: list[Request] = []
        self.seconds = 0.1
        """That each answer takes while the provider is well."""

    async def request(
        self, effects: Effects, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float
    ) -> Answer:
        world = self._world
        assert isinstance(backend, SimulatedBackend)
        candidate, who = backend.candidate, world.current.name
        outcome = world.choices.pick(who, "answer", world.odds["answer"], OUTCOMES)
        seconds = world.choices.pick(who, "seconds", world.odds["seconds"], SECONDS)
        if world.calm:
            outcome, seconds = "right", self.seconds
        request = Request(
            effects.process, effects.asker, candidate, tuple(texts), input_type, effects.group is not None,
            world.effects, world.now, world.current.admitted_at, outcome,
        )  # fmt: skip
        world.check_request(request, effects, timeout)
        world.tell(f"sends {list(texts)} to {candidate.name} ({input_type}), for {timeout:g} s")
        answer = self._answer(request)
        lost = request.outcome in LOST
        if not isinstance(answer, BackendError) or (lost and world.choices.pick(who, "bill", 0.5, (False, True))):
            self._bill(request)
        self.requests.append(request)
        timely = min(seconds, timeout * 0.99)
        if request.outcome == "timeout" or (seconds > timeout and request.outcome != "late"):
            request.outcome, answer, timely = "timeout", RequestTimeoutError("no answer in time"), timeout
        elif request.outcome == "late":
            timely = timeout + 2
            effects.asker.excused += 2
        try:
            await suspend(world.now + timely)
        except BaseException:
            request.state = "lost"
            world.tell(f"leaves its request to {candidate.name}")
            raise
        finally:
            request.ended, request.ended_at = world.effects, world.now
        if isinstance(answer, Exception):
            billable = not isinstance(answer, BackendError) or answer.perhaps_billed
            request.state = "lost" if billable else "refused"
            request.held_for = getattr(answer, "retry_after", None) or 0.0
            world.tell(f"gets {request.outcome}: {type(answer).__name__} from {candidate.name}")
            raise answer
        request.state = "answered"
        world.tell(f"gets {request.outcome} for {list(texts)} from {candidate.name}")
        return answer

    def happened(self, outcome: str) -> bool:
        """Return whether a request had this outcome."""
        return any(request.outcome == outcome for request in self.requests)

    def _answer(self, request: Request) -> Answer | Exception:
        """Return what the provider answers, right or wrong."""
        plan, texts, candidate = self._plan, request.texts, request.candidate
        if not self._world.calm and (refusal := self._refusal(request)):
            return refusal
        limit = candidate.limits.input_tokens
        if limit is not None and any(len(text) > limit for text in texts):
            request.outcome = "too long"
            named = limit if plan.names_limits else None
            return InputRejectedError("a text is too long", too_long=True, limit=named)
        vectors: NDArray[Any] = np.stack([vector(candidate, request.input_type, text) for text in texts])
        tokens = request.tokens
        told: int | None = tokens
        request.told = tokens
        match request.outcome:
            case "too few":
                vectors = vectors[:-1]
            case "too many":
                vectors = np.concatenate([vectors, vectors[:1]])
            case "wrong length":
                vectors = vectors[:, :-1]
            case "NaN":
                vectors[-1, 0] = np.nan
            case "zeros":
                vectors[0] = 0
            case "float64":
                vectors = vectors.astype(np.float64)
            case "no usage" | "no bill" | "bill below 0" | "bill beyond reason":
                told = {"no usage": None, "no bill": 0, "bill below 0": -7}.get(request.outcome, 10**30)
                request.told = tokens if plan.exact else 2 * tokens
        limits = RateLimits(tokens=60, tokens_left=10, tokens_reset=40.0) if request.outcome == "limits" else None
        name = "another" if request.outcome == "another name" else "own"
        return Answer(vectors, told, limits, None if self._world.calm else name)

    def _refusal(self, request: Request) -> Exception | None:
        plan, texts = self._plan, request.texts
        if plan.poison in texts:
            request.outcome = "poison"
            where = [texts.index(plan.poison)] if plan.names_limits else []
            return InputRejectedError("a text is refused", status=400, indices=where)
        if plan.broken in texts:
            request.outcome = "500"
        elif plan.most_texts and len(texts) > plan.most_texts:
            request.outcome = "too many texts"
            most = plan.most_texts if plan.names_limits else None
            return InputRejectedError("too many texts", status=400, batch_size=most)
        match request.outcome:
            case "429":
                return RateLimitedError("slow down", status=429)
            case "429, wait":
                return RateLimitedError("slow down", status=429, retry_after=2.0)
            case "429, wait long":
                return RateLimitedError("slow down", status=429, retry_after=45.0)
            case "503" | "500" as status:
                return UnavailableError("out of order", status=int(status))
            case "unreachable":
                return UnavailableError("no connection", perhaps_billed=False)
            case "400":
                return InputRejectedError("refused", status=400)
            case "401":
                return AuthenticationError("wrong key", status=401)
            case "reset":
                return UnavailableError("connection reset", perhaps_billed=True)
            case "timeout":
                return RequestTimeoutError("no answer in time")
            case "web page":
                return BadResponseError("not an answer")
            case "defect":
                return Defect("a defect")
        return None

    def _bill(self, request: Request) -> None:
        """Bill a request, and hold all bills so far against the cap."""
        request.billed = request.tokens
        cap = self._plan.budget.total
        if cap is not None and (spent := self.billed()) > Decimal(cap):
            raise self._world.violation(
                "the cap holds", f"{spent} of {cap} dollars were billed, the last for {request.texts}"
            )

    def billed(self) -> Decimal:
        """Return what the provider has billed, in US dollars."""
        total = Decimal(0)
        for candidate in self._plan.candidates:
            tokens = sum(request.billed for request in self.requests if request.candidate.index == candidate.index)
            total += max(0, tokens - candidate.free_tokens) * (candidate.price or 0) / Decimal(MILLION)
        return total
