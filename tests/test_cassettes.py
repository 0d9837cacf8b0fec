"""Our own cassettes: what each provider is asked and answers, small enough to read, replayed without a server.

They were recorded from the emulator in ``tests/emulator``, not from the providers, and each says so in its first line;
the addresses in them are the providers', so that a replay goes through our backends exactly as a real call does. What a
request asks for is compared to the last field. Every number that a cassette holds and a user would see is repeated in
its test. ``cassettes/README.md`` says how to record them again, from the emulator or from the providers.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import pytest
import vcr
import yaml
from vcr.cassette import Cassette
from vcr.request import Request

from embedrouter import Model, RetryPolicy, Router, Usage
from embedrouter.errors import AuthenticationError, NoModelAvailableError
from embedrouter.types import EmbeddingResult, InputType
from tests.emulator import Emulator, Fault, vector
from tests.recordings import body_of, cleaned, holds_key, method_in_any_case, no_recorded_answer

FOLDER = Path(__file__).parents[1] / "cassettes"
ENVIRONMENT = dict(os.environ)
"""As it was before fixtures took the keys out of it."""
MODE = ENVIRONMENT.get("EMBEDROUTER_RECORD", "replay")

KEY = "sk-recorded-0123456789abcdef"
WRONG_KEY = "sk-wrong-0123456789abcdef"
DOCUMENTS = ("Paris is in France.", "Rain falls from clouds.")
QUERY = ("What is in France?",)
MILLION = 1_000_000


@dataclass(frozen=True)
class Service:
    """One provider: where it is, what the emulator calls it, and which variables hold somebody's own access to it."""

    name: str
    address: str
    emulated: str
    keys: tuple[str, ...]
    endpoint: str | None = None
    """The variable that holds the address, where everybody has one of their own; it is not kept in the cassette."""


SERVICES = {
    service.name: service
    for service in (
        Service("openai", "https://api.openai.com/v1", "openai_url", ("OPENAI_API_KEY",)),
        Service(
            "azure_openai",
            "https://example.openai.azure.com",
            "azure_url",
            ("AZURE_OPENAI_API_KEY",),
            "AZURE_OPENAI_ENDPOINT",
        ),
        Service("cohere", "https://api.cohere.com", "cohere_url", ("CO_API_KEY", "COHERE_API_KEY")),
        Service("voyage", "https://api.voyageai.com/v1", "voyage_url", ("VOYAGE_API_KEY",)),
    )
}


@dataclass(frozen=True)
class Scene:
    """One cassette: what is asked of which model, and what the emulator lets go wrong."""

    model: str
    texts: Sequence[str]
    input_type: InputType
    settings: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[Fault | None] = ()
    wrong_key: bool = False

    @property
    def ends_with(self) -> type[Exception] | None:
        return AuthenticationError if self.wrong_key else None

    @property
    def service(self) -> Service:
        return SERVICES[self.model.partition(":")[0]]


SCENES = {
    "openai-documents": Scene("openai:text-embedding-3-small", DOCUMENTS, "document", {"dimensions": 8}),
    "openai-rate-limited": Scene(
        "openai:text-embedding-3-small",
        QUERY,
        "query",
        {"dimensions": 8},
        faults=(Fault.rate_limited(retry_after=0.01), None),
    ),
    "openai-wrong-key": Scene("openai:text-embedding-3-small", QUERY, "query", {"dimensions": 8}, wrong_key=True),
    "azure-documents": Scene(
        "azure_openai:text-embedding-3-small", DOCUMENTS, "document", {"dimensions": 8, "api_version": "2024-10-21"}
    ),
    "cohere-document": Scene("cohere:embed-v4.0", DOCUMENTS[:1], "document", {"dimensions": 256}),
    "cohere-query": Scene("cohere:embed-v4.0", QUERY, "query", {"dimensions": 256}),
    "voyage-document": Scene("voyage:voyage-4-lite", DOCUMENTS[:1], "document", {"dimensions": 256}),
    "voyage-query": Scene("voyage:voyage-4-lite", QUERY, "query", {"dimensions": 256}),
}

