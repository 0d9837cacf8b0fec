"""Tiered router: one router for each of several spaces, chosen by tier.

For independent calls, and for tiered indexes: one vector store per tier. A ``TieredRouter`` never changes from one
router to another for a cache hit, an outage or a budget, and each result has the space of its vectors. A
``TieredRouter`` is no embedder for a vector store, because a store holds one space: give the store
``tiered.router("high")``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

from ._display import escaped, explained, shown_name
from ._process import Closeable, in_thread
from .calls import ShowProgress, require_same_embedder
from .errors import ConfigError, NoModelAvailableError
from .models import TIERS, NoEmbedder, SetOnce, choose_tier, rank
from .router import Router, wiring_of
from .spending import CapLeft
from .types import EmbeddingResult, Estimate, InputType, Table, Usage

__all__ = ["TieredRouter", "default_tier", "require_single_space"]

CALL = "TieredRouter({'low': …, 'high': …})"


@explained(CALL, low=CALL, medium=CALL, high=CALL)
class TieredRouter(NoEmbedder, SetOnce, Closeable):
    """Pass each call to the router of the requested tier, or of the next higher tier that has a router.

    The chosen router then uses its own default tier.

    Args:
        routers: a router for each tier.
        query_tier: the tier of queries that request none; by default the highest.
        document_tier: the tier of documents that request none; likewise.
        tiers: the names of the tiers, lowest first; by default low, medium, high, or the order of ``routers`` when it
            has other names.
    """

    def __init__(
        self,
        routers: Mapping[str, Router],
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        tiers: Sequence[str] | None = None,
    ) -> None:
        if not routers:
            raise ConfigError(f"TieredRouter needs a router for at least one tier: {CALL}.")
        if not isinstance(routers, Mapping):
            raise ConfigError(f"TieredRouter takes a router for each tier, not {type(routers).__name__}: {CALL}.")
        for name, router in routers.items():
            if not isinstance(router, Router):
                raise ConfigError(
                    f"The tier {shown_name(name)} needs a Router, not {type(router).__name__}. Write Router([…])."
                )
        self.tiers = tuple(tiers) if tiers is not None else TIERS if set(routers) <= set(TIERS) else tuple(routers)
        self._routers = {name: routers[name] for name in sorted(routers, key=self._rank)}
        highest = list(self._routers)[-1]
        given: dict[InputType, str | None] = {"query": query_tier, "document": document_tier}
        self._default: dict[InputType, str] = {kind: highest if name is None else name for kind, name in given.items()}
        for name in self._default.values():
            self.router(name)
        embedders: dict[str, object] = {}
        for router in self._routers.values():  # these may share a cache
            for fingerprint, embedder in wiring_of(router).embedders.items():
                model = next(item.name for item in wiring_of(router).candidates if item.fingerprint == fingerprint)
                require_same_embedder(model, embedder, embedders.setdefault(fingerprint, embedder))

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> TieredRouter:
        """Build the routers from a TOML file with a table ``[routers.NAME]`` for each tier.

        See ``Router.from_config`` for the places that are searched.
        """
        from . import config

        tables, settings = config.load(path).tiered()
        return cls({name: Router(**table) for name, table in tables.items()}, **settings)

    def router(self, tier: str) -> Router:
        """Return the router that serves ``tier``.

        Raises:
            ValueError: the tier is unknown.
            NoModelAvailableError: no router has this tier or a higher one.
        """
        wanted = self._rank(tier)
        for name, router in self._routers.items():
            if self._rank(name) >= wanted:
                return router
        raise NoModelAvailableError(
            f"No router has the tier {tier!r} or a higher one, only {', '.join(self._routers)}. Nothing was called. "
            "Ask for one of these, or give the TieredRouter a router for the tier."
        )

    @property
    def served(self) -> dict[str, Router]:
        """The router of every tier that can be requested, lowest first; one router may serve several tiers."""
        highest = self._rank(list(self._routers)[-1])
        return {name: self.router(name) for name in self.tiers[: highest + 1]}

    @property
    def own_tiers(self) -> list[str]:
        """One tier for each router, lowest first."""
        return list({id(router): name for name, router in self._routers.items()}.values())

    def embed(
        self,
        texts: Iterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        timeout: float | None = None,
        show_progress: ShowProgress = False,
    ) -> EmbeddingResult:
        """Embed with the router of the requested tier; ``result.space`` is its space. See ``Router.embed``."""
        router, own = self._pick(input_type, tier)
        return router.embed(texts, input_type=input_type, tier=own, timeout=timeout, show_progress=show_progress)

    async def aembed(
        self,
        texts: Iterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        timeout: float | None = None,
        show_progress: ShowProgress = False,
    ) -> EmbeddingResult:
        """Do what ``embed`` does without blocking the event loop."""
        router, own = self._pick(input_type, tier)
        return await router.aembed(texts, input_type=input_type, tier=own, timeout=timeout, show_progress=show_progress)

    def embed_iter(
        self,
        texts: Iterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        chunk_size: int | None = None,
        show_progress: ShowProgress = False,
    ) -> Generator[EmbeddingResult]:
        """Embed more texts than fit into memory, with the router of the requested tier; see ``Router.embed_iter``."""
        router, own = self._pick(input_type, tier)
        return router.embed_iter(
            texts, input_type=input_type, tier=own, chunk_size=chunk_size, show_progress=show_progress
        )

    def aembed_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        chunk_size: int | None = None,
        show_progress: ShowProgress = False,
    ) -> AsyncGenerator[EmbeddingResult]:
        """Do what ``embed_iter`` does without blocking the event loop; ``texts`` may be an async iterable, too."""
        router, own = self._pick(input_type, tier)
        return router.aembed_iter(
            texts, input_type=input_type, tier=own, chunk_size=chunk_size, show_progress=show_progress
        )

    def estimate(self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None) -> Estimate:
        """Estimate the tokens, requests and cost of ``embed``, without calling any model."""
        router, own = self._pick(input_type, tier)
        return router.estimate(texts, input_type=input_type, tier=own)

    async def aestimate(self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None) -> Estimate:
        """Do what ``estimate`` does without blocking the event loop."""
        router, own = self._pick(input_type, tier)
        return await router.aestimate(texts, input_type=input_type, tier=own)

    def _pick(self, input_type: InputType, tier: str | None) -> tuple[Router, str]:
        """Return the router of the requested tier, and the tier to request from that router."""
        router = self.router(choose_tier(tier, input_type, self._default))
        return router, default_tier(router, input_type)

    def _rank(self, tier: str) -> int:
        return rank(tier, self.tiers)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and money spent and saved by all routers since their construction."""
        return sum((router.usage for router in self._routers.values()), Usage())

    def budget_left(self) -> Table[str, CapLeft]:
        """Return what is left of each cap of the routers' budgets; the keys are such as ``"high: per_day"``.

        Routers that share a ledger count the same spending, each against the caps of its own budget.

        Raises:
            LedgerError: the file of a ledger failed.
        """
        left = {tier: router.budget_left() for tier, router in self._routers.items()}
        return Table({f"{tier}: {name}": cap for tier, caps in left.items() for name, cap in caps.items()})

    async def abudget_left(self) -> Table[str, CapLeft]:
        """Do what ``budget_left`` does without blocking the event loop."""
        return await in_thread(self.budget_left)

    def close(self) -> None:
        for router in self._routers.values():
            router.close()

    async def aclose(self) -> None:
        for router in self._routers.values():
            await router.aclose()

    def __repr__(self) -> str:
        return escaped(f"TieredRouter({', '.join(f'{name}: {router!r}' for name, router in self._routers.items())})")


def default_tier(router: Router | TieredRouter, input_type: InputType) -> str:
    """Return the tier of calls that request none."""
    defaults = router._default if isinstance(router, TieredRouter) else wiring_of(router).default_tiers
    return defaults[input_type]


def require_single_space(router: Router | TieredRouter) -> Router:
    """Return ``router`` if all its vectors are in one space, as a vector store needs.

    Raises:
        ConfigError: ``router`` is a ``TieredRouter``, or no router.
    """
    if isinstance(router, TieredRouter):
        raise ConfigError(
            "A vector store holds one space, a TieredRouter gives several. Pass one of its routers, such as "
            "tiered.router('high'), and keep a store for each; or put models of one family, such as voyage-4, into a "
            "single Router, which then has all their tiers over one store."
        )
    if not isinstance(router, Router):
        raise ConfigError(f"router must be an embedrouter.Router, not {type(router).__name__}.")
    return router
