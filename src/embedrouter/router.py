"""The router: models of one space, a cache, a budget, a retry policy.

Composition only. The constructor turns declarations into candidates and refuses what could mix spaces; ``embed`` and
``aembed`` hand the same flow to the same driver. Nothing is opened until the first call that needs it, and whatever was
closed opens again.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, Literal, TypeVar

import platformdirs

from ._process import Closeable
from .batches import Batches, BatchJob
from .cache import DEFAULT, CacheLike, Default, QueryMemory, VectorCache, open_cache
from .calls import Driver, Flow, Job, Rules, Totals
from .calls import _flow as flow
from .calls import _plan as plan
from .errors import (
    BudgetExceededError,
    ConfigError,
    DegradedWarning,
    EmbedRouterError,
    StalePriceWarning,
)
from .limits import ModelHealth, RetryPolicy
from .models import TIERS, Card, Model, load_catalogue, nearest, preset, rank, requested, resolve, the_one_space
from .models import _agreement as probes
from .providers import create, describe
from .spending import Budget, Ledger, cost
from .spending import _tags as tags
from .types import (
    Candidate,
    EmbeddingResult,
    Estimate,
    InputType,
    OverlongPolicy,
    Space,
    Usage,
)

__all__ = ["Router"]

LEDGER = "ledger.db"
YEAR = timedelta(days=365)
LONGEST_WINDOW = 1.0
CHUNK_BYTES = 64 * 2**20
"""Of vectors in one result of ``embed_iter``."""

T = TypeVar("T")


class Router(Closeable):
    """Embeds texts with the cheapest model that is good enough, all within one embedding space.

    Args:
        models: names (``"openai:text-embedding-3-small"``) or ``Model`` declarations; all must share one space.
        dimensions: what every model is asked for; their own number when left out.
        cache: a folder, an object with the methods of ``embedrouter.cache.Cache``, or ``None`` for no cache. By default
            the user's cache folder.
        budget: caps on spending; what everybody spent who shares the ledger counts.
        ledger: a SQLite file; by default beside the cache, without a cache in the user's data folder. ``":memory:"``
            keeps accounts in memory, for this router alone.
        retry: when failed requests are made again.
        query_tier: the tier of queries that ask for none; the highest any model has when left out.
        document_tier: the same for documents.
        tiers: the names of the tiers, lowest first.
        on_too_long: what happens to a text over the model's limit: ``"error"`` refuses it, ``"truncate"`` embeds its
            beginning, ``"mean"`` averages the vectors of its parts.
        when_unavailable: what happens to queries when every model at or above the asked tier is down: ``"raise"``, or
            ``"degrade"``, which lets lower tiers answer, marks it in ``result.degraded`` and warns. Documents are never
            degraded.
        cache_dtype: the number type of what is cached: ``"float32"``, or ``"float16"``, which takes half the space. New
            vectors are rounded before they are returned, so that they do not change when they come from the cache.
        cache_memory: bytes for the vectors of queries asked lately, in memory before the cache; 0 for none.
        micro_batch_window: seconds that a call of few texts waits for others, while one is under way, so that they are
            sent as one; 0 sends each by itself. While none is under way a call never waits.
        catalog: a TOML file whose rows replace or join the catalogue's.

    Raises:
        SpaceMismatchError: the models' vectors would not be comparable.
        ConfigError: a setting is wrong; the message says how to set it right.
    """

    def __init__(
        self,
        models: Sequence[str | Model],
        *,
        dimensions: int | None = None,
        cache: CacheLike | Default = DEFAULT,
        budget: Budget | None = None,
        ledger: str | Path | None = None,
        retry: RetryPolicy | None = None,
        query_tier: str | None = None,
        document_tier: str | None = None,
        tiers: Sequence[str] = TIERS,
        on_too_long: OverlongPolicy = "error",
        when_unavailable: Literal["raise", "degrade"] = "raise",
        cache_dtype: Literal["float32", "float16"] = "float32",
        cache_memory: int = 64 * 2**20,
        micro_batch_window: float = 0.01,
        catalog: str | Path | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "models": models,
            "dimensions": dimensions,
            "cache": cache,
            "budget": budget,
            "ledger": ledger,
            "retry": retry,
            "query_tier": query_tier,
            "document_tier": document_tier,
            "tiers": tiers,
            "on_too_long": on_too_long,
            "when_unavailable": when_unavailable,
            "cache_dtype": cache_dtype,
            "cache_memory": cache_memory,
            "micro_batch_window": micro_batch_window,
            "catalog": catalog,
        }
        if isinstance(models, str | Model) or not models:
            raise ConfigError("models must be a list of at least one model, such as ['openai:text-embedding-3-small'].")
        if len(set(tiers)) != len(tiers) or not tiers:
            raise ConfigError(f"tiers must be different names, lowest first, not {tuple(tiers)!r}.")
        if on_too_long not in ("error", "truncate", "mean"):
            raise ConfigError(f"on_too_long must be 'error', 'truncate' or 'mean', not {on_too_long!r}.")
        if when_unavailable not in ("raise", "degrade"):
            raise ConfigError(f"when_unavailable must be 'raise' or 'degrade', not {when_unavailable!r}.")
        if cache_dtype not in ("float32", "float16"):
            raise ConfigError(f"cache_dtype must be 'float32' or 'float16', not {cache_dtype!r}.")
        if cache_memory < 0:
            raise ConfigError(f"cache_memory is a number of bytes, not {cache_memory!r}.")
        if not 0 <= micro_batch_window <= LONGEST_WINDOW:
            raise ConfigError(
                f"micro_batch_window is a time of 0 to {LONGEST_WINDOW} seconds, not {micro_batch_window!r}."
            )
        self.tiers = tuple(tiers)
        candidates, backends = self._resolve(models, dimensions, Path(catalog).expanduser() if catalog else None)
        self.space: Space = the_one_space(candidates)
        """The space of every vector this router returns."""
        self.models = tuple(candidate.name for candidate in candidates)
        highest = self.tiers[max(candidate.rank for candidate in candidates)]
        self._defaults: dict[InputType, str] = {
            "query": highest if query_tier is None else query_tier,
            "document": highest if document_tier is None else document_tier,
        }
        for name in self._defaults.values():
            self._rank(name)
        self._cache = VectorCache(open_cache(cache), cache_dtype)
        self.ledger = Ledger(self._ledger_file(ledger), required=budget is not None and bool(budget.caps))
        """What was spent, set aside and saved: by everybody who shares the file."""
        self._totals = Totals(self.ledger)
        budget = budget or Budget()
        retry = retry or RetryPolicy()
        self._driver = Driver(
            backends, candidates, self._cache, self.ledger, budget, retry.cooldown, micro_batch_window
        )
        self._rules = Rules(
            candidates=candidates,
            space=self.space,
            retry=retry,
            on_too_long=on_too_long,
            when_unavailable=when_unavailable,
            budget=budget,
            flights=self._driver.flights,
            memory=QueryMemory(0 if self._cache.store is None else cache_memory),
            cached=self._cache.store is not None,
            cache_dtype=cache_dtype,
            together=micro_batch_window > 0 and "per_call" not in budget.caps,
            book=self._totals.book,
            abandon=self._driver.abandon,
            withdraw=self._driver.withdraw,
            clock=time.monotonic,
            chance=random.random,
        )
        self._batches = Batches(
            backends, candidates, self._cache, self.ledger, budget, self._rules.retry, self._totals.add
        )
        self._backends = backends

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Router:
        """Build a router from a TOML file.

        Args:
            path: the file; otherwise the first that exists of ``$EMBEDROUTER_CONFIG``, ``./embedrouter.toml`` and the
                table ``[tool.embedrouter]`` of ``./pyproject.toml``.

        Raises:
            ConfigError: there is no such file, or a setting in it is wrong.
        """
        from . import config

        return cls(**config.load(path).router())

    @classmethod
    def preset(
        cls, name: str, *, revision: str | None = None, trust_remote_code: bool = False, **settings: Any
    ) -> Router:
        """Build a router that is ready to use.

        Args:
            name: ``"voyage-4"`` (documents by -large, queries by -lite unless they ask for more), ``"cohere-v5"`` (-pro
                and -fast), ``"openai-small"``, ``"openai-large"``, ``"local"`` (all-MiniLM-L6-v2) or ``"offline"``
                (WordLlama).
            revision: for voyage-4, together with ``trust_remote_code=True``: this commit of voyage-4-nano joins the low
                tier. It runs on this machine, so queries are free and go on when the API is down.
            trust_remote_code: that you have read the Python code of that commit and let it run.
            settings: arguments of ``Router``, over the preset's.

        Raises:
            ConfigError: the name is unknown, or a setting is wrong.
        """
        return cls(**{**preset(name, revision, trust_remote_code), **settings})

    def _resolve(
        self, declared: Sequence[str | Model], dimensions: int | None, catalog: Path | None
    ) -> tuple[list[Candidate], list[Any]]:
        cards = load_catalogue(catalog)
        candidates, backends = [], []
        for index, entry in enumerate(declared):
            model = Model(entry) if isinstance(entry, str) else entry
            known = describe(model, cards, dimensions)
            candidate = resolve(
                model,
                known.card,
                dimensions=dimensions,
                index=index,
                rank=self._rank(model.tier),
                local=known.local,
                batches=known.batches,
                identity=known.identity,
            )
            if model.price is None and candidate.price:
                _warn_if_stale(known.card)
            candidates.append(candidate)
            backends.append(create(model, known, candidate))
        return candidates, backends

    def _rank(self, tier: str) -> int:
        return rank(tier, self.tiers)

    # Embedding

    def embed(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, timeout: float | None = None
    ) -> EmbeddingResult:
        """Return one vector per text, in order, from the cache or the cheapest model that is good enough.

        Args:
            texts: non-empty strings; equal ones are paid once.
            input_type: ``"document"`` for what is stored and searched, ``"query"`` for what searches.
            tier: the least quality to accept; otherwise what ``with embedrouter.tier(…)`` says, otherwise the router's.
            timeout: seconds for the whole call.

        Raises:
            InvalidInputError: some texts cannot be embedded; ``indices`` says which. Nothing was called.
            BudgetExceededError: the money does not suffice.
            NoModelAvailableError: every candidate failed; ``attempts`` tells how.
            BackendError: a request failed in a way that no other model should hide: a missing key, a refused text.
        """
        known = self._at_hand(texts, input_type, tier)
        if known is not None:
            return known
        job = self._job(texts, input_type, tier, timeout)
        return self._done(self._driver.run(flow.embed(job)))

    async def aembed(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, timeout: float | None = None
    ) -> EmbeddingResult:
        """Do what ``embed`` does without blocking the event loop."""
        known = self._at_hand(texts, input_type, tier)
        if known is not None:
            return known
        job = self._job(texts, input_type, tier, timeout)
        return self._done(await self._driver.arun(flow.embed(job)))

    def embed_iter(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, chunk_size: int | None = None
    ) -> Generator[EmbeddingResult]:
        """Embed more texts than memory holds: yield the results of consecutive texts, in order.

        Args:
            texts: read as they are needed, ``chunk_size`` at a time.
            chunk_size: texts for each result; when left out, as many as have 64 MiB of vectors.

        Raises:
            EmbedRouterError: what ``embed`` raises, when the iteration gets there; positions count from the first text.
        """
        return self._each(self._chunks(texts, input_type, tier, chunk_size))

    def _each(self, flows: Iterable[Flow[EmbeddingResult]]) -> Generator[EmbeddingResult]:
        for chunk in flows:
            yield self._done(self._driver.run(chunk))

    def aembed_iter(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, chunk_size: int | None = None
    ) -> AsyncGenerator[EmbeddingResult]:
        """Do what ``embed_iter`` does without blocking the event loop."""
        return self._aeach(self._chunks(texts, input_type, tier, chunk_size))

    async def _aeach(self, flows: Iterable[Flow[EmbeddingResult]]) -> AsyncGenerator[EmbeddingResult]:
        for chunk in flows:
            yield self._done(await self._driver.arun(chunk))

    def _chunks(
        self, texts: Iterable[str], input_type: InputType, tier: str | None, size: int | None
    ) -> Iterator[Flow[EmbeddingResult]]:
        """Return what is to be done for each chunk, all with the tier and the tag that surround this call."""
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ConfigError(f"chunk_size is a number of texts, at least 1, not {size!r}.")
        length = size or max(1, CHUNK_BYTES // (4 * self.space.dimensions))
        asked, tag = self._asked(input_type, tier), tags.current()
        self._rank(asked)
        return (
            flow.embed(self._job(chunk, input_type, asked, first=number * length, tag=tag))
            for number, chunk in enumerate(plan.chunks(texts, length))
        )

    def estimate(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, batch: bool = False
    ) -> Estimate:
        """Return what ``embed`` would take, or ``submit_batch``, without calling any model."""
        return self._done(self._driver.run(flow.estimate(self._job(texts, input_type, tier, batch=batch))))

    def estimate_tiers(self, texts: Iterable[str], *, input_type: InputType) -> dict[str, Estimate]:
        """Return what ``embed`` would take at each tier that has a model or a better one, lowest first."""
        items = plan.validate(texts)
        highest = max(candidate.rank for candidate in self._rules.candidates)
        return {name: self.estimate(items, input_type=input_type, tier=name) for name in self.tiers[: highest + 1]}

    def afford(self, amount: Decimal | None) -> None:
        """Refuse a job of several calls that costs this much (``None``: unknown) where the budget does not suffice.

        All caps are held against the whole amount, ``per_call`` too, whatever ``when_exceeded`` says. Nothing is set
        aside.

        Raises:
            BudgetExceededError: the message says which cap, and what is spent already.
        """
        refusal = self.ledger.refusal(self._rules.budget, amount)
        if refusal is not None:
            raise BudgetExceededError(f"Nothing was called: {refusal}")

    def cost(self, model: str, tokens: int, *, batch: bool = False) -> Decimal | None:
        """Return what so many more tokens of a model cost in US dollars, without its free tokens; ``None``: unknown."""
        candidate = next(item for item in self._rules.candidates if item.name == model)
        free = self.ledger.free_tokens(model, candidate.free_tokens)
        return cost(max(0, tokens - free), candidate.batch_price if batch else candidate.price)

    def embed_with(self, position: int, texts: Iterable[str], *, input_type: InputType) -> EmbeddingResult:
        """Embed texts with the model at ``position`` in ``models`` alone, past the cache, even if it keeps failing.

        What it costs is booked, and the budget holds.
        """
        candidate = self._rules.candidates[position]
        rules, nowhere = self._rules, VectorCache(None)
        driver = Driver(self._backends, rules.candidates, nowhere, self.ledger, rules.budget, cooldown=0, window=0)
        job = self._job(texts, input_type, candidate.tier)
        job.rules = replace(
            rules,
            candidates=[candidate],
            flights=driver.flights,
            memory=QueryMemory(0),
            cached=False,
            together=False,
            abandon=driver.abandon,
            withdraw=driver.withdraw,
        )
        return self._done(driver.run(flow.embed(job)))

    def check_agreement(self) -> list[probes.Agreement]:
        """Embed a few short texts with every model, and check that their vectors may be mixed, for instance at start.

        Places that claim to be the same model must give the same vectors; of different models of one space each text's
        vectors must be far nearer to each other than to other texts. Nothing is read from the cache or written to it;
        each model takes about 300 tokens. In asynchronous code: ``await asyncio.to_thread(router.check_agreement)``.

        Raises:
            SpaceMismatchError: two models do not agree; the message says which, and how far they are apart.
            EmbedRouterError: a model could not be asked; those that could agree.
        """
        places: list[probes.Place] = []
        failures: list[EmbedRouterError] = []
        for position, name in enumerate(probes.labels(self.models) if len(self.models) > 1 else ()):
            try:
                vectors = {
                    kind: self.embed_with(position, probes.TEXTS, input_type=kind).vectors for kind in self._defaults
                }
            except EmbedRouterError as error:
                failures.append(error)
            else:
                places.append(probes.Place(name, self.candidates[position].fingerprint, vectors))
        found = probes.agreements(places)
        probes.require(found)
        if failures:
            raise failures[0]
        return found

    # Batches

    def submit_batch(
        self, texts: Iterable[str], *, input_type: InputType = "document", tier: str | None = None
    ) -> BatchJob:
        """Hand texts to the provider's batch endpoint: OpenAI asks half the price and takes up to 24 hours.

        What is cached already, or in a batch under way, is not submitted again. ``BatchJob.wait`` puts the vectors into
        the cache, where ``embed`` finds them. The process may end meanwhile: ``batches`` finds the job again. In
        asynchronous code: ``await asyncio.to_thread(router.submit_batch, texts)``.

        Raises:
            ConfigError: no model of the tier has a batch endpoint, or the router has no cache or no ledger in a file.
            InvalidInputError: some texts cannot be embedded; nothing was submitted.
            BudgetExceededError: the money does not suffice; nothing was submitted.
            BackendError: the provider could not be reached, or refused.
        """
        self._batches.check()
        job = self._job(texts, input_type, tier, batch=True)
        prepared = self._driver.run(flow.prepare(job))
        assert prepared is not None, "a call's own flow is never stopped from outside"
        return self._batches.submit(job, prepared[0])

    def batches(self, *, ended: bool = False) -> list[BatchJob]:
        """Return the batches of this router's models that are under way, or ended, whoever submitted them."""
        return self._batches.jobs(ended=ended)

    def _at_hand(self, texts: Iterable[str], input_type: InputType, tier: str | None) -> EmbeddingResult | None:
        """Return the result for a single query that was asked lately."""
        if input_type != "query" or not isinstance(texts, list) or len(texts) != 1 or not isinstance(texts[0], str):
            return None
        known = flow.at_hand(self._rules, texts[0], self._rank(self._asked(input_type, tier)))
        if known is None:
            return None
        result, saving = known
        self._totals.save(saving, tags.current())
        return result

    def _job(
        self,
        texts: Iterable[str],
        input_type: InputType,
        tier: str | None,
        timeout: float | None = None,
        *,
        batch: bool = False,
        first: int = 0,
        tag: str | None = None,
    ) -> Job:
        return Job(
            tag=tags.current() if tag is None else tag,
            batch=batch,
            rules=self._rules,
            rank=self._rank(self._asked(input_type, tier)),
            texts=plan.validate(texts, first),
            first=first,
            input_type=input_type,
            deadline=None if timeout is None or timeout > TIMEOUT_MAX else self._rules.clock() + timeout,
        )

    def _asked(self, input_type: InputType, tier: str | None) -> str:
        """Return the tier that a call asks for, here, around it, or with the router's default."""
        if input_type not in ("document", "query"):
            raise ConfigError(f"input_type must be 'document' or 'query', not {input_type!r}.")
        name = nearest(tier, requested(input_type))
        return self._defaults[input_type] if name is None else name

    @staticmethod
    def _done(result: T | None) -> T:
        assert result is not None, "a call's own flow is never stopped from outside"
        if isinstance(result, EmbeddingResult) and any(result.degraded):
            used = sorted({model for model, low in zip(result.models, result.degraded, strict=True) if low})
            warnings.warn(
                f"{sum(result.degraded)} of {len(result)} queries were answered by {', '.join(used)}, below the tier "
                "that was asked for: nothing better was available or affordable.",
                DegradedWarning,
                stacklevel=3,
            )
        return result

    @property
    def folder(self) -> Path:
        """Where this router keeps what is not a vector: beside the cache, or in the user's data folder."""
        folder = getattr(self._cache.store, "folder", None)
        return folder if isinstance(folder, Path) else Path(platformdirs.user_data_dir("embedrouter", appauthor=False))

    def _ledger_file(self, ledger: str | Path | None) -> Path | None:
        if ledger == ":memory:":
            return None
        return self.folder / LEDGER if ledger is None else Path(ledger).expanduser().absolute()

    def default_tier(self, input_type: InputType) -> str:
        """Return the tier of calls that ask for none."""
        return self._defaults[input_type]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every fact about each model, in the order declared."""
        return tuple(self._rules.candidates)

    # Totals and life cycle

    @property
    def usage(self) -> Usage:
        """What was billed and avoided since the router was built, failed calls included."""
        return self._totals.usage

    def health(self) -> dict[str, ModelHealth]:
        """Return how each model has been doing in this process: whether it is asked, or left alone because it fails.

        Of a model that is declared several times the keys say which place it is.
        """
        return dict(zip(probes.labels(self.models), self._driver.health(), strict=True))

    @property
    def damaged(self) -> int:
        """Cache rows found damaged so far; each was treated as missing and written again."""
        return self._cache.damaged

    def close(self) -> None:
        self._rules.memory.clear()
        for backend in self._backends:
            backend.close()
        self._cache.close()
        self.ledger.close()

    async def aclose(self) -> None:
        await self._driver.finish()
        self._rules.memory.clear()
        for backend in self._backends:
            await backend.aclose()
        self._cache.close()
        self.ledger.close()

    def __repr__(self) -> str:
        return f"Router({', '.join(self.models)}; {self.space})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._settings,)


def _warn_if_stale(card: Card) -> None:
    if card.checked is not None and datetime.now(UTC).date() - card.checked > YEAR:
        warnings.warn(
            f"The price of {card.model} was read on {card.checked}, more than a year ago. Look at {card.source} and "
            "set Model(…, price=…), or update embedrouter.",
            StalePriceWarning,
            stacklevel=4,
        )


def _rebuild(settings: dict[str, Any]) -> Router:
    return Router(**settings)
