"""The result of a comparison: tables, JSON, the frontier, and the best variant under a price as a configuration."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedrouter
from embedrouter import Comparison, Model, Router, TieredRouter
from embedrouter.comparison import MEASURES, Choice, Interval, Measured, Pair, Variant
from embedrouter.comparison._frontier import with_dominated
from embedrouter.errors import ConfigError
from embedrouter.router import settings_of
from embedrouter.testing import FakeBackend, MemoryCache
from tests.emulator import Emulator
from tests.test_comparison import DOCUMENTS, JUDGED, QUERIES, SMALL, WORDLLAMA, compare, of_openai


def measured(
    label: str, ndcg: float, queries: str | None = "1", corpus: str | None = "1", size: int = 100, **facts: Any
) -> Measured:
    """Return a variant of a model of its own name."""
    variant = Variant(label, (label.partition(" ")[0],), 8, declared=({"models": [f"voyage:{label}"]},))
    prices = [None if price is None else Decimal(price) for price in (corpus, queries)]
    quality: dict[str, Interval] = {measure: Interval(ndcg, ndcg - 0.01, ndcg + 0.01) for measure in MEASURES}
    by_query: dict[str, Any] = {measure: np.array([ndcg]) for measure in MEASURES}
    made = Measured(variant, quality, by_query, [[]], prices[0], None, prices[1], size, None, Decimal(0))
    return replace(made, **facts)


def comparison(*variants: Measured, pairs: tuple[Pair, ...] = ()) -> Comparison:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    return Comparison("pages", "judgements", {}, 1, {"q": "?"}, {"q": {"d": 1}}, variants, pairs, {}, at)


def differing(*labels: str) -> tuple[Pair, ...]:
    """Return pairs of neighbours that differ by more than chance."""
    return tuple(Pair(one, other, Interval(0.1, 0.05, 0.15), 0.001, True) for one, other in pairwise(labels))


# Worth its price


def test_the_frontier_is_what_nobody_beats_for_the_same_money_or_less() -> None:
    found = comparison(
        measured("best", 0.9, "10", "3"),
        measured("good", 0.8, "2", "5"),
        measured("as-good", 0.8, "3"),
        measured("beaten", 0.7, "2"),
        measured("free", 0.5, "0", "0"),
        measured("free-worse", 0.4, "0", "0"),
        measured("unknown", 0.95, None, None),
    )

    assert found.frontier() == ["free", "good", "best"]
    assert found.frontier("corpus_cost") == ["free", "as-good", "best"]


def test_a_variant_is_dominated_by_the_best_that_is_not_dearer_and_better_by_more_than_chance() -> None:
    variants = [measured("a", 0.9, "2"), measured("b", 0.8, "2"), measured("c", 0.7, "1"), measured("d", 0.6, "1")]
    pairs = differing("a", "b", "c", "d")
    found = {item.variant.label: item.dominated_by for item in with_dominated(variants, pairs, None)}

    assert found == {"a": None, "b": "a", "c": None, "d": "c"}
    by_chance = [replace(pair, differs=False) for pair in pairs]
    assert {item.dominated_by for item in with_dominated(variants, by_chance, None)} == {None}


def test_dearer_documents_are_dearer_and_unknown_prices_may_be() -> None:
    pairs = differing("better", "worse")
    for better in (measured("better", 0.9, "1", "2"), measured("better", 0.9, None), measured("better", 0.9, "2")):
        assert with_dominated([better, measured("worse", 0.8)], pairs, None)[1].dominated_by is None
    assert with_dominated([measured("better", 0.9), measured("worse", 0.8, None)], pairs, None)[1].dominated_by is None
    free = measured("better", 0.9, "0", "0")
    assert with_dominated([free, measured("worse", 0.8, None)], pairs, None)[1].dominated_by == "better"


def test_between_variants_of_one_model_a_larger_index_is_dearer() -> None:
    """Or every shorter or quantised vector would be dominated by the whole one, which costs the same dollars."""
    whole, cut = measured("m", 0.9, size=400), measured("m at 4", 0.8, size=100)
    other = measured("other", 0.8, size=100)
    pairs = (*differing("m", "m at 4"), *differing("m", "other"))
    found = with_dominated([whole, cut, other], pairs, None)

    assert [item.dominated_by for item in found] == [None, None, "m"]


# The best under a price


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({}, "best"),
        ({"dollars_per_million": "10"}, "best"),
        ({"dollars_per_million": 9.99}, "good"),
        ({"dollars_per_million": Decimal(2)}, "good"),
        ({"dollars_per_million": 1}, "free"),
        ({"corpus_dollars": "4"}, "best"),
        ({"corpus_dollars": "4", "dollars_per_million": 5}, "as-good"),
        ({"index_bytes": 50}, "small"),
    ],
)
def test_best_under_keeps_to_every_limit(limits: Mapping[str, Any], best: str) -> None:
    found = comparison(
        measured("best", 0.9, "10", "3"),
        measured("unknown", 0.89, None, None),
        measured("good", 0.8, "2", "5"),
        measured("as-good", 0.8, "3", "1"),
        measured("free", 0.5, "0", "0"),
        measured("small", 0.4, "0", "0", 50),
    )

    assert found.best_under(**limits).measured.variant.label == best


def test_where_nothing_fits_the_least_is_named() -> None:
    found = comparison(measured("a", 0.9, "10", "3"), measured("b", 0.8, "2.5", "5"), measured("c", 0.99, None, None))

    with pytest.raises(ConfigError, match=r"at most \$1.00 for a million queries. The least is \$2.50, of b\."):
        found.best_under(dollars_per_million=1)
    with pytest.raises(ConfigError, match=r"at most \$3.00 for the documents. The least is \$5.00, of b\."):
        found.best_under(dollars_per_million=3, corpus_dollars=3)
    with pytest.raises(ConfigError, match=r"at most 50 bytes of vectors. The least is 100"):
        found.best_under(index_bytes=50)
    with pytest.raises(ConfigError, match="No price is known"):
        comparison(measured("c", 0.99, None, None)).best_under(dollars_per_million=3)
    for wrong in ("much", -1, float("nan"), True):
        with pytest.raises(ConfigError, match=r"an amount such as 0\.50"):
            found.best_under(dollars_per_million=wrong)


def test_the_choice_is_a_configuration_that_gives_the_router_that_was_measured(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to a file and read by ``Router.from_config``, it finds the vectors that the comparison has paid for."""
    monkeypatch.setenv("MY_KEY", "k")
    model = Model(
        SMALL, base_url=emulator.openai_url, api_key_env="MY_KEY", headers={"X-Team": 'a "b"\\'}, served_as=["x", "y"]
    )
    found = compare([model], cache=tmp_path / "cache", ledger=None, dimensions=[256], prompts=[{"query": "Ask:\t"}])
    cut = next(item for item in found.variants if item.variant.label == f"{SMALL} at 256")
    for item in (cut, *found.variants):
        choice = Choice(item)
        path = tmp_path / "embedrouter.toml"
        path.write_text(choice.to_toml(), "utf-8")
        calls = emulator.calls
        with Router.from_config(path) as router, choice.router() as same:
            assert isinstance(same, Router)
            assert router.space == same.space
            assert router.space.dimensions == item.variant.dimensions
            assert settings_of(router).models == choice.models
            result = router.embed(list(QUERIES.values()), input_type="query")
        assert set(result.cached) == {True}
        assert emulator.calls == calls


