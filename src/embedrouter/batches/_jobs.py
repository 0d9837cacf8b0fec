"""Embedding a corpus at a discount: texts are handed to the provider's batch endpoint, which has a day to answer.

``Batches`` submits what is neither cached nor under way already, sets the money aside at the batch price, and collects
the answers into the cache, from where a later ``embed`` takes them. A batch outlives the process that submitted it:
its record is in the ledger's file (see ``batch_records``), and any router of the same model can collect it.
"""

from __future__ import annotations

import json
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from ..cache import VectorCache
from ..calls import Item, Job, fault, pack
from ..errors import (
    BackendError,
    BudgetExceededError,
    ConfigError,
    EmbedRouterError,
    UnavailableError,
)
from ..limits import RetryPolicy
from ..models import Backend, BatchEndpoint
from ..spending import Budget, Ledger, cost
from ..types import Answer, Candidate, Entry, Limits, Spending, Usage
from ._records import BatchFailure, BatchRecord, BatchRecords, Sent

__all__ = ["BatchFailure", "BatchJob", "BatchRecord", "BatchStatus", "Batches"]

DAY = 86_400.0
TRANSFER = 600.0
"""Seconds that the connection may be silent while a file is uploaded or downloaded."""
LOST = timedelta(hours=1)
"""After this time a batch that the provider does not know of was never submitted."""
PAGE = 500
"""Answers written to the cache at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a job is."""

    ended: bool
    """Nothing more will come: what was answered is in the cache."""
    texts: int
    """Texts in its batches."""
    answered: int
    failures: tuple[BatchFailure, ...]
    """Texts without a vector; submitting them again, or ``embed``, gives them another try."""


