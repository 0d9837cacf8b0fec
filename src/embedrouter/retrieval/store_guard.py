"""The mark of a vector store: which space its vectors are in, kept in the store's own metadata.

The mark is two entries. They travel with the store, so every machine that opens the store through ``guard`` is held to
them. How a store keeps entries is the store's: a class for each kind, ``Marked``, reads and writes them, and gives rows
whose vectors are compared before a store without a mark is marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ..checks import VectorCheck
from ..errors import ConfigError, SpaceMismatchError
from ..router import Router, check_vectors
from ..tiered import require_single_space
from ..types import Space

SPACE = "embedrouter:space"
DIMENSIONS = "embedrouter:dimensions"

Adopt: TypeAlias = Literal["unchecked"] | bool
"""Whether to mark a store that holds vectors and no mark: after comparing a few of them, or ``"unchecked"``."""

COMPARED = 3
"""Vectors that are compared before a store is marked."""
SPARE = 4
"""Rows read for each that is compared, because some have no text, a long one or an equal one."""
LONG = 4_000
"""Characters of a text above which a shorter one is preferred."""


class Unreadable(ConfigError):
    """The texts or vectors of a store cannot be read; the message is the reason, as a clause that begins with "it"."""


@dataclass(frozen=True, slots=True)
class Row:
    """One vector of a store, and its text."""

    id: str
    text: str | None
    """The text as the store's framework embeds it."""
    vector: Any
    bare: str | None
    """The text as it is stored, without the metadata with which LlamaIndex embeds it."""


class Marked(Protocol):
    """One vector store that can hold entries of others."""

    title: str
    """Names the store, as the beginning of a sentence."""
    place: str
    """What ``embedrouter check`` takes for the store, as far as the store shows it."""

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

    def sample(self, count: int) -> Sequence[Row]:
        """Return rows from all over the store.

        Raises:
            Unreadable: the store does not give its vectors or texts.
        """
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
    theirs = getattr(embedder_of(store), "space", ours)
    if isinstance(theirs, Space) and theirs != ours:
        raise SpaceMismatchError(
            f"The store embeds in the space {theirs}, the router that is to guard it in {ours}. Pass the router "
            "behind the store's own embedder."
        )


def embedder_of(store: object) -> object:
    """Return what embeds for a store, where the store shows it."""
    return getattr(store, "embeddings", None)


def hold(marked: Marked, router: Router, *, adopt: Adopt) -> None:
    """Refuse a store of another space; mark an empty store, and one that is adopted.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store holds vectors and no mark, or half a mark, or keeps none.
    """
    ours = require_single_space(router).space
    theirs = recorded_space(marked)
    if theirs is None:
        _require_markable(marked, router, adopt=adopt)
        mark(marked, router)
        theirs = recorded_space(marked) or ours
    if theirs != ours:
        raise SpaceMismatchError(
            f"{marked.title} is in the space {theirs}; this router gives {ours}, and a distance between the two means "
            f"nothing. Use a router of the space {theirs.name}, or {marked.again(router)}"
        )


def mark(marked: Marked, router: Router) -> None:
    """Write the router's space into a store.

    Raises:
        ConfigError: the store does not keep it.
    """
    marked.write(metadata(router))
    if recorded_space(marked) is None:
        raise ConfigError(
            f"{marked.title} did not keep the entries for its space, perhaps because its server is too old. Guard it "
            "with index= of the adapter instead."
        )


def compare(marked: Marked, router: Router, count: int = COMPARED) -> VectorCheck:
    """Compare a few of a store's vectors with those that the router gives for their texts.

    Raises:
        Unreadable: the store does not give its vectors or texts.
        EmbedRouterError: the texts could not be embedded.
    """
    return check_rows(router, choose_rows(marked.sample(SPARE * count), count))


def check_rows(router: Router, rows: Sequence[Row]) -> VectorCheck:
    """Compare rows of a store with the vectors that the router gives for their texts."""
    texts, bare = [row.text or "" for row in rows], [row.bare or "" for row in rows]
    vectors = [row.vector for row in rows]
    return check_vectors(router, texts, vectors, "document", None if texts == bare else bare)


def described(check: VectorCheck, marked: Marked) -> str:
    """Return a check as a text that names the store it is about."""
    return str(check).replace("check STORE", f"check {marked.place}")


def choose_rows(rows: Sequence[Row], count: int) -> Sequence[Row]:
    """Return rows to compare: different texts, none too long, and one with a line break where there is one.

    Raises:
        Unreadable: there is no row with a text and a vector.
    """
    if not rows:
        raise Unreadable("it is empty")
    if all(row.vector is None for row in rows):
        raise Unreadable("it does not give its vectors")
    usable = [row for row in rows if row.text and row.vector is not None]
    if not usable:
        raise Unreadable("it holds no texts beside its vectors")
    distinct = list({row.text: row for row in usable}.values())
    short = [row for row in distinct if len(row.text or "") <= LONG] or distinct
    broken = [row for row in short if "\n" in (row.bare or "")][:1]
    others = [row for row in short if row not in broken] if broken else short
    step = max(1, len(others) // max(1, count - len(broken)))
    return [*broken, *others[::step]][:count]


def _require_markable(marked: Marked, router: Router, *, adopt: Adopt) -> None:
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
            f"{marked.title} holds vectors without an entry for their space{proof}. Compare a few of them: embedrouter "
            f"check {marked.place} --model {router.models[0]}; or open it once with guard(…, adopt=True), which "
            f"compares them and marks it where they are in the space of this router, {ours}. Otherwise "
            f"{marked.again(router)}"
        )
    if adopt == "unchecked":
        return
    try:
        found = compare(marked, router)
    except Unreadable as reason:
        raise ConfigError(
            f"{marked.title} could not be compared: {reason}. Compare a few of its vectors with "
            "router.check_vectors(texts, vectors), and mark it with guard(…, adopt='unchecked')."
        ) from None
    if not found.same_space:
        raise SpaceMismatchError(f"{marked.title} is not marked: {described(found, marked)}")


def recorded_space(marked: Marked) -> Space | None:
    """Return the space in a store's mark.

    Raises:
        ConfigError: the mark is there only in part.
    """
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
