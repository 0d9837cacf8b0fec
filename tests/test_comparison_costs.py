"""What a comparison pays and tells of prices and speed, what it leaves out, and how it goes on after a stop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import embedrouter
from embedrouter import Budget, Model, Router
from embedrouter.comparison import Questions, plan_comparison
from embedrouter.errors import AuthenticationError, BudgetExceededError, NoModelAvailableError
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.emulator import Emulator, Fault
from tests.test_comparison import DOCUMENTS, JUDGED, QUERIES, SMALL, WORDLLAMA, compare, known, labels, of_openai

# What it pays


def test_the_prices_are_those_of_the_bill_also_where_nothing_is_paid_any_more(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Voyage has a batch price, a third below. The second run makes no request and tells the same prices."""
    model = Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k")
    first = compare([model], cache=tmp_path, ledger=None)
    billed = sum(emulator.billed.values())
    calls = emulator.calls
    again = compare([model], cache=tmp_path, ledger=None)

    (one,), (other,) = first.variants, again.variants
    assert one.spent == first.spent == billed * Decimal("0.06") / 10**6
    assert round(known(one.corpus_cost) + known(one.queries_cost) * 36 / 10**6, 12) == one.spent
    assert known(one.corpus_batch_cost) / known(one.corpus_cost) == Decimal("0.0402") / Decimal("0.06")
    assert emulator.calls == calls
    assert (other.spent, again.spent) == (0, 0)
    assert (other.corpus_cost, other.queries_cost) == (one.corpus_cost, one.queries_cost)
    assert other.corpus_batch_cost == one.corpus_batch_cost
    assert other.by_query["nDCG@10"].tolist() == one.by_query["nDCG@10"].tolist()


def test_equal_documents_are_paid_once_and_all_of_them_ranked() -> None:
    backend = FakeBackend()
    documents = {"a": "one text", "b": "one text", "c": "another text"}
    found = embedrouter.compare(
        documents, {"q": "one text"}, {"q": ["a"]}, [backend.model(price="1")], cache=None, ledger=":memory:"
    )

    sent = [text for call in backend.calls for text in call.texts if call.input_type == "document"]
    assert sorted(sent) == ["another text", "one text"]
    assert found.variants[0].corpus_cost == 4 * Decimal("0.000001")
    assert {hit.document for hit in found.variants[0].answers[0]} == {"a", "b", "c"}


def test_a_run_that_is_stopped_goes_on_without_paying_twice(tmp_path: Path) -> None:
    """Ctrl-C at the fifth request; the second run pays for the rest alone."""

    class Stopping(FakeBackend):
        left = 4

        def embed(self, texts: Sequence[str], input_type: InputType, **settings: Any) -> Answer:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().embed(texts, input_type, **settings)

    backend = Stopping()
    model = backend.model(price="1", batch_size=5, max_concurrency=1)
    with pytest.raises(KeyboardInterrupt):
        compare([model], cache=tmp_path, ledger=None)
    paid = [text for call in backend.calls for text in call.texts]
    assert 0 < len(paid) < 36
    backend.left = 1000
    found = compare([model], cache=tmp_path, ledger=None)

    sent = [text for call in backend.calls for text in call.texts]
    assert len(sent) == len(set(sent)) == 72
    with Router([model], cache=tmp_path) as router:
        (item,) = found.variants
        whole = round(known(item.corpus_cost) + known(item.queries_cost) * 36 / 10**6, 12)
        assert router.ledger.totals("model")["fake:model"].cost == whole


def test_the_cost_is_known_before_and_nothing_is_called_for_it(emulator: Emulator) -> None:
    models: list[str | Model] = [of_openai(emulator), "cohere:embed-v4.0", WORDLLAMA]
    questions = Questions("pages", DOCUMENTS, QUERIES, JUDGED)
    with plan_comparison(questions, models, cache=MemoryCache(), ledger=":memory:") as plan:
        assert emulator.calls == 0
        assert list(plan.estimates) == [SMALL, WORDLLAMA]
        documents, queries = plan.estimates[SMALL]
        assert (documents.unique, queries.unique) == (36, 36)
        assert known(plan.cost) == known(documents.cost) + known(queries.cost) > 0
        assert known(plan.likely_cost) <= known(plan.cost)
        assert [variant.label for variant in plan.variants] == [SMALL, WORDLLAMA]
        assert "36 documents, 36 queries" in str(plan)
        assert "CO_API_KEY" in plan.left_out["cohere:embed-v4.0"]
        told: list[tuple[str, int, int, Decimal]] = []
        found = plan.run(advance=lambda *facts: told.append(facts))
        assert plan.spent == found.spent <= known(plan.cost)
        again = plan.run()
        assert (again.spent, again.variants[0].corpus_cost) == (found.spent, found.variants[0].corpus_cost)
    assert told[0][:3] == (f"{SMALL}, documents", 1, 144)
    assert told[-1][1:] == (144, 144, found.spent)
    assert [done for _, done, _, _ in told] == sorted(done for _, done, _, _ in told)


