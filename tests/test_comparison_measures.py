"""The arithmetic of a comparison, beside programs that were written by others: pytrec_eval and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedrouter.comparison import MEASURES
from embedrouter.comparison._measures import Judge, intervals, pairs
from embedrouter.comparison._ranking import Ranking, cascaded, cut, rank
from embedrouter.retrieval.exact_search import highest, nearest, unit
from embedrouter.retrieval.resampling import bootstrap_means, chance_of, holm, interval, randomised_means
from tests.properties import examples

pytrec_eval = pytest.importorskip("pytrec_eval")
stats = pytest.importorskip("scipy.stats")


def random_run(seed: int, *, ties: bool = True) -> tuple[list[str], dict[str, dict[str, int]], NDArray[np.float32]]:
    """Return ids of documents, graded judgements, and scores, of which many are equal."""
    chance = np.random.default_rng(seed)
    names = [f"d{number}" for number in chance.permutation(150)]
    relevant = {
        f"q{query}": {names[place]: int(chance.integers(1, 4)) for place in chance.choice(150, 1 + query % 20, False)}
        for query in range(40)
    }
    scores = chance.integers(0, 6 if ties else 10**6, size=(40, 150)).astype(np.float32)
    return names, relevant, scores


# Measures


@pytest.mark.parametrize("seed", range(5))
def test_the_measures_are_those_of_pytrec_eval_on_the_scores_themselves_also_where_these_are_equal(seed: int) -> None:
    """trec_eval sorts equal scores by the id of the document, descending; so does the order of our positions."""
    names, relevant, scores = random_run(seed)
    order = sorted(range(len(names)), key=lambda place: names[place], reverse=True)
    ordered = [names[place] for place in order]
    found, values = highest(scores[:, order], 100)

    ours = Judge(relevant, ordered).by_query(Ranking(found, values))

    whole = {query: dict(zip(names, map(float, row), strict=True)) for query, row in zip(relevant, scores, strict=True)}
    theirs = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "recall.10,100", "recip_rank"}).evaluate(whole)
    for measure, name in (("nDCG@10", "ndcg_cut_10"), ("recall@10", "recall_10"), ("recall@100", "recall_100")):
        assert ours[measure].tolist() == [theirs[query][name] for query in relevant]
    ranks = [theirs[query]["recip_rank"] for query in relevant]
    assert ours["MRR@10"].tolist() == [rank if rank >= 1 / 10 else 0.0 for rank in ranks]


def test_fewer_documents_than_a_measure_counts_are_all_ranked() -> None:
    documents = np.eye(3, 4, dtype=np.float32)
    ranking = rank(documents, documents[:1] + 0.1, None)

    values = Judge({"q": {"c": 1}}, ["c", "b", "a"]).by_query(ranking)

    assert ranking.found.shape == (1, 3)
    assert {name: float(found[0]) for name, found in values.items()} == dict.fromkeys(MEASURES, 1.0)


# Search


@given(st.integers(1, 400), st.integers(1, 120), st.integers(0, 10**6))
@examples(100)
def test_the_highest_are_those_of_a_stable_sort(columns: int, count: int, seed: int) -> None:
    """Of equal scores, and many are, those at lower positions."""
    scores = np.random.default_rng(seed).integers(0, 5, size=(4, columns)).astype(np.float32)
    found, values = highest(scores, min(count, columns))

    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    assert np.array_equal(found, expected)
    assert np.array_equal(values, np.take_along_axis(scores, expected, axis=1))


def test_equal_documents_come_in_the_order_of_their_positions() -> None:
    """In every block of queries, so that two runs give the same answer."""
    chance = np.random.default_rng(0)
    documents = np.repeat(chance.standard_normal((40, 16)), 5, axis=0).astype(np.float32)
    queries = chance.standard_normal((30, 16)).astype(np.float32)

    found, _ = nearest(documents, queries, 100)

    groups = found.reshape(30, 20, 5)
    assert np.array_equal(groups - groups[:, :, :1], np.tile(np.arange(5), (30, 20, 1)))


# Fewer bits


def vectors(seed: int, count: int, dimensions: int = 64) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32))


def test_binary_search_finds_by_equal_signs_and_scores_the_found_again_by_the_whole_query() -> None:
    """As written down query by query."""
    documents, queries = vectors(0, 1000), vectors(1, 5)
    ranking = rank(documents, queries, "binary")

    signs = np.where(documents > 0, 1.0, -1.0)
    for query, found, scores in zip(queries, ranking.found, ranking.scores, strict=True):
        equal = ((documents > 0) == (query > 0)).sum(axis=1)
        rough = np.argsort(-equal, kind="stable")[:400]
        again = {place: float(signs[place] @ query) / 8 for place in rough}
        expected = sorted(again, key=lambda place: (-again[place], place))[:100]
        assert found.tolist() == expected
        assert scores == pytest.approx([again[place] for place in expected], abs=1e-5)


@pytest.mark.slow
def test_binary_search_finds_what_that_of_sentence_transformers_finds() -> None:
    """In the same order, by faiss with rescoring. Loads torch."""
    pytest.importorskip("faiss")
    quantization = pytest.importorskip("sentence_transformers.util.quantization")
    documents, queries = vectors(0, 2000), vectors(1, 50)
    packed = quantization.quantize_embeddings(documents, precision="ubinary")
    theirs, _ = quantization.semantic_search_faiss(
        queries, corpus_embeddings=packed, corpus_precision="ubinary", top_k=100, rescore=True, rescore_multiplier=4
    )

    found = rank(documents, queries, "binary").found[:, :10].tolist()
    assert found == [[hit["corpus_id"] for hit in row[:10]] for row in theirs]


def test_int8_has_one_scale_for_each_vector_and_ranks_nearly_as_floats_do() -> None:
    documents, queries = vectors(0, 500), vectors(1, 20)
    exact, ranking = rank(documents, queries, None), rank(documents, queries, "int8")

    assert np.abs(ranking.scores - exact.scores).max() < 0.01
    same = [len(set(one[:10]) & set(other[:10])) for one, other in zip(exact.found, ranking.found, strict=True)]
    assert np.mean(same) > 9.5
    scaled = rank(documents * np.linspace(0.1, 9, 500, dtype=np.float32)[:, None], queries, "int8")
    assert np.array_equal(scaled.found, ranking.found)


def test_float16_changes_no_score_by_more_than_its_rounding() -> None:
    documents, queries = vectors(0, 500), vectors(1, 20)

    assert np.abs(rank(documents, queries, "float16").scores - rank(documents, queries, None).scores).max() < 1e-3


def test_cut_vectors_are_searched_at_length_1() -> None:
    documents, queries = vectors(0, 300), vectors(1, 10)
    found, scores = nearest(unit(documents[:, :16].copy()), unit(queries[:, :16].copy()), 100)
    ranking = rank(cut(documents, 16), cut(queries, 16), None)

    assert np.array_equal(ranking.found, found)
    assert ranking.scores == pytest.approx(scores)


def test_a_cascade_answers_each_query_by_one_of_its_rankings_and_asks_no_more_than_its_share() -> None:
    documents, queries = vectors(0, 300), vectors(1, 400)
    first, second = rank(cut(documents, 8), cut(queries, 8), None), rank(documents, queries, None)
    ranking, escalated = cascaded(first, second, 0.25)

    assert escalated.mean() == pytest.approx(0.25, abs=0.05)
    assert np.array_equal(ranking.found, np.where(escalated[:, None], second.found, first.found))


# Chance


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).beta(2, 1, size=400)
    low, high = interval(bootstrap_means(values[:, None])[:, 0])

    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.003)
    assert high == pytest.approx(theirs.high, abs=0.003)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05])
def test_the_chance_of_a_difference_is_that_of_scipys_permutation_test(shift: float) -> None:
    chance = np.random.default_rng(3)
    one = chance.random(200)
    other = one + shift + 0.2 * chance.standard_normal(200)
    table = randomised_means(np.column_stack([one, other]))
    ours = chance_of(one - other, table[:, 0] - table[:, 1])

    def mean_difference(x: Any, y: Any, axis: int) -> Any:
        return np.mean(x - y, axis=axis)

    theirs = stats.permutation_test(
        (one, other), mean_difference, permutation_type="samples", vectorized=True, n_resamples=10_000, rng=5
    )
    assert ours == pytest.approx(theirs.pvalue, abs=0.04)  # each is of 10,000 draws


def test_of_equal_variants_hardly_any_pair_is_found_to_differ() -> None:
    """At 5 %, corrected for all pairs together: 20 sets of six equal variants, and few with any finding."""
    wrong = 0
    for seed in range(20):
        values = np.random.default_rng(seed).random((60, 6))
        by_query = [{"nDCG@10": column} for column in values.T]
        wrong += any(pair.differs for pair in pairs(list("abcdef"), by_query))

    assert wrong <= 3


def test_a_clear_difference_is_found_and_its_interval_leaves_out_zero() -> None:
    chance = np.random.default_rng(0)
    worse = chance.random(300) * 0.5
    by_query = [{"nDCG@10": worse + 0.1 + 0.1 * chance.random(300)}, {"nDCG@10": worse}]
    (pair,) = pairs(["a", "b"], by_query)

    assert (pair.first, pair.second, pair.differs) == ("a", "b", True)
    assert pair.p < 1e-50
    assert 0.14 < pair.difference.low < pair.difference.mean < pair.difference.high < 0.16


def test_many_variants_can_still_differ() -> None:
    """Of 60 variants there are 1,770 pairs, and the smallest share of 10,000 rounds would never be small enough."""
    chance = np.random.default_rng(0)
    values = np.clip(chance.random((100, 60)) * 0.6, 0, 1)
    values[:, 0] += 0.4
    found = pairs([str(place) for place in range(60)], [{"nDCG@10": column} for column in values.T])

    assert all(pair.differs for pair in found if pair.first == "0")
    assert sum(pair.differs for pair in found if pair.first != "0") == 0


def test_the_bound_of_the_chance_is_never_below_the_chance() -> None:
    """Counted over all signs of twelve differences."""
    chance = np.random.default_rng(1)
    signs = np.array([[1 if number >> place & 1 else -1 for place in range(12)] for number in range(2**12)])
    for _ in range(50):
        differences = chance.standard_normal(12) + chance.uniform(0, 2)
        exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
        assert chance_of(differences, np.zeros(0)) >= exact


def test_holm_is_what_it_is_by_hand() -> None:
    """0.01 is below 0.05 / 4, 0.013 below 0.05 / 3, 0.03 is not below 0.05 / 2, and ends it."""
    assert holm([0.03, 0.01, 0.04, 0.013]) == [False, True, False, True]
    assert holm([]) == []


def test_the_same_values_give_the_same_intervals_and_each_variant_its_own() -> None:
    chance = np.random.default_rng(0)
    by_query = [{measure: chance.random(50) for measure in MEASURES} for _ in range(3)]
    found = intervals(by_query)

    assert found == intervals(by_query)
    for values, row in zip(by_query, found, strict=True):
        for measure in MEASURES:
            assert row[measure].mean == pytest.approx(float(values[measure].mean()))
            assert row[measure].low < row[measure].mean < row[measure].high
