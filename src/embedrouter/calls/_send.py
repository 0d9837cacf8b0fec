"""Send the texts of one request to the candidates, cheapest first, until every text has a vector.

A model that is busy or whose circuit is open is called again after the others. Where the user allows degradation,
queries that no candidate can embed are answered by lower tiers, best first: from the cache, then by a request.
"""

from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal

from ..errors import (
    Attempt,
    AuthenticationError,
    BackendError,
    BudgetExceededError,
    CircuitOpenError,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
)
from ..events import Degraded, Events, FailedOver
from ..types import Candidate
from ._call import Call, Degradation, Embedded, SizedText, TextsRejected
from ._isolate import Isolate
from ._look_up import CacheReader


class Send:
    """Send the texts of one request to one candidate after the other."""

    def __init__(self, reader: CacheReader, degradation: Degradation, events: Events, following: Isolate) -> None:
        self._reader, self._degradation = reader, degradation
        self._events, self._following = events, following

    async def embed(self, call: Call, texts: Sequence[SizedText], *, may_shorten: bool) -> Embedded:
        """Return the vectors of the texts that are neither rejected nor too long.

        Args:
            may_shorten: whether texts that the provider refuses as too long are to be shortened.

        Raises:
            AuthenticationError: a key is missing or wrong, and no other model could answer at no higher price.
            BudgetExceededError: the budget does not cover the request.
            NoModelAvailableError: every candidate failed.
        """
        embedded = Embedded()
        attempts: list[Attempt] = []
        failures: list[EmbedRouterError] = []
        demoted: list[Candidate] = []
        dearest: Decimal | None = None
        before = call.first
        for candidate, patient in self._turns(call, demoted):
            if candidate.rank < call.rank:
                if not self._degradation.allows(call.input_type, *failures):
                    continue
                found = await self._reader.look_up(call, [item.text for item in texts], only=candidate)
                self._tell_degraded(call, candidate, found, failures)
                embedded.add(Embedded(found))
                texts = [item for item in texts if item.text not in found]
                if not texts:
                    return embedded
            if dearest is not None and (candidate.price is None or candidate.price > dearest):
                continue
            if failures:
                self._events.emit(
                    FailedOver,
                    **call.about(candidate),
                    instead_of=before.name,
                    error=type(failures[-1]).__name__,
                )
            before = candidate
            tried, texts = await self._following.embed(call, candidate, texts, may_shorten=may_shorten, patient=patient)
            embedded.add(tried.embedded)
            self._tell_degraded(call, candidate, tried.embedded.found, failures)
            attempts += tried.attempts
            match tried.failure:
                case None:
                    return embedded
                case CircuitOpenError() if not patient:
                    demoted.append(candidate)
                case BackendError() if tried.may_wait:
                    demoted.append(candidate)
                case AuthenticationError():  # a missing key is never a silent step to a dearer model
                    dearest = candidate.price if candidate.price is not None else Decimal(0)
            failures.append(tried.failure)
        if all(item.text in embedded.rejected for item in texts):  # no model gave a usable vector
            return embedded
        last = failures[-1]
        if isinstance(last.__cause__, InputRejectedError):  # no model is left to answer
            raise TextsRejected(
                dict.fromkeys((item.text for item in texts), last.__cause__), others_embedded=bool(embedded.charges)
            ) from last
        if isinstance(last, AuthenticationError) or all(isinstance(item, BudgetExceededError) for item in failures):
            raise failures[0] if isinstance(last, BudgetExceededError) else last
        raise NoModelAvailableError(
            f"No model could embed {len(texts)} of the texts; {len(attempts)} requests failed. What was answered is in "
            "the cache, so the same call continues from there.",
            attempts=attempts,
        ) from last

    def _turns(self, call: Call, demoted: Sequence[Candidate]) -> Iterator[tuple[Candidate, bool]]:
        """Yield the candidates in the order of the calls, and whether to wait for open circuits and busy models."""
        only = len(call.candidates) == 1
        for candidate in call.candidates:
            yield candidate, only and not self._degradation.allows(call.input_type, CircuitOpenError(""))
        for candidate in call.lower:
            yield candidate, False
        for candidate in [*demoted]:
            yield candidate, True

    def _tell_degraded(
        self, call: Call, candidate: Candidate, found: Collection[str], failures: Sequence[EmbedRouterError]
    ) -> None:
        if found and candidate.rank < call.rank:
            self._events.emit(Degraded, **call.about(candidate), texts=len(found), error=type(failures[-1]).__name__)
