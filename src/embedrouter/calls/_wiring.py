"""Resolve the settings of a router, once, when the router is built."""

import inspect
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import platformdirs

from ..cache import Claims, Default, QueryMemory, Records, ServedNames, VectorCache, default_folder, mark
from ..errors import BudgetExceededError, ConfigError, RetirementWarning, StalePriceWarning
from ..events import Events
from ..limits import MINUTE, RetryPolicy, SharedLimits
from ..models import Backend, Card, Model, RouterSettings, load_catalogue, rank, resolve, shared_space
from ..providers import create, describe
from ..redis import RedisState, open_caches
from ..spending import Budget, Ledger, UsageTotals, cost, current_tag, project_tag
from ..types import Candidate, InputType, OverlongPolicy, Space
from ._call import Degradation

LEDGER_FILE, INDEXES = "ledger.db", "indexes"
YEAR = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers share on a server, besides cache and ledger."""

    place: str
    """The server, for messages."""
    limits: Mapping[int, SharedLimits]
    """Of each model that is no local one, by its index."""
    claims: Claims
    """Of texts that are being embedded."""
    indexes: Records
    """The spaces of indexes."""
    close: Callable[[], None]
    """Closes connections; the next call opens them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The parts of one router."""

    candidates: Sequence[Candidate]
    """The models with every fact resolved, in the declared order."""
    backends: Mapping[int, Backend]
    """The backend of each candidate, by the candidate's index."""
    space: Space
    default_tiers: Mapping[InputType, str]
    """The tier of calls that request none."""
    folder: Path
    """The folder of the ledger and other files: the cache's folder, or the user's data folder."""
    cache: VectorCache
    served: ServedNames
    memory: QueryMemory
    ledger: Ledger
    budget: Budget
    totals: UsageTotals
    retry: RetryPolicy
    on_too_long: OverlongPolicy
    degradation: Degradation
    micro_batch_window: float
    """Seconds; 0 sends each call alone."""
    embedders: Mapping[str, object] = field(default_factory=dict)
    """Each wrapped embedder, by the fingerprint of its model."""
    shared: Shared | None = None
    """What workers share, where ``state=`` names a server."""
    share: bool = True
    """Whether calls share texts (single flight) and are sent together (micro-batches)."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    sleep: Callable[[float], object] | None
    random: Callable[[], float]
    """Returns a number from 0 to 1."""
    events: Events
    tiers: Sequence[str]
    """Names of the tiers, lowest first."""
    keeps_none: bool = False
    """Whether the default cache is left out, because all models are faster than it."""
    tag: str = ""
    """Under which spending outside of all ``with tag(…)`` blocks is booked."""

    def cost(self, model: str, tokens: int, *, batch: bool = False) -> Decimal | None:
        """Return the cost of further tokens of a model, after its free tokens; ``None`` where the price is unknown."""
        candidate = next(item for item in self.candidates if item.name == model)
        free = self.ledger.free_tokens(model, candidate.batch_free_tokens if batch else candidate.free_tokens)
        return cost(max(0, tokens - free), candidate.batch_price if batch else candidate.price)

    def first(self, rank: int) -> Candidate:
        """Return the model that calls at a tier's rank make their first request to."""
        able = [item for item in self.candidates if item.rank >= rank]
        return min(able or self.candidates, key=in_turn)

    def is_local(self, model: str) -> bool:
        """Return whether a model runs on this machine."""
        return any(item.local for item in self.candidates if item.name == model)

    def require_affordable(self, amount: Decimal | None) -> None:
        """Refuse work of several calls whose total cost (``None``: unknown) exceeds the budget.

        Every cap is compared with the whole amount, ``per_call`` too, also where ``when_exceeded`` is ``"degrade"``. No
        money is reserved.

        Raises:
            BudgetExceededError: the message names the cap and the amount already spent.
        """
        if (refusal := self.ledger.refusal(self.budget, amount, current_tag() or self.tag)) is not None:
            raise BudgetExceededError(f"Nothing was called: {refusal}", tag=refusal.tag)

    @property
    def fingerprint(self) -> list[object]:
        """What decides a vector: the models in the order in which they are called, and the settings that change one."""
        cut = self.on_too_long != "error"
        models = [
            [item.fingerprint, item.rank, item.limits.input_tokens if cut else None]
            for item in sorted(self.candidates, key=in_turn)
        ]
        degradation = self.degradation
        by_tag = [sorted(degradation.over_budget_of.items())] if degradation.over_budget_of else []
        policy = [degradation.over_budget, degradation.unavailable, *by_tag]
        return [models, self.on_too_long, self.cache.dtype, policy]

    def close(self) -> None:
        """Close the cache and the ledger, clear the memory of queries, and wait for ``on_event``."""
        self.memory.clear()
        self.cache.close()
        self.ledger.close()
        if self.shared is not None:
            self.shared.close()
        self.events.finish()


