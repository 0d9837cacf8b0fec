"""The measures of rankings, by ir-measures, and what chance can do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..retrieval.resampling import Floats, bootstrap_means, chance_of, holm, interval, randomised_means
from ..types import Vectors
from ._findings import MEASURES, Interval, Pair
from ._ranking import Ranking

FIRST = 10
"""Documents that MRR@10 looks at."""


def require_library() -> None:
    """Refuse to compare without the library, before anything is paid.

    Raises:
        ConfigError: the message has the command.
    """
    if find_spec("ir_measures") is None or find_spec("pytrec_eval") is None:
        raise ConfigError("Comparing models needs 'ir-measures'. Run: pip install 'embedrouter[compare]'")


class Judge:
    """Measures rankings against judgements, with trec_eval's code.

    Args:
        relevant: for each query the relevant documents and their grades; nDCG's gain is the grade.
        documents: the ids by position; of equal scores trec_eval has the greatest id first, so in descending order.
    """

    def __init__(self, relevant: Mapping[str, Mapping[str, int]], documents: Sequence[str]) -> None:
        import ir_measures
        from ir_measures import RR, R, nDCG

        self._queries, self._documents = list(relevant), documents
        self._names: dict[Any, str] = dict(zip((nDCG @ 10, R @ 10, R @ 100, RR), MEASURES, strict=True))
        graded = {query: dict(judged) for query, judged in relevant.items()}
        *deep, first = self._names
        self._deep = ir_measures.pytrec_eval.evaluator(deep, graded)
        self._first = ir_measures.pytrec_eval.evaluator([first], graded)

    def by_query(self, ranking: Ranking) -> dict[str, Vectors]:
        """Return the values of each measure, in the order of the queries."""
        found: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
        for evaluator, depth in ((self._deep, ranking.found.shape[1]), (self._first, FIRST)):
            for value in evaluator.iter_calc(self._run(ranking, depth)):
                found[self._names[value.measure]][value.query_id] = value.value
        return {name: np.array([values[query] for query in self._queries]) for name, values in found.items()}

    def _run(self, ranking: Ranking, depth: int) -> dict[str, dict[str, float]]:
        """Return a ranking as trec_eval reads it: higher scores are better."""
        scores = [float(-place) for place in range(ranking.found.shape[1])]
        rows: list[list[int]] = ranking.found[:, :depth].tolist()
        documents = self._documents
        return {
            query: {documents[place]: score for place, score in zip(row, scores, strict=False)}
            for query, row in zip(self._queries, rows, strict=True)
        }


def intervals(by_query: Sequence[Mapping[str, Vectors]]) -> list[dict[str, Interval]]:
    """Return the mean of each measure of each variant, with its 95 % interval by bootstrap over the queries."""
    columns = _columns(by_query, MEASURES)
    means = bootstrap_means(columns)
    found = [
        Interval(float(column.mean()), *interval(sampled)) for column, sampled in zip(columns.T, means.T, strict=True)
    ]
    width = len(MEASURES)
    return [dict(zip(MEASURES, found[start : start + width], strict=True)) for start in range(0, len(found), width)]


def pairs(labels: Sequence[str], by_query: Sequence[Mapping[str, Vectors]]) -> list[Pair]:
    """Compare every two variants by nDCG@10."""
    columns = _columns(by_query, MEASURES[:1])
    observed, sampled, by_chance = columns.mean(axis=0), bootstrap_means(columns), randomised_means(columns)
    places = list(combinations(range(len(labels)), 2))
    differences = [float(observed[one] - observed[other]) for one, other in places]
    chances = [
        chance_of(columns[:, one] - columns[:, other], by_chance[:, one] - by_chance[:, other]) for one, other in places
    ]
    return [
        Pair(
            labels[one],
            labels[other],
            Interval(difference, *interval(sampled[:, one] - sampled[:, other])),
            p,
            differs,
        )
        for difference, p, differs, (one, other) in zip(differences, chances, holm(chances), places, strict=True)
    ]


def _columns(by_query: Sequence[Mapping[str, Vectors]], measures: Sequence[str]) -> Floats:
    """Return the values of measures, shape (queries, variants × measures)."""
    return np.column_stack([values[measure] for values in by_query for measure in measures])
