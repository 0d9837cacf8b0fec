"""Embed a corpus at a discount through the provider's batch endpoint, which answers within hours.

``Batches`` submits texts that are neither cached nor in another batch, reserves money at the batch price, and collects
the answers into the cache, where a later ``embed`` finds the vectors. A batch outlives the process that submitted it:
the record is in the ledger's file (see ``_records``), and any router with the same model can collect the batch.
"""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import NoReturn, TypeAlias, TypeVar

from ..cache import disk_size, key_function
from ..calls import Prepared, Question, SizedText, Wiring, about, fault, pack, unusable
from ..errors import BackendError, BudgetExceededError, ConfigError, UnavailableError
from ..events import BatchCollected, BatchSubmitted, BudgetRefused
from ..models import BatchEndpoint, plausible_count
from ..redis import RedisBooks
from ..spending import Charge, Refusal, cost, usage_of
from ..types import Answer, Candidate, Entry, InputType, Limits, Spending, Usage
from ._records import BatchRecord, BatchStatus, NewBatch, SQLiteBatchRecords
from ._redis_records import RedisBatchRecords

TRANSFER = 600.0
"""Seconds that the connection may be silent while a file is uploaded or downloaded."""
LOST = timedelta(hours=1)
"""Age after which a batch that the provider does not list counts as never submitted."""
PAGE = 500
"""Answers written to the cache at once."""

T = TypeVar("T")
Part: TypeAlias = Mapping[bytes, SizedText]
"""The texts of one batch by their cache keys."""


