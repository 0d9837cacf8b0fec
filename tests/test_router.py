"""A router as its users meet it: tiers, inputs, usage, estimates, budgets, and real sockets."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import embedrouter
from embedrouter import Budget, Model, RetryPolicy, Router, Space, TieredRouter
from embedrouter.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigError,
    DegradedWarning,
    InvalidInputError,
    NoModelAvailableError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.tiered import default_tier
from embedrouter.types import Answer, InputType, TokenCounts
from tests.either import embed
from tests.emulator import Emulator, Fault, vector

# The first call and the second


def test_the_first_call_is_a_miss_and_the_second_a_hit_without_a_call(
    emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """What a new user tries first."""
    router = Router([Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")], cache=tmp_path)
    first = embed(router, asynchronous, ["Hello world"], input_type="document")
    second = embed(router, asynchronous, ["Hello world"], input_type="document")
    router.close()

    assert (first.cached, second.cached) == ((False,), (True,))
    assert emulator.calls == 1
    assert np.array_equal(first.vectors, second.vectors)
    assert second.usage.requests == 0
    assert second.usage.cost == 0
    assert second.usage.saved == first.usage.cost > 0


def test_one_form_finds_what_the_other_paid_for(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """In another process, too: the folder is all they share."""
    model = Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k")
    embed(Router([model], cache=tmp_path), asynchronous, ["a", "b"], input_type="document")
    result = embed(Router([model], cache=tmp_path), not asynchronous, ["b", "a", "c"], input_type="document")

    assert result.cached == (True, True, False)
    assert emulator.received[1].texts == ("c",)


def test_what_openai_was_paid_for_serves_azure(emulator: Emulator, tmp_path: Path) -> None:
    """The same model at another address."""
    openai = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")
    azure = Model(
        "azure_openai:text-embedding-3-small", base_url=emulator.azure_url, api_key="k", api_version="2024-10-21"
    )
    with Router([openai], cache=tmp_path) as first:
        first.embed(["a"], input_type="document")

    assert Router([azure], cache=tmp_path).embed(["a"], input_type="document").cached == (True,)


def test_rotating_the_key_loses_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """No key is in a cache key."""
    for key in ("old", "new"):
        model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key=key)
        with Router([model], cache=tmp_path) as router:
            router.embed(["a"], input_type="document")

    assert emulator.calls == 1


def test_a_symmetric_models_query_is_served_by_its_document(emulator: Emulator) -> None:
    """OpenAI knows no input types: one vector is both."""
    with Router(
        [Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")], cache=MemoryCache()
    ) as router:
        router.embed(["a"], input_type="document")

        assert router.embed(["a"], input_type="query").cached == (True,)


def test_a_warm_router_needs_neither_key_nor_provider(emulator: Emulator, tmp_path: Path) -> None:
    """Yesterday's index answers while the provider is down."""
    with Router(
        [Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")], cache=tmp_path
    ) as router:
        router.embed(["a"], input_type="document")
    keyless = Router([Model("openai:text-embedding-3-small", base_url="http://127.0.0.1:9")], cache=tmp_path)

    assert keyless.embed(["a"], input_type="document").cached == (True,)


# A family: one space, several tiers


def family(emulator: Emulator, **settings: object) -> Router:
    models = [
        Model("voyage:voyage-4-large", base_url=emulator.voyage_url, api_key="k", tier="high"),
        Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k", tier="medium"),
        Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k", tier="low"),
    ]
    return Router(models, **{"cache": MemoryCache(), "query_tier": "low", "retry": NO_WAITING, **settings})  # type: ignore[arg-type]


def asked(emulator: Emulator) -> list[str]:
    return [received.model or "" for received in emulator.received]


def test_documents_go_to_the_best_member_and_queries_to_the_asked_one(emulator: Emulator, asynchronous: bool) -> None:
    """Index once with the best, ask with the cheapest."""
    router = family(emulator)
    embed(router, asynchronous, ["d"], input_type="document")
    embed(router, asynchronous, ["q1"], input_type="query")
    embed(router, asynchronous, ["q2"], input_type="query", tier="medium")
    embed(router, asynchronous, ["q3"], input_type="query", tier="high")

    assert asked(emulator) == ["voyage-4-large", "voyage-4-lite", "voyage-4", "voyage-4-large"]


def test_the_nearest_tier_counts(emulator: Emulator, asynchronous: bool) -> None:
    """The argument over the surrounding block over the router's default."""
    router = family(emulator)
    with embedrouter.tier("medium"):
        embed(router, asynchronous, ["a"], input_type="query")
        embed(router, asynchronous, ["b"], input_type="query", tier="high")
        with embedrouter.tier("high"):
            embed(router, asynchronous, ["c"], input_type="query")
        embed(router, asynchronous, ["d"], input_type="query")
    embed(router, asynchronous, ["e"], input_type="query")

    assert asked(emulator) == ["voyage-4", "voyage-4-large", "voyage-4-large", "voyage-4", "voyage-4-lite"]


def test_a_surrounding_tier_speaks_of_queries_only(emulator: Emulator) -> None:
    """Unless documents are named."""
    router = family(emulator)
    with embedrouter.tier("low"):
        router.embed(["a"], input_type="document")
    with embedrouter.tier(documents="low"):
        router.embed(["b"], input_type="document")

    assert asked(emulator) == ["voyage-4-large", "voyage-4-lite"]


def test_a_better_vector_in_the_cache_is_used_for_a_lower_tier(emulator: Emulator) -> None:
    """It costs nothing more."""
    router = family(emulator)
    router.embed(["q"], input_type="query", tier="high")
    result = router.embed(["q"], input_type="query", tier="low")

    assert result.models == ("voyage:voyage-4-large",)
    assert emulator.calls == 1


def test_when_one_member_is_down_a_better_one_answers_in_the_same_space(emulator: Emulator, asynchronous: bool) -> None:
    """Never one of another space."""
    emulator.fault_for = lambda received: Fault.unavailable() if received.model == "voyage-4-lite" else None
    router = family(emulator, retry=RetryPolicy(attempts=2, initial_wait=0))
    result = embed(router, asynchronous, ["q"], input_type="query")

    assert asked(emulator) == ["voyage-4-lite", "voyage-4-lite", "voyage-4"]
    assert result.models == ("voyage:voyage-4",)
    assert np.array_equal(result.vectors[0], vector("voyage-4", 1024, "query", "q"))
    assert result.space == Space("voyage-4", 1024)


def test_a_degraded_query_is_marked_and_warned_of(emulator: Emulator, asynchronous: bool) -> None:
    """Only where the user allowed it."""
    emulator.fault_for = lambda received: Fault.unavailable() if received.model != "voyage-4-lite" else None
    router = family(emulator, when_unavailable="degrade")
    with pytest.warns(DegradedWarning, match="1 of 1 queries were answered by voyage:voyage-4-lite"):
        result = embed(router, asynchronous, ["q"], input_type="query", tier="high")
    assert result.degraded == (True,)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, ["d"], input_type="document")
    with pytest.raises(NoModelAvailableError):
        embed(family(emulator), asynchronous, ["q"], input_type="query", tier="high")


