"""The embedding models of the emulator, and their published limits.

One frozen row a model. Everything else in the package asks this table instead of knowing model names, so a new model
is a new row. `space` names the vector space: models that share it answer close vectors that may be compared with each
other; two spaces have nothing in common. `native` is the length of the vector before any shortening, `default` the
length answered when the request asks for none, and `dimensions` the lengths that may be asked for (empty: none may).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

ProviderName = str
"""`openai`, `azure`, `cohere`, `voyage`, `google`, `vertex`, `bedrock`, or a name of `compatible.RULES`."""


@dataclass(frozen=True, slots=True)
class Model:
    """One row: a model, who makes it, and what it accepts."""

    name: str
    provider: ProviderName
    space: str
    native: int
    default: int
    dimensions: Sequence[int]
    max_tokens: int
    max_request_tokens: int | None = None
    """Tokens that one request may hold over all its inputs; None where the maker publishes no such limit."""
    served: bool = True
    """False for open-weights models that exist but that the maker's API does not answer for."""
    roles: bool = True
    """Whether queries and documents are embedded differently."""
    tasks: bool = True
    """Google: whether requests may name a task type."""
    scaled: bool = True
    """Whether shorter vectors are scaled back to length 1."""
    counted: bool = True
    """Google: whether the developer API's answers tell the tokens."""


def _openai(name: str, native: int, *, shortens: bool) -> Model:
    lengths = range(1, native + 1) if shortens else ()
    return Model(name, "openai", name, native, native, lengths, 8192, 300_000, roles=False)


def _cohere(name: str, lengths: tuple[int, ...], max_tokens: int, *, space: str | None = None) -> Model:
    allowed = lengths if len(lengths) > 1 else ()
    return Model(name, "cohere", space or name, max(lengths), next(iter(lengths)), allowed, max_tokens)


def _voyage(name: str, request_tokens: int, *, space: str | None = None, max_tokens: int = 32_000) -> Model:
    lengths = (256, 512, 1024, 2048)
    return Model(name, "voyage", space or name, 2048, 1024, lengths, max_tokens, request_tokens)


def _fixed_voyage(name: str, length: int, request_tokens: int, max_tokens: int) -> Model:
    return Model(name, "voyage", name, length, length, (), max_tokens, request_tokens)


def _bedrock(name: str, lengths: tuple[int, ...], max_tokens: int, space: str, *, roles: bool = True) -> Model:
    allowed = lengths if len(lengths) > 1 else ()
    return Model(name, "bedrock", space, max(lengths), next(iter(lengths)), allowed, max_tokens, roles=roles)


def _google(name: str, native: int, max_tokens: int, **facts: bool) -> Model:
    return Model(name, "google", name, native, native, range(1, native + 1), max_tokens, **facts)


def _vertex(name: str) -> Model:
    return Model(name, "vertex", name, 768, 768, range(1, 769), 2048, 20_000)


def _open(name: str, native: int, max_tokens: int, lengths: Sequence[int] = (), **facts: bool) -> Model:
    """A model of one or several servers of OpenAI's protocol."""
    return Model(name, "open", name, native, native, lengths, max_tokens, **facts)


_V5 = (2048, 1536, 1024, 768, 512, 256)

