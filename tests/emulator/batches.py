"""The batches of one provider, in the hands of a test: nothing happens to one before the test lets it.

    emulator.batches.finish()                      # everything, to its end; emulator.batches are OpenAI's
    emulator.batches.advance()                     # one step: validating, in_progress, finalizing, completed
    emulator.batches.progress(share=0.5)           # half of the requests are done; a cancel now leaves half an output
    emulator.batches.expire(share=0.6)             # the window closes on the rest
    emulator.batches.automatic = True              # each look at a batch is one step

A request is billed when it is done. Steps move the clock of the service, and nothing else does.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tests.emulator.batch import Batch, Form
from tests.emulator.batch_input import Complaint, Limits, Line
from tests.emulator.batch_output import Failure, Lines, NotRun, Outcome, Success
from tests.emulator.clock import Clock
from tests.emulator.exchange import Received, Refusal
from tests.emulator.faults import Fault
from tests.emulator.files import Files
from tests.emulator.journal import Journal

Which = Collection[str] | Callable[[Line], bool]

_TO_VALIDATE, _TO_WORK, _TO_WRITE, _TO_CANCEL = 5, 600, 30, 60


class Batches:
    """Every batch of one account. `id` None means all that have not ended; `share` counts from the first line on."""

    automatic: bool
    """Whether each GET of a batch lets it take one step first."""
    instant: bool
    """Whether each GET of a batch lets it take every step first."""
    shuffled: bool
    """Whether output and error files have another order than the input, as the service's have."""
    elsewhere: bool
    """Whether contents of files are answered with a redirect to another host, which wants no key (Voyage's)."""
    seed: int
    """What the order is drawn from."""
    limits: Limits
    """What a file may hold; for tests that have no 200 MB at hand."""

    def __init__(self, form: Form, files: Files, clock: Clock, journal: Journal, limits: Limits) -> None:
        self._form = form
        self._usual_limits = limits
        self._files = files
        self._clock = clock
        self._journal = journal
        self._lock = threading.RLock()
        self._batches: dict[str, Batch] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every batch and every file, and what was set here."""
        with self._lock:
            self._batches.clear()
            self._files.forget()
            self.automatic, self.instant, self.shuffled, self.seed = False, False, True, 0
            self.limits, self.elsewhere = self._usual_limits, False
            self._failing: tuple[Which, int, bool] = ((), 500, False)
            self._spoiling: tuple[Which, Fault | None] = ((), None)
            self._failed_once: set[str] = set()

    # What to let happen.

    def advance(self, id: str | None = None) -> None:
        """Take one step: to in_progress (or failed), to finalizing, to completed; from cancelling to cancelled."""
        with self._lock:
            for batch in self._chosen(id):
                self._step(batch)

    def finish(self, id: str | None = None) -> None:
        """Take every step to the end."""
        with self._lock:
            for batch in self._chosen(id):
                while not batch.ended:
                    self._step(batch)

    def progress(self, id: str | None = None, *, share: float = 0.5) -> None:
        """Have the first `share` of the requests done, in a batch that is in progress or being cancelled."""
        with self._lock:
            for batch in self._chosen(id):
                if batch.status == "validating":
                    self._step(batch)
                self._work(batch, share)

    def expire(self, id: str | None = None, *, share: float = 0.6) -> None:
        """Have the first `share` of the requests done, then close the window on the others."""
        with self._lock:
            for batch in self._chosen(id):
                if batch.status == "validating":
                    self._step(batch)
                if not batch.ended:
                    self._work(batch, share)
                    self._clock.forward_to(batch.expires_at)
                    self._end(batch, "expired", "batch_expired")

    def pass_time(self, seconds: int) -> None:
        """Let time pass: batches whose window closes expire with what they have, files whose time is up are gone."""
        with self._lock:
            self._clock.forward(seconds)
            for batch in self._chosen(None):
                if batch.expires_at <= self._clock.now:
                    self._end(batch, "expired", "batch_expired")

    def fail_lines(self, which: Which, status: int = 500, *, once: bool = False) -> None:
        """Let these requests end with an HTTP error: custom_ids, or a predicate of the line. The last call counts.

        With `once` each custom_id fails the first time only, so that sending it again helps.
        """
        with self._lock:
            self._failing = (which, status, once)
            self._failed_once.clear()

    def spoil_lines(self, which: Which, fault: Fault | None) -> None:
        """Let these requests be answered wrongly: any fault that spoils an answer, such as `Fault.nan()`."""
        with self._lock:
            self._spoiling = (which, fault)

    # What happened.

    @property
    def ids(self) -> tuple[str, ...]:
        """Every batch, oldest first."""
        with self._lock:
            return tuple(self._batches)

    @property
    def input_lines(self) -> list[dict[str, Any]]:
        """The lines of the input files of all batches, oldest first, as JSON objects."""
        with self._lock:
            files = [self._files.get(batch.input_file_id) for batch in self._batches.values()]
        contents = [file.content for file in files if file is not None and isinstance(file.content, bytes)]
        return [json.loads(line) for content in contents for line in content.splitlines()]

    def output_lines(self, id: str) -> list[dict[str, Any]]:
        """Return the lines of the output and error files of a batch, as JSON objects."""
        with self._lock:
            batch = self._batches[id]
            files = [self._files.get(file) for file in (batch.output_file_id, batch.error_file_id) if file]
        written = [file.content for file in files if file is not None and not isinstance(file.content, bytes)]
        return [json.loads(line) for lines in written for line in b"".join(lines.pieces()).splitlines()]

    @property
    def received(self) -> tuple[Received, ...]:
        """Every request to the provider's files and batches so far, accepted or not."""
        return tuple(
            received
            for received in self._journal.received
            if received.endpoint != "embeddings" and received.provider == self._form.name
        )

    # What the API does.

    def create(
        self,
        input_file_id: str,
        endpoint: str,
        metadata: dict[str, str] | None,
        output_kept: int,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Start a batch; what is wrong with its file turns out later."""
        with self._lock:
            number, id = len(self._batches), self._form.new_id()
            batch = Batch(
                self._form, id, input_file_id, endpoint, metadata, output_kept, self._clock.now, number, params or {}
            )
            self._batches[batch.id] = batch
            return batch.shown()

    def look(self, id: str) -> dict[str, Any] | None:
        """Return a batch as it is, or after a step in automatic mode; None when there is none."""
        with self._lock:
            batch = self._batches.get(id)
            if batch is not None and self.instant:
                self.finish(id)
            elif batch is not None and self.automatic:
                self._step(batch)
            return batch.shown() if batch else None

    def status(self, id: str) -> str | None:
        """Return the status of a batch; None when there is none."""
        with self._lock:
            batch = self._batches.get(id)
            return batch.status if batch else None

    def cancel(self, id: str) -> dict[str, Any] | None:
        """Begin to cancel a batch that is still being worked on, and return it as it then is."""
        with self._lock:
            batch = self._batches.get(id)
            if batch is not None and batch.status in ("validating", "in_progress"):
                batch.become("cancelling", self._clock.now)
            return batch.shown() if batch else None

    @property
    def in_flight(self) -> int:
        """How many batches have not ended."""
        with self._lock:
            return sum(not batch.ended for batch in self._batches.values())

    def newest_first(self) -> Sequence[Batch]:
        with self._lock:
            return tuple(reversed(self._batches.values()))

    # How a step is taken.

    def _chosen(self, id: str | None) -> Iterator[Batch]:
        if id is not None and id not in self._batches:
            raise KeyError(f"no batch {id!r}; there are {', '.join(self._batches) or 'none'}")
        chosen = self._batches.values() if id is None else [self._batches[id]]
        return iter([batch for batch in chosen if not batch.ended])

    def _step(self, batch: Batch) -> None:
        if batch.status == "validating":
            self._validate(batch)
        elif batch.status == "in_progress":
            self._work(batch, 1.0)
            batch.become("finalizing", self._clock.forward(_TO_WORK))
        elif batch.status == "finalizing":
            self._clock.forward(_TO_WRITE)
            self._end(batch, "completed", None)
        elif batch.status == "cancelling":
            self._clock.forward(_TO_CANCEL)
            self._end(batch, "cancelled", "batch_cancelled")

    def _validate(self, batch: Batch) -> None:
        now = self._clock.forward(_TO_VALIDATE)
        file = self._files.get(batch.input_file_id)
        if file is None:
            message = (
                f"Cannot find file {batch.input_file_id}, or organization org-emulated does not have access to it."
            )
            batch.complaints = (Complaint("invalid_request", message, "file_id"),)
        elif file.purpose != "batch" or not isinstance(file.content, bytes):
            message = f"The file {file.id} has the purpose '{file.purpose}'. It must be uploaded with 'batch'."
            batch.complaints = (Complaint("invalid_request", message, "file_id"),)
        else:
            batch.lines, batch.complaints = self._form.read(batch, file.content, self.limits)
        batch.become("failed" if batch.complaints else "in_progress", now)

    def _work(self, batch: Batch, share: float) -> None:
        """Do the requests up to `share` of all, and bill them."""
        for line in batch.lines[len(batch.outcomes) : round(share * len(batch.lines))]:
            outcome = self._outcome(batch, line)
            batch.outcomes.append(outcome)
            if isinstance(outcome, Success):
                self._journal.bill(self._form.name, outcome.job, batch=True)

    def _outcome(self, batch: Batch, line: Line) -> Outcome:
        which, status, once = self._failing
        if _hit(which, line) and line.custom_id not in self._failed_once:
            if once:
                self._failed_once.add(line.custom_id)
            return Failure(line, status, self._form.failure(status, line))
        try:
            job = self._form.job(batch, line)
        except Refusal as refusal:
            return Failure(line, refusal.reply.status, json.loads(refusal.reply.body))
        spoilt, fault = self._spoiling
        return Success(line, job, fault if _hit(spoilt, line) else None)

    def _end(self, batch: Batch, status: str, code: str | None) -> None:
        """Write the files, each only when there is something for it, and close the batch."""
        if code is not None and status in self._form.written_unless_run:
            batch.outcomes += [NotRun(line, code) for line in batch.lines[len(batch.outcomes) :]]
        good = [outcome for outcome in batch.outcomes if isinstance(outcome, Success)]
        bad = [outcome for outcome in batch.outcomes if not isinstance(outcome, Success)]
        batch.output_file_id = self._write(batch, "output", good)
        batch.error_file_id = self._write(batch, "error", bad)
        batch.become(status, self._clock.now)

    def _write(self, batch: Batch, name: str, outcomes: Sequence[Outcome]) -> str | None:
        if not outcomes:
            return None
        mixed = self._mixed(outcomes, f"{self.seed}/{batch.number}/{name}")
        lines = Lines(mixed, lambda outcome: self._form.written(batch.id, outcome))
        return self._files.add(f"{batch.id}_{name}.jsonl", self._form.output_purpose, lines, batch.output_kept).id

    def _mixed(self, outcomes: Sequence[Outcome], seed: str) -> Sequence[Outcome]:
        """Return them in another order than they have, if there is one."""
        if not self.shuffled:
            return outcomes
        mixed = random.Random(seed).sample(outcomes, len(outcomes))
        return mixed if mixed != outcomes else mixed[::-1]


def _hit(which: Which, line: Line) -> bool:
    return which(line) if callable(which) else line.custom_id in which
