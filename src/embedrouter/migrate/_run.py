"""Fill the new collection: read the old one page by page, embed what the new one lacks, write it; until both are equal.

Each pass reads the whole old collection, and does only what is to be done: rows that are equal already are passed over,
and vectors that are paid for are in the cache. So a run that was stopped at any point, and what was added, changed or
deleted meanwhile, need nothing of their own: a pass that finds nothing to do is the last. The new collection's rows and
the cache are the only state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

from .._display import counted, dollars, first_few, masked, shown_name
from ..calls import Progress, ShowProgress
from ..errors import ConfigError, EmbedRouterError, UnavailableError
from ..retrieval.given_router import GivenRouter
from ..retrieval.store_guard import hold
from ..router import Router, wiring_of
from ..stores import Database, Readable, StoredText, Writable
from ..types import OVERLONG, OverlongPolicy, Usage
from ._entry import Entry, read_entry, write_entry
from ._lock import one_at_a_time
from ._migration import Migration, Opened, migration, require_unswitched
from ._plan import Plan, examine, rows_at_once
from ._rows import LeftOut, facts, reasons, same

MOST_PASSES = 20
"""After which a collection that keeps changing is left as it is."""
BATCH_TEXTS = 50_000
"""Texts in one batch."""
LIVE_SHARE = 0.02
"""The share of a batch's texts that may be left for the live endpoint, which costs more than was agreed to."""


@dataclass(frozen=True, slots=True, repr=False)
class Moved:
    """What a run has done.

    Attributes:
        name: of the new collection.
        place: its store.
        rows: in the new collection.
        written: rows that were written, new ones and changed ones.
        removed: rows that are no longer in the old collection.
        passes: how often the old collection was read; the last one found nothing to do.
        settled: whether it did; otherwise the old collection changes faster than it is read.
        usage: what the run has used.
        left_out: ids of the rows that could not be moved, by the reason.
        shortened: ids of the rows of which the beginning, or the mean of the parts, was embedded.
        on_too_long: which of the two.
        seconds: of the run.
    """

    name: str
    place: str
    rows: int
    written: int
    removed: int
    passes: int
    settled: bool
    usage: Usage
    left_out: dict[str, tuple[str, ...]]
    shortened: tuple[str, ...]
    on_too_long: OverlongPolicy
    seconds: float

    def __str__(self) -> str:
        """Describe the run in a few sentences."""
        removed = f", {self.removed:,} removed" if self.removed else ""
        saved = f", {dollars(self.usage.saved)} saved" if self.usage.saved else ""
        parts = [
            f"{counted(self.rows, 'row')} in {self.name}: {self.written:,} written{removed}, "
            f"{dollars(self.usage.cost)}{saved}.",
            f"The old collection was read {counted(self.passes, 'time')}"
            + ("; the last time nothing was new." if self.settled else " and keeps changing: run again."),
        ]
        if self.shortened:
            parts.append(
                f"Longer than the model takes: {len(self.shortened):,} ({first_few(self.shortened)}); "
                f"{OVERLONG[self.on_too_long]}."
            )
        parts += [f"Left out: {reasons(self.left_out)}."] if self.left_out else []
        return " ".join(parts)

    def __repr__(self) -> str:
        return f"<Moved: {self}>"


