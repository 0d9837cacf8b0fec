"""Find out what a model refuses: a text, the number of texts, or every request.

A provider that refuses a request seldom names a text. The request is halved until each refused text is alone, and the
other texts are embedded. Some refusals are no fault of a text:

- halves pass where the whole is refused: the request had too many texts. The number is remembered for the process.
- nothing passes, neither a half nor a few single texts: the request or the model is at fault, and the next model is
  called.
- vectors of some texts cannot be used, whenever the texts are sent: these texts are left to the next model, and refused
  where there is none. Where a model gives no usable vector at all, the model is at fault.
- a server fails (HTTP 500) whenever one text is in the request: after its retries such a request is halved, too, once;
  halves pass only where a text is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import BackendError, EmbedRouterError, InputRejectedError, UnavailableError
from ..types import Candidate
from ._call import Call, SizedText, TextsRejected
from ._learned import Learned
from ._pack import pack_texts
from ._retries import Retries, Tried

HOPELESS = 24
"""Refusals of one request and its parts, with no text embedded, after which no further part is tried."""
ALIKE = 3
"""Refusals of one request and its parts, with no text embedded, after which single texts are tried."""
BROKEN = 8
"""Answers in a row without any usable vector, after which the model is at fault and not the texts."""
SAMPLES = 3
"""Single texts that are tried before a model counts as refusing everything."""


@dataclass(slots=True)
class _Search:
    """What is known of one request while its parts are sent."""

    parts: list[list[SizedText]]
    refusals: int = 0
    samples: int | None = None
    """Single texts still to be tried; ``None`` before so many requests were refused."""
    alone: bool = False
    """Whether a text was refused alone."""
    largest: int = 0
    """Texts in the largest request that passed; 0 where no request did."""
    smallest: int = 0
    """Texts in the smallest request that was refused as a whole."""
    broken: bool = False
    """Whether the server failed with a request, which was halved."""
    waiting: list[list[SizedText]] = field(default_factory=list)
    """Parts with which the server failed, before another part has passed."""
    failed: list[SizedText] = field(default_factory=list)
    """Texts with which the server fails, each alone, and texts without a usable vector."""
    last: EmbedRouterError | None = None

    def passed(self, part: Sequence[SizedText]) -> None:
        """Record a request that was answered; where the server failed before, a text is at fault."""
        self.largest = max(self.largest, len(part))
        for halved in self.waiting:
            self.parts = [*_halves(halved), *self.parts]
        self.waiting = []

    def unsent(self, part: Sequence[SizedText]) -> list[SizedText]:
        """Return the texts that have no result when ``part`` ends the search."""
        return [item for piece in [*self.waiting, self.failed, part, *self.parts] for item in piece]


class Isolate:
    """Send the texts of one request to one model, in parts where the model refuses the whole."""

    def __init__(self, learned: Learned, following: Retries) -> None:
        self._learned, self._following = learned, following
        self._useless: Counter[int] = Counter()
        """Answers in a row without any usable vector, by the model's index."""

    async def embed(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], *, may_shorten: bool, patient: bool
    ) -> tuple[Tried, Sequence[SizedText]]:
        """Return the result, and the texts without one.

        Raises:
            TextsRejected: too many refusals; the other requests of the call would be refused, too.
        """
        tried = Tried()
        search = _Search(pack_texts(texts, candidate))
        while search.parts:
            part = search.parts.pop(0)
            outcome = await self._following.request(call, candidate, part, patient, once=search.broken)
            if outcome.embedded.found:
                del self._useless[candidate.index]
            tried.add(outcome)
            failure, tried.failure = tried.failure, None
            left = [item for item in part if item.text not in tried.embedded.found]
            if failure is None or len(left) < len(part):
                search.passed(part)
            part = left
            if failure is None:
                search.parts[:0] = [left] if left else []
            elif outcome.unusable and not self._is_broken(candidate, outcome):
                search.last = failure
                search.failed += outcome.unusable
                tried.embedded.rejected |= _without_vector(candidate, outcome.unusable, failure)
                if rest := [item for item in left if item not in outcome.unusable]:
                    search.parts.insert(0, rest)
            elif isinstance(failure, InputRejectedError):
                if self._is_refused_whole(candidate, search, part, failure):
                    tried.failure = _refuses_everything(candidate, failure)
                    tried.embedded.rejected.clear()
                    return tried, texts
                self._refused(candidate, search, part, failure, tried, may_shorten)
                if search.refusals >= HOPELESS and not search.largest:
                    return _hopeless(search, part, failure, tried)
            elif not _tried_in_halves(search, part, failure):
                tried.failure = failure
                return tried, search.unsent(part)
        self._learn(candidate, search, tried)
        left = search.unsent([])
        tried.failure = search.last if left else None
        return tried, left

    def _is_broken(self, candidate: Candidate, outcome: Tried) -> bool:
        """Return whether a model gives no usable vector of any text."""
        if outcome.embedded.found:
            return False
        self._useless[candidate.index] += 1
        many = len(outcome.unusable) > 1 and candidate.index not in self._learned.useful
        return many or self._useless[candidate.index] >= BROKEN

    def _is_refused_whole(
        self, candidate: Candidate, search: _Search, part: Sequence[SizedText], failure: InputRejectedError
    ) -> bool:
        """Return whether the model refuses every text."""
        if failure.indices or failure.too_long or failure.batch_size or search.largest or search.samples is None:
            return False
        search.samples -= 1
        return search.samples <= 0

    def _refused(
        self,
        candidate: Candidate,
        search: _Search,
        part: list[SizedText],
        failure: InputRejectedError,
        tried: Tried,
        may_shorten: bool,
    ) -> None:
        """Send the texts of a refused request in other parts, or record the text that is refused alone."""
        if failure.batch_size is not None and failure.batch_size < len(part):
            self._learned.texts(candidate, failure.batch_size)
            rest = [*part, *(item for piece in search.parts for item in piece)]
            search.parts = pack_texts(rest, self._learned.apply(candidate))
            return
        at_fault = {part[index].text for index in failure.indices}
        search.refusals += not at_fault
        if not at_fault and len(part) > 1:
            search.smallest = min(search.smallest or len(part), len(part))
            if search.refusals == ALIKE and not search.largest and not failure.too_long:
                samples, others = _sample(part, search.parts)
                search.samples, search.parts = len(samples), [*samples, *others]
            elif search.alone and not search.largest:  # the reason may not be a text: larger parts first
                search.parts += _halves(part)
            else:
                search.parts = [*_halves(part), *search.parts]
            return
        at_fault = at_fault or {part[0].text}
        rest = [item for item in part if item.text not in at_fault]
        search.parts = [*pack_texts(rest, candidate), *search.parts]
        if failure.limit is not None:
            self._learned.input_tokens(candidate, failure.limit)
        if failure.too_long and may_shorten:
            tried.embedded.too_long += at_fault
        else:
            tried.embedded.rejected |= dict.fromkeys(at_fault, failure)
            search.alone = True

    def _learn(self, candidate: Candidate, search: _Search, tried: Tried) -> None:
        """Remember the size of the requests that passed, where larger ones were refused and no text was at fault."""
        faultless = not (tried.embedded.rejected or tried.embedded.too_long or search.failed or search.broken)
        if faultless and 0 < search.largest < search.smallest:
            self._learned.texts(candidate, search.largest)


