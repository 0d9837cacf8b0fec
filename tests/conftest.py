"""What most tests need: a provider on a loopback socket, and a machine without keys or caches of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.properties  # noqa: F401 - before any property is tested, so that its number of examples counts
from tests.emulator import Emulator

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "CO_API_KEY", "COHERE_API_KEY", "VOYAGE_API_KEY")
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_finish() -> None:
    """Leave what the imports made out of garbage collections, which otherwise look at millions of objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and caches of whoever runs the tests stay out of them."""
    for name in (*KEYS, "EMBEDROUTER_CONFIG", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user-data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    """Once with the synchronous form, once with the asynchronous one."""
    return bool(request.param)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the recordings and collections in {SHARED} are not published with the project")
    return SHARED
