"""Tiered stores: a vector store for each of several spaces, chosen by tier.

What the ``TieredRetriever``s of both frameworks have in common: which store serves a tier, which tier a query asks for,
whether a cascade asks a second store, in which order stores are filled, and what is refused. How a store is searched
is the framework's: a retriever gives ``retrieve`` a function for it. Both forms of a retrieval are one coroutine; the
synchronous form runs it without suspending.

Each store is embedded for by its own router, so no vector meets the vectors of another space. A store whose embedder is
in another space than its tier's router is refused whenever the store is used, because embedders can be exchanged.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from .._display import shown_name
from ..errors import ConfigError, SpaceMismatchError
from ..models import first_given, requested, tier
from ..tiered import TieredRouter, default_tier
from ._cascade import Cascade

TIER, SPACE, ESCALATED = "embedding_tier", "embedding_space", "embedding_escalated"

Store = TypeVar("Store")
Hit = TypeVar("Hit")


Find: TypeAlias = Callable[[str, Store, bool], Awaitable[tuple[list[Hit], list[float]]]]
"""Searches the store of a tier: returns the hits, best first, and their scores where these are asked for."""


@dataclass(frozen=True)
class TieredStores(ABC, Generic[Store]):
    """Choose among stores by tier. A subclass for each framework says what the framework has another name for.

    The state is that of the retriever: the object is made anew wherever it is needed, and a copied or unpickled
    retriever goes on with its own cascade.
    """

    noun: ClassVar[str]
    """What messages call a vector store: ``"store"`` or ``"index"``."""
    adapter: ClassVar[type]
    """The class of our embedders, which have ``router``, ``query_tier`` and ``document_tier``."""
    example: ClassVar[str]
    """How a store is given an embedder; ``{router}`` stands for its router."""

    stores: Mapping[str, Store]
    """By tier."""
    router: TieredRouter
    query_tier: str | None = None
    """The tier of queries that ask for none, over the router's."""
    cascade: Cascade | None = None

    @staticmethod
    @abstractmethod
    def embedder(store: Any) -> object:
        """Return what embeds for a store."""

    @classmethod
    def router_of(cls, stores: Mapping[str, Store], router: TieredRouter | None) -> TieredRouter:
        """Return ``router``, or where there is none, one that is built of the stores' own routers.

        Raises:
            ConfigError: there is no store, or an embedder is not ours.
        """
        if not stores:
            raise ConfigError(f"TieredRetriever needs one {cls.noun} for each tier: {{'low': …, 'high': …}}.")
        if router is not None:
            return router
        return TieredRouter({name: cls._adapter(name, store).router for name, store in stores.items()})

    @classmethod
    def _adapter(cls, name: str, store: Store) -> Any:
        """Return the adapter that embeds for a store.

        Raises:
            ConfigError: something else embeds, whose space is not known.
        """
        embedder = cls.embedder(store)
        if not isinstance(embedder, cls.adapter):
            raise ConfigError(
                f"The {cls.noun} of the tier {name!r} embeds with {type(embedder).__name__}, whose space is not known. "
                f"{cls._how_to_build(name)}"
            )
        return embedder

    @classmethod
    def _how_to_build(cls, name: str) -> str:
        return f"Build the {cls.noun} with {cls.example.format(router=f'tiered.router({name!r})')}."

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ConfigError: a tier has no store, a store no tier, an embedder is not ours, or two settings contradict.
            SpaceMismatchError: a store's embedder is in another space than its tier's router.
        """
        used = [self.name(asked) for asked in self.router.own_tiers]
        for name in used:
            self.store(name)
        if unused := set(self.stores).difference(used):
            raise ConfigError(
                f"The {self.noun} of the tier {min(unused)!r} would never be asked: {self.router!r} has no router of "
                f"its own for it. Leave the {self.noun} out, or give the tier a router."
            )
        if self.query_tier is not None:
            self.name(self.query_tier)
        if self.cascade is not None:
            if self.query_tier is not None:
                raise ConfigError("query_tier= asks one tier and cascade= chooses for each query. Give one of the two.")
            self.cascade_tiers(self.cascade)

    # Which store

    def name(self, asked: str) -> str:
        """Return the tier under which the store that serves ``asked`` is kept.

        Raises:
            ConfigError: the tier is unknown, or no store serves it.
        """
        router = self.router.router(asked)
        for name, other in self.router.served.items():
            if other is router and name in self.stores:
                return name
        raise ConfigError(
            f"There is no {self.noun} for the tier {shown_name(asked)}, only for {', '.join(self.stores)}. Give each "
            f"router of the TieredRouter one {self.noun} of its own."
        )

    def store(self, name: str) -> Store:
        """Return the store of a tier, if the store's embedder is in the space of that tier's router."""
        self._embedder(name)
        return self.stores[name]

    def _embedder(self, name: str) -> Any:
        embedder, router = self._adapter(name, self.stores[name]), self.router.router(name)
        if embedder.router.space != router.space:
            raise SpaceMismatchError(
                f"The {self.noun} of the tier {name!r} embeds in the space {embedder.router.space}, its router in "
                f"{router.space}: a distance between the two means nothing. {self._how_to_build(name)}"
            )
        return embedder

    @contextmanager
    def embedding(self, name: str) -> Iterator[Store]:
        """Yield the store of a tier, whose router uses its own default tiers inside the block."""
        embedder = self._embedder(name)
        queries = first_given(embedder.query_tier, default_tier(embedder.router, "query"))
        documents = first_given(embedder.document_tier, default_tier(embedder.router, "document"))
        with tier(queries, documents=documents):
            yield self.stores[name]

    # Which searches

    async def retrieve(
        self, find: Find[Store, Hit], *, call: str | None = None, configured: str | None = None
    ) -> tuple[list[Hit], dict[str, object]]:
        """Search the store of the tier that is asked for, or those that the cascade decides for.

        A tier that is asked for switches the cascade off. The nearest counts: the call's, that of ``with
        embedrouter.tier(…)``, that of the framework's configuration, the retriever's.

        Args:
            find: searches one store.
            call: the tier that an argument of the call asks for.
            configured: the tier that the framework's configuration asks for.

        Returns:
            The hits, and the metadata that say which store answered.
        """
        asked = first_given(call, requested("query"), configured, self.query_tier)
        cascade, escalated = self.cascade if asked is None else None, None
        if cascade is None:
            name = better = self.name(default_tier(self.router, "query") if asked is None else asked)
        else:
            name, better = self.cascade_tiers(cascade)
        with self.embedding(name) as store:
            hits, scores = await find(name, store, cascade is not None)
        if cascade is not None and (escalated := cascade.escalates(scores)):
            name = better
            with self.embedding(name) as store:
                hits, _ = await find(name, store, False)
        label = {TIER: name, SPACE: str(self.router.router(name).space), ESCALATED: escalated}
        return hits, {entry: value for entry, value in label.items() if value is not None}

    def cascade_tiers(self, cascade: Cascade) -> tuple[str, str]:
        """Return the tier of the store that a cascade begins with, and of the one that it may go on to."""
        cheap, good = cascade.cheap or self.router.own_tiers[0], cascade.good or self.router.own_tiers[-1]
        names = self.name(cheap), self.name(good)
        if names[0] == names[1]:
            raise ConfigError(
                f"A cascade searches two tiers, but {cheap!r} and {good!r} share one {self.noun}. Name two tiers with "
                f"{self.noun}s of their own: Cascade(…, cheap=…, good=…)."
            )
        return names

    @staticmethod
    def no_scores(name: str, store: object, reason: str) -> ConfigError:
        """Return the error that a cascade cannot begin with the store of a tier."""
        return ConfigError(
            f"A cascade compares scores, and the vector store of the tier {name!r}, a {type(store).__name__}, "
            f"{reason}. Use another one for this tier, or no cascade."
        )

    # Which stores to fill

    def fill_order(self, tiers: Sequence[str] | None) -> list[str]:
        """Return the tiers of the stores to change, highest first.

        The highest tier costs most and fails most: where it fails, the other stores are not changed yet.
        """
        if isinstance(tiers, str):
            raise ConfigError(f"tiers must be a list of tiers, such as [{shown_name(tiers)}].")
        names = {self.name(asked) for asked in (self.router.own_tiers if tiers is None else tiers)}
        return sorted(names, key=self.router.tiers.index, reverse=True)


def overrides(store: object, base: type, *methods: str) -> bool:
    """Return whether a store's class has its own form of one of the methods of its framework's base class.

    The frameworks' own forms of asynchronous methods call the synchronous ones: LangChain's in the event loop's default
    executor, LlamaIndex's on the event loop. Where a class has no form of its own, retrievers use a thread of this
    package instead.
    """
    return any(getattr(type(store), method) is not getattr(base, method) for method in methods)
