"""``embedrouter.compare`` as its users meet it: what it measures, what it pays, what it leaves out, and going on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedrouter
from embedrouter import Comparison, Model, Router
from embedrouter.comparison import Questions, plan_comparison, read_questions
from embedrouter.errors import (
    ConfigError,
    InvalidInputError,
)
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from tests.emulator import Emulator

WORDLLAMA = "wordllama:l2_supercat_256"
SMALL = "openai:text-embedding-3-small"
SUBJECTS = ("cats", "dogs", "horses", "trains", "ships", "planes", "bread", "cheese", "apples", "rain", "snow", "wind")
VERBS = ("like", "need", "fear")
PAIRS = [(subject, verb) for subject in SUBJECTS for verb in VERBS]
DOCUMENTS = {f"d{place}": f"A page about what {subject} {verb}." for place, (subject, verb) in enumerate(PAIRS)}
QUERIES = {f"q{place}": f"What do {subject} {verb} most?" for place, (subject, verb) in enumerate(PAIRS)}
JUDGED = {f"q{place}": {f"d{place}": 1} for place in range(len(PAIRS))}


def compare(models: Sequence[Any], **options: Any) -> Comparison:
    """Compare on the small collection, without a bar."""
    given = {"cache": MemoryCache(), "ledger": ":memory:", "show_progress": False, "retry": NO_WAITING, **options}
    return embedrouter.compare(DOCUMENTS, QUERIES, JUDGED, models, **given)


def of_openai(emulator: Emulator, name: str = SMALL, **settings: Any) -> Model:
    return Model(name, base_url=emulator.openai_url, api_key="k", **settings)


def labels(found: Comparison) -> list[str]:
    return [item.variant.label for item in found.variants]


def known(amount: Decimal | None) -> Decimal:
    """Return an amount that has to be known."""
    assert amount is not None
    return amount


# What it measures


def test_every_model_ranks_against_its_own_vectors(emulator: Emulator) -> None:
    """Four models of four spaces and three lengths; each figure is that of the model's own router and a full sort."""
    models: list[str | Model] = [
        WORDLLAMA,
        of_openai(emulator),
        Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k"),
        Model("cohere:embed-v4.0", base_url=emulator.cohere_url, api_key="k"),
    ]
    found = compare(models)

    assert len(found.variants) == 4
    for item in found.variants:
        model = next(model for model in models if getattr(model, "name", model) == item.variant.label)
        with Router([model], cache=None, ledger=":memory:") as router:
            documents = router.embed(list(DOCUMENTS.values()), input_type="document").vectors
            queries = router.embed(list(QUERIES.values()), input_type="query").vectors
        cosines = queries @ documents.T
        ranks = (cosines > np.diagonal(cosines)[:, None]).sum(axis=1)
        ndcg = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0)
        assert item.by_query["nDCG@10"] == pytest.approx(ndcg)
        assert item.by_query["MRR@10"] == pytest.approx(np.where(ranks < 10, 1 / (ranks + 1), 0))
        assert item.quality["recall@10"].mean == pytest.approx((ranks < 10).mean())
        assert [hit.document for hit in item.answers[5]][:1] == [f"d{cosines[5].argmax()}"]
        assert item.answers[5][0].score == pytest.approx(float(cosines[5].max()), abs=1e-5)
    assert found.variants == sorted(found.variants, key=lambda item: -item.quality["nDCG@10"].mean)
    assert len(found.pairs) == 6


def test_shorter_vectors_are_what_the_provider_returns_and_cost_nothing_more(emulator: Emulator) -> None:
    """Embedded once; and the same figures as of a model that is asked for 64 dimensions."""
    cut = compare([of_openai(emulator)], dimensions=[64])
    calls = emulator.calls
    asked = compare([of_openai(emulator, dimensions=64)])

    assert labels(cut) == [SMALL, f"{SMALL} at 64"] or labels(cut) == [f"{SMALL} at 64", SMALL]
    assert emulator.calls == 2 * calls
    by_label = {item.variant.label: item for item in cut.variants}
    own, short = by_label[SMALL], by_label[f"{SMALL} at 64"]
    assert short.by_query["nDCG@10"].tolist() == asked.variants[0].by_query["nDCG@10"].tolist()
    assert (own.index_bytes, short.index_bytes) == (36 * 1536 * 4, 36 * 64 * 4)
    assert own.corpus_cost == short.corpus_cost == asked.variants[0].corpus_cost
    assert labels(asked) == [f"{SMALL} at 64"]


