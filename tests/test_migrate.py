"""What a migration promises, case by case, with a store in memory; ``test_migrate_simulation.py`` kills it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedrouter
from embedrouter import Budget, Model, Router, migrate
from embedrouter.errors import (
    BudgetExceededError,
    CacheError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.migrate._lock import one_at_a_time
from embedrouter.migrate._migration import LONGEST_NAME, new_name
from embedrouter.retrieval.index_guard import IndexGuard, recorded, users_folder
from embedrouter.retrieval.store_guard import metadata
from embedrouter.stores._transfer import StoredText
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Space
from tests.emulator import Emulator, count_tokens
from tests.filled_stores import PAGES
from tests.memory_stores import Collection, MemoryDatabase, text
from tests.test_migrate_simulation import NEW_NAME, OLD
from tests.test_migrate_simulation import users_folder as own_users_folder

__all__ = ["own_users_folder"]

SMALL = "openai:text-embedding-3-small"
OLD_SPACE = Space("old", 4)


@pytest.fixture
def database() -> MemoryDatabase:
    """A store with the collection ``handbook``, in an old space."""
    made = MemoryDatabase()
    fill(made, [text(f"id-{number}", page, page=number) for number, page in enumerate(PAGES)])
    return made


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(space="new", dimensions=8)


@pytest.fixture
def router(backend: FakeBackend) -> Router:
    return fake(backend)


def fill(database: MemoryDatabase, rows: list[StoredText], name: str = "handbook") -> Collection:
    made = database.collections.setdefault(name, Collection(database, name))
    made.rows |= {row.id: (row, OLD.vector(row.text, "document")) for row in rows}
    return made


def fake(backend: FakeBackend, **settings: Any) -> Router:
    settings = {"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **settings}
    return Router([backend.model("new:model", price="1")], **settings)


def failed(verification: migrate.Verification) -> list[str]:
    return [check.name for check in verification.checks if check.passed is False]


# The plan


def test_the_plan_says_what_there_is_to_do_and_calls_and_makes_nothing(database: MemoryDatabase) -> None:
    fill(database, [text("twice", PAGES[0]), text("empty", "")])
    model = Model(SMALL, api_key="k", requests_per_minute=1, tokens_per_minute=1_000_000)
    router = Router([model], cache=MemoryCache(), ledger=":memory:")

    plan = migrate.plan(database, router, collection="handbook")

    assert database.names() == ["handbook"]
    assert plan.name == "handbook--text-embedding-3-small-1536"
    assert (plan.texts, plan.distinct, plan.done) == (len(PAGES) + 2, len(PAGES), 0)
    assert plan.estimate.unique == len(PAGES)
    assert plan.left_out == {"no text": ("empty",)}
    assert plan.cost() == plan.estimate.cost == router.estimate(PAGES, input_type="document").cost
    assert plan.cost(batch=True) == plan.batch_cost == router.estimate(PAGES, input_type="document", batch=True).cost
    assert plan.hours == pytest.approx(plan.estimate.requests / 60)
    assert plan.index_bytes > plan.texts * 1536 * 4
    shown = str(plan)
    assert "no text: 1 (empty)" in shown
    assert "by batch" in shown
    assert f"<td>{plan.name}, " in plan._repr_html_()


def test_what_is_moved_or_in_the_cache_counts_as_done(
    database: MemoryDatabase, router: Router, backend: FakeBackend
) -> None:
    router.embed(PAGES[:2], input_type="document")
    assert migrate.plan(database, router, collection="handbook").estimate.cached == 2
    migrate.run(database, router, collection="handbook")
    fill(database, [text("late", "One more page.")])

    plan = migrate.plan(database, router, collection="handbook")

    assert (plan.done, plan.estimate.unique) == (len(PAGES), 1)
    assert sum(len(call.texts) for call in backend.calls) == len(PAGES)


def test_the_package_leads_to_it_and_loads_it_when_it_is_used(database: MemoryDatabase, router: Router) -> None:
    code = "import embedrouter, sys; before = set(sys.modules); embedrouter.migrate.plan; print(*before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith("embedrouter.migrate")]
    assert embedrouter.migrate.plan(database, router, collection="handbook").texts == len(PAGES)
    assert asyncio.run(_in_a_loop(database, router)).settled


async def _in_a_loop(database: MemoryDatabase, router: Router) -> migrate.Moved:
    return await asyncio.to_thread(migrate.run, database, router, collection="handbook")


@pytest.mark.parametrize(
    ("alias", "old", "name"),
    [
        ("handbook", None, "handbook--text-embedding-3-small-1536"),
        ("handbook--old-4", OLD_SPACE, "handbook--text-embedding-3-small-1536"),
        ("handbook.jsonl", None, "handbook--text-embedding-3-small-1536"),
        ("The Handbook (2026)", None, "The-Handbook-2026--text-embedding-3-small-1536"),
        ("Ж", None, "index--text-embedding-3-small-1536"),
    ],
)
def test_the_new_name_carries_the_space(alias: str, old: Space | None, name: str) -> None:
    assert new_name(alias, Space("text-embedding-3-small", 1536), old) == name


def test_long_names_are_cut_and_stay_different() -> None:
    names = {new_name("h" * 60 + end, Space("sentence-transformers/all-MiniLM-L6-v2", 384)) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= LONGEST_NAME and name[-1].isalnum() for name in names)


# The run


def test_rows_keep_ids_texts_and_metadata(database: MemoryDatabase, router: Router, backend: FakeBackend) -> None:
    moved = migrate.run(database, router, collection="handbook")

    assert (moved.name, moved.rows, moved.written, moved.passes) == (NEW_NAME, len(PAGES), len(PAGES), 2)
    assert moved.usage.cost > 0
    new, old = database.collections[NEW_NAME], database.collections["handbook"]
    assert {one: row for one, (row, _) in new.rows.items()} == {one: row for one, (row, _) in old.rows.items()}
    assert new.entries.items() >= metadata(router).items()
    again = migrate.run(database, router, collection="handbook")
    assert (again.written, again.passes, again.usage.cost) == (0, 1, 0)


BAD = [text("empty", ""), text("nested", "A text.", deep={"a": 1})]


def test_rows_that_cannot_be_moved_are_an_error_before_anything_is_paid(
    database: MemoryDatabase, router: Router, backend: FakeBackend
) -> None:
    fill(database, BAD)
    with pytest.raises(InvalidInputError, match=r"no text: 1 \(empty\).*it is nested: 1 \(nested\).*--skip-bad"):
        migrate.run(database, router, collection="handbook")
    assert not backend.calls
    assert database.names() == ["handbook"]


def test_rows_that_are_left_out_are_named_by_each_step_and_moved_once_they_are_set_right(
    database: MemoryDatabase, router: Router
) -> None:
    fill(database, BAD)
    moved = migrate.run(database, router, collection="handbook", skip_bad=True)
    assert sorted(one for ids in moved.left_out.values() for one in ids) == ["empty", "nested"]
    assert "Left out: no text: 1 (empty)" in str(moved)
    verification = migrate.verify(database, router, collection="handbook")
    assert verification.passed
    assert "left out: no text: 1 (empty)" in str(verification)

    fill(database, [text("empty", "Now it has a text."), text("nested", "A text.")])
    assert failed(migrate.verify(database, router, collection="handbook")) == [], "they were left out on purpose"
    assert migrate.run(database, router, collection="handbook").left_out == {}
    assert len(database.collections[NEW_NAME].rows) == len(PAGES) + 2


def test_a_row_that_loses_its_text_leaves_the_new_collection(database: MemoryDatabase, router: Router) -> None:
    migrate.run(database, router, collection="handbook")
    fill(database, [text("id-1", "")])
    moved = migrate.run(database, router, collection="handbook", skip_bad=True)
    assert moved.removed == 1
    assert "id-1" not in database.collections[NEW_NAME].rows


class Refusing(FakeBackend):
    """Refuse requests with one text."""

    def embed(self, texts: Any, input_type: Any, *, timeout: float) -> Any:
        answer = super().embed(texts, input_type, timeout=timeout)
        if PAGES[3] in texts:
            raise InputRejectedError("no", indices=[list(texts).index(PAGES[3])])
        return answer


def test_a_text_that_the_model_refuses_is_named_and_not_asked_in_each_pass(database: MemoryDatabase) -> None:
    backend = Refusing(space="new", dimensions=8)
    with pytest.raises(InvalidInputError, match=r"refused by the model: 1 \(id-3\)"):
        migrate.run(database, fake(backend), collection="handbook")
    before = sum(PAGES[3] in call.texts for call in backend.calls)
    moved = migrate.run(database, fake(backend), collection="handbook", skip_bad=True)
    assert moved.left_out == {"refused by the model": ("id-3",)}
    assert moved.passes == 2
    assert sum(PAGES[3] in call.texts for call in backend.calls) == 2 * before


def test_too_long_texts_follow_the_policy_of_the_router(database: MemoryDatabase, emulator: Emulator) -> None:
    fill(database, [text("long", "word " * 9_000)])
    model = Model(SMALL, base_url=emulator.openai_url, api_key="k", dimensions=8)
    with pytest.raises(InvalidInputError, match=r"longer than the model takes: 1 \(long\).*on_too_long='mean'"):
        migrate.run(database, [model], collection="handbook", cache=MemoryCache(), ledger=":memory:")
    how = {"mean": "the vectors of their parts are averaged", "truncate": "only their beginning is embedded"}
    for policy, told in how.items():
        router = Router([model], cache=MemoryCache(), ledger=":memory:", on_too_long=policy)  # type: ignore[arg-type]
        moved = migrate.run(database, router, collection="handbook", name=f"by-{policy}")
        assert (moved.rows, moved.left_out, moved.shortened) == (8, {}, ("long",))
        assert f"Longer than the model takes: 1 (long); {told}." in str(moved)


def test_the_budget_covers_all_or_nothing_is_called(database: MemoryDatabase, backend: FakeBackend) -> None:
    with pytest.raises(BudgetExceededError):
        migrate.run(database, fake(backend, budget=Budget(total="0.00001")), collection="handbook")
    assert not backend.calls
    assert database.names() == ["handbook"]


def test_what_is_paid_for_must_be_kept(database: MemoryDatabase, backend: FakeBackend) -> None:
    with pytest.raises(CacheError):
        migrate.run(database, fake(backend, cache=None), collection="handbook")
    assert not backend.calls


def test_two_runs_of_one_migration_at_once_are_one_run(database: MemoryDatabase, router: Router) -> None:
    with one_at_a_time(database.place, NEW_NAME), pytest.raises(ConfigError, match="Another run fills"):
        migrate.run(database, router, collection="handbook")
    assert migrate.run(database, router, collection="handbook").settled


def _alter(database: MemoryDatabase) -> None:
    """A store that changes what it is given."""
    write = Collection.write_rows

    class Altering(Collection):
        def write_rows(self, rows: Any, vectors: Any) -> None:
            write(self, [StoredText(row.id, row.text, row.content, {"page": "7"}) for row in rows], vectors)

    database.collections[NEW_NAME] = Altering(database, NEW_NAME)


def test_a_store_that_does_not_keep_rows_as_they_are_is_told(database: MemoryDatabase, router: Router) -> None:
    _alter(database)
    with pytest.raises(ConfigError, match="does not keep these rows as they are: id-0"):
        migrate.run(database, router, collection="handbook")


def test_a_collection_that_changes_all_the_time_is_told(database: MemoryDatabase, router: Router) -> None:
    numbers = iter(range(100_000))

    def change() -> None:
        number = next(numbers)
        database.world.at[database.world.position + 1] = change
        fill(database, [text("busy", f"version {number}")])

    database.world.at[0] = change
    moved = migrate.run(database, router, collection="handbook")
    assert not moved.settled
    assert "keeps changing" in str(moved)


def test_a_store_that_cannot_write_is_told_with_the_next_action(
    database: MemoryDatabase, router: Router, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "write_rows", full)
        with pytest.raises(ConfigError, match=r"no space left on device.*run the same again"):
            migrate.run(database, router, collection="handbook")
    assert migrate.run(database, router, collection="handbook").rows == len(PAGES)
    asked = [one for call in backend.calls for one in call.texts]
    assert len(asked) == len(set(asked)), "no text is paid twice"


# What is in the new one's place


@pytest.mark.parametrize(
    ("entries", "rows", "error", "told"),
    [
        ({"embedrouter:space": "other", "embedrouter:dimensions": 8}, 0, SpaceMismatchError, "other"),
        ({}, 1, ConfigError, "no migration has written"),
        (
            {"embedrouter:migration": '{"alias": "another", "origin": "memory", "name": "x"}'},
            1,
            ConfigError,
            "filled from 'another'",
        ),
        ({"embedrouter:migration": "not ours"}, 1, ConfigError, "no version of embedrouter"),
    ],
)
def test_another_collection_in_its_place_is_not_touched(
    database: MemoryDatabase, router: Router, entries: dict[str, Any], rows: int, error: type[Exception], told: str
) -> None:
    other = fill(database, [text("x", "y")] * rows, NEW_NAME)
    other.entries |= entries
    with pytest.raises(error, match=told):
        migrate.run(database, router, collection="handbook")
    assert len(other.rows) == rows
    assert migrate.run(database, router, collection="handbook", name="free").rows == len(PAGES)


def test_a_collection_of_this_space_needs_no_migration(database: MemoryDatabase, router: Router) -> None:
    database.collections["handbook"].entries |= metadata(router)
    with pytest.raises(ConfigError, match="in the space new"):
        migrate.plan(database, router, collection="handbook")


def test_a_name_that_the_store_does_not_take_is_refused_by_the_plan(
    database: MemoryDatabase, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryDatabase, "fitting_name", lambda _, wanted: wanted.lower())
    with pytest.raises(ConfigError, match="takes no name like 'New'; it takes 'new'"):
        migrate.plan(database, router, collection="handbook", name="New")


def test_a_switch_says_what_programs_embed_with_and_the_way_back_what_the_old_one_lacks(
    database: MemoryDatabase, router: Router
) -> None:
    migrate.run(database, router, collection="handbook")
    done = migrate.switch(database, router, collection="handbook")
    assert "have to embed queries and further texts with new:model from now on" in str(done)
    assert migrate.plan(database, router, collection="handbook").switched
    fill(database, [text("added since", "a text")])
    back = migrate.switch(database, router, collection="handbook", undo=True)
    assert "with the old model again" in str(back)
    assert back.surplus == ("added since",)
    assert "Put them into the old one: the next run removes them." in str(back)


def test_another_store_may_take_the_new_collection(database: MemoryDatabase, router: Router) -> None:
    other = MemoryDatabase()
    settings: dict[str, Any] = {"collection": "handbook", "into": other}
    migrate.run(database, router, **settings)
    assert database.names() == ["handbook"]
    assert other.names() == [NEW_NAME]
    assert migrate.verify(database, router, **settings).passed

    done = migrate.switch(database, router, **settings)

    assert NEW_NAME in done.line
    assert other.place in done.line
    assert "again" in str(migrate.switch(database, router, undo=True, **settings))
    migrate.switch(database, router, **settings)
    migrate.drop_old(database, router, **settings)
    assert not database.names()
    assert other.names() == [NEW_NAME]


# The verification

SPOILED: dict[str, tuple[str, Callable[[Collection], object]]] = {
    "a row is missing": ("ids", lambda new: new.rows.pop("id-1")),
    "a row is too much": ("ids", lambda new: new.rows.update({"x": (text("x", "y"), new.rows["id-1"][1])})),
    "a text is another one": ("texts and metadata", lambda new: _spoil(new, text("id-1", "no", page=1), None)),
    "metadata differ": ("texts and metadata", lambda new: _spoil(new, text("id-1", PAGES[1], page=2), None)),
    "a vector is shorter": ("vectors", lambda new: _spoil(new, None, np.ones(7))),
    "a vector is not finite": ("vectors", lambda new: _spoil(new, None, np.full(8, np.nan))),
    "a vector is scaled in another way": ("vectors", lambda new: _spoil(new, None, 3 * new.rows["id-1"][1])),
    "a vector is of another model": (
        "the model's",
        lambda new: _spoil(new, None, FakeBackend(space="x", dimensions=8).vector(PAGES[1], "document")),
    ),
    "the mark is another one": ("space", lambda new: new.entries.pop("embedrouter:space")),
}


def _spoil(new: Collection, row: StoredText | None, vector: Any) -> None:
    was = new.rows["id-1"]
    new.rows["id-1"] = row or was[0], was[1] if vector is None else vector


@pytest.mark.parametrize("what", SPOILED)
def test_the_verification_finds_what_is_wrong_and_nothing_is_switched(
    what: str, database: MemoryDatabase, router: Router
) -> None:
    migrate.run(database, router, collection="handbook")
    assert migrate.verify(database, router, collection="handbook").passed
    name, spoil = SPOILED[what]
    new = database.collections[NEW_NAME]
    spoil(new)
    if name == "space":
        new.entries.pop("embedrouter:dimensions")

    verification = migrate.verify(database, router, collection="handbook")

    assert name in failed(verification)
    assert all(check.advice for check in verification.checks if check.passed is False)
    with pytest.raises(ConfigError, match="Nothing was switched"):
        migrate.switch(database, router, collection="handbook")
    assert "handbook" in database.names()
    migrate.switch(database, router, collection="handbook", force=True)
    assert "handbook--old" in database.names()


def test_the_store_must_find_what_it_holds(database: MemoryDatabase, router: Router) -> None:
    migrate.run(database, router, collection="handbook")
    database.collections[NEW_NAME].search = lambda vector, count: ["id-0"]  # type: ignore[method-assign]
    assert failed(migrate.verify(database, router, collection="handbook")) == ["search"]


def test_answers_are_compared_with_judgements_and_may_not_get_worse(tmp_path: Path) -> None:
    """From WordLlama, which knows what texts are about, to vectors that do not."""
    database = MemoryDatabase()
    docs = {f"id-{number}": page for number, page in enumerate(PAGES)}
    queries = {f"q{number}": page.split(".")[0].lower() for number, page in enumerate(PAGES)}
    qrels = {f"q{number}": {f"id-{number}": 1.0} for number in range(len(PAGES))}
    old = Router(["wordllama:l2_supercat_256"], cache=None, ledger=":memory:")
    handbook = fill(database, [text(name, page) for name, page in docs.items()])
    vectors = old.embed(list(docs.values()), input_type="document").vectors
    handbook.rows = {name: (row, vectors[place]) for place, (name, (row, _)) in enumerate(handbook.rows.items())}
    handbook.search = lambda vector, count: Collection.search(handbook, vector, 1)  # type: ignore[method-assign]
    new = fake(FakeBackend(space="new", dimensions=64))
    migrate.run(database, new, collection="handbook")
    made = database.collections["handbook--new-64"]
    made.search = lambda vector, count: Collection.search(made, vector, 1)  # type: ignore[method-assign]

    found = migrate.verify(database, new, collection="handbook", queries=queries, qrels=qrels, old=old)
    told = {check.name: check for check in found.checks}

    assert told["nDCG@10"].found.startswith("1.000 before")
    assert failed(found) == ["nDCG@10"]
    assert "overlap@10" in told["answers"].found
    after_alone = migrate.verify(database, new, collection="handbook", queries=queries, qrels=qrels)
    assert {check.name: check.passed for check in after_alone.checks}["nDCG@10"] is None
    with pytest.raises(SpaceMismatchError):
        migrate.verify(database, new, collection="handbook", queries=list(queries.values()), old=fake(OLD))


# The switch


def test_records_of_indexes_follow_and_come_back(database: MemoryDatabase, router: Router) -> None:
    """``RouterEmbeddings(…, index="handbook")`` of the new router would be refused otherwise."""
    IndexGuard(users_folder(), "handbook", OLD_SPACE).record()
    IndexGuard(users_folder(), "other", OLD_SPACE).record()
    migrate.run(database, router, collection="handbook")
    done = migrate.switch(database, router, collection="handbook")
    assert done.records == ("handbook",)
    assert recorded(users_folder()) == {"handbook": router.space, "other": OLD_SPACE}
    migrate.switch(database, router, collection="handbook", undo=True)
    assert recorded(users_folder()) == {"handbook": OLD_SPACE, "other": OLD_SPACE}


def test_a_store_that_cannot_switch_says_the_line_to_change(router: Router) -> None:
    database = MemoryDatabase(can_switch=False)
    fill(database, [text("a", "b")])
    migrate.run(database, router, collection="handbook")
    done = migrate.switch(database, router, collection="handbook")
    assert done.line == f"Change one line: collection_name={NEW_NAME!r}"
    assert str(migrate.switch(database, router, collection="handbook")) != ""
    with pytest.raises(ConfigError, match="was switched"):
        migrate.run(database, router, collection="handbook")
    migrate.drop_old(database, router, collection="handbook")
    assert database.names() == [NEW_NAME]


def test_what_has_not_run_cannot_be_verified_switched_or_undone(database: MemoryDatabase, router: Router) -> None:
    for act in (migrate.verify, migrate.switch, migrate.drop_old):
        with pytest.raises(ConfigError, match="has not run"):
            act(database, router, collection="handbook")
    migrate.run(database, router, collection="handbook")
    with pytest.raises(ConfigError, match="nothing to undo"):
        migrate.switch(database, router, collection="handbook", undo=True)


def test_from_one_migration_to_the_next(database: MemoryDatabase, router: Router) -> None:
    """The name does not grow, and the old collection of the first one is left alone."""
    migrate.run(database, router, collection="handbook")
    migrate.switch(database, router, collection="handbook")
    third = fake(FakeBackend(space="third", dimensions=5))
    assert migrate.run(database, third, collection="handbook").name == "handbook--third-5"
    migrate.switch(database, third, collection="handbook")
    assert set(database.names()) == {"handbook", "handbook--old", "handbook--old-2"}
    migrate.drop_old(database, third, collection="handbook")
    assert set(database.names()) == {"handbook", "handbook--old"}


# By batch


def test_the_batch_endpoint_embeds_at_its_price(database: MemoryDatabase, emulator: Emulator, tmp_path: Path) -> None:
    emulator.batches.instant = True
    model = Model(SMALL, base_url=emulator.openai_url, api_key="k", dimensions=8)
    router = Router([model], cache=tmp_path / "cache", retry=NO_WAITING)

    moved = migrate.run(database, router, collection="handbook", batch=True, every=0)

    tokens = sum(count_tokens("openai", page) for page in PAGES)
    assert moved.usage.cost == Decimal("0.01") * tokens / 1_000_000
    assert not [one for one in emulator.received if "embeddings" in one.endpoint], "none was sent live"
    assert migrate.verify(database, router, collection="handbook").passed
    router.close()


def test_a_batch_that_fails_is_not_made_up_for_at_the_live_price(
    database: MemoryDatabase, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.batches.instant = True
    emulator.batches.fail_lines(lambda line: True)
    model = Model(SMALL, base_url=emulator.openai_url, api_key="k", dimensions=8)
    router = Router([model], cache=tmp_path / "cache", retry=NO_WAITING)
    with pytest.raises(UnavailableError, match="0 of 7 texts"):
        migrate.run(database, router, collection="handbook", batch=True, every=0)
    router.close()


def test_a_model_without_a_batch_endpoint_is_told_before_anything_is_made(
    database: MemoryDatabase, router: Router
) -> None:
    with pytest.raises(ConfigError, match="batch"):
        migrate.run(database, router, collection="handbook", batch=True)
    assert database.names() == ["handbook"]
