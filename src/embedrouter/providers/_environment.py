"""The settings that backends read from the environment: keys and addresses.

The variables that hold addresses are those that the SDKs read, because a key in the environment belongs to the address
in the environment: behind a gateway both are the gateway's, and the vendor must get neither that key nor the texts.
``base_url=`` takes precedence. A configuration file that was found by search makes no difference: it cannot set a
variable, and an address of its own needs a key's variable of its own (see ``embedrouter.config``).
"""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from .._display import shown_name
from ..errors import AuthenticationError, ConfigError
from ..models import Model, check_address, is_secret

KEY_VARIABLES = {
    "openai": ("OPENAI_API_KEY",),
    "azure_openai": ("AZURE_OPENAI_API_KEY",),
    "cohere": ("CO_API_KEY", "COHERE_API_KEY"),
    "voyage": ("VOYAGE_API_KEY",),
    **dict.fromkeys(("google_genai", "gemini", "google_vertexai"), ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
}

ADDRESS_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),  # the latter is LangChain's, and was the SDK's
    "azure_openai": ("AZURE_OPENAI_ENDPOINT",),
    "cohere": ("CO_API_URL",),
    "google_genai": ("GOOGLE_GEMINI_BASE_URL",),
    "gemini": ("GOOGLE_GEMINI_BASE_URL",),
    "google_vertexai": ("GOOGLE_VERTEX_BASE_URL",),
}
ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "cohere": "https://api.cohere.com",
    "voyage": "https://api.voyageai.com/v1",
    "google_genai": "https://generativelanguage.googleapis.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "google_vertexai": "https://aiplatform.googleapis.com",
}
MONGODB = "https://ai.mongodb.com/v1"
"""Serves Voyage's models for keys that begin with ``al-``."""


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


def address(model: Model) -> Address | None:
    """Return the address of a model: ``base_url``, then one of the provider's variables, then the provider's own.

    ``None`` is a model without an address: of this process, or of an SDK's client that does not show its own.
    """
    client = model.client or model.async_client
    if own := str(getattr(client, "base_url", "") or ""):
        return Address(own)
    if client is not None and model.provider != "voyage":
        return None
    if model.base_url:
        return Address(model.base_url)
    for variable in ADDRESS_VARIABLES.get(model.provider, ()):
        if given := os.environ.get(variable, "").strip():
            return Address(given, variable)
    if model.provider == "voyage" and (known_key(model) or "").startswith("al-"):
        return Address(MONGODB)
    return Address(ADDRESSES[model.provider]) if model.provider in ADDRESSES else None


def url(model: Model) -> str:
    """Return the address of a model without a client of the user's; an empty string where it has none."""
    found = address(model)
    return found.url if found else ""


def check_address_variables(model: Model) -> None:
    """Refuse an address of the environment that holds a secret.

    Raises:
        ConfigError: the message names the variable and does not repeat the address.
    """
    for variable in ADDRESS_VARIABLES.get(model.provider, ()):
        check_address(os.environ.get(variable), f"{model.name}: {variable}")


def api_key(model: Model) -> str:
    """Return the key of a model: ``api_key``, then ``api_key_env``, then the provider's own variables.

    Raises:
        AuthenticationError: there is no key, or the text cannot be one; the message names the variable to set.
    """
    if key := known_key(model):
        if not (key.isascii() and key.isprintable()):  # libraries quote a header that cannot be sent
            raise AuthenticationError(
                f"The API key for {model.name} holds a line end or a character that no key has. Copy it again.",
                model=model.name,
            )
        return key
    if not (variables := _variables(model)):
        raise AuthenticationError(
            f"No API key for {model.name}: its key was not named as a variable, and copies for other processes hold no "
            "key. Name the variable, Model(…, api_key_env=…), or build the router in the process that embeds.",
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


def known_key(model: Model) -> str | None:
    """Return the key of a model, if there is one."""
    if model.api_key and (key := model.api_key.strip()):
        return key
    found = (os.environ.get(variable, "").strip() for variable in _variables(model))
    return next((value for value in found if value), None)


def key_origin(model: Model) -> str:
    """Return the variable or the argument that the key of a model is read from, for messages."""
    if model.provider != "voyage" and (model.client is not None or model.async_client is not None):
        return "the client that was passed in"
    if model.azure_ad_token_provider is not None:
        return "azure_ad_token_provider="
    if model.api_key and model.api_key.strip():
        return "api_key="
    return next((variable for variable in _variables(model) if os.environ.get(variable, "").strip()), "")


def secrets(model: Model) -> list[str]:
    """Return what must not be shown of a model's declaration: keys, also those of clients, and secret headers."""
    clients = [model.client, model.async_client]
    found: list[object] = [known_key(model), *(getattr(client, "api_key", None) for client in clients)]
    for name, value in (model.headers or {}).items():
        if is_secret(name, value):
            found += value.split()
    return [secret for secret in found if isinstance(secret, str) and secret]


def _variables(model: Model) -> tuple[str, ...]:
    if model.api_key_env is None:
        return KEY_VARIABLES[model.provider]
    return (model.api_key_env,) if model.api_key_env else ()


def setting(value: str | None, model: Model, argument: str, variable: str) -> str:
    """Return a setting, from the declaration or the environment.

    Raises:
        ConfigError: the setting is in neither.
    """
    found = value or os.environ.get(variable)
    if not found:
        raise ConfigError(f"{model.name} needs {argument}=: pass it to Model, or set {variable}.")
    return found
