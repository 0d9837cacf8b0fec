"""Requests for vectors: through the openai SDK, or past most of it.

The SDK prepares every request anew: it copies options, merges headers and joins addresses, which takes as long as
sending the request and reading the answer. Where none of that can change between two requests it is done once, and they
go straight to the HTTP client inside the SDK's. That is so for OpenAI's own kind of client when it is made here. A
client of the user's may have settings of its own and Azure's a token that expires: these are asked through the SDK.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import httpx2

__all__ = ["Sender"]

C = TypeVar("C")


class Sender(Generic[C]):
    """Sends requests for vectors.

    Args:
        client: the SDK's client, of either kind.
        http: the HTTP client inside it, if its address and its headers stay as they are.
    """

    def __init__(self, client: C, http: Any = None) -> None:
        self.client = client
        self._http = http

    def send(self, body: dict[str, Any], timeout: float) -> Any:
        """Send a request, and return httpx2's response, for ``accepted``; of an asynchronous client an awaitable.

        ``embeddings.create`` would look at every text for types to convert, which takes as long as sending them, and
        would add ``encoding_format`` where it is left out.

        Args:
            timeout: seconds for each step of the exchange, as the SDK understands it.
        """
        import httpx2

        if self._http is None:
            client: Any = self.client
            return client.post("/embeddings", cast_to=httpx2.Response, body=body, options={"timeout": timeout})
        from pydantic_core import to_json  # the SDK has loaded it

        address, headers = self._prepared
        content = to_json(body)
        limits = httpx2.Timeout(timeout).as_dict()
        request = httpx2.Request(
            "POST",
            address,
            headers=headers,
            cookies=self._http.cookies,
            stream=httpx2.ByteStream(content),
            extensions={"timeout": limits},
        )
        request.headers["Content-Length"] = str(len(content))
        return self._http.send(request)

    def accepted(self, response: httpx2.Response) -> httpx2.Response:
        """Return a response, or raise the SDK's error for what it says."""
        if not response.is_success:
            client: Any = self.client
            raise client._make_status_error_from_response(response)
        return response

    @cached_property
    def _prepared(self) -> tuple[httpx2.URL, httpx2.Headers]:
        """The address and the headers that the SDK would give each request, without those that count its tries."""
        import httpx2

        client: Any = self.client
        address = client.base_url.copy_with(raw_path=client.base_url.raw_path + b"embeddings")
        headers = httpx2.Headers({"Host": address.netloc.decode(), **self._http.headers})
        said = {name.lower(): value for name, value in [*client.auth_headers.items(), *client.default_headers.items()]}
        headers.update({name: value for name, value in said.items() if isinstance(value, str)})  # others are left out
        return address, headers
