"""``embedrouter embed``: what is read back is what the router gives, to the bit, and nothing is paid twice."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from embedrouter import Router
from embedrouter.cli._targets import _npy_header
from embedrouter.errors import CacheError, ConfigError
from tests.command_line import PROGRAM, environment
from tests.emulator import Emulator, Fault
from tests.read_only import read_only, small_disk
from tests.test_cli_money import answer, call, offline, place

__all__ = ["offline", "place"]

WORDS = ["one text", "another text", "ein Text mit ä\nund zwei Zeilen", "one text"]
FREE = "wordllama:l2_supercat_256"


@pytest.fixture
def words(offline: Path) -> Path:
    """A file of four texts, one of which is repeated."""
    path = offline / "words.jsonl"
    path.write_text("".join(json.dumps({"name": f"n{i}", "text": text}) + "\n" for i, text in enumerate(WORDS)))
    return path


def expected() -> np.ndarray[Any, Any]:
    with Router([FREE], cache=None, ledger=":memory:") as router:
        return router.embed(WORDS, input_type="document").vectors


def read_back(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return ids and vectors as others read them."""
    if path.suffix == ".npy":
        lines = path.with_name(f"{path.stem}.ids.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["id"] for line in lines], np.load(path)
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return list(frame["id"]), np.stack(list(frame["vector"]))
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in data.decode().splitlines()]
    return [row["id"] for row in rows], np.array([row["vector"] for row in rows], np.float32)


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.jsonl.gz", "out.npy"])
def test_what_is_read_back_is_what_the_router_gives(name: str, words: Path) -> None:
    """To the bit, in order, with the ids of the texts; the closing line adds up."""
    facts = answer("embed", words, "--id", "name", "--to", name, "--cache", "kept")
    ids, vectors = read_back(Path(name))

    assert ids == ["n0", "n1", "n2", "n3"]
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == expected().tobytes()
    assert (facts["done"], facts["embedded"], facts["recalled"], facts["repeated"]) == (4, 3, 0, 1)
    assert sorted(path.name for path in Path().glob("*out*")) == (
        ["out.ids.jsonl", "out.npy"] if name == "out.npy" else [name]
    )
    again = call("embed", words, "--id", "name", "--to", name, "--replace", "--cache", "kept").output
    assert "4 texts, 0 new, 4 from the cache" in again
    assert again.strip().endswith("B)")


def test_a_parquet_file_names_its_space_and_model(words: Path) -> None:
    answer("embed", words, "--to", "out.parquet", "--chunk-size", "2")
    file = parquet.ParquetFile("out.parquet")

    assert file.schema_arrow.field("vector").type.list_size == 256
    metadata = {name.decode(): value.decode() for name, value in file.schema_arrow.metadata.items()}
    assert metadata["embedrouter:space"] == "wordllama/l2_supercat_256"
    assert metadata["embedrouter:dimensions"] == "256"
    assert metadata["embedrouter:model"] == FREE
    assert file.num_row_groups == 2


def test_a_file_that_is_there_is_refused_before_anything_is_counted(words: Path) -> None:
    Path("out.npy").write_bytes(b"mine")
    done = call("embed", words, "--to", "out.npy")

    assert isinstance(done.exception, ConfigError)
    assert "exists already" in str(done.exception)
    assert Path("out.npy").read_bytes() == b"mine"


def test_a_file_cannot_be_written_where_nothing_can(place: Path, emulator: Emulator) -> None:
    """Before anything is paid: a folder that may only be read, that is missing, a disk that is too small."""
    (place / "shut").mkdir()
    with read_only(place / "shut") as shut, small_disk(place / "small", "1m") as small:
        for to in (shut / "out.npy", place / "missing" / "out.npy", small / "out.parquet"):
            done = call("embed", "corpus.jsonl", "--to", to, "--yes")
            assert isinstance(done.exception, ConfigError), done.output
            assert str(to) in str(done.exception)
    assert not emulator.received


def test_who_cannot_keep_pays_only_on_demand(place: Path, emulator: Emulator) -> None:
    """A run that is stopped would pay twice; what is cached needs no agreement."""
    (place / "cache").mkdir()
    (place / "cache" / "cache.db").write_bytes(b"")
    answer("embed", "corpus.jsonl", "--to", "one.npy", "--yes", "--cache", place / "cache")
    paid = len(emulator.received)
    (place / "more.txt").write_text("a text that is not cached")
    with read_only(place / "cache") as folder:
        cached = answer("embed", "corpus.jsonl", "--to", "two.npy", "--cache", folder)
        refused = call("embed", "more.txt", "--to", "three.npy", "--yes", "--cache", folder)
        assert isinstance(refused.exception, CacheError)
        assert len(emulator.received) == paid
        with pytest.warns(UserWarning, match="could not be written"):
            answer("embed", "more.txt", "--to", "three.npy", "--yes", "--cache", folder, "--uncached")

    assert cached["recalled"] == 200
    assert Path("one.npy").read_bytes() == Path("two.npy").read_bytes()
    assert len(emulator.received) == paid + 1
    assert np.load("three.npy").shape == (1, 1536)


def test_a_batch_is_waited_for_and_written(place: Path, emulator: Emulator) -> None:
    emulator.batches.automatic = True
    facts = answer("embed", "corpus.jsonl", "--to", "out.npy", "--batch", "--every", "0.01", "--yes")

    assert facts["recalled"] == 200
    assert np.load("out.npy").shape == (200, 1536)
    assert not emulator.received


@pytest.mark.slow
def test_lines_go_to_a_pipe(words: Path) -> None:
    """Nothing else does; what closes the pipe ends the run without a traceback."""
    command = [sys.executable, "-c", PROGRAM, "embed", str(words), "--to", "-"]
    done = subprocess.run(command, capture_output=True, env=environment(), check=True, timeout=60)
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert np.array([row["vector"] for row in rows], np.float32).tobytes() == expected().tobytes()
    assert done.stderr.decode().startswith("4 texts, ")

    with subprocess.Popen(
        [*command, "--chunk-size", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read().decode()
        assert process.wait(60) == 141, complaint
    assert not complaint


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_half_file_and_pays_for_nothing_twice(
    number: signal.Signals, place: Path, emulator: Emulator
) -> None:
    """The next run makes the file from the cache, and removes what the killed one left."""
    emulator.fault_for = lambda _: Fault.slow(0.05)
    Path("out.parquet").write_bytes(b"the one before")
    command = ("embed", "corpus.jsonl", "--to", "out.parquet", "--replace", "--yes", "--chunk-size", "20")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        while len(emulator.received) < 5:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert Path("out.parquet").read_bytes() == b"the one before"
    if number == signal.SIGINT:
        assert not list(Path().glob(".part*"))
    emulator.fault_for = None
    facts = answer(*command)
    assert not list(Path().glob(".part*"))
    texts = [text for request in emulator.received for text in request.texts]
    assert facts["embedded"] < 200
    assert len(texts) - len(set(texts)) <= 10  # the request in flight when the process was killed
    assert len(pd.read_parquet("out.parquet")) == 200
    assert Decimal(facts["usage"]["cost"]) > 0


@given(count=st.integers(0, 10**15), length=st.integers(1, 10_000))
def test_the_header_of_an_array_has_one_size(count: int, length: int) -> None:
    """It is written before the number of rows is known, and again at the end."""
    number = np.dtype(np.float32)
    assert len(_npy_header(count, length, number)) == len(_npy_header(0, length, number))