replays_only = pytest.mark.skipif(MODE != "replay", reason="this test is about cassettes that are already recorded")
each_flavour = pytest.mark.parametrize(
    "flavour",
    [
        "sync",
        pytest.param("async", marks=pytest.mark.skipif(MODE != "replay", reason="the synchronous call records")),
    ],
)
each_scene = pytest.mark.parametrize("name", SCENES)


# The facts in the cassettes


@each_flavour
async def test_openai_gives_documents_the_dimensions_asked_for(flavour: str) -> None:
    """Dimensions other than the model's own must reach the provider, and two texts are one request."""
    result = await play("openai-documents", flavour)

    assert result.usage == Usage(tokens=10, requests=1, cost=Decimal("0.02") * 10 / MILLION)
    assert result.vectors.shape == (2, 8)
    assert shown(result) == [[0.2957, -0.1923, 0.1923], [-0.2855, 0.2855, 0.6147]]


@each_flavour
async def test_azure_serves_the_same_model_at_its_own_price(flavour: str) -> None:
    """Azure's deployments give OpenAI's vectors, so that failing over between the two stays in one space."""
    result = await play("azure-documents", flavour)

    assert result.usage == Usage(tokens=10, requests=1, cost=Decimal("0.022") * 10 / MILLION)
    assert result.vectors.shape == (2, 8)
    assert shown(result) == [[0.2957, -0.1923, 0.1923], [-0.2855, 0.2855, 0.6147]]


@each_flavour
async def test_cohere_embeds_a_document_as_a_document(flavour: str) -> None:
    """Cohere's vectors depend on what the text is for, and it cuts long texts unless it is told not to."""
    result = await play("cohere-document", flavour)

    assert asked("cohere-document")["input_type"] == "search_document"
    assert asked("cohere-document")["truncate"] == "NONE"
    assert result.usage == Usage(tokens=5, requests=1, cost=Decimal("0.12") * 5 / MILLION)
    assert result.vectors.shape == (1, 256)
    assert shown(result) == [[0.0322, 0.0298, -0.0425]]


@each_flavour
async def test_cohere_embeds_a_query_as_a_query(flavour: str) -> None:
    """A query embedded as a document finds less, and nothing would raise."""
    result = await play("cohere-query", flavour)

    assert asked("cohere-query")["input_type"] == "search_query"
    assert result.usage == Usage(tokens=5, requests=1, cost=Decimal("0.12") * 5 / MILLION)
    assert result.vectors.shape == (1, 256)
    assert shown(result) == [[0.0577, -0.0577, 0.0284]]


@each_flavour
async def test_voyage_embeds_a_document_as_a_document(flavour: str) -> None:
    """Voyage's vectors depend on what the text is for, and it cuts long texts unless it is told not to."""
    result = await play("voyage-document", flavour)

    assert asked("voyage-document")["input_type"] == "document"
    assert asked("voyage-document")["truncation"] is False
    assert result.usage == Usage(tokens=5, requests=1, cost=Decimal("0.02") * 5 / MILLION)
    assert result.vectors.shape == (1, 256)
    assert shown(result) == [[0.0013, 0.1315, -0.0288]]


@each_flavour
async def test_voyage_embeds_a_query_as_a_query(flavour: str) -> None:
    """A query embedded as a document finds less, and nothing would raise."""
    result = await play("voyage-query", flavour)

    assert asked("voyage-query")["input_type"] == "query"
    assert result.usage == Usage(tokens=5, requests=1, cost=Decimal("0.02") * 5 / MILLION)
    assert result.vectors.shape == (1, 256)
    assert shown(result) == [[-0.0015, 0.1356, -0.1051]]


