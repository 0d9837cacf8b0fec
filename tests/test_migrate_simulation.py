"""A migration is killed at each of its effects, in turn, while others change the old collection.

The store is in memory and counts its effects: each page that is read, each row that is written, each change of a name.
Whatever happens, the next run ends with exactly the old collection's rows, each with the vector of its text, and no
text was ever embedded twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embedrouter import Router, migrate
from embedrouter.errors import ConfigError
from embedrouter.migrate._entry import read_entry
from embedrouter.retrieval.store_guard import recorded_space
from embedrouter.stores._transfer import StoredText
from embedrouter.testing import FakeBackend, MemoryCache
from tests.memory_stores import Collection, Killed, MemoryDatabase, World, text

OLD = FakeBackend(space="old", dimensions=4)
ROWS = [text(f"id-{number}", f"text {number % 6}", page=number) for number in range(8)]
"""Some texts are there twice."""
NEW_NAME = "handbook--new-8"


@pytest.fixture(autouse=True)
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


class Scene:
    """An old collection, the router of the new space, and what it was asked."""

    def __init__(self, rows: list[StoredText] = ROWS, *, can_switch: bool = True) -> None:
        self.world = World()
        self.database = MemoryDatabase(self.world, can_switch=can_switch)
        self.old = self.database.collections["handbook"] = Collection(self.database, "handbook")
        self.put(*rows)
        self.backend = FakeBackend(space="new", dimensions=8)
        self.cache = MemoryCache()

    def router(self) -> Router:
        """A new process: nothing but the cache is left of the one before."""
        return Router([self.backend.model("new:model", price="1")], cache=self.cache, ledger=":memory:")

    def run(self) -> migrate.Moved:
        return migrate.run(self.database, self.router(), collection="handbook")

    def put(self, *rows: StoredText) -> None:
        """Write rows as the user's program does, without an effect of the migration."""
        self.old.rows |= {row.id: (row, OLD.vector(row.text, "document")) for row in rows}

    def require_moved(self, name: str = NEW_NAME) -> None:
        """Assert that the new collection is as it is to be, and that no text was embedded twice."""
        new, router = self.database.collections[name], self.router()
        assert {one: row for one, (row, _) in new.rows.items()} == {one: row for one, (row, _) in self.old.rows.items()}
        for row, vector in new.rows.values():
            assert vector.tobytes() == self.backend.vector(row.text, "document").tobytes()
        assert recorded_space(new) == router.space
        asked = Counter(one for call in self.backend.calls for one in call.texts)
        assert not [one for one, times in asked.items() if times > 1]


def effects(make: Callable[[], Scene], act: Callable[[Scene], object]) -> int:
    """Return how many effects an act has."""
    scene = make()
    act(scene)
    return scene.world.position


def killed_everywhere(make: Callable[[], Scene], act: Callable[[Scene], object]) -> Iterator[Scene]:
    """Yield a scene for each effect of an act, killed there, and started again."""
    for position in range(effects(make, act)):
        scene = make()
        scene.world.restart(kill_at=position)
        with pytest.raises(Killed):
            act(scene)
        scene.world.restart()
        yield scene


def test_killed_at_each_effect_it_goes_on_and_pays_nothing_twice() -> None:
    for scene in killed_everywhere(Scene, Scene.run):
        moved = scene.run()
        scene.require_moved()
        assert moved.settled
        assert sum(len(call.texts) for call in scene.backend.calls) == 6, "as many as in one clean run"
        assert migrate.verify(scene.database, scene.router(), collection="handbook").passed


def test_killed_again_and_again_it_still_arrives() -> None:
    chance = random.Random(21)
    for _ in range(8):
        scene = Scene()
        for _ in range(5):
            scene.world.restart(kill_at=chance.randrange(36))
            with suppress(Killed):
                scene.run()
        scene.world.restart()
        scene.run()
        scene.require_moved()


def _delete_and_add(scene: Scene) -> None:
    scene.old.rows.pop("id-0")
    scene.put(text("id-0", "is back", page=7))


CHANGES: dict[str, Callable[[Scene], object]] = {
    "added": lambda scene: scene.put(text("id-new", "a new text", page=99)),
    "changed": lambda scene: scene.put(text("id-1", "another text", page=1)),
    "changed in its metadata alone": lambda scene: scene.put(text("id-2", "text 2", page=-1)),
    "deleted": lambda scene: scene.old.rows.pop("id-0"),
    "deleted and added": _delete_and_add,
}


