"""The pickle beside LangChain's FAISS index: the documents, and the ids in the order of the vectors.

A pickle can run any code when it is read, which is why LangChain asks for ``allow_dangerous_deserialization``. Here it
is read without running anything: the classes that it names are replaced by empty ones that only keep what is put into
them, and a pickle that names any other is refused.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..retrieval.store_guard import Unreadable

DOCSTORES = {"InMemoryDocstore", "Document"}
"""Classes that LangChain writes; in its releases they stood in different packages."""
LANGCHAIN = ("langchain", "langchain_core", "langchain_community", "langchain_classic", "langchain_schema")
OPAQUE = {("uuid", "SafeUUID"), ("copyreg", "_reconstructor")}
"""Classes of metadata whose value nothing here needs."""
PLAIN = {"uuid": ("UUID",), "datetime": ("datetime", "date", "time", "timedelta", "timezone"), "decimal": ("Decimal",)}
"""Immutable types that are built from plain data alone."""
PLAIN_BUILTINS: Mapping[str, type] = {kind.__name__: kind for kind in (set, frozenset, bytearray, complex)}


def read_documents(file: Path) -> tuple[dict[Any, dict[str, Any]], dict[int, Any]]:
    """Return the documents by id, each as its fields, and the ids by the position of the vector."""
    try:
        content = _PlainData(io.BytesIO(file.read_bytes())).load()
        docstore, ids = content
        kept = next(value for value in docstore.fields().values() if isinstance(value, dict))
        documents = {name: document.fields() for name, document in kept.items()}
        return documents, {int(position): name for position, name in ids.items()}
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(
            f"{file.name} is not what LangChain's FAISS.save_local writes ({type(error).__name__})"
        ) from error


class _PlainData(pickle.Unpickler):
    """Reads the docstore's own classes and plain data, and runs no code of the file's choice."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._made: dict[str, type] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what stands for a class.

        Raises:
            Unreadable: the pickle asks for anything else, which might run code.
        """
        ours = module.partition(".")[0] in LANGCHAIN and name in DOCSTORES
        if ours or (module, name) in OPAQUE or module.partition(".")[0] == "pathlib":
            return self._made.setdefault(name, _empty_class(name))
        if module == "builtins" and name in PLAIN_BUILTINS:
            return PLAIN_BUILTINS[name]
        if name in PLAIN.get(module, ()):
            return super().find_class(module, name)
        raise Unreadable(
            f"its pickle asks for {module}.{name}, which is no part of LangChain's docstore and might run code, so "
            "nothing of it was read. Embed the texts again from their source"
        )


def _empty_class(name: str) -> type:
    """Return a class that keeps what it is given; a new one for each file, because a pickle may change classes."""

    def keep(self: Any, state: Any) -> None:
        object.__setattr__(self, "kept", state)

    def fields(self: Any) -> dict[str, Any]:
        state = getattr(self, "kept", {})
        return state.get("__dict__", state) if isinstance(state, dict) else {}

    def create(kind: type, *_: Any, **__: Any) -> Any:
        return object.__new__(kind)

    methods: dict[str, Callable[..., Any]] = {"__new__": create, "__setstate__": keep, "fields": fields}
    return type(name, (), {**methods, "__init__": lambda self, *_, **__: None})
