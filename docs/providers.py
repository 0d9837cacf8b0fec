"""Write the tables of docs/providers.md from the catalogue: providers, their models, limits and prices.

python docs/providers.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where the page's own scripts are

import generated

from embedrouter.models import Card, Server, load_catalogue

PAGE = Path(__file__).with_suffix(".md")
TITLES = {
    "openai": "OpenAI", "azure_openai": "Azure OpenAI", "cohere": "Cohere", "voyage": "Voyage AI",
    "bedrock": "Amazon Bedrock", "google_genai": "Gemini API", "google_vertexai": "Vertex AI", "mistral": "Mistral",
    "jina": "Jina AI", "nvidia": "NVIDIA", "openrouter": "OpenRouter", "together": "Together", "fireworks": "Fireworks",
    "deepinfra": "DeepInfra", "databricks": "Databricks", "dashscope": "DashScope", "ollama": "Ollama", "vllm": "vLLM",
    "tei": "Text Embeddings Inference", "lmstudio": "LM Studio", "litellm": "LiteLLM proxy",
    "sentence-transformers": "sentence-transformers", "onnx": "onnxruntime", "wordllama": "WordLlama",
}  # fmt: skip
PROTOCOLS = ("openai", "cohere", "voyage", "ollama", "google", "bedrock")
"""Whose extra has the name of the protocol; the extra of the others has that of the provider."""
ADDRESSES = {"azure_openai": "that of the resource", "databricks": "that of the workspace", "bedrock": "the region's"}
HERE = ("sentence-transformers", "onnx", "wordllama")
"""What computes in this process."""
HUB = "hub"
PROMPTED = {("document", "query"): "documents, queries", ("query",): "queries", ("document",): "documents"}
CREDENTIALS = {"bedrock": "what boto3 finds, or `AWS_BEARER_TOKEN_BEDROCK`"}


def main() -> None:
    """Put the tables into the page."""
    generated.write(PAGE, parts())


def parts() -> dict[str, str]:
    """Return the tables."""
    catalogue = load_catalogue()
    servers = [server for name, server in catalogue.servers.items() if name == server.name]
    cards = {server.name: [card for card in catalogue.values() if card.provider == server.name] for server in servers}
    hub = [card for card in catalogue.values() if card.provider == HUB]
    return {
        "providers": generated.table(("write", "key", "install"), map(_overview, servers)),
        "models": "\n\n".join(_section(server, cards[server.name]) for server in servers if cards[server.name]),
        "hub": generated.table(("model", "dimensions", "tokens", "prompts"), map(_hub_row, hub), right=" rr"),
        "refused": generated.table(("name", "why"), ((f"`{name}`", why) for name, why in catalogue.refused.items())),
    }


# Providers


def _overview(server: Server) -> tuple[str, ...]:
    names = " or ".join(f"`{name}:`" for name in (server.name, *server.aliases))
    return names, _keys(server), f"`[{_extra(server)}]`"


def _keys(server: Server) -> str:
    if server.name in CREDENTIALS:
        return CREDENTIALS[server.name]
    keys = " or ".join(f"`{key}`" for key in server.keys)
    return f"{keys or 'none'}{'' if server.key_required or not keys else ', if it wants one'}"


def _extra(server: Server) -> str:
    return server.protocol if server.protocol in PROTOCOLS else server.name


def _section(server: Server, cards: list[Card]) -> str:
    """Return a heading, facts about all models, and a table of the models."""
    rows = [_row(card) for card in cards]
    titles = ("model", "dimensions", "tokens", "price", "checked")
    facts = "\n".join(f"- {fact}" for fact in _facts(server, cards))
    return f"### {TITLES[server.name]}\n\n{facts}\n\n{generated.table(titles, rows, right=' rr')}"


def _facts(server: Server, cards: list[Card]) -> Iterator[str]:
    yield f'Install: `pip install "embedrouter[{_extra(server)}]"`'
    yield f"Key: {_keys(server)}"
    if server.name not in HERE:
        address = f"`{server.url}`" if server.url else ADDRESSES[server.name]
        yield f"Address: {', or '.join([address, *(f'`{name}`' for name in server.address_variables)])}"
    tokens = [card.tokens for card in cards if card.tokens is not None]
    yield f"A request: {_span(card.texts for card in cards)} texts" + (f", {_span(tokens)} tokens" if tokens else "")
    limits = {
        "requests": [card.requests_per_minute for card in cards if card.requests_per_minute],
        "texts": [card.texts_per_minute for card in cards if card.texts_per_minute],
        "tokens": [card.tokens_per_minute for card in cards if card.tokens_per_minute],
    }
    if any(limits.values()):
        said = ", ".join(f"{_span(numbers)} {unit}" for unit, numbers in limits.items() if numbers)
        yield f"A minute, where you declare nothing: {said}"
    words = {tuple((card.input_types or {}).get(kind) for kind in ("document", "query")) for card in cards}
    if told := sorted(f"`{document}` and `{query}`" for document, query in words if document):
        some = "" if len(words) == 1 else " where a model does"
        yield f"Documents and queries are told apart{some}: {', '.join(told)}"
    if dtypes := sorted({dtype for card in cards for dtype in card.dtypes}):
        yield f"Besides float32: {', '.join(f'`{dtype}`' for dtype in dtypes)}" + (
            "" if all(card.dtypes for card in cards) else " (not of all models)"
        )


def _span(numbers: Iterable[int]) -> str:
    """Return one number, or the least and the most."""
    lowest, *rest = sorted(set(numbers))
    return f"{lowest:,} to {rest[-1]:,}" if rest else f"{lowest:,}"


# Models


def _row(card: Card) -> tuple[str, ...]:
    name = f"`{card.model.partition(':')[2]}`"
    if card.retired:
        successor = card.successor.partition(":")[2]
        name += f"<br>until {card.retired}" + (f", then `{successor}`" if successor else "")
    tokens = f"{card.input_tokens:,}" if card.input_tokens else "any"
    return name, _dimensions(card), tokens, _price(card), f"[{card.checked}]({card.source})"


def _dimensions(card: Card) -> str:
    if isinstance(card.allowed, str):
        return f"{card.dimensions} or fewer"
    return f"{card.dimensions}" + (f" ({', '.join(map(str, card.allowed))})" if card.allowed else "")


def _price(card: Card) -> str:
    """Return US dollars for a million tokens."""
    if card.price is None:
        return "unknown"
    if not card.price:
        return "free"
    return f"${card.price}" + (f"<br>batch ${card.batch_price}" if card.batch_price is not None else "")


def _hub_row(card: Card) -> tuple[str, ...]:
    longest = f"{card.input_tokens:,}" if card.input_tokens else "any"
    name = f"[`{card.model.partition(':')[2]}`]({card.source})"
    prompted = [kind for kind, prompt in (card.prompts or {}).items() if prompt]
    return name, _dimensions(card), longest, PROMPTED.get(tuple(sorted(prompted)), "")


if __name__ == "__main__":
    main()
