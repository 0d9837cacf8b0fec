"""The cache on a real Redis server: its addresses and clients, and what happens when the server fails."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel

from embedrouter import Router
from embedrouter.cache import Cache, StoreError, VectorCache, open_cache
from embedrouter.errors import CacheError, CacheWarning
from embedrouter.redis import SERVERS, RedisState
from embedrouter.testing import FakeBackend

from .command_line import run
from .redis_server import RedisServer

ROWS = {bytes([1, 2, 3, 4]) + number.to_bytes(20, "big"): bytes([number % 256]) * 6_000 for number in range(1_200)}
"""7 MB: more than one command takes."""
BESIDE = pytest.mark.filterwarnings("ignore::embedrouter.errors.CacheWarning")


def on(address: str) -> Cache:
    return open_cache(address, SERVERS)


def works(store: Cache) -> bool:
    """Return whether a store gives back what is put."""
    store.put_many(ROWS)
    return dict(store.get_many([*ROWS, b"\xff" * 24])) == ROWS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(condition: Callable[[], Any], within: float = 15) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within
        time.sleep(0.05)


# Addresses and clients


def test_rows_are_strings_under_a_prefix_for_a_time(server: RedisServer) -> None:
    """So that the server's own tools show, count and remove those of one model."""
    store = on(f"{server.address}?prefix=team&ttl=2")
    assert works(store)
    client = redis.Redis(port=server.port)

    assert client.dbsize() == len(ROWS)
    assert client.get(b"team:vector:01020304" + b"0" * 40) == ROWS[next(iter(ROWS))]
    assert 0 < client.pttl(b"team:vector:01020304" + b"0" * 40) <= 2_000
    assert dict(on(server.address).get_many(list(ROWS))) == {}
    brief = on(f"{server.address}?ttl=0.05")
    brief.put_many(ROWS)
    time.sleep(0.1)
    assert not brief.get_many(list(ROWS))


def test_a_user_with_a_password_and_rights_for_the_prefix_alone(server: RedisServer) -> None:
    """The rights that docs/cache.md names are enough; without them a call goes on, and says why."""
    client = redis.Redis(port=server.port)
    client.execute_command("ACL", "SETUSER", "cache", "on", ">p@ss", "~embedrouter:*", "+mget", "+mset", "+set")
    client.execute_command("ACL", "SETUSER", "reader", "on", ">p@ss", "~embedrouter:*", "+mget")
    store = on(f"redis://cache:p%40ss@127.0.0.1:{server.port}/0")

    assert works(store)
    store.require_room(10)  # type: ignore[attr-defined]
    fake = FakeBackend()
    reader = Router([fake.model()], cache=f"redis://reader:p%40ss@127.0.0.1:{server.port}/0", ledger=":memory:")
    with pytest.warns(CacheWarning, match="no permissions to run the 'mset' command"):
        reader.embed(["a"], input_type="document")
    with pytest.raises(CacheError, match="no permissions"):
        reader.cache.require_keeping(10)


