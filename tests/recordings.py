"""Recorded traffic of embeddings providers, read for replay through our backends.

The recordings are vcrpy cassettes (version 1) of other public projects, made against the real services. They lie beside
this checkout and are no part of it. An ``Exchange`` is one request and its response; ``fate`` says what can be done
with it, by rules that each have a reason; ``Recording`` turns it into what a replay needs: the model to declare, the
texts to send, the vectors and tokens to expect. What is expected is read from the file by code of its own here, not by
the backends' code.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
import vcr
import yaml
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.record_mode import RecordMode
from vcr.request import Request

from embedrouter.errors import EmbedRouterError
from embedrouter.models import Model, load_catalogue, resolve
from embedrouter.providers import Backend, create, describe
from embedrouter.types import InputType, Vectors

FOLDER = Path(__file__).parents[1].parent / "shared" / "cassettes"
KEY = "sk-replayed-0123456789abcdef"
STAND_IN = "a text that stands in for what was recorded"

HOSTS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure_openai",
    "services.ai.azure.com": "azure_openai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.voyageai.com": "voyage",
}
"""Whose host it is, by the host's ending."""

ENDPOINTS = {
    "openai": "https://api.openai.com/v1/embeddings",
    "azure_openai": (
        "https://recorded.openai.azure.com/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21"
    ),
    "cohere": "https://api.cohere.com/v2/embed",
    "voyage": "https://api.voyageai.com/v1/embeddings",
}
"""Where an error that was recorded at another endpoint of the provider is served instead."""

NATIVE = {"openai": "text-embedding-3-small", "cohere": "embed-v4.0", "voyage": "voyage-3.5"}

AZURE_NAMES = {"ada": "text-embedding-ada-002"}
"""What Azure calls a model in its answers, where that is not the model's name."""

DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/embeddings")
EMBEDDINGS = re.compile(r"/v1/embeddings|/v2/embed|/openai/v1/embeddings|/openai/deployments/[^/]+/embeddings")
PLACEHOLDER = re.compile(r"input \d+: .* removed \(\d+ characters\)")
QUOTED_KEY = re.compile(r"API key provided: ([\w-]+)\.")


class Fate(StrEnum):
    """What is done with an exchange; all but the first two are reasons to leave it out."""

    VECTORS = "replayed: vectors and tokens"
    ERROR = "replayed: error"
    ELSEWHERE = "left out: a success of another endpoint (chat, images, responses)"
    TOKEN_IDS = "left out: the input is token ids, our backends send text"
    COHERE_V1 = "left out: a success of Cohere's v1 interface, ours is v2"
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
    def provider(self) -> str:
        """Whose server answered.

        Raises:
            ValueError: the host belongs to no known provider, so that a new recording cannot be passed over.
        """
        for ending, provider in HOSTS.items():
            if self.host == ending or self.host.endswith(f".{ending}"):
                return provider
        raise ValueError(f"{self}: no provider is known at {self.host}")

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
        asked = self.asked or {}
        value = asked.get("texts", asked.get("input"))
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return value
        return None

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
        tokens: int | None
        match self.provider:
            case "cohere":
                tokens = answer.get("meta", {}).get("billed_units", {}).get("input_tokens")
            case "voyage":
                tokens = answer["usage"]["total_tokens"]
            case _:
                tokens = answer["usage"]["prompt_tokens"]
        return tokens

    @property
    def dtype(self) -> str:
        """The numbers that were asked for, in our words; "float32" where the request says nothing else."""
        name, *_ = (self.asked or {}).get("embedding_types") or ["float"]
        return "float32" if name == "float" else str(name)

    def header(self, name: str) -> Sequence[str]:
        return next((value for key, value in self.headers.items() if key.lower() == name), ())

    @property
    def fate(self) -> Fate:
        """Decide what is done with it. The order matters: the first rule that applies decides."""
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
        return Fate.VECTORS


@cache
def exchanges() -> tuple[Exchange, ...]:
    """Return every recorded exchange, in the order of the files; none where the recordings are absent."""
    return tuple(exchange for file in sorted(FOLDER.rglob("*.yaml")) for exchange in _read(file))


def _read(file: Path) -> Iterator[Exchange]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(file.read_text("utf-8"), Loader=loader)
    for place, interaction in enumerate(content["interactions"]):
        body = interaction["response"]["body"].get("string") or b""
        yield Exchange(
            cassette=file.relative_to(FOLDER).as_posix(),
            place=place,
            uri=interaction["request"]["uri"],
            asked=_object(interaction["request"]["body"]),
            status=interaction["response"]["status"]["code"],
            headers=interaction["response"]["headers"],
            content=body.encode() if isinstance(body, str) else body,
        )