_ROWS = (
    _openai("text-embedding-3-small", 1536, shortens=True),
    _openai("text-embedding-3-large", 3072, shortens=True),
    _openai("text-embedding-ada-002", 1536, shortens=False),
    _cohere("embed-v5.0-pro", _V5, 128_000, space="embed-v5"),
    _cohere("embed-v5.0-fast", _V5, 128_000, space="embed-v5"),
    _cohere("embed-v4.0", (1536, 1024, 512, 256), 128_000),
    _cohere("embed-english-v3.0", (1024,), 512),
    _cohere("embed-multilingual-v3.0", (1024,), 512),
    _cohere("embed-english-light-v3.0", (384,), 512),
    _cohere("embed-multilingual-light-v3.0", (384,), 512),
    _voyage("voyage-4-large", 120_000, space="voyage-4"),
    _voyage("voyage-4", 320_000, space="voyage-4"),
    _voyage("voyage-4-lite", 1_000_000, space="voyage-4"),
    Model("voyage-4-nano", "voyage", "voyage-4", 2048, 2048, (256, 512, 1024, 2048), 32_000, served=False),
    _voyage("voyage-code-4", 120_000),
    _voyage("voyage-3-large", 120_000),
    _voyage("voyage-3.5", 320_000),
    _voyage("voyage-3.5-lite", 1_000_000),
    _voyage("voyage-code-3", 120_000),
    _fixed_voyage("voyage-3-lite", 512, 1_000_000, 32_000),
    _fixed_voyage("voyage-finance-2", 1024, 120_000, 32_000),
    _fixed_voyage("voyage-law-2", 1024, 120_000, 16_000),
    _fixed_voyage("voyage-2", 1024, 320_000, 4_000),
    _fixed_voyage("voyage-large-2", 1536, 120_000, 16_000),
    _fixed_voyage("voyage-large-2-instruct", 1024, 120_000, 16_000),
    _bedrock("amazon.titan-embed-text-v2:0", (1024, 512, 256), 8192, "titan-embed-text-v2", roles=False),
    _bedrock("amazon.titan-embed-text-v1", (1536,), 8192, "titan-embed-text-v1", roles=False),
    _bedrock("amazon.nova-2-multimodal-embeddings-v1:0", (3072, 1024, 384, 256), 8192, "nova-2-multimodal-embeddings"),
    _bedrock("cohere.embed-v4:0", (1536, 1024, 512, 256), 128_000, "embed-v4.0"),
    _bedrock("cohere.embed-english-v3", (1024,), 512, "embed-english-v3.0"),
    _bedrock("cohere.embed-multilingual-v3", (1024,), 512, "embed-multilingual-v3.0"),
    _google("gemini-embedding-001", 3072, 2048, scaled=False, counted=False),
    _google("gemini-embedding-2", 3072, 8192, tasks=False),
    _vertex("text-embedding-005"),
    _vertex("text-multilingual-embedding-002"),
    _open("mistral-embed", 1024, 8192),
    _open("codestral-embed", 1536, 8192, range(1, 3073), scaled=False),
    _open("jina-embeddings-v3", 1024, 8192, range(1, 1025)),
    _open("jina-embeddings-v2-base-en", 768, 8192),
    _open("nvidia/nv-embedqa-e5-v5", 1024, 512),
    _open("nvidia/llama-3.2-nv-embedqa-1b-v2", 2048, 8192, (384, 512, 768, 1024, 2048)),
    _open("openai/text-embedding-3-small", 1536, 8192, range(1, 1537)),
    _open("intfloat/multilingual-e5-large-instruct", 1024, 512),
    _open("nomic-ai/nomic-embed-text-v1.5", 768, 8192, range(64, 769)),
    _open("BAAI/bge-m3", 1024, 8192),
    _open("databricks-gte-large-en", 1024, 8192),
    _open("text-embedding-v4", 1024, 8192, (64, 128, 256, 512, 768, 1024, 1536, 2048)),
    _open("nomic-embed-text", 768, 2048, range(1, 769)),
    _open("all-minilm", 384, 256, range(1, 385)),
    _open("text-embedding-nomic-embed-text-v1.5", 768, 2048),
)

MODELS: Mapping[str, Model] = MappingProxyType({row.name: row for row in _ROWS})


def find(name: str) -> Model:
    """Return the row of `name`; `KeyError` lists the known names."""
    try:
        return MODELS[name]
    except KeyError:
        raise KeyError(f"unknown model {name!r}; the emulator knows {', '.join(MODELS)}") from None


def served_by(provider: ProviderName, name: object) -> Model | None:
    """Return the row of `name` when that maker's API answers for it."""
    row = MODELS.get(name) if isinstance(name, str) else None
    return row if row is not None and row.provider == provider and row.served else None
