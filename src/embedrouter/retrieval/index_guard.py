"""Index guards: the space of each named vector store, recorded on disk.

A vector store does not know which model filled it. An adapter that is built with a name for its store,
``RouterEmbeddings(router, index="handbook")``, records the space with the first documents. From then on a router of
another space is refused on this machine: before it adds documents, and before it searches.

LangChain's ``QdrantVectorStore`` embeds a text of its own as a document whenever it is opened, to measure its length.
A store that is only searched is opened with ``validate_embeddings=False``.

``embedrouter.stores`` has a second guard: it writes the space into the store itself, holds on every machine, and checks
when the store is opened. This guard needs nothing of the store, holds for the user on one machine, and checks at each
call. The two are independent, and both may be used.

A record is one small JSON file in the folder ``indexes`` of the user's data folder, for every cache and every working
folder. A record is written once, atomically: of two processes that write at the same time one wins, and the other is
checked against the winner's record. Earlier versions kept records beside the cache, and these count as well; where the
data folder cannot be written, records are still kept there.

Where routers share state (``Router(state=…)``), records are on its server, and hold for all workers. A worker that has
once seen the record goes on while the server does not answer; others answer queries, and add no documents.
"""

import json
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from .._process import in_thread
from ..cache import as_records
from ..calls import ShowProgress, one_text
from ..errors import ConfigError, InvalidInputError
from ..events import IndexUnrecorded, SharedStateFailed
from ..models import first_given, rank, requested
from ..router import Router, wiring_of
from ..tiered import TieredRouter, require_single_space
from ..types import EmbeddingResult, InputType
from ._index_records import (
    FOLDER,
    IndexGuard,
    UnreachableRecordsError,
    forget,
    move,
    places_of,
    recorded,
    users_folder,
)

__all__ = [
    "FOLDER",
    "OF_THE_ROUTER",
    "GuardedRouter",
    "IndexGuard",
    "ShownIsHeld",
    "forget",
    "move",
    "places_of",
    "record_index",
    "recorded",
    "users_folder",
]