MATRYOSHKA = [
    ("openai:text-embedding-3-small", "openai_url", 256),
    ("cohere:embed-v4.0", "cohere_url", 512),
    ("voyage:voyage-4", "voyage_url", 256),
]


@pytest.mark.parametrize(("name", "url", "dimensions"), MATRYOSHKA)
def test_a_cached_vector_serves_smaller_dimensions(
    name: str, url: str, dimensions: int, emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """Where the maker documents that its beginning is the smaller one: no second bill."""
    model = Model(name, base_url=getattr(emulator, url), api_key="k")
    embed(Router([model], cache=tmp_path), asynchronous, ["a", "b"], input_type="document")
    result = embed(Router([model], dimensions=dimensions, cache=tmp_path), asynchronous, ["a"], input_type="document")

    assert result.cached == (True,)
    assert emulator.calls == 1
    assert np.allclose(result.vectors[0], vector(name.partition(":")[2], dimensions, "document", "a"), atol=1e-6)


def test_a_tier_above_every_model_is_refused(emulator: Emulator) -> None:
    """Before any call."""
    lite = Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k", tier="low")
    with pytest.raises(NoModelAvailableError, match="Ask for a lower tier"):
        Router([lite], cache=None).embed(["q"], input_type="query", tier="high")

    assert emulator.calls == 0


def test_tiers_can_have_names_of_their_own(emulator: Emulator) -> None:
    """Lowest first."""
    models = [
        Model("voyage:voyage-4-large", base_url=emulator.voyage_url, api_key="k", tier="gold"),
        Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k", tier="tin"),
    ]
    router = Router(models, tiers=("tin", "gold"), cache=None)
    router.embed(["q"], input_type="query", tier="tin")
    router.embed(["q"], input_type="query")

    assert asked(emulator) == ["voyage-4-lite", "voyage-4-large"]
    with pytest.raises(ValueError, match="tin, gold"):
        router.embed(["q"], input_type="query", tier="low")


@pytest.mark.parametrize("tiers", [(), ("low", "low")])
def test_tiers_must_be_different_names(tiers: tuple[str, ...]) -> None:
    """At construction."""
    with pytest.raises(ConfigError, match="different names"):
        Router([FakeBackend().model()], tiers=tiers)


def test_a_default_tier_that_is_unknown_is_refused() -> None:
    """At construction, not at the first query."""
    with pytest.raises(ConfigError, match="Unknown tier 'best'"):
        Router([FakeBackend().model()], query_tier="best")


def test_an_empty_tier_is_no_tier() -> None:
    """A configuration that was left blank must not become the default in silence."""
    router = Router([FakeBackend().model()], cache=None)
    for asking in (lambda: router.embed(["q"], input_type="query", tier=""), lambda: blank(router)):
        with pytest.raises(ConfigError, match="Unknown tier ''"):
            asking()
    with pytest.raises(ConfigError, match="Unknown tier ''"):
        Router([FakeBackend().model()], query_tier="")


def blank(router: Router) -> None:
    with embedrouter.tier(""):
        router.embed(["q"], input_type="query")


def test_tier_without_a_name_is_refused() -> None:
    """with tier(): says nothing."""
    with pytest.raises(ConfigError, match=r"tier\('high'\)"):
        embedrouter.tier()


# Texts of every kind


UNUSUAL = [
    " ",
    "\n\t ",
    "a\x00b",
    "<|endoftext|>",
    "🎉👩‍👩‍👧",
    "你好世界",
    "مرحبا",
    "\u200b",
    "ﷺ" * 10,
    "x" * 7_000,
]


@pytest.mark.parametrize("provider", ["openai", "cohere", "voyage", "google"])
def test_unusual_texts_reach_every_provider_unchanged(provider: str, emulator: Emulator, asynchronous: bool) -> None:
    """NUL, emoji, control tokens, white space: sent as they are."""
    name = {
        "openai": "openai:text-embedding-3-small",
        "cohere": "cohere:embed-v4.0",
        "voyage": "voyage:voyage-4",
        "google": "google_genai:gemini-embedding-001",
    }[provider]
    model = Model(name, base_url=getattr(emulator, f"{provider}_url"), api_key="k")
    router = Router([model], cache=MemoryCache())
    result = embed(router, asynchronous, UNUSUAL, input_type="document")
    again = embed(router, asynchronous, UNUSUAL, input_type="document")

    assert [text for received in emulator.received for text in received.texts] == UNUSUAL
    assert all(again.cached)
    assert np.array_equal(result.vectors, again.vectors)


@pytest.mark.parametrize("model", ["wordllama:l2_supercat_256"])
def test_unusual_texts_have_finite_vectors_from_the_embedded_default(model: str) -> None:
    """No NaN reaches the user."""
    texts = [text for text in UNUSUAL if text.strip("\u200b \n\t")]
    result = Router([model], cache=None).embed(texts, input_type="document")

    assert np.isfinite(result.vectors).all()
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)


