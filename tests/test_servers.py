"""Each server of the catalogue's table, by its name alone, against an emulator written from its documentation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    RateLimitedError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.models import load_catalogue
from embedrouter.testing import NO_WAITING
from tests.either import embed
from tests.emulator import Emulator, Fault, vector
from tests.emulator.compatible import RULES

ONCE = RetryPolicy(attempts=1)
KEY = "a-key-of-the-tests"

MODELS = {
    "mistral": "mistral-embed",
    "jina": "jina-embeddings-v3",
    "nvidia": "nvidia/nv-embedqa-e5-v5",
    "openrouter": "openai/text-embedding-3-small",
    "together": "intfloat/multilingual-e5-large-instruct",
    "fireworks": "nomic-ai/nomic-embed-text-v1.5",
    "deepinfra": "BAAI/bge-m3",
    "databricks": "databricks-gte-large-en",
    "dashscope": "text-embedding-v4",
    "ollama": "nomic-embed-text",
    "vllm": "BAAI/bge-m3",
    "tei": "BAAI/bge-m3",
    "lmstudio": "text-embedding-nomic-embed-text-v1.5",
    "litellm": "text-embedding-3-small",
}
SHORTER = {"jina": 256, "dashscope": 256, "openrouter": 256, "fireworks": 256, "ollama": 256}
"""A number of dimensions that the model offers and its server takes."""
ROLES = {"jina": ("retrieval.passage", "retrieval.query"), "nvidia": ("passage", "query")}
"""The server's words for documents and queries."""
PROMPTS = {
    "together": ("", "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "),
    "fireworks": ("search_document: ", "search_query: "),
    "ollama": ("search_document: ", "search_query: "),
    "lmstudio": ("search_document: ", "search_query: "),
}
"""What the makers of the models want before documents and queries, where the server puts nothing there."""
CUTS = ("tei", "lmstudio")
"""Servers that cut long texts, so that the package's count decides."""

server = pytest.mark.parametrize("server", MODELS)


def declare(emulator: Emulator, server: str, **settings: Any) -> Model:
    key = {"api_key": KEY} if RULES[server].key else {}
    known = {"base_url": emulator.url_of(server), **key}
    return Model(f"{server}:{MODELS[server]}", **{**known, **settings})


def route(emulator: Emulator, server: str, **settings: Any) -> Router:
    return Router([declare(emulator, server, **settings)], cache=None, ledger=":memory:", retry=ONCE)


def expected(server: str, text: str, input_type: str, dimensions: int | None = None) -> np.ndarray:
    place = 0 if input_type == "document" else 1
    role = ROLES.get(server, (None, None))[place]
    return vector(MODELS[server], dimensions, role, PROMPTS.get(server, ("", ""))[place] + text)


def failure(router: Router, asynchronous: bool, texts: list[str]) -> BackendError:
    with pytest.raises((NoModelAvailableError, BackendError)) as caught:
        embed(router, asynchronous, texts, input_type="document")
    router.close()
    error = caught.value
    found = error.attempts[-1].error if isinstance(error, NoModelAvailableError) else error
    assert isinstance(found, BackendError)
    return found


