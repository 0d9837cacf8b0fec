"""The nouns of one exchange, from the bytes that arrive to the bytes that leave.

`Request` is what came over the socket; `Received` is what a test may look at afterwards (no secrets); `Job` is a
request that passed every check; `Answer` is a job with its vectors, which a fault may still spoil; `Reply` is bytes.
A provider turns each into the next and raises `Refusal` when the maker would have said no. All are frozen, so a
handler thread can pass them on without a lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from tests.emulator.models import Model, ProviderName
from tests.emulator.vectors import Vector

EndpointName = Literal["embeddings", "files", "batches"]

_SECRETS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are lower-case, and `path` has lost its provider prefix."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    raw_path: str = ""
    """The path as it was sent, percent-encoded and with its provider prefix."""

    @property
    def key(self) -> str | None:
        """The credential, from the bearer token or Azure's `api-key` header; None when there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        return bearer or self.headers.get("api-key", "").strip() or None

    @property
    def public_headers(self) -> Mapping[str, str]:
        """The headers without those that carry credentials."""
        return MappingProxyType({name: value for name, value in self.headers.items() if name not in _SECRETS})

    def fields(self) -> dict[str, Any] | None:
        """Return the JSON object in the body, or None when it holds no such thing."""
        if self.headers.get("content-type", "").startswith("multipart/"):
            return None  # an upload may have 200 MB
        try:
            decoded = json.loads(self.body)
        except ValueError:
            return None
        return decoded if isinstance(decoded, dict) else None


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived, accepted or not."""

    provider: ProviderName
    model: str | None
    """The model asked for; for Azure the model behind the deployment when it is known."""
    texts: tuple[str, ...]
    input_type: str | None
    dimensions: int | None
    headers: Mapping[str, str]
    at: float
    """When it arrived, on the monotonic clock."""
    in_flight: int
    """How many requests were being answered at that moment, this one included."""
    deployment: str | None = None
    """Azure only: the deployment named in the URL."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The decoded JSON body, for everything the other attributes do not name."""
    endpoint: EndpointName = "embeddings"
    """What was asked for: vectors, or something of the Batch API."""
    method: str = "POST"
    path: str = ""
    """The path without the emulator's prefix, such as `/v1/batches/batch_…/cancel`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request the emulator itself turned down because the maker would have; faults are not refusals."""

    received: Received
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """A request that passed every check, ready to be computed and billed."""

    model: Model
    texts: tuple[str, ...]
    """What is embedded: after truncation, where the maker truncates."""
    inputs: tuple[str, ...]
    """What was sent."""
    input_type: str | None
    dimensions: int
    tokens: int
    formats: tuple[str, ...]
    dtype: str = "float"


@dataclass(frozen=True, slots=True)
class Answer:
    """A computed job: one vector for each place in `order`, and the tokens that usage will report (None: no usage)."""

    job: Job
    vectors: tuple[Vector, ...]
    order: tuple[int, ...]
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response without the framing headers, which the server adds."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    pieces: Iterable[bytes] | None = None
    """In place of `body`, what is too big to be held: made while it is sent, in chunks."""


class Refusal(Exception):
    """The maker would have refused this request with `reply`."""

    def __init__(self, reply: Reply, message: str) -> None:
        super().__init__(message)
        self.reply = reply
        self.message = message


@dataclass(frozen=True, slots=True)
class Sketch:
    """What can be read from a request without checking it."""

    model: str | None
    texts: tuple[str, ...]
    input_type: str | None
    dimensions: int | None
    deployment: str | None = None
    endpoint: EndpointName = "embeddings"


class Provider(Protocol):
    """One maker's endpoint. The methods are pure, apart from the request ids that they invent."""

    name: ProviderName

    def serves(self, path: str) -> bool:
        """Say whether `path` is this maker's embeddings endpoint."""
        ...

    def sketch(self, request: Request) -> Sketch:
        """Read what the request is about, however wrong it may be."""
        ...

    def accept(self, request: Request) -> Job:
        """Check the request as the maker does; raise `Refusal`."""
        ...

    def render(self, answer: Answer) -> Reply:
        """Write the maker's 200."""
        ...

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        """Write the maker's error for `status`, in the maker's shape and words."""
        ...


def texts_in(value: object) -> tuple[str, ...]:
    """Return the strings in a field that may hold one string, a list of them, or rubbish."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def as_text(value: object) -> str | None:
    """Return `value` when it is a string."""
    return value if isinstance(value, str) else None


def as_count(value: object) -> int | None:
    """Return `value` when it is an integer; JSON's true and false are not."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