def test_ten_thousand_duplicates_are_one_text(emulator: Emulator, asynchronous: bool) -> None:
    """Sent once, paid once, returned ten thousand times."""
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", dimensions=16)
    router = Router([model], cache=None)
    result = embed(router, asynchronous, ["same"] * 10_000, input_type="document")

    assert emulator.received[0].texts == ("same",)
    assert result.vectors.shape == (10_000, 16)
    assert (result.vectors == result.vectors[0]).all()
    assert result.usage.saved == 9_999 * result.usage.cost


def test_an_empty_list_is_an_empty_result_and_no_call(emulator: Emulator, asynchronous: bool) -> None:
    """With the right shape."""
    result = embed(family(emulator), asynchronous, [], input_type="document")

    assert result.vectors.shape == (0, 1024)
    assert result.vectors.dtype == np.float32
    assert len(result) == 0
    assert emulator.calls == 0


def test_a_generator_is_taken(emulator: Emulator, asynchronous: bool) -> None:
    """Chunks often come from one."""
    result = embed(family(emulator), asynchronous, (text for text in ("a", "b", "a")), input_type="document")

    assert len(result) == 3


@pytest.mark.parametrize("texts", ["one text", [""], [None], ["\ud800"], ["a", 3], b"bytes", 5])
def test_bad_texts_are_refused_before_anything_is_sent(texts: object, emulator: Emulator, asynchronous: bool) -> None:
    """In both forms alike."""
    with pytest.raises(InvalidInputError):
        embed(family(emulator), asynchronous, texts, input_type="document")  # type: ignore[arg-type]

    assert emulator.calls == 0