@each_flavour
async def test_a_rate_limited_request_is_made_again_and_billed_once(flavour: str) -> None:
    """The SDK's own retries are off, so the second request in the cassette is ours."""
    result = await play("openai-rate-limited", flavour)

    assert statuses("openai-rate-limited") == [429, 200]
    assert result.usage == Usage(tokens=5, requests=1, cost=Decimal("0.02") * 5 / MILLION)
    assert shown(result) == [[-0.1375, 0.2147, -0.2147]]


@each_flavour
async def test_a_wrong_key_fails_after_one_request(flavour: str) -> None:
    """No second try can make a key right, and the error must say what to check."""
    with pytest.raises(AuthenticationError, match="Check the API key") as caught:
        await play("openai-wrong-key", flavour)

    assert statuses("openai-wrong-key") == [401]
    assert caught.value.status == 401
    assert WRONG_KEY not in str(caught.value)


# The cassettes themselves


@replays_only
@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if not scene.wrong_key])
async def test_synchronous_and_asynchronous_calls_get_the_same_from_a_cassette(name: str) -> None:
    """Both forms send the same request, to the last field, and read the same vectors out of the answer."""
    sync, asynchronous = await play(name, "sync"), await play(name, "async")

    np.testing.assert_array_equal(sync.vectors, asynchronous.vectors)
    assert sync.usage == asynchronous.usage


@replays_only
@each_scene
async def test_a_cassette_is_what_the_emulator_says_today(name: str, tmp_path: Path) -> None:
    """A request of ours that changed, or an emulator that did, must show up as a cassette to record again."""
    recorded = FOLDER / f"{name}.yaml"
    if EMULATED not in recorded.read_text("utf-8"):
        pytest.skip("this cassette was recorded from the provider")

    with suppress(AuthenticationError):
        await record(name, tmp_path)

    assert comparable(tmp_path / recorded.name) == comparable(recorded)


@replays_only
@each_scene
def test_a_cassette_says_where_it_comes_from_and_holds_nothing_but_the_exchange(name: str) -> None:
    """Keys, request ids, dates and what a machine tells of itself have no place in a repository."""
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    names = {
        header for interaction in interactions(name) for side in interaction.values() for header in side["headers"]
    }

    assert text.startswith("# ")
    assert all(
        interaction["request"]["uri"].startswith(SCENES[name].service.address) for interaction in interactions(name)
    )
    assert {header for header in names if not KEPT_HEADERS.fullmatch(header)} == set()
    assert not holds_key(text, [KEY, WRONG_KEY])
    assert len(text) < 10_000, "small enough to read"


@replays_only
def test_every_cassette_has_a_test() -> None:
    """A cassette that nothing plays proves nothing."""
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == sorted(SCENES)


@replays_only
@each_flavour
@pytest.mark.parametrize("name", ["openai-documents", "cohere-document", "voyage-document"])
async def test_another_text_finds_no_answer_in_a_cassette(name: str, flavour: str) -> None:
    """All embedding requests of a provider have one address: only the body tells whose vector an answer is."""
    scene = SCENES[name]

    with replaying(name, unplayed=1), no_recorded_answer():
        await embed(scene, model_of(scene), ["Paris is not in Italy."], flavour)


@replays_only
@each_flavour
@pytest.mark.parametrize("name", ["openai-documents", "azure-documents", "cohere-document", "voyage-document"])
async def test_without_a_cassette_there_is_no_way_out(name: str, flavour: str) -> None:
    """The replays above prove something only because a request that escapes them cannot reach anybody."""
    scene = SCENES[name]

    with no_network(), pytest.raises(NoModelAvailableError, match="the connection failed"):
        await embed(scene, model_of(scene), scene.texts, flavour)


@replays_only
def test_the_vectors_of_a_cassette_are_the_emulators() -> None:
    """The first line of a cassette says so; here it is checked against the emulator's own arithmetic."""
    if EMULATED not in (FOLDER / "cohere-query.yaml").read_text("utf-8"):
        pytest.skip("this cassette was recorded from the provider")
    body = json.loads(interactions("cohere-query")[0]["response"]["body"]["string"])

    [written] = body["embeddings"]["base64"]
    numbers = np.frombuffer(base64.b64decode(written), "<f4")
    np.testing.assert_array_equal(numbers, vector("embed-v4.0", 256, "search_query", QUERY[0]))