def test_a_server_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """TLS as redis-py takes it; a certificate that nobody vouches for is refused."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    free = free_port()
    options = ["--tls-port", str(free), "--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-auth-clients", "no"]
    with RedisServer(tmp_path, *options, "--tls-key-file", str(tmp_path / "key.pem")):
        address = f"rediss://127.0.0.1:{free}/0"

        assert works(on(f"{address}?ssl_ca_certs={tmp_path / 'cert.pem'}"))
        with pytest.raises(StoreError, match=r"certificate verify failed|self.signed"):
            on(address).get_many(list(ROWS))


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    """As on one machine without a port."""
    with RedisServer(tmp_path, "--unixsocket", str(tmp_path / "socket")):
        assert works(on(f"unix://{tmp_path / 'socket'}?db=0"))


@pytest.mark.slow
def test_a_cluster_has_keys_on_all_of_its_nodes(tmp_path: Path) -> None:
    """By an address with ``cluster=true``, and by a client; with and without an end."""
    with ExitStack() as stack:
        nodes, buses = [], [free_port() for _ in range(3)]
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(buses[number])]
            nodes.append(stack.enter_context(RedisServer(tmp_path / str(number), *options)))
        clients = [redis.Redis(port=node.port) for node in nodes]
        for number, client in enumerate(clients):
            first, last = number * 5_500, min(16_383, number * 5_500 + 5_499)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        wait_until(lambda: all(_is_complete(client) for client in clients))

        store = on(f"{nodes[1].address}?cluster=true")
        assert works(store)
        store.close()
        assert works(store)
        assert all(client.dbsize() for client in clients)
        assert works(on(f"{nodes[1].address}?cluster=true&ttl=60&prefix=other"))
        cluster = redis.RedisCluster(host="127.0.0.1", port=nodes[2].port)
        assert works(RedisState(cluster, prefix="third").cache())
        cluster.close()


def _is_complete(client: redis.Redis) -> bool:
    told: Any = client.execute_command("CLUSTER INFO")
    return "ok" in (told.get("cluster_state", "") if isinstance(told, dict) else str(told))


# Failures


def asks(router: Router, number: int) -> tuple[float, int]:
    """Ask different queries, and return the longest and the number of cached ones."""
    longest, cached = 0.0, 0
    for one in range(number):
        began = time.monotonic()
        cached += sum(router.embed([f"query {one}"], input_type="query").cached)
        longest = max(longest, time.monotonic() - began)
    return longest, cached


def router_on(address: object, **settings: Any) -> Router:
    return Router([FakeBackend().model()], cache=address, ledger=":memory:", cache_memory=0, **settings)  # type: ignore[arg-type]


def test_a_server_that_is_gone_fails_no_call_is_told_once_and_found_again(server: RedisServer) -> None:
    """Without a restart of the program."""
    router = router_on(server.address)
    asks(router, 3)
    server.stop(signal.SIGKILL)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", CacheWarning)
        longest, cached = asks(router, 20)
    assert cached == 0
    assert longest < 1
    assert [str(one.message).partition(" (")[0].rpartition("could not be ")[2] for one in told] == ["read", "written"]
    server.start()  # with nothing in it
    asks(router, 3)

    assert asks(router, 3)[1] == 3


@pytest.mark.slow
@BESIDE
def test_a_suspended_server_delays_few_queries_and_each_for_a_bounded_time(server: RedisServer) -> None:
    """Of 100 queries one waits at the beginning, and then one at each trial."""
    router = router_on(f"{server.address}?socket_timeout=0.3")
    asks(router, 100)
    server.suspend()
    began = time.monotonic()
    longest, cached = asks(router, 100)
    took = time.monotonic() - began
    server.resume()

    assert cached == 0
    assert longest < 2
    assert took < 3
    wait_until(lambda: asks(router, 3)[1] == 3)


@pytest.mark.slow
def test_no_answer_is_taken_for_that_of_another_question(server: RedisServer) -> None:
    """Commands are given up in the middle, from many threads, and their answers come later."""
    store = on(f"{server.address}?socket_timeout=0.02")
    keys = list(ROWS)[:200]
    store.put_many({key: ROWS[key] for key in keys})
    ends = time.monotonic() + 2
    wrong: list[bytes] = []
    failed, read = Counter[str](), Counter[str]()

    def work(own: list[bytes]) -> None:
        while time.monotonic() < ends:
            try:
                found = store.get_many(own[:5])
            except StoreError as error:
                failed[error.kind.__name__] += 1
            else:
                read["rows"] += len(found)
                wrong.extend(key for key, row in found.items() if row != ROWS[key])
            own.append(own.pop(0))

    threads = [threading.Thread(target=work, args=(keys[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    while time.monotonic() < ends:
        time.sleep(0.05)
        server.suspend()
        time.sleep(0.05)
        server.resume()
    for thread in threads:
        thread.join()

    assert not wrong
    assert failed["TimeoutError"] > 5
    assert read["rows"] > 1_000


async def test_calls_of_an_event_loop_block_it_nowhere(server: RedisServer) -> None:
    """They run in threads, also where the server is slow."""
    router = router_on(f"{server.address}?socket_timeout=0.3")
    await router.aembed(["a", "b"], input_type="query")
    assert (await router.aembed(["a", "b"], input_type="query")).cached == (True, True)
    server.suspend()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.warns(CacheWarning):
        await router.aembed(["a", "b"], input_type="query")
    ticking.cancel()
    server.resume()
    await router.aclose()

    assert ticks > 5


@BESIDE
def test_what_a_suspended_server_cannot_keep_the_folder_keeps(server: RedisServer, tmp_path: Path) -> None:
    """Nothing is paid twice on this machine."""
    fake = FakeBackend()
    router = Router([fake.model()], cache=[tmp_path / "folder", f"{server.address}?socket_timeout=0.3"])
    router.cache.must_keep = True
    server.suspend()
    router.embed(["a", "b"], input_type="document")
    server.resume()

    assert router.embed(["a", "b"], input_type="document").cached == (True, True)
    assert len(fake.calls) == 1


def test_a_full_server_keeps_what_it_has_and_commands_refuse_it(tmp_path: Path) -> None:
    """``noeviction``: vectors are returned, not kept, and that is told; ``allkeys-lru`` takes all."""
    with RedisServer(tmp_path, "--maxmemory", "5mb", "--maxmemory-policy", "noeviction") as server:
        store = on(server.address)
        cache = VectorCache(store)
        with pytest.raises(StoreError, match="maxmemory"):
            store.put_many(ROWS)
        with pytest.raises(CacheError, match=r"nothing was called. Give the server more memory|OOM"):
            cache.require_keeping(100_000_000)
        client = redis.Redis(port=server.port)
        client.config_set("maxmemory-policy", "allkeys-lru")

        cache.require_keeping(100_000_000)
        store.put_many(ROWS)
        found = store.get_many(list(ROWS))
        assert 0 < len(found) < len(ROWS)
        assert all(ROWS[key] == row for key, row in found.items())


@BESIDE
def test_a_replica_is_read_and_refuses_to_keep(server: RedisServer, tmp_path: Path) -> None:
    """As when an address leads to a server that has become one in a failover."""
    on(server.address).put_many(ROWS)
    redis.Redis(port=server.port).config_set("repl-diskless-sync-delay", 0)
    (tmp_path / "replica").mkdir()
    with RedisServer(tmp_path / "replica", "--replicaof", f"127.0.0.1 {server.port}") as replica:
        wait_until(lambda: len(on(replica.address).get_many(list(ROWS))) == len(ROWS))
        with pytest.raises(StoreError, match="read only"):
            on(replica.address).put_many(ROWS)
        with pytest.raises(CacheError, match="read only"):
            VectorCache(on(replica.address)).require_keeping(10)


@BESIDE
def test_bytes_of_another_server_are_no_rows(tmp_path: Path) -> None:
    """A port on which something else answers."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    router = router_on(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")

    assert asks(router, 3) == (pytest.approx(0, abs=1), 0)
    assert router.cache.failures
    listening.close()


