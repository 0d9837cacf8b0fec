"""The mark of a vector store: which space its vectors are in, kept in the store's own metadata.

The mark is two entries. They travel with the store, so every machine that opens the store through ``guard`` is held to
them. How a store keeps entries is the store's: an adapter for each kind, ``Marked``, reads and writes them.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import ConfigError, SpaceMismatchError
from ..router import Router
from ..tiered import require_single_space
from ..types import Space

SPACE = "embedrouter:space"
DIMENSIONS = "embedrouter:dimensions"


class Marked(Protocol):
    """One vector store that can hold entries of others."""

    title: str
    """Names the store, as the beginning of a sentence."""

    def read(self) -> Mapping[str, Any]:
        """Return the store's entries."""
        ...

    def write(self, entries: Mapping[str, str | int]) -> None:
        """Add entries; others stay."""

    def dimensions(self) -> int | None:
        """Return the length of the vectors in the store, 0 where it is not known; ``None`` for an empty store."""
        ...

    def again(self, router: Router) -> str:
        """Return how to embed the texts again, as the end of a sentence."""
        ...


def metadata(router: Router) -> dict[str, str | int]:
    """Return the entries that mark a new store with the router's space.

    Raises:
        ConfigError: ``router`` gives several spaces, or is no router.
    """
    space = require_single_space(router).space
    return {SPACE: space.name, DIMENSIONS: space.dimensions}


def require_same_router(store: object, router: Router) -> None:
    """Refuse a router of another space than that of the store's own embedder, where the store shows one.

    Raises:
        SpaceMismatchError: the spaces are different.
    """
    ours = require_single_space(router).space
    theirs = getattr(getattr(store, "embeddings", None), "space", ours)
    if isinstance(theirs, Space) and theirs != ours:
        raise SpaceMismatchError(
            f"The store embeds in the space {theirs}, the router that is to guard it in {ours}. Pass the router "
            "behind the store's own embedder."
        )


def hold(marked: Marked, router: Router, *, adopt: bool) -> None:
    """Refuse a store of another space; mark an empty store, and one that is adopted.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store holds vectors and no mark, or half a mark, or keeps none.
    """
    ours = require_single_space(router).space
    theirs = _recorded(marked)
    if theirs is None:
        _require_markable(marked, router, adopt=adopt)
        marked.write(metadata(router))
        theirs = _recorded(marked)
    if theirs is None:
        raise ConfigError(
            f"{marked.title} did not keep the entries for its space, perhaps because its server is too old. Guard it "
            "with index= of the adapter instead."
        )
    if theirs != ours:
        raise SpaceMismatchError(
            f"{marked.title} is in the space {theirs}; this router gives {ours}, and a distance between the two means "
            f"nothing. Use a router of the space {theirs.name}, or {marked.again(router)}"
        )


def _require_markable(marked: Marked, router: Router, *, adopt: bool) -> None:
    length, ours = marked.dimensions(), router.space
    if length is None:
        return
    if length not in (0, ours.dimensions):
        raise SpaceMismatchError(
            f"{marked.title} holds vectors of {length} numbers; this router gives {ours}. Use a router of the space "
            f"that it was filled in, or {marked.again(router)}"
        )
    if not adopt:
        proof = f"; their length, {length}, proves nothing" if length else ""
        raise ConfigError(
            f"{marked.title} holds vectors without an entry for their space{proof}. If they were made in the space of "
            f"this router, {ours}, open it once with guard(…, adopt=True), which marks it. Otherwise "
            f"{marked.again(router)}"
        )


def _recorded(marked: Marked) -> Space | None:
    entries = marked.read()
    match entries.get(SPACE), entries.get(DIMENSIONS):
        case None, None:
            return None
        case str(name), int(dimensions):
            return Space(name, dimensions)
        case str(name), str(dimensions) if dimensions.isdecimal():  # of a store that keeps texts alone
            return Space(name, int(dimensions))
    raise ConfigError(
        f"{marked.title} names its space only in part. Set {SPACE!r} and {DIMENSIONS!r} in its metadata to the space "
        "that filled it."
    )
