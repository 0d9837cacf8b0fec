"""Index guards: the space of each named vector store, recorded on disk.

A vector store does not know which model filled it. An adapter that is built with a name for its store,
``RouterEmbeddings(router, index="handbook")``, records the space with the first documents. From then on a router of
another space is refused on this machine: before it adds documents, and before it searches.

LangChain's ``QdrantVectorStore`` embeds a text of its own as a document whenever it is opened, to measure its length.
A store that is only searched is opened with ``validate_embeddings=False``.

``embedrouter.stores`` has a second guard: it writes the space into the store itself, holds on every machine, and checks
when the store is opened. This guard needs nothing of the store, holds for the user on one machine, and checks at each
call. The two are independent, and both may be used.

A record is one small JSON file in the folder ``indexes`` of the user's data folder, whichever cache and working folder
a process has. A record is written once, atomically: of two processes that write at the same time one wins, and the
other is checked against the winner's record. Earlier versions kept records beside the cache, and these count as well;
where the data folder cannot be written, records are still kept there.

Where routers share state (``Router(state=…)``), records are on its server, and hold for all workers. A worker that has
once seen the record goes on while the server does not answer; others answer queries, and add no documents.
"""

import json
import shlex
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import platformdirs

from .._process import in_thread
from ..cache import FolderRecords, Records, as_records
from ..calls import ShowProgress, one_text
from ..errors import ConfigError, InvalidInputError, SpaceMismatchError
from ..events import IndexUnrecorded, SharedStateFailed
from ..models import first_given, rank, requested
from ..router import Router, wiring_of
from ..tiered import TieredRouter, require_single_space
from ..types import EmbeddingResult, InputType, Space

FOLDER = "indexes"
"""Inside the user's data folder, and in earlier versions inside the cache's folder."""

FRESH = 1.0
"""Seconds for which a record that workers share is not read again."""
PAUSE = 3.0
"""Seconds without a question after a server has not answered."""


class UnreachableRecordsError(ConfigError):
    """The server with the records does not answer."""


def users_folder() -> Path:
    """Return the folder of the user's records on this machine."""
    return Path(platformdirs.user_data_dir("embedrouter", appauthor=False)) / FOLDER


def places_of(router: Router) -> tuple[Path | Records, ...]:
    """Return where the records of indexes are that a router's adapters fill; the first is written."""
    wiring = wiring_of(router)
    folders = dict.fromkeys((users_folder(), wiring.folder / FOLDER))
    return (wiring.shared.indexes, *folders) if wiring.shared is not None else (*folders,)


class IndexGuard:
    """Hold one vector store to one space.

    Both methods use files, or a server: in asynchronous code they belong in a thread.

    Args:
        place: where records are kept: a folder, or records that workers share.
        name: of the vector store.
        space: of the router in front of the store.
        others: where earlier versions kept records, or the machine before its state was shared. They count, too, and
            are used where ``place`` is a folder that cannot be written.

    Raises:
        SpaceMismatchError: the store is recorded in another space.
    """

    def __init__(self, place: Path | Records, name: str, space: Space, *others: Path | Records | None) -> None:
        if not name or not isinstance(name, str):
            raise ConfigError("index= must be the name of the vector store that is being filled, such as 'handbook'.")
        self.name = name
        self._places = [as_records(item) for item in dict.fromkeys((place, *others)) if item is not None]
        self._space = space
        self._found_at: float | None = None
        """When a shared record was read last, and was of this space."""
        self._silent_until = 0.0
        with suppress(UnreachableRecordsError):  # the first call finds out
            self.check()

    def check(self) -> bool:
        """Refuse a store that is recorded in another space; return whether there is a record.

        Raises:
            UnreachableRecordsError: the server with the records does not answer, and has not confirmed this space to
                this process before.
        """
        now, found = time.monotonic(), False
        if self._found_at is not None and now < self._found_at + FRESH:
            return True
        for records in self._places:
            try:
                if records.shared and now < self._silent_until:
                    raise OSError("it did not answer a moment ago")
                space = _read(records, self.name)
            except OSError as error:
                found = found or self._unanswered(records, error)
                continue
            found = found or space is not None
            if space is not None and space != self._space:
                raise SpaceMismatchError(
                    f"The index {self.name!r} holds vectors in the space {space}; this router gives {self._space}, and "
                    f"a distance between the two means nothing. Use a router of the space {space.name}, or embed the "
                    "documents again into an empty index and then run: embedrouter cache forget-index "
                    f"{shlex.join([self.name, *self._option(records)])}; or give another index another name."
                )
            if space is not None and records.shared:
                self._found_at = now
        return found

    def record(self) -> None:
        """Record the space of a store that has no record yet; otherwise check the record.

        Raises:
            ConfigError: the record cannot be written.
        """
        if self._found_at is not None and time.monotonic() < self._found_at + FRESH:
            return
        failure: OSError | None = None
        for records in self._places:
            try:
                records.write_once(self.name, {"index": self.name, **asdict(self._space)})
                break
            except OSError as error:
                failure = error
                if records.shared and self._found_at is not None:  # and has this space
                    return
                if records.shared:  # no other worker would see one on this machine
                    raise ConfigError(self._unwritable(error)) from error
        else:
            assert failure is not None
            raise ConfigError(self._unwritable(failure)) from failure
        self.check()

    def _unanswered(self, records: Records, error: OSError) -> bool:
        """Go on without a server that has confirmed this space before."""
        if not records.shared:
            raise error
        self._silent_until = time.monotonic() + PAUSE
        if self._found_at is None:
            raise UnreachableRecordsError(
                f"The record of the index {self.name!r} on {records.place} cannot be read ({error}), and whether its "
                "vectors are in this router's space is not known. Try again when the server answers, or leave index= "
                "out."
            ) from error
        return True

    def _unwritable(self, failure: OSError) -> str:
        first = self._places[0]
        what = "Try again when the server answers" if first.shared else "Give the right to write there"
        return (
            f"The space of the index {self.name!r} cannot be recorded in {first.place} ({failure}). {what}, or leave "
            "index= out."
        )

    def _option(self, records: Records) -> list[str]:
        """Return the option with which forget-index finds records."""
        if records.shared:
            return ["--state", records.place]
        here = self._places[0].place, str(users_folder())
        return [] if records.place in here else ["--cache", str(Path(records.place).parent)]