def _object(body: str | bytes | None) -> Mapping[str, Any] | None:
    try:
        decoded = json.loads(body or b"")
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None


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
        told = (self.exchange.asked or {}).get("input_type") or ""
        return "query" if told in ("query", "search_query") else "document"

    @property
    def tokens(self) -> int:
        """What the provider says it billed."""
        billed = self.exchange.billed
        assert billed is not None, f"{self.exchange} says nothing of tokens"
        return billed

    @property
    def vectors(self) -> Vectors:
        """The recorded vectors, in the order of the texts."""
        return np.array([_numbers(row) for row in _rows(self.exchange)], self.exchange.dtype)

    def interaction(self) -> tuple[Request, dict[str, Any]]:
        """Return what vcrpy keeps of it, under its new address and with only that of the body which is compared."""
        name = "texts" if self.exchange.provider == "cohere" else "input"
        body = json.dumps({"model": self.model.deployment or self.model.id, name: list(self.texts)})
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
    dimensions = len(_numbers(rows[0]))
    texts = exchange.texts or [f"{STAND_IN}, {place}" for place in range(len(rows))]
    return Recording(exchange, _model(exchange, dimensions), texts, exchange.uri)


def question(exchange: Exchange) -> Recording:
    """Return the recorded texts and the model that was asked, with any answer; not for replay."""
    assert exchange.texts is not None, f"{exchange} does not say its texts"
    return Recording(exchange, _model(exchange, None), exchange.texts, exchange.uri)


def failure(exchange: Exchange, *, key: str = KEY) -> Recording:
    """Return a recorded error, served at an embeddings endpoint.

    What provoked it need not be something our backends can send: the recorded answer comes to every request.
    """
    texts = exchange.texts if exchange.embeds else None
    if exchange.embeds:
        return Recording(exchange, replace(_model(exchange, None), api_key=key), texts or [STAND_IN], exchange.uri)
    provider = exchange.provider
    served = replace(exchange, uri=ENDPOINTS[provider], asked={"model": NATIVE.get(provider, "")})
    return Recording(exchange, replace(_model(served, None), api_key=key), [STAND_IN], served.uri)


def _model(exchange: Exchange, given: int | None) -> Model:
    """Declare the model that was asked; ``given`` dimensions came, ``None`` where no vector did."""
    asked = exchange.asked or {}
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
        name = f"openai:{asked['model']}"
    else:
        name = f"{exchange.provider}:{asked.get('model') or exchange.answer.get('model') or NATIVE[exchange.provider]}"
    if name not in load_catalogue():
        settings |= {"space": name.partition(":")[2], "dimensions": given or 8}
    elif given is not None:
        settings["dimensions"] = asked.get("dimensions") or asked.get("output_dimension")
    return Model(name, **settings)


def _rows(exchange: Exchange) -> list[Any]:
    answer = exchange.answer
    if exchange.provider == "cohere":
        rows: list[Any] = answer["embeddings"][exchange.dtype.removesuffix("32")]
        return rows
    return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]


def _numbers(row: str | list[float]) -> Sequence[float]:
    """Return the numbers of one vector, from base64 of little-endian float32 or from a list."""
    if isinstance(row, str):
        packed = base64.b64decode(row)
        return struct.unpack(f"<{len(packed) // 4}f", packed)
    return row


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
    player.register_matcher("asks the same", _asks_the_same)
    with player.use_cassette("recorded", match_on=["any case", "host", "path", "query", "asks the same"]) as cassette:
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


def _asks_the_same(one: Request, other: Request) -> None:
    assert _question(one) == _question(other), f"{_question(one)} is not {_question(other)}"


def _question(request: Request) -> tuple[Any, Any]:
    asked = body_of(request)
    return asked["model"], asked.get("texts", asked.get("input"))


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
    return f"{request.uri}\n{dict(request.headers)}\n{json.dumps(body_of(request))}"


def holds_key(text: str, keys: Iterable[str]) -> bool:
    """Say whether a key is in a text: as it is, quoted for an address, or as base64; in any case."""
    forms = [form for key in keys for form in (key, quote(key, safe=""), base64.b64encode(key.encode()).decode())]
    return any(form.lower() in text.lower() for form in forms)