@pytest.fixture(autouse=True)
def _no_request_breaks_a_rule(emulator: Emulator, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "refused" not in request.keywords:
        assert emulator.refused == ()


# Every server


def test_the_table_and_the_tests_have_the_same_servers() -> None:
    """A row that no test plays is a claim."""
    played = {*MODELS, "openai", "azure_openai", "cohere", "voyage", "sentence-transformers", "onnx", "wordllama"}
    own_files = {"google_genai", "google_vertexai", "bedrock"}
    assert {item.name for item in load_catalogue().servers.values()} - own_files == played


@server
@pytest.mark.parametrize("input_type", ["document", "query"])
def test_vectors_are_the_servers(server: str, input_type: str, emulator: Emulator, asynchronous: bool) -> None:
    """One text and three, for documents and queries, with the words and the prompts that the maker documents."""
    router = route(emulator, server)
    one = embed(router, asynchronous, ["a text"], input_type=input_type)
    three = embed(router, asynchronous, ["first", "second text", "third"], input_type=input_type)
    router.close()

    assert np.array_equal(one.vectors[0], expected(server, "a text", input_type))
    for row, text in zip(three.vectors, ["first", "second text", "third"], strict=True):
        assert np.array_equal(row, expected(server, text, input_type))
    assert one.usage.tokens + three.usage.tokens == sum(emulator.billed.values())


@pytest.mark.parametrize("server", SHORTER)
def test_dimensions_are_asked_for_by_the_servers_name(server: str, emulator: Emulator, asynchronous: bool) -> None:
    router = route(emulator, server, dimensions=SHORTER[server])
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert np.array_equal(result.vectors[0], expected(server, "a", "document", SHORTER[server]))


@server
@pytest.mark.refused
def test_a_text_that_is_too_long_is_named_and_never_cut(server: str, emulator: Emulator, asynchronous: bool) -> None:
    """Where the server cuts in silence, the package's own count decides."""
    limits = {"max_input_tokens": 500} if server in CUTS else {}
    router = route(emulator, server, **limits)
    with pytest.raises((InputRejectedError, InvalidInputError)) as caught:
        embed(router, asynchronous, ["short", "word " * 9_000], input_type="document")
    router.close()

    error = caught.value
    assert isinstance(error, InputRejectedError | InvalidInputError)
    assert error.indices == (1,)
    assert "word word" not in str(error)


@pytest.mark.parametrize("server", [name for name in MODELS if RULES[name].key])
@pytest.mark.refused
def test_a_wrong_key_is_told_as_such(server: str, asynchronous: bool) -> None:
    with Emulator(keys=["another-key"]) as strict:
        error = failure(route(strict, server), asynchronous, ["a"])
        assert strict.calls == 1
    assert isinstance(error, AuthenticationError)
    assert KEY not in str(error)


@pytest.mark.parametrize("server", [name for name in MODELS if RULES[name].key])
def test_a_missing_key_names_its_variable(server: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the variable is read when the call is made."""
    variable = load_catalogue().servers[server].keys[0]
    monkeypatch.delenv(variable, raising=False)
    router = route(emulator, server, api_key=None)
    with pytest.raises(AuthenticationError, match=variable):
        router.embed(["a"], input_type="document")
    monkeypatch.setenv(variable, KEY)
    assert len(router.embed(["a"], input_type="document")) == 1
    router.close()


@pytest.mark.parametrize("server", [name for name in MODELS if not RULES[name].key])
def test_no_header_is_sent_where_there_is_no_key(server: str, emulator: Emulator, asynchronous: bool) -> None:
    with Emulator(keys=["a-key", "no key", "none"]) as strict:  # words that a client may send in place of a key
        error = failure(route(strict, server), asynchronous, ["a"])
        assert isinstance(error, AuthenticationError)
        router = route(strict, server, api_key="a-key")
        embed(router, asynchronous, ["a"], input_type="document")
        router.close()
    router = route(emulator, server)
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()


@server
def test_failures_are_what_they_are(server: str, emulator: Emulator, asynchronous: bool) -> None:
    """A quota, a limit of the rate, an outage, and vectors of another length."""
    emulator.script(Fault.insufficient_quota())
    quota = failure(route(emulator, server), asynchronous, ["a"])
    emulator.script(Fault.rate_limited(retry_after=7))
    limited = failure(route(emulator, server), asynchronous, ["b"])
    emulator.script(Fault.unavailable())
    outage = failure(route(emulator, server), asynchronous, ["c"])
    emulator.script(Fault.wrong_dimensions(8))
    wrong = failure(route(emulator, server), asynchronous, ["d"])

    assert isinstance(quota, RateLimitedError)
    assert not quota.retryable
    assert isinstance(limited, RateLimitedError)
    assert limited.retry_after == 7
    assert isinstance(outage, UnavailableError)
    assert isinstance(wrong, BadResponseError)


@server
def test_an_outage_that_ends_costs_one_more_request(server: str, emulator: Emulator, asynchronous: bool) -> None:
    emulator.script(Fault.unavailable(), None)
    router = Router([declare(emulator, server)], cache=None, ledger=":memory:", retry=NO_WAITING)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert np.array_equal(result.vectors[0], expected(server, "a", "document"))
    assert emulator.calls == 2


@pytest.mark.slow
@server
def test_requests_hold_what_the_server_takes(server: str, emulator: Emulator) -> None:
    """No request is refused for the number of its texts."""
    router = route(emulator, server)
    router.embed([f"text {number}" for number in range(300)], input_type="document")
    router.close()

    most = load_catalogue().servers[server].texts
    assert max(len(received.texts) for received in emulator.received) == min(300, most)


@server
@pytest.mark.refused
def test_an_unknown_model_says_what_to_check(server: str, emulator: Emulator, asynchronous: bool) -> None:
    model = Model(
        f"{server}:no-such-model", base_url=emulator.url_of(server), api_key=KEY, space="s", dimensions=8
    )  # fmt: skip
    error = failure(Router([model], cache=None, ledger=":memory:", retry=ONCE), asynchronous, ["a"])
    assert isinstance(error, UnavailableError)
    assert "Check the model's name" in str(error)


def test_the_page_has_a_line_to_write_for_each_server() -> None:
    page = (Path(__file__).parents[1] / "docs" / "servers.md").read_text("utf-8")
    assert [name for name in MODELS if f'"{name}:' not in page] == []


# Names


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("voyageai:voyage-4", "voyage:voyage-4"),
        ("azure:text-embedding-3-small", "azure_openai:text-embedding-3-small"),
        ("OpenAI:text-embedding-3-small", "openai:text-embedding-3-small"),
        ("huggingface:BAAI/bge-m3", "sentence-transformers:BAAI/bge-m3"),
        ("mistralai:mistral-embed", "mistral:mistral-embed"),
        ("together_ai:BAAI/bge-m3", "together:BAAI/bge-m3"),
        ("hosted_vllm:x", "vllm:x"),
        ("lm-studio:x", "lmstudio:x"),
        ("BAAI/bge-m3", "sentence-transformers:BAAI/bge-m3"),
        ("openai/text-embedding-3-small", "openai:text-embedding-3-small"),
        ("hosted_vllm/BAAI/bge-m3", "vllm:BAAI/bge-m3"),
        ("text-embedding-3-small", "openai:text-embedding-3-small"),
        ("opena:text-embedding-3-small", "openai:text-embedding-3-small"),
    ],
)
def test_near_misses_get_the_name_to_write(wrong: str, right: str) -> None:
    """Other libraries' names, capitals, a bare name of the hub, a slip of the finger."""
    with pytest.raises(ConfigError, match=rf"Did you mean '{right}'\?"):
        Router([wrong])


@pytest.mark.parametrize("name", ["voyage:voyage-context-3", "voyage:voyage-context-4", "voyage:voyage-multimodal-3.5"])
def test_models_of_another_endpoint_are_refused_with_the_reason(name: str) -> None:
    """They are no misspelling, and no declaration of theirs would help."""
    with pytest.raises(ConfigError, match="through another endpoint") as caught:
        Router([Model(name, space="s", dimensions=1024)])
    assert "Did you mean" not in str(caught.value)


def test_two_places_of_one_model_share_their_vectors(emulator: Emulator, tmp_path: Path) -> None:
    """OpenRouter's are OpenAI's: one space, and one cache entry."""
    cache = tmp_path / "cache"
    first = Router([declare(emulator, "openrouter")], cache=cache)
    first.embed(["a"], input_type="document")
    first.close()
    both = Router(["openai:text-embedding-3-small", declare(emulator, "openrouter")], cache=cache)
    assert both.embed(["a"], input_type="document").cached == (True,)
    both.close()


def test_a_model_of_the_hub_is_one_space_wherever_it_is_served(emulator: Emulator) -> None:
    router = Router([declare(emulator, "vllm"), declare(emulator, "tei")], cache=None, ledger=":memory:")
    assert str(router.space) == "BAAI/bge-m3 (1024 dimensions)"
    with pytest.raises(SpaceMismatchError):
        Router([declare(emulator, "vllm"), declare(emulator, "ollama")])


def test_a_model_without_its_makers_prompts_is_another_space(emulator: Emulator, asynchronous: bool) -> None:
    """A server puts nothing before a text, so what is sent decides; empty prompts send the text alone."""
    plain = route(emulator, "ollama", prompts={"document": "", "query": ""})
    result = embed(plain, asynchronous, ["a"], input_type="query")
    plain.close()

    assert np.array_equal(result.vectors[0], vector(MODELS["ollama"], None, None, "a"))
    assert result.space.name == "ollama/nomic-embed-text"
    assert route(emulator, "ollama").space.name.startswith("ollama/nomic-embed-text+prompts-")


@pytest.mark.parametrize("prompts", [{}, {"query": ""}, {"document": "", "query": ""}, {"query": "another: "}])
def test_a_model_without_its_own_prompts_is_another_space(prompts: dict[str, str], emulator: Emulator) -> None:
    """Prompts of its files are part of the model: leaving one out changes its vectors, and their cache entries."""
    name = "tei:Qwen/Qwen3-Embedding-0.6B"
    with pytest.raises(SpaceMismatchError):
        Router([name, Model(name, prompts=prompts)], cache=None, ledger=":memory:")
    usual = load_catalogue().find(name)
    assert usual is not None
    same = Router([name, Model(name, prompts=usual.prompts)], cache=None, ledger=":memory:")
    assert same.space.name == "Qwen/Qwen3-Embedding-0.6B"


def test_an_empty_prompt_leaves_out_that_of_a_models_files() -> None:
    """Of a model whose files are not known here it may have been there, as for a local model."""
    known: dict[str, Any] = {"space": "house", "dimensions": 8, "base_url": "http://host", "api_key": KEY}
    with pytest.raises(SpaceMismatchError):
        Router([Model("openai:house", **known), Model("openai:house", prompts={"query": ""}, **known)], cache=None)


def test_declared_prompts_are_those_of_the_catalogue(emulator: Emulator) -> None:
    """So a local model with the same prompts is in the same space."""
    prompts = {"document": "passage: ", "query": "query: "}
    known = Model("vllm:intfloat/e5-base-v2")
    declared = Model("tei:intfloat/e5-base-v2", prompts=prompts)
    own = Model(
        "openai:e5", base_url="http://localhost:1", space="intfloat/e5-base-v2", dimensions=768, prompts=prompts
    )
    assert Router([known, declared, own], cache=None, ledger=":memory:").space.dimensions == 768
    with pytest.raises(SpaceMismatchError):
        Router([known, Model("tei:intfloat/e5-base-v2", prompts={"query": "query: "})])


@pytest.mark.parametrize("name", ["text-embedding-3-small", "openai/text-embedding-3-small"])
def test_a_gateways_model_is_known_by_its_makers_name(name: str) -> None:
    """The same space and the same cache as at the maker; another name is the gateway's own, and is declared."""
    both = Router([f"litellm:{name}", "openai:text-embedding-3-small"], cache=None, ledger=":memory:")
    assert both.space.name == "text-embedding-3-small"
    with pytest.raises(ConfigError, match="space=…, dimensions=…"):
        Router(["litellm:team-embedder"])


# Addresses


def test_a_server_without_a_usual_address_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would send key and texts to OpenAI."""
    with pytest.raises(ConfigError, match=r"base_url=.*DATABRICKS_API_BASE.*serving-endpoints"):
        Router(["databricks:databricks-gte-large-en"])
    monkeypatch.setenv("DATABRICKS_API_BASE", "https://team.cloud.databricks.com/serving-endpoints")
    Router(["databricks:databricks-gte-large-en"]).close()


def test_ollamas_variable_may_leave_out_scheme_and_port(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    """As its own client reads it."""
    monkeypatch.setenv("OLLAMA_HOST", emulator.url_of("ollama").removeprefix("http://"))
    router = Router(["ollama:nomic-embed-text"], cache=None, ledger=":memory:")
    assert len(router.embed(["a"], input_type="query")) == 1
    router.close()


def test_ollama_speaks_openais_protocol_where_the_address_says_so(asynchronous: bool) -> None:
    """Then it cuts, and the package's count decides."""
    with Emulator() as emulator:
        url = emulator.url_of("lmstudio").replace("lmstudio-api", "vllm-api")
        model = Model("ollama:nomic-embed-text", base_url=url, deployment="BAAI/bge-m3", dimensions=768)
        router = Router([model], cache=None, ledger=":memory:", retry=ONCE)
        with pytest.raises(ValueError, match="2048"):
            embed(router, asynchronous, ["word " * 3_000], input_type="document")
        assert emulator.calls == 0
        router.close()


def test_headers_of_the_users_take_the_place_of_a_key(emulator: Emulator) -> None:
    with Emulator(keys=["in-a-header"]) as strict:
        router = route(strict, "vllm", headers={"Authorization": "Bearer in-a-header"})
        assert len(router.embed(["a"], input_type="query")) == 1
        router.close()


# A server of one's own

OWN = """
[[servers]]
name = "house"
url = "{url}"
keys = ["HOUSE_KEY"]
texts = 64
[[models]]
model = "house:BAAI/bge-m3"
space = "BAAI/bge-m3"
dimensions = 1024
input_tokens = 8192
"""


def test_a_server_of_ones_own_is_ten_lines(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    own = tmp_path / "servers.toml"
    own.write_text(OWN.format(url=emulator.url_of("vllm")))
    monkeypatch.setenv("HOUSE_KEY", KEY)
    router = Router(["house:BAAI/bge-m3"], catalog=own, cache=None, ledger=":memory:")
    result = embed(router, asynchronous, [f"text {number}" for number in range(100)], input_type="document")
    router.close()

    assert str(result.space) == "BAAI/bge-m3 (1024 dimensions)"
    assert sorted(len(received.texts) for received in emulator.received) == [36, 64]
    assert len(OWN.strip().splitlines()) == 10


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('name = "a:b"', "the word before the colon"),
        ('name = "a"\nkey = "X"', "unknown column 'key'"),
        ('name = "a"\nkeys = "X"', "keys must be a list of texts"),
        ('name = "a"\ntexts = "many"', "texts must be a whole number"),
        ('name = "a"\nformats = []', "formats must be some of base64, float, omit"),
        ('name = "a"\nformats = ["int8"]', "formats must be some of base64, float, omit"),
        ('name = "a"\n[[server]]\nname = "b"', "unknown table 'server'"),
    ],
)
def test_a_wrong_row_is_told(row: str, says: str, tmp_path: Path) -> None:
    own = tmp_path / "servers.toml"
    own.write_text(f"[[servers]]\n{row}\n")
    with pytest.raises(ConfigError, match=says):
        Router(["openai:text-embedding-3-small"], catalog=own)


def test_a_configuration_that_was_found_may_bring_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: Emulator
) -> None:
    """It would name any variable as the key, and any address for it."""
    (tmp_path / "servers.toml").write_text(OWN.format(url=emulator.url_of("vllm")).replace("HOUSE_KEY", "AWS_SECRET"))
    (tmp_path / "embedrouter.toml").write_text('catalog = "servers.toml"\n[[models]]\nmodel = "house:BAAI/bge-m3"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET", "secret")
    with pytest.raises(ConfigError, match="declares servers"):
        Router.from_config()
    assert emulator.calls == 0
    named = Router.from_config("embedrouter.toml")
    named.close()


# Under way


def test_one_router_serves_one_loop_after_another(emulator: Emulator) -> None:
    """Also with the plain HTTP client of Ollama's."""
    router = route(emulator, "ollama")
    for number in range(3):
        asyncio.run(router.aembed([f"text {number}"], input_type="query"))
    router.close()
    gc.collect()
