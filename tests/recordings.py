"""Recorded traffic of embeddings providers, read for replay through our backends.

The recordings are those of other public projects, made against the real services. They lie beside this checkout, and in
a folder that ``EMBEDROUTER_RECORDINGS`` names, and are no part of it. An ``Exchange`` is one request and its response;
``fate`` says what can be done with it, by rules that each have a reason; ``Recording`` turns it into what a replay
needs: the model to declare, the texts to send, the vectors and tokens to expect. What is expected is read from the file
by code of its own here, not by the backends' code.

Whose recording it is, its host says: the one in a provider's row, else a server of OpenAI's protocol. Where a file
keeps no host, its name says it.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
import pytest
import vcr
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.record_mode import RecordMode
from vcr.request import Request

from embedrouter.errors import ConfigError, EmbedRouterError
from embedrouter.models import Model, Server, load_catalogue, resolve
from embedrouter.providers import Backend, create, describe
from embedrouter.types import InputType, Vectors
from tests import recording_files

FOLDER = Path(__file__).parents[1].parent / "shared" / "cassettes"
OTHERS = Path(os.environ["EMBEDROUTER_RECORDINGS"]) if os.environ.get("EMBEDROUTER_RECORDINGS") else None
"""A folder of further recordings."""
KEY = "sk-replayed-0123456789abcdef"
STAND_IN = "a text that stands in for what was recorded"

HOSTS = {
    "openai.azure.com": "azure_openai",
    "services.ai.azure.com": "azure_openai",
    "api.cohere.ai": "cohere",
    "aiplatform.googleapis.com": "google_vertexai",
    "ollama.com": "ollama",
}
"""Whose host it is, by the host's ending, where it is not the one in the provider's row."""

NATIVE = {"openai": "text-embedding-3-small", "cohere": "embed-v4.0", "voyage": "voyage-3.5"}
"""The model that is asked where a recording names none; of other providers the first in the catalogue."""

AZURE = "https://recorded.openai.azure.com/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21"
"""Where an error is served that was recorded at another endpoint of Azure's."""

AZURE_NAMES = {"ada": "text-embedding-ada-002"}
"""What Azure calls a model in its answers, where that is not the model's name."""

REGION = "us-east-1"
BEDROCK = f"https://bedrock-runtime.{REGION}.amazonaws.com"
PROFILES = {
    "inputText": "amazon.titan-embed-text-v2:0",
    "texts": "cohere.embed-v4:0",
    "singleEmbeddingParams": "amazon.nova-2-multimodal-embeddings-v1:0",
}
"""The model behind the name of an inference profile, by a field of the request."""

DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/embeddings")
EMBEDDINGS = re.compile(
    r".*/embeddings(?<!/api/embeddings)|/v2/embed|/api/embed|/v1(?:beta)?/models/[^/]+:batchEmbedContents"
    r"|.*/publishers/google/models/(?:[^/]+(?<!gemini-embedding-001):predict|[^/]+:embedContent)|/model/.+/invoke"
)
"""The endpoints that our backends call. Others are older: Ollama's /api/embeddings, Google's embedContent for one text,
and Vertex AI's predict for gemini-embedding-001.
"""
VERSION = re.compile(r"^/v1(?:beta1?)?/")
"""In a path; an SDK may ask for another version of the interface than the one that was recorded."""
MODEL = re.compile(r"/models/([^/]+):\w+$|/model/(.+)/\w+$")
"""The name of the model in a path of Google's or Bedrock's."""
INTEGERS = {"int8": "int8", "uint8": "uint8", "binary": "int8", "ubinary": "uint8"}
"""The numbers besides floats that a request may ask for, and how numpy calls them; bits come eight in a byte."""
DIMENSIONS = ("dimensions", "output_dimension", "outputDimensionality", "output_dimensionality", "embeddingDimension")
PLACEHOLDER = re.compile(r"input \d+: .* removed \(\d+ characters\)")
QUOTED_KEY = re.compile(r"API key provided: ([\w-]+)\.")


