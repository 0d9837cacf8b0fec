"""The settings that backends read from the environment: keys, and Azure's address."""

import os

from ..errors import AuthenticationError, ConfigError
from ..models import Model, is_secret

KEY_VARIABLES = {
    "openai": ("OPENAI_API_KEY",),
    "azure_openai": ("AZURE_OPENAI_API_KEY",),
    "cohere": ("CO_API_KEY", "COHERE_API_KEY"),
    "voyage": ("VOYAGE_API_KEY",),
}


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
    variable = _variables(model)[0]
    raise AuthenticationError(
        f"No API key for {model.name}: set the environment variable {variable}, or pass Model(…, api_key=…). "
        "For a server that needs none pass any text.",
        model=model.name,
    )


def known_key(model: Model) -> str | None:
    """Return the key of a model, if there is one."""
    if model.api_key and (key := model.api_key.strip()):
        return key
    found = (os.environ.get(variable, "").strip() for variable in _variables(model))
    return next((value for value in found if value), None)


def secrets(model: Model) -> list[str]:
    """Return what must not be shown of a model's declaration: keys, also those of clients, and secret headers."""
    clients = [model.client, model.async_client]
    found: list[object] = [known_key(model), *(getattr(client, "api_key", None) for client in clients)]
    for name, value in (model.headers or {}).items():
        if is_secret(name, value):
            found += value.split()
    return [secret for secret in found if isinstance(secret, str) and secret]


def _variables(model: Model) -> tuple[str, ...]:
    return (model.api_key_env,) if model.api_key_env else KEY_VARIABLES[model.provider]


def setting(value: str | None, model: Model, argument: str, variable: str) -> str:
    """Return a setting, from the declaration or the environment.

    Raises:
        ConfigError: the setting is in neither.
    """
    found = value or os.environ.get(variable)
    if not found:
        raise ConfigError(f"{model.name} needs {argument}=: pass it to Model, or set {variable}.")
    return found