def test_vectors_that_the_maker_does_not_call_cuttable_are_not_cut(emulator: Emulator) -> None:
    """And the report says why."""
    found = compare(
        [WORDLLAMA, of_openai(emulator, "openai:text-embedding-ada-002"), FakeBackend(dimensions=16).model(price="0")],
        dimensions=[8, 128, 512],
    )

    assert set(labels(found)) == {WORDLLAMA, f"{WORDLLAMA} at 128", "openai:text-embedding-ada-002", "fake:model"}
    assert "only 256 (others: 64, 128)" in found.left_out[f"{WORDLLAMA} at 8"]
    assert "only 1536" in found.left_out["openai:text-embedding-ada-002 at 512"]
    assert "may be cut" in found.left_out["fake:model at 8"]


def test_number_types_of_a_store_are_variants_of_every_length() -> None:
    found = compare([WORDLLAMA], dimensions=[64], dtypes=["float16", "int8", "binary"])
    sizes = {item.variant.label.removeprefix(WORDLLAMA): item.index_bytes / 36 for item in found.variants}

    assert sizes == {
        "": 1024,
        ", float16": 512,
        ", int8": 260,
        ", binary": 32,
        " at 64": 256,
        " at 64, float16": 128,
        " at 64, int8": 68,
        " at 64, binary": 8,
    }


def test_numbers_that_the_provider_makes_are_a_model_of_their_own(emulator: Emulator) -> None:
    model = Model("cohere:embed-v4.0", base_url=emulator.cohere_url, api_key="k", output_dtype="ubinary")
    found = compare([model], dtypes=["int8"])

    assert labels(found) == ["cohere:embed-v4.0, ubinary of the provider"]
    assert (found.variants[0].index_bytes, found.variants[0].variant.dimensions) == (36 * 192, 1536)
    assert list(found.left_out) == ["cohere:embed-v4.0, ubinary of the provider, int8"]
    assert found.variants[0].quality["recall@100"].mean == 1


def test_prompts_are_another_input_and_paid_for(emulator: Emulator) -> None:
    """Of the models that take none, such as wordllama, the report says so."""
    found = compare([of_openai(emulator), WORDLLAMA], prompts=[{"query": "Find a page: "}])

    prompted = f"{SMALL}, query prompt 'Find a page: '"
    assert set(labels(found)) == {SMALL, WORDLLAMA, prompted}
    assert list(found.left_out) == [f"{WORDLLAMA}, query prompt 'Find a page: '"]
    sent = [text for request in emulator.received for text in request.texts]
    assert sent.count(f"Find a page: {QUERIES['q3']}") == sent.count(QUERIES["q3"]) == 1
    by_label = {item.variant.label: item for item in found.variants}
    assert known(by_label[prompted].queries_cost) > known(by_label[SMALL].queries_cost)
    assert by_label[prompted].variant.prompts == {"query": "Find a page: "}


def test_a_cascade_costs_both_models_and_is_no_variant_of_its_own_texts(emulator: Emulator) -> None:
    """The documents of both, all queries of the first and a third of those of the second."""
    first = Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k")
    found = compare([first, of_openai(emulator)], cascades=[("voyage:voyage-4-lite", SMALL, 0.3)])
    cascade = next(item for item in found.variants if item.variant.escalated)
    one, other = (next(item for item in found.variants if item.variant.label == name) for name in (first.name, SMALL))

    assert cascade.variant.label == f"voyage:voyage-4-lite, then {SMALL} for 30%"
    assert cascade.corpus_cost == known(one.corpus_cost) + known(other.corpus_cost)
    assert cascade.index_bytes == one.index_bytes + other.index_bytes
    share = (known(cascade.queries_cost) - known(one.queries_cost)) / known(other.queries_cost)
    assert 0.2 < share < 0.4
    assert cascade.spent == found.spent


def test_a_cascade_of_two_lengths_of_one_model_pays_its_documents_once() -> None:
    backend = FakeBackend(dimensions=16)
    found = compare([backend.model(price="1")], dtypes=["binary"], cascades=[("fake:model, binary", "fake:model", 0.5)])
    costs = {item.corpus_cost for item in found.variants}

    assert len(found.variants) == 3
    assert len(costs) == 1
    assert {item.queries_cost for item in found.variants} == {Decimal(5)}, "a query has five words"


