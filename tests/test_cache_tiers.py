"""Several stores as one cache: read in order, filled backwards, written to all; a store that fails hides no other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedrouter import Router
from embedrouter.cache import VectorCache
from embedrouter.cache._disk import DiskCache
from embedrouter.config import load
from embedrouter.description import describe
from embedrouter.errors import CacheError, CacheWarning, ConfigError
from embedrouter.redis import RedisCache, RedisState, open_caches
from embedrouter.router import settings_of
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Entry

from .command_line import run
from .either import embed

KEY, OTHER = b"\x01" * 24, b"\x02" * 24
ENTRY = Entry(np.arange(1, 9, dtype=np.float32), 3)
BESIDE = pytest.mark.filterwarnings("ignore::embedrouter.errors.CacheWarning")


class Failing(MemoryCache):
    """A store that fails as long as it is told to, and tells how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.fails, self.asked, self.clock = True, 0, [0.0]
        self.takes = 0.0
        """Seconds until it fails."""

    def _ask(self) -> None:
        self.asked += 1
        if self.fails:
            self.clock[0] += self.takes
            raise ConnectionError("gone")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self._ask()
        return dict(super().get_many(keys))

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self._ask()
        super().put_many(values)


def test_what_a_later_store_has_is_written_into_those_before() -> None:
    """And is not asked for again; new vectors are in all."""
    first, second = MemoryCache(), MemoryCache()
    VectorCache(second).write({KEY: ENTRY})
    cache = VectorCache([first, second])

    assert list(cache.read([KEY, OTHER], 8)) == [KEY]
    assert first.rows == second.rows

    cache.write({OTHER: ENTRY})

    assert set(first.rows) == set(second.rows) == {KEY, OTHER}


def test_a_damaged_row_of_the_first_store_is_looked_for_in_the_next_and_mended() -> None:
    """A damaged row is never copied."""
    first, second = MemoryCache(), MemoryCache()
    cache = VectorCache([first, second])
    cache.write({KEY: ENTRY, OTHER: ENTRY})
    first.rows[KEY] = b"damaged"
    second.rows[OTHER] = b"damaged"
    del first.rows[OTHER]

    assert list(cache.read([KEY, OTHER], 8)) == [KEY]
    assert cache.damaged == 2
    assert first.rows == {KEY: second.rows[KEY]}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_store_that_fails_hides_no_other_and_is_told_once(asynchronous: bool) -> None:
    """First or last in the list."""
    for stores in ([Failing(), MemoryCache()], [MemoryCache(), Failing()]):
        fake = FakeBackend()
        router = Router([fake.model()], cache=stores, ledger=":memory:", cache_memory=0)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", CacheWarning)
            for _ in range(3):
                embed(router, asynchronous, ["a", "b"], input_type="query")
        assert len(fake.calls) == 1
        assert 1 <= len(told) <= 2
        assert "gone" in str(told[0].message)
        assert router.cache.failures >= 1


@BESIDE
def test_vectors_that_must_be_kept_are_where_one_store_that_lasts_keeps_them(tmp_path: Path) -> None:
    """Which does not hold of memory."""
    failing = Failing()
    entries = {KEY: ENTRY}
    folder, lost = VectorCache([failing, DiskCache(tmp_path)]), VectorCache([failing, *open_caches("memory://here")])
    for cache in (folder, lost):
        cache.must_keep = True

    folder.require_keeping(100)
    assert folder.write(entries)
    assert not lost.write(entries)
    with pytest.raises(CacheError, match="gone"):
        raise lost.refusal()
    with pytest.raises(CacheError, match="outlives the process"):
        VectorCache(open_caches("memory://here")).require_keeping()
    with pytest.raises(CacheError, match="cannot keep"):
        VectorCache([DiskCache(Path("/proc/cache")), DiskCache(Path("/proc/other"))]).require_keeping()


@BESIDE
def test_a_store_that_lets_callers_wait_is_left_alone_for_a_while() -> None:
    """Of 100 calls in 100 seconds eight wait for it. One that fails at once is asked each time."""
    store = Failing()
    cache = VectorCache([store, MemoryCache()], clock=lambda: store.clock[0])
    store.takes = 2.0
    for _ in range(100):
        cache.read([KEY], 8)
        store.clock[0] += 1
    assert store.asked == 8
    store.fails = False
    store.clock[0] += 30
    cache.write({KEY: ENTRY})
    assert KEY in store.rows
    store.fails, store.takes, store.asked = True, 0.0, 0
    for _ in range(100):
        cache.read([KEY], 8)
    assert store.asked == 100


