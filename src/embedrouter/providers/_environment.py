"""The settings that backends read from the environment: keys and addresses.

The variables that hold addresses are those that the SDKs read, because a key in the environment belongs to the address
in the environment: behind a gateway both are the gateway's, and the vendor must get neither that key nor the texts.
``base_url=`` takes precedence. A configuration file that was found by search makes no difference: it cannot set a
variable, and an address of its own needs a key's variable of its own (see ``embedrouter.config``).
"""

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .._display import shown_name
from ..errors import AuthenticationError, ConfigError
from ..models import Model, Server, check_address, is_secret

NO_BASE = re.compile(r"/(?:embeddings|embed|chat/completions|completions|models|rerank)/?$")
"""Ends of addresses that are no ``base_url``, to which the path is added."""
VERSION = re.compile(r"/v\d")


@dataclass(frozen=True, slots=True)
class Address:
    """The address to which requests go."""

    url: str
    variable: str | None = None
    """The variable of the environment that holds it; ``None`` where the declaration or the provider decides."""

    def __str__(self) -> str:
        """Return the address without user, password and query, which that of a user's own client may have."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the requests of a model go and which key they carry: by the declaration, the environment, the catalogue."""

    model: Model
    server: Server

    @property
    def address(self) -> Address | None:
        """The address: ``base_url``, then one of the server's variables, then the server's own.

        ``None`` is a model without an address: of this process, or of an SDK's client that does not show its own.
        """
        model, server = self.model, self.server
        client = model.client or model.async_client
        if own := str(getattr(client, "base_url", "") or ""):
            return Address(own)
        if self.has_own_client:
            return None
        if model.base_url:
            return Address(model.base_url)
        for variable in server.address_variables:
            if given := os.environ.get(variable, "").strip():
                return Address(_completed(given, server.url), variable)
        for beginning, url in server.key_addresses.items():
            if (self.known_key or "").startswith(beginning):
                return Address(url)
        return Address(server.url) if server.url else None

    @property
    def url(self) -> str:
        """The address; an empty string where there is none."""
        found = self.address
        return found.url if found else ""

    @property
    def correction(self) -> str:
        """What to do where the server knows no such path: the address that was probably meant, if there is one."""
        address = self.address
        if address is None or (VERSION.search(address.url) and not NO_BASE.search(address.url)):
            return ""
        shorter = NO_BASE.sub("", address.url)
        meant = shorter if VERSION.search(shorter) or shorter != address.url else f"{address.url.rstrip('/')}/v1"
        name = address.variable or "base_url"
        return f"Check {name}: the path /embeddings is added. Perhaps {name}='{replace(address, url=meant)}'."

    @property
    def has_own_client(self) -> bool:
        """Whether the user passed in a client with a key and an address; a client of httpx has neither."""
        client = self.model.client or self.model.async_client
        return client is not None and not self.server.plain_http

    def check_address_variables(self) -> None:
        """Refuse an address of the environment that holds a secret.

        Raises:
            ConfigError: the message names the variable and does not repeat the address.
        """
        for variable in self.server.address_variables:
            check_address(os.environ.get(variable), f"{self.model.name}: {variable}")

    @property
    def api_key(self) -> str:
        """The key: ``api_key``, then ``api_key_env``, then the server's variables; empty where none is needed.

        Raises:
            AuthenticationError: there is no key, or the text cannot be one; the message names the variable to set.
        """
        model = self.model
        if key := self.known_key:
            if not (key.isascii() and key.isprintable()):  # libraries quote a header that cannot be sent
                raise AuthenticationError(
                    f"The API key for {model.name} holds a line end or a character that no key has. Copy it again.",
                    model=model.name,
                )
            return key
        if not self.server.key_required and not model.api_key_env:
            return ""
        if not (variables := self._variables):
            raise AuthenticationError(
                f"No API key for {model.name}: its key was not named as a variable, and copies for other processes "
                "hold no key. Name the variable, Model(…, api_key_env=…), or build the router in the process that "
                "embeds.",
                model=model.name,
            )
        named = variables[0]
        if not named.isupper() and shown_name(named) != repr(named):  # somebody has put the key there
            named = "that api_key_env= names"
        raise AuthenticationError(
            f"No API key for {model.name}: set the environment variable {named}, or pass Model(…, api_key=…). "
            "For a server that needs none pass any text.",
            model=model.name,
        )

    @property
    def known_key(self) -> str | None:
        """The key, if there is one."""
        if self.model.api_key and (key := self.model.api_key.strip()):
            return key
        found = (os.environ.get(variable, "").strip() for variable in self._variables)
        return next((value for value in found if value), None)

    @property
    def key_origin(self) -> str:
        """The variable or the argument that the key is read from, for messages."""
        model = self.model
        if self.has_own_client:
            return "the client that was passed in"
        if model.azure_ad_token_provider is not None:
            return "azure_ad_token_provider="
        if model.api_key and model.api_key.strip():
            return "api_key="
        return next((variable for variable in self._variables if os.environ.get(variable, "").strip()), "")

    @property
    def secrets(self) -> list[str]:
        """What must not be shown of the declaration: keys, also those of clients, and secret headers."""
        model = self.model
        clients = [model.client, model.async_client]
        found: list[object] = [self.known_key, *(getattr(client, "api_key", None) for client in clients)]
        for name, value in (model.headers or {}).items():
            if is_secret(name, value):
                found += value.split()
        return [secret for secret in found if isinstance(secret, str) and secret]

    @property
    def _variables(self) -> tuple[str, ...]:
        if self.model.api_key_env is None:
            return self.server.keys
        return (self.model.api_key_env,) if self.model.api_key_env else ()

    def setting(self, value: str | None, argument: str, variable: str) -> str:
        """Return a setting, from the declaration or the environment.

        Raises:
            ConfigError: the setting is in neither.
        """
        found = value or os.environ.get(variable)
        if not found:
            raise ConfigError(f"{self.model.name} needs {argument}=: pass it to Model, or set {variable}.")
        return found


def _completed(address: str, usual: str) -> str:
    """Return an address with a scheme: one without has that of the usual address, and its port if it has none."""
    if "://" in address or not usual:
        return address
    parts, given = urlsplit(usual), urlsplit(f"//{address}")
    port = "" if given.port or not parts.port else f":{parts.port}"
    return f"{parts.scheme}://{given.netloc}{port}{given.path}"