# Without judgements


def test_without_judgements_agreement_with_the_first_model_is_measured_and_labelled() -> None:
    found = embedrouter.compare(
        DOCUMENTS,
        list(QUERIES.values()),
        models=[WORDLLAMA, FakeBackend().model(price="1")],
        dimensions=[64],
        cache=None,
        ledger=":memory:",
    )

    assert found.judged_by == "agreement"
    assert labels(found) == [WORDLLAMA, f"{WORDLLAMA} at 64", "fake:model"]
    assert found.variants[0].quality["nDCG@10"].mean == 1
    assert {len(judged) for judged in found.relevant.values()} == {10}
    assert any(WORDLLAMA in note and "which is right" in note for note in found.notes)
    assert "agreement" in str(found)
    assert found.variants[2].dominated_by != WORDLLAMA, "agreeing with itself is no merit"


def test_without_queries_known_items_are_measured_and_labelled() -> None:
    documents = [
        {"id": name, "title": f"{subject} and what they {verb}", "text": DOCUMENTS[name]}
        for name, (subject, verb) in zip(DOCUMENTS, PAIRS, strict=True)
    ]
    found = embedrouter.compare(documents, models=[WORDLLAMA], cache=None, ledger=":memory:")

    assert found.judged_by == "known items"
    assert "known items" in str(found)
    assert found.variants[0].quality["recall@100"].mean > 0.9


# What it is given


def test_data_frames_are_read_by_the_usual_names_of_their_columns(tmp_path: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    rows = [{"query-id": query, "corpus-id": name, "score": 1} for query, judged in JUDGED.items() for name in judged]
    texts = {"_id": list(DOCUMENTS), "text": list(DOCUMENTS.values())}
    asked = {"query_id": list(QUERIES), "query": list(QUERIES.values())}
    whole = compare([WORDLLAMA], cache=tmp_path)
    options: dict[str, Any] = {"models": [WORDLLAMA], "cache": tmp_path, "show_progress": False}
    by_index = pandas.DataFrame({"text": list(DOCUMENTS.values())}, index=list(DOCUMENTS))
    given = [
        (pandas.DataFrame(texts), pandas.DataFrame(asked), pandas.DataFrame(rows)),
        (polars.DataFrame(texts), polars.DataFrame(asked), polars.DataFrame(rows)),
        (polars.LazyFrame(texts), polars.DataFrame(asked).to_arrow(), pandas.DataFrame(rows)),
        (by_index, pandas.Series(QUERIES), polars.DataFrame(rows)),
        (by_index["text"], QUERIES, rows),
    ]

    for corpus, queries, qrels in given:
        found = embedrouter.compare(corpus, queries, qrels, **options)
        assert found.queries == whole.queries
        assert found.variants[0].by_query["nDCG@10"].tolist() == whole.variants[0].by_query["nDCG@10"].tolist()


def test_a_router_is_compared_as_it_is_with_a_tier_for_documents_and_one_for_queries(emulator: Emulator) -> None:
    """Of a family the best model embeds the documents, and the cheapest the queries."""
    models = [
        Model("voyage:voyage-4-large", base_url=emulator.voyage_url, api_key="k"),
        Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k", tier="low"),
    ]
    with Router(models, query_tier="low", cache=MemoryCache(), ledger=":memory:") as router:
        found = compare([router, models[0]], dimensions=[512])
        router.embed(["it is still open"], input_type="query")

    both = "voyage:voyage-4-large + voyage:voyage-4-lite"
    assert set(labels(found)) == {
        *(both, "voyage:voyage-4-large"),
        *(f"{both} at 512", "voyage:voyage-4-large at 512"),
    }
    by_label = {item.variant.label: item for item in found.variants}
    assert by_label[both].corpus_cost == by_label["voyage:voyage-4-large"].corpus_cost
    assert float(known(by_label[both].queries_cost) * 6) == pytest.approx(
        float(known(by_label["voyage:voyage-4-large"].queries_cost))
    )


def test_it_works_on_an_event_loop() -> None:
    found = asyncio.run(
        embedrouter.acompare(DOCUMENTS, QUERIES, JUDGED, [WORDLLAMA], cache=MemoryCache(), ledger=":memory:")
    )

    assert labels(found) == [WORDLLAMA]


def test_one_model_twice_is_two_variants() -> None:
    one, other = FakeBackend(space="a"), FakeBackend(space="b")
    found = compare([one.model(price="1"), other.model(price="1")])

    assert set(labels(found)) == {"fake:model", "fake:model (no. 2)"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": []}, r"Name the models to compare"),
        ({"models": WORDLLAMA}, r"models= is a list"),
        ({"models": ["openai:text-embeding-3-small"]}, r"Did you mean 'openai:text-embedding-3-small'"),
        ({"models": [WORDLLAMA], "dtypes": ["int4"]}, r"float16, int8, binary, not 'int4'"),
        ({"models": [WORDLLAMA], "dtypes": "int8"}, r"dtypes= is a list"),
        ({"models": [WORDLLAMA], "dimensions": [0]}, r"0 is none"),
        ({"models": [WORDLLAMA], "dimensions": 128}, r"such as \[256, 512\]"),
        ({"models": [WORDLLAMA], "cascades": [(WORDLLAMA, "cohere:x", 0.3)]}, r"'cohere:x' is none. Variants are word"),
        ({"models": [WORDLLAMA], "cascades": [(WORDLLAMA, 0.3)]}, r"\(first, second, share\)"),
        ({"models": [WORDLLAMA], "cascades": [(WORDLLAMA, WORDLLAMA, 30)]}, r"from 0 to 1"),
        ({"models": [WORDLLAMA], "dimension": [1]}, r"dimension= is no setting"),
    ],
)
def test_a_wrong_argument_is_told_with_the_right_one(options: dict[str, Any], says: str) -> None:
    models = options.pop("models")
    with pytest.raises(ConfigError, match=says):
        compare(models, **options)


