"""What a flow can ask its driver to do.

An effect is a frozen value; the driver performs it and sends the outcome back into the flow. ``Flow[T]`` is a
generator that yields effects and returns a ``T``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

from ..limits import Admission
from ..types import Candidate, Entry, InputType, OverlongPolicy, Spending
from ._sharing import Member

__all__ = [
    "Admit",
    "Afford",
    "Allowance",
    "Call",
    "Count",
    "Cut",
    "Effect",
    "Flow",
    "Follow",
    "Gather",
    "Join",
    "Pause",
    "Read",
    "Reserve",
    "Settle",
    "Together",
    "Write",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """Look keys up in the cache. Outcome: the entries found that have so many dimensions, by key."""

    keys: Sequence[bytes]
    dimensions: int


@dataclass(frozen=True, slots=True)
class Write:
    """Put entries into the cache. Outcome: nothing."""

    entries: Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Count:
    """Count tokens as the candidate's tokenizer does. Outcome: ``TokenCounts``."""

    candidate: Candidate
    texts: Sequence[str]
    input_type: InputType


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut a text into parts within ``limit`` tokens. Outcome: the parts."""

    candidate: Candidate
    text: str
    input_type: InputType
    limit: int
    policy: OverlongPolicy


@dataclass(frozen=True, slots=True)
class Call:
    """Stand in line for a model and make a request. Outcome: an ``Answer``, the ``EmbedRouterError`` it failed with, or
    a ``Wait`` if it stood in line for so long that it may not go out any more; then nothing was sent.
    """

    candidate: Candidate
    texts: Sequence[str]
    input_type: InputType
    timeout: float
    """Seconds that the request may take."""
    deadline: float | None
    """When all must be over."""
    reservation: int
    """What was set aside for it."""
    admission: Admission


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask whether a request of so many tokens may go out now. Outcome: an ``Admission``, perhaps of fewer tokens, or a
    ``Wait``.
    """

    candidate: Candidate
    tokens: int
    least: int
    """Of its first text."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Wait a moment for calls of the same name and go with them, which enters what is found and billed into the job.
    Outcome: ``None``, or why some texts were not found; when this call is the only one under way and goes alone, a
    function to be called when it has ended.
    """

    name: Hashable
    member: Callable[[], Member]
    """Makes what stands for this call among the others."""
    send: Callable[[Sequence[Member]], Flow[None]]
    """What becomes of those who go together."""
    waiting: bool
    """Go only with calls that wait already."""
    seconds: float | None
    """How long the call may wait at most."""


@dataclass(frozen=True, slots=True)
class Join:
    """Lead texts, by name, or follow whoever leads them already. Outcome: a future for each that is followed, or
    ``None`` for a caller who can do neither.
    """

    names: Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Follow:
    """Wait for futures, at most so many seconds. Outcome: nothing."""

    futures: Sequence[Future[Any]]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """Ask how many of the candidate's free tokens are left. Outcome: their number."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Afford:
    """Ask whether a whole call fits the budget. Outcome: ``None``, or why not."""

    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set the money for one request aside. Outcome: the reservation, or why it does not fit."""

    spending: Spending


@dataclass(frozen=True, slots=True)
class Settle:
    """Keep what was answered and book what became of its reservation. Outcome: what was booked in US dollars, free
    tokens deducted.
    """

    reservation: int
    billed: tuple[int, Decimal | None] | None = None
    """Tokens and their price in US dollars; ``None`` where nothing was billed, or nobody knows."""
    unconfirmed: bool = False
    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    """For the cache."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. Outcome: nothing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Run flows side by side, ``width`` at once. After an error the others finish what is in flight and stop. Outcome:
    that error, or ``None``.
    """

    flows: Sequence[Flow[None]]
    width: int


Effect: TypeAlias = (
    Read
    | Write
    | Count
    | Cut
    | Allowance
    | Afford
    | Gather
    | Join
    | Follow
    | Admit
    | Reserve
    | Settle
    | Call
    | Pause
    | Together
)
Flow: TypeAlias = Generator[Effect, Any, T]
