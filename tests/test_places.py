"""Where keys lie, in two tables: what was written last is found, and nothing else."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import diskcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrouter.cache import Folder
from embedrouter.cache import _places as places
from embedrouter.cache._disk import DiskCache, RawDisk

KEYS = [bytes([number]) * 20 for number in range(40)]
SAME_PLACE = [bytes([number]) * 12 + b"the same" for number in range(3)]
"""Their last eight bytes are equal: of a billion texts hardly two have such keys."""

values = st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=40))
steps = st.lists(st.tuples(st.sampled_from(["put", "remove", "open anew"]), values), max_size=20)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is full soon."""
    monkeypatch.setattr(places, "MOST_NEW", 10)


def counted(folder: Path) -> tuple[int, int, int]:
    with closing(sqlite3.connect(folder / "cache.db")) as database:
        return tuple(
            database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("Cache", "Places", "NewPlaces")
        )


@settings(deadline=None)
@given(steps=steps)
def test_what_was_written_last_is_found(steps: list[tuple[str, dict[bytes, bytes]]]) -> None:
    """As a dictionary would; and no row, and no place, is left over."""
    with tempfile.TemporaryDirectory() as place:
        folder, store, model = Path(place), DiskCache(place), dict[bytes, bytes]()
        for step, some in steps:
            match step:
                case "put":
                    store.put_many(some)
                    model |= some
                case "remove" if Folder(folder).exists:
                    assert Folder(folder).remove([row for row in Folder(folder).rows() if row.key in some]) == len(
                        model.keys() & some.keys()
                    )
                    model = {key: value for key, value in model.items() if key not in some}
                case "open anew":
                    store.close()
            assert store.get_many(KEYS) == model
            rows, old, new = counted(folder)
            assert rows == old + new == len(model)
            assert new <= 10
        store.close()


def test_rows_written_again_stay_in_their_place(tmp_path: Path) -> None:
    """Nothing grows."""
    store = DiskCache(tmp_path)
    for number in range(5):
        store.put_many(dict.fromkeys(KEYS, bytes([number]) * 1000))
    store.close()

    assert counted(tmp_path) == (len(KEYS), len(KEYS), 0)


def test_a_row_that_others_removed_is_found_when_it_is_written_again(tmp_path: Path) -> None:
    """They know nothing of places: the old one leads nowhere, and must not hide the new one."""
    store = DiskCache(tmp_path)
    store.put_many(dict.fromkeys(KEYS, b"old"))
    with diskcache.Cache(str(tmp_path), disk=RawDisk) as cache:
        del cache[KEYS[3]]
    gone = store.get_many(KEYS[3:4])
    store.put_many({KEYS[3]: b"new"})

    assert gone == {}
    assert store.get_many(KEYS[3:4]) == {KEYS[3]: b"new"}
    assert counted(tmp_path) == (len(KEYS), len(KEYS) - 1, 1)
    store.close()


def test_of_keys_that_share_a_place_the_last_is_found(tmp_path: Path) -> None:
    """The others are absent: never the value of another key."""
    store = DiskCache(tmp_path)
    for key in SAME_PLACE:
        store.put_many({key: key})

    assert store.get_many(SAME_PLACE) == {SAME_PLACE[-1]: SAME_PLACE[-1]}
    assert store.get_many(SAME_PLACE[:1]) == {}
    store.close()


def test_the_rows_of_a_folder_of_diskcache_itself_are_found_and_can_be_removed(tmp_path: Path) -> None:
    """Their places are entered when they are missing."""
    with diskcache.Cache(str(tmp_path)) as cache:
        for key in KEYS:
            cache[key] = key
    store = DiskCache(tmp_path)
    assert store.get_many(KEYS) == {key: key for key in KEYS}
    store.put_many({KEYS[0]: b"new"})
    store.close()
    assert Folder(tmp_path).remove(list(Folder(tmp_path).rows())[:20]) == 20
    found = store.get_many(KEYS)
    store.close()

    assert found == {key: key for key in KEYS[20:]}


def test_removing_from_a_folder_without_places(tmp_path: Path) -> None:
    """The command line may be the first to open it."""
    with diskcache.Cache(str(tmp_path)) as cache:
        for key in KEYS:
            cache[key] = key
    folder = Folder(tmp_path)

    assert folder.remove(list(folder.rows())[:1]) == 1
    assert DiskCache(tmp_path).get_many(KEYS).keys() == set(KEYS[1:])