def in_turn(candidate: Candidate) -> tuple[bool, Decimal, int]:
    """Return the sort key by which candidates are called: cheapest first, those of unknown price last."""
    return candidate.price is None, candidate.price or Decimal(0), candidate.index


def wire(settings: RouterSettings) -> Wiring:
    """Resolve the settings of a router. Only the catalogue and the descriptions of local models are read.

    Raises:
        SpaceMismatchError: the models' vectors would not be comparable.
        ConfigError: a setting is invalid; the message says how to correct the setting.
    """
    candidates, backends, embedders = _resolve_models(settings)
    space = shared_space(candidates)
    if candidates[0].output_dtype is not None and settings.on_too_long == "mean":
        raise ConfigError(
            f"on_too_long='mean' averages floats, and {candidates[0].name} gives {candidates[0].output_dtype}. Choose "
            "on_too_long='truncate' or 'error'."
        )
    highest = settings.tiers[max(candidate.rank for candidate in candidates)]
    clock = settings.clock or time.monotonic
    events = Events(settings.on_event, clock)
    names = {mark(item.fingerprint): item.name for item in reversed(candidates)}
    state = settings.state if isinstance(settings.state, RedisState) else None
    # what is faster than a cache is kept only where one is asked for
    keeps_none = state is None and isinstance(settings.cache, Default) and all(item.instant for item in candidates)
    stores = None if keeps_none else open_caches(settings.cache, state)
    cache = VectorCache(stores, settings.cache_dtype, names, events)
    folder = default_folder() if keeps_none else cache.folder
    budget = Budget.of(settings.budget) or Budget()
    served = ServedNames(folder if state is None else state.records("served"))
    folder = folder or Path(platformdirs.user_data_dir("embedrouter", appauthor=False))
    ledger = _open_ledger(settings, folder, budget, events)
    return Wiring(
        candidates=candidates,
        backends=backends,
        embedders=embedders,
        space=space,
        default_tiers={
            "query": highest if settings.query_tier is None else settings.query_tier,
            "document": highest if settings.document_tier is None else settings.document_tier,
        },
        folder=folder,
        cache=cache,
        served=served,
        memory=QueryMemory(0 if cache.store is None else settings.cache_memory),
        ledger=ledger,
        budget=budget,
        totals=UsageTotals(ledger),
        retry=settings.retry or RetryPolicy(),
        on_too_long=settings.on_too_long,
        degradation=Degradation(
            over_budget=budget.when_exceeded == "degrade",
            unavailable=settings.when_unavailable == "degrade",
            over_budget_of={name: own.when_exceeded == "degrade" for name, own in budget.by_tag.items()},
        ),
        micro_batch_window=settings.micro_batch_window,
        clock=clock,
        sleep=settings.sleep,
        random=settings.random or random.random,
        events=events,
        tiers=settings.tiers,
        keeps_none=keeps_none,
        tag=project_tag(),
        shared=None if state is None else _shared(state, settings.models, candidates),
    )