class Fate(StrEnum):
    """What is done with an exchange; all but the first two are reasons to leave it out."""

    VECTORS = "replayed: vectors and tokens"
    ERROR = "replayed: error"
    ELSEWHERE = "left out: a success of another endpoint (chat, images, batches, an older one), or another host"
    TOKEN_IDS = "left out: the input is no text (token ids, images), our backends send text"
    PACKED = "left out: the answer is packed in a way that cannot be unpacked here (pip install brotli)"
    COHERE_V1 = "left out: a success of Cohere's v1 interface, ours is v2"
    NOT_FLOAT = "left out: the vectors are integers that no field of ours asks for"
    NO_BODY = "left out: the request's body was not recorded, so the texts are unknown"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response, as recorded."""

    cassette: str
    """The file, relative to the folder of recordings."""
    place: int
    """Its place in the file."""
    uri: str
    asked: Mapping[str, Any] | None
    """The JSON object that was sent; ``None`` where it was not recorded."""
    status: int
    headers: Mapping[str, Sequence[str]]
    content: bytes
    """The response's body as it came over the wire."""

    def __str__(self) -> str:
        return f"{self.cassette.removesuffix('.yaml')}-{self.place}"

    @property
    def host(self) -> str:
        return urlsplit(self.uri).hostname or ""

    @property
    def path(self) -> str:
        return urlsplit(self.uri).path

    @property
    def server(self) -> Server | None:
        """The row of the provider whose server answered; ``None`` where it is no server of embeddings."""
        servers = load_catalogue().servers
        if not self.host:
            known = {name: row for row in servers.values() for name in (row.name, *row.aliases, *row.also)}
            found = [known[word] for word in re.split(r"__|/", self.cassette) if word in known]
            return found[0] if found else servers["openai"] if self.embeds else None
        for ending, name in HOSTS.items():
            if self.host.endswith(ending):
                return servers[name]
        if self.host.startswith("bedrock-runtime."):
            return servers.get("bedrock")
        place = urlsplit(self.uri).netloc.replace("127.0.0.1", "localhost")
        rows = (row for row in servers.values() if row.url and urlsplit(row.url).netloc == place)
        return next(rows, servers["openai"] if self.embeds else None)

    @property
    def provider(self) -> str:
        """The name of the server, empty where there is none."""
        return self.server.name if self.server else ""

    @property
    def model(self) -> str:
        """The name by which the model was asked, in the path or the body; empty where there is none."""
        return model_in(self.uri, self.asked or {})

    @property
    def dimensions(self) -> int | None:
        """The dimensions that were asked for."""
        return _dimensions(self.asked)

    @property
    def embeds(self) -> bool:
        """Whether it was recorded at an endpoint that one of our backends calls."""
        return EMBEDDINGS.fullmatch(self.path) is not None

    @property
    def text(self) -> str:
        """The response's body as text."""
        packed = any("gzip" in value for value in self.header("content-encoding"))
        return (gzip.decompress(self.content) if packed else self.content).decode()

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object in the response."""
        decoded: dict[str, Any] = json.loads(self.text)
        return decoded

    @property
    def texts(self) -> list[str] | None:
        """The texts that were sent; ``None`` where they were token ids or not recorded."""
        return texts_in(self.asked or {})

    @property
    def placeholders(self) -> bool:
        """Whether the publisher of the recording replaced its texts; counts then say nothing."""
        return any(PLACEHOLDER.fullmatch(text) for text in self.texts or ())

    @property
    def quoted_key(self) -> str | None:
        """The key that the response repeats in full, if it does."""
        found = QUOTED_KEY.search(self.text) if self.status == 401 else None
        return found[1] if found else None

    @property
    def billed(self) -> int | None:
        """The tokens that the provider says it billed; ``None`` where it says nothing."""
        answer = self.answer
        usage = answer.get("usage") or answer.get("usageMetadata") or {}
        tokens: int | None
        match self.provider:
            case "cohere":
                tokens = answer.get("meta", {}).get("billed_units", {}).get("input_tokens")
            case "voyage":
                tokens = usage["total_tokens"]
            case "google_vertexai" if "predictions" in answer:
                tokens = sum(row["embeddings"]["statistics"]["token_count"] for row in answer["predictions"])
            case "google_genai" | "google_vertexai":
                tokens = usage.get("promptTokenCount")
            case "bedrock":
                header = self.header("x-amzn-bedrock-input-token-count")
                tokens = int(header[0]) if header else answer.get("inputTextTokenCount")
            case "ollama" if "embeddings" in answer:
                tokens = answer.get("prompt_eval_count")
            case _:
                tokens = usage.get("prompt_tokens")
        return tokens

    @property
    def reason(self) -> str:
        """What an error says; empty where it says it in another way than most."""
        try:
            said: Any = self.answer
        except ValueError:
            return ""
        for name in ("error", "detail", "message"):
            said = said.get(name, said) if isinstance(said, dict) else said
        return said if isinstance(said, str) else ""

    @property
    def dtype(self) -> str:
        """The numbers that were asked for, in our words; "float32" where the request says nothing else."""
        asked = self.asked or {}
        name = (asked.get("embedding_types") or [asked.get("output_dtype") or "float"])[0]
        return name if name in INTEGERS else "float32"

    def header(self, name: str) -> Sequence[str]:
        return next((value for key, value in self.headers.items() if key.lower() == name), ())

    @property
    def fate(self) -> Fate:
        """Decide what is done with it. The order matters: the first rule that applies decides."""
        if self.server is None or 200 < self.status < 400:
            return Fate.ELSEWHERE
        if self.status != 200:
            return Fate.ERROR
        if self.provider == "cohere" and self.path == "/v1/embed":
            return Fate.COHERE_V1
        if not self.embeds:
            return Fate.ELSEWHERE
        if self.asked is None:
            return Fate.NO_BODY
        if self.texts is None:
            return Fate.TOKEN_IDS
        if any("br" in value for value in self.header("content-encoding")):
            return Fate.PACKED
        if self.asked.get("encoding_format") not in (None, "float", "base64") or not _is_finite(self):
            return Fate.NOT_FLOAT
        return Fate.VECTORS


@cache
def exchanges(folder: Path | None = FOLDER) -> tuple[Exchange, ...]:
    """Return every exchange of a folder, in the order of the files; none where there is no folder."""
    files = sorted(file for file in (folder.rglob("*") if folder else ()) if file.suffix in recording_files.SUFFIXES)
    return tuple(exchange for file in files for exchange in _read(file, folder or file))


def _read(file: Path, folder: Path) -> Iterator[Exchange]:
    for place, found in enumerate(recording_files.read(file)):
        yield Exchange(
            cassette=file.relative_to(folder).as_posix(),
            place=place,
            uri=found.uri,
            asked=_object(found.body),
            status=found.status,
            headers=found.headers,
            content=found.content,
        )


def _object(body: str | bytes | None) -> Mapping[str, Any] | None:
    try:
        decoded = json.loads(body or b"")
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None


def model_in(uri: str, asked: Mapping[str, Any]) -> str:
    """Return the name by which a request asks for a model; empty where there is none."""
    found = MODEL.search(urlsplit(uri).path)
    return unquote(found[1] or found[2]) if found else asked.get("model") or ""


def texts_in(asked: Mapping[str, Any]) -> list[str] | None:
    """Return the texts of a request, wherever a provider has them; ``None`` where there are none."""
    nova = asked.get("singleEmbeddingParams", {}).get("text", {}).get("value")
    value: Any = asked.get("texts") or asked.get("input") or asked.get("inputText") or nova
    if instances := asked.get("instances"):
        value = [one.get("content") for one in instances]
    if contents := asked.get("requests", [asked] if "content" in asked else []):
        value = [_text_of(one["content"]["parts"]) for one in contents]
    value = [value] if isinstance(value, str) else value
    return value if isinstance(value, list) and value and all(isinstance(item, str) for item in value) else None


def _text_of(parts: Sequence[Mapping[str, Any]]) -> str | None:
    return "".join(part["text"] for part in parts) if all("text" in part for part in parts) else None


def _dimensions(asked: Any) -> int | None:
    """Return the first number of dimensions in a request, at whatever depth."""
    if isinstance(asked, Mapping):
        own = [asked[name] for name in DIMENSIONS if asked.get(name) is not None]
        return own[0] if own else _dimensions(list(asked.values()))
    if isinstance(asked, list):
        return next((found for item in asked if (found := _dimensions(item)) is not None), None)
    return None


@dataclass(frozen=True, slots=True)
class Recording:
    """An exchange, ready for replay: served at ``uri`` to a client that sends ``texts`` to ``model``."""

    exchange: Exchange
    model: Model
    texts: Sequence[str]
    uri: str

    @property
    def input_type(self) -> InputType:
        """What the texts were for; document where the provider was told something else or nothing."""
        told = json.dumps(self.exchange.asked).lower()
        return (
            "query"
            if re.search(r'"(search_query|query|retrieval_query|text_retrieval|generic_retrieval)"', told)
            else "document"
        )

    @property
    def tokens(self) -> int:
        """What the provider says it billed."""
        billed = self.exchange.billed
        assert billed is not None, f"{self.exchange} says nothing of tokens"
        return billed

    @property
    def dimensions(self) -> int:
        """Of the model's space."""
        known = describe(self.model, load_catalogue(), None)
        return resolve(self.model, known.card, dimensions=None, index=0, rank=0, local=False).space.dimensions

    @property
    def vectors(self) -> Vectors:
        """The recorded vectors, in the order of the texts."""
        rows = _rows(self.exchange)
        numbers = INTEGERS.get(self.exchange.dtype, "float32")
        return np.array([_numbers(row, numbers) for row in rows], numbers)

    def interaction(self) -> tuple[Request, dict[str, Any]]:
        """Return what vcrpy keeps of it, under its new address and with only that of the body which is compared."""
        body = json.dumps({"model": self.model.deployment or self.model.id, "input": list(self.texts)})
        response = {
            "status": {"code": self.exchange.status, "message": "recorded"},
            "headers": {name: list(values) for name, values in self.exchange.headers.items()},
            "body": {"string": self.exchange.content},
        }
        return Request("POST", self.uri, body, {"content-type": "application/json"}), response

    def backend(self) -> Backend:
        """Return the backend that a router would make for the model."""
        known = describe(self.model, load_catalogue(), None)
        candidate = resolve(self.model, known.card, dimensions=None, index=0, rank=0, local=False)
        return create(self.model, known, candidate)