def test_a_megabyte_of_text_has_a_defined_answer(emulator: Emulator, asynchronous: bool) -> None:
    """Refused with the limit, or shortened and marked."""
    text = "a megabyte of text " * 55_000
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", dimensions=16)
    with pytest.raises(InvalidInputError, match="8191 tokens") as caught:
        embed(Router([model], cache=None), asynchronous, ["a", text], input_type="document")
    assert caught.value.indices == (1,)
    assert emulator.calls == 0

    result = embed(
        Router([model], cache=None, on_too_long="truncate"), asynchronous, ["a", text], input_type="document"
    )
    assert result.shortened == (False, True)


@pytest.mark.parametrize("wrong", ["search_query", "", None, True])
def test_the_input_type_is_document_or_query(wrong: object) -> None:
    """And always said: a default would be wrong half of the time."""
    router = Router([FakeBackend().model()], cache=None)
    with pytest.raises(ConfigError, match="'document' or 'query'"):
        router.embed(["a"], input_type=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="input_type"):
        router.embed(["a"])  # type: ignore[call-arg]


def test_results_belong_to_the_caller() -> None:
    """Changing one changes neither the cache nor the next result."""
    router = Router([FakeBackend().model()], cache=MemoryCache())
    first = router.embed(["a"], input_type="document").vectors
    kept = first.copy()
    first[:] = 0

    assert np.array_equal(router.embed(["a"], input_type="document").vectors, kept)


# What it will cost, what it cost