def test_texts_and_judgements_that_cannot_be_compared_on_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"document 'b'.*empty"):
        plan_comparison(Questions("x", {"a": "text", "b": ""}, {"q": "text"}, {"q": {"a": 1}}), [WORDLLAMA])
    with pytest.raises(InvalidInputError, match="No query has a relevant document"):
        plan_comparison(Questions("x", {"a": "text"}, {"q": "text"}, {"other": {"a": 1}}), [WORDLLAMA])
    with pytest.raises(ConfigError, match="hold queries"):
        embedrouter.compare(Questions("x", {"a": "text"}, {"q": "text"}, {}), {"q": "text"}, models=[WORDLLAMA])


def test_without_the_library_of_measures_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    monkeypatch.setattr("embedrouter.comparison._measures.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'embedrouter\[compare\]'"):
        compare([backend.model(price="1")])
    assert backend.calls == []


# Real collections


MEASURED = {
    "squad-dev": ("qrels.tsv", 0.685, {"recall@10": 0.852, "recall@100": 0.983, "MRR@10": 0.633}),
    "banking77": ("labels.json", 0.821, {"recall@10": 0.067, "recall@100": 0.383, "MRR@10": 0.917}),
}
"""Judgements of a collection, and what wordllama reaches there: ``../shared/facts/retrieval.md``, section a."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_on_a_real_collection_it_finds_what_was_measured_before_by_other_code(name: str, shared: Path) -> None:
    """On a sample of the queries, within its intervals. In float16 and int8 hardly anything changes (section f)."""
    folder, (qrels, ndcg, others) = shared / "retrieval" / name, MEASURED[name]
    files = (folder / "corpus.jsonl", folder / "queries.jsonl", folder / qrels)
    questions = read_questions(*files, query_limit=1000)
    found = embedrouter.compare(
        questions, models=[WORDLLAMA], dtypes=["float16", "int8"], cache=None, ledger=":memory:", show_progress=False
    )
    by_label = {item.variant.label.removeprefix(WORDLLAMA): item.quality for item in found.variants}

    for measure, value in {"nDCG@10": ndcg, **others}.items():
        interval = by_label[""][measure]
        assert interval.low - 0.001 <= value <= interval.high + 0.001, measure
    assert by_label[", float16"]["nDCG@10"].mean == pytest.approx(by_label[""]["nDCG@10"].mean, abs=0.0015)
    assert by_label[", int8"]["nDCG@10"].mean == pytest.approx(by_label[""]["nDCG@10"].mean, abs=0.004)
