"""From rankings to the result: relevance, measures, prices and speed of each variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import overload

import numpy as np
from numpy.typing import NDArray

from .._display import counted
from ..retrieval import DEPTH
from ..spending import sum_of
from ..types import Vectors
from ._comparison import Comparison
from ._findings import Hit, Measured
from ._frontier import by_merit, with_dominated
from ._measures import Judge, intervals, pairs
from ._questions import Questions
from ._ranking import Ranking, cascaded, index_bytes
from ._subject import DECIMALS, Subject
from ._variants import Pairing, Single


def evaluated(
    questions: Questions,
    documents: Sequence[str],
    singles: Sequence[Single],
    pairings: Sequence[Pairing],
    rankings: Mapping[str, Ranking],
    left_out: Mapping[str, str],
) -> Comparison:
    """Return the comparison of the variants that have a ranking.

    Args:
        documents: the ids by position.
        rankings: by the label of the variant, in the order of the models; queries as in ``questions``.
        left_out: models and variants that could not be compared, with the reason.
    """
    left_out, notes = dict(left_out), list(questions.notes)
    single = [item for item in singles if item.label in rankings]
    whole = [_Ranked(item, rankings[item.label], None) for item in single]
    for pairing in pairings:
        if absent := next((part.label for part in (pairing.first, pairing.second) if part.label not in rankings), ""):
            left_out[pairing.label] = f"{absent} is left out."
        else:
            ranking, escalated = cascaded(rankings[pairing.first.label], rankings[pairing.second.label], pairing.share)
            whole.append(_Ranked(pairing, ranking, escalated))

    reference = single[0].label if questions.judged_by == "agreement" else None
    relevant = questions.relevant if reference is None else _agreed(questions, documents, rankings[reference])
    if reference is not None:
        notes.append(
            f"There are no judgements: the {DEPTH} nearest documents of {reference} count as relevant. The figures "
            "say how far the others agree with it, not which is right."
        )
    subjects = list({item.subject.label: item.subject for item in single}.values())
    notes += [*_shortened(subjects), *_unmeasured(subjects)]

    judge = Judge(relevant, documents)
    by_query = [judge.by_query(item.ranking) for item in whole]
    measured = [
        replace(item.measured(documents), quality=found, by_query=values)
        for item, found, values in zip(whole, intervals(by_query), by_query, strict=True)
    ]
    measured.sort(key=by_merit)
    compared = pairs([item.variant.label for item in measured], [item.by_query for item in measured])
    shown = {documents[place] for item in whole for place in np.unique(item.ranking.found[:, :DEPTH]).tolist()}
    shown |= {document for judged in relevant.values() for document in judged}
    return Comparison(
        collection=questions.name,
        judged_by=questions.judged_by,
        documents={name: text for name, text in questions.documents.items() if name in shown},
        document_count=len(documents),
        queries=dict(questions.queries),
        relevant=relevant,
        variants=with_dominated(measured, compared, reference),
        pairs=compared,
        left_out=left_out,
        at=datetime.now(UTC),
        notes=notes,
    )


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A variant with its ranking; of a cascade, which queries it escalated."""

    item: Single | Pairing
    ranking: Ranking
    escalated: NDArray[np.bool_] | None

    def measured(self, documents: Sequence[str]) -> Measured:
        """Return the variant's row of the result, without its quality."""
        item = self.item
        parts = [item] if isinstance(item, Single) else [item.first, item.second]
        subjects = list({part.subject.label: part.subject for part in parts}.values())
        share = 1.0 if self.escalated is None else float(self.escalated.mean())
        asked = [subjects[0].queries_cost(), *(_times(subject.queries_cost(), share) for subject in subjects[1:])]
        speeds = [subject.speed for subject in subjects]
        each = [index_bytes(part.subject.candidate("document"), part.dimensions, part.stored) for part in parts]
        return Measured(
            variant=item.variant,
            quality={},
            by_query={},
            answers=Answers(documents, self.ranking.found[:, :DEPTH], self.ranking.scores[:, :DEPTH]),
            corpus_cost=sum_of(subject.corpus_cost() for subject in subjects),
            corpus_batch_cost=sum_of(subject.corpus_cost(batch=True) for subject in subjects),
            queries_cost=sum_of(asked),
            index_bytes=len(documents) * sum(each),
            speed=speeds[0].speed() if len(speeds) == 1 else speeds[0].then(speeds[1], share),
            spent=sum((subject.spent for subject in subjects), Decimal(0)),
        )


class Answers(Sequence[Sequence[Hit]]):
    """The nearest documents of each query, made when they are looked at: there may be millions."""

    def __init__(self, documents: Sequence[str], found: NDArray[np.intp], scores: Vectors) -> None:
        self._documents, self._found, self._scores = documents, found, scores

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Sequence[Hit]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sequence[Hit]]: ...
    def __getitem__(self, place: int | slice) -> Sequence[Hit] | Sequence[Sequence[Hit]]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        row: list[int] = self._found[place].tolist()
        scores: list[float] = self._scores[place].tolist()
        return [Hit(self._documents[number], score) for number, score in zip(row, scores, strict=True)]


def _agreed(questions: Questions, documents: Sequence[str], ranking: Ranking) -> dict[str, dict[str, int]]:
    """Return the nearest documents of each query as the relevant ones."""
    rows: list[list[int]] = ranking.found[:, :DEPTH].tolist()
    return {query: {documents[place]: 1 for place in row} for query, row in zip(questions.queries, rows, strict=True)}


def _shortened(subjects: Sequence[Subject]) -> Iterator[str]:
    """Yield a sentence for each model that could not take whole texts."""
    for subject in subjects:
        for kind, number in subject.shortened.items():
            if number:
                verb = "was" if number == 1 else "were"
                yield f"{counted(number, kind)} {verb} longer than {subject.label} takes, and embedded in part."


def _unmeasured(subjects: Sequence[Subject]) -> Iterator[str]:
    """Yield a sentence for each model whose speed is not known, because its vectors were in the cache."""
    for subject in subjects:
        if subject.speed.speed() is None and not subject.total.requests:
            yield (
                f"The speed of {subject.label} is not known: its vectors were in the cache already, and no comparison "
                "has left its speed in a folder beside them. One without the cache measures it (--no-cache)."
            )


def _times(amount: Decimal | None, share: float) -> Decimal | None:
    return None if amount is None else round(amount * Decimal(repr(share)), DECIMALS)