# Playing and recording

EMULATED = "Recorded from the emulator in tests/emulator; no provider was called."
KEPT_HEADERS = re.compile(r"content-type|retry-after(-ms)?|x-ratelimit-[a-z-]+")


async def play(name: str, flavour: str) -> EmbeddingResult:
    """Make the call of a scene, answered by its cassette; when recording, by the emulator or the provider."""
    scene = SCENES[name]
    if MODE == "replay":
        with replaying(name), no_network():
            return await embed(scene, model_of(scene), scene.texts, flavour)
    if MODE == "emulator":
        return await record(name, FOLDER)
    if MODE == "vendors":
        return await record_from_vendor(name)
    raise ValueError(f"EMBEDROUTER_RECORD must be 'emulator', 'vendors' or unset, not {MODE!r}")


def model_of(scene: Scene, *, key: str = KEY, address: str | None = None) -> Model:
    """Declare the model of a scene at the provider's default address, or at another."""
    if address is None and scene.service.endpoint is not None:
        address = scene.service.address
    key = WRONG_KEY if scene.wrong_key else key
    return Model(scene.model, base_url=address, api_key=key, **scene.settings)


async def embed(scene: Scene, model: Model, texts: Sequence[str], flavour: str) -> EmbeddingResult:
    retry = RetryPolicy(attempts=2, initial_wait=0)
    async with Router([model], cache=None, retry=retry) as router:
        if flavour == "sync":
            return router.embed(texts, input_type=scene.input_type)
        return await router.aembed(texts, input_type=scene.input_type)


@contextmanager
def replaying(name: str, unplayed: int = 0) -> Iterator[Cassette]:
    """Answer from a cassette, each exchange once; all but ``unplayed`` must have been asked for."""
    with player(record_mode="none").use_cassette(
        str(FOLDER / f"{name}.yaml"), allow_playback_repeats=False
    ) as cassette:
        try:
            yield cassette
        finally:
            left = len(cassette) - cassette.play_count
            assert left == unplayed, f"{left} of {len(cassette)} exchanges in {name}.yaml were not asked for"


async def record(name: str, folder: Path) -> EmbeddingResult:
    """Make the call of a scene to the emulator and write its cassette into ``folder``."""
    scene = SCENES[name]
    with Emulator(keys={KEY}) as emulator:
        emulator.script(*scene.faults)
        address: str = getattr(emulator, scene.service.emulated)
        with recording(
            folder / f"{name}.yaml",
            address,
            scene.service.address,
            EMULATED,
            ends_with=scene.ends_with,
            keys=[KEY, WRONG_KEY],
        ):
            return await embed(scene, model_of(scene, address=address), scene.texts, "sync")


async def record_from_vendor(name: str) -> EmbeddingResult:
    """Make the call of a scene to its provider, with the key in the environment, and write its cassette."""
    scene = SCENES[name]
    service = scene.service
    if scene.faults:
        pytest.skip("no provider fails on command; record this one from the emulator")
    variables = [*service.keys[:1], *([service.endpoint] if service.endpoint else [])]
    key = next((ENVIRONMENT[variable] for variable in service.keys if ENVIRONMENT.get(variable)), None)
    address = ENVIRONMENT.get(service.endpoint) if service.endpoint else service.address
    if not key or not address:
        pytest.skip(f"recording from {service.name} needs {' and '.join(variables)}")
    address = address.rstrip("/")
    with recording(
        FOLDER / f"{name}.yaml",
        address,
        service.address,
        f"Recorded from {service.name}.",
        ends_with=scene.ends_with,
        keys=[key, WRONG_KEY],
    ):
        return await embed(scene, model_of(scene, key=key, address=address), scene.texts, "sync")


