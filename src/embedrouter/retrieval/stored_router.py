"""A router as plain data, for frameworks that keep the configuration of an embedder beside its vectors.

Keys are not written: the router that is built from the data reads them from the environment.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from ..config import MISSING, Config
from ..description import describe
from ..errors import ConfigError, SpaceMismatchError
from ..router import Router, settings_of

OF_A_MACHINE = ("cache", "ledger", "state")
"""Settings that a vector store, which travels, does not keep."""
LIVE: WeakValueDictionary[str, Router] = WeakValueDictionary()
"""The routers of this process that a store keeps, by the mark in what is kept."""


def described(router: Router, *, strict: bool = False) -> dict[str, Any]:
    """Return a router as a configuration file does; see ``description.describe``."""
    places = {"cache": router.cache.folder, "ledger": router.ledger.file}
    given = {name: place for name, place in places.items() if place is not None}
    return describe(settings_of(router), given, strict=strict)


def stored(router: Router) -> dict[str, Any]:
    """Return what a vector store keeps: the router without what belongs to a machine, its space, and a mark of its own.

    In the process that made the content, the mark finds the router itself, with its cache, keys and accounts.
    """
    content = {name: value for name, value in described(router).items() if name not in OF_A_MACHINE}
    mark = next((mark for mark, live in LIVE.items() if live is router), None) or uuid4().hex
    LIVE[mark] = router
    return {"router": content, "space": router.space.name, "dimensions": router.space.dimensions, "mark": mark}


def rebuild(kept: Mapping[str, Any], *, title: str, remedy: str) -> Router:
    """Return the router of which a vector store keeps ``stored``, built once for the same content and environment.

    A vector store may be of another author. So its content is trusted no more than a configuration that was found by
    search.

    Args:
        title: of the content, as the beginning of a sentence.
        remedy: the sentence that says how to go on where the router cannot be built.

    Raises:
        ConfigError: the content is damaged, or has what only a trusted file may have.
        SpaceMismatchError: the router has another space now.
    """
    router = LIVE.get(str(kept.get("mark")))
    if router is None:
        environment = hash(frozenset(os.environ.items()))  # decides keys and addresses
        router = _rebuilt(json.dumps(kept, sort_keys=True), title, remedy, environment)
    space = router.space
    if (space.name, space.dimensions) != (kept.get("space"), kept.get("dimensions")):
        raise SpaceMismatchError(
            f"{title} is of the space {kept.get('space')} ({kept.get('dimensions')} dimensions), and the router that "
            f"it describes gives {space} now. {remedy}"
        )
    return router


@lru_cache(maxsize=32)
def _rebuilt(kept: str, title: str, remedy: str, environment: int) -> Router:
    content: Any = json.loads(kept)
    settings = content.get("router")
    if not isinstance(settings, dict):
        raise ConfigError(f"{title} says of no router. {remedy}")
    if code := settings.get(MISSING):
        raise ConfigError(f"{title} lacks what only a program has: {'; '.join(map(str, code))}. {remedy}")
    return Router(**Config(Path(title), settings, named=False, trusting=remedy).router())