def test_the_choice_of_a_cascade_is_a_router_with_two_tiers(tmp_path: Path) -> None:
    found = compare([WORDLLAMA], dimensions=[64], cascades=[(f"{WORDLLAMA} at 64", WORDLLAMA, 0.3)])
    choice = Choice(next(item for item in found.variants if item.variant.escalated))
    path = tmp_path / "embedrouter.toml"
    path.write_text(choice.to_toml(), "utf-8")

    with TieredRouter.from_config(path) as router, choice.router() as same:
        assert isinstance(same, TieredRouter)
        for both in (router, same):
            assert [both.router(tier).space.dimensions for tier in ("low", "high")] == [64, 256]
    assert choice.cascade is not None
    assert choice.cascade.share == 0.3


def test_the_file_says_what_the_store_has_to_do() -> None:
    found = compare([WORDLLAMA], dtypes=["binary"])
    text = found.best_under(index_bytes=2000).to_toml()

    assert "# The vector store keeps binary numbers, four times as many" in text


def test_what_no_file_can_hold_is_named_and_the_router_is_built_all_the_same() -> None:
    choice = compare([FakeBackend().model(price="1")]).best_under()

    with pytest.raises(ConfigError, match=r"No file can hold the backend FakeBackend.*Use router\(\)"):
        choice.to_toml()
    with choice.router(cache=None) as router:
        assert isinstance(router, Router)
        assert router.models == ("fake:model",)


