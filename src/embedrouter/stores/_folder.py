"""A folder with the files of a store: FAISS of LangChain, or what LlamaIndex's storage context has persisted."""

from collections.abc import Sequence

from ..retrieval.store_guard import Row, Unreadable
from . import _faiss_folder, _storage_context
from ._beside import FolderStore


class Folder(FolderStore):
    """Reads and writes the mark of a folder, and reads its vectors. The folder may be one that is not there yet."""

    kind, keeps = "a folder: FAISS of LangChain, a storage context of LlamaIndex", "the file `embedrouter.json`"

    def dimensions(self) -> int | None:
        return 0 if self.path.is_dir() and any(self.path.iterdir()) else None

    def sample(self, count: int) -> Sequence[Row]:
        if names := _faiss_folder.stores_in(self.path):
            return _faiss_folder.FaissFolder(self.path, names[0]).sample(count)
        if names := _storage_context.stores_in(self.path):
            return _storage_context.PersistedContext(self.path, names[0]).sample(count)
        raise Unreadable("it holds neither LangChain's index.faiss nor LlamaIndex's docstore.json")
