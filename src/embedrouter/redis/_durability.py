"""What a server may lose, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ._server import Server


class Durability(NamedTuple):
    """How a server keeps what it has; ``None`` where this user may not ask."""

    version: str
    on_disk: str | None
    """``"each second"`` and such for an append-only file, ``"snapshots"``, or ``""``: nothing is kept on disk."""
    eviction: str | None
    """The policy by which keys are removed when the memory is full; ``"noeviction"`` removes none."""


def durability(server: Server) -> Durability:
    """Ask a server how it keeps what it has.

    Raises:
        redis.RedisError: it does not answer.
    """
    from redis.exceptions import ResponseError

    def asked(question: Any, *about: str) -> Mapping[str, Any]:
        try:
            answer = question(*about)
        except ResponseError:  # this user may not
            return {}
        return answer if isinstance(answer, Mapping) else {}

    client = server.client
    client.ping()
    facts = {**asked(client.info, "server"), **asked(client.info, "memory"), **asked(client.info, "persistence")}
    settings = {_text(name): _text(value) for name, value in asked(client.config_get, "save").items()}
    settings |= {_text(name): _text(value) for name, value in asked(client.config_get, "appendfsync").items()}
    on_disk: str | None = None
    if facts.get("aof_enabled"):
        on_disk = {"always": "each command", "no": "when the system likes"}.get(
            settings.get("appendfsync", ""), "each second"
        )
    elif "save" in settings and "aof_enabled" in facts:
        on_disk = "snapshots" if settings["save"] else ""
    return Durability(
        str(facts.get("valkey_version") or facts.get("redis_version") or "?"), on_disk, facts.get("maxmemory_policy")
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