def _changing(change: str, at: int) -> Scene:
    scene = Scene()
    scene.world.at = {at: lambda: CHANGES[change](scene)}
    return scene


LAST_PASS = 12
"""Effects of the pass that finds nothing to do: four pages, three comparisons, the ids of both, the end, the entry."""

FAST = ("added", "deleted and added")
"""Changes that are tried at every effect in the fast suite, too."""


@pytest.mark.parametrize(
    "change", [pytest.param(one, marks=[] if one in FAST else [pytest.mark.slow]) for one in CHANGES]
)
def test_a_change_during_the_run_is_found_by_a_later_pass(change: str) -> None:
    """At each effect before the last pass, which begins anew after it."""
    for at in range(effects(Scene, Scene.run) - LAST_PASS):
        scene = _changing(change, at)
        assert scene.run().settled
        assert not scene.world.at, "it was made"
        scene.require_moved()


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_and_a_kill_at_each_pair_of_effects(change: str) -> None:
    for at in range(0, effects(Scene, Scene.run), 29):
        for scene in killed_everywhere(partial(_changing, change, at), Scene.run):
            for make in scene.world.at.values():
                make()
            scene.world.at.clear()
            scene.run()
            scene.require_moved()


def switched(scene: Scene) -> migrate.Switched:
    return migrate.switch(scene.database, scene.router(), collection="handbook")


def undone(scene: Scene) -> migrate.Switched:
    return migrate.switch(scene.database, scene.router(), collection="handbook", undo=True)


def _filled() -> Scene:
    scene = Scene()
    scene.run()
    scene.world.restart()
    return scene


def _switched() -> Scene:
    scene = _filled()
    switched(scene)
    scene.world.restart()
    return scene


def test_a_switch_that_is_killed_is_finished_by_the_next_one() -> None:
    for scene in killed_everywhere(_filled, switched):
        switched(scene)
        assert set(scene.database.collections) == {"handbook", "handbook--old"}
        scene.require_moved("handbook")
        assert switched(scene).line == "", "once more changes nothing"


def test_the_way_back_that_is_killed_is_finished_by_the_next_one() -> None:
    """It was over before the last word was written where there is nothing to undo any more."""
    for scene in killed_everywhere(_switched, undone):
        with suppress(ConfigError):
            undone(scene)
        assert set(scene.database.collections) == {"handbook", NEW_NAME}
        assert scene.database.collections["handbook"] is scene.old
        scene.require_moved()
        entry = read_entry(scene.database.collections[NEW_NAME])
        assert entry is not None
        assert entry.state == "filled"


def test_after_a_switch_a_run_is_refused_because_it_would_remove_what_was_added() -> None:
    scene = _switched()
    with pytest.raises(ConfigError, match="would remove what was added"):
        scene.run()


def test_the_old_one_is_removed_when_it_lacks_nothing_of_its_rows_in_the_new_one() -> None:
    scene = _switched()
    scene.put(text("id-late", "written by a program that was not switched"))
    with pytest.raises(ConfigError, match="id-late"):
        migrate.drop_old(scene.database, scene.router(), collection="handbook")
    scene.old.rows.pop("id-late")
    migrate.drop_old(scene.database, scene.router(), collection="handbook")
    assert set(scene.database.collections) == {"handbook"}
    scene.require_moved("handbook")


def test_what_was_never_switched_is_never_removed() -> None:
    for scene in (_filled(), Scene()):
        with pytest.raises(ConfigError):
            migrate.drop_old(scene.database, scene.router(), collection="handbook")
        assert "handbook" in scene.database.collections


def test_the_old_collection_is_never_written_to() -> None:
    scene = Scene()
    before = {one: (row, np.array(vector)) for one, (row, vector) in scene.old.rows.items()}
    scene.run()
    migrate.verify(scene.database, scene.router(), collection="handbook")
    switched(scene)
    assert scene.old.entries == {}
    assert scene.old.rows.keys() == before.keys()
    for one, (row, vector) in scene.old.rows.items():
        assert row == before[one][0]
        assert vector.tobytes() == before[one][1].tobytes()