class ShownIsHeld:
    """Adapter whose attributes hold as they are shown, also those that are set later: a new ``index`` is guarded.

    The adapter has a ``GuardedRouter`` as ``_guarded``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        guarded = getattr(self, "_guarded", None)
        if isinstance(guarded, GuardedRouter):
            if name in OF_THE_ROUTER:
                raise ConfigError(
                    f"{name} cannot be changed, because it follows from the router. Build another "
                    f"{type(self).__name__} around another router."
                )
            if name in ("query_tier", "document_tier"):
                guarded.require_tiers(value)
            if name == "index":
                super().__setattr__("_guarded", GuardedRouter(guarded.router, value, guarded.counted_in))
        super().__setattr__(name, value)


UNKNOWN = "queries are answered, and whether the index is in this router's space is not known"
"""What follows where the server with the records of indexes does not answer."""
OF_THE_ROUTER = frozenset({"router", "space", "model", "model_name", "fingerprint"})
"""Attributes of adapters that follow from the router."""


class GuardedRouter:
    """Embed for one vector store: check the guard, have the router embed, record the space, as all adapters do.

    Args:
        router: the one router in front of the store.
        index: the name of the store, whose space is then guarded; ``None`` for no guard.
        counted_in: where the positions of invalid documents count, for messages: a framework may have split into
            batches what its caller gave.

    Raises:
        ConfigError: ``router`` gives several spaces, or is no router.
        SpaceMismatchError: the store is recorded in another space.
    """

    def __init__(self, router: Router | TieredRouter, index: str | None, counted_in: str | None = None) -> None:
        self.router = require_single_space(router)
        self.counted_in = counted_in
        place, *others = places_of(self.router)
        self._guard = None if index is None else IndexGuard(place, index, self.router.space, *others)
        self._said = self._unreachable = False

    def __reduce__(self) -> tuple[Any, ...]:
        # without the records, which are where the machine of the copy has them
        return type(self), (self.router, self.index, self.counted_in)

    @property
    def index(self) -> str | None:
        """The name of the store, if it is guarded."""
        return None if self._guard is None else self._guard.name

    def record(self) -> None:
        """Record the space of the store, if it is guarded."""
        if self._guard is not None:
            self._guard.record()

    def fingerprint(self, query_tier: str | None, document_tier: str | None) -> str:
        """Return a hash of everything that decides a vector, for the keys of caches in front of an adapter.

        Neither keys nor addresses, folders and limits are in it. A tier of ``with embedrouter.tier(…)`` counts.
        """
        wiring = wiring_of(self.router)
        given: dict[InputType, str | None] = {"query": query_tier, "document": document_tier}
        asked = [first_given(requested(kind), tier) or wiring.default_tiers[kind] for kind, tier in given.items()]
        content = [wiring.fingerprint, [rank(tier, self.router.tiers) for tier in asked]]
        return blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    def first_model(self, input_type: InputType, *tiers: str | None) -> str:
        """Return the model that a call makes its first request to, for what is told before the call."""
        wiring = wiring_of(self.router)
        tier = first_given(requested(input_type), *tiers) or wiring.default_tiers[input_type]
        return wiring.first(rank(tier, self.router.tiers)).name

    def require_tiers(self, *tiers: str | None) -> None:
        """Refuse tiers that the router does not know.

        Raises:
            ValueError: a tier is unknown; the message lists the known tiers.
        """
        for tier in tiers:
            if tier is not None:
                rank(tier, self.router.tiers)

    def result(
        self, texts: Sequence[str], input_type: InputType, *tiers: str | None, show_progress: ShowProgress = False
    ) -> EmbeddingResult:
        """Return what the router answers; see ``Router.embed`` for the errors.

        Args:
            tiers: that are asked for, the nearest first; ``with embedrouter.tier(…)`` is nearer than all of them.
            show_progress: see ``Router.embed``.
        """
        if self._guard is not None:
            self._check(self._guard, input_type)
        texts = [one_text(text) for text in texts] if input_type == "query" else texts
        tier = first_given(requested(input_type), *tiers)
        with self._positions(input_type):
            result = self.router.embed(texts, input_type=input_type, tier=tier, show_progress=show_progress)
        if self._guard is not None and input_type == "document" and len(result):
            self._guard.record()
        return result

    def _check(self, guard: IndexGuard, input_type: InputType) -> None:
        """Refuse a store in another space; report once a store that is searched and has no record.

        Where a server with the records does not answer, queries are answered, and documents are not embedded.
        """
        events = wiring_of(self.router).events
        try:
            found = guard.check()
        except UnreachableRecordsError as error:
            if input_type == "document":
                raise
            if not self._unreachable:
                self._unreachable = True
                place, reason = places_of(self.router)[0], str(error.__cause__)
                events.emit(
                    SharedStateFailed, what="records", place=as_records(place).place, reason=reason, consequence=UNKNOWN
                )
            return
        self._unreachable = False
        if not found and input_type == "query" and not self._said:
            self._said = True
            events.emit(IndexUnrecorded, index=guard.name, model=self.router.models[0], input_type=input_type)

    async def aresult(
        self, texts: Sequence[str], input_type: InputType, *tiers: str | None, show_progress: ShowProgress = False
    ) -> EmbeddingResult:
        """Do what ``result`` does without blocking the event loop; the guard uses files, so it runs in a thread."""
        if self._guard is not None:
            await in_thread(self._check, self._guard, input_type)
        tier = first_given(requested(input_type), *tiers)
        texts = [one_text(text) for text in texts] if input_type == "query" else texts
        with self._positions(input_type):
            result = await self.router.aembed(texts, input_type=input_type, tier=tier, show_progress=show_progress)
        if self._guard is not None and input_type == "document" and len(result):
            await in_thread(self._guard.record)
        return result

    def each(
        self, texts: Sequence[str], input_type: InputType, size: int, *tiers: str | None
    ) -> Generator[EmbeddingResult]:
        """Yield what ``result`` returns for each ``size`` texts; positions in errors count all texts."""
        if self._guard is not None:
            self._check(self._guard, input_type)
        tier = first_given(requested(input_type), *tiers)
        for result in self.router.embed_iter(texts, input_type=input_type, tier=tier, chunk_size=size):
            if self._guard is not None and input_type == "document":
                self._guard.record()
            yield result

    async def aeach(
        self, texts: Sequence[str], input_type: InputType, size: int, *tiers: str | None
    ) -> AsyncGenerator[EmbeddingResult]:
        """Do what ``each`` does without blocking the event loop."""
        if self._guard is not None:
            await in_thread(self._check, self._guard, input_type)
        tier = first_given(requested(input_type), *tiers)
        async for result in self.router.aembed_iter(texts, input_type=input_type, tier=tier, chunk_size=size):
            if self._guard is not None and input_type == "document":
                await in_thread(self._guard.record)
            yield result

    @contextmanager
    def _positions(self, input_type: InputType) -> Iterator[None]:
        """Say in an error where its positions count."""
        try:
            yield
        except InvalidInputError as error:
            if self.counted_in is None or input_type != "document" or not error.indices:
                raise
            message = f"{error} Positions count in {self.counted_in}."
            raise InvalidInputError(message, indices=error.indices) from error.__cause__


def record_index(*places: object) -> None:
    """Record the space of each named index whose embedder is shown: the store was compared, or has a mark.

    Args:
        places: embedders, and what has one among its attributes, such as an index of LlamaIndex.
    """
    for place in places:
        for found in (place, *getattr(place, "__dict__", {}).values()):
            if isinstance(guarded := getattr(found, "_guarded", None), GuardedRouter):
                guarded.record()
