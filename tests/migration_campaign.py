"""Migrations between real stores, killed at random moments while the old collection changes.

    python -m tests.migration_campaign --texts 20000 --kills 5 chroma:jsonl jsonl:chroma

Each pair is an old store in WordLlama's space, and ``embedrouter migrate`` in a process of its own that embeds with the
emulator's text-embedding-3-small. The process is killed (SIGKILL) at random moments, which are told by the number of
requests so far; after each kill rows are added, changed and deleted in the old store, and the command is given again.
In the end the new collection has exactly the old one's rows, every vector is that of its text, and the emulator has
billed each text once, but for requests that were under way at a kill: their answers were paid and never arrived.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrouter import Router
from embedrouter.stores._reading import database, readable
from embedrouter.stores._transfer import Readable, StoredText, Writable
from tests.command_line import environment
from tests.emulator import Emulator, count_tokens, vector
from tests.vector_stores import PostgreSQL

NAME = "handbook"
MODEL = "text-embedding-3-small"
DIMENSIONS = 64
CONCURRENCY = 2
PROGRAM = "from embedrouter.cli import main; main()"
WORDS = ("harbour", "tea", "rain", "ship", "crane", "quay", "rope", "salt", "gull", "mast")
CHANGED = 10
"""Rows that are added, changed and deleted after each kill."""
PATIENCE = 600.0
"""Seconds after which a process is killed that makes no more requests."""
UNDER_WAY = 10.0
"""Seconds that a request may be under way, on a busy machine: what was sent before that is in the cache."""
ARRIVING = 1.0
"""Seconds in which a request that was sent may arrive after its process is gone."""
TOLERANCE = 1e-6
"""Between numbers of vectors: stores that compare by cosine scale them to length 1."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of store in a folder.

    Attributes:
        new: what names a new one.
        there: what names it since.
        collection: the name of the collection; ``None`` where ``there`` names it.
        shared: whether programs may write while another one reads, so that rows change during a run, too.
    """

    new: str
    there: str
    collection: str | None = NAME
    shared: bool = False

    def at(self, place: Path | str, *, made: bool) -> str:
        return (self.there if made else self.new).format(place)


POSTGRES = "pgvector"
KINDS = {
    POSTGRES: Kind("{}", "{}", shared=True),
    "chroma": Kind("chroma:{}/db", "{}/db"),
    "qdrant": Kind("qdrant:{}/db", "{}/db"),
    "lancedb": Kind("lancedb:{}/db", "{}/db"),
    "jsonl": Kind("{}/handbook.jsonl", "{}/handbook.jsonl", None),
    "parquet": Kind("{}/handbook.parquet", "{}/handbook.parquet", None),
    "faiss": Kind("faiss:{}/handbook", "{}/handbook", None),
    "llama-index": Kind("llama-index:{}/handbook", "{}/handbook", None),
}


@dataclass(slots=True)
class Report:
    """What happened.

    Attributes:
        seconds: of the last run, which was not killed.
        billed: tokens that the emulator has billed, and those of one clean run of all texts that ever were.
        again: texts that were billed a second time.
        most: how many that may be: those of the requests under way at the kills.
    """

    pair: str
    rows: int
    seconds: float
    killed: int
    billed: int
    clean: int
    again: int
    most: int
    passes: int

    def __str__(self) -> str:
        return (
            f"{self.pair}: {self.rows:,} rows, killed {self.killed} times; billed {self.billed:,} tokens, a clean run "
            f"{self.clean:,}; {self.again:,} texts billed twice (at most {self.most:,}); {self.passes} passes in the "
            f"last run, {self.seconds:.0f} s"
        )


class Campaign:
    """One pair of stores.

    Args:
        folder: where everything is.
        pair: such as ``chroma:jsonl``; ``chroma:`` for a new collection in the same store.
        texts: rows of the old collection.
        batch_size: texts in one request.
    """

    def __init__(
        self,
        folder: Path,
        pair: str,
        texts: int,
        emulator: Emulator,
        seed: int,
        batch_size: int,
        new_database: Callable[[], str] = str,
    ) -> None:
        old, _, new = pair.partition(":")
        folders = {new: folder / "new", old: folder / "old"}
        places = {name: new_database() if name == POSTGRES else folders[name] for name in folders}
        self.pair, self.emulator, self.batch_size = pair, emulator, batch_size
        self.chance = random.Random(f"{pair}/{seed}")
        self.kind, self.new_kind = KINDS[old], KINDS.get(new)
        self.source = KINDS[old].at(places[old], made=True)
        self._new_source = KINDS[old].at(places[old], made=False)
        self.into = KINDS[new].at(places[new], made=False) if new else None
        self._into_there = KINDS[new].at(places[new], made=True) if new else self.source
        self.folder = folder
        self.kills: list[float] = []
        """When the process was killed."""
        self.said: dict[str, Any] = {}
        """What the last run has said."""
        self.texts, self.numbers = texts, iter(range(10**9))
        self.ever: dict[str, None] = {}
        """All texts that ever were."""
        (folder / "old").mkdir(parents=True)
        (folder / "new").mkdir()
        self.old = Router(["wordllama:l2_supercat_256"], dimensions=64, cache=None, ledger=":memory:")
        (folder / "embedrouter.toml").write_text(
            f'cache = "{folder / "kept"}"\ndimensions = {DIMENSIONS}\n[[models]]\nmodel = "openai:{MODEL}"\n'
            f'base_url = "{emulator.openai_url}"\napi_key_env = "CAMPAIGN_KEY"\n'
            f"max_concurrency = {CONCURRENCY}\nbatch_size = {batch_size}\n"
        )

    def row(self, identifier: str | None = None) -> StoredText:
        """Return a new row; one text in twenty is there already."""
        number = next(self.numbers)
        words = " ".join(self.chance.choices(WORDS, k=12))
        text = f"Page {number} about {words}."
        if self.ever and number % 20 == 0:
            text = next(iter(self.ever))
        self.ever[text] = None
        entries = {"page": number, "title": f"Title {number}", "draft": number % 2 == 0, "weight": number / 8}
        return StoredText(identifier or f"id-{number}", text, text, entries)

    def fill(self) -> None:
        """Fill the old store."""
        with database(self._new_source) as place:
            made = place.create(place.named or NAME, self.old)
            for start in range(0, self.texts, 1_000):
                self._write(made, [self.row() for _ in range(min(1_000, self.texts - start))])
            made.finish()

    def change(self) -> None:
        """Add, change and delete rows, as the user's program does."""
        with readable(self.source, self.kind.collection) as old:
            made = old.database.open(old.name)
            ids = self.chance.sample(sorted(made.ids()), 2 * CHANGED)
            self._write(made, [self.row() for _ in range(CHANGED)] + [self.row(one) for one in ids[:CHANGED]])
            made.remove(ids[CHANGED:])
            made.finish()

    def _write(self, made: Writable, rows: Sequence[StoredText]) -> None:
        made.write_rows(rows, self.old.embed([row.text for row in rows], input_type="document").vectors)

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        where = ["--into", self.into] if self.into else []
        named = ["--collection", self.kind.collection] if self.kind.collection else []
        given = ["migrate", self.source, "--to", str(self.folder / "embedrouter.toml"), *named, *where]
        variables = {"CAMPAIGN_KEY": "k", "XDG_DATA_HOME": str(self.folder / "data")}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *given, "--yes", "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**environment(), **variables},
        )  # fmt: skip

    def end(self) -> dict[str, Any]:
        """Run the command to its end; return what it says.

        Raises:
            AssertionError: it failed.
        """
        with self.start() as process:
            said, complaint = process.communicate(timeout=3600)
        assert process.returncode == 0, f"{self.pair}: {complaint}\n{said}"
        facts: dict[str, Any] = json.loads(said)
        return facts

    def killed(self, requests: int) -> bool:
        """Start the command, and kill it when the emulator has seen so many requests; return whether it still ran."""
        with self.start() as process:
            looked = time.monotonic()
            while process.poll() is None and len(self.emulator.received) < requests:
                if time.monotonic() - looked > PATIENCE:
                    break
                time.sleep(0.02)
                if self.kind.shared and self.chance.random() < 0.01:
                    self.change()
            time.sleep(self.chance.uniform(0, 0.5))
            running = process.poll() is None
            if running:
                os.kill(process.pid, signal.SIGKILL)
                self.kills.append(time.monotonic())
            said, complaint = process.communicate()
            assert running or process.returncode == 0, f"{self.pair}: {complaint}\n{said}"
            return running

    def play(self, kills: int) -> Report:
        """Fill, kill, change, run to the end, and look."""
        self.fill()
        requests = self.texts // self.batch_size
        moments = sorted(self.chance.randrange(requests) for _ in range(kills))
        killed = 0
        for moment in moments:
            killed += self.killed(moment)
            self.change()
        began = time.monotonic()
        self.said = self.end()
        seconds = time.monotonic() - began
        self.look()
        asked = Counter(one for call in self.emulator.received for one in call.texts)
        again = self._billed_again()
        most = killed * CONCURRENCY * self.batch_size
        assert again <= most, f"{again} texts were embedded twice, at most {most} were under way"
        return Report(
            pair=self.pair,
            rows=self.texts,
            seconds=seconds,
            killed=killed,
            billed=self.emulator.billed["openai", MODEL],
            clean=sum(count_tokens("openai", one) for one in asked),
            again=again,
            most=most,
            passes=self.said["run"]["passes"],
        )

    def _billed_again(self) -> int:
        """Return how many texts were sent a second time.

        Raises:
            AssertionError: the first request with one was not under way at a kill.
        """
        first: dict[str, float] = {}
        again = 0
        for call in self.emulator.received:
            for one in call.texts:
                if one in first:
                    again += 1
                    late = [
                        moment for moment in self.kills if first[one] - ARRIVING <= moment <= first[one] + UNDER_WAY
                    ]
                    assert late, f"{one!r} was answered at {first[one]:.2f}, again at {call.at:.2f}: kills {self.kills}"
                first[one] = call.at
        return again

    def look(self) -> None:
        """Compare both collections, row by row, and each vector with a fresh one."""
        with readable(self.source, self.kind.collection) as old:
            rows = {row.id: row for page in old.pages(1_000) for row in page}
        with self._opened_new() as new:  # one after the other: a folder of Qdrant can be opened once
            assert sorted(new.ids()) == sorted(rows)
            assert new.count() == len(rows)
            for start in range(0, len(rows), 1_000):
                part = list(rows)[start : start + 1_000]
                kept = new.fetch(part)
                assert len(kept) == len(part)
                for row, stored in kept:
                    source = rows[row.id]
                    assert (row.text, row.content, row.entries()) == (source.text, source.content, source.entries())
                    fresh = vector(MODEL, DIMENSIONS, None, row.text)
                    assert np.abs(np.asarray(stored) - fresh).max() < TOLERANCE, row.id

    @contextmanager
    def _opened_new(self) -> Iterator[Readable]:
        """Open the new collection as the last run has named it."""
        name = str(self.said["plan"]["name"])
        if self.new_kind is None:
            with readable(self.source, self.kind.collection) as old:
                yield old.database.open(name)
        else:
            with readable(self._into_there, name if self.new_kind.collection else None) as found:
                yield found


def play(pair: str, texts: int, kills: int, *, seed: int = 0, batch_size: int = 64, latency: float = 0.05) -> Report:
    """Play one pair, in a folder that vanishes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # PostgreSQL is another user where this one is root
        emulator = stack.enter_context(Emulator(latency=latency))
        server = stack.enter_context(PostgreSQL(folder / "data")) if POSTGRES in pair else None
        address = server.new_database if server else str
        return Campaign(folder / "stores", pair, texts, emulator, seed, batch_size, address).play(kills)


def main() -> None:
    """Play the pairs of the command line, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pairs = given.pairs or [f"{old}:{new if new != old else ''}" for old in KINDS for new in KINDS]
    for pair in pairs:
        print(play(pair, given.texts, given.kills, seed=given.seed), flush=True)


if __name__ == "__main__":
    main()
