"""What the machine allows: the least that has to be done for each work, in a few lines and without checks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import itertools
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis
from numpy.typing import NDArray

from ..worker import Work
from .corpus import DIMENSIONS, NAME, ROUNDS, documents, fresh, matrix, queries

AT_ONCE = 500
"""Keys in one `IN`."""

REQUEST = 2048
"""Texts in one request, the most that OpenAI takes."""

Vector = NDArray[np.float32]


# What is known already


def _keys(texts: Sequence[str]) -> list[bytes]:
    return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]


@contextmanager
def _table() -> Iterator[sqlite3.Connection]:
    """Yield an empty table of vectors, as SQLite comes but for its write-ahead log."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder) / "vectors.db", check_same_thread=False)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, value BLOB)")
        yield connection


def _write(connection: sqlite3.Connection, keys: Sequence[bytes], vectors: Vector) -> None:
    rows = ((key, row.tobytes()) for key, row in zip(keys, vectors, strict=True))
    connection.executemany("INSERT INTO vectors VALUES (?, ?)", rows)
    connection.commit()


@contextmanager
def _filled(keys: Sequence[bytes], mapped: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a table of vectors; memory-mapped, which reads fastest, or as SQLite comes."""
    with _table() as connection:
        connection.execute(f"PRAGMA mmap_size = {2**30 * mapped}")
        _write(connection, keys, matrix(len(keys)))
        yield connection


def _read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[Vector]:
    for start in range(0, len(keys), AT_ONCE):
        asked = keys[start : start + AT_ONCE]
        marks = ",".join("?" * len(asked))
        for _, value in connection.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", asked):
            yield np.frombuffer(value, np.float32)


def sqlite_arrays(number: int, *, mapped: bool) -> Work:
    keys = _keys(documents(number))
    with _filled(keys, mapped) as connection:
        while True:
            yield lambda: list(_read(connection, keys))


def sqlite_lists(number: int) -> Work:
    keys = _keys(documents(number))
    with _filled(keys) as connection:
        while True:
            yield lambda: [vector.tolist() for vector in _read(connection, keys)]


def sqlite_queries(number: int) -> Work:
    """One at a time."""
    keys = _keys(queries(number))
    with _filled(keys) as connection:
        while True:
            yield lambda: sum(len(next(_read(connection, [key])).tolist()) > 0 for key in keys * ROUNDS)


def _on_redis(keys: Sequence[bytes], address: str) -> Any:
    """Return a client of a server that has the vectors."""
    client = redis.Redis.from_url(address)
    client.mset({key: row.tobytes() for key, row in zip(keys, matrix(len(keys)), strict=True)})
    return client


def redis_lists(number: int, redis: str) -> Work:
    keys = _keys(documents(number))
    client = _on_redis(keys, redis)
    while True:
        yield lambda: [np.frombuffer(row, np.float32).tolist() for row in client.mget(keys)]


def redis_queries(number: int, redis: str) -> Work:
    """One at a time."""
    keys = _keys(queries(number))
    client = _on_redis(keys, redis)
    while True:
        yield lambda: sum(len(np.frombuffer(client.get(key), np.float32).tolist()) > 0 for key in keys * ROUNDS)


def dictionary_tolist(number: int) -> Work:
    asked = queries(number)
    known = dict(zip(asked, matrix(number), strict=True))
    while True:
        yield lambda: sum(len(known[query].tolist()) > 0 for query in asked * ROUNDS)


def dictionary_list(number: int) -> Work:
    """What is kept are lists; they take five times the memory."""
    asked = queries(number)
    known = dict(zip(asked, matrix(number).tolist(), strict=True))
    while True:
        yield lambda: sum(len(known[query].copy()) > 0 for query in asked * ROUNDS)


def dictionary_array(number: int) -> Work:
    asked = queries(number)
    known = dict(zip(asked, matrix(number), strict=True))
    while True:
        yield lambda: sum(len(known[query].copy()) > 0 for query in asked * ROUNDS)


# What the API has to be asked for


def raw_documents(number: int, api: str, *, stored: bool = False) -> Work:
    """Every request at once, the fastest JSON there is, base64 to numpy; `stored`, also into a table of SQLite."""
    address = urlsplit(api)
    assert address.hostname is not None
    parts = -(-number // REQUEST)
    connections = [http.client.HTTPConnection(address.hostname, address.port) for _ in range(parts)]
    one_writer = Lock()

    def embed(connection: http.client.HTTPConnection, texts: list[str]) -> Vector:
        body = orjson.dumps({"model": NAME, "input": texts, "encoding_format": "base64"})
        headers = {"authorization": "Bearer sk-benchmark", "content-type": "application/json"}
        connection.request("POST", f"{address.path}/embeddings", body, headers)
        rows = orjson.loads(connection.getresponse().read())["data"]
        vectors = np.empty((len(rows), DIMENSIONS), np.float32)
        for row in rows:
            vectors[row["index"]] = np.frombuffer(base64.b64decode(row["embedding"]), np.float32)
        if stored:
            with one_writer:
                _write(table, _keys(texts), vectors)
        return vectors

    def embed_all(texts: list[str]) -> Vector:
        split = [texts[start : start + REQUEST] for start in range(0, len(texts), REQUEST)]
        return np.concatenate(list(pool.map(embed, connections, split)))

    with ThreadPoolExecutor(parts) as pool:
        for texts in fresh(number):
            with _table() as table:
                yield partial(embed_all, texts)


def sdk_documents(number: int, api: str) -> Work:
    """The SDK as it comes, lists out, with eight requests of the largest size at once."""
    from openai import OpenAI

    client = OpenAI(base_url=api, api_key="sk-benchmark")

    def embed(texts: list[str]) -> list[list[float]]:
        return [row.embedding for row in client.embeddings.create(model=NAME, input=texts).data]

    def embed_all(texts: list[str]) -> list[list[float]]:
        split = [texts[start : start + REQUEST] for start in range(0, len(texts), REQUEST)]
        return [vector for part in pool.map(embed, split) for vector in part]

    with client, ThreadPoolExecutor(8) as pool:
        embed(["the first request opens the connection"])
        for texts in fresh(number):
            yield partial(embed_all, texts)


def sdk_queries(number: int, api: str) -> Work:
    from openai import OpenAI

    def ask(client: OpenAI, asked: list[str]) -> int:
        return sum(len(client.embeddings.create(model=NAME, input=[query]).data) for query in asked)

    with OpenAI(base_url=api, api_key="sk-benchmark") as client:
        for round_ in itertools.count():
            yield partial(ask, client, queries(number, number * round_))


def sdk_queries_async(number: int, api: str) -> Work:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=api, api_key="sk-benchmark")

    async def ask(asked: list[str]) -> int:
        return sum([len((await client.embeddings.create(model=NAME, input=[query])).data) for query in asked])

    with asyncio.Runner() as runner:
        for round_ in itertools.count():
            yield partial(lambda asked: runner.run(ask(asked)), queries(number, number * round_))
