"""A server that answers with another model than before: its vectors never mix with the earlier ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router
from embedrouter.cache import ServedNames, same_name
from embedrouter.errors import SpaceMismatchError
from embedrouter.testing import NO_WAITING, FakeBackend
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.side_by_side import at_once


class Loaded(FakeBackend):
    """Answers any name with the model that is loaded."""

    name: str | None = "nomic-embed-text"

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        answer = super().embed(texts, input_type, timeout=timeout)
        return dataclasses.replace(answer, model=self.name)


def build(server: Loaded, folder: Path | None, **settings: Any) -> Router:
    return Router([server.model(**settings)], cache=folder, ledger=":memory:", retry=NO_WAITING)


@pytest.mark.parametrize("other", ["all-minilm", "nomic-embed-text-v2-moe", "mxbai-embed-large:latest"])
@pytest.mark.parametrize("again", [False, True], ids=["same process", "later process"])
def test_another_model_is_refused_and_its_vectors_are_not_kept(
    other: str, again: bool, tmp_path: Path, asynchronous: bool
) -> None:
    """The vectors may have the right length."""
    server = Loaded()
    router = build(server, tmp_path)
    first = embed(router, asynchronous, ["a"], input_type="document")
    if again:
        router.close()
        router = build(server, tmp_path)
    server.name = other
    with pytest.raises(SpaceMismatchError, match=rf"{other}.*served_as"):
        embed(router, asynchronous, ["b"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    server.name = "nomic-embed-text"
    later = embed(router, asynchronous, ["a", "b"], input_type="document")
    router.close()

    assert first.cached == (False,)
    assert later.cached == (True, False)
    assert account.requests == (1 if again else 2), "what was answered is billed"


@pytest.mark.parametrize(
    "other",
    [
        "nomic-embed-text:latest",
        "nomic-ai/nomic-embed-text",
        "models/Nomic-Embed-Text",
        "nomic-embed-text-2024-02-10",
        None,
    ],
)
def test_another_spelling_is_the_same_model(other: str | None, tmp_path: Path, asynchronous: bool) -> None:
    """A maker's prefix, a tag, a date; or no name at all."""
    server = Loaded()
    router = build(server, tmp_path)
    embed(router, asynchronous, ["a"], input_type="document")
    server.name = other
    result = embed(router, asynchronous, ["b"], input_type="document")
    router.close()

    assert len(result) == 1


def test_names_that_the_user_allows_are_one_model(tmp_path: Path, asynchronous: bool) -> None:
    """A deployment may be renamed."""
    server = Loaded()
    router = build(server, tmp_path, served_as=["my-deployment"])
    embed(router, asynchronous, ["a"], input_type="document")
    server.name = "My-Deployment"
    result = embed(router, asynchronous, ["b"], input_type="document")
    router.close()

    assert len(result) == 1


def test_a_name_that_was_reported_first_need_not_be_the_declared_one(tmp_path: Path) -> None:
    """Azure's deployments and aliases of gateways have names of their own."""
    server = Loaded()
    server.name = "gpt-embeddings-prod"
    with build(server, tmp_path) as router:
        assert len(router.embed(["a"], input_type="document")) == 1


def test_a_folder_that_cannot_be_written_keeps_the_name_for_the_process(tmp_path: Path) -> None:
    """A cache fails no call."""
    (tmp_path / "served").touch()
    server = Loaded()
    with build(server, tmp_path) as router:
        router.embed(["a"], input_type="document")
        server.name = "all-minilm"
        with pytest.raises(SpaceMismatchError):
            router.embed(["b"], input_type="document")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("text-embedding-3-small", "openai/text-embedding-3-small", True),
        ("gemini-embedding-001", "models/gemini-embedding-001", True),
        ("voyage-4", "voyage-4-lite", False),
        ("all-minilm:33m", "all-minilm:22m", False),
        ("all-minilm:33m", "all-minilm", True),
        ("text-embedding-3-small", "text-embedding-3-large", False),
        ("mistral-embed", "mistral-embed-2312", True),
        ("gemini-embedding-001", "gemini-embedding-002", False),
        ("text-embedding-ada-002", "text-embedding-ada-002-v2", True),
        ("text-embedding-ada-002-v2", "ada", True),
        ("text-embedding-ada-002", "text-embedding-ada-001", False),
        ("text-embedding-ada-002-v2", "text-embedding-3-small", False),
    ],
)
def test_names_are_compared_without_prefix_tag_and_date(one: str, other: str, same: bool) -> None:
    """Versions differ, spellings do not."""
    assert same_name(one, other) is same
    assert same_name(other, one) is same


def test_of_names_that_come_at_the_same_time_one_counts(tmp_path: Path) -> None:
    """Each process would go on with a model of its own otherwise, and fill one index with both."""
    for number in range(50):
        processes = [ServedNames(tmp_path) for _ in range(8)]
        asks = [
            partial(names.remember, f"m{number}", "space", f"model {place}") for place, names in enumerate(processes)
        ]
        assert len(set(at_once(asks))) == 1


def test_a_damaged_record_is_written_again(tmp_path: Path) -> None:
    """And holds from then on."""
    first = ServedNames(tmp_path)
    first.remember("m", "space", "one")
    path = first.path("m", "space")
    assert path is not None
    path.write_text("{", "utf-8")

    assert ServedNames(tmp_path).remember("m", "space", "two") == "two"
    assert ServedNames(tmp_path).remember("m", "space", "three") == "two"
