"""The arguments of one call, checked, with what the surrounding context asks for."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import TIMEOUT_MAX

from .._display import shown
from .._values import as_number
from ..errors import ConfigError
from ..models import choose_tier, rank
from ..spending import current_tag
from ..types import InputType
from ._progress import Progress
from ._validate import validate
from ._wiring import Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The arguments of one call."""

    texts: Sequence[str]
    """Checked by ``validate``."""
    first: int = 0
    """The position of the first text, for messages."""
    input_type: InputType
    rank: int
    tag: str
    deadline: float | None = None
    timeout: float | None = None
    """Seconds until the deadline, when the call began."""
    batch: bool = False
    """Whether the texts go through a batch endpoint: only models with a batch price are candidates."""
    progress: Progress | None = None
    """Shows how far the call is."""

    def shown_by(self, progress: Progress) -> Question:
        """Return the same question, whose progress is shown, if it is to be."""
        return replace(self, progress=progress) if progress.show else self

    def each(self, chunks: Iterable[list[str]], given: object) -> Iterator[Question]:
        """Yield the same question for consecutive chunks of the texts that are given."""
        first = 0
        for chunk in chunks:
            yield replace(self, texts=validate(chunk, first, given), first=first)
            first += len(chunk)

    async def aeach(self, chunks: AsyncIterable[list[str]], given: object) -> AsyncIterator[Question]:
        """Do what ``each`` does for an async iterable of chunks."""
        first = 0
        async for chunk in chunks:
            yield replace(self, texts=validate(chunk, first, given), first=first)
            first += len(chunk)


def ask(
    wiring: Wiring,
    texts: Iterable[str],
    input_type: InputType,
    tier: str | None,
    timeout: float | None = None,
    *,
    batch: bool = False,
) -> Question:
    """Build the question of a call, with the tier and the tag of the surrounding context.

    Raises:
        ConfigError: the input type or the tier is unknown.
        InvalidInputError: some texts cannot be embedded.
    """
    name = choose_tier(tier, input_type, wiring.default_tiers)
    if (left := as_number(timeout, "timeout", float)) is not None and left < 0:
        raise ConfigError(
            f"timeout= is a number of seconds for the whole call, not {shown(timeout)}. Leave it out for none."
        )
    timeout = None if left is None or left > TIMEOUT_MAX else left
    return Question(
        texts=validate(texts),
        input_type="query" if input_type == "query" else "document",  # an enum's member is no plain text
        rank=rank(name, wiring.tiers),
        tag=current_tag() or wiring.tag,
        deadline=None if timeout is None else wiring.clock() + timeout,
        timeout=timeout,
        batch=batch,
    )
