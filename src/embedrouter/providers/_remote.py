"""The way of a request to a provider, the same for all: build request, send, parse answer, translate error.

A backend writes each step once. ``send`` serves both forms: what a synchronous client returns is the response, what an
asynchronous one returns is awaited here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import BackendError, BadResponseError, RequestTimeoutError, UnavailableError
from ..models import Backend, Model
from ..types import Answer, Candidate, InputType
from . import Description
from ._clients import Clients
from ._connections import SIGN_IN, explain, place_of, url_of, was_sent
from ._environment import Address, address, secrets, url
from ._redaction import safe_to_chain
from ._responses import Refusal, error_from_refusal

PROXY_SIGN_IN = 407


class RemoteBackend(Backend):
    """Calls a provider through the clients of its SDK, or through those that the user passed in."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self.model = model
        self.card = known.card
        wanted = candidate.space.dimensions
        self.dimensions = wanted if wanted != known.card.dimensions else None
        """Sent only where it is not the model's own number, because older models refuse it."""
        self.clients: Clients[Any, Any] = Clients(
            partial(self._client, model, False), partial(self._client, model, True)
        )

    @property
    def address(self) -> Address | None:
        """The address to which requests go, where it is known."""
        return address(self.model)

    @classmethod
    def _client(cls, model: Model, asynchronous: bool) -> tuple[Any, Callable[[], Any] | None]:
        given = model.async_client if asynchronous else model.client
        return cls.connect(model, asynchronous=asynchronous) if given is None else (given, None)

    @staticmethod
    @abstractmethod
    def connect(model: Model, *, asynchronous: bool) -> tuple[Any, Callable[[], Any] | None]:
        """Make a client of the SDK, and return it with what closes it, if anything does.

        Raises:
            ConfigError: the package or a setting is missing; nothing was made.
        """

    def prompted(self, texts: Sequence[str], input_type: InputType) -> list[str]:
        """Return the texts with the user's prompt before each."""
        prompt = (self.model.prompts or {}).get(input_type, "")
        return [prompt + text for text in texts]

    @abstractmethod
    def build_request(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]:
        """Return the arguments of the SDK's method."""

    @abstractmethod
    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        """Make the request; return the response, or an awaitable of it where the client is asynchronous."""

    @abstractmethod
    def parse_answer(self, response: Any) -> Answer:
        """Return the vectors of a response.

        Raises:
            BadResponseError: the response is not the one that was asked for.
        """

    @abstractmethod
    def translate_error(self, error: Exception) -> Exception | Refusal:
        """Return our error for one of the SDK's or of the library below, or ``error`` itself for any other."""

    def sent_keys(self, error: Exception) -> list[str]:
        """Return the keys that were sent with a request, besides those of the model."""
        return []

    def chained(self, error: Exception, texts: Sequence[str]) -> Exception:
        """Translate an error, and make it the cause of ours unless a traceback would then print a text or a key.

        Raise the result outside of the ``except`` clause: inside, Python would attach the SDK's error as the context.
        """
        for ours in (error, error.__cause__):
            if isinstance(ours, BackendError):  # of a hook of the HTTP client
                return ours
        keys = [*secrets(self.model), *self.sent_keys(error)]
        found = self.translate_error(error)
        if isinstance(found, Refusal) and found.status == PROXY_SIGN_IN:  # of a proxy that forwards http://
            found = UnavailableError(
                f"HTTP {found.status}: the proxy asks for a user and a password. {SIGN_IN}",
                model=self.model.name,
                status=found.status,
                retryable=False,
            )
        ours = error_from_refusal(found, self.model.name, texts, keys) if isinstance(found, Refusal) else found
        if ours is not error:
            ours.__cause__ = error if safe_to_chain(error, texts, keys) else None
        return ours

    def in_order(self, rows: Any) -> list[Any]:
        """Return the embeddings of rows in the order of their ``index``.

        Raises:
            BadResponseError: an index is repeated or left out.
            KeyError, TypeError, AttributeError: these are no such rows.
        """
        rows = sorted(rows, key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(len(rows))):
            raise BadResponseError("the answer repeats or skips an index", model=self.model.name)
        return [row["embedding"] for row in rows]

    def not_an_answer(self) -> BadResponseError:
        """Return the error for an answer of another form."""
        return BadResponseError("the answer is not an embeddings response", model=self.model.name)

    def no_answer_in_time(self, error: Exception) -> RequestTimeoutError:
        """Return the error for a request whose time ran out."""
        sent, called = was_sent(error), self._called(error)
        failure = explain(error, called)
        story = f"no answer in time ({place_of(called)})" + ("" if sent else f": {failure.reason}. {failure.advice}")
        return RequestTimeoutError(story, model=self.model.name, perhaps_billed=sent)

    def connection_failed(self, error: Exception, reason: BaseException | None = None) -> UnavailableError:
        """Return the error for a failure of the network: the host, the reason, and what to do."""
        called = self._called(error)
        failure = explain(reason or error, called)
        return UnavailableError(
            f"the connection failed ({place_of(called)}): {failure.reason}. {failure.advice}",
            model=self.model.name,
            retryable=not failure.permanent,
            perhaps_billed=was_sent(error),
        )

    def _called(self, error: Exception) -> str:
        return url_of(error) or url(self.model)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self.build_request(texts, input_type)
        with self.clients.lease() as client:
            try:
                response = self.send(client, request, timeout)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = self.chained(error, texts)
            else:
                return self.parse_answer(response)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self.build_request(texts, input_type)
        async with self.clients.alease() as client:
            try:
                response = await self.send(client, request, timeout)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = self.chained(error, texts)
            else:
                return self.parse_answer(response)
        raise failure

    def close(self) -> None:
        self.clients.close()

    async def aclose(self) -> None:
        await self.clients.aclose()
