"""Runs the suites: ``python -m tests.frameworks``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.environments import CACHE
from tests.frameworks.suites import LIBRARY, LLAMA_INDEX, SUITES, Suite

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
PLUGINS = ("swapped_fakes", "no:cacheprovider", "no:benchmark", "no:codspeed", "no:recording")
OPTIONS = ("--rootdir=.", "-q", "-c", str(HERE / "pytest.ini"), *(f"-p{plugin}" for plugin in PLUGINS))

WHOSE: dict[str, tuple[str, ...]] = {"theirs": (), "ours": ("tests", *LIBRARY)}
"""The two runs of a suite, with the places whose fakes are replaced."""


class Unreachable(Exception):
    """PyPI does not answer, or has no source distribution of a release."""


@dataclass(frozen=True)
class Comparison:
    """What the tests of a suite did with their fakes and with ours.

    Attributes:
        theirs: the tests that pass with their fakes.
        ours: those of them that pass with our adapters.
        routed: those of them in which a router has embedded a text.
        lost: those that fail with ours and are not excepted.
        mended: those that are excepted and pass.
        log: the file with pytest's output of ours.
    """

    suite: Suite
    theirs: frozenset[str]
    ours: frozenset[str]
    routed: frozenset[str]
    log: Path

    @property
    def lost(self) -> list[str]:
        return sorted(self.theirs - self.ours - self.suite.excepted.keys())

    @property
    def mended(self) -> list[str]:
        return sorted(self.ours & self.suite.excepted.keys())

    @property
    def fine(self) -> bool:
        return bool(self.routed) and not self.lost and not self.mended

    def line(self) -> str:
        release = version(self.suite.distribution)
        numbers = (len(self.theirs), len(self.ours), len(self.routed), len(self.theirs - self.ours))
        return f"{self.suite.title:32}{release:>10}" + "".join(f"{number:>10}" for number in numbers)


HEADER = f"{'suite':32}{'release':>10}{'theirs':>10}{'ours':>10}{'routed':>10}{'fewer':>10}"


def download(distribution: str) -> Path:
    """Return the source distribution of the release that is installed, from PyPI once and then from the cache.

    Raises:
        Unreachable: there is none.
    """
    release = version(distribution)
    folder = CACHE / "sdists"
    file = folder / f"{distribution.replace('-', '_')}-{release}.tar.gz"
    if not file.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(folder), f"{distribution}=={release}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not file.exists():
            raise Unreachable(f"{distribution} {release}: {done.stderr.strip()[-500:] or 'no such file'}")
    return file


def unpack(suite: Suite, folder: Path, port: int | None) -> Path:
    """Unpack the tests alone, so that the package is the installed one; return the folder that holds ``tests``."""
    with tarfile.open(download(suite.distribution)) as archive:
        members = [item for item in archive.getmembers() if item.name.split("/")[1:2] == ["tests"]]
        archive.extractall(folder, members, filter="data")
    (root,) = folder.iterdir()
    if suite.database is not None:
        said, instead = suite.database
        for file in root.rglob("*.py"):
            text = file.read_text("utf-8")
            if said in text:
                file.write_text(text.replace(said, instead.format(port=port)), "utf-8")
    return root


def compare(suite: Suite, folder: Path, *, root: Path | None = None, port: int | None = None) -> Comparison:
    """Run the tests of a suite with their fakes and with ours, in two processes at the same time.

    Args:
        folder: an empty folder for tests, caches and logs.
        root: the folder that holds ``tests``; the source distribution's when left out.
        port: of a PostgreSQL server.

    Raises:
        Unreachable: the source distribution cannot be had.
    """
    root = root or unpack(suite, folder / "unpacked", port)
    running: dict[str, subprocess.Popen[bytes]] = {}
    for whose, places in WHOSE.items():
        given = [f"--swap={place}" for place in places]
        options = [
            *OPTIONS,
            f"--outcomes={folder / whose}.json",
            *given,
            *(["-k", suite.select] if suite.select else []),
        ]
        own = {"PYTHONPATH": os.pathsep.join(map(str, (SOURCE, HERE))), "PYTHONHASHSEED": "0"}
        own |= {f"XDG_{kind}_HOME": str(folder / f"{whose}-{kind}") for kind in ("CACHE", "DATA")}
        own |= {name: value.format(port=port, whose=whose) for name, value in suite.settings.items()}
        with (folder / f"{whose}.log").open("wb") as log:
            command = [sys.executable, "-m", "pytest", *options, *suite.paths]
            running[whose] = subprocess.Popen(command, cwd=root, env=os.environ | own, stdout=log, stderr=log)
    try:
        for process in running.values():
            process.wait()
    finally:
        for process in running.values():
            process.kill()
    passed: dict[str, frozenset[str]] = {}
    for whose in running:
        outcomes = _read(folder / f"{whose}.json", folder / f"{whose}.log")
        passed[whose] = frozenset(test for test, outcome in outcomes["outcomes"].items() if outcome == "passed")
    both = passed["theirs"] & passed["ours"]
    return Comparison(suite, passed["theirs"], both, both & frozenset(outcomes["routed"]), folder / "ours.log")


def _read(file: Path, log: Path) -> dict[str, dict[str, str]]:
    if not file.exists():
        raise RuntimeError(f"pytest did not come to its end:\n{log.read_text('utf-8', 'replace')[-3000:]}")
    found: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8"))
    return found


@contextmanager
def postgresql(folder: Path, port: int) -> Iterator[None]:
    """Run the PostgreSQL of ``pgserver``, which has pgvector, on a port of the loopback interface.

    ``pgserver`` itself makes its files and the user that root needs, and would listen on a Unix socket alone.
    """
    pgserver: Any = import_module("pgserver")
    server = pgserver.get_server(folder, cleanup_mode=None)
    options = {"pgdata": folder, "user": server.system_user}
    given = f"-h 127.0.0.1 -p {port} -k {folder} -F"  # without fsync: the files are thrown away
    pgserver.pg_ctl(["-w", "-o", given, "-l", str(folder / "log"), "restart"], **options)
    try:
        for name in WHOSE:
            pgserver.createdb(["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", name])
        yield
    finally:
        pgserver.pg_ctl(["-w", "-m", "immediate", "stop"], **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each suite; return the number of suites that are not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.frameworks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="names of suites.py, all when left out")
    parser.add_argument("--llama-index", type=Path, metavar="FOLDER", help="llama-index-core of a checkout")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server and no test is left running
    if unknown := set(given.suites) - {suite.title for suite in SUITES}:
        parser.error(f"no suite {min(unknown)!r}; there are {', '.join(suite.title for suite in SUITES)}")
    chosen = [suite for suite in SUITES if not given.suites or suite.title in given.suites]
    done: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="frameworks-") as temporary, ExitStack() as opened:
        folder = Path(temporary)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        port = None
        if any(suite.database or suite.settings for suite in chosen):
            port = 5441
            opened.enter_context(postgresql(folder / "postgresql", port))
        places: list[tuple[Suite, Path | None]] = [(suite, None) for suite in chosen]
        if given.llama_index:
            places.append((LLAMA_INDEX, given.llama_index.resolve()))
        print(HEADER, flush=True)
        for number, (suite, root) in enumerate(places):
            own = folder / str(number)
            own.mkdir()
            result = compare(suite, own, root=root, port=port)
            done.append(result)
            print(result.line(), flush=True)
            for test in result.lost:
                print(f"  passes with their fake only: {test}")
            for test in result.mended:
                print(f"  passes, and need not be excepted: {test}")
            if result.lost:
                print(result.log.read_text("utf-8", "replace")[-20_000:])
    total = [sum(map(len, (getattr(item, kind) for item in done))) for kind in ("theirs", "ours", "routed")]
    print(f"{'together':42}" + "".join(f"{number:>10}" for number in total))
    for suite, _ in places:
        for test, reason in suite.excepted.items():
            print(f"excepted: {test.rpartition('::')[2]} of {suite.title}: {reason}")
    return sum(not item.fine for item in done)


if __name__ == "__main__":
    sys.exit(main())