def success(exchange: Exchange) -> Recording:
    """Return a recorded success with the model and the texts that it was asked for.

    Where the texts are not known, as many stand in for them as vectors came.
    """
    rows = _rows(exchange)
    dimensions = len(_numbers(rows[0], INTEGERS.get(exchange.dtype, "float32")))
    dimensions *= 8 if exchange.dtype in ("binary", "ubinary") else 1
    texts = exchange.texts or [f"{STAND_IN}, {place}" for place in range(len(rows))]
    return _recording(exchange, _model(exchange, dimensions), texts)


def question(exchange: Exchange) -> Recording:
    """Return the recorded texts and the model that was asked, with any answer; not for replay."""
    assert exchange.texts is not None, f"{exchange} does not say its texts"
    return _recording(exchange, _model(exchange, None), exchange.texts)


def failure(exchange: Exchange, *, key: str = KEY) -> Recording:
    """Return a recorded error, served at an embeddings endpoint.

    What provoked it need not be something our backends can send: the recorded answer comes to every request.
    """
    texts = exchange.texts if exchange.embeds else None
    served = exchange
    if not exchange.embeds:
        uri = AZURE if exchange.provider == "azure_openai" else ""
        served = replace(exchange, uri=uri, asked={"model": _native(exchange.provider)}, cassette=exchange.provider)
    recording = _recording(served, _model(served, None), texts or [STAND_IN])
    return replace(recording, exchange=exchange, model=replace(recording.model, api_key=key))


