"""What backends read from the environment: keys, and Azure's address. Nothing else in the package reads it for them."""

from __future__ import annotations

import os

from ..errors import AuthenticationError, ConfigError
from ..models import Model

__all__ = ["api_key", "known_key", "setting"]

KEY_VARIABLES = {
    "openai": ("OPENAI_API_KEY",),
    "azure_openai": ("AZURE_OPENAI_API_KEY",),
    "cohere": ("CO_API_KEY", "COHERE_API_KEY"),
    "voyage": ("VOYAGE_API_KEY",),
}


def api_key(model: Model) -> str:
    """Return the key of a model: ``api_key``, then ``api_key_env``, then the provider's own variables.

    Raises:
        AuthenticationError: there is none; the message names the variable to set.
    """
    if key := known_key(model):
        return key
    variable = _variables(model)[0]
    raise AuthenticationError(
        f"No API key for {model.name}: set the environment variable {variable}, or pass Model(…, api_key=…). "
        "For a server that needs none pass any text.",
        model=model.name,
    )


def known_key(model: Model) -> str | None:
    """Return the key of a model, if there is one."""
    if model.api_key:
        return model.api_key
    found = (os.environ.get(variable, "").strip() for variable in _variables(model))
    return next((value for value in found if value), None)


def _variables(model: Model) -> tuple[str, ...]:
    return (model.api_key_env,) if model.api_key_env else KEY_VARIABLES[model.provider]


def setting(value: str | None, model: Model, argument: str, variable: str) -> str:
    """Return a setting, from the declaration or the environment.

    Raises:
        ConfigError: it is in neither.
    """
    found = value or os.environ.get(variable)
    if not found:
        raise ConfigError(f"{model.name} needs {argument}=: pass it to Model, or set {variable}.")
    return found
