"""What is common to the kinds of stores: rows from all over a store, and the texts in what frameworks store."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError
from ..retrieval.store_guard import Row
from ._transfer import Readable, StoredText

T = TypeVar("T")

TEXT_FIELDS = ("page_content", "text", "content", "document", "chunk", "body")
"""Fields in which frameworks and people keep the text of a vector, the likeliest first."""
NODE = "_node_content"
"""The entry in which LlamaIndex keeps a node as JSON."""


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield a sequence in parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` positions from all over a store with ``total`` rows."""
    count = min(count, total)
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


def row(identifier: object, text: object, vector: Any, metadata: Mapping[str, Any] | None = None) -> Row:
    """Return one row of a store.

    LlamaIndex embeds a node with its metadata and stores the text without, so such a row has both texts.

    Args:
        text: the stored text; anything but a text is none.
        metadata: what is stored beside it, which holds the node where LlamaIndex filled the store.
    """
    bare = text if isinstance(text, str) and text else None
    node = _node(metadata or {})
    if node:
        bare = bare or node_text(node)
    embedded = embedded_text(node, bare) if node and bare else bare
    return Row(str(identifier), embedded, None if vector is None else np.asarray(vector), bare)


def stored_text(
    identifier: object, content: object, metadata: Mapping[str, Any] | None, columns: Mapping[str, Any] | None = None
) -> StoredText:
    """Return one row of a store without its vector; see ``row`` for its two texts.

    A node of LlamaIndex is given without its text, as LlamaIndex writes it where the text stands beside it.
    """
    found = row(identifier, content, None, metadata)
    entries = node_without_text(metadata or {})
    return StoredText(found.id, found.text or "", found.bare or "", entries, columns or {})


def text_in(fields: Mapping[str, Any]) -> str | None:
    """Return the text among the fields of a row."""
    return next((fields[name] for name in TEXT_FIELDS if isinstance(fields.get(name), str) and fields[name]), None)


def node_text(node: Mapping[str, Any]) -> str | None:
    """Return the text of a node of LlamaIndex without its metadata."""
    found = node.get("text") or (node.get("text_resource") or {}).get("text")
    return found if isinstance(found, str) and found else None


def embedded_text(node: Mapping[str, Any], text: str) -> str:
    """Return the text of a node as LlamaIndex embeds it: ``get_content(MetadataMode.EMBED)``."""
    left_out = node.get("excluded_embed_metadata_keys") or ()
    template = node.get("metadata_template") or node.get("metadata_tmpl") or "{key}: {value}"
    separator = node.get("metadata_separator") or node.get("metadata_seperator") or "\n"
    entries = [
        template.replace("{key}", name).replace("{value}", str(value))
        for name, value in (node.get("metadata") or {}).items()
        if name not in left_out
    ]
    metadata = separator.join(entries).strip()
    if not metadata:
        return text
    whole = node.get("text_template") or node.get("text_tmpl") or "{metadata_str}\n\n{content}"
    before, found, after = str(whole).partition("{content}")
    filled = before.replace("{metadata_str}", metadata) + text + after.replace("{metadata_str}", metadata)
    return filled.strip() if found else text


def only_one(names: Sequence[str], what: str, title: str) -> str:
    """Return the one name of several.

    Raises:
        ConfigError: there is none, or several; the message lists them.
    """
    if len(names) != 1:
        listed = f" ({', '.join(names)}), and which is the router's cannot be told" if names else ""
        raise ConfigError(f"{title} has {len(names) or 'no'} {what}{listed}.")
    return names[0]


def others(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a store that are not this package's."""
    return {name: value for name, value in entries.items() if not name.startswith("embedrouter:")}


def has_node(row: StoredText) -> bool:
    """Return whether LlamaIndex has stored a row."""
    return _node(row.metadata) is not None


def filled_by_llama_index(store: Readable | None) -> bool:
    """Return whether LlamaIndex has filled a store, by its first row."""
    return store is not None and any(has_node(row) for row in next(iter(store.pages(1)), ()))


def node_without_text(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's metadata as LlamaIndex writes them where the text stands beside: without it in their JSON."""
    node = _node(metadata)
    if node is None or node_text(node) is None:
        return dict(metadata)
    if "text" in node:
        node["text"] = ""
    node.pop("text_resource", None)
    return {**metadata, NODE: json.dumps(node, ensure_ascii=False)}


def node_with_text(row: StoredText) -> dict[str, Any]:
    """Return the metadata of a node with the text in its JSON."""
    node = _node(row.metadata)
    if node is None:
        return dict(row.metadata)
    if row.metadata.get("_node_type") == "Node":
        node["text_resource"] = {**(node.get("text_resource") or {}), "text": row.content}
    else:
        node["text"] = row.content
    return {**row.metadata, NODE: json.dumps(node, ensure_ascii=False)}


def _node(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    content = metadata.get(NODE)
    if not isinstance(content, str):
        return None
    try:
        node = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return node if isinstance(node, dict) else None
