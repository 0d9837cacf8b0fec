"""What LlamaIndex's storage context persists: a docstore, an index store, and vectors as JSON or as a FAISS index.

A text that no node of LlamaIndex holds becomes a ``TextNode`` whose metadata are not embedded with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from ..retrieval.store_guard import Row, Unreadable
from ..types import Vectors
from ._beside import FolderStore
from ._draft import OF_FORMAT, Draft
from ._exact import nearest
from ._faiss_folder import distance_of, read_index, vector_at
from ._metadata import fitted, is_json, restored
from ._rows import NODE, has_node, node_text, node_with_text, parts, row, spread, stored_text
from ._transfer import Distance, Readable, StoredText

SUFFIX = "__vector_store.json"
FIRST_VERSIONS = "vector_store.json"
"""The name of the only vector store in the first releases of LlamaIndex."""
USUAL = "default"
DATA, TYPE = "__data__", "__type__"
TYPES = {"TextNode": "1", "ImageNode": "2", "IndexNode": "3", "Document": "4", "Node": "5"}
"""LlamaIndex's numbers of the classes of nodes."""
NONE = "None"
"""What LlamaIndex writes for a node without a document."""
PLAIN = {"id_", "text", "metadata", "excluded_embed_metadata_keys", "class_name"}
"""The fields of a node that was made here, of a text that was none; LlamaIndex itself writes all fields."""
LIKE = f"{OF_FORMAT}docstore"
"""Entry of a draft: the folder whose other nodes, documents and hashes the new docstore has as well."""
PAGE = 500
"""Vectors in memory at once, in a search."""


class PersistedContext(FolderStore):
    """A folder that is read. Each of its files is read as a whole; vectors only when they are asked for."""

    kind = "LlamaIndex's storage context"

    def __init__(self, path: Path, store: str = USUAL) -> None:
        super().__init__(path)
        self._file = path / (f"{store}{SUFFIX}" if store else FIRST_VERSIONS)

    def settings(self) -> Mapping[str, Any]:
        return {LIKE: str(self.path.absolute())}

    def dimensions(self) -> int | None:
        ids = self._ids
        return len(self._vector(ids[0])) if ids else None

    def sample(self, count: int) -> list[Row]:
        texts = [self._stored(self._ids[position]) for position in spread(len(self._ids), count)]
        return [row(text.id, text.content, self._vector(text.id), text.metadata) for text in texts]

    @cached_property
    def _nodes(self) -> Mapping[str, Any]:
        return dict(_read(self.path / "docstore.json").get("docstore/data", {}))

    @cached_property
    def _simple(self) -> Mapping[str, Vectors] | None:
        """The vectors by id; ``None`` where they are in an index of FAISS under the same name."""
        try:
            content = self._file.read_bytes()
            if content[:1] == b"I":  # the magic words of FAISS: IxFI, IxF2, IHNf, …
                return None
            return dict(_vectors(content.decode()))
        except UnicodeDecodeError:
            return None
        except (ValueError, LookupError, TypeError, OSError) as error:  # LookupError where the file ends too early
            raise Unreadable(f"{self._file.name} is not what LlamaIndex writes ({type(error).__name__})") from error

    @cached_property
    def _index(self) -> Any:
        return read_index(self._file)

    @cached_property
    def _ids(self) -> Sequence[str]:
        """The ids, in the order of the vectors."""
        if self._simple is not None:
            return list(self._simple)
        names: dict[str, str] = {}
        for struct in _read(self.path / "index_store.json").get("index_store/data", {}).values():
            names.update(_content(struct).get("nodes_dict", {}))
        return [names.get(str(place), str(place)) for place in range(self._index.ntotal)]

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._ids)}

    def _vector(self, name: str) -> Vectors:
        if self._simple is not None:
            return self._simple[name]
        return np.asarray(vector_at(self._index, self._places[name]), np.float32)

    def _stored(self, name: str) -> StoredText:
        data = _content(self._nodes.get(name, {}))
        if not data:
            return stored_text(name, None, {})
        if data.keys() == PLAIN:
            return stored_text(name, data["text"], restored(data["metadata"]))
        return stored_text(name, node_text(data), _flat(data))

    def distance(self) -> Distance | None:
        if self._simple is not None:
            return "cosine"
        return distance_of(self._index)

    def count(self) -> int:
        return len(self._ids)

    def ids(self) -> Iterator[str]:
        yield from self._ids

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        for part in parts(self._ids, size):
            yield [self._stored(name) for name in part]

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        return [(self._stored(name), self._vector(name)) for name in dict.fromkeys(ids) if name in self._places]

    def search(self, vector: Vectors, count: int) -> list[str]:
        """Search as ``SimpleVectorStore`` does, which compares with all vectors; or with the index of FAISS."""
        if self._simple is None:
            _, found = self._index.search(np.asarray([vector], np.float32), count)
            return [self._ids[int(place)] for place in found[0] if place >= 0]
        pages = ((part, np.array([self._vector(name) for name in part])) for part in parts(self._ids, PAGE))
        return nearest(pages, vector, count)


