"""A file that LangChain's ``InMemoryVectorStore`` has dumped; it holds no metadata of its own."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..retrieval.store_guard import Row, Unreadable
from ..router import Router
from ._rows import row, spread


class DumpedStore:
    """Reads the rows of a dump."""

    kind, keeps = "a file of LangChain's `InMemoryVectorStore`", "nowhere: name it with `index=`"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.title = f"The file {str(path)!r}"
        self.place = shlex.quote(str(path))

    def read(self) -> Mapping[str, Any]:
        return {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        raise ConfigError(f"{self.title} has no place for a mark. Name the store with index= of the adapter.")

    def dimensions(self) -> int | None:
        rows = self.sample(1)
        return len(rows[0].vector) if rows else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into a new store."

    def sample(self, count: int) -> list[Row]:
        try:
            kept = list(json.loads(self._path.read_bytes()).values())
            found = [kept[position] for position in spread(len(kept), count)]
            return [row(one["id"], one["text"], one["vector"], one.get("metadata")) for one in found]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable(f"it is not what InMemoryVectorStore.dump writes ({type(error).__name__})") from error
