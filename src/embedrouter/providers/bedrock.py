"""Amazon Bedrock, through boto3: ``InvokeModel`` of ``bedrock-runtime``.

Each maker's models have bodies of their own: Titan and Nova take one text in a request, Cohere's models 96. Texts are
never cut: Cohere's models and Nova are told so, Titan has no such setting and refuses a text that is too long. Numbers
come as lists; no model on Bedrock writes float32 as base64.

Credentials are boto3's own: the environment, profiles, roles, single sign-on. A Bedrock API key (``api_key=``,
``api_key_env=``, AWS_BEARER_TOKEN_BEDROCK) is sent in place of a signature, in the header that AWS documents. The
region is the one in the address, else AWS_REGION, else what boto3 finds: AWS_DEFAULT_REGION, the profile.

boto3 has no asynchronous client: the asynchronous form makes the synchronous request in a thread of the package's own.
The SDK's retries are off in the client that is made here; a client of the user's keeps its own retries and time limits.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._display import shown_name
from .._process import in_thread
from ..errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    ConfigError,
    InputRejectedError,
    UnavailableError,
)
from ..models import Catalogue, Model, custom_card, implausible_count, parse_token_count
from ..types import Answer, Candidate, InputType, TokenCounts
from . import Description, needs_extra
from ._aws import keys_in, refusal, without_client, without_credentials
from ._bounded import allowance
from ._clients import check_clients
from ._environment import Address, Endpoint
from ._remote import NoVectorsError, RemoteBackend
from ._responses import MAX_DIGITS, Refusal, decode_vectors, failed_to_parse
from ._taken import Taken

SERVICE = "bedrock-runtime"
REGION_IN_HOST = re.compile(r"//(?:[\w-]+\.)?bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
ANY_REGION = "us-east-1"
"""For requests with an API key to an address of the user's: boto3 wants a region, and nothing depends on it."""
CONNECTIONS = 64
"""Connections that are kept open, where the user declares no ``max_concurrency``."""
PIECE = 2**16
"""Bytes of an answer that are read at once."""
BILLED = "x-amzn-bedrock-input-token-count"
"""The header with the billed tokens."""

# What each maker's models take and answer


@dataclass(frozen=True, slots=True)
class Family:
    """The models of one maker with the same bodies.

    Attributes:
        build: returns the body of a request for texts, the word for their input type, and dimensions.
        read: returns the embeddings in the body of an answer.
        query_tokens: what is billed for each query besides its text.
    """

    texts: int
    input_types: Mapping[str, str] | None
    build: Callable[[list[str], str, int | None], dict[str, Any]]
    read: Callable[[Any], list[Any]]
    query_tokens: int = 0


def _titan_request(texts: list[str], word: str, dimensions: int | None) -> dict[str, Any]:
    return {"inputText": texts[0], **_unless_none(dimensions=dimensions)}


def _cohere_request(texts: list[str], word: str, dimensions: int | None) -> dict[str, Any]:
    return {"texts": texts, "input_type": word, "truncate": "NONE", **_unless_none(output_dimension=dimensions)}


def _nova_request(texts: list[str], word: str, dimensions: int | None) -> dict[str, Any]:
    text = {"truncationMode": "NONE", "value": texts[0]}
    parameters = {"embeddingPurpose": word, "text": text, **_unless_none(embeddingDimension=dimensions)}
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": parameters}


def _unless_none(**field: int | None) -> dict[str, int]:
    return {name: value for name, value in field.items() if value is not None}


def _cohere_embeddings(body: Any) -> list[Any]:
    """Return a list, or the one of embeddings by type, which is how models from v4 on answer."""
    found = body["embeddings"]
    embeddings: list[Any] = found["float"] if isinstance(found, Mapping) else found
    return embeddings


def _nova_embeddings(body: Any) -> list[Any]:
    rows = body["embeddings"]
    if cut := next((row["truncatedCharLength"] for row in rows if "truncatedCharLength" in row), None):
        raise InputRejectedError(f"the model embedded only {cut} characters of a text", too_long=True)
    return [row["embedding"] for row in rows]