class ContextFormat:
    """Writes folders as ``StorageContext.persist`` does, with a ``SimpleVectorStore``."""

    kind, suffix = "LlamaIndex's storage context", ""

    def __init__(self, store: str = USUAL) -> None:
        self._store = store

    def is_saved_in(self, path: Path) -> bool:
        return bool(stores_in(path))

    def read(self, path: Path) -> PersistedContext:
        return PersistedContext(path, self._store)

    def settings(self, like: Readable | None) -> Mapping[str, Any]:
        saved = getattr(like, "saved", None)
        return saved.settings() if isinstance(saved, PersistedContext) else {}

    def save(self, path: Path, draft: Draft) -> None:
        entries = draft.entries()
        path.mkdir()
        docstore, old_ids, index_id = _docstore(Path(entries[LIKE])) if LIKE in entries else ({}, [], None)
        data = docstore.setdefault("docstore/data", {})
        marks = docstore.setdefault("docstore/metadata", {})
        there = set(draft.ids())
        for name in old_ids:
            if name not in there:
                data.pop(name, None)
                marks.pop(name, None)
        references: dict[str, str] = {}
        flat: dict[str, Any] = {}
        with (path / f"{USUAL}{SUFFIX}").open("w", encoding="utf-8") as file:
            file.write('{"embedding_dict": ')
            with _Object(file) as vectors:
                for page in draft.pages(PAGE):
                    for one, vector in page:
                        node, beside = _node(one)
                        references[one.id] = document = str(beside.get("ref_doc_id") or NONE)
                        data[one.id] = {DATA: node, TYPE: TYPES.get(str(node.get("class_name")), TYPES["TextNode"])}
                        if document != NONE:
                            marks.setdefault(one.id, {})["ref_doc_id"] = document
                        flat[one.id] = {name: value for name, value in beside.items() if name != NODE}
                        vectors.write(one.id, np.asarray(vector, np.float32).tolist())
            file.write(f', "text_id_to_ref_doc_id": {json.dumps(references)}, "metadata_dict": {json.dumps(flat)}}}')
        _refer(docstore, references)
        nodes = {name: name for name in references}
        struct: dict[str, Any] = {"index_id": index_id or str(uuid4()), "summary": None, "nodes_dict": nodes,
                                  "doc_id_dict": {}, "embeddings_dict": {}}  # fmt: skip
        index = {struct["index_id"]: {TYPE: "vector_store", DATA: json.dumps(struct)}}
        images: dict[str, Any] = {"embedding_dict": {}, "text_id_to_ref_doc_id": {}, "metadata_dict": {}}
        for name, content in {
            "docstore.json": docstore,
            "index_store.json": {"index_store/data": index},
            "graph_store.json": {"graph_dict": {}},
            f"image{SUFFIX}": images,
        }.items():
            (path / name).write_text(json.dumps(content), encoding="utf-8")


