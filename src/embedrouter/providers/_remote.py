"""The way of a request to a provider, the same for all: build request, send, parse answer, translate error.

A backend writes each step once. ``send`` serves both forms: what a synchronous client returns is the response, what an
asynchronous one returns is awaited here. A server that does not take the format of numbers, or a number of dimensions
that only the user declares, is asked again at once without it, and from then on.

The timeout is for the whole exchange. The time limits of HTTP clients are those of single reads, so an asynchronous
request is cancelled when its time is up, and a synchronous one is made in a thread that is then left alone.
"""

import asyncio
import codecs
import json
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from .._process import importing, threads
from ..errors import BackendError, BadResponseError, OutOfThreadsError, RequestTimeoutError, UnavailableError
from ..models import Backend, Catalogue, Model, Server, custom_card
from ..types import Answer, Candidate, InputType, TokenCounts
from . import Description
from ._bounded import Allowance, allowance
from ._clients import Clients
from ._connections import SIGN_IN, explain, out_of_threads, path_of, place_of, url_of, was_sent
from ._environment import Address, Endpoint
from ._messages import read, words
from ._redaction import echoes_input, safe_to_chain
from ._responses import Asked, Refusal, base64_decoder, error_from_refusal, places_of, refusal_in_answer, shown_reason
from ._taken import ALL, Taken, dialect, reached

PROXY_SIGN_IN = 407
NO_SUCH_PATH = (404, 405)
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GRACE = 0.25
"""Seconds after the timeout in which an HTTP client may find by itself that the time is up: it knows what was sent."""
BYTES_PER_NUMBER = 32
"""Of JSON: a number of 17 digits with its sign, its exponent and a comma."""
BYTES_PER_TEXT = 1_000
"""Of what else an answer says of one text."""
BYTES_PER_LETTER = 6
"""Some answers repeat the texts; JSON may write a letter as ``\\u00e9``."""
HEADROOM = 2**22


class NoVectorsError(BadResponseError):
    """An answer without vectors, which may carry a reason: raised by ``parse_answer``, and replaced by ``chained``."""

    def __init__(self, body: object, headers: Mapping[str, str] | None) -> None:
        super().__init__("the answer holds no vectors. Check base_url.")
        self.body, self.headers = body, headers


