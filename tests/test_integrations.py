"""The other places that take an embedder, each with its real library: Chroma, LanceDB and scikit-learn.

``tests/test_integrations_slow.py`` has those that take seconds to import, and what other processes open.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import lancedb
import numpy as np
import pandas as pd
import pytest
from chromadb.config import Settings
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import embedrouter
from embedrouter import Model, Router, TieredRouter
from embedrouter.errors import AuthenticationError, ConfigError, InvalidInputError, SpaceMismatchError
from embedrouter.integrations.chroma import RouterEmbeddingFunction
from embedrouter.integrations.lancedb import RouterEmbeddings
from embedrouter.integrations.sklearn import RouterTransformer
from embedrouter.providers.versions import require_extra
from embedrouter.retrieval.stored_router import described, rebuild, stored
from embedrouter.testing import FakeBackend, FakeCall
from tests.emulator import Emulator

LOCAL = "wordllama:l2_supercat_256"
SMALL = "openai:text-embedding-3-small"
TEXTS = ["the cat sat", "stocks fell", "a kitten", "bonds rose", "dogs bark", "the bank lends"]
LABELS = [0, 1, 0, 1, 0, 1]


def fake(*, tiers: bool = False) -> tuple[FakeBackend, FakeBackend, Router]:
    """Return two models of one space, the cheap one at a lower tier, and a router of both or of the good one."""
    low, high = FakeBackend(), FakeBackend()
    models = [high.model("fake:high", price="1"), low.model("fake:low", tier="low", price=0)]
    return low, high, Router(models if tiers else models[:1], cache=None, ledger=":memory:")


# Chroma


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return chromadb.PersistentClient(str(tmp_path / "chroma"), Settings(anonymized_telemetry=False))


def test_a_chroma_collection_embeds_documents_and_queries(client: Any) -> None:
    """Each with its input type; and the tiers of a block and of the function count."""
    low, high, router = fake(tiers=True)
    function = RouterEmbeddingFunction(router, query_tier="low")
    collection = client.create_collection("handbook", embedding_function=function)
    collection.add(ids=["1", "2"], documents=["a", "b"])
    collection.query(query_texts=["q"])
    with embedrouter.tier("high"):
        collection.query(query_texts=["r"])

    assert high.calls == [FakeCall(("a", "b"), "document"), FakeCall(("r",), "query")]
    assert low.calls == [FakeCall(("q",), "query")]
    assert collection.configuration_json["hnsw"]["space"] == "cosine"


@pytest.mark.parametrize("opening", ["get_collection", "get_or_create_collection"])
@pytest.mark.parametrize("other", [{"router": LOCAL, "dimensions": 128}, {"router": SMALL, "dimensions": 256}])
def test_chroma_refuses_a_function_of_another_space(client: Any, opening: str, other: dict[str, Any]) -> None:
    """Chroma compares names alone, so the name has the space; equal lengths prove nothing."""
    client.create_collection("handbook", embedding_function=RouterEmbeddingFunction(LOCAL))
    with pytest.raises(ValueError, match=r"embedrouter:.* vs persisted: embedrouter:wordllama/l2_supercat_256:256"):
        getattr(client, opening)("handbook", embedding_function=RouterEmbeddingFunction(**other))

    opened = getattr(client, opening)("handbook", embedding_function=RouterEmbeddingFunction([LOCAL], budget="1/day"))
    opened.add(ids=["1"], documents=["a cat"])


def test_chroma_may_not_change_the_space_of_a_collection() -> None:
    first, other = RouterEmbeddingFunction(LOCAL), RouterEmbeddingFunction(LOCAL, dimensions=64)
    first.validate_config_update(first.get_config(), RouterEmbeddingFunction(LOCAL).get_config())
    with pytest.raises(SpaceMismatchError, match=r"l2_supercat_256:256, and the new function gives .*:64"):
        first.validate_config_update(first.get_config(), other.get_config())


def test_a_router_that_only_the_program_has_is_found_again_in_it(client: Any) -> None:
    """A collection that is opened without a function uses the router that made it, with its accounts."""
    _, high, router = fake()
    client.create_collection("handbook", embedding_function=RouterEmbeddingFunction(router)).add(
        ids=["1"], documents=["a"]
    )
    client.get_collection("handbook").query(query_texts=["q"])

    assert high.calls == [FakeCall(("a",), "document"), FakeCall(("q",), "query")]


def test_what_chroma_keeps_has_no_key_and_nothing_of_the_machine(client: Any, tmp_path: Path) -> None:
    model = Model(SMALL, api_key="sk-secret", headers={"authorization": "Bearer secret", "x-team": "a"})
    router = Router([model], cache=tmp_path / "cache", ledger=tmp_path / "ledger", budget="5.00/day")
    client.create_collection("handbook", embedding_function=RouterEmbeddingFunction(router))

    kept = client.get_collection("handbook").configuration_json["embedding_function"]
    assert kept["name"] == "embedrouter:text-embedding-3-small:1536"
    assert "secret" not in str(kept)
    assert str(tmp_path) not in str(kept)
    assert kept["config"]["router"]["budget"] == {"per_day": "5.00"}


# What is kept of a router


def test_a_described_router_is_built_again() -> None:
    """All that decides vectors and money, in types that JSON has."""
    settings: dict[str, Any] = {
        "dimensions": 512,
        "budget": embedrouter.Budget(per_day="5.00", when_exceeded="degrade"),
        "retry": embedrouter.RetryPolicy(attempts=3),
        "tiers": ("one", "two"),
        "query_tier": "one",
        "on_too_long": "mean",
        "cache": None,
    }
    models = [Model(SMALL, tier="two", price="0.03", max_concurrency=2), Model(SMALL, tier="one", deployment="mine")]
    first = Router(models, **settings)
    again = RouterEmbeddingFunction(described(first)).router

    assert described(again) == described(first)
    assert again.space == first.space
    assert described(Router([LOCAL])) == {"models": [{"model": LOCAL}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"models": [{"model": SMALL, "base_url": "http://other.example/v1"}]}, "hand your default API key"),
        ({"models": [{"model": SMALL, "api_key_env": "AWS_SECRET"}]}, "another program's secret"),
        ({"models": [{"model": "sentence-transformers:x", "trust_remote_code": True, "revision": "c"}]}, "Python code"),
        ({"models": [{"model": LOCAL}], "catalog": "/etc/catalog.toml"}, "outside of its own folder"),
        ({"models": [{"model": "fake:x"}], "only_in_code": ["fake:x"]}, "only a program has"),
        ({"models": []}, "models"),
        (None, "no router"),
    ],
)
def test_what_a_store_keeps_is_trusted_no_more_than_a_found_file(content: Any, says: str) -> None:
    """A store travels, and its author may be another: keys and texts go nowhere that the user has not named."""
    with pytest.raises(ConfigError, match=says) as caught:
        rebuild({"router": content}, title="The table", remedy="Pass the function.")
    if says != "models":
        assert str(caught.value).startswith("The table")
        assert str(caught.value).endswith("Pass the function.")


def test_a_store_of_another_space_than_its_router_gives_now_is_refused() -> None:
    """A later version may know a model better; vectors must not be mixed silently."""
    kept = stored(Router([LOCAL])) | {"space": "other", "mark": "of another process"}
    with pytest.raises(SpaceMismatchError, match=r"of the space other \(256 dimensions\)"):
        rebuild(kept, title="The table", remedy="Pass the function.")


def test_the_live_router_of_another_space_is_refused_too() -> None:
    """The mark says which router it was; that its space is still the store's is checked all the same."""
    router = Router([LOCAL])
    kept = stored(router)
    assert rebuild(kept, title="The table", remedy="Pass the function.") is router
    with pytest.raises(SpaceMismatchError, match="The table is of the space other"):
        rebuild(kept | {"space": "other"}, title="The table", remedy="Pass the function.")


