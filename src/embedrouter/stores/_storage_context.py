"""What LlamaIndex's storage context persists: a docstore, an index store, and vectors as JSON or as a FAISS index."""

import json
from pathlib import Path
from typing import Any

from ..retrieval.store_guard import Row, Unreadable
from ._faiss_folder import read_index, vector_at
from ._rows import embedded_text, node_text, row, spread

SUFFIX = "__vector_store.json"
FIRST_VERSIONS = "vector_store.json"
"""The name of the only vector store in the first releases of LlamaIndex."""


def stores_in(folder: Path) -> list[str]:
    """Return the names of the vector stores in a folder, the default one first."""
    if not (folder / "docstore.json").is_file():
        return []
    names = [file.name.removesuffix(SUFFIX) for file in sorted(folder.glob(f"*{SUFFIX}"))]
    filled = [name for name in names if name != "image" or len(names) == 1]  # an empty one for images is always there
    if (folder / FIRST_VERSIONS).is_file():
        filled.append("")
    return sorted(filled, key=lambda name: name != "default")


def sample(folder: Path, name: str, count: int) -> list[Row]:
    """Return rows from all over the store.

    Raises:
        Unreadable: a file is not what LlamaIndex writes.
    """
    file = folder / (f"{name}{SUFFIX}" if name else FIRST_VERSIONS)
    nodes = _read(folder / "docstore.json").get("docstore/data", {})
    try:
        vectors: dict[str, Any] = json.loads(file.read_bytes())["embedding_dict"]
    except UnicodeDecodeError:  # FaissVectorStore writes its index under the same name
        return _faiss_sample(folder, file, nodes, count)
    except (ValueError, KeyError, TypeError, OSError) as error:
        if file.is_file() and file.read_bytes()[:1] == b"I":  # the magic words of FAISS: IxFI, IxF2, IHNf, …
            return _faiss_sample(folder, file, nodes, count)
        raise Unreadable(f"{file.name} is not what LlamaIndex writes ({type(error).__name__})") from error
    ids = list(vectors)
    return [_row(ids[position], nodes, vectors[ids[position]]) for position in spread(len(ids), count)]


def _faiss_sample(folder: Path, file: Path, nodes: dict[str, Any], count: int) -> list[Row]:
    ids: dict[str, str] = {}
    for struct in _read(folder / "index_store.json").get("index_store/data", {}).values():
        data = struct.get("__data__", {})
        ids.update((json.loads(data) if isinstance(data, str) else data).get("nodes_dict", {}))
    index = read_index(file)
    found = (str(position) for position in spread(index.ntotal, count))
    return [_row(ids.get(place, place), nodes, vector_at(index, int(place))) for place in found]


def _row(identifier: str, nodes: dict[str, Any], vector: Any) -> Row:
    node = nodes.get(identifier, {}).get("__data__", {})
    node = json.loads(node) if isinstance(node, str) else node
    found = row(identifier, node_text(node), vector)
    return found if found.bare is None else Row(found.id, embedded_text(node, found.bare), found.vector, found.bare)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{file.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise Unreadable(f"{file.name} is not what LlamaIndex writes")
    return content
