"""The state of a migration: one entry in the metadata of the new collection, so that it is wherever the collection is.

The entry says which collection the new one is filled from, and, since a switch, where the old one is found. How far the
filling is follows from the rows of both collections and from the cache; it is written nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from ..errors import ConfigError
from ..retrieval.store_guard import Marked
from ..types import Space

ENTRY = "embedrouter:migration"

State: TypeAlias = Literal["filling", "filled", "switching", "switched", "undoing", "ended"]
"""Names are being changed while ``switching`` and ``undoing``; ``ended`` is without the old collection."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known about the migration that fills a collection.

    Attributes:
        alias: the name of the old collection in the user's programs.
        origin: the kind of the old store.
        name: of the new collection, as it was made.
        aside: the name of the old collection since the switch; ``None`` where no name was changed.
        records: names of indexes whose records were moved at the switch, with the space that they had.
        left_out: ids of the rows whose texts cannot be embedded, by the reason.
    """

    alias: str
    origin: str
    name: str
    state: State = "filling"
    aside: str | None = None
    records: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def switched(self) -> bool:
        """Whether the user's programs are to open the new collection, or names are being changed."""
        return self.state in ("switching", "switched", "undoing")

    def spaces(self) -> dict[str, Space]:
        """Return ``records`` as spaces."""
        return {name: Space(*space) for name, space in self.records.items()}


def read_entry(marked: Marked) -> Entry | None:
    """Return the entry of a collection, if a migration fills it or has filled it.

    Raises:
        ConfigError: the entry has another form.
    """
    found = marked.read().get(ENTRY)
    if not found:
        return None
    try:
        content: dict[str, Any] = json.loads(str(found))
        known = {item.name for item in fields(Entry)}
        entry = Entry(**{name: value for name, value in content.items() if name in known})
        return replace(entry, left_out={reason: tuple(ids) for reason, ids in entry.left_out.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{marked.title} has an entry {ENTRY!r} that no version of embedrouter known here has written. Remove the "
            "entry, or migrate into a collection of another name."
        ) from error


def write_entry(marked: Marked, entry: Entry) -> Entry:
    """Write the entry of a collection, in place of an earlier one; return it."""
    marked.write({ENTRY: json.dumps(asdict(entry), ensure_ascii=False)})
    return entry
