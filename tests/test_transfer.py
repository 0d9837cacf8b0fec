"""Stores of a migration: what is read is what was written, and a name is given to another collection safely."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.retrieval.store_guard import Unreadable
from embedrouter.stores._draft import Draft
from embedrouter.stores._json_lines import JsonLinesFormat
from embedrouter.stores._reading import database, readable
from embedrouter.stores._transfer import Database, NotSwitchable, StoredText
from embedrouter.stores._whole import WholeDatabase
from tests.transfers import NAME, PLACES, contents, created, made, move, router, vectors_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
]

ODD: dict[str, Any] = {
    "none": None,
    "nested": {"a": [1, {"b": None}]},
    "empty": [],
    "mixed": [1, "a", 2.5],
    "texts": ["a", "b"],
    "large": 2**63,
    "infinite": math.inf,
    "time": datetime.datetime(2026, 11, 30, 9, 53, tzinfo=datetime.UTC),
    "nul": "a\0b",
    "#hash": 1,
    "": "no name",
    "chroma:own": True,
    "float": 1.0,
    "int": 1,
    "quote's": 'a "text"',
    "page_content": "not the text",
    "vector": "not the vector",
}
ROWS = [
    StoredText("plain", "A plain text.", "A plain text.", {"source": "a.md", "page": 3}),
    StoredText("it's", "Quotes' and a\nline break.", "Quotes' and a\nline break."),
    StoredText("7", "An id that is a number.", "An id that is a number.", {"source": "b.md"}),
    StoredText("007", "An id that looks like one.", "An id that looks like one.", {"page": None}),
    StoredText("0b5f4b5c-6a53-4e5e-9d2e-0c9d1f0e7a11", "A UUID.", "A UUID.", {"source": "a.md"}),
    StoredText("Ümlaut/日本", "Ünïcode 日本 🙂", "Ünïcode 日本 🙂", {"söurce": "ü"}),
    StoredText("odd", "Much metadata.", "Much metadata.", ODD),
]


HEAVY = ("lancedb", "faiss", "qdrant")
"""Packages that take seconds to import."""


def kinds(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in names]


@pytest.fixture(params=kinds(*PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with made(request.param, tmp_path) as found:
        yield found


def test_rows_are_read_as_they_were_written(place: Database) -> None:
    """Metadata that a store cannot hold, or that it drops silently, are kept beside; ids that it does not take, too."""
    assert [place.refusal(row) for row in ROWS] == [None] * len(ROWS)
    target = created(place)
    assert (contents(target), list(target.search(vectors_of(ROWS[:1])[0], 3))) == ({}, [])
    for _ in range(2):
        target.write_rows(ROWS, vectors_of(ROWS))

    def check() -> None:
        assert contents(target) == {row.id: (row.text, row.content, dict(row.metadata)) for row in ROWS}
        found = target.fetch([*(row.id for row in ROWS), "missing"])
        assert [row for row, _ in found] == ROWS
        np.testing.assert_allclose([vector for _, vector in found], vectors_of(ROWS), atol=1e-6)
        assert list(target.search(vectors_of(ROWS)[3], 1)) == [ROWS[3].id]

    check()
    target.finish()
    check()
    target = created(place)  # as a run that goes on
    check()
    assert target.name in place.names()
    with pytest.raises(SpaceMismatchError, match="is in the space"):
        created(place, space=router(128))


def test_a_row_replaces_the_one_with_its_id_and_rows_are_removed(place: Database) -> None:
    """Also entries of the old row that the new one has not; and in a store that was whole before."""
    target = created(place)
    target.write_rows(ROWS, vectors_of(ROWS))
    target.finish()

    changed = StoredText("plain", "Another text.", "Another text.", {"page": 4})
    target.write_rows([changed], vectors_of([changed]))
    target.remove(["7", "odd", "missing"])
    target.finish()

    assert contents(created(place)) == {
        row.id: (row.text, row.content, dict(row.metadata)) for row in [changed, *ROWS[1:2], *ROWS[3:6]]
    }
    ((_, vector),) = target.fetch(["plain"])
    np.testing.assert_allclose(vector, vectors_of([changed])[0], atol=1e-6)
    target.drop()
    assert place.names() == []


def numbered(numbers: range) -> list[StoredText]:
    return [StoredText(f"n{one}", f"Text {one}.", f"Text {one}.", {"n": one}) for one in numbers]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
def test_pages_end_where_the_rows_end(place: Database, count: int) -> None:
    target = created(place)
    if count:
        target.write_rows(numbered(range(count)), vectors_of(numbered(range(count))))
    target.finish()

    pages = list(target.pages(10))

    assert sorted(row.metadata["n"] for page in pages for row in page) == list(range(count))
    assert all(pages)
    assert target.count() == count


@pytest.mark.parametrize("kind", kinds("chroma", "qdrant", "lancedb", "jsonl"))
def test_rows_that_are_added_while_pages_are_read_move_no_old_row(kind: str, tmp_path: Path) -> None:
    """Every old row comes once; Qdrant orders by id, so new ones come in between."""
    with made(kind, tmp_path) as place:
        target = created(place)
        target.write_rows(numbered(range(20)), vectors_of(numbered(range(20))))
        seen: list[str] = []
        for number, page in enumerate(target.pages(3)):
            seen += [row.id for row in page]
            if number < 8:
                target.write_rows(more := numbered(range(100 + 3 * number, 103 + 3 * number)), vectors_of(more))
    assert {f"n{one}" for one in range(20)} <= set(seen)
    assert len(seen) == len(set(seen))


def test_what_another_program_has_added_is_read_in_the_next_pass(tmp_path: Path) -> None:
    """Also in a file, which is not watched while it is read."""
    file = tmp_path / "pages.jsonl"
    file.write_text('{"id": "a", "text": "One."}\n')
    with readable(file) as found:
        assert list(contents(found)) == ["a"]
        with file.open("a") as more:
            more.write('{"id": "b", "text": "Two.", "vector": [1.0]}\n')
        assert list(contents(found)) == ["a", "b"]
        assert [row.id for row, _ in found.fetch(["b"])] == ["b"]


# A name for another collection


@pytest.mark.parametrize("kind", kinds("chroma", "lancedb", "faiss", "llama-index", "jsonl", "parquet"))
def test_a_name_is_given_to_another_collection_and_back(kind: str, tmp_path: Path) -> None:
    with made(kind, tmp_path) as place:
        end = Path(place.named or "").suffix
        old, new, aside = (f"{name}{end}" for name in ("handbook", "handbook-64", "handbook-before"))
        for name, number in ((old, 1), (new, 2)):
            store = place.create(name, router())
            store.write_rows(numbered(range(number)), vectors_of(numbered(range(number))))
            store.write({"embedrouter:migration": name})
            store.finish()

        def state() -> dict[str, tuple[int, Any]]:
            return {
                name: ((store := place.open(name)).count(), store.read()["embedrouter:migration"])
                for name in place.names()
            }

        for _ in range(2):  # the second time changes nothing
            place.switch(old, new, aside)
            assert state() == {old: (2, new), aside: (1, old)}
        place.switch(old, aside, new)
        assert state() == {old: (1, old), new: (2, new)}
        with pytest.raises(ConfigError, match="There is no"):
            place.switch(old, f"none{end}", aside)
        assert state() == {old: (1, old), new: (2, new)}


@pytest.mark.slow
def test_a_switch_that_was_killed_between_its_two_steps_goes_on(tmp_path: Path) -> None:
    """In between the name leads nowhere: no program reads a wrong collection."""
    with made("lancedb", tmp_path) as place:
        for name in ("old", "new"):
            place.create(name, router()).finish()
        (tmp_path / "old.lance").rename(tmp_path / "aside.lance")

        place.switch("old", "new", "aside")

        assert place.names() == ["aside", "old"]


@pytest.mark.slow
def test_a_folder_behind_a_link_is_switched_by_turning_the_link(tmp_path: Path) -> None:
    with made("faiss", tmp_path) as place:
        for number, name in enumerate(["first", "second"], 1):
            store = place.create(name, router())
            store.write_rows(numbered(range(number)), vectors_of(numbered(range(number))))
            store.finish()
        (tmp_path / "handbook").symlink_to("first")
        assert place.leads_to("handbook") == "first"

        place.switch("handbook", "second", "first")

        assert (place.open("handbook").count(), place.open("first").count()) == (2, 1)
        place.switch("handbook", "first", "second")
        assert place.open("handbook").count() == 1


@pytest.mark.slow
def test_an_alias_of_qdrant_is_turned_and_a_collection_of_its_own_is_not(tmp_path: Path) -> None:
    with made("qdrant", tmp_path) as place:
        for name in ("first", "second"):
            place.create(name, router())
        place.switch("live", "first", "first")
        assert place.leads_to("live") == "first"
        place.switch("live", "second", "first")
        assert (place.leads_to("live"), place.open("live").name) == ("second", "second")
        with pytest.raises(NotSwitchable, match="collection_name='second'"):
            place.switch("first", "second", "aside")


# Stores that are saved as a whole


class _Killed(BaseException):
    pass


class _KilledWhileSaving(JsonLinesFormat):
    def save(self, path: Path, draft: Draft) -> None:
        path.write_text('{"id": "half')
        raise _Killed


def test_a_run_that_is_killed_while_it_saves_leaves_the_last_whole_store_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "handbook.jsonl"
    first = created(WholeDatabase(tmp_path, JsonLinesFormat(), file.name))
    first.write_rows(ROWS[:2], vectors_of(ROWS[:2]))
    first.finish()
    whole = file.read_bytes()

    killed = created(WholeDatabase(tmp_path, _KilledWhileSaving(), file.name))
    killed.write_rows(ROWS[2:4], vectors_of(ROWS[2:4]))
    with pytest.raises(_Killed):
        killed.finish()
    assert file.read_bytes() == whole

    again = created(WholeDatabase(tmp_path, JsonLinesFormat(), file.name))
    assert list(again.ids()) == [row.id for row in ROWS[:4]]
    again.finish()
    with readable(file) as found:
        assert list(found.ids()) == [row.id for row in ROWS[:4]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, f"{file.name}.embedrouter.json"]


def test_a_folder_is_there_again_after_a_kill_between_the_two_steps_of_its_replacement(tmp_path: Path) -> None:
    with made("llama-index", tmp_path) as place:
        target = created(place)
        target.write_rows(ROWS[:2], vectors_of(ROWS[:2]))
        target.finish()
        target.write_rows(ROWS[2:3], vectors_of(ROWS[2:3]))
    (tmp_path / NAME).rename(tmp_path / f".old-{NAME}")

    with made("llama-index", tmp_path) as place:
        target = created(place)
        target.finish()
        assert list(target.ids()) == [row.id for row in ROWS[:3]]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


# What others have written, and what cannot be kept


def test_files_of_others_are_read_with_all_their_fields(tmp_path: Path) -> None:
    """And a file without vectors has texts to embed, but nothing to search."""
    file = tmp_path / "pages.jsonl"
    file.write_text(
        '{"_id": 5, "title": "T", "text": "One.", "metadata": {"a": 1}}\n\n'
        '{"body": "Two.", "metadata": "a text", "tags": ["x"]}\n'
    )
    with readable(file) as found:
        assert contents(found) == {
            "5": ("One.", "One.", {"title": "T", "a": 1}),
            "2": ("Two.", "Two.", {"metadata": "a text", "tags": ["x"]}),
        }
        assert found.read() == {}
        with pytest.raises(Unreadable, match="texts without vectors"):
            found.search(vectors_of(ROWS[:1])[0], 1)
        with made("parquet", tmp_path) as place:
            target = created(place, found)
            move(found, target)
            assert contents(target) == contents(found)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (StoredText("a", "x", "x", {"path": Path("a")}), "Posix|Windows"),
        (StoredText("a", "x", "x", {1: "a"}), "is no text"),  # type: ignore[dict-item]
        (StoredText("a", "x", "x", {"a": 1}, {"a": 2}), "two values"),
        (StoredText("a", "\ud800", "\ud800"), "Unicode"),
    ],
)
def test_what_no_store_keeps_is_refused(row: StoredText, told: str, place: Database) -> None:
    reason = place.refusal(row)
    assert reason is not None
    assert any(part in reason for part in told.split("|"))


def test_an_empty_id_is_refused_by_chroma(tmp_path: Path) -> None:
    with made("chroma", tmp_path) as place:
        assert "empty" in str(place.refusal(StoredText("", "x", "x")))


def test_a_place_that_is_only_asked_for_is_not_made(place: Database, tmp_path: Path) -> None:
    """A plan names the new store, and makes none."""
    assert place.names() == []
    assert place.fitting_name("a b/c (64)")
    assert not list(tmp_path.rglob("*"))


def test_what_is_no_place_is_told_with_the_ways_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chroma:"), database(str(tmp_path / "missing")):
        pass
