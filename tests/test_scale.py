"""What ``docs/scale.py`` computes is true to a real server and the cache; its page: ``test_generated_pages.py``."""

from __future__ import annotations

from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from embedrouter import Router
from embedrouter.testing import FakeBackend
from tests.doc_environment import ROOT
from tests.redis_server import RedisServer


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return import_module("scale")


def test_each_assumption_is_an_option(scale: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["--documents", "1_000_000", "--document_tokens", "100", "--cached", "1", "--queries", "20"])
    documents, _, _, queries, *_ = capsys.readouterr().out.strip().split("\n\n")

    small = next(line for line in documents.splitlines() if "3-small" in line)
    assert small.startswith("| openai:text-embedding-3-small | $2.00 | $1.00 | 0.33 |")
    assert Decimal("0.02") * 100 == 2
    assert all("| $0.00 |" in line for line in queries.splitlines()[2:])


@pytest.mark.parametrize("row", [400, 784, 2064, 4112, 6160, 12_304])
def test_the_memory_of_a_key_is_that_of_a_real_server(row: int, scale: ModuleType, tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    with RedisServer(tmp_path) as server, redis.Redis(port=server.port) as client:
        before = client.info("memory")["used_memory"]
        with client.pipeline(transaction=False) as pipeline:
            for number in range(2000):
                pipeline.set(b"embedrouter:vector:%048x" % number, bytes(row))
            pipeline.execute()
        measured = (client.info("memory")["used_memory"] - before) / 2000

    assert scale.redis_bytes(row) == pytest.approx(measured, rel=0.03, abs=32)  # of its table, which grows by doubling


@pytest.mark.parametrize("dimensions", [384, 1024, 1536])
def test_the_disk_of_a_row_is_what_an_estimate_says(dimensions: int, scale: ModuleType, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(1000)]
    with Router([FakeBackend(dimensions=dimensions).model()], cache=tmp_path) as router:
        estimated = router.estimate(texts, input_type="document").cache_bytes / 1000

    assert scale.folder_bytes(scale.row_size(dimensions, "float32")) == pytest.approx(estimated, rel=0.02)