class Batches:
    """The batches of one router."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring, self._cache, self._ledger = wiring, wiring.cache, wiring.ledger
        self.clock, self.sleep = wiring.clock, wiring.sleep or time.sleep
        on_server = isinstance(wiring.ledger.books, RedisBooks)
        self.records = RedisBatchRecords(wiring.ledger) if on_server else SQLiteBatchRecords(wiring.ledger)

    @property
    def usage(self) -> Usage:
        """What the router has used so far."""
        return self._wiring.totals.usage

    def since(self, before: Usage) -> Usage:
        """Return what the router has used since it had used ``before``."""
        now = self.usage
        return Usage(tokens=now.tokens - before.tokens, cost=now.cost - before.cost)

    async def asleep(self, seconds: float) -> None:
        """Wait, in the event loop."""
        if self._wiring.sleep is None:
            await asyncio.sleep(seconds)
        elif inspect.isawaitable(waiting := self._wiring.sleep(seconds)):
            await waiting

    def check(self) -> None:
        """Refuse a router whose batches would be lost.

        Raises:
            ConfigError: the router has no cache, or no ledger in a file.
        """
        if self._cache.store is None:
            raise ConfigError("What a batch embeds goes into the cache, and this router has none. Set cache=….")
        with self.records.transaction():
            pass

    # Submitting

    def submit(self, question: Question, prepared: Prepared) -> list[str]:
        """Submit texts that are not in another batch, and return the references of the batches that all texts are in.

        Raises:
            CacheError: the cache cannot keep what the batch embeds; no batch was submitted.
            BudgetExceededError: the budget does not cover all texts; no batch was submitted.
            BackendError: a batch could not be submitted. Earlier batches are recorded, and so is a batch that may have
                reached the provider.
        """
        if not prepared.texts:
            return []
        candidate = prepared.candidate
        self._cache.require_keeping(disk_size(self._cache, len(prepared.texts), candidate))
        endpoint = self._endpoint(candidate)
        key = key_function(candidate, question.input_type, dtype=self._cache.dtype)
        texts = {key(item.text): item for item in prepared.texts}
        limits = Limits(texts=endpoint.max_texts, size=endpoint.max_bytes)
        unsent: dict[str, Part] | None = None
        while unsent is None:
            with self.records.transaction():
                known, seen = self.records.under_way(texts)
                new = [(name, item) for name, item in texts.items() if name not in known]
                sizes = [
                    len(json.dumps(item.text, ensure_ascii=False).encode()) + endpoint.bytes_per_text for _, item in new
                ]
                parts = [dict(new[part]) for part in pack([item.tokens for _, item in new], sizes, limits)]
                unsent = self._reserve(question, prepared, parts, seen)
        references = [*dict.fromkeys(known.values()), *unsent]
        try:
            for reference in list(unsent):
                part = unsent[reference]
                self._submit(candidate, reference, unsent, question.input_type)
                self._tell_submitted(candidate, question, part)
        finally:
            for reference in unsent:
                self._discard(reference)
        return references

    def _reserve(
        self, question: Question, prepared: Prepared, parts: Sequence[Part], seen: int
    ) -> dict[str, Part] | None:
        """Record batches and reserve their money, for all batches or for none.

        Args:
            seen: what ``BatchRecords.under_way`` has returned.

        Returns:
            The batches by reference; ``None`` if another process has submitted some meanwhile.
        """
        candidate = prepared.candidate
        whole = sum(item.tokens for part in parts for item in part.values())
        free = self._ledger.free_tokens(candidate.name, candidate.free_tokens)
        amount = cost(max(0, whole - free), candidate.price)
        refusal = self._ledger.refusal(self._wiring.budget, amount, question.tag)
        if refusal is not None:
            self._refuse(candidate, question, amount, refusal)
        batches = [
            NewBatch(
                candidate,
                self._spending(question, candidate, part),
                [(name, prepared.positions[item.text], item.tokens) for name, item in part.items()],
                self._ledger.new_number(),
            )
            for part in parts
        ]
        if not self.records.add(batches, seen):
            return None
        for new in batches:
            reservation = self._ledger.reserve(self._wiring.budget, new.spending, new.reservation)
            if isinstance(reservation, Refusal):
                for other in batches:
                    self._discard(other.reference)
                self._refuse(candidate, question, new.spending.amount, reservation)
            self.records.set_reservation(new.reference, reservation)
        return {new.reference: part for new, part in zip(batches, parts, strict=True)}

    def _spending(self, question: Question, candidate: Candidate, part: Part) -> Spending:
        tokens = sum(item.tokens for item in part.values())
        return Spending(
            model=candidate.name,
            input_type=question.input_type,
            tier=candidate.tier,
            tag=question.tag,
            texts=len(part),
            pieces=sum(item.is_piece for item in part.values()),
            tokens=tokens,
            amount=cost(tokens, candidate.price),
            free_tokens=candidate.free_tokens,
            attempt=1,
            timeout=self._endpoint(candidate).window,
        )

    def _refuse(self, candidate: Candidate, question: Question, amount: Decimal | None, refusal: Refusal) -> NoReturn:
        told = about(candidate, question.input_type, question.tag)
        self._wiring.events.emit(BudgetRefused, **told, cost=amount, reason=refusal)
        raise BudgetExceededError(f"No batch was submitted to {candidate.name}: {refusal}", tag=refusal.tag)

    def _tell_submitted(self, candidate: Candidate, question: Question, part: Part) -> None:
        tokens = sum(item.tokens for item in part.values())
        self._wiring.events.emit(
            BatchSubmitted,
            **about(candidate, question.input_type, question.tag),
            texts=len(part),
            tokens=tokens,
            cost=cost(tokens, candidate.price),
        )

    def _submit(self, candidate: Candidate, reference: str, unsent: dict[str, Part], input_type: InputType) -> None:
        """Submit one batch; it is not ``unsent`` as soon as it may reach the provider."""
        endpoint = self._endpoint(candidate)
        texts = {name.hex(): item.text for name, item in unsent[reference].items()}
        uploaded = self._with_retries(lambda: endpoint.upload(texts, input_type, timeout=TRANSFER))
        del unsent[reference]
        earlier = count()

        def submit() -> str:  # after a gateway error the batch may exist: look before a retry
            found = endpoint.find(reference, timeout=candidate.timeout) if next(earlier) else None
            return found or endpoint.submit(uploaded, reference, input_type, timeout=candidate.timeout)

        try:
            self.records.set_provider_id(reference, self._with_retries(submit, once=True))
        except BackendError as error:
            if not error.perhaps_billed:
                self._discard(reference)
                raise
            if self._provider_id(self.records.get(reference), candidate) is None:  # poll looks again
                raise

    def _discard(self, reference: str) -> None:
        self._drop(reference, self._ledger.release)

    def forget(self, reference: str) -> None:
        """Drop the record of a batch that may have been billed, and mark its reservation as unconfirmed."""
        self._drop(reference, self._ledger.mark_unconfirmed)

    def _drop(self, reference: str, close: Callable[[int], object]) -> None:
        with self.records.transaction():
            record = self.records.get(reference)
            if not record.ended:
                close(record.reservation)
            self.records.drop(reference)

    # Looking, collecting, cancelling

    def references(self, *, ended: bool = False) -> list[str]:
        """Return the references of this router's batches that are in progress, or have ended, oldest first."""
        return [
            record.reference
            for record in self.records.all()
            if record.ended == ended and any(map(record.is_of, self._wiring.candidates))
        ]

    def poll(self, reference: str) -> BatchStatus:
        """Return the status of one batch, and collect the answers of a batch that has ended."""
        record = self.records.get(reference)
        if not record.ended:
            candidate = self._candidate(record)
            provider_id = self._provider_id(record, candidate)
            if provider_id is None:
                if datetime.now(UTC) - record.at < LOST:
                    return BatchStatus(False, record.texts, 0, ())
                self._end(record, "the batch never reached the provider")
            else:
                endpoint = self._endpoint(candidate)
                progress = self._with_retries(lambda: endpoint.retrieve(provider_id, timeout=candidate.timeout))
                if not progress.ended:
                    return BatchStatus(False, record.texts, progress.answered, ())
                if progress.refusal:
                    self._end(record, f"the batch was refused ({progress.refusal})")
                else:
                    self._with_retries(lambda: self._collect(record, candidate, provider_id, progress.answered))
        failures = tuple(self.records.failures(reference))
        return BatchStatus(True, record.texts, record.texts - len(failures), failures)

    def cancel(self, reference: str) -> None:
        """Ask the provider to stop one batch."""
        record = self.records.get(reference)
        candidate = self._candidate(record)
        provider_id = None if record.ended else self._provider_id(record, candidate)
        if provider_id is not None:
            self._with_retries(lambda: self._endpoint(candidate).cancel(provider_id, timeout=candidate.timeout))

    def _provider_id(self, record: BatchRecord, candidate: Candidate) -> str | None:
        """Return the provider's id of a batch, which is looked for and recorded where it is not known."""
        if record.provider_id is not None:
            return record.provider_id
        endpoint = self._endpoint(candidate)
        found = self._with_retries(lambda: endpoint.find(record.reference, timeout=candidate.timeout))
        if found is not None:
            self.records.set_provider_id(record.reference, found)
        return found

    def _collect(self, record: BatchRecord, candidate: Candidate, provider_id: str, expected: int) -> None:
        """Store a batch's answers in the cache, book the cost and close the record. Safe to repeat at any point."""
        texts = self.records.texts(record.reference)
        if self.records.get(record.reference).ended:  # another process has collected the batch and removed its texts
            return
        named = {key.hex(): key for key in texts}
        failures: dict[bytes, str | None] = dict.fromkeys(texts, "not answered")
        tokens = answered = 0
        implausible: str | None = None
        page: dict[bytes, Entry] = {}
        for name, outcome in self._endpoint(candidate).results(provider_id, timeout=TRANSFER):
            if (key := named.get(name)) is None:
                continue
            failures[key] = outcome if isinstance(outcome, str) else None
            if isinstance(outcome, Answer):
                answered += 1
                reported, doubt = plausible_count(outcome.tokens, texts[key], 1)
                billed = texts[key] if reported is None else reported
                implausible = implausible or outcome.implausible or doubt
                tokens += billed
                vectors = self._cache.rounded(outcome.vectors)
                wrong = fault(replace(outcome, vectors=vectors), 1, candidate)
                failures[key] = wrong or unusable(vectors).get(0)
                if failures[key] is None:
                    page[key] = Entry(vectors[0], billed)
            if len(page) >= PAGE:
                self._keep(page)
                page = {}
        self._keep(page)
        if answered < expected:
            raise UnavailableError(
                f"{answered} answers of the batch could be read, the provider counts {expected}; what was read is in "
                "the cache. Ask again, or give the batch up: BatchJob.forget, embedrouter batch forget.",
                model=candidate.name,
            )
        with self.records.transaction():
            price = cost(tokens, candidate.batch_price)
            amount = self._ledger.settle(record.reservation, tokens, price, implausible)
            if not self.records.end(record.reference, failures):
                return
            self._wiring.totals.add(usage_of([Charge(tokens, amount)]))
        self._wiring.events.emit(
            BatchCollected,
            **about(candidate, record.input_type, record.tag),
            texts=len(texts),
            failed=sum(reason is not None for reason in failures.values()),
            tokens=tokens,
            cost=amount,
        )

    def _keep(self, page: Mapping[bytes, Entry]) -> None:
        if not self._cache.write(page):
            raise ConfigError(
                "The cache cannot keep a batch's answers (see the warning before this). Nothing is lost: set it right, "
                "and poll again."
            )

    def _end(self, record: BatchRecord, reason: str) -> None:
        """Close the record of a batch that was not billed."""
        with self.records.transaction():
            failures = dict.fromkeys(self.records.texts(record.reference), reason)
            self._ledger.release(record.reservation)
            self.records.end(record.reference, failures)

    # Helpers

    def _candidate(self, record: BatchRecord) -> Candidate:
        for candidate in self._wiring.candidates:
            if record.is_of(candidate):
                return candidate
        raise ConfigError(f"{record.reference} is a batch of {record.model}, which is not a model of this router.")

    def _endpoint(self, candidate: Candidate) -> BatchEndpoint:
        endpoint = self._wiring.backends[candidate.index].batches
        assert endpoint is not None, "only models with a batch endpoint have a batch price"
        return endpoint

    def _with_retries(self, ask: Callable[[], T], *, once: bool = False) -> T:
        """Send a request with retries; ``once`` sends no second request after one that may have taken effect."""
        retry, attempt = self._wiring.retry, 0
        while True:
            attempt += 1
            try:
                return ask()
            except BackendError as error:
                if error.__cause__ is None:
                    error.__context__ = None  # the SDK's error, which may repeat a text or a key
                wait = retry.wait(attempt, error, self._wiring.random())
                if wait is None or wait > retry.timeout or (once and error.perhaps_billed):
                    raise
            self.sleep(wait)