def _native(provider: str) -> str:
    first = (name.partition(":")[2] for name in load_catalogue() if name.startswith(f"{provider}:"))
    return NATIVE.get(provider) or next(first, "some-model")


def _recording(exchange: Exchange, model: Model, texts: Sequence[str]) -> Recording:
    """Return a recording, served where our backend asks for the model."""
    server, name = exchange.server, model.deployment or model.id
    assert server is not None, f"{exchange}: no provider is known at {exchange.host}"
    method = exchange.path.rpartition(":")[2] if ":" in exchange.path else "predict"
    match server.protocol:
        case "google" if server.name == "google_vertexai":
            uri = f"{server.url}/v1beta1/publishers/google/models/{name}:{method}"
        case "google":
            uri = f"{server.url}/v1beta/models/{name}:batchEmbedContents"
        case "bedrock":
            uri = f"{BEDROCK}/model/{quote(name, safe='')}/invoke"
        case _ if exchange.host:
            uri = exchange.uri
        case protocol:
            path = {"cohere": "/v2/embed", "ollama": "/api/embed"}.get(protocol, "/embeddings")
            uri = f"{model.base_url or server.url}{path}"
    return Recording(exchange, model, texts, uri)


def _model(exchange: Exchange, given: int | None) -> Model:
    """Declare the model that was asked; ``given`` dimensions came, ``None`` where no vector did."""
    settings: dict[str, Any] = {"api_key": KEY}
    if exchange.dtype != "float32":
        settings["output_dtype"] = exchange.dtype
    if deployed := DEPLOYMENT.fullmatch(exchange.path):
        settings |= {
            "deployment": deployed[1],
            "base_url": f"https://{exchange.host}",
            "api_version": parse_qs(urlsplit(exchange.uri).query)["api-version"][0],
        }
        served = exchange.answer["model"] if exchange.status == 200 else deployed[1]
        name = f"azure_openai:{AZURE_NAMES.get(served, served)}"
    elif exchange.provider == "azure_openai":
        settings["base_url"] = exchange.uri.removesuffix("/embeddings")
        name = f"openai:{exchange.model}"
    else:
        told = exchange.model or (exchange.answer.get("model") if exchange.status == 200 else "")
        name = f"{exchange.provider}:{told or _native(exchange.provider)}"
        settings |= _elsewhere(exchange)
    if exchange.provider == "bedrock" and (base := _behind_profile(exchange)):
        settings["deployment"], name = exchange.model, f"bedrock:{base}"
    try:
        card = load_catalogue().find(name)
    except ConfigError:  # the model is no more, or none for texts
        card, settings["deployment"], name = None, exchange.model, f"{name}-as-recorded"
    if card is None:
        settings |= {"space": name.partition(":")[2], "dimensions": given or 8}
    elif given is not None:
        settings["dimensions"] = exchange.dimensions
    if card is not None and card.prompts:
        settings["prompts"] = {"document": "", "query": ""}  # where there were prompts, they are recorded in the texts
    return Model(name, **settings)


