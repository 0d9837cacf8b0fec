"""The examples for Daft and Spark, each in an environment of its own, against the emulator.

    python -m tests.environments tests/engines/daft.txt tests/engines/spark.txt

makes the environments; a test whose engine is not there is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.doc_environment import ROOT
from tests.emulator import Emulator, vector
from tests.environments import interpreter, ready

pytestmark = pytest.mark.slow

SMALL = "text-embedding-3-small"
ENGINES = ROOT / "tests" / "engines"
PATIENCE = 180


def python_of(engine: str) -> str:
    folder = ready(ENGINES / f"{engine}.txt")
    if folder is None:
        pytest.skip(f"{engine} is not here: python -m tests.environments tests/engines/{engine}.txt")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    return interpreter(folder)


@pytest.mark.parametrize("engine", ["daft", "spark"])
def test_an_engine_embeds_parquet_with_the_router_alone_and_pays_once(engine: str, tmp_path: Path) -> None:
    """In a second run everything is in the cache."""
    python = python_of(engine)
    texts = [f"This is document {number % 90}." for number in range(100)]
    (tmp_path / "documents").mkdir()
    for part in range(2):
        own = slice(part * 50, part * 50 + 50)
        columns = {"id": list(range(own.start, own.stop)), "text": texts[own]}
        pq.write_table(pa.table(columns), tmp_path / "documents" / f"{part}.parquet")
    with Emulator() as emulator:
        (tmp_path / "embedrouter.toml").write_text(
            f'cache = "cache"\n[[models]]\nmodel = "openai:{SMALL}"\ndimensions = 8\n'
            f'base_url = "{emulator.openai_url}"\n'
        )
        command = [python, str(ROOT / "examples" / f"{engine}_bulk.py")]
        command += [str(tmp_path / name) for name in ("documents", "vectors", "embedrouter.toml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENAI_API_KEY": "k"}
        environment |= {"PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1", "DO_NOT_TRACK": "1"}
        environment |= {"DAFT_ANALYTICS_ENABLED": "0"}
        for _ in range(2):
            ran = subprocess.run(
                command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            assert "100 rows. Spent: " in ran.stdout
        sent = [text for request in emulator.received for text in request.texts]

    assert set(sent) == set(texts)
    assert len(sent) <= 100  # texts of two partitions that are embedded at the same time may be sent twice
    written = pq.read_table(tmp_path / "vectors").sort_by("id")
    assert written["text"].to_pylist() == texts
    vectors = np.array(written["embedding"].to_pylist(), np.float32)
    assert np.array_equal(vectors, np.array([vector(SMALL, 8, None, text) for text in texts], np.float32))