def recorded(*places: Path | Records) -> dict[str, Space]:
    """Return the recorded space of every index in some places, by name; the first place that has a name counts."""
    found: dict[str, Space] = {}
    for records in map(as_records, places):
        for name in records.names():
            space = _read(records, name)
            if space is not None:
                found.setdefault(name, space)
    return found


def forget(name: str, *places: Path | Records) -> Space:
    """Remove the records of an index that was emptied or embedded again, and return the space of the first.

    Raises:
        ConfigError: there is no such record; the message lists the names of all records.
    """
    known = recorded(*places)
    if name not in known:
        names = ", ".join(map(repr, known)) or "none"
        where = " and ".join(as_records(item).place for item in places)
        raise ConfigError(f"No index {name!r} is recorded in {where}. There are: {names}.")
    for records in map(as_records, places):
        records.remove(name)
    return known[name]


def move(name: str, space: Space, *places: Path | Records) -> None:
    """Record the space of an index in place of what is recorded: the index was moved to another space.

    Raises:
        OSError: the record cannot be written.
    """
    first, *others = map(as_records, dict.fromkeys(places))
    first.write_again(name, {"index": name, **asdict(space)})
    for records in others:
        records.remove(name)


def _read(records: Records, name: str) -> Space | None:
    """Return the recorded space of an index; ``None`` without a record.

    Raises:
        OSError: the server with the records does not answer.
        ConfigError: the record is damaged.
    """
    try:
        record = records.read(name)
        return None if record is None else Space(record["name"], record["dimensions"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        if records.shared and isinstance(error, OSError):
            raise
        what = f"{name!r} on {records.place}"
        where = records.path(name) if isinstance(records, FolderRecords) else what
        raise ConfigError(f"The record {where} of an index cannot be read. Remove it if the index is new.") from error


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
    """Embed for one vector store: check the guard, have the router embed, return lists, as both adapters do.

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
        return type(self), (
            self.router,
            self.index,
            self.counted_in,
        )  # records are where the machine of the copy has them

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

    def embed(
        self, texts: Sequence[str], input_type: InputType, *tiers: str | None, show_progress: ShowProgress = False
    ) -> list[list[float]]:
        """Return one list of floats per text; see ``Router.embed`` for the errors.

        Args:
            tiers: that are asked for, the nearest first; ``with embedrouter.tier(…)`` is nearer than all of them.
            show_progress: see ``Router.embed``.
        """
        return self.result(texts, input_type, *tiers, show_progress=show_progress).to_list()

    async def aembed(
        self, texts: Sequence[str], input_type: InputType, *tiers: str | None, show_progress: ShowProgress = False
    ) -> list[list[float]]:
        """Do what ``embed`` does without blocking the event loop; the guard uses files, so it runs in a thread."""
        return (await self.aresult(texts, input_type, *tiers, show_progress=show_progress)).to_list()

    def result(
        self, texts: Sequence[str], input_type: InputType, *tiers: str | None, show_progress: ShowProgress = False
    ) -> EmbeddingResult:
        """Return what the router answers, for an adapter that hands on more than lists; see ``embed``."""
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
        """Do what ``result`` does without blocking the event loop."""
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
        """Yield what the router answers for each ``size`` texts; positions in errors count all texts. See ``embed``."""
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