def _shared(state: RedisState, models: Sequence[str | Model], candidates: Sequence[Candidate]) -> Shared:
    """Return what workers share. Of models with one name in a router, such as one behind two keys, each has its own."""
    limits: dict[int, SharedLimits] = {}
    numbers: Counter[str] = Counter()
    for item, entry in zip(candidates, models, strict=True):
        address = "" if isinstance(entry, str) else entry.base_url or ""
        name = f"{item.name} {address}"
        numbers[name] += 1
        quotas = item.requests_per_minute, item.texts_per_minute, item.tokens_per_minute
        declared = None if isinstance(entry, str) else entry.max_concurrency
        if not item.local:
            account = f"{name} {numbers[name]}"
            limits[item.index] = state.limits(account, tuple((quota, MINUTE) for quota in quotas), declared)
    return Shared(state.place, limits, state.claims(), state.records(INDEXES), state.close)


def _resolve_models(settings: RouterSettings) -> tuple[list[Candidate], dict[int, Backend], dict[str, object]]:
    catalogue = load_catalogue(Path(settings.catalog).expanduser() if settings.catalog else None)
    candidates: list[Candidate] = []
    backends: dict[int, Backend] = {}
    embedders: dict[str, object] = {}
    named: dict[str, object] = {}
    for index, entry in enumerate(settings.models):
        model = Model(entry) if isinstance(entry, str) else replace(entry)  # with mappings of its own
        if model.embedder is not None:
            require_same_embedder(model.name, model.embedder, named.setdefault(model.name, model.embedder))
        known = describe(model, catalogue, settings.dimensions)
        candidate = resolve(
            model,
            known.card,
            dimensions=settings.dimensions,
            index=index,
            rank=rank(model.tier, settings.tiers),
            local=known.local,
            instant=known.instant,
            batches=known.batches,
            free_batches=known.free_batches,
            cuts=known.cuts,
            identity=known.identity,
        )
        if model.price is None and candidate.price:
            _warn_if_stale(known.card)
        _warn_if_retired(known.card)
        if model.embedder is not None:
            embedders[candidate.fingerprint] = model.embedder
        candidates.append(candidate)
        backends[index] = create(model, known, candidate)
    return candidates, backends, embedders


def require_same_embedder(name: str, own: object, first: object) -> None:
    """Refuse a second embedder of one name: their vectors would be stored under the same keys.

    Raises:
        ConfigError: the two embedders are different objects.
    """
    if own is not first and not (inspect.ismethod(own) and own == first):  # a method is a new object each time
        raise ConfigError(
            f"Two embedders are named {name!r}, and their vectors would be taken for each other's. Give each a "
            "name of its own: Model.wrap(…, name='wrapped:small')."
        )


def _open_ledger(settings: RouterSettings, folder: Path, budget: Budget, events: Events) -> Ledger:
    """Return the ledger on the server or in the file that the settings name; nothing is opened or made."""
    place = settings.state if settings.ledger is None else settings.ledger
    server = place if isinstance(place, RedisState) else None
    file = None
    if server is None and place != ":memory:":
        file = folder / LEDGER_FILE if place is None else Path(str(place)).expanduser().absolute()
    return Ledger(
        file,
        books=None if server is None else server.books(),
        required=budget.has_caps,
        fails_open=settings.when_ledger_fails == "open",
        events=events,
    )


def _warn_if_stale(card: Card) -> None:
    if card.checked is not None and datetime.now(UTC).date() - card.checked > YEAR:
        warnings.warn(
            f"The price of {card.model} was read on {card.checked}, more than a year ago. Look at {card.source} and "
            "set Model(…, price=…), or update embedrouter.",
            StalePriceWarning,
            stacklevel=6,
        )


def _warn_if_retired(card: Card) -> None:
    if (retirement := card.retirement(datetime.now(UTC).date())) is not None:
        warnings.warn(
            f"{card.model} {retirement}. Vectors of another model are not comparable: choose one, and embed the "
            f"documents again in time; embedrouter doctor shows how. See {card.source}, or correct the row with "
            "catalog=….",
            RetirementWarning,
            stacklevel=6,
        )