def _tried_in_halves(search: _Search, part: list[SizedText], failure: EmbedRouterError) -> bool:
    """Return whether the texts of a failed request are to be sent in other parts, because a text may be at fault."""
    if (
        not isinstance(failure, UnavailableError)
        or failure.busy
        or not failure.retryable
        or (failure.status or 0) < 500
    ):
        return False
    search.last = failure
    if not search.broken and len(part) > 1:
        search.broken, search.largest = True, 0
        search.parts = [*_halves(part), *search.parts]
    elif search.largest and len(part) > 1:
        search.parts = [*_halves(part), *search.parts]
    elif search.largest:
        search.failed += part
    elif search.broken and not search.waiting and search.parts:
        search.waiting.append(part)
    else:
        return False
    return True


def _without_vector(
    candidate: Candidate, texts: Sequence[SizedText], failure: EmbedRouterError
) -> dict[str, InputRejectedError]:
    error = InputRejectedError(
        f"{candidate.name} gives no usable vector: {failure}. Leave these texts out, or declare another model for them",
        model=candidate.name,
    )
    error.__cause__ = failure
    return dict.fromkeys((item.text for item in texts), error)


def _hopeless(
    search: _Search, part: list[SizedText], failure: InputRejectedError, tried: Tried
) -> tuple[Tried, Sequence[SizedText]]:
    """Refuse all the texts that are left."""
    tried.embedded.rejected |= dict.fromkeys((item.text for piece in [part, *search.parts] for item in piece), failure)
    if not tried.embedded.charges:  # stops the other requests, which would fail, too
        raise TextsRejected(tried.embedded.rejected, others_embedded=False)
    return tried, []


def _refuses_everything(candidate: Candidate, failure: InputRejectedError) -> BackendError:
    error = UnavailableError(
        f"{failure} (single texts are refused as well: the request or the model is at fault)",
        model=candidate.name,
        status=failure.status,
        retryable=False,
    )
    error.__cause__ = failure
    return error


def _halves(part: list[SizedText]) -> list[list[SizedText]]:
    return [half for half in (part[: len(part) // 2], part[len(part) // 2 :]) if half]


def _sample(
    part: list[SizedText], others: Sequence[list[SizedText]]
) -> tuple[list[list[SizedText]], list[list[SizedText]]]:
    """Take single texts from different places, and return these and the remaining parts."""
    rest = [item for piece in others for item in piece] or part
    samples = [rest[0], rest[-1], part[-1]][:SAMPLES]
    chosen = {item.text for item in samples}
    remaining = [[item for item in piece if item.text not in chosen] for piece in [*_halves(part), *others]]
    return [[item] for item in dict.fromkeys(samples)], [piece for piece in remaining if piece]
