"""Send the texts of one request to the candidates, cheapest first, until every text has a vector.

A model whose circuit is open is called after the others. Where the user allows degradation, queries that no candidate
can embed are answered by lower tiers, best first: from the cache, then by a request.
"""

import logging
from collections.abc import Iterator, Sequence
from decimal import Decimal

from ..errors import (
    Attempt,
    AuthenticationError,
    BudgetExceededError,
    CircuitOpenError,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
)
from ..types import Candidate
from ._call import Call, Degradation, Embedded, SizedText, TextsRejected
from ._look_up import CacheReader
from ._pack import pack_texts
from ._retries import Retries, Tried

HOPELESS = 24
"""Refusals of one request and its parts, with no text embedded, after which no further part is tried."""

logger = logging.getLogger("embedrouter")


class Send:
    """Send the texts of one request to one candidate after the other."""

    def __init__(self, reader: CacheReader, degradation: Degradation, following: Retries) -> None:
        self._reader, self._degradation, self._following = reader, degradation, following

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
        for candidate, patient in self._turns(call, demoted):
            if candidate.rank < call.rank:
                if not self._degradation.allows(call.input_type, *failures):
                    continue
                found = await self._reader.look_up(call, [item.text for item in texts], only=candidate)
                embedded.found |= found
                texts = [item for item in texts if item.text not in found]
                if not texts:
                    return embedded
            if dearest is not None and (candidate.price is None or candidate.price > dearest):
                continue
            if failures:
                logger.warning("embedding with %s instead, after %s", candidate.name, type(failures[-1]).__name__)
            tried, texts = await self._ask(call, candidate, texts, may_shorten, patient)
            embedded.add(tried.embedded)
            attempts += tried.attempts
            match tried.failure:
                case None:
                    return embedded
                case CircuitOpenError() if not patient:
                    demoted.append(candidate)
                case AuthenticationError():  # a missing key is never a silent step to a dearer model
                    dearest = candidate.price if candidate.price is not None else Decimal(0)
            failures.append(tried.failure)
        last = failures[-1]
        if isinstance(last, AuthenticationError) or all(isinstance(item, BudgetExceededError) for item in failures):
            raise failures[0] if isinstance(last, BudgetExceededError) else last
        raise NoModelAvailableError(
            f"No model could embed {len(texts)} of the texts; {len(attempts)} requests failed. What was answered is in "
            "the cache, so the same call continues from there.",
            attempts=attempts,
        ) from last

    def _turns(self, call: Call, demoted: Sequence[Candidate]) -> Iterator[tuple[Candidate, bool]]:
        """Yield the candidates in the order of the calls, and whether to wait for an open circuit."""
        only = len(call.candidates) == 1
        for candidate in call.candidates:
            yield candidate, only and not self._degradation.allows(call.input_type, CircuitOpenError(""))
        for candidate in call.lower:
            yield candidate, False
        for candidate in [*demoted]:
            yield candidate, True

    async def _ask(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], may_shorten: bool, patient: bool
    ) -> tuple[Tried, Sequence[SizedText]]:
        """Send texts to one model, in requests within the model's limits. Return the result, and the texts without one.

        A request that is refused because of some texts is halved until each refused text is alone; the other texts are
        embedded. When a text was refused alone and no text is embedded yet, larger parts are sent first, because the
        reason may not be a text.
        """
        tried = Tried()
        found = tried.embedded.found
        parts = pack_texts(texts, candidate)
        refusals, alone, any_embedded = 0, False, False
        while parts:
            part, *parts = parts
            outcome = await self._following.request(call, candidate, part, patient)
            tried.add(outcome)
            failure, tried.failure = tried.failure, None
            if failure is None:
                any_embedded = True
                if later := [item for item in part if item.text not in found]:
                    parts = [later, *parts]
            elif isinstance(failure, InputRejectedError):
                at_fault = {part[index].text for index in failure.indices}
                refusals += not at_fault
                if refusals >= HOPELESS and not any_embedded:
                    rejected = dict.fromkeys((item.text for part in [part, *parts] for item in part), failure)
                    tried.embedded.rejected |= rejected
                    if not tried.embedded.charges:  # stops the other requests, which would fail, too
                        raise TextsRejected(tried.embedded.rejected, others_embedded=False)
                    return tried, []
                if not at_fault and len(part) > 1:
                    halves = [part[: len(part) // 2], part[len(part) // 2 :]]
                    parts = [*parts, *halves] if alone and not any_embedded else [*halves, *parts]
                    continue
                at_fault = at_fault or {part[0].text}
                rest = [item for item in part if item.text not in at_fault]
                parts = [*pack_texts(rest, candidate), *parts]
                if failure.too_long and may_shorten:
                    tried.embedded.too_long += at_fault
                else:
                    tried.embedded.rejected |= dict.fromkeys(at_fault, failure)
                    alone = True
            else:
                tried.failure = failure
                return tried, [item for part in [part, *parts] for item in part]
        return tried, []