class BatchJob:
    """Texts that a provider embeds within a day, in one batch or several.

    Texts that were under way already are in a batch of another call: that batch is part of this job too, and positions
    of failures in it are those in the texts of that other call.

    Attributes:
        ids: names the batches on this side.
    """

    def __init__(self, batches: Batches, ids: Sequence[str]) -> None:
        self._batches = batches
        self.ids = tuple(ids)

    @property
    def records(self) -> list[BatchRecord]:
        """What is on file of each batch."""
        return [self._batches.record(mark) for mark in self.ids]

    def poll(self) -> BatchStatus:
        """Ask the provider how far it is, and collect into the cache what has ended.

        Raises:
            BackendError: the provider cannot be asked; nothing is lost, ask again.
        """
        parts: list[BatchStatus] = []
        errors: list[EmbedRouterError] = []
        for mark in self.ids:
            try:
                parts.append(self._batches.poll(mark))
            except EmbedRouterError as error:  # the others are collected all the same
                errors.append(error)
        if errors:
            raise errors[0]
        return BatchStatus(
            ended=all(part.ended for part in parts),
            texts=sum(part.texts for part in parts),
            answered=sum(part.answered for part in parts),
            failures=tuple(failure for part in parts for failure in part.failures),
        )

    def wait(self, *, every: float = 60.0, timeout: float | None = None) -> BatchStatus:
        """Poll until all has ended.

        Args:
            every: seconds from one look to the next.
            timeout: seconds after which the status is returned as it is, ended or not.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self.poll()
            left = math.inf if deadline is None else deadline - time.monotonic()
            if status.ended or left <= 0:
                return status
            time.sleep(min(every, left))

    def forget(self) -> None:
        """Give up batches that cannot be collected: their answers have expired, or their key is gone.

        What they may have cost stays counted as unconfirmed spending, and their texts can be submitted again.
        """
        for mark in self.ids:
            self._batches.give_up(mark)

    def cancel(self) -> None:
        """Ask the provider to stop. What is answered until then is billed, and collected when ``poll`` sees the end."""
        for mark in self.ids:
            self._batches.cancel(mark)

    def __repr__(self) -> str:
        return f"BatchJob({', '.join(self.ids) or 'nothing to do'})"


class Batches:
    """The batches of one router."""

    def __init__(
        self,
        backends: Sequence[Backend],
        candidates: Sequence[Candidate],
        cache: VectorCache,
        ledger: Ledger,
        budget: Budget,
        retry: RetryPolicy,
        book: Callable[[Usage], None],
    ) -> None:
        self._backends, self._candidates = backends, candidates
        self._cache, self._ledger, self._budget, self._retry = cache, ledger, budget, retry
        self._book = book
        self._records = BatchRecords(ledger)

    def check(self) -> None:
        """Refuse a router whose batches would be lost.

        Raises:
            ConfigError: it has no cache, or no ledger in a file.
        """
        if self._cache.store is None:
            raise ConfigError("What a batch embeds goes into the cache, and this router has none. Set cache=….")
        with self._records.transaction():
            pass

    # Submitting

    def submit(self, job: Job, items: Sequence[Item]) -> BatchJob:
        """Submit texts that are not under way yet.

        Raises:
            BudgetExceededError: the money for all of them does not suffice; nothing was submitted.
            BackendError: a batch could not be submitted. Those before it are on file, and so is one of which nobody
                knows whether it was.
        """
        if not items:
            return BatchJob(self, [])
        candidate = job.candidates[0]
        endpoint = self._endpoint(candidate)
        key = job.key(candidate)
        texts = {key(item.text): item for item in items}
        limits = Limits(texts=endpoint.max_texts, size=endpoint.max_bytes)
        sizes = {name: _size(item.text) + endpoint.bytes_per_text for name, item in texts.items()}
        with self._records.transaction():
            known = self._records.under_way(list(texts))
            new = {name: item for name, item in texts.items() if name not in known}
            tokens = [item.tokens for item in new.values()]
            slices = pack(tokens, [sizes[name] for name in new], limits)
            parts = [list(new.values())[part] for part in slices]
            marks = self._claim(job, candidate, parts, key)
        for number, (mark, part) in enumerate(zip(marks, parts, strict=True), 1):
            try:
                self._submit(job, candidate, mark, {key(item.text).hex(): item.text for item in part})
            except BaseException:
                for later in marks[number:]:
                    self._forget(later)
                raise
        return BatchJob(self, [*dict.fromkeys(known.values()), *marks])

    def _claim(
        self, job: Job, candidate: Candidate, parts: Sequence[Sequence[Item]], key: Callable[[str], bytes]
    ) -> list[str]:
        """Write records for batches and set their money aside: for all or for none."""
        whole = sum(item.tokens for part in parts for item in part)
        free = self._ledger.free_tokens(candidate.name, candidate.free_tokens)
        refusal = self._ledger.refusal(self._budget, cost(max(0, whole - free), candidate.price))
        positions = _positions(job)
        marks = []
        for part in parts:
            tokens = sum(item.tokens for item in part)
            reservation = refusal or self._ledger.reserve(
                self._budget,
                Spending(
                    model=candidate.name,
                    input_type=job.input_type,
                    tier=candidate.tier,
                    tag=job.tag,
                    texts=len(part),
                    tokens=tokens,
                    amount=cost(tokens, candidate.price),
                    free_tokens=candidate.free_tokens,
                    attempt=1,
                    timeout=DAY,
                ),
            )
            if isinstance(reservation, str):
                raise BudgetExceededError(f"No batch was submitted to {candidate.name}: {reservation}")
            mark = f"batch-{secrets.token_hex(6)}"
            sent = [Sent(key(item.text), positions[item.text], item.tokens) for item in part]
            self._records.add(mark, datetime.now(UTC), candidate.name, candidate.fingerprint, reservation, sent)
            marks.append(mark)
        return marks

    def _submit(self, job: Job, candidate: Candidate, mark: str, texts: Mapping[str, str]) -> None:
        endpoint = self._endpoint(candidate)
        try:
            uploaded = self._tried(lambda: endpoint.upload(texts, job.input_type, timeout=TRANSFER))
        except BaseException:  # nothing was asked for yet
            self._forget(mark)
            raise
        tried = False

        def submit() -> str:  # where a gateway failed, the provider may have done it: look before trying again
            nonlocal tried
            found = endpoint.find(mark, timeout=candidate.timeout) if tried else None
            tried = True
            return found or endpoint.submit(uploaded, mark, timeout=candidate.timeout)

        try:
            provider_id = self._tried(submit, once=True)
        except BackendError as error:
            if not error.perhaps_billed:
                self._forget(mark)
                raise
            found = self._tried(lambda: endpoint.find(mark, timeout=candidate.timeout))
            if found is None:  # it may turn up yet: poll looks again
                raise
            provider_id = found
        self._records.named(mark, provider_id)

    def _forget(self, mark: str) -> None:
        with self._records.transaction():
            self._ledger.release(self._records.get(mark).reservation)
            self._records.drop(mark)

    def give_up(self, mark: str) -> None:
        """Drop the record of a batch that may have been billed."""
        with self._records.transaction():
            record = self._records.get(mark)
            if not record.ended:
                self._ledger.suspect(record.reservation)
            self._records.drop(mark)

    # Looking, collecting, cancelling

    def jobs(self, *, ended: bool = False) -> list[BatchJob]:
        """Return the batches of this router's models that are under way, the oldest first; or those that ended."""
        known = {(candidate.name, candidate.fingerprint) for candidate in self._candidates}
        return [
            BatchJob(self, [record.mark])
            for record in self._records.all()
            if record.ended == ended and (record.model, record.fingerprint) in known
        ]

    def record(self, mark: str) -> BatchRecord:
        """Return what is on file of one batch."""
        return self._records.get(mark)

    def poll(self, mark: str) -> BatchStatus:
        """Ask how far one batch is, and collect it if it has ended."""
        record = self._records.get(mark)
        if record.ended:
            return self._ended(record)
        candidate = self._candidate(record)
        endpoint = self._endpoint(candidate)
        provider_id = self._provider_id(record, endpoint, candidate)
        if provider_id is None:
            if datetime.now(UTC) - record.at < LOST:
                return BatchStatus(False, record.texts, 0, ())
            self._end(record, "the batch never reached the provider")
            return self._ended(record)
        progress = self._tried(lambda: endpoint.retrieve(provider_id, timeout=candidate.timeout))
        if not progress.ended:
            return BatchStatus(False, record.texts, progress.answered, ())
        if progress.refusal:
            self._end(record, f"the batch was refused ({progress.refusal})")
        else:
            self._tried(lambda: self._collect(record, candidate, endpoint, provider_id, progress.answered))
        return self._ended(record)

    def cancel(self, mark: str) -> None:
        """Ask the provider to stop one batch."""
        record = self._records.get(mark)
        candidate = self._candidate(record)
        endpoint = self._endpoint(candidate)
        provider_id = None if record.ended else self._provider_id(record, endpoint, candidate)
        if provider_id is not None:
            self._tried(lambda: endpoint.cancel(provider_id, timeout=candidate.timeout))

    def _provider_id(self, record: BatchRecord, endpoint: BatchEndpoint, candidate: Candidate) -> str | None:
        if record.provider_id is None:
            found = self._tried(lambda: endpoint.find(record.mark, timeout=candidate.timeout))
            if found is not None:
                self._records.named(record.mark, found)
            return found
        return record.provider_id

    def _collect(
        self, record: BatchRecord, candidate: Candidate, endpoint: BatchEndpoint, provider_id: str, expected: int
    ) -> None:
        """Put a batch's answers into the cache, book them, and close its record. May be done again at any point."""
        texts = self._records.texts(record.mark)
        if self._records.get(record.mark).ended:  # somebody else was faster, and its texts are off file
            return
        failures = dict.fromkeys(texts, "not answered")
        tokens = answered = 0
        page: dict[bytes, Entry] = {}
        for name, outcome in endpoint.results(provider_id, timeout=TRANSFER):
            key = bytes.fromhex(name)
            if key not in texts:
                continue
            if isinstance(outcome, Answer):
                answered += 1
                billed = texts[key] if outcome.tokens is None else outcome.tokens
                tokens += billed
                outcome = replace(outcome, vectors=self._cache.rounded(outcome.vectors))
                wrong = fault(outcome, 1, candidate.space.dimensions)
                if wrong is None:
                    page[key] = Entry(outcome.vectors[0], billed)
                    failures.pop(key, None)
                else:
                    failures[key] = wrong
            else:
                failures[key] = outcome
            if len(page) >= PAGE:
                self._keep(page)
                page = {}
        self._keep(page)
        if answered < expected:
            raise UnavailableError(
                f"{answered} answers of the batch could be read, the provider counts {expected}; what was read is in "
                "the cache. Ask again.",
                model=candidate.name,
            )
        with self._records.transaction():
            if self._records.end(record.mark, failures):
                amount = self._ledger.settle(record.reservation, tokens, cost(tokens, candidate.batch_price))
                self._book(_usage(tokens, amount))

    def _keep(self, page: Mapping[bytes, Entry]) -> None:
        if not self._cache.write(page):
            raise ConfigError(
                "The cache cannot keep a batch's answers (see the warning before this). Nothing is lost: set it right, "
                "and poll again."
            )

    def _end(self, record: BatchRecord, reason: str) -> None:
        """Close the record of a batch that was not billed."""
        with self._records.transaction():
            failures = dict.fromkeys(self._records.texts(record.mark), reason)
            if self._records.end(record.mark, failures):
                self._ledger.release(record.reservation)

    def _ended(self, record: BatchRecord) -> BatchStatus:
        failures = tuple(self._records.failures(record.mark))
        return BatchStatus(True, record.texts, record.texts - len(failures), failures)

    # Helpers

    def _candidate(self, record: BatchRecord) -> Candidate:
        for candidate in self._candidates:
            if (candidate.name, candidate.fingerprint) == (record.model, record.fingerprint):
                return candidate
        raise ConfigError(f"{record.mark} is a batch of {record.model}, which is not a model of this router.")

    def _endpoint(self, candidate: Candidate) -> BatchEndpoint:
        endpoint = self._backends[candidate.index].batches
        assert endpoint is not None, "only models with a batch endpoint have a batch price"
        return endpoint

    def _tried(self, ask: Callable[[], T], *, once: bool = False) -> T:
        """Ask the provider until it answers; ``once`` where a second request could do what the first did already."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return ask()
            except BackendError as error:
                if error.__cause__ is None:
                    error.__context__ = None  # the library's error, which repeats a text or a key
                wait = self._retry.wait(attempt, error, random.random())
                if wait is None or wait > self._retry.timeout or (once and error.perhaps_billed):
                    raise
            time.sleep(wait)


def _size(text: str) -> int:
    """Return the bytes of a text as JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _positions(job: Job) -> dict[str, int]:
    """Return where each text, or the text that it is a part of, stands first in the input."""
    positions: dict[str, int] = {}
    for index, text in enumerate(job.texts):
        positions.setdefault(text, index)
    for whole, parts in job.parts.items():
        for part in parts:
            positions.setdefault(part, positions[whole])
    return positions


def _usage(tokens: int, amount: Decimal | None) -> Usage:
    return Usage(tokens, 1, amount or Decimal(0), unpriced_tokens=tokens if amount is None else 0)