def _elsewhere(exchange: Exchange) -> dict[str, Any]:
    """Return the address of a server of OpenAI's protocol that is not the one of its provider's row."""
    server = exchange.server
    if server is None or server.protocol not in ("openai", "ollama"):
        return {"base_url": BEDROCK} if exchange.provider == "bedrock" else {}
    if exchange.host:
        base = exchange.uri.removesuffix("/embeddings").removesuffix("/api/embed")
        return {} if base == server.url else {"base_url": base}
    named = server.name != "openai" or "openai" in exchange.cassette
    return {} if named else {"base_url": "https://recorded.example/v1"}


def _behind_profile(exchange: Exchange) -> str:
    """Return the model behind the name of an inference profile; empty where the name is that of a model."""
    region, _, rest = exchange.model.partition(".")
    name = rest if region in ("us", "eu", "apac", "jp", "au", "ca", "global") else exchange.model
    if not name.startswith(("amazon.titan-embed", "amazon.nova", "cohere.embed")):
        fields = exchange.asked or {}
        return next((model for field, model in PROFILES.items() if field in fields), PROFILES["inputText"])
    return "" if name == exchange.model else name


def _rows(exchange: Exchange) -> list[Any]:
    """Return the vectors of an answer as they were written, wherever a provider has them."""
    answer = exchange.answer
    if "data" in answer:
        data = answer["data"]
        return [row["embedding"] for row in sorted(data, key=lambda row: row.get("index", 0))]
    if "predictions" in answer:
        return [row["embeddings"]["values"] for row in answer["predictions"]]
    if "embedding" in answer:
        found = answer["embedding"]
        return [found["values"] if isinstance(found, dict) else found]
    rows = answer["embeddings"]
    if isinstance(rows, dict):
        rows = rows[exchange.dtype.removesuffix("32")]
    return [row.get("values") or row["embedding"] if isinstance(row, dict) else row for row in rows]


def _numbers(row: str | list[float], numbers: str) -> Sequence[float]:
    """Return the numbers of one vector, from base64 of little-endian float32 or of bytes, or from a list."""
    if not isinstance(row, str):
        return row
    packed = base64.b64decode(row)
    kind, size = {"float32": ("f", 4), "int8": ("b", 1), "uint8": ("B", 1)}[numbers]
    return struct.unpack(f"<{len(packed) // size}{kind}", packed)