@BESIDE
def test_a_store_that_is_left_alone_is_tried_where_vectors_must_be_kept() -> None:
    """Otherwise a pause of the server would end a run of hours."""
    store = Failing()
    cache = VectorCache(store, clock=lambda: store.clock[0])
    cache.must_keep, store.takes = True, 2.0
    cache.read([KEY], 8)
    store.fails = False

    assert cache.write({KEY: ENTRY})


def test_the_files_of_a_router_are_in_the_first_folder_of_the_list(tmp_path: Path) -> None:
    """Ledger, names of models, names that servers report."""
    fake = FakeBackend()
    router = Router([fake.model()], cache=[MemoryCache(), tmp_path / "one", tmp_path / "two"])
    router.embed(["a"], input_type="document")
    router.close()

    assert router.cache.folder == tmp_path / "one"
    assert (tmp_path / "one" / "ledger.db").exists()
    assert not (tmp_path / "two" / "ledger.db").exists()
    assert [len(list((tmp_path / name / "models").iterdir())) for name in ("one", "two")] == [1, 1]


def test_the_server_of_the_state_is_the_cache_or_comes_after_what_is_named(tmp_path: Path) -> None:
    """Unless the list names a Redis server itself; and no cache stays no cache."""
    state = RedisState("redis://localhost:1/0?prefix=team&ttl=60")
    kinds = [
        [type(store) for store in open_caches(cache, state)] for cache in (tmp_path, None, [tmp_path, "redis://x"])
    ]

    assert [type(store) for store in Router([FakeBackend().model()], state=state).cache.stores] == [RedisCache]
    assert kinds == [[DiskCache, RedisCache], [], [DiskCache, RedisCache]]
    assert state.server.prefix == "team"
    assert state.ttl == 60


def test_a_configuration_file_names_several_caches(tmp_path: Path) -> None:
    """Relative folders start at the file."""
    file = tmp_path / "embedrouter.toml"
    file.write_text('models = ["wordllama:l2_supercat_256"]\ncache = ["vectors", "redis://cache:6379/0"]\n')

    router = Router.from_config(file)

    assert router.cache.folder == tmp_path / "vectors"
    assert router.cache.place == f"{tmp_path / 'vectors'}, redis://cache:6379/0"
    again = describe(settings_of(router), {})
    assert again["cache"] == [str(tmp_path / "vectors"), "redis://cache:6379/0"]


@pytest.mark.parametrize(
    "line", ['cache = ["vectors", "redis://evil"]', 'cache = "s3://evil"', 'state = "redis://evil"']
)
def test_a_file_that_was_found_puts_no_cache_on_a_server(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its author could answer with vectors of his own."""
    monkeypatch.chdir(tmp_path)
    Path("embedrouter.toml").write_text(f'models = ["wordllama:l2_supercat_256"]\n{line}\n')

    with pytest.raises(ConfigError, match="was found by search and"):
        load().router()


def test_no_password_is_written_or_shown(tmp_path: Path) -> None:
    """Not in messages, not in what a vector store keeps of a router."""
    address = "rediss://me:hunter22@cache:6379/0?password=hunter22"
    for settings in ({"cache": address}, {"cache": [tmp_path, address]}, {"state": address}):
        router = Router([FakeBackend().model()], **settings)
        written = json.dumps(describe(settings_of(router), {}))
        shown = f"{router.cache.place} {router.cache.stores!r} {written}"
        assert "hunter22" not in shown
        assert "only_in_code" in written
    for wrong in (
        "redis://me:hunter22@cache:port/0",
        "redis://cache/0?hunter22=1",
        "redis://cache/0?socket_timeout=hunter22",
    ):
        with pytest.raises(ConfigError) as raised:
            Router([FakeBackend().model()], cache=wrong).embed(["a"], input_type="document")
        assert "hunter22" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None or "hunter22" not in str(raised.value.__context__)


def test_commands_say_what_they_do_with_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    """Of a list they take the folder."""
    file = tmp_path / "here.toml"
    file.write_text('models = ["wordllama:l2_supercat_256"]\ncache = ["redis://cache:1", "vectors"]\n')

    assert f"Cache: {tmp_path / 'vectors'}" in run("cache", "info", "--config", file).stdout
    refused = run("cache", "verify", "--cache", "redis://cache:1")
    assert refused.returncode == 1
    assert "redis-cli --scan" in refused.stderr