# LanceDB


def table(folder: Path, function: Any) -> Any:
    class Page(LanceModel):
        text: str | None = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField(default=None)  # type: ignore[valid-type]

    return lancedb.connect(folder).create_table("pages", schema=Page)


def test_a_lancedb_table_embeds_documents_and_queries(tmp_path: Path) -> None:
    """LanceDB builds functions anew from the schema; in this process the router stays the same."""
    low, high, router = fake(tiers=True)
    registry: Any = get_registry()
    pages = table(tmp_path, registry.get("embedrouter").create(router=router, query_tier="low"))
    pages.add([{"text": "a"}, {"text": ""}, {"text": None}, {"text": "b"}], on_bad_vectors="null")
    pages.search("q").limit(1).to_list()
    with embedrouter.tier("high"):
        pages.search("r").limit(1).to_list()

    assert high.calls == [FakeCall(("a", "b"), "document"), FakeCall(("r",), "query")]
    assert low.calls == [FakeCall(("q",), "query")]
    assert pages.count_rows("vector IS NULL") == 2


def test_functions_of_lancedb_compare_by_what_they_are() -> None:
    router = Router([LOCAL])
    assert RouterEmbeddings(router) == RouterEmbeddings(router)
    assert hash(RouterEmbeddings(router)) == hash(RouterEmbeddings(router))
    assert RouterEmbeddings(router) != RouterEmbeddings(Router([LOCAL], dimensions=64))