FAMILIES = {
    "amazon.titan-embed": Family(1, None, _titan_request, lambda body: [body["embedding"]]),
    "amazon.nova": Family(
        1,
        {"document": "GENERIC_INDEX", "query": "TEXT_RETRIEVAL"},
        _nova_request,
        _nova_embeddings,
        query_tokens=17,  # of "Test Nova settings" 22 were billed
    ),
    "cohere.embed": Family(
        96, {"document": "search_document", "query": "search_query"}, _cohere_request, _cohere_embeddings
    ),
}
"""By the beginning of the models' names."""


def _family(name: str) -> Family | None:
    return next((family for beginning, family in FAMILIES.items() if name.startswith(beginning)), None)


# The provider


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``.

    Raises:
        ConfigError: the name is that of an inference profile, the model is of another maker, or a setting cannot be.
    """
    base = model.id.partition(".")[2]
    if model.id.startswith("arn:") or (_family(model.id) is None and _family(base)):
        named = base if _family(base) else "amazon.titan-embed-text-v2:0"
        raise ConfigError(
            f"{model.name} is the name of an inference profile or another resource. Declare the model and give that "
            f"name as deployment=: Model('bedrock:{named}', deployment={shown_name(model.id)})."
        )
    if model.async_client is not None:
        raise ConfigError(
            f"{model.name}: async_client= cannot be used, because boto3 has no asynchronous client. Pass client=, "
            "which serves both forms."
        )
    kind = f"boto3 client of {SERVICE!r}"
    check_clients(model, kind, kind, _invoke_method)
    if model.client is not None and model.headers:
        raise ConfigError(f"{model.name}: headers= cannot be added to a client of yours. Register them there.")
    Endpoint(model, catalogue.servers[model.provider]).check_address_variables()
    card, family = catalogue.find(model.name), _family(model.id)
    if family is None:
        raise ConfigError(
            f"{model.name}: on Bedrock each maker's models have bodies of their own, and those of this name are "
            f"unknown. Known are models whose names begin with {', '.join(FAMILIES)}; for any other pass backend=."
        )
    facts: dict[str, Any] = {"texts": family.texts, "input_types": family.input_types}
    return Description(card or custom_card(model, dimensions, **facts))


class BedrockBackend(RemoteBackend):
    """Calls ``InvokeModel`` through boto3."""

    authorities = "AWS_CA_BUNDLE"

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        super().__init__(model, known, candidate)
        family = _family(model.id)
        assert family is not None, "describe refuses other models"
        self.family = family
        self.path = f"/model/{quote(model.deployment or model.id, safe='')}/invoke"
        self.called = ""
        """The address of the client that made the last request."""

    @property
    def address(self) -> Address | None:
        """The address of the declaration or the environment, else the one that boto3 has chosen, or will choose."""
        if (found := self.endpoint.address) is not None:
            return found
        called = self.called if self.model.client is None else self.model.client.meta.endpoint_url
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not called and region:
            called = f"https://{SERVICE}.{region}.amazonaws.com"
        return Address(called) if called else None

    @staticmethod
    def connect(endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Callable[[], Any] | None]:
        """Make a client, in a session of its own: boto3's default session is not for several threads.

        Looking for credentials may read files, run a program and ask the machine's metadata service.
        """
        model, key = endpoint.model, endpoint.api_key
        if model.api_key_env == "":
            raise AuthenticationError(
                f"No credentials for {model.name}: copies for other processes hold neither a key nor a client, and may "
                "not use those of the environment. Name the variable of the key, Model(…, api_key_env=…), or build the "
                "router in the process that embeds.",
                model=model.name,
            )
        for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            if (named := os.environ.get(variable)) and not Path(named).exists():
                raise ConfigError(f"The certificate authorities of {variable}={shown_name(named)} do not exist.")
        with needs_extra(model, "bedrock"):
            import boto3.session
            from botocore import UNSIGNED
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, NoCredentialsError
        settings: dict[str, Any] = {
            "connect_timeout": model.timeout,
            "read_timeout": model.timeout,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": model.max_concurrency or CONNECTIONS,
        }
        if key:
            settings["signature_version"] = UNSIGNED
        found = REGION_IN_HOST.search(endpoint.url)
        region = found[1] if found else os.environ.get("AWS_REGION") or None
        failure: Exception | None = None
        try:
            session = boto3.session.Session(region_name=region)
            if endpoint.url and key and session.region_name is None:
                region = ANY_REGION
            if not (key or session.get_credentials()):
                raise NoCredentialsError
            client = session.client(
                SERVICE, region_name=region, endpoint_url=endpoint.url or None, config=Config(**settings)
            )
        except (BotoCoreError, ValueError) as error:  # their messages may repeat what a program for credentials says
            failure = without_client(model, error)
        if failure is not None:
            raise failure
        given = {**({"Authorization": f"Bearer {key}"} if key else {}), **(model.headers or {})}
        headers = {name: _Unlogged(value) for name, value in given.items()}

        def add_headers(request: Any, **_: Any) -> None:
            request.headers.update(headers)

        client.meta.events.register(f"before-send.{SERVICE}.InvokeModel", add_headers)
        return client, client.close

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        words = self.card.input_types or self.family.input_types or {}
        body = self.family.build(
            self.prompted(texts, input_type), words.get(input_type, ""), self.number_of_dimensions(taken)
        )
        return {
            "modelId": self.model.deployment or self.model.id,
            "body": json.dumps(body, ensure_ascii=False).encode(),
            "contentType": "application/json",
            "accept": "application/json",
        }

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        self.called = client.meta.endpoint_url
        response = client.invoke_model(**request)
        about = response.get("ResponseMetadata", {})
        return _content(response["body"], self.model.name), about.get("HTTPHeaders", {})

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Make the request in a thread: boto3 has no asynchronous client."""
        return await in_thread(self.embed, texts, input_type, timeout=timeout)

    def parse_answer(self, response: Any) -> Answer:
        content, headers = response
        body = self.parsed(content, headers)
        try:
            embeddings = self.family.read(body)
            billed = headers.get(BILLED, "")
            tokens = int(billed[:MAX_DIGITS]) if billed.isdecimal() else body.get("inputTextTokenCount")
        except (KeyError, TypeError, AttributeError) as error:
            raise NoVectorsError(body, headers) from error
        vectors = decode_vectors(embeddings, self.model.name, self.length)
        return Answer(vectors, parse_token_count(tokens), implausible=implausible_count(tokens))

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        found = super().count(texts, input_type)
        more = self.family.query_tokens if input_type == "query" else 0
        return TokenCounts([tokens + more for tokens in found.tokens], found.exact)

    def sent_keys(self, error: Exception) -> list[str]:
        return keys_in(error)

    def translate_error(self, error: Exception) -> Exception | Refusal:
        from botocore import exceptions as sdk
        from botocore.parsers import ResponseParserError

        match error:
            case sdk.ClientError():
                return refusal(error, self.model.id, self.endpoint.key_origin)
            case sdk.ReadTimeoutError() | sdk.ConnectTimeoutError():
                return self.no_answer_in_time(error)
            case sdk.ConnectionError() | sdk.HTTPClientError() | sdk.IncompleteReadError():
                return self.connection_failed(error)
            case sdk.ParamValidationError():
                return UnavailableError(
                    "boto3 refuses the request before it is sent. Check deployment= and the model's name.",
                    model=self.model.name,
                    retryable=False,
                )
            case ResponseParserError():
                return self.not_an_answer()
            case sdk.BotoCoreError():
                return without_credentials(self.model, error) or BackendError(
                    f"the boto3 library failed ({type(error).__name__})", model=self.model.name
                )
            case _:
                return self.not_an_answer() if failed_to_parse(error) else error


class _Unlogged(str):
    """The value of a header that is not shown: at DEBUG botocore logs requests with their headers."""

    def __repr__(self) -> str:
        return "'…'"


def _invoke_method(client: Any) -> Any:
    """Return the method of a client of the right service."""
    if client.meta.service_model.service_name != SERVICE:
        raise AttributeError("invoke_model")
    return client.invoke_model


def _content(body: Any, model: str) -> bytes:
    """Read an answer, as far as it may go."""
    allowed, pieces, size = allowance.get(), [], 0
    for piece in body.iter_chunks(PIECE):
        pieces.append(piece)
        size += len(piece)
        if allowed is not None and size > allowed.size:
            raise BadResponseError(
                f"the answer has more than {allowed.size} bytes. Check base_url and dimensions=.",
                model=model,
                retryable=False,
            )
    return b"".join(pieces)


create = BedrockBackend
