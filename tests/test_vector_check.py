"""`check_vectors`: whether stored vectors are the router's, and what they are where they are not."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from embedrouter import Budget, Model, Router
from embedrouter.checks import VectorCheck
from embedrouter.errors import BudgetExceededError, ConfigError, InvalidInputError
from embedrouter.redis import RedisState
from embedrouter.testing import FakeBackend
from embedrouter.types import Vectors
from tests.emulator import Emulator
from tests.filled_stores import PAGES
from tests.redis_server import RedisServer

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as one:
        yield one


def hosted(running: Emulator, *names: str, **settings: Any) -> Router:
    """Return a router of models of the emulator, without a cache."""
    addresses = {"openai": running.openai_url, "ollama": running.url_of("ollama"), "voyage": running.voyage_url}
    models = [
        Model(name, base_url=addresses[name.partition(":")[0]], api_key=KEY, **settings.pop(name, {})) for name in names
    ]
    return Router(models, cache=None, ledger=":memory:", **settings)


def wordllama(dimensions: int | None = None) -> Router:
    return Router(["wordllama:l2_supercat_256"], dimensions=dimensions, cache=None, ledger=":memory:")


def document(router: Router, texts: Sequence[str]) -> Vectors:
    return router.embed(texts, input_type="document").vectors


def checked(router: Router, vectors: Any, asynchronous: bool = False, **settings: Any) -> VectorCheck:
    if asynchronous:
        return asyncio.run(router.acheck_vectors(PAGES, vectors, **settings))
    return router.check_vectors(PAGES, vectors, **settings)


def test_vectors_of_the_model_match(running: Emulator, asynchronous: bool) -> None:
    """And the result is one line, with the cost."""
    router = hosted(running, "openai:text-embedding-3-small")
    found = checked(router, document(router, PAGES), asynchronous)
    assert found.matches
    assert found.same_space
    assert (found.compared, found.matching, found.space) == (7, 7, router.space)
    assert found.cosines.min() > 0.9999
    assert found.cost is not None
    assert found.cost == router.usage.cost / 2 > 0
    assert str(found) == f"7 of 7 stored vectors match openai:text-embedding-3-small, ${found.cost.normalize():f}"
    assert repr(found) == "<VectorCheck: 7 of 7 stored vectors match openai:text-embedding-3-small>"


def test_ada_002_is_found_out_where_3_small_is_asked(running: Emulator, asynchronous: bool) -> None:
    """Both have 1,536 numbers, and the frameworks' defaults are ada-002."""
    stored = document(hosted(running, "openai:text-embedding-ada-002"), PAGES)
    router = hosted(running, "openai:text-embedding-3-small")
    requests = running.calls
    found = checked(router, stored, asynchronous)
    assert not found.matches
    assert not found.same_space
    assert found.matching == 0
    assert abs(found.cosines).max() < 0.2
    assert "of another model than text-embedding-3-small" in found.finding
    assert "--which" in found.advice
    assert "wrong rows" in found.advice
    assert running.calls == requests + 1, "what is of another model is not embedded in other ways"


@pytest.mark.parametrize(
    "stored",
    [
        lambda vectors: vectors.astype(np.float16),
        lambda vectors: vectors.astype(np.float64).tolist(),
        lambda vectors: np.round(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127) / 127,
        lambda vectors: vectors + np.random.default_rng(1).normal(0, 0.0005, vectors.shape),
    ],
    ids=["float16", "lists", "scalar quantised", "noise of an API"],
)
def test_the_number_format_of_a_store_is_no_mismatch(stored: Any) -> None:
    """Such vectors have cosines from 0.9998 on."""
    router = wordllama()
    found = checked(router, stored(document(router, PAGES)))
    assert found.matches
    assert found.cosines.min() > 0.9998


