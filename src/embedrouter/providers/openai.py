"""OpenAI, Azure OpenAI, and every server that speaks OpenAI's embeddings protocol.

Numbers are asked for as base64 and decoded to float32 here: the SDK would build a list of Python floats for each vector
(3.6 times slower). A server that answers with lists all the same is understood; one that refuses the field is asked
with ``encoding_format="omit"``. Answers are put in the order of their ``index``. ``dimensions`` is sent only when it
differs from the model's own number, because older models refuse it.

The tokenizer is tiktoken's, when its vocabulary is on this machine; it is never downloaded in the middle of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..models import Card, Model, check_address, custom_card
from ..types import Answer, Candidate, InputType, TokenCounts
from . import Backend, Description, missing_extra
from ._clients import Clients, check_given
from ._environment import api_key, setting
from ._openai_batches import OpenAIBatches
from ._openai_protocol import read, translated
from ._openai_requests import Sender
from ._tiktoken import encoding

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

BASE_URL = "https://api.openai.com/v1"


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``."""
    check_given(model, "openai.OpenAI", "openai.AsyncOpenAI", lambda client: client.post)
    if model.provider == "azure_openai":
        setting(model.api_version, model, "api_version", "OPENAI_API_VERSION")
        endpoint = setting(model.base_url, model, "base_url", "AZURE_OPENAI_ENDPOINT")
        check_address(endpoint, f"{model.name}: AZURE_OPENAI_ENDPOINT")
    card = cards.get(model.name) or custom_card(model, dimensions)
    return Description(card, batches=model.provider == "openai")


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    return OpenAIBackend(model, known.card, candidate.space.dimensions)


class OpenAIBackend(Backend):
    """Calls ``/embeddings`` through the openai SDK, with the SDK's own retries off."""

    def __init__(self, model: Model, card: Card, dimensions: int) -> None:
        self._model = model
        self._tokenizer = card.tokenizer
        self._dimensions = dimensions if dimensions != card.dimensions else None
        self._clients: Clients[Sender[OpenAI], Sender[AsyncOpenAI]] = Clients(
            lambda: _sender(model, asynchronous=False),
            lambda: _sender(model, asynchronous=True),
            lambda sender: sender.client.close(),
            lambda sender: sender.client.close(),
            given=None if model.client is None else Sender(model.client),
            given_async=None if model.async_client is None else Sender(model.async_client),
        )

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with self._clients.sync() as sender:
            try:
                response = sender.accepted(sender.send(self._request(texts, input_type), timeout))
            except Exception as error:  # noqa: BLE001 - raised below
                failure = translated(error, self._model, texts)
            else:
                return read(response, self._model)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        async with self._clients.asynchronous() as sender:
            try:
                response = sender.accepted(await sender.send(self._request(texts, input_type), timeout))
            except Exception as error:  # noqa: BLE001 - raised below
                failure = translated(error, self._model, texts)
            else:
                return read(response, self._model)
        raise failure

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with tiktoken where the model's encoding is known and on this machine, else estimate."""
        encoder = encoding(self._tokenizer) if self._tokenizer else None
        if encoder is None:
            return super().count(texts, input_type)
        prompt = (self._model.prompts or {}).get(input_type, "")
        return TokenCounts([len(encoder.encode_ordinary(prompt + text)) for text in texts], exact=True)

    @property
    def batches(self) -> OpenAIBatches:
        return OpenAIBatches(self._clients, self._model, self._request)

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    # The request

    def _request(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]:
        prompt = (self._model.prompts or {}).get(input_type, "")
        request: dict[str, Any] = {
            "model": self._model.deployment or self._model.id,
            "input": [prompt + text for text in texts],
        }
        if self._dimensions is not None:
            request["dimensions"] = self._dimensions
        if self._model.encoding_format != "omit":
            request["encoding_format"] = self._model.encoding_format or "base64"
        return request


def _sender(model: Model, *, asynchronous: bool) -> Sender[Any]:
    try:
        import openai
    except ImportError as error:
        raise missing_extra(model, "openai", error) from error
    common: dict[str, Any] = {"max_retries": 0, "default_headers": dict(model.headers or {})}
    if model.provider == "openai":
        kind: Any = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        common.update(api_key=api_key(model), base_url=model.base_url or BASE_URL)
        http: Any = openai.DefaultAsyncHttpxClient() if asynchronous else openai.DefaultHttpxClient()
        return Sender(kind(http_client=http, **common), http)
    azure: Any = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
    if model.azure_ad_token_provider is not None:
        common["azure_ad_token_provider"] = model.azure_ad_token_provider
    else:
        common["api_key"] = api_key(model)
    client = azure(
        azure_endpoint=setting(model.base_url, model, "base_url", "AZURE_OPENAI_ENDPOINT"),
        api_version=setting(model.api_version, model, "api_version", "OPENAI_API_VERSION"),
        **common,
    )
    return Sender(client)
