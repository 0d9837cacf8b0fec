"""The names of the conventions for generative AI, and of our own attributes.

https://github.com/open-telemetry/semantic-conventions-genai, as read on 2026-11-30. They are in development, so that no
package of constants is stable; the names are those that instrumentations of SDKs use today.
"""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import urlsplit

from opentelemetry.util.types import AttributeValue

from ..events import Event, RequestSent

OPERATION, EMBEDDINGS = "gen_ai.operation.name", "embeddings"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
DIMENSIONS = "gen_ai.embeddings.dimension.count"
ENCODING = "gen_ai.request.encoding_formats"
INPUT_TOKENS, TOKEN_TYPE = "gen_ai.usage.input_tokens", "gen_ai.token.type"
ADDRESS, PORT = "server.address", "server.port"
ERROR = "error.type"

PROVIDERS = {
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
}
"""The conventions' names of providers, where they are not ours."""

PORTS = {"https": 443, "http": 80}

SAID = (
    "model", "tier", "texts", "tokens", "attempt", "error", "status", "seconds", "limit", "what", "setting",
    "instead_of", "failures", "action", "rows", "by", "failed", "cost",
)  # fmt: skip
"""The fields of events that spans have. Reasons, files and places are left out: they may say more than a trace should.
"""


def of_model(model: str) -> dict[str, AttributeValue]:
    """Return what the conventions say of ``provider:name``."""
    provider = model.partition(":")[0]
    return {OPERATION: EMBEDDINGS, PROVIDER: PROVIDERS.get(provider, provider), REQUEST_MODEL: short(model)}


def short(model: str) -> str:
    """Return the name of a model without its provider."""
    provider, _, name = model.partition(":")
    return name or provider


def of_server(request: RequestSent) -> dict[str, AttributeValue]:
    """Return where a request goes."""
    found = urlsplit(request.address)
    if not found.hostname:
        return {}
    port = found.port or PORTS.get(found.scheme)
    return {ADDRESS: found.hostname, **({PORT: port} if port else {})}


def of_event(event: Event) -> dict[str, AttributeValue]:
    """Return the fields of an event that spans have."""
    facts = {name: value for name, value in event.facts().items() if name in SAID and value not in (None, "")}
    plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in facts.items()}
    return {f"embedrouter.{name}": value for name, value in plain.items()}


def of_call(event: Event) -> dict[str, AttributeValue]:
    """Return who has asked."""
    facts = {"tier.requested": event.tier, "input_type": event.input_type, "tag": event.tag}
    return {f"embedrouter.{name}": value for name, value in facts.items() if value}


def snake(event: Event) -> str:
    """Return the name of an event as names of span events are written: ``request_retried``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)[1:]