def _is_finite(exchange: Exchange) -> bool:
    """Return whether what is taken for floats can be: bytes of a server that sends these of its own are not."""
    rows = _rows(exchange) if exchange.dtype == "float32" else []
    return all(np.isfinite(_numbers(row, "float32")).all() for row in rows if isinstance(row, str))


# Replay


class _InMemory:
    """A persister that hands out interactions instead of reading a file, and never writes."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings

    def load_cassette(self, path: str, serializer: object) -> tuple[list[Request], list[dict[str, Any]]]:
        interactions = [recording.interaction() for recording in self._recordings]
        return [request for request, _ in interactions], [response for _, response in interactions]


@contextmanager
def replayed(*recordings: Recording, unplayed: int = 0) -> Iterator[Cassette]:
    """Serve recordings, each once, in their order among equal requests, to any SDK; open no socket.

    Requests are matched by method (its case does not matter), host, path, query, model and texts. At the end all but
    ``unplayed`` must have been asked for, and no key may be in what a cassette would have kept of the requests.
    """
    keys = {recording.model.api_key or "" for recording in recordings}
    sent: list[Request] = []
    kept: list[Request] = []

    def keep(request: Request) -> Request:
        sent.append(request)
        kept.append(cleaned(request))
        return kept[-1]

    player = vcr.VCR(record_mode=RecordMode.NONE, before_record_request=keep)
    player.register_persister(_InMemory(recordings))
    player.register_matcher("any case", method_in_any_case)
    player.register_matcher("any version", path_in_any_version)
    player.register_matcher("asks the same", _asks_the_same)
    compared = ["any case", "host", "any version", "query", "asks the same"]
    with player.use_cassette("recorded", match_on=compared) as cassette:
        yield cassette

        assert len(cassette) - cassette.play_count == unplayed, f"{cassette.play_count} of {len(cassette)} were played"
        assert any(holds_key(whole(request), keys) for request in sent), "no request carried the key"
        assert not [request for request in kept if holds_key(whole(request), keys)]


@contextmanager
def no_recorded_answer() -> Iterator[None]:
    """Expect that nothing recorded answers a request; the openai library before 3 takes that for a lost connection."""
    words = "Can't overwrite existing cassette|CannotOverwriteExistingCassetteException"
    with pytest.raises((CannotOverwriteExistingCassetteException, EmbedRouterError), match=words):
        yield


def method_in_any_case(one: Request, other: Request) -> None:
    """Compare methods as HTTP clients do: voyageai sends ``post`` when asynchronous."""
    assert one.method.upper() == other.method.upper(), f"{one.method} is not {other.method}"


def path_in_any_version(one: Request, other: Request) -> None:
    """Compare paths without the version of Google's and other interfaces."""
    paths = [VERSION.sub("/", request.path) for request in (one, other)]
    assert paths[0] == paths[1], f"{one.path} is not {other.path}"


def _asks_the_same(one: Request, other: Request) -> None:
    assert _question(one) == _question(other), f"{_question(one)} is not {_question(other)}"


def _question(request: Request) -> tuple[Any, Any]:
    asked = body_of(request)
    return model_in(request.uri, asked), texts_in(asked)


def body_of(request: Request) -> Any:
    """Return what a request asks for; vcrpy has a dictionary where aiohttp was given one."""
    body: Any = request.body
    return body if isinstance(body, Mapping) else json.loads(body)


def cleaned(request: Request) -> Request:
    """Return a request as a cassette may keep it: of its headers only the content type."""
    kept = {name.lower(): value for name, value in request.headers.items() if name.lower() == "content-type"}
    return Request(request.method.upper(), request.uri, request.body, kept)


def whole(request: Request) -> str:
    """Return everything of a request as text."""
    headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
    return f"{request.uri}\n{headers}\n{json.dumps(body_of(request))}"


def holds_key(text: str, keys: Iterable[str]) -> bool:
    """Say whether a key is in a text: as it is, quoted for an address, or as base64; in any case."""
    forms = [form for key in keys for form in (key, quote(key, safe=""), base64.b64encode(key.encode()).decode())]
    return any(form.lower() in text.lower() for form in forms)