@pytest.mark.parametrize("budget", [Budget(per_call="0.0004"), Budget(total="0.0004"), "0.0004/day"])
def test_a_budget_that_does_not_cover_all_models_together_refuses_before_anything_is_called(
    budget: Budget | str, tmp_path: Path
) -> None:
    """Each of the two would fit alone."""
    cheap, dear = FakeBackend(space="a"), FakeBackend(space="b")
    models = [cheap.model("fake:a", price="1"), dear.model("fake:b", price="1")]
    each = 36 * 6 + 36 * 5
    assert each < 400 < 2 * each

    with pytest.raises(BudgetExceededError, match="Nothing was called"):
        compare(models, budget=budget, cache=tmp_path, ledger=None)

    assert cheap.calls == dear.calls == []
    assert len(compare(models[:1], budget=budget, cache=tmp_path, ledger=None).variants) == 1


def test_with_a_budget_a_model_of_unknown_price_is_left_out(tmp_path: Path) -> None:
    unpriced = FakeBackend(space="b")
    found = compare([WORDLLAMA, unpriced.model()], budget="1/day", cache=tmp_path, ledger=None)

    assert labels(found) == [WORDLLAMA]
    assert "price is unknown" in found.left_out["fake:model"]
    assert unpriced.calls == []


def test_an_unknown_price_is_told_as_unknown() -> None:
    found = compare([FakeBackend().model(), WORDLLAMA])
    item = next(item for item in found.variants if item.variant.label == "fake:model")

    assert (item.corpus_cost, item.corpus_batch_cost, item.queries_cost) == (None, None, None)
    assert "unknown" in str(found)


# What it leaves out


def test_a_model_without_a_key_or_a_package_is_left_out_and_named_before_anything_is_paid(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("boto3", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    titan, local = "bedrock:amazon.titan-embed-text-v2:0", "sentence-transformers:all-MiniLM-L6-v2"
    found = compare([of_openai(emulator), "voyage:voyage-4", titan, local, WORDLLAMA])

    assert set(labels(found)) == {SMALL, WORDLLAMA}
    assert "VOYAGE_API_KEY" in found.left_out["voyage:voyage-4"]
    assert "embedrouter[bedrock]" in found.left_out[titan]
    assert "embedrouter[sentence-transformers]" in found.left_out[local]
    assert "VOYAGE_API_KEY" in str(found)


def test_a_model_that_fails_is_left_out_and_the_others_are_compared(emulator: Emulator) -> None:
    """A wrong key is only found by asking. A cascade with it is left out, too."""
    refused = FakeBackend(outcomes=[AuthenticationError("wrong key")] * 9)
    found = compare(
        [refused.model("fake:refused", price="1"), of_openai(emulator), WORDLLAMA],
        cascades=[(WORDLLAMA, "fake:refused", 0.3)],
    )

    assert set(labels(found)) == {SMALL, WORDLLAMA}
    assert "wrong key" in found.left_out["fake:refused"]
    assert found.left_out[f"{WORDLLAMA}, then fake:refused for 30%"] == "fake:refused is left out."


def test_where_no_model_is_left_every_reason_is_told() -> None:
    with pytest.raises(NoModelAvailableError, match=r"OPENAI_API_KEY.*CO_API_KEY"):
        compare([SMALL, "cohere:embed-v4.0"])


def test_what_is_in_the_cache_needs_no_key(emulator: Emulator, tmp_path: Path) -> None:
    first = compare([of_openai(emulator)], cache=tmp_path, ledger=None)
    again = compare([SMALL], cache=tmp_path, ledger=None)

    assert again.variants[0].by_query["nDCG@10"].tolist() == first.variants[0].by_query["nDCG@10"].tolist()
    assert not again.left_out


def test_texts_over_a_models_limit_are_embedded_in_part_and_counted() -> None:
    """As every benchmark does; the note says of how many documents that is true."""
    backend = FakeBackend()
    documents = {**DOCUMENTS, "long": "word " * 600, "longer": "other " * 700}
    found = embedrouter.compare(
        documents, QUERIES, JUDGED, [backend.model(price="0", max_input_tokens=500)], cache=None, ledger=":memory:"
    )

    assert found.notes == ["2 documents were longer than fake:model takes, and embedded in part."]


# Speed


def test_speed_is_measured_on_requests_and_remembered_for_runs_that_make_none(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The first request opens a connection, and is not counted."""
    emulator.script(Fault.slow(0.4), *[Fault.slow(0.02)] * 40)
    first = compare([of_openai(emulator)], cache=tmp_path, ledger=None).variants[0].speed
    again = compare([of_openai(emulator)], cache=tmp_path, ledger=None).variants[0].speed
    elsewhere = compare([Model(SMALL, base_url="https://example.com/v1", api_key="k")], cache=tmp_path, ledger=None)

    assert first is not None
    assert first.query_median is not None
    assert first.query_95th is not None
    assert first.documents_per_second is not None
    assert 0.02 <= first.query_median <= first.query_95th
    assert 35 / 2 < first.documents_per_second < 35 / 0.02
    assert again == first
    assert elsewhere.variants[0].speed is None, "another address has another speed"


def test_a_damaged_record_of_speed_is_none(emulator: Emulator, tmp_path: Path) -> None:
    compare([of_openai(emulator)], cache=tmp_path, ledger=None)
    (record,) = (tmp_path / "speed").iterdir()
    for content in ("", "[]", '{"queries": {"value": "x", "at": "2026-01-01"}}', '{"documents": 5}'):
        record.write_text(content)
        assert compare([of_openai(emulator)], cache=tmp_path, ledger=None).variants[0].speed is None
