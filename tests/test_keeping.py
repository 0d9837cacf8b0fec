"""Commands whose purpose is keeping vectors stop before they spend where nothing can be kept."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from embedrouter import Model, Router
from embedrouter.errors import CacheError, CacheWarning, ConfigError
from embedrouter.testing import FakeBackend, MemoryCache
from tests.cache_folders import fill
from tests.either import embed
from tests.emulator import Emulator
from tests.read_only import fill_up, read_only, small_disk
from tests.test_cli_money import TEXTS, answer, call, place

__all__ = ["place"]

READ_ONLY = "Give the right to write it and its folder; or copy the folder, and name the copy: cache=…."
ONE = "openai:text-embedding-3-small"


def refused(*command: str | Path) -> str:
    """Return the complaint of a command that fails."""
    done = call(*command, "--yes")
    assert done.exit_code == 1
    assert isinstance(done.exception, CacheError | ConfigError), done.exception
    return str(done.exception) + "".join(getattr(done.exception, "__notes__", ()))


@pytest.mark.parametrize("command", [["warm"], ["warm", "--batch"]])
def test_a_folder_that_may_only_be_read_is_refused_before_anything_is_paid(
    command: list[str], place: Path, emulator: Emulator
) -> None:
    """What is in it already is found: then nothing is to be kept, and the command succeeds."""
    fill(place / "cache")
    few = place / "few.jsonl"
    few.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:20]), "utf-8")
    answer("warm", few, "--cache", place / "cache", "--yes")
    paid = len(emulator.received)
    with read_only(place / "cache") as folder:
        complaint = refused(*command, "corpus.jsonl", "--cache", folder)
        facts = answer("warm", few, "--cache", folder, "--yes")

    assert "may only be read" in complaint
    assert "--batch" in command or complaint.endswith("nothing was called. " + READ_ONLY)
    assert facts["embedded"] == 0
    assert len(emulator.received) == paid
    assert not emulator.batches.ids


def test_a_disk_that_is_too_small_is_refused_before_anything_is_paid(place: Path, emulator: Emulator) -> None:
    """The disk, the limit of a process, and a folder that cannot be made."""
    with small_disk(place / "small", "1m") as disk:
        complaint = refused("warm", "corpus.jsonl", "--cache", disk)
        assert "are needed, and 7" in complaint
        assert "Free space" in complaint
        fill_up(disk)
        assert "nothing was called" in refused("warm", "corpus.jsonl", "--cache", disk)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        assert "are free" in refused("warm", "corpus.jsonl", "--cache", place / "limited")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.warns(CacheWarning, match="could not be read"):
        assert "nothing was called" in refused("warm", "corpus.jsonl", "--cache", "/proc/cache")

    assert not emulator.received


def test_a_disk_that_fills_in_the_middle_ends_the_run(
    place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the requests in flight. The message says how many texts are kept, and the next run continues."""
    with small_disk(place / "small", "2m") as disk:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40))
            complaint = refused("warm", "corpus.jsonl", "--cache", disk)
        with Router.from_config(place / "embedrouter.toml") as settings:
            assert settings.models
        kept = answer("estimate", "corpus.jsonl", "--cache", disk)["tiers"][0]["cached"]
    assert 0 < kept < 150
    assert f"{kept} of 200 texts are kept" in complaint
    assert "Free space on its disk" in complaint
    assert len(emulator.received) * 10 <= kept + 10 * 8


class Full(MemoryCache):
    """A store that is full after three writes."""

    writes = 0

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.writes += 1
        if self.writes > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put_many(values)


def test_a_library_call_goes_on_unless_it_must_keep(asynchronous: bool) -> None:
    """``embed`` returns what is paid for, and tells."""
    texts: Sequence[str] = [f"text {number}" for number in range(40)]
    fake = FakeBackend()
    model = fake.model(batch_size=2, max_concurrency=1, price="1")
    with (
        Router([model], cache=Full(), ledger=":memory:") as router,
        pytest.warns(CacheWarning, match="could not be written"),
    ):
        assert len(embed(router, asynchronous, texts, input_type="document")) == 40
    with Router([model], cache=Full(), ledger=":memory:") as router:
        router.cache.must_keep = True
        before = len(fake.calls)
        with pytest.raises(CacheError, match="nothing more is called"):
            embed(router, asynchronous, texts, input_type="document")
        assert len(fake.calls) - before == 4
        assert router.usage.requests == 4


def test_a_batch_is_not_submitted_where_its_vectors_would_be_lost(tmp_path: Path, emulator: Emulator) -> None:
    fill(tmp_path / "cache")
    model = Model(ONE, api_key="sk-test", base_url=emulator.openai_url)
    with (
        read_only(tmp_path / "cache") as folder,
        Router([model], cache=folder, ledger=tmp_path / "ledger.db") as router,
        pytest.raises(CacheError, match="may only be read"),
    ):
        router.submit_batch(["a text"])
    assert not emulator.batches.ids
