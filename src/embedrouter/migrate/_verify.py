"""Verify a migration: both collections are read and compared, vectors are looked at, and both are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._display import first_few
from ..errors import EmbedRouterError, InvalidInputError
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.store_guard import LONG, recorded_space
from ..router import Router, check_vectors
from ..stores import Writable, spread
from ..types import Vectors
from ._check import Check, Verification
from ._entry import Entry
from ._migration import Opened, migration
from ._plan import rows_at_once
from ._rows import reasons, same
from ._search import Queries, compare_answers, finds_itself

SAMPLE = 100
"""Rows whose vectors are compared with those of the router, and that are searched for."""

ONE_LENGTH = 0.01
"""The share of its length by which a vector may differ from the others of a model that scales all to one length."""
FEW_ODD = 0.2
"""The share of vectors of other lengths from which a model is taken for one that does not scale them."""


def verify(
    source: Any,
    target: GivenRouter | None = None,
    *,
    collection: str | None = None,
    into: Any = None,
    name: str | None = None,
    queries: Mapping[str, str] | Sequence[str] | None = None,
    qrels: Mapping[str, Mapping[str, float]] | None = None,
    old: GivenRouter | None = None,
    sample: int = SAMPLE,
    **settings: Any,
) -> Verification:
    """Verify a migration. Nothing is changed; vectors of stored texts come from the cache, queries are paid for.

    Args:
        source: a ``Plan``, or the arguments of ``plan``.
        queries: texts that search, by id or in a list, for the comparison of answers before and after. Without any
            stored texts are the queries.
        qrels: for each query the ids of relevant rows and their grades: nDCG@10 before and after.
        old: the router of the old collection, which ``queries`` are embedded with for the answers before.
        sample: rows whose vectors are compared, and that are searched for.

    Raises:
        ConfigError: no run has ended.
        SpaceMismatchError: ``old`` does not give the vectors of the old collection.
        EmbedRouterError: an error of ``Router.embed``.
    """
    asked = migration(source, target, collection, into, name, settings)
    if qrels is not None and not isinstance(queries, Mapping):
        raise InvalidInputError("qrels needs queries by their ids: queries={'q1': 'a question'}.", indices=())
    texts = queries if isinstance(queries, Mapping) or queries is None else dict(enumerate_texts(queries))
    with asked.opened() as opened:
        opened.filled()
        if texts is None:
            return verified(opened, sample)
        before = None if old is None else as_router(old, {})
        try:
            return verified(opened, sample, Queries(texts, qrels or {}, before))
        finally:
            if before is not None and before is not old:
                before.close()


def enumerate_texts(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return texts with their positions as ids."""
    return [(str(number), text) for number, text in enumerate(texts, 1)]


def verified(opened: Opened, sample: int = SAMPLE, queries: Queries | None = None) -> Verification:
    """Verify the collections that are open."""
    target, entry = opened.filled()
    router = opened.router
    checks = [_mark(target, router)]
    rows = _compare_rows(opened, target)
    checks += rows.checks(target, router, entry)
    equal = sorted(rows.equal)
    chosen = list(target.fetch([equal[place] for place in spread(len(equal), sample)]))
    if chosen:
        checks.append(_same_vectors(chosen, router))
        checks.append(finds_itself(target, chosen))
        checks += compare_answers(opened.source, target, [row.id for row, _ in chosen], router, queries)
    return Verification(target.title, checks)


def _mark(target: Writable, router: Router) -> Check:
    space = recorded_space(target)
    if space == router.space:
        return Check("space", True, f"{space}.")
    return Check("space", False, f"marked {space}, not {router.space}.", "Correct the mark in its metadata.")


@dataclass(slots=True)
class _Rows:
    """What a comparison of all rows has found."""

    total: int = 0
    ids: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    lengths: dict[str, float] = field(default_factory=dict)
    surplus: list[str] = field(default_factory=list)

    def checks(self, target: Writable, router: Router, entry: Entry) -> list[Check]:
        """Return the checks of ids, texts and vectors."""
        again = "Run the migration again: it goes on, and pays nothing twice."
        known = {one for ids in entry.left_out.values() for one in ids}
        lost = [one for one in self.missing if one not in known]
        found = f"{self.total:,} rows in the old collection, {target.count():,} in the new one"
        wrong = [f"missing: {first_few(lost)}"] if lost else []
        wrong += [f"not in the old one: {first_few(self.surplus)}"] if self.surplus else []
        omitted = [f"left out: {reasons(entry.left_out)}"] if known else []
        ids = Check("ids", not wrong, "; ".join([found, *wrong, *omitted]) + ".", again if wrong else "")
        texts = Check("texts and metadata", True, "equal in all rows.")
        if self.other:
            texts = Check("texts and metadata", False, f"differ: {first_few(self.other)}.", again)
        shape = f"{router.space.dimensions:,} numbers each, all finite"
        vectors = Check("vectors", True, f"{shape}.")
        wrong = [f"not of {shape}: {first_few(self.bad)}"] if self.bad else []
        wrong += [f"not of the length of the others: {first_few(odd)}"] if (odd := self._odd()) else []
        if wrong:
            advice = "Something else has written them: remove these rows from the new collection, and run again."
            vectors = Check("vectors", False, f"{'; '.join(wrong)}.", advice)
        return [ids, texts, vectors]

    def _odd(self) -> list[str]:
        """Return the rows whose vectors have another length than the others, where a model gives one length to all."""
        lengths = np.asarray(list(self.lengths.values()))
        if not len(lengths):
            return []
        odd = np.abs(lengths - np.median(lengths)) > ONE_LENGTH * np.median(lengths)
        return [one for one, is_odd in zip(self.lengths, odd, strict=True) if is_odd] if odd.mean() < FEW_ODD else []


def _compare_rows(opened: Opened, target: Writable) -> _Rows:
    """Compare all rows of both collections, page by page."""
    found = _Rows()
    for page in opened.source.pages(rows_at_once(opened.router)):
        kept = {row.id: (row, vector) for row, vector in target.fetch([row.id for row in page])}
        for row in page:
            found.total += 1
            found.ids.add(row.id)
            if row.id not in kept:
                found.missing.append(row.id)
                continue
            stored, vector = kept[row.id]
            differs, usable = not same(stored, row), _usable(vector, opened.router)
            if differs:
                found.other.append(row.id)
            elif usable:
                found.equal.append(row.id)
            if usable:
                found.lengths[row.id] = float(np.linalg.norm(vector))
            else:
                found.bad.append(row.id)
    found.surplus = [one for one in target.ids() if one not in found.ids]
    return found


def _usable(vector: Vectors, router: Router) -> bool:
    return len(vector) == router.space.dimensions and bool(np.isfinite(vector).all()) and bool(np.any(vector))


def _same_vectors(rows: Sequence[tuple[Any, Vectors]], router: Router) -> Check:
    """Compare the vectors of rows with those of the router."""
    short = [(row, vector) for row, vector in rows if len(row.text) <= LONG] or list(rows)
    try:
        found = check_vectors(router, [row.text for row, _ in short], [vector for _, vector in short], "document")
    except EmbedRouterError as error:
        return Check("the model's", False, f"could not be compared: {error}", "Verify again when that is set right.")
    if found.matches:
        return Check("the model's", True, f"{found.compared:,} vectors are those of {found.model}.")
    return Check("the model's", False, f"{found}.", "Remove the new collection, and run again.")
