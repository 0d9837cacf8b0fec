"""The way of a request to a provider, the same for all: build request, send, parse answer, translate error.

A backend writes each step once. ``send`` serves both forms: what a synchronous client returns is the response, what an
asynchronous one returns is awaited here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ..models import Backend, Model
from ..types import Answer, InputType
from ._clients import Clients


class RemoteBackend(Backend):
    """Calls a provider through the clients of its SDK."""

    def __init__(self, model: Model, clients: Clients[Any, Any]) -> None:
        self.model = model
        self.clients = clients

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
    def translate_error(self, error: Exception, texts: Sequence[str]) -> Exception:
        """Return our error for one of the SDK's or of the library below, or ``error`` itself for any other."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self.build_request(texts, input_type)
        with self.clients.lease() as client:
            try:
                response = self.send(client, request, timeout)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = self.translate_error(error, texts)
            else:
                return self.parse_answer(response)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self.build_request(texts, input_type)
        async with self.clients.alease() as client:
            try:
                response = await self.send(client, request, timeout)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = self.translate_error(error, texts)
            else:
                return self.parse_answer(response)
        raise failure

    def close(self) -> None:
        self.clients.close()

    async def aclose(self) -> None:
        await self.clients.aclose()
