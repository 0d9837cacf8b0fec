"""One line to begin: what is accepted wherever a router is, and what near misses are told."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from embedrouter import Budget, Model, Router, TieredRouter
from embedrouter.errors import ConfigError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from tests.emulator import Emulator

ADAPTERS = [RouterEmbeddings, RouterEmbedding]
SMALL = "openai:text-embedding-3-small"

adapters = pytest.mark.parametrize("adapter", ADAPTERS, ids=["langchain", "llama-index"])


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    for name in ("OPENAI_API_KEY", "VOYAGE_API_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.openai_url)


def query(adapter: Any) -> list[float]:
    vector: list[float] = (getattr(adapter, "embed_query", None) and adapter.embed_query("a")) or []
    return vector or adapter.get_query_embedding("a")


@adapters
def test_the_name_of_a_model_is_enough(adapter: Any, emulator: Emulator) -> None:
    embedder = adapter(SMALL)
    assert len(query(embedder)) == 1536
    assert embedder.router.models == (SMALL,)
    embedder.router.close()


@adapters
@pytest.mark.parametrize("form", ["list", "tuple", "models", "model", "router"])
def test_whatever_a_user_has_is_taken(adapter: Any, form: str) -> None:
    forms: dict[str, Any] = {"list": [SMALL], "tuple": (SMALL,), "models": [Model(SMALL)], "model": Model(SMALL)}
    embedder = adapter(forms.get(form) or Router([SMALL]))
    assert str(embedder.router.space) == "text-embedding-3-small (1536 dimensions)"
    embedder.router.close()


@adapters
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_taken(adapter: Any, kind: type, tmp_path: Path) -> None:
    """Models are tables there, or names, as in Python."""
    file = tmp_path / "embedrouter.toml"
    file.write_text(f'models = ["{SMALL}"]\nbudget = "5.00/day"\n')
    embedder = adapter(kind(file), dimensions=256)
    assert embedder.router.space.dimensions == 256
    embedder.router.close()


@adapters
def test_settings_of_the_router_stand_beside_its_models(adapter: Any, tmp_path: Path) -> None:
    family = ["voyage:voyage-4-large", Model("voyage:voyage-4-lite", tier="low")]
    embedder = adapter(family, budget="5.00/day", dimensions="512", cache=tmp_path, query_tier="low")
    assert embedder.router.space.dimensions == 512
    assert embedder.query_tier == "low"
    embedder.router.close()


@adapters
@pytest.mark.parametrize(
    ("given", "settings", "says"),
    [
        (DeterministicFakeEmbedding(size=4), {}, r"Model.wrap\(embedder, like="),
        (lambda texts: texts, {}, r"Model.wrap\(function, space="),
        ({SMALL: "high"}, {}, "not dict"),
        (None, {}, "not NoneType"),
        ([], {}, "not list"),
        (["openai:text-embedding-3-small", 3], {}, "not list"),
        ("text-embedding-3-small", {}, "Did you mean 'openai:text-embedding-3-small'"),
        (SMALL, {"budget": 5.0}, r'budget="5.0/day"'),
        (SMALL, {"budget": "5.00"}, "/month"),
        (SMALL, {"retry": 3}, r"RetryPolicy\(attempts=3\)"),
        (SMALL, {"dimensions": "many"}, "dimensions must be a number"),
        (SMALL, {"cache_memory": "much"}, "cache_memory must be a number"),
    ],
)
def test_near_misses_get_the_line_to_write(adapter: Any, given: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        adapter(given, **settings)


@adapters
def test_a_router_that_is_there_has_its_settings(adapter: Any) -> None:
    with Router([SMALL], cache=None) as router, pytest.raises(ConfigError, match=r"Router\(…, budget=…\)"):
        adapter(router, budget="5.00/day")
    with Router([SMALL], cache=None) as router, pytest.raises(ConfigError, match=r"tiered.router\('high'\)"):
        adapter(TieredRouter({"high": router}))


def test_an_unknown_setting_is_told() -> None:
    with pytest.raises(ConfigError, match="chunk= is no setting of a router"):
        RouterEmbeddings(SMALL, chunk=5)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5.00/day", Budget(per_day="5.00")),
        ("$0.10 / call", Budget(per_call="0.10")),
        ("20 per month", Budget(per_month="20")),
        ("0.10/call, 5/day", Budget(per_call="0.10", per_day="5")),
    ],
)
def test_a_budget_may_be_a_text(text: str, budget: Budget) -> None:
    assert Budget.of(text) == budget
    assert Budget.of(budget) is budget
    assert Budget.of(None) is None


@pytest.mark.parametrize("given", ["5.00", "5.00/week", "-1/day", "", 5, Decimal(5), True])
def test_a_budget_without_a_period_is_told(given: object) -> None:
    """An amount alone may mean a day, a month or a call."""
    with pytest.raises(ConfigError, match='budget="'):
        Budget.of(given)


@pytest.mark.parametrize(
    ("written", "number"), [("64MB", 64_000_000), ("1 GiB", 2**30), ("512", 512), ("1.5k", 1500), (7, 7)]
)
def test_numbers_may_be_texts(written: Any, number: int) -> None:
    """As variables of the environment are."""
    router = Router([Model(SMALL, timeout="60", batch_size="10")], cache_memory=written, cache=None)  # type: ignore[arg-type]
    router.close()
    assert Model(SMALL, timeout="60").timeout == 60.0  # type: ignore[arg-type]
    assert Model(SMALL, dimensions="256").dimensions == 256  # type: ignore[arg-type]
    from embedrouter.models import RouterSettings

    assert RouterSettings(models=[SMALL], cache_memory=written).cache_memory == number