def run(
    source: Any,
    target: GivenRouter | None = None,
    *,
    collection: str | None = None,
    into: Any = None,
    name: str | None = None,
    batch: bool = False,
    every: float = 60.0,
    skip_bad: bool = False,
    show_progress: ShowProgress = False,
    **settings: Any,
) -> Moved:
    """Fill the new collection, or go on with it, until it holds what the old one holds.

    The old collection is read and never written to. Killed at any point and called again, this goes on: no text is paid
    for twice, no row is written twice.

    Args:
        source: a ``Plan``, or the arguments of ``plan``.
        batch: use the provider's batch endpoint, which costs less, and wait for its answers.
        every: seconds between two looks at a batch.
        skip_bad: leave out rows that cannot be embedded, or that the new store cannot keep; the result names them.
            Otherwise one of them is an error, before anything is paid.
        show_progress: as of ``Router.embed``.

    Raises:
        InvalidInputError: rows cannot be moved; the message names them.
        BudgetExceededError: the budget does not cover all texts; nothing was called.
        CacheError: the cache cannot keep what is paid for.
        ConfigError: another run fills the collection, or the user's programs use it already.
        EmbedRouterError: an error of ``Router.embed``; what was answered is kept.
    """
    given = source if isinstance(source, Plan) else None
    asked = migration(source, target, collection, into, name, settings)
    began = time.monotonic()
    with asked.opened() as opened, one_at_a_time(opened.database.place, opened.name):
        require_unswitched(opened.alias, opened.switched)
        found = given or examine(asked, opened)
        left_out = LeftOut(allowed=skip_bad)
        for reason, ids in found.left_out.items():
            for identifier in ids:
                left_out.add(reason, identifier)
        left_out.require_none()
        left_out.require_few()
        router, before = asked.router, asked.router.usage
        if batch:
            router.estimate(["a"], input_type="document", batch=True)  # refuses a model without a batch endpoint
        cache, must_keep = router.cache, router.cache.must_keep
        wiring_of(router).require_affordable(found.cost(batch=batch))
        if found.estimate.cost != 0 and found.estimate.unique > found.estimate.cached:
            cache.require_keeping(found.estimate.cache_bytes)
            cache.must_keep = True
        try:
            new, entry = _begun(asked, opened)
            work = _Work(opened.source, new, opened.database, router, LeftOut(allowed=skip_bad))
            if batch:
                work.by_batch(every, show_progress)
            with Progress(show_progress, found.texts, "migrating") as progress:
                settled = work.until_equal(progress, before)
        finally:
            cache.must_keep = must_keep
        done = work.left_out.by_reason
        write_entry(new, replace(entry, state="filled", left_out=done))
        return Moved(
            name=opened.name,
            place=opened.database.place,
            rows=new.count(),
            written=work.written,
            removed=work.removed,
            passes=work.passes,
            settled=settled,
            usage=since(router.usage, before),
            left_out=done,
            shortened=tuple(work.shortened),
            on_too_long=wiring_of(router).on_too_long,
            seconds=time.monotonic() - began,
        )


def _begun(asked: Migration, opened: Opened) -> tuple[Writable, Entry]:
    """Return the new collection, which is made where there is none, and the entry of a migration that goes on."""
    with _written(opened.name):
        target = opened.target or opened.database.create(opened.name, asked.router, opened.source)
        hold(target, asked.router, adopt=False)
        entry = read_entry(target)
        if entry is None or entry.state != "filling":
            fresh = Entry(alias=opened.alias, origin=opened.source.kind, name=opened.name)
            entry = write_entry(target, fresh if entry is None else replace(entry, state="filling"))
    return target, entry


@contextmanager
def _written(name: str) -> Iterator[None]:
    """Tell what a store says when it cannot write.

    Raises:
        ConfigError: it cannot; the message has the next action.
    """
    try:
        yield
    except EmbedRouterError:
        raise
    except Exception as error:
        said = masked(" ".join(str(error).split())[:300])
        raise ConfigError(
            f"The store cannot write into {shown_name(name)} ({type(error).__name__}: {said}). Look for the cause: is "
            "the disk full, may you write there? Then run the same again: it goes on, and pays nothing twice."
        ) from error


def since(now: Usage, before: Usage) -> Usage:
    """Return what was used since an earlier total."""
    return Usage(*(getattr(now, item.name) - getattr(before, item.name) for item in fields(Usage)))


