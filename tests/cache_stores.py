"""Every kind of store that a router's ``cache=`` takes, on real servers and in real frameworks.

Kinds whose packages do not fit beside ours (s3fs and moto hold boto3 back, LlamaIndex's Redis store redis-py) are left
out where these are not installed; ``nox -s caches`` makes an environment that has them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedrouter.cache import Cache
from embedrouter.redis import open_caches
from embedrouter.testing import MemoryCache

from .redis_server import RedisServer

BUCKET = "vectors"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stores of one test are: an empty folder, and a Redis server and an S3 server that all tests share."""

    folder: Path
    redis: str
    s3: str = ""

    @property
    def own(self) -> str:
        """A name that no other test has."""
        return f"{self.folder.parent.name}-{self.folder.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a store is made as a user makes it.

    Args:
        make: returns what ``cache=`` is given.
        shared: whether other processes find what one has written.
        pickles: whether a router with it can be pickled.
        needs: packages.
    """

    make: Callable[[Place], Any]
    shared: bool = True
    pickles: bool = True
    needs: tuple[str, ...] = ()

    def open(self, place: Place) -> Cache:
        """Return the store."""
        (store,) = open_caches(self.make(place))
        return store


def _byte_store() -> Any:
    from langchain_core.stores import InMemoryByteStore

    return InMemoryByteStore()


def _file_store(place: Place) -> Any:
    from langchain_classic.storage import LocalFileStore

    return LocalFileStore(place.folder)


def _redis_store(place: Place) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of langchain-community, which has an end
        from langchain_community.storage import RedisStore

    return RedisStore(redis_url=place.redis, namespace=place.own)


def _simple_kv_store() -> Any:
    from llama_index.core.storage.kvstore import SimpleKVStore

    return SimpleKVStore()


def _redis_kv_store(place: Place) -> Any:
    from llama_index.storage.kvstore.redis import RedisKVStore

    return RedisKVStore(redis_uri=place.redis)


def _client(place: Place) -> Any:
    import redis

    from embedrouter.redis import RedisState

    return RedisState(redis.Redis.from_url(place.redis), prefix=place.own).cache()


def _on_s3(place: Place) -> str:
    os.environ |= {"FSSPEC_S3_ENDPOINT_URL": place.s3, "FSSPEC_S3_KEY": "testing", "FSSPEC_S3_SECRET": "testing"}
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)  # is read when fsspec is imported
    return f"s3://{BUCKET}/{place.own}"


ALL: dict[str, Kind] = {
    "folder": Kind(lambda place: place.folder),
    "memory": Kind(lambda _: MemoryCache(), shared=False),
    "redis": Kind(lambda place: f"{place.redis}?prefix={place.own}"),
    "redis-ttl": Kind(lambda place: f"{place.redis}?prefix={place.own}&ttl=600"),
    "redis-client": Kind(_client, pickles=False),
    "langchain-memory": Kind(lambda _: _byte_store(), shared=False),
    "langchain-files": Kind(_file_store),
    "langchain-redis": Kind(_redis_store, pickles=False),
    "llamaindex-memory": Kind(lambda _: _simple_kv_store(), shared=False),
    "llamaindex-redis": Kind(_redis_kv_store, pickles=False, needs=("llama-index-storage-kvstore-redis",)),
    "fsspec-memory": Kind(lambda place: f"memory://{place.own}", shared=False),
    "fsspec-files": Kind(lambda place: f"file://{place.folder}"),
    "fsspec-s3": Kind(_on_s3, needs=("s3fs", "moto")),
}


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


KINDS = {name: kind for name, kind in ALL.items() if all(map(_is_installed, kind.needs))}
"""Those that can be made here."""


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Yield the address of a server."""
    with RedisServer(folder) as server:
        yield server.address


@contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address of a server that speaks S3's protocol and has one bucket; empty where there is none."""
    if "fsspec-s3" not in KINDS:
        yield ""
        return
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket=BUCKET)
    try:
        yield address
    finally:
        server.stop()