Diagnosis = tuple[str, Any, str, bool]
DIAGNOSES: list[Diagnosis] = [
    ("shuffled", lambda own: np.roll(document(own, PAGES), 1, axis=0), "stand in wrong rows", False),
    ("cut", lambda own: document(own, PAGES)[:, :64], r"beginnings.*dimensions=64", False),
    ("longer", lambda own: np.hstack([document(own, PAGES)] * 2), "512 numbers.*dimensions=512", False),
    ("other length", lambda own: np.eye(7, 300), "300 numbers, the router's 256: they are of another model", False),
    ("one wrong", lambda own: _with_row(document(own, PAGES), -1.0), "is mixed: the vectors at 2 ", False),
    ("one zero", lambda own: _with_row(document(own, PAGES), 0.0), "1 of the stored vectors are all zeros", False),
    ("one infinite", lambda own: _with_row(document(own, PAGES), np.nan), "all zeros or not finite", False),
    ("near miss", lambda own: _near(document(own, PAGES), 0.99), "Near miss: the cosines are 0.99", False),
    ("related", lambda own: _near(document(own, PAGES), 0.7), "the same or a related model.*MetadataMode.EMBED", False),
    ("line breaks", lambda own: document(own, [text.replace("\n", " ") for text in PAGES]),
     r"slightly other texts: line breaks were replaced.*cosines of 0.9\d+ to .*adopt=True.*replace", True),
    ("ends", lambda own: _ends(own), "without the blanks at their ends", True),
]  # fmt: skip


def _with_row(vectors: Vectors, row: Any) -> Vectors:
    vectors[2] = row
    return vectors


def _near(vectors: Vectors, cosine: float) -> Vectors:
    """Return vectors of unit length at a cosine to others."""
    other = np.roll(vectors, 1, axis=1)
    other -= (other * vectors).sum(axis=1, keepdims=True) * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2).astype(np.float32) * other


def _ends(own: Router) -> Vectors:
    return document(own, PAGES)


@pytest.mark.parametrize(("name", "stored", "message", "same_space"), DIAGNOSES, ids=[row[0] for row in DIAGNOSES])
def test_what_is_wrong_is_said_with_the_setting(name: str, stored: Any, message: str, same_space: bool) -> None:
    """Each finding ends with the next action."""
    router = wordllama()
    texts = [f"  {text}\n" for text in PAGES] if name == "ends" else PAGES
    found = router.check_vectors(texts, stored(router))
    assert not found.matches
    assert found.same_space == same_space
    assert found.advice
    assert_says(found, message)


def assert_says(found: VectorCheck, message: str) -> None:
    assert re.search(message, str(found)), str(found)


def test_vectors_that_are_not_normalised_match_and_are_told_of() -> None:
    """Their direction is right; with an inner product the length counts."""
    router = wordllama()
    found = checked(router, document(router, PAGES) * 3)
    assert found.matches
    assert "3 times as long" in found.finding
    assert "inner product" in found.advice


def test_a_store_longer_than_the_router_is_of_the_whole_model() -> None:
    """The router asks for the beginning of its vectors."""
    found = checked(wordllama(64), document(wordllama(), PAGES))
    assert "the router's vectors are the beginnings of the stored ones" in found.finding
    assert "dimensions=256" in found.advice


def test_queries_prompts_and_other_members_are_recognised(running: Emulator) -> None:
    """Each is the same model, asked in another way."""
    nomic = hosted(running, "ollama:nomic-embed-text")
    queries = nomic.embed(PAGES, input_type="query").vectors
    found = checked(nomic, queries)
    assert_says(found, "embedded as queries and not as documents")
    assert checked(nomic, queries, input_type="query").matches

    bare = hosted(
        running, "ollama:nomic-embed-text", **{"ollama:nomic-embed-text": {"prompts": {"document": "", "query": ""}}}
    )
    found = checked(nomic, document(bare, PAGES))
    assert_says(found, r"without the text that the model's maker puts before each document.*prompts=\{'document': ''")
    assert not found.same_space
    found = checked(bare, document(nomic, PAGES))
    assert_says(found, "embedded with the model's own prompts.*Leave prompts= out")

    family = hosted(
        running, "voyage:voyage-4-large", "voyage:voyage-4-lite", **{"voyage:voyage-4-lite": {"tier": "low"}}
    )
    lite = hosted(running, "voyage:voyage-4-lite")
    found = checked(family, document(lite, PAGES))
    assert_says(found, "They are of voyage:voyage-4-lite, another model of the router")
    assert found.same_space