class _Object:
    """Writes a JSON object entry by entry."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._between = file, ""

    def __enter__(self) -> _Object:
        self._file.write("{")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write("}")

    def write(self, name: str, value: Any) -> None:
        self._file.write(f"{self._between}{json.dumps(name)}: {json.dumps(value)}")
        self._between = ", "


def stores_in(folder: Path) -> list[str]:
    """Return the names of the vector stores in a folder, the default one first."""
    if not (folder / "docstore.json").is_file():
        return []
    names = [file.name.removesuffix(SUFFIX) for file in sorted(folder.glob(f"*{SUFFIX}"))]
    filled = [name for name in names if name != "image" or len(names) == 1]  # an empty one for images is always there
    if (folder / FIRST_VERSIONS).is_file():
        filled.append("")
    return sorted(filled, key=lambda name: name != USUAL)


def _flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a node as LlamaIndex's ``node_to_metadata_dict`` does, without the text."""
    content = {**node, "embedding": None}
    if "text" in content:
        content["text"] = ""
    content.pop("text_resource", None)
    source = (node.get("relationships") or {}).get("1") or {}
    document = (source.get("node_id") if isinstance(source, dict) else None) or NONE
    return {
        **(node.get("metadata") or {}),
        NODE: json.dumps(content, ensure_ascii=False),
        "_node_type": node.get("class_name") or "TextNode",
        "document_id": document,
        "doc_id": document,
        "ref_doc_id": document,
    }


def _node(one: StoredText) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return a row as the docstore has it, and as the vector store has its metadata."""
    if has_node(one):
        beside = {**one.columns, **one.metadata}
        return json.loads(node_with_text(one)[NODE]), beside
    held = fitted(one.entries(), lambda _, value: is_json(value))
    node = {"id_": one.id, "text": one.content, "metadata": held, "excluded_embed_metadata_keys": list(held),
            "class_name": "TextNode"}  # fmt: skip
    return node, {**held, "_node_type": "TextNode", "document_id": NONE, "doc_id": NONE, "ref_doc_id": NONE}


def _docstore(folder: Path) -> tuple[dict[str, Any], Sequence[str], str | None]:
    """Return the docstore of another folder, the ids of its vectors, and the id of its index."""
    if not (names := stores_in(folder)):
        return {}, [], None
    structs = _read(folder / "index_store.json").get("index_store/data", {})
    old = PersistedContext(folder, names[0])
    return _read(folder / "docstore.json"), list(old.ids()), next(iter(structs), None) if len(structs) == 1 else None


def _refer(docstore: dict[str, Any], references: Mapping[str, str]) -> None:
    """List the nodes of each document, which LlamaIndex deletes and refreshes by."""
    known = docstore.setdefault("docstore/ref_doc_info", {})
    for info in known.values():
        info["node_ids"] = [name for name in info.get("node_ids", []) if name in docstore["docstore/data"]]
    listed = {document: set(info["node_ids"]) for document, info in known.items()}
    for name, document in references.items():
        if document != NONE and name not in listed.setdefault(document, set()):
            listed[document].add(name)
            known.setdefault(document, {"node_ids": [], "metadata": {}})["node_ids"].append(name)


def _content(entry: Mapping[str, Any]) -> dict[str, Any]:
    data = entry.get(DATA, {})
    return dict(json.loads(data) if isinstance(data, str) else data)


def _vectors(text: str) -> Iterator[tuple[str, Vectors]]:
    """Yield the vectors of ``SimpleVectorStore`` one by one: as lists, all would take eight times their size.

    Raises:
        ValueError: the text is not what LlamaIndex writes.
    """
    decoder = json.JSONDecoder()
    place = text.index('"embedding_dict"')
    place = text.index("{", place) + 1
    while (place := _skipped(text, place)) < len(text) and text[place] == '"':
        name, place = decoder.raw_decode(text, place)
        place = _skipped(text, text.index(":", place) + 1)
        vector, place = decoder.raw_decode(text, place)
        yield name, np.asarray(vector, np.float32)
        place = _skipped(text, place)
        if text[place] == ",":
            place += 1
    if text[place] != "}":
        raise ValueError("no end")


def _skipped(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{file.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise Unreadable(f"{file.name} is not what LlamaIndex writes")
    return content