def described(
    model: Model, catalogue: Catalogue, dimensions: int | None, *, server: Server | None = None, **known: Any
) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``.

    Args:
        server: the facts of the provider, where the catalogue has no row of it.
        known: other fields of the description.

    Raises:
        ConfigError: a setting is missing, or an address of the environment holds a secret.
    """
    server = server or catalogue.servers[model.provider]
    Endpoint(model, server).check_address_variables()
    card = catalogue.find(model.name)
    if card is None:
        facts = {"texts": server.texts, "tokens": server.tokens, "price": server.price}
        card = custom_card(model, dimensions, **facts, input_types=server.input_types)
    return Description(card, server, **{"cuts": server.cuts, **known})


class RemoteBackend(Backend):
    """Calls a provider through the clients of its SDK, or through those that the user passed in."""

    path = "/embeddings"
    """Under the provider's address."""
    authorities: ClassVar[str] = "SSL_CERT_FILE"
    """The variable that names a file of certificate authorities to the HTTP client."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        assert known.server is not None, "every provider of this package has a row"
        self.model, self.server, self.card = model, known.server, known.card
        self.endpoint = Endpoint(model, known.server)
        self.length, self.number = candidate.space.dimensions, candidate.number
        """Of the vectors: how many numbers, of which type."""
        wanted = candidate.dimensions != known.card.dimensions or known.card.declared
        self.dimensions = candidate.dimensions if wanted else None
        """Sent only where it is not the model's own number, because older models refuse it, or where the user says it.
        """
        self.clients: Clients[Any, Any] = Clients(
            partial(self._client, self.endpoint, False), partial(self._client, self.endpoint, True)
        )

    @property
    def address(self) -> Address | None:
        """The address to which requests go, where it is known."""
        return self.endpoint.address

    @classmethod
    def _client(cls, endpoint: Endpoint, asynchronous: bool) -> tuple[Any, Callable[[], Any] | None]:
        given = endpoint.model.async_client if asynchronous else endpoint.model.client
        with importing:  # SDKs import modules while they make a client
            base64_decoder()  # here, because pydantic looks for plugins in files, which no event loop may do
            return cls.connect(endpoint, asynchronous=asynchronous) if given is None else (given, None)

    @classmethod
    @abstractmethod
    def connect(cls, endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Callable[[], Any] | None]:
        """Make a client of the SDK, and return it with what closes it, if anything does.

        Raises:
            ConfigError: the package or a setting is missing; nothing was made.
        """

    def prompted(self, texts: Sequence[str], input_type: InputType) -> list[str]:
        """Return the texts with the prompt before each: the user's, else the one that the maker documents."""
        prompts = self.card.prompts if self.model.prompts is None else self.model.prompts
        prompt = (prompts or {}).get(input_type, "")
        return [prompt + text for text in texts]

    @abstractmethod
    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        """Return the arguments of the SDK's method, without what the server does not take."""

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

    @property
    def words(self) -> Mapping[str, str]:
        """The server's words for ``document`` and ``query``."""
        return self.card.input_types or self.server.input_types or {}

    def format(self, taken: Taken | None) -> str:
        """Return the format of numbers to ask for."""
        return self.model.encoding_format or self.server.formats[(taken or self.taken).refused_formats]

    @property
    def encoding_format(self) -> str:
        """The format of numbers of the next request."""
        return self.output_dtype or self.format(None)

    @property
    def output_dtype(self) -> str | None:
        """The server's word for the numbers to ask for; ``None`` for floats."""
        return self.server.dtypes[self.model.output_dtype] if self.model.output_dtype else None

    def number_of_dimensions(self, taken: Taken | None) -> int | None:
        """Return the number of dimensions to ask for; ``None`` for the model's own."""
        return self.dimensions if (taken or self.taken).dimensions else None

    @property
    def taken(self) -> Taken:
        """What the server is known to take."""
        return dialect.get(self._server, ALL)

    @property
    def _server(self) -> tuple[str, ...]:
        return self.model.name, self.model.deployment or "", self.endpoint.url

    def _without(self, fields: frozenset[str], taken: Taken, input_type: InputType) -> Taken | None:
        """Return what to try next where a server refuses fields; ``None`` where the user decides, or nothing is left.

        A catalogued model is not asked without its dimensions: vectors of another length would come.
        """
        fields -= set(self.model.body(input_type))
        formats, dimensions = taken.refused_formats, taken.dimensions
        last = len(self.server.formats) - 1
        if "encoding_format" in fields and self.model.encoding_format is None and formats < last:
            formats += 1
        if "dimensions" in fields and self.card.declared:
            dimensions = False
        following = Taken(formats, dimensions)
        return None if following == taken else following

    def chained(self, error: Exception, texts: Sequence[str]) -> Exception:
        """Translate an error, and make it the cause of ours unless a traceback would then print a text or a key.

        Raise the result outside of the ``except`` clause: inside, Python would attach the SDK's error as the context.
        """
        return self._as_ours(error, self._translated(error), texts)

    def _translated(self, error: Exception) -> Exception | Refusal:
        if out_of_threads(error):  # of an event loop that looks up an address
            return UnavailableError(
                "the system started no thread. End threads or programs, or raise the limit: ulimit -u.",
                model=self.model.name,
            )
        ours = next((ours for ours in (error, error.__cause__) if isinstance(ours, BackendError)), None)
        found = ours or self.translate_error(error)  # ours of the HTTP client, or of the answer
        if isinstance(found, NoVectorsError):
            return refusal_in_answer(found.body, found.headers) or found
        return found

    def _as_ours(self, error: Exception, found: Exception | Refusal, texts: Sequence[str]) -> Exception:
        keys = [*self.endpoint.secrets, *self.sent_keys(error)]
        if isinstance(found, NoVectorsError):
            is_page = isinstance(found.body, bytes) and found.body.lstrip()[:1] == b"<" and self._place not in reached
            return self.not_an_answer(shown_reason(found.body, texts, keys), is_page=is_page)
        if isinstance(found, BackendError) and found in (error, error.__cause__):
            return found
        if isinstance(found, Refusal) and found.status == PROXY_SIGN_IN:  # of a proxy that forwards http://
            found = UnavailableError(
                f"HTTP {found.status}: the proxy asks for a user and a password. {SIGN_IN}",
                model=self.model.name,
                status=found.status,
                retryable=False,
            )
        if isinstance(found, Refusal):
            if found.status not in NO_SUCH_PATH:
                reached.add(self._place)
            elif self.path == "/embeddings" and not read(words(found.body)).unknown_model:
                found = replace(found, advice=found.advice or self.endpoint.correction)
            place = path_of(url_of(error) or self._endpoint)
            asked = Asked(self.model.name, texts, keys, place, self.endpoint.key_origin)
            found = error_from_refusal(found, asked)
        if found is not error:
            found.__cause__ = error if safe_to_chain(error, texts, keys) else None
        return found

    def in_order(self, rows: Any) -> list[Any]:
        """Return the embeddings of rows in the order of their ``index``, otherwise in the order in which they came.

        Raises:
            BadResponseError: an index is repeated or skipped.
            KeyError, TypeError, AttributeError: these are no such rows.
        """
        rows = [{} if row is None else row for row in rows]
        if rows and not any("embedding" in row for row in rows):
            raise KeyError("embedding")
        embeddings = [row.get("embedding") for row in rows]
        places = places_of([row.get("index") for row in rows])
        if sorted(places) != list(range(len(embeddings))):
            raise BadResponseError("the answer repeats or skips an index", model=self.model.name)
        return [embedding for _, embedding in sorted(zip(places, embeddings, strict=True), key=lambda pair: pair[0])]

    def parsed(self, content: bytes, headers: Mapping[str, str]) -> Any:
        """Return the parsed JSON of an answer, three times as fast as ``json.loads``, which knows byte order marks.

        Raises:
            NoVectorsError: the content is none.
        """
        from pydantic_core import from_json

        try:
            return json.loads(content) if content.startswith(BYTE_ORDER_MARKS) else from_json(content)
        except ValueError as error:
            broken = content.lstrip()[:1] in (b"{", b"[") or b'"embedding"' in content  # no message shows vectors
            kind = "broken JSON" if broken else "no text, perhaps compressed," if min(content, default=9) < 9 else ""
            raise NoVectorsError(f"({kind} of {len(content)} bytes)" if kind else content, headers) from error

    def not_an_answer(self, reason: str = "", *, is_page: bool = False) -> BadResponseError:
        """Return the error for an answer of another form; a web page of a server that never answered comes again."""
        place = path_of(self._endpoint)
        says = f" It says: {reason}" if reason else ""
        return BadResponseError(
            f"the answer of {place} is not an embeddings response.{says} Check base_url.",
            model=self.model.name,
            retryable=False if is_page else None,
        )

    def no_answer_in_time(self, error: Exception) -> RequestTimeoutError:
        """Return the error for a request whose time ran out."""
        sent, called = was_sent(error), self._called(error)
        failure = explain(error, called, self.authorities)
        story = f"no answer in time ({place_of(called)})" + ("" if sent else f": {failure.reason}. {failure.advice}")
        return RequestTimeoutError(story, model=self.model.name, perhaps_billed=sent)

    def connection_failed(self, error: Exception, reason: BaseException | None = None) -> UnavailableError:
        """Return the error for a failure of the network: the host, the reason, and what to do."""
        called = self._called(error)
        failure = explain(reason or error, called, self.authorities, reached=self._place in reached)
        sent = was_sent(error)
        unavailable = UnavailableError(
            f"the connection failed ({place_of(called)}): {failure.reason}. {failure.advice}",
            model=self.model.name,
            retryable=not failure.permanent,
            perhaps_billed=sent,
        )
        unavailable.unreached = not sent and self._place not in reached
        return unavailable

    @property
    def _place(self) -> tuple[str, str]:
        return self.model.provider, self.endpoint.url

    def _called(self, error: Exception) -> str:
        return url_of(error) or (self.address.url if self.address else "")

    @property
    def _endpoint(self) -> str:
        """The address of the embeddings; an empty string where only a client of the user's has it."""
        return f"{self.address.url.rstrip('/')}{self.path}" if self.address else ""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        taken: Taken | None = self.taken
        failure: Exception | None = None
        with self.clients.lease() as client, self._allowed(texts, timeout) as until:
            while taken is not None:
                request = self.build_request(texts, input_type, taken)
                try:
                    return self._understood(taken, self._in_time(client, request, until - time.monotonic()))
                except Exception as error:  # noqa: BLE001 - raised below
                    taken, failure = self._failed(error, texts, input_type, taken)
        assert failure is not None
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        taken: Taken | None = self.taken
        failure: Exception | None = None
        async with self.clients.alease() as client:
            with self._allowed(texts, timeout) as until:
                while taken is not None:
                    request = self.build_request(texts, input_type, taken)
                    left = until - time.monotonic()
                    try:
                        async with asyncio.timeout(left + GRACE):
                            response = await self.send(client, request, max(left, GRACE))
                        return self._understood(taken, response)
                    except Exception as error:  # noqa: BLE001 - raised below
                        taken, failure = self._failed(error, texts, input_type, taken)
        assert failure is not None
        raise failure

    def _in_time(self, client: Any, request: dict[str, Any], left: float) -> Any:
        """Make the request in a thread, for as long as there is time."""
        left = max(left, GRACE)
        try:
            answer = threads.submit(self.send, client, request, left)
        except OutOfThreadsError:
            return self.send(client, request, left)
        try:
            if wait([answer], left + GRACE).not_done:
                raise TimeoutError
            return answer.result()
        finally:
            del answer  # refers to an error, which refers to this frame

    def _understood(self, taken: Taken, response: Any) -> Answer:
        answer = self.parse_answer(response)
        reached.add(self._place)
        if taken != self.taken:
            dialect[self._server] = taken
        return answer

    def _failed(
        self, error: Exception, texts: Sequence[str], input_type: InputType, taken: Taken
    ) -> tuple[Taken | None, Exception | None]:
        """Return what to try next; otherwise the error to raise."""
        found = self.no_answer_in_time(error) if type(error) is TimeoutError else self._translated(error)
        if isinstance(found, Refusal) and not echoes_input(words(found.body), texts):
            following = self._without(found.fields, taken, input_type)
            if following is not None:
                return following, None
        return None, self._as_ours(error, found, texts)

    @contextmanager
    def _allowed(self, texts: Sequence[str], timeout: float) -> Iterator[float]:
        """Limit the size and the time of the answers that the block asks for; give the time at which they must end."""
        until = time.monotonic() + timeout
        size = len(texts) * (self.length * BYTES_PER_NUMBER + BYTES_PER_TEXT)
        size += BYTES_PER_LETTER * sum(map(len, texts)) + HEADROOM
        before = allowance.set(Allowance(self.model.name, len(texts), self.length, size, until))
        try:
            yield until
        finally:
            allowance.reset(before)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        return super().count(self.prompted(texts, input_type), input_type)

    def close(self) -> None:
        self.clients.close()

    async def aclose(self) -> None:
        await self.clients.aclose()