def test_lancedb_does_not_retry_what_cannot_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own seven retries of every error take minutes."""
    waits: list[float] = []
    monkeypatch.setattr("lancedb.embeddings.utils.time.sleep", waits.append)
    pages = table(tmp_path, RouterEmbeddings.create(router=SMALL))
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        pages.search("q").to_list()
    with pytest.raises(RuntimeError, match="OPENAI_API_KEY"):  # LanceDB's own, from behind its Rust
        pages.add([{"text": "a"}])
    assert max(waits, default=0) < 1


# scikit-learn


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_the_transformer_passes_the_checks_of_scikit_learn(check: str) -> None:
    """Those that need no numbers as input; the others are not for transformers of texts."""
    getattr(estimator_checks, check)("RouterTransformer", RouterTransformer(LOCAL))


def test_the_transformer_works_in_pipelines_and_searches() -> None:
    """Clones share the router, so no text is paid twice."""
    _, high, router = fake()
    pipeline = make_pipeline(RouterTransformer(router), LogisticRegression())
    grid = GridSearchCV(pipeline, {"logisticregression__C": [1, 10]}, cv=2).fit(TEXTS, LABELS)

    copied: Any = clone(pipeline)
    assert copied[0].router is router
    assert set(grid.predict(["a puppy", "shares"])) <= {0, 1}
    assert {call.input_type for call in high.calls} == {"document"}
    local = make_pipeline(RouterTransformer(LOCAL), LogisticRegression()).fit(TEXTS, LABELS)
    assert local.predict(["kittens", "stock market"]).tolist() == [0, 1]


def test_the_transformer_takes_texts_in_columns() -> None:
    frame = pd.DataFrame({"text": TEXTS, "number": range(6)})
    transformer = RouterTransformer(LOCAL, settings={"dimensions": 64})
    columns = ColumnTransformer([("text", transformer, "text"), ("rest", "passthrough", ["number"])])
    found: Any = columns.set_output(transform="pandas").fit_transform(frame)

    assert list(found)[:2] == ["text__embedding0", "text__embedding1"]
    assert found.shape == (6, 65)
    for texts in (TEXTS, frame["text"], frame[["text"]], np.array(TEXTS), tuple(TEXTS)):
        assert np.array_equal(transformer.transform(texts), found.to_numpy()[:, :64].astype(np.float32))
    with pytest.raises(InvalidInputError, match="one column"):
        transformer.fit(frame)


def test_the_transformer_is_built_anew_where_a_parameter_is_set() -> None:
    low, high, router = fake(tiers=True)
    transformer = RouterTransformer(router).set_params(tier="low", input_type="query")
    transformer.transform(["a"])
    with embedrouter.tier("high"):
        transformer.transform(["b"])
    assert transformer.set_params(router=LOCAL, tier=None).transform(["a"]).shape == (1, 256)
    assert (low.calls, high.calls) == ([FakeCall(("a",), "query")], [FakeCall(("b",), "query")])


# All of them

ADAPTERS = [RouterEmbeddingFunction, RouterEmbeddings]
adapters = pytest.mark.parametrize("adapter", ADAPTERS, ids=["chroma", "lancedb"])


@adapters
def test_an_adapter_takes_what_a_router_is_built_of(adapter: Any, tmp_path: Path) -> None:
    file = tmp_path / "embedrouter.toml"
    file.write_text(f'models = ["{LOCAL}"]\ndimensions = 64\n')
    for given in (LOCAL, [LOCAL], Model(LOCAL), Router([LOCAL]), {"models": [LOCAL]}):
        assert adapter(given).router.space.dimensions == 256
    for path in (file, str(file)):
        assert adapter(path, budget="5.00/day").router.space.dimensions == 64


@adapters
def test_an_adapter_refuses_what_langchains_refuses(adapter: Any) -> None:
    both = TieredRouter({"low": Router([LOCAL]), "high": Router([SMALL])})
    for given, settings, says in (
        (both, {}, "router"),
        (LOCAL, {"budgit": "1/day"}, "budgit= is no setting"),
        (LOCAL, {"query_tier": "higher"}, "higher"),
        (Router([LOCAL]), {"budget": "1/day"}, "there already"),
        (3, {}, "A router is needed"),
    ):
        with pytest.raises(ValueError, match=says):
            adapter(given, **settings)


@pytest.mark.parametrize(
    ("extra", "module"),
    [("chroma", "chromadb"), ("lancedb", "lancedb"), ("haystack", "haystack"), ("dspy", "dspy"),
     ("sklearn", "sklearn"), ("txtai", "txtai")],
)  # fmt: skip
def test_a_missing_library_is_told_with_the_command(extra: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"embedrouter.integrations.{extra}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"Run: pip install 'embedrouter\[{extra}\]'"):
        importlib.import_module(f"embedrouter.integrations.{extra}")


def test_an_installed_library_is_not_refused() -> None:
    require_extra("a test", "sklearn", "sklearn")


def test_importing_the_folder_imports_no_library() -> None:
    code = "import embedrouter.integrations, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert set(done.stdout.split()).isdisjoint({"chromadb", "lancedb", "haystack", "dspy", "sklearn", "txtai"})


def test_an_emulated_provider_is_asked_for_each_type(client: Any, emulator: Emulator) -> None:
    """Over the wire, with Voyage's input types."""
    router = Router([Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key="k")])
    collection = client.create_collection("handbook", embedding_function=RouterEmbeddingFunction(router))
    collection.add(ids=["1"], documents=["a"])
    collection.query(query_texts=["q"])
    assert [request.input_type for request in emulator.received] == ["document", "query"]
