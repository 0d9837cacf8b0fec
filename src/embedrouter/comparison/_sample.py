"""Draw samples of documents and queries, where a limit is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from .._display import counted
from ._judgements import Grades
from ._texts import Item


def sampled_queries(names: Sequence[str], limit: int | None, seed: int) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return at most ``limit`` queries in their order, and a note where these are not all."""
    if limit is None or limit >= len(names):
        return names, ()
    chosen = set(Random(seed).sample(range(len(names)), limit))
    note = f"A sample: {limit:,} of {counted(len(names), 'query')}."
    return [name for position, name in enumerate(names) if position in chosen], (note,)


def sampled_documents(
    items: Mapping[str, Item], relevant: Grades, limit: int | None, seed: int
) -> tuple[Mapping[str, Item], tuple[str, ...]]:
    """Return at most ``limit`` documents in their order, and a note where these are not all.

    One answer of each query comes first, then the other answers, then other documents.
    """
    if limit is None or limit >= len(items):
        return items, ()
    kept: set[str] = set()
    for name in _by_importance(list(items), relevant, Random(seed)):
        if len(kept) == limit:
            break
        kept.add(name)
    lost = sum(not kept & grades.keys() for grades in relevant.values())
    note = f"A sample: {limit:,} of {counted(len(items), 'document')}"
    if relevant:
        note += ", those first that answer a query. Among fewer documents all figures are higher than among all"
    if lost:
        note += f"; for {counted(lost, 'query')} there was no room"
    return {name: item for name, item in items.items() if name in kept}, (f"{note}.",)


def _by_importance(names: Sequence[str], relevant: Grades, random: Random) -> Iterator[str]:
    """Yield names, some of them again."""
    for grades in relevant.values():
        best = max(grades.values())
        yield random.choice([name for name, grade in grades.items() if grade == best])
    answers = [name for grades in relevant.values() for name in grades]
    yield from random.sample(answers, len(answers))
    yield from random.sample(names, len(names))