def test_an_estimate_makes_no_call_and_tells_what_is_missing(emulator: Emulator) -> None:
    """Texts, distinct ones, hits, tokens, requests, money."""
    router = Router(
        [Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", batch_size=2)],
        cache=MemoryCache(),
    )
    router.embed(["one"], input_type="document")
    calls = emulator.calls
    estimate = router.estimate(["one", "two words", "two words", "three more words", "four"], input_type="document")
    router.close()

    assert emulator.calls == calls
    assert (estimate.texts, estimate.unique, estimate.cached) == (5, 4, 1)
    assert estimate.tokens == 2 + 3 + 1
    assert estimate.requests == 2
    assert estimate.cost == 6 * Decimal("0.02") / 1_000_000
    assert estimate.model == "openai:text-embedding-3-small"
    assert estimate.exact


def test_the_estimate_equals_the_bill_where_the_tokenizer_is_at_hand(emulator: Emulator) -> None:
    """And is marked as an upper estimate where it is not."""
    texts = [f"a text number {number}, about nothing" for number in range(50)]
    openai = Router([Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")], cache=None)
    voyage = Router([Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k")], cache=None)
    exact, upper = (router.estimate(texts, input_type="document") for router in (openai, voyage))
    bills = [router.embed(texts, input_type="document").usage for router in (openai, voyage)]
    openai.close()

    assert exact.exact
    assert (exact.tokens, exact.cost) == (bills[0].tokens, bills[0].cost)
    assert not upper.exact
    assert upper.tokens >= bills[1].tokens


def test_an_estimate_depends_on_the_tier(emulator: Emulator) -> None:
    """Compare before choosing."""
    router = family(emulator)
    costs = [
        router.estimate(["a query"], input_type="query", tier=tier).cost or 0 for tier in ("low", "medium", "high")
    ]

    assert 0 < costs[0] * 3 == costs[1]
    assert costs[1] * 2 == costs[2]


def test_tiers_can_be_compared_in_one_call(emulator: Emulator) -> None:
    """Before choosing; nothing is called."""
    by_tier = family(emulator).estimate_tiers(["a query", "another"], input_type="query")

    assert {tier: estimate.model for tier, estimate in by_tier.items()} == {
        "low": "voyage:voyage-4-lite",
        "medium": "voyage:voyage-4",
        "high": "voyage:voyage-4-large",
    }
    assert emulator.calls == 0


def test_an_unknown_price_gives_no_cost(emulator: Emulator) -> None:
    """Not 0."""
    router = Router(["cohere:embed-multilingual-light-v3.0"], cache=None)

    assert router.estimate(["a"], input_type="query").cost is None


def test_usage_adds_up_over_calls_failed_ones_included(emulator: Emulator) -> None:
    """What was billed was billed."""
    emulator.script(None, Fault.status(401))
    model = Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k", batch_size=1, max_concurrency=1)
    router = Router([model], cache=MemoryCache(), retry=NO_WAITING)
    with pytest.raises(AuthenticationError):
        router.embed(["a b", "c"], input_type="document")
    router.embed(["a b", "c"], input_type="document")

    assert router.usage.requests == 2
    assert router.usage.tokens == sum(emulator.billed.values()) == 3
    assert router.usage.cost == 3 * Decimal("0.06") / 1_000_000
    assert router.usage.saved == 2 * Decimal("0.06") / 1_000_000


def test_a_job_that_died_pays_for_the_rest_only(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """Counted by the provider."""
    texts = [f"text {number}" for number in range(100)]
    model = Model("voyage:voyage-4", base_url=emulator.voyage_url, api_key="k", batch_size=10, max_concurrency=1)
    emulator.script(*[None] * 6, *[Fault.status(401)])
    with pytest.raises(AuthenticationError):
        embed(Router([model], cache=tmp_path), asynchronous, texts, input_type="document")
    paid = sum(emulator.billed.values())
    embed(Router([model], cache=tmp_path), asynchronous, texts, input_type="document")

    assert paid == 6 * 10 * 2
    assert sum(emulator.billed.values()) == 100 * 2


def test_a_budget_refuses_before_the_first_request(emulator: Emulator, asynchronous: bool) -> None:
    """With the figures."""
    router = family(emulator, budget=Budget(per_call="0.0000001"))
    with pytest.raises(BudgetExceededError, match=r"about \$0\.00000108, over per_call=\$0\.0000001"):
        embed(router, asynchronous, ["a text of several words"], input_type="document")

    assert emulator.calls == 0


def test_accounts_can_be_kept_in_memory(tmp_path: Path) -> None:
    """For tests: nothing is written anywhere."""
    router = Router([FakeBackend().model(price="1")], cache=None, ledger=":memory:")
    router.embed(["one two"], input_type="query")

    assert router.ledger.totals("model")["fake:model"].tokens == 2
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("amount", [{"per_day": 5.0}, {"total": "much"}, {"per_call": "-1"}, {"when_exceeded": "stop"}])
def test_a_wrong_budget_is_refused(amount: dict[str, object]) -> None:
    """Floats cannot hold cents."""
    with pytest.raises(ConfigError, match=next(iter(amount))):
        Budget(**amount)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"timeout": -1}, {"max_wait": -0.1}])
def test_a_wrong_retry_policy_is_refused(wrong: dict[str, float]) -> None:
    """When it is built."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_an_unknown_policy_for_long_texts_is_refused() -> None:
    """When the router is built."""
    with pytest.raises(ConfigError, match="'error', 'truncate' or 'mean'"):
        Router([FakeBackend().model()], on_too_long="cut")  # type: ignore[arg-type]


# Life cycle


def test_a_closed_router_opens_again(emulator: Emulator, asynchronous: bool) -> None:
    """Closing is polite and never the end."""
    router = family(emulator)
    for text in ("a", "b"):
        embed(router, asynchronous, [text], input_type="query")
        router.close()
        router.close()

    assert emulator.calls == 2


async def test_texts_are_counted_in_a_thread() -> None:
    """A vocabulary may be a file, and much text takes long."""
    counted_in: list[threading.Thread] = []

    class Counting(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            return Answer(np.ones((len(texts), self.dimensions), np.float32), len(texts))

        def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
            counted_in.append(threading.current_thread())
            return super().count(texts, input_type)

    router = Router([Counting().model()], cache=None)
    for text in ("first", "second", "much " * 1000):
        await router.aembed([text], input_type="query")

    assert len(counted_in) == 3
    assert threading.current_thread() not in counted_in


async def test_routers_are_context_managers() -> None:
    """Of both kinds."""
    fake = FakeBackend()
    with Router([fake.model()], cache=None) as router:
        router.embed(["a"], input_type="query")
    async with Router([fake.model()], cache=None) as router:
        await router.aembed(["a"], input_type="query")
    with TieredRouter({"low": Router([fake.model()], cache=None)}) as both:
        both.embed(["a"], input_type="query")
    async with TieredRouter({"low": Router([fake.model()], cache=None)}) as both:
        await both.aembed(["a"], input_type="query")


def test_a_pickled_router_is_the_same_router(tmp_path: Path) -> None:
    """With its cache, tiers and policy; built anew on the other side."""
    fake = FakeBackend()
    router = Router([fake.model(tier="low")], cache=tmp_path, query_tier="low", on_too_long="mean")
    router.embed(["a"], input_type="document", tier="low")
    copy = pickle.loads(pickle.dumps(router))

    assert copy.embed(["a"], input_type="document", tier="low").cached == (True,)
    assert default_tier(copy, "query") == "low"


# Several spaces


def tiered() -> tuple[TieredRouter, FakeBackend, FakeBackend]:
    local, api = FakeBackend(dimensions=4, space="local"), FakeBackend(dimensions=8, space="api")
    routers = {
        "high": Router([api.model("fake:api", price="1")], cache=MemoryCache()),
        "low": Router([local.model("fake:local")], cache=MemoryCache()),
    }
    return TieredRouter(routers), local, api


def test_a_tiered_router_picks_by_tier_and_says_the_space(asynchronous: bool) -> None:
    """The lowest that has the asked tier or a higher one; the highest when nothing is asked."""
    both, _, _ = tiered()
    spaces = [
        embed(both, asynchronous, ["t"], input_type="query", tier=tier).space.name
        for tier in ("low", "medium", "high", None)
    ]

    assert spaces == ["local", "api", "api", "api"]


def test_the_same_text_at_two_tiers_is_two_vectors_in_two_spaces(asynchronous: bool) -> None:
    """A cheap vector never poses as a dear one, in either order."""
    both, local, api = tiered()
    low = embed(both, asynchronous, ["t"], input_type="document", tier="low")
    high = embed(both, asynchronous, ["t"], input_type="document", tier="high")

    assert np.array_equal(low.vectors[0], local.vector("t", "document"))
    assert np.array_equal(high.vectors[0], api.vector("t", "document"))
    assert (low.space, high.space) == (Space("local", 4), Space("api", 8))


def test_a_tiered_router_never_crosses_over() -> None:
    """Neither for an outage nor for the cache."""
    down = FakeBackend(dimensions=8, space="api", outcomes=[UnavailableError("down")] * 9)
    local = FakeBackend(dimensions=4, space="local")
    both = TieredRouter(
        {
            "low": Router([local.model("fake:local")], cache=MemoryCache()),
            "high": Router([down.model("fake:api")], cache=MemoryCache(), retry=NO_WAITING),
        }
    )
    both.embed(["t"], input_type="query", tier="low")
    with pytest.raises(NoModelAvailableError):
        both.embed(["t"], input_type="query", tier="high")


def test_a_tiered_router_goes_by_the_surrounding_tier(asynchronous: bool) -> None:
    """And the chosen router then uses its own default, not that tier."""
    both, local, _ = tiered()
    with embedrouter.tier("low"):
        embed(both, asynchronous, ["t"], input_type="query")
    cheap = Router([FakeBackend().model(tier="low")], cache=None)
    with embedrouter.tier("high"):
        embed(TieredRouter({"high": cheap}), asynchronous, ["t"], input_type="query")

    assert len(local.calls) == 1


def test_a_tiered_router_estimates_and_sums_up() -> None:
    """Per tier, without a call."""
    both, local, api = tiered()
    estimate = both.estimate(["one two"], input_type="query", tier="high")
    both.embed(["one two"], input_type="query", tier="low")
    both.embed(["one two"], input_type="query", tier="high")

    assert estimate.model == "fake:api"
    assert (len(local.calls), len(api.calls)) == (1, 1)
    assert both.usage.tokens == 4


@pytest.mark.parametrize("wrong", [{}, {"best": None}])
def test_a_tiered_router_needs_routers_of_known_tiers(wrong: dict[str, object]) -> None:
    """At construction."""
    with pytest.raises((ConfigError, AttributeError)):
        TieredRouter(wrong, tiers=("low", "high"))  # type: ignore[arg-type]


def test_a_tiered_router_may_name_its_tiers() -> None:
    """In the order given."""
    fake = FakeBackend()
    routers = {name: Router([fake.model()], cache=None) for name in ("tin", "gold")}
    both = TieredRouter(routers, query_tier="tin")

    assert both.router("gold") is routers["gold"]
    with pytest.raises(ValueError, match="tin, gold"):
        both.router("silver")
    with pytest.raises(ConfigError, match="'document' or 'query'"):
        both.embed(["a"], input_type="search")  # type: ignore[arg-type]


def test_spaces_are_compared_whole() -> None:
    """Name and dimensions."""
    one, two = FakeBackend(dimensions=4), FakeBackend(dimensions=6)
    with pytest.raises(SpaceMismatchError, match="different length"):
        Router([one.model("fake:a"), two.model("fake:b")])
