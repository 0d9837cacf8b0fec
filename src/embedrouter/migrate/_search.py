"""Search both collections: does a stored text find itself, and do queries get the same answers before and after?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .._display import counted, first_few
from ..errors import SpaceMismatchError
from ..retrieval import DEPTH, resampling
from ..retrieval.calibration import ndcg
from ..retrieval.store_guard import Unreadable, compare
from ..router import Router
from ..stores import Readable, StoredText, Writable
from ..types import Vectors
from ._check import Check

FOUND = 0.8
"""The share of stored texts that have to find themselves. Approximate indexes miss some among many similar texts:
Chroma's finds 89 to 98 of 100 where one text in twenty is the same, and 99 where none is."""


LONGEST = 15.0
"""Seconds after which no more of a sample is searched for: files have no index, and each search reads all of one."""
LEAST = 5
"""Of a sample is searched for in any case."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of the user's.

    Attributes:
        texts: by their ids.
        relevant: for each query the ids of relevant rows and their grades; empty without judgements.
        old: embeds them for the old collection.
    """

    texts: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, float]]
    old: Router | None


def finds_itself(target: Writable, rows: Sequence[tuple[StoredText, Vectors]]) -> Check:
    """Search for stored texts by their own vectors."""
    lost, searched = [], 0
    for row, vector in _in_time(rows):
        searched += 1
        nearest = target.search(vector, DEPTH)
        if row.id not in nearest:
            equal = {found.text for found, _ in target.fetch(nearest)}
            lost += [] if row.text in equal else [row.id]
    share = 1 - len(lost) / searched
    found = f"{searched - len(lost):,} of {counted(searched, 'stored text')} find themselves"
    found += f", not {first_few(lost)}." if lost else "."
    if share >= FOUND:
        return Check("search", True, found)
    return Check("search", False, found, "Does the store's index cover all rows, with the right distance?")


def compare_answers(
    source: Readable, target: Writable, sample: Sequence[str], router: Router, queries: Queries | None
) -> list[Check]:
    """Compare the answers of both collections, and with judgements their quality.

    Args:
        sample: ids of rows whose texts are the queries where there are no others.

    Raises:
        SpaceMismatchError: the old router does not give the old collection's vectors.
    """
    if queries is None:
        return [_overlap_of_stored(source, target, sample)]
    after = _answers(target, router, list(queries.texts.values()))
    if queries.old is None:
        note = "not compared: name the old model for the answers before (old=, --from)."
        return [Check("answers", None, note), *_quality(None, after, queries)]
    try:
        if not (found := compare(source, queries.old)).same_space:
            raise SpaceMismatchError(f"The old model is another one: {found}")
        before = _answers(source, queries.old, list(queries.texts.values()))
    except Unreadable as reason:
        note = f"not compared: of the old collection, {reason}."
        return [Check("answers", None, note), *_quality(None, after, queries)]
    shares = [len(set(one) & set(other)) / max(1, len(other)) for one, other in zip(after, before, strict=True)]
    return [_overlap(shares, counted(len(shares), "query")), *_quality(before, after, queries)]


def _answers(collection: Readable, router: Router, texts: Sequence[str]) -> list[Sequence[str]]:
    vectors = np.asarray(router.embed(texts, input_type="query").vectors, np.float32)
    return [collection.search(vector, DEPTH) for vector in vectors]


def _overlap_of_stored(source: Readable, target: Writable, sample: Sequence[str]) -> Check:
    """Compare the neighbours of stored texts, by the vectors that are stored."""
    try:
        old = {row.id: vector for row, vector in source.fetch(sample)}
        new = {row.id: vector for row, vector in target.fetch(sample)}
        both = [one for one in sample if one in old and one in new]
        pairs = [(_others(source, one, old[one]), _others(target, one, new[one])) for one in _in_time(both)]
    except Unreadable as reason:
        return Check("answers", None, f"not compared: of the old collection, {reason}.")
    if not pairs or not any(before for before, _ in pairs):
        return Check("answers", None, "not compared: there are too few rows.")
    return _overlap(
        [len(before & after) / max(1, len(before)) for before, after in pairs],
        f"{counted(len(pairs), 'stored text')} as queries",
    )


def _in_time(items: Sequence[T]) -> Iterator[T]:
    """Yield items until the time is up, but at least a few."""
    began = time.monotonic()
    for number, item in enumerate(items):
        if number >= LEAST and time.monotonic() - began > LONGEST:
            return
        yield item


def _others(collection: Readable, identifier: str, vector: Vectors) -> set[str]:
    found = [one for one in collection.search(vector, DEPTH + 1) if one != identifier]
    return set(found[:DEPTH])


def _overlap(shares: Sequence[float], of: str) -> Check:
    mean, low, high = interval(np.asarray(shares))
    return Check("answers", None, f"overlap@{DEPTH} before and after {mean:.2f} ({low:.2f} to {high:.2f}), {of}.")


def _quality(before: list[Sequence[str]] | None, after: list[Sequence[str]], queries: Queries) -> list[Check]:
    """Compare nDCG@10 where there are judgements: it may not be worse by more than chance."""
    judged = [place for place, name in enumerate(queries.texts) if queries.relevant.get(name)]
    if not judged:
        return []
    relevant = [queries.relevant[list(queries.texts)[place]] for place in judged]
    new = _ndcg([after[place] for place in judged], relevant)
    mean, low, high = interval(new)
    now = f"{mean:.3f} ({low:.3f} to {high:.3f})"
    of = f"{len(judged):,} judged queries"
    if before is None:
        return [Check(f"nDCG@{DEPTH}", None, f"{now} after, {of}.")]
    old = _ndcg([before[place] for place in judged], relevant)
    difference, low, high = interval(new - old)
    was, _, _ = interval(old)
    found = f"{was:.3f} before, {now} after: {difference:+.3f} ({low:+.3f} to {high:+.3f}), {of}."
    if high < 0:
        return [Check(f"nDCG@{DEPTH}", False, found, "Worse by more than chance: stay, or choose another model.")]
    return [Check(f"nDCG@{DEPTH}", True, found)]


def _ndcg(answers: Sequence[Sequence[str]], relevant: Sequence[Mapping[str, float]]) -> Any:
    ids = {one: number for number, one in enumerate(dict.fromkeys(one for answer in answers for one in answer))}
    for judged in relevant:
        for one in judged:
            ids.setdefault(one, len(ids))
    found = np.full((len(answers), DEPTH), -1, np.intp)
    for place, answer in enumerate(answers):
        found[place, : len(answer)] = [ids[one] for one in answer[:DEPTH]]
    return ndcg(found, [{ids[one]: grade for one, grade in judged.items()} for judged in relevant])


def interval(values: Any) -> tuple[float, float, float]:
    """Return a mean over queries, and its 95 % interval by bootstrap."""
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()), *resampling.interval(resampling.bootstrap_means(numbers[:, None])[:, 0])
