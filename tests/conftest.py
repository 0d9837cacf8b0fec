"""What most tests need: a provider on a loopback socket, and a machine without keys or caches of its own."""

from __future__ import annotations

import gc
import re
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx

import tests.properties  # noqa: F401 - before any property is tested, so that its number of examples counts
from embedrouter.providers._taken import dialect, reached
from tests.emulator import Emulator
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from tests.browser import Page

KEYS = (
    "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "CO_API_KEY", "COHERE_API_KEY", "VOYAGE_API_KEY", "GOOGLE_API_KEY",
    "GEMINI_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE",
)  # fmt: skip
ADDRESSES = (
    "OPENAI_BASE_URL", "OPENAI_API_BASE", "AZURE_OPENAI_ENDPOINT", "CO_API_URL", "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
)  # fmt: skip
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
       "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
       "AWS_CA_BUNDLE")  # fmt: skip
SHARED = Path(__file__).parents[2] / "shared"
MANY = 12
"""Cases of one test."""
LOADING_TORCH = ("test_examples.py", "test_local_backends.py", "test_readme.py")


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that load torch first and together: loading it takes seconds, and one worker is enough.

    Of a test with many cases in both forms each case is fast in one form, by turns, and slow in the other. Of more than
    a dozen cases that are left, half are slow: by a checksum of their names, as cases that stand by turns are alike.
    """
    items.sort(key=lambda item: item.path.name not in LOADING_TORCH)
    cases: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if "asynchronous" in given:
            case = re.sub(r"(?<=[\[-])a?sync(?=[]-])", "", item.nodeid)
            cases.setdefault(item.nodeid.partition("[")[0], {}).setdefault(case, []).append(item)
    for of_test in cases.values():
        for number, forms in enumerate(of_test.values()):
            if len(of_test) > 1 and len(forms) > 1:
                forms[number % 2].add_marker("slow")
    fast: dict[str, list[pytest.Item]] = {}
    for item in items:
        if "[" in item.name and item.get_closest_marker("slow") is None:
            fast.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases_of_one in fast.values():
        if len(cases_of_one) > MANY:
            for item in cases_of_one:
                if zlib.crc32(item.nodeid.encode()) % 2:
                    item.add_marker("slow")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell began in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what the imports made out of garbage collections, which otherwise look at millions of objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the keys and caches of this machine out of the tests."""
    for name in (*KEYS, *ADDRESSES, *AWS, "EMBEDROUTER_CONFIG", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("EMBEDROUTER_TAG", "")  # or the tests would be of this project
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user-data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # Google's SDK would look for a server of Google's own machines


@pytest.fixture(autouse=True)
def _servers_are_strangers() -> None:
    """Forget what this process has learned of servers: a later one may listen on the port of an earlier one."""
    dialect.clear()
    reached.clear()


SYNCHRONOUS = {
    "embedrouter/calls/_async.py": {"_on_the_loop"},
    "embedrouter/calls/_calls.py": {"run"},
    "embedrouter/calls/_wiring.py": {"wire"},
    "embedrouter/providers/_remote.py": {"embed"},
    "embedrouter/router.py": {"batches", "check_agreement", "close", "submit_batch"},
    "embedrouter/spending/_keeping.py": {"close", "writing"},
    "embedrouter/spending/_readings.py": {"left", "requests", "totals", "unconfirmed"},
    "tests/test_cancel.py": {
        "run_blocking"
    },  # effects without threads, so that each turn of the loop is the test's own
}
"""Functions of the synchronous form, by file: a test that calls one of them in an event loop means it."""


@pytest.fixture(autouse=True, scope="session")
def _nothing_blocks_an_event_loop() -> Iterator[None]:
    """Raise where an asynchronous call uses a file, a database or a socket on an event loop."""
    with blockbuster_ctx("embedrouter") as detector:
        for function in detector.functions.values():
            for file, names in SYNCHRONOUS.items():
                function.can_block_in(file, names)
        acquire = detector.functions["threading.Lock.acquire"]
        acquire.deactivate()
        acquire.can_block_predicate = is_short
        acquire.activate()
        yield


def is_short(lock: Any, blocking: bool = True, timeout: float = -1) -> bool:
    """Return whether a lock is free, or free again at once: no call may wait for one that is held for long."""
    if not blocking or timeout == 0 or not lock.locked():
        return True
    free = lock.acquire(timeout=0.05)
    if free:
        lock.release()
    return bool(free)


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


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of this process, each of which has a prefix of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    from tests.browser import chromium, program  # which Windows cannot import

    path = program()
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with chromium(path) as page:
        yield page