@pytest.mark.slow
@BESIDE
def test_a_sentinel_leads_to_the_new_master_after_a_failover(tmp_path: Path) -> None:
    """The client of redis-py asks where the master is; rows that were replicated are hits again."""
    for name in ("one", "two", "sentinel"):
        (tmp_path / name).mkdir()
    with (
        RedisServer(tmp_path / "one") as master,
        RedisServer(tmp_path / "two", "--replicaof", f"127.0.0.1 {master.port}") as replica,
    ):
        file = tmp_path / "sentinel" / "sentinel.conf"
        file.write_text(
            f"sentinel monitor vectors 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds vectors 500\n"
            "sentinel failover-timeout vectors 2000\n"
        )
        port = free_port()
        watching = subprocess.Popen(
            ["redis-server", str(file), "--sentinel", "--port", str(port), "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            cwd=tmp_path / "sentinel",
        )
        try:
            sentinel = Sentinel([("127.0.0.1", port)], socket_timeout=1)
            wait_until(lambda: _replicas(sentinel))
            router = router_on(RedisState(sentinel.master_for("vectors", socket_timeout=1)).cache())
            asks(router, 20)
            wait_until(lambda: redis.Redis(port=replica.port).dbsize() == 20)
            master.stop(signal.SIGKILL)
            wait_until(lambda: asks(router, 20)[1] == 20, within=30)
        finally:
            watching.kill()
            watching.wait()


def _replicas(sentinel: Sentinel) -> Any:
    try:
        return sentinel.discover_slaves("vectors")
    except redis.RedisError:
        return None


def test_an_export_is_imported_into_a_server(server: RedisServer, tmp_path: Path) -> None:
    """So a team begins with the vectors that one of them has paid for."""
    fake = FakeBackend()
    texts = [f"text {number}" for number in range(20)]
    Router([fake.model()], cache=tmp_path / "folder").embed(texts, input_type="document")
    file = tmp_path / "rows.jsonl"
    assert run("cache", "export", file, "--cache", tmp_path / "folder").returncode == 0

    assert "20 rows were added to redis://" in run("cache", "import", file, "--cache", server.address).stdout
    assert "0 rows were added" in run("cache", "import", file, "--cache", server.address).stdout
    assert all(router_on(server.address).embed(texts, input_type="document").cached)
    server.stop()
    failed = run("cache", "import", file, "--cache", server.address)
    assert failed.returncode == 1
    assert "cannot be written" in failed.stderr
