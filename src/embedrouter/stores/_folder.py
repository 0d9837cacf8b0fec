"""A folder with the files of a store: FAISS of LangChain, or what LlamaIndex's storage context has persisted."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cache import read_record, write_once
from ..errors import ConfigError
from ..retrieval.store_guard import Row, Unreadable
from ..router import Router
from . import _faiss_folder, _storage_context

FILE = "embedrouter.json"


class Folder:
    """Reads and writes the mark of a folder, and reads its vectors.

    Args:
        name: which of several stores in the folder.
    """

    kind, keeps = "a folder: FAISS of LangChain, a storage context of LlamaIndex", "the file `embedrouter.json`"

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path, self._name = path, name
        self.title = f"The folder {str(path)!r}"
        self.place = shlex.quote(str(path))

    def read(self) -> Mapping[str, Any]:
        file = self._path / FILE
        try:
            return dict(read_record(file))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"{file} cannot be read ({error}). Set it right, or embed the texts again.") from error

    def write(self, entries: Mapping[str, str | int]) -> None:
        try:
            folder = self._path.resolve() if self._path.is_dir() else self._path  # a link to nothing is refused
            write_once(folder / FILE, entries)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error}). Check the path and its rights.") from error

    def dimensions(self) -> int | None:
        return 0 if self._path.is_dir() and any(self._path.iterdir()) else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into another folder, or into this one after its files were removed."

    def sample(self, count: int) -> list[Row]:
        if names := _faiss_folder.stores_in(self._path):
            return _faiss_folder.sample(self._path, self._name or names[0], count)
        if names := _storage_context.stores_in(self._path):
            return _storage_context.sample(self._path, self._name or names[0], count)
        raise Unreadable("it holds neither LangChain's index.faiss nor LlamaIndex's docstore.json")