def test_a_literal_key_is_written_nowhere(emulator: Emulator) -> None:
    found = compare([of_openai(emulator)])

    with pytest.raises(ConfigError, match="api_key_env"):
        found.best_under().to_toml()
    assert "'k'" not in repr(found.variants)


# Tables


@pytest.fixture(scope="module")
def found() -> Comparison:
    return embedrouter.compare(
        DOCUMENTS,
        QUERIES,
        JUDGED,
        [WORDLLAMA, FakeBackend().model(price="2"), "openai:text-embedding-3-small"],
        dimensions=[64],
        cache=MemoryCache(),
        ledger=":memory:",
        show_progress=False,
    )


def test_a_data_frame_has_a_row_for_each_variant_and_money_as_numbers(found: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = found.to_pandas()

    assert frame["variant"].tolist() == [item.variant.label for item in found.variants]
    row = frame.set_index("variant").loc["fake:model"]
    assert row["corpus_dollars"] == pytest.approx(36 * 6 * 2 / 1e6)
    assert row["dollars_per_million_queries"] == pytest.approx(10)
    assert row["nDCG@10 low"] <= row["nDCG@10"] <= row["nDCG@10 high"]
    assert row["index_bytes"] == 36 * 8 * 4
    assert frame["nDCG@10"].is_monotonic_decreasing


def test_json_holds_all_and_loses_no_digit(found: Comparison) -> None:
    content = json.loads(found.to_json(by_query=True))

    assert content == found.to_dict(by_query=True)
    assert (content["documents"], content["queries"], content["judged_by"]) == (36, 36, "judgements")
    assert "OPENAI_API_KEY" in content["left_out"]["openai:text-embedding-3-small"]
    fake = next(row for row in content["variants"] if row["variant"] == "fake:model")
    assert fake["corpus_dollars"] == "0.000432"
    assert set(fake["by_query"]) == set(QUERIES)
    assert len(fake["by_query"]["q0"]["answer"]) == 10
    assert np.mean([row["nDCG@10"] for row in fake["by_query"].values()]) == pytest.approx(fake["nDCG@10"])
    assert len(content["pairs"]) == 3
    assert content["frontier"]["queries_cost"] == found.frontier()
    assert "by_query" not in found.to_dict()["variants"][0]


def test_printing_shows_a_line_for_each_variant_and_what_was_left_out(found: Comparison) -> None:
    lines = str(found).splitlines()

    assert lines[0].startswith("collection: 36 documents, 36 queries, judged")
    assert lines[2].split()[:4] == list(MEASURES)
    assert [line.split("  ")[0] for line in lines[3:6]] == [item.variant.label for item in found.variants]
    assert "$10.00" in next(line for line in lines if line.startswith("fake:model"))
    assert lines[-1].startswith("Left out: openai:text-embedding-3-small: No API key")
    assert repr(found).count("\n") == 0


def test_a_notebook_shows_a_table_in_which_names_are_escaped(found: Comparison) -> None:
    shown = found._repr_html_()
    assert shown.startswith("<p>collection: 36 documents")
    assert f"<th style='text-align: left'>{WORDLLAMA}</th>" in shown

    evil = replace(found, collection="<script>", left_out={"<b>": "<i>"}, notes=["<u>"])._repr_html_()
    assert not any(tag in evil for tag in ("<script>", "<b>", "<i>", "<u>"))


def test_a_comparison_can_be_pickled(emulator: Emulator) -> None:
    """Without the key of a model."""
    made = compare([of_openai(emulator, headers={"Authorization": "Bearer sk-secret"}), WORDLLAMA], cache=None)
    kept = pickle.dumps(made)

    again = pickle.loads(kept)
    assert again.to_dict(by_query=True) == made.to_dict(by_query=True)
    assert b"sk-secret" not in kept