def test_a_check_is_booked_and_the_budget_holds(running: Emulator, tmp_path: Path) -> None:
    """It is refused before the first request, as any call."""
    name = "openai:text-embedding-3-small"
    poor = hosted(running, name, budget=Budget(total="0.0000001"))
    before = running.calls
    with pytest.raises(BudgetExceededError):
        checked(poor, np.ones((7, 1536)))
    assert running.calls == before
    router = hosted(running, name)
    assert checked(router, np.ones((7, 1536))).cost == router.ledger.totals("model")[name].cost


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 8)), "7 texts and 3 vectors"),
        ([[1.0, 2.0]] * 6 + [[1.0]], "all of one length"),
        ([["a"]] * 7, "list of numbers"),
        (np.ones(7), "list of numbers"),
        ([], "list of numbers"),
        (None, "list of numbers"),
    ],
    ids=["too few", "ragged", "texts", "one dimension", "none", "nothing"],
)
def test_vectors_that_cannot_be_compared_are_refused_before_anything_is_embedded(vectors: Any, message: str) -> None:
    """Nothing was paid."""
    backend = FakeBackend()
    router = Router([backend.model()], cache=None, ledger=":memory:")
    with pytest.raises(InvalidInputError, match=message):
        checked(router, vectors)
    with pytest.raises(ConfigError, match="input_type"):
        router.check_vectors(["a"], [[1.0] * 8], input_type="passage")  # type: ignore[arg-type]
    assert not backend.calls


def recorded(shared: Path, name: str) -> dict[str, Any]:
    """Return the vectors that a public project has recorded, by text."""
    found: dict[str, Any] = {}
    for one in yaml.load((shared / "cassettes" / "timescale+pgai" / name).read_text(), Loader)["interactions"]:
        asked, answer = json.loads(one["request"]["body"]), json.loads(one["response"]["body"]["string"])
        for text, row in zip(asked["input"], answer["data"], strict=True):
            given = row["embedding"]
            found[text] = np.frombuffer(base64.b64decode(given), "<f4") if isinstance(given, str) else given
    return found


def test_recorded_vectors_of_real_models_are_told_apart(shared: Path) -> None:
    """3-small of OpenAI and of Azure are one model; ada-002 and Voyage are others."""
    small = recorded(shared, "embedding_litellm_openai_text_embedding_3_small_1536_items_4_batch_size_2.yaml")
    azure = recorded(shared, "embedding_litellm_azure_text_embedding_3_small_1536_items_4_batch_size_2.yaml")
    chunks = "openai-character_text_splitter-chunk_value-items=4-batch_size=2-custom_base_url=False.yaml"
    ada = recorded(shared, chunks)

    def embed(texts: list[str]) -> list[list[float]]:
        return [small[text] for text in texts]

    router = Router([Model.wrap(embed, space="small", dimensions=1536)], cache=None, ledger=":memory:")
    same = router.check_vectors(list(azure), list(azure.values()))
    assert same.matches
    assert same.cosines.min() > 0.9999
    texts = [text for text in ada if text in small]
    other = router.check_vectors(texts, [ada[text] for text in texts])
    assert not other.same_space
    assert abs(other.cosines).max() < 0.1


def test_one_text_is_no_list_of_texts() -> None:
    """Its letters would be embedded."""
    with pytest.raises(InvalidInputError, match="not one str"):
        wordllama().check_vectors("abc", np.ones((3, 256)))


def test_what_a_check_costs_is_booked_on_the_server_of_the_state(running: Emulator, redis_server: RedisServer) -> None:
    """Also what it embeds with other settings than the router's, where the vectors are those of queries."""
    model = Model("voyage:voyage-4", base_url=running.voyage_url, api_key=KEY)
    state = RedisState(redis_server.address, prefix="vector-check")
    with closing(state), Router([model], state=state) as router, Router([model], state=state) as other:
        stored = router.embed(PAGES, input_type="query").vectors
        calls, before = running.calls, router.ledger.totals("model")["voyage:voyage-4"]
        found = router.check_vectors(PAGES, stored)
        after = other.ledger.totals("model")["voyage:voyage-4"]

    assert "queries" in found.finding
    assert after.requests - before.requests == running.calls - calls > 1
    assert after.cost - before.cost == found.cost
