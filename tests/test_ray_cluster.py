"""``examples/ray_bulk.py`` on a real Ray cluster of this machine: killed in the middle, and run again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedrouter import Model, Router
from tests.emulator import Emulator
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent.parent / "examples" / "ray_bulk.py"
SMALL = "text-embedding-3-small"
ROWS, FILES, IN_REQUEST = 320, 1, 10
PATIENCE = 240.0
"""Seconds for one run."""


@dataclass
class Cluster:
    """A head node with two processors, in a folder of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the node, which chooses its ports."""
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_ADDRESS": f"127.0.0.1:{_free_port()}",
            "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place),
            "OPENAI_API_KEY": "k",  # the actors have the environment of the node
            "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
            "RAY_DATA_USE_DATASOURCE_V2": "0",  # which starts four more processes to read a file
        }
        self._ray(
            "start", "--head", f"--port={self.environment['RAY_ADDRESS'].split(':')[1]}", "--num-cpus=2",
            "--include-dashboard=false", "--object-store-memory=100000000", f"--temp-dir={self.folder}",
            "--node-ip-address=127.0.0.1", "--disable-usage-stats",
        )  # fmt: skip

    def stop(self) -> None:
        """End the processes of this cluster alone."""
        while own := self.processes():
            for process in own:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)  # the head node ends the others, too

    def processes(self, name: bytes = b"") -> list[int]:
        """Return the processes that were started from this cluster's folder, or by one of these, of a name."""
        parents: dict[int, int] = {}
        lines: dict[int, bytes] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    lines[int(entry.name)] = (entry / "cmdline").read_bytes()
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
        roots = {process for process, line in lines.items() if str(self.folder).encode() in line}
        own = roots | {process for process, parent in parents.items() if parent in roots}
        return [process for process in own if name in lines[process]]

    def _ray(self, *arguments: str) -> None:
        program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        subprocess.run(program, env=environment, check=True, timeout=PATIENCE, capture_output=True)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="pip install 'embedrouter[ray]'")
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets are short
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(latency=0.3) as running:
        yield running


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for part in range(FILES):
        names = [f"{part}-{number}" for number in range(ROWS)]
        columns = {"id": names, "text": [f"This is document {name}." for name in names], "part": [part] * ROWS}
        schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("part", pa.int16())])
        pq.write_table(pa.table(columns, schema), folder / f"{part}.parquet", row_group_size=20)
    return folder


def configuration(tmp_path: Path, emulator: Emulator, budget: str, state: str = 'cache = "cache"') -> Path:
    file = tmp_path / "embedrouter.toml"
    file.write_text(
        f'{state}\nbudget = "{budget}"\n[[models]]\nmodel = "openai:{SMALL}"\ndimensions = 8\n'
        f'base_url = "{emulator.openai_url}"\nbatch_size = {IN_REQUEST}\nmax_concurrency = 1\n'
    )
    return file


def start(cluster: Cluster, tmp_path: Path, config: Path) -> subprocess.Popen[str]:
    arguments = [tmp_path / "documents", tmp_path / "vectors", "--config", config, "--batch-size", 40]
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), *map(str, arguments)],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(emulator: Emulator, requests: int, job: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while emulator.calls < requests:
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() - began < PATIENCE, "the actors send nothing"
        time.sleep(0.02)


def finished(job: subprocess.Popen[str]) -> str:
    printed, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, printed
    return printed


SLOWER = pytest.mark.skipif("EMBEDROUTER_ENGINES" not in os.environ, reason="a quarter of a minute: nox -s engines")


@pytest.mark.parametrize("shared", ["files", pytest.param("redis", marks=SLOWER)])
def test_a_job_that_is_killed_and_run_again_pays_for_the_rest_only_and_equals_one_process(
    shared: str, cluster: Cluster, emulator: Emulator, documents: Path, tmp_path: Path
) -> None:
    """An actor is killed while it embeds, and Ray starts it again; then the job. What was in flight is repeated."""
    with contextlib.ExitStack() as stack:
        state = 'cache = "cache"'
        if shared == "redis":
            state = f'state = "{stack.enter_context(RedisServer(tmp_path)).address}"'
        kill_and_repeat(cluster, emulator, documents, tmp_path, configuration(tmp_path, emulator, "1/day", state))


def kill_and_repeat(cluster: Cluster, emulator: Emulator, documents: Path, tmp_path: Path, config: Path) -> None:
    job = start(cluster, tmp_path, config)
    wait_for(emulator, 4, job)
    actors = cluster.processes(b"ray::MapWorker")
    assert actors
    os.kill(actors[0], signal.SIGKILL)
    wait_for(emulator, 14, job)
    job.kill()
    job.communicate()
    time.sleep(2)  # the cluster ends the actors
    before = emulator.calls
    assert before < ROWS * FILES / IN_REQUEST

    printed = finished(start(cluster, tmp_path, config))

    sent = Counter(text for request in emulator.received for text in request.texts)
    repeated = sum(sent.values()) - ROWS * FILES
    assert set(sent) == {text for file in documents.iterdir() for text in pq.read_table(file)["text"].to_pylist()}
    assert repeated <= 3 * IN_REQUEST  # one request of the actor, and one of each of two
    assert f"{FILES} files, " in printed
    assert "texts, " in printed

    written = pq.read_table(tmp_path / "vectors").sort_by("id")
    given = pq.read_table(documents).sort_by("id")
    assert written.drop_columns("embedding").equals(given)
    assert written.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    alone = Router(
        [Model(f"openai:{SMALL}", dimensions=8, base_url=emulator.openai_url, api_key="k")],
        cache=None,
        ledger=":memory:",
    )
    expected = alone.embed(given["text"].to_pylist(), input_type="document").vectors
    assert np.array_equal(np.array(written["embedding"].to_pylist(), np.float32), expected)

    after = emulator.calls
    finished(start(cluster, tmp_path, config))
    assert emulator.calls == after
    assert pq.read_table(tmp_path / "vectors").num_rows == ROWS * FILES


@SLOWER
def test_a_budget_that_is_used_up_ends_the_job_and_says_so(
    cluster: Cluster, emulator: Emulator, documents: Path, tmp_path: Path
) -> None:
    """Other errors of the router look the same: the whole story of the actor's traceback is in it."""
    job = start(cluster, tmp_path, configuration(tmp_path, emulator, "0.00001/day"))
    printed, _ = job.communicate(timeout=PATIENCE)

    assert job.returncode == 1
    assert "embedrouter.errors.BudgetExceededError: " in printed
    assert "per_day" in printed
    assert "What was answered is kept." in printed
    assert not (tmp_path / "vectors" / "0.parquet").exists()
