"""A folder with the files of a store: FAISS of LangChain, or what LlamaIndex's storage context has persisted."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..retrieval.store_guard import Row, Unreadable
from ..router import Router
from . import _faiss_folder, _storage_context
from ._beside import in_folder, read_beside, write_beside


class Folder:
    """Reads and writes the mark of a folder, and reads its vectors. The folder may be one that is not there yet."""

    kind, keeps = "a folder: FAISS of LangChain, a storage context of LlamaIndex", "the file `embedrouter.json`"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.title = f"The folder {str(path)!r}"
        self.place = shlex.quote(str(path))

    def read(self) -> Mapping[str, Any]:
        return read_beside(in_folder(self._path))

    def write(self, entries: Mapping[str, str | int]) -> None:
        write_beside(in_folder(self._path), entries)

    def dimensions(self) -> int | None:
        return 0 if self._path.is_dir() and any(self._path.iterdir()) else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into another folder, or into this one after its files were removed."

    def sample(self, count: int) -> Sequence[Row]:
        if names := _faiss_folder.stores_in(self._path):
            return _faiss_folder.FaissFolder(self._path, names[0]).sample(count)
        if names := _storage_context.stores_in(self._path):
            return _storage_context.PersistedContext(self._path, names[0]).sample(count)
        raise Unreadable("it holds neither LangChain's index.faiss nor LlamaIndex's docstore.json")
