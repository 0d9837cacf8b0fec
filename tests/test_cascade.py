"""The cascade's decisions: sequences of gaps go in, and what is escalated comes out. Nothing is searched here."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrouter.errors import ConfigError
from embedrouter.retrieval import Cascade, gap

CORRECTION = 0.02
"""How far one query moves the share, as documented."""
SHARES = st.floats(0, 1)
GAPS = st.lists(st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.5, 1.0])), max_size=400)


def scores(apart: float) -> list[float]:
    return [1.0, 1.0 - apart]


def decide(cascade: Cascade, gaps: list[float]) -> list[bool]:
    return [cascade.escalates(scores(number)) for number in gaps]


# The share


@given(SHARES, GAPS, st.integers(1, 50), st.lists(st.floats(0, 2), max_size=60))
@settings(deadline=None)
def test_the_share_is_kept_for_any_sequence_of_gaps(
    share: float, gaps: list[float], window: int, seeds: list[float]
) -> None:
    """At every moment, within a number of queries that does not grow: so the long run has exactly that share."""
    cascade = Cascade(share, window=window, gaps=seeds)

    for count, number in enumerate(gaps, 1):
        cascade.escalates(scores(number))

        assert cascade.seen == count
        assert cascade.escalated <= share * count + share / CORRECTION + 1 + 1e-6
        assert cascade.escalated >= share * count - (1 - share) / CORRECTION - 1 - 1e-6


def _stationary() -> Iterator[float]:
    yield from np.random.default_rng(1).beta(2, 5, 5000).tolist()


def _falling() -> Iterator[float]:
    yield from (1 - i / 5000 for i in range(5000))


def _rising() -> Iterator[float]:
    yield from (i / 5000 for i in range(5000))


def _equal() -> Iterator[float]:
    yield from (0.25 for _ in range(5000))


def _another_collection_every_thousand() -> Iterator[float]:
    chance = np.random.default_rng(2)
    for scale in (0.1, 10.0, 0.001, 1.0, 0.05):
        yield from (chance.beta(2, 5, 1000) * scale).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("gaps", [_stationary, _falling, _rising, _equal, _another_collection_every_thousand])
def test_over_a_long_run_the_share_is_the_allowed_one(gaps: Callable[[], Iterator[float]], share: float) -> None:
    """Also where every gap is under all earlier ones, or over them, or the same."""
    cascade = Cascade(share)
    decide(cascade, list(gaps()))

    assert cascade.escalated / cascade.seen == pytest.approx(share, abs=0.01)


def test_no_share_escalates_nothing_and_the_whole_share_everything() -> None:
    gaps = list(_stationary())[:300]

    assert not any(decide(Cascade(0), gaps))
    assert all(decide(Cascade(1), gaps))


# The choice


def test_the_weakest_queries_are_the_ones_that_go_up() -> None:
    """After a moment the bar is where the true quantile is; a perfect choice would have all of them."""
    gaps = list(_stationary())
    decided = np.array(decide(Cascade(0.3), gaps))
    weakest = np.array(gaps) < np.quantile(gaps, 0.3)

    assert decided[weakest].mean() > 0.9
    assert decided[~weakest].mean() < 0.05


def test_similarities_and_distances_are_decided_alike() -> None:
    """Only the size of the difference counts, so the kind need not be configured."""
    chance = np.random.default_rng(3)
    hits = -np.sort(-chance.random((500, 10)), axis=1)
    similarities, distances = Cascade(0.3), Cascade(0.3)

    for row in hits.tolist():
        assert similarities.escalates(row) == distances.escalates([2 - 2 * score for score in row])
    assert similarities.escalated


def test_the_gap_is_from_the_first_hit_to_the_tenth() -> None:
    """Or to the last, where there are fewer; what comes after the tenth is not looked at."""
    assert gap([0.9, *[0.5] * 8, 0.4, 0.1, 0.0]) == pytest.approx(0.5)
    assert gap([0.9, 0.6]) == pytest.approx(0.3)
    assert gap([0.2, 0.9]) == pytest.approx(0.7)
    assert gap([float("nan"), 0.5]) == gap([float("inf"), 0.5]) == 0


@pytest.mark.parametrize("hits", [[], [0.9]])
def test_a_query_with_fewer_than_two_hits_is_kept_and_not_counted(hits: list[float]) -> None:
    """The better tier could only find the same one; the allowance is for queries where it helps."""
    cascade = Cascade(1.0)

    assert not cascade.escalates(hits)
    assert cascade.seen == 0


def test_the_first_query_is_kept_and_the_second_is_compared_with_it() -> None:
    """There is no warm-up of its own."""
    assert decide(Cascade(0.3), [0.5, 0.1]) == [False, True]
    assert decide(Cascade(0.3), [0.5, 0.9]) == [False, False]


def test_gaps_of_earlier_queries_make_the_first_decision_a_good_one() -> None:
    seeds = [number / 100 for number in range(100)]

    assert decide(Cascade(0.3, gaps=seeds), [0.1]) == [True]
    assert decide(Cascade(0.3, gaps=seeds), [0.5]) == [False]


def test_old_gaps_leave_the_window() -> None:
    """Otherwise a collection that was replaced would be compared with for ever."""
    cascade = Cascade(0.5, window=20, gaps=[100.0] * 20)

    decided = decide(cascade, [number % 10 / 10 for number in range(200)])

    recent = decided[100:]
    assert [sum(recent[i::10]) for i in range(10)] == [10, 10, 10, 10, 10, 0, 0, 0, 0, 0]


# One cascade, many users


def test_the_same_queries_are_decided_alike() -> None:
    gaps = list(_stationary())

    assert decide(Cascade(0.2), gaps) == decide(Cascade(0.2), gaps)


def test_threads_share_one_account() -> None:
    """No decision is lost, and the window stays whole: once it is filled anew, no earlier gap counts."""
    cascade = Cascade(0.3, window=100)
    gaps = list(_stationary())[:1000]
    threads = [threading.Thread(target=decide, args=(cascade, gaps)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cascade.seen == 8000
    assert cascade.escalated / 8000 == pytest.approx(0.3, abs=0.01)
    decide(cascade, [5.0] * 100)
    assert decide(cascade, [4.9, 5.1]) == [True, False]


def test_a_copy_in_another_process_continues_and_counts_for_itself() -> None:
    gaps = list(_stationary())
    cascade = Cascade(0.3, cheap="low", good="high")
    decide(cascade, gaps[:1000])

    copy = pickle.loads(pickle.dumps(cascade))

    assert repr(copy) == repr(cascade) == f"Cascade(0.3; escalated {cascade.escalated} of 1000)"
    assert (copy.share, copy.cheap, copy.good) == (0.3, "low", "high")
    assert decide(copy, gaps[1000:]) == decide(cascade, gaps[1000:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 30}, "from 0 to 1, such as 0.3 for 30 %, not 30"),
        ({"share": -0.1}, "from 0 to 1"),
        ({"share": float("nan")}, "from 0 to 1"),
        ({"share": 0.3, "window": 0}, "window must be at least 1"),
        ({"share": 0.3, "cheap": "low", "good": "low"}, "two tiers, not 'low' twice"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_accepted_values(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cascade(**settings)  # type: ignore[arg-type]