@dataclass(slots=True)
class _Work:
    """What a run does, and how much of it was done."""

    source: Readable
    target: Writable
    database: Database
    router: Router
    left_out: LeftOut
    written: int = 0
    removed: int = 0
    passes: int = 0
    recalled: int = 0
    shortened: dict[str, None] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    """What the pass before has written: a hash of each row by its id."""

    def until_equal(self, progress: Progress, before: Usage) -> bool:
        """Pass until there is nothing to do; return whether that was reached."""
        while self.passes < MOST_PASSES:
            self.passes += 1
            if not self._pass(progress if self.passes == 1 else None, before):
                return True
        return False

    def _pass(self, progress: Progress | None, before: Usage) -> int:
        """Make the new collection equal to the old one; return how many rows differed."""
        self.left_out.clear()
        seen: set[str] = set()
        changes = read = 0
        wrote: dict[str, int] = {}
        for page in self.source.pages(rows_at_once(self.router)):
            rows = self._lacking(page)
            seen.update(row.id for row in page)
            written = self._move(rows)
            changes += len(written)
            wrote |= {row.id: hash(repr(facts(row))) for row in written}
            self.left_out.require_few()
            read += len(page)
            if progress is not None:
                progress.reach(read, since(self.router.usage, before), cached=self.recalled)
        ids = set(self.source.ids())
        gone = [one for one in self.target.ids() if one not in ids or one in self.left_out]
        with _written(self.target.name):
            if gone:
                self.target.remove(gone)
            self.target.finish()
        self._last = wrote
        self.written += changes
        self.removed += len(gone)
        return changes + len(gone) + len(ids - seen)

    def _lacking(self, page: Sequence[StoredText]) -> list[StoredText]:
        """Return the rows of a page that the new collection has not, or not equal.

        Raises:
            ConfigError: a row was written in the pass before, and the store has kept something else.
        """
        rows = self.left_out.usable(page, self.database)
        self.left_out.require_none()
        kept = {row.id: row for row, _ in self.target.fetch([row.id for row in rows])}
        lacking = [row for row in rows if not same(row, kept.get(row.id))]
        altered = [row.id for row in lacking if row.id in kept and self._last.get(row.id) == hash(repr(facts(row)))]
        if altered:
            raise ConfigError(
                f"{self.target.title} does not keep these rows as they are: {first_few(altered)}. Compare one with the "
                "old collection's: does it hold values that this kind of store changes, or its id twice? Choose "
                "another store for the new collection: into=, --into."
            )
        return lacking

    def _move(self, rows: Sequence[StoredText]) -> list[StoredText]:
        """Embed and write rows; return those that were written."""
        embed = partial(self.router.embed, input_type="document")
        usable, result = self.left_out.ask(rows, embed)
        if result is None:
            return []
        self.recalled += sum(result.cached)
        self.shortened |= {row.id: None for row, cut in zip(usable, result.shortened, strict=True) if cut}
        with _written(self.target.name):
            self.target.write_rows(usable, np.asarray(result.vectors, np.float32))
        return usable

    # By the batch endpoint

    def by_batch(self, every: float, show_progress: ShowProgress) -> None:
        """Have the batch endpoint embed what is lacking, into the cache; texts that are in a batch stay there.

        Raises:
            UnavailableError: the endpoint has left too many texts unanswered.
        """
        jobs, waiting, texts = [], list[str](), 0
        for page in self.source.pages(rows_at_once(self.router)):
            waiting += [row.text for row in self._lacking(page)]
            if len(waiting) >= BATCH_TEXTS:
                texts += len(waiting)
                jobs.append(self.router.submit_batch(waiting))
                waiting = []
        if waiting:
            texts += len(waiting)
            jobs.append(self.router.submit_batch(waiting))
        failures = [failure for job in jobs for failure in job.wait(every=every, show_progress=show_progress).failures]
        if len(failures) > LIVE_SHARE * texts + 1:
            raise UnavailableError(
                f"The batch endpoint has answered {texts - len(failures):,} of {texts:,} texts, which are kept "
                f"({failures[0].reason}). Run the same again, which submits the others again; or go on without batch, "
                "at the live price."
            )
