"""A store in memory for the simulation of migrations: it counts its effects, and ends its process at one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedrouter import Router
from embedrouter.errors import ConfigError
from embedrouter.retrieval.store_guard import Row, metadata
from embedrouter.stores._transfer import Distance, NotSwitchable, Readable, StoredText
from embedrouter.types import Vectors

PAGE = 3
"""Rows at once, however many are asked for."""


class Killed(BaseException):
    """The process is killed. No handler of the package catches it, and nothing can be done after it."""


@dataclass
class World:
    """Counts the effects of all collections. Before and after each of them the process may be killed.

    Attributes:
        position: how many effects there were.
        kill_at: the effect before or after which the process is killed; ``None`` for never.
        at: what others do to the old collection at an effect.
    """

    position: int = 0
    kill_at: int | None = None
    at: dict[int, Callable[[], object]] = field(default_factory=dict)
    dead: bool = False

    def step(self) -> None:
        if self.dead or self.position == self.kill_at:
            self.dead = True
            raise Killed
        if (change := self.at.pop(self.position, None)) is not None:
            change()
        self.position += 1

    def restart(self, kill_at: int | None = None) -> None:
        self.position, self.kill_at, self.dead = 0, kill_at, False


def text(identifier: str, content: str, **entries: Any) -> StoredText:
    return StoredText(identifier, content, content, entries)


class Collection:
    """One collection; it holds what ``Writable`` promises."""

    kind = "memory"
    keeps = place = "nowhere"

    def __init__(self, database: MemoryDatabase, name: str) -> None:
        self.database = database
        self.name = name
        self.title = f"The collection {name!r}"
        self.rows: dict[str, tuple[StoredText, Vectors]] = {}
        self.entries: dict[str, Any] = {}

    def read(self) -> Mapping[str, Any]:
        return dict(self.entries)

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._step()
        self.entries |= entries
        self._step()

    def dimensions(self) -> int | None:
        return next((len(vector) for _, vector in self.rows.values()), None)

    def again(self, router: Router) -> str:
        return "embed the texts again."

    def sample(self, count: int) -> Sequence[Row]:
        return [Row(row.id, row.text, vector, row.content) for row, vector in list(self.rows.values())[:count]]

    def distance(self) -> Distance | None:
        return "cosine"

    def count(self) -> int:
        return len(self.rows)

    def pages(self, size: int) -> Iterator[Sequence[StoredText]]:
        """By positions, as stores do it that know no better: what is deleted meanwhile shifts the rest."""
        start, size = 0, min(size, PAGE)
        while True:
            self._step()
            page = [row for row, _ in list(self.rows.values())[start : start + size]]
            if not page:
                return
            yield page
            start += size

    def ids(self) -> Iterator[str]:
        self._step()
        yield from list(self.rows)

    def fetch(self, ids: Sequence[str]) -> Sequence[tuple[StoredText, Vectors]]:
        self._step()
        return [self.rows[one] for one in ids if one in self.rows]

    def search(self, vector: Vectors, count: int) -> Sequence[str]:
        alike = {name: row for name, (_, row) in self.rows.items() if len(row) == len(vector)}
        scores = {name: float(row @ vector / np.linalg.norm(row)) for name, row in alike.items()}
        return sorted(scores, key=lambda name: -scores[name])[:count]

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Row by row, so that a kill leaves a part of them."""
        for row, vector in zip(rows, vectors, strict=True):
            self._step()
            self.rows[row.id] = row, vector
        self._step()

    def remove(self, ids: Sequence[str]) -> None:
        for one in ids:
            self._step()
            self.rows.pop(one, None)

    def finish(self) -> None:
        self._step()

    def drop(self) -> None:
        self._step()
        del self.database.collections[self.name]
        self._step()

    def _step(self) -> None:
        self.database.world.step()


class MemoryDatabase:
    """Where the collections are."""

    kind = "memory"
    title = "The memory"
    named = None

    def __init__(self, world: World | None = None, *, can_switch: bool = True) -> None:
        self.world = world or World()
        self.place = f"memory-{id(self)}"
        self.collections: dict[str, Collection] = {}
        self.can_switch = can_switch

    def names(self) -> Sequence[str]:
        return list(self.collections)

    def fitting_name(self, wanted: str) -> str:
        return wanted

    def refusal(self, row: StoredText) -> str | None:
        return "it is nested" if any(isinstance(value, dict) for value in row.metadata.values()) else None

    def open(self, name: str) -> Collection:
        self.world.step()
        if name not in self.collections:
            raise ConfigError(f"There is no collection {name!r}.")
        return self.collections[name]

    def create(self, name: str, router: Router, like: Readable | None = None) -> Collection:
        self.world.step()
        made = self.collections.setdefault(name, Collection(self, name))
        made.entries |= metadata(router)
        self.world.step()
        return made

    def leads_to(self, alias: str) -> str | None:
        return None

    def switch(self, alias: str, to: str, aside: str) -> None:
        """In two steps, each of which may be the last one."""
        if not self.can_switch:
            raise NotSwitchable(f"Change one line: collection_name={to!r}")
        if aside not in self.collections:
            self.world.step()
            self._rename(alias, aside)
        if to in self.collections:
            self.world.step()
            self._rename(to, alias)
        self.world.step()

    def _rename(self, name: str, to: str) -> None:
        found = self.collections.pop(name)
        found.name, found.title = to, f"The collection {to!r}"
        self.collections[to] = found
