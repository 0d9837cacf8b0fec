"""LanceDB: a table on a disk that this process reaches."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..retrieval.store_guard import Item, Row, Unreadable
from ..router import Router
from ._rows import only_one, row, spread, text_in


class LanceTable:
    """Reads and writes the metadata of a table's schema, and reads its rows."""

    kind, keeps = "LanceDB", "the metadata of the table's schema"
    place = "STORE"

    def __init__(self, table: Any) -> None:
        self._table = table
        self.title = f"The table {table.name!r}"

    def read(self) -> Mapping[str, Any]:
        self._table.checkout_latest()
        return {name.decode(): value.decode() for name, value in (self._table.schema.metadata or {}).items()}

    def write(self, entries: Mapping[str, str | int]) -> None:
        try:
            dataset = self._table.to_lance()
        except ImportError as error:
            raise ConfigError(
                f"{self.title} has no mark, and writing one needs {error.name or 'pylance'}. Run: pip install pylance; "
                "or create the table with metadata(router), as texts, in the metadata of its schema."
            ) from error
        dataset.update_schema_metadata({name: str(value) for name, value in entries.items()})

    def dimensions(self) -> int | None:
        if not self._table.count_rows():
            return None
        sizes = {size for field in self._table.schema if (size := getattr(field.type, "list_size", 0)) > 0}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return f"embed the texts again, into a table of another name, or after drop_table({self._table.name!r})."

    def sample(self, count: int) -> list[Row]:
        columns = [field.name for field in self._table.schema if getattr(field.type, "list_size", 0) > 0]
        column = only_one(columns, "columns of vectors", self.title)
        rows: list[Row] = []
        for position in spread(self._table.count_rows(), count):
            for fields in self._table.search().limit(1).offset(position).to_arrow().to_pylist():
                metadata = fields.get("metadata")
                rows.append(row(fields.get("id", position), text_in(fields), fields[column],
                                metadata if isinstance(metadata, dict) else None))  # fmt: skip
        if not rows:
            raise Unreadable("it is empty")
        return rows

    def put(self, items: Sequence[Item], vectors: Any) -> None:
        """Write rows as LangChain's store does; a row whose id is there is replaced.

        Raises:
            ConfigError: the table has other columns.
        """
        import pyarrow

        columns = {"id", "text", "vector", "metadata"}
        if set(self._table.schema.names) != columns:
            raise ConfigError(
                f"{self.title} has the columns {', '.join(self._table.schema.names)}, not those that are written "
                f"({', '.join(sorted(columns))}). Choose a table of another name: --collection NAME."
            )
        rows = pyarrow.Table.from_pylist(
            [
                {"id": item.id, "text": item.text, "vector": vector, "metadata": {"source": item.location}}
                for item, vector in zip(items, vectors, strict=True)
            ],
            schema=self._table.schema,
        )
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)


def find_table(store: Any) -> Any:
    """Return the table of a store, or the store itself if it is one; ``None`` for what is no store of LanceDB.

    Raises:
        ConfigError: there is no table yet.
    """
    try:
        table = store.get_table() if hasattr(store, "get_table") else getattr(store, "table", store)
    except Exception as error:
        if type(error).__name__ != "TableNotFoundError":
            raise
        table = None
    if table is None and "lancedb" in type(store).__name__.lower():
        raise ConfigError(
            "There is no table in LanceDB yet: the store makes it with the first texts. Add them, then mark it: "
            "guard(store, router, adopt=True)."
        )
    return table if hasattr(table, "to_lance") and hasattr(table, "count_rows") else None