@contextmanager
def recording(
    file: Path, address: str, written: str, origin: str, *, ends_with: type[Exception] | None, keys: Collection[str]
) -> Iterator[None]:
    """Write what happens at ``address`` to ``file``, as if it had happened at the address ``written``.

    The file is replaced only when the call ended as it should (``None``: without an error), and never by one with a key
    in it.
    """

    def moved(request: Request) -> Request:
        where = request.uri.replace(address, written, 1)  # vcrpy asks twice: what was moved must stay where it is
        assert where.startswith(written), f"{request.uri} is neither at {address} nor at {written}"
        return cleaned(Request(request.method, where, request.body, request.headers))

    fresh = file.with_suffix(".new")
    machine = player(record_mode="all", before_record_request=moved, before_record_response=anonymous)
    machine.register_serializer("commented", Commented(origin))
    ended: Exception | None = None
    try:
        with machine.use_cassette(str(fresh), serializer="commented"):
            try:
                yield
            except Exception as error:
                ended = error
                raise
    finally:
        usable = fresh.is_file() and type(ended) is (ends_with or type(None))
        leaks = usable and holds_key(fresh.read_text("utf-8"), keys)
        if usable and not leaks:
            fresh.replace(file)
        fresh.unlink(missing_ok=True)
        assert not leaks, f"{file.name} would hold a key, so it was not written"


def player(**settings: Any) -> vcr.VCR:
    machine = vcr.VCR(
        **{"before_record_request": cleaned, **settings},
        match_on=["any case", "scheme", "host", "port", "path", "query", "whole body"],
        decode_compressed_response=True,
    )
    machine.register_matcher("any case", method_in_any_case)
    machine.register_matcher("whole body", _same_body)
    return machine


def _same_body(one: Request, other: Request) -> None:
    assert body_of(one) == body_of(other), f"{body_of(one)} is not {body_of(other)}"


def anonymous(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response with the headers that are kept, and without a request's id or a part of a key in its body."""
    headers = {name.lower(): values for name, values in response["headers"].items()}
    body = response["body"]["string"].decode()
    body = re.sub(r'"id":\s*"[^"]*"', '"id":"dropped"', body)
    body = re.sub(r"(API key provided: )[^\s.]+", r"\1dropped", body)
    return {
        "status": response["status"],
        "headers": {name: headers[name] for name in sorted(headers) if KEPT_HEADERS.fullmatch(name)},
        "body": {"string": body.encode()},
    }


class Commented:
    """Writes a cassette as YAML that begins with where it comes from."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def serialize(self, content: dict[str, Any]) -> str:
        return f"# {self._origin}\n" + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)

    def deserialize(self, text: str) -> Any:
        return yaml.safe_load(text)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _as_written(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _as_written)


@contextmanager
def no_network() -> Iterator[None]:
    """Refuse every connection and every look-up of a name."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("a replay must not use the network")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket.socket, "connect_ex", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
    ):
        yield


# Reading


def comparable(cassette: Path) -> tuple[str, Any]:
    """Return the first line of a cassette and its content; the order of a request's fields is the SDK's affair."""
    text = cassette.read_text("utf-8")
    content = yaml.safe_load(text)
    for interaction in content["interactions"]:
        interaction["request"]["body"] = json.loads(interaction["request"]["body"])
    return text.partition("\n")[0], content


def interactions(name: str) -> list[dict[str, Any]]:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    found: list[dict[str, Any]] = content["interactions"]
    return found


def asked(name: str) -> dict[str, Any]:
    """Return the one request in a cassette."""
    [interaction] = interactions(name)
    body: dict[str, Any] = json.loads(interaction["request"]["body"])
    return body


def statuses(name: str) -> list[int]:
    return [interaction["response"]["status"]["code"] for interaction in interactions(name)]


def shown(result: EmbeddingResult) -> list[list[float]]:
    """Return the first three numbers of each vector, to four places."""
    return [[round(float(number), 4) for number in row[:3]] for row in result.vectors]
