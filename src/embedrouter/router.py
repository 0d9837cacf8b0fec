"""The router: models of one space, a cache, a budget, a retry policy.

Composition only: ``calls.wire`` resolves the settings, ``calls.Calls`` runs each call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Sequence
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import Any, Literal

from ._display import escaped, explained
from ._process import Closeable, in_thread
from .batches import Batches, BatchJob
from .cache import DEFAULT, CacheLike, Default, VectorCache
from .calls import (
    Calls,
    Progress,
    Reports,
    ShowProgress,
    Wiring,
    achunks,
    ask,
    chunk_size_of,
    chunks,
    validate,
    warn_if_degraded,
    wire,
)
from .checks import Subject, VectorCheck, check_agreement, check_stored
from .events import Event
from .limits import RetryPolicy
from .models import TIERS, Model, NoEmbedder, RouterSettings, SetOnce, choose_tier, preset
from .models.agreement import Agreement
from .redis import RedisState
from .spending import Budget, Ledger
from .types import EmbeddingResult, Estimate, InputType, OverlongPolicy, Space

__all__ = ["Router", "check_vectors", "embed_alone", "settings_of", "wiring_of"]


@explained(
    "Router(['openai:text-embedding-3-small'], dimensions=256)", model="models=['openai:text-embedding-3-small']"
)
class Router(NoEmbedder, SetOnce, Closeable, Reports):
    """Embed texts with the cheapest model that is good enough, all within one embedding space.

    Args:
        models: names (``"openai:text-embedding-3-small"``) or ``Model`` declarations; all must share one space.
        dimensions: the number of dimensions of every vector; by default each model's own number.
        cache: a folder, an address (``"redis://…"``, ``"s3://…"``), a ``BaseStore`` of LangChain, a ``BaseKVStore`` of
            LlamaIndex, an ``embedrouter.cache.Cache``, or a list of these, the fastest first; ``None`` for no cache. By
            default the user's cache folder, or the server of ``state``.
        budget: caps on spending, of everything and of tags; all routers and processes that share the ledger count.
        ledger: a SQLite file, a Redis or Valkey server (``"redis://…"``, ``RedisState``), or ``":memory:"``, for this
            router alone; by default on the server of ``state``, else beside the cache, else in the user's data folder.
        retry: the retry policy of requests.
        query_tier: the tier of queries that request none; by default the highest tier of any model.
        document_tier: the same for documents.
        tiers: the names of the tiers, lowest first.
        on_too_long: the treatment of a text over the model's limit: ``"error"`` refuses the text, ``"truncate"`` embeds
            its beginning, ``"mean"`` averages the vectors of its parts.
        when_unavailable: the treatment of queries when every model at or above the requested tier is down: ``"raise"``,
            or ``"degrade"``, which lets lower tiers answer, marks the vectors in ``result.degraded`` and warns.
            Documents are never degraded.
        when_ledger_fails: what happens under a budget while the ledger cannot be reached: ``"closed"`` refuses paid
            requests with a ``LedgerError``; ``"open"`` sends them, warns, and books them when the ledger is back.
        cache_dtype: the number type of cached vectors: ``"float32"``, or ``"float16"``, which takes half the disk. New
            vectors are rounded before they are returned, so that a miss and a later hit are equal.
        cache_memory: bytes of memory for the vectors of recent queries; 0 keeps none.
        micro_batch_window: seconds that a small call waits, while one is in flight, for others to join it; 0 for never.
        state: the address of a Redis or Valkey server, ``"redis://…"``, or a ``RedisState``, on which routers of many
            processes and machines share cache, ledger, budget, limits and records.
        catalog: a TOML file whose rows override or extend the catalogue.
        on_event: receives the events (``embedrouter.events``) in a thread; pickles keep a function of a module alone.
        clock: returns monotonic seconds; for tests, as ``sleep`` and ``random`` are.
        sleep: waits a number of seconds; an awaitable result is awaited.
        random: returns a number from 0 to 1.

    Raises:
        SpaceMismatchError: the models' vectors would not be comparable.
        ConfigError: a setting is invalid; the message says how to correct the setting.
    """

    def __init__(
        self,
        models: Sequence[str | Model],
        *,
        dimensions: int | None = None,
        cache: CacheLike | Default = DEFAULT,
        budget: Budget | str | None = None,
        ledger: str | Path | RedisState | None = None,
        retry: RetryPolicy | None = None,
        query_tier: str | None = None,
        document_tier: str | None = None,
        tiers: Sequence[str] = TIERS,
        on_too_long: OverlongPolicy = "error",
        when_unavailable: Literal["raise", "degrade"] = "raise",
        when_ledger_fails: Literal["closed", "open"] = "closed",
        cache_dtype: Literal["float32", "float16"] = "float32",
        cache_memory: int = 64 * 2**20,
        micro_batch_window: float = 0.01,
        state: str | RedisState | None = None,
        catalog: str | Path | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        self._settings = RouterSettings(
            models=models,
            dimensions=dimensions,
            cache=cache,
            budget=budget,
            ledger=ledger,
            retry=retry,
            query_tier=query_tier,
            document_tier=document_tier,
            tiers=tiers,
            on_too_long=on_too_long,
            when_unavailable=when_unavailable,
            when_ledger_fails=when_ledger_fails,
            cache_dtype=cache_dtype,
            cache_memory=cache_memory,
            micro_batch_window=micro_batch_window,
            state=state,
            catalog=catalog,
            on_event=on_event,
            clock=clock,
            sleep=sleep,
            random=random,
        )
        self._wiring = wire(self._settings)
        self._calls = Calls(self._wiring)
        self._batches = Batches(self._wiring)
        self.tiers = tuple(tiers)
        self.space: Space = self._wiring.space
        """The space of every vector this router returns."""
        self.models = tuple(candidate.name for candidate in self._wiring.candidates)
        self.cache: VectorCache = self._wiring.cache
        self.ledger: Ledger = self._wiring.ledger
        """The accounts of spent, reserved and saved money, of all processes that share the file."""

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Router:
        """Build a router from a TOML file.

        Args:
            path: the file; by default the first that exists of ``$EMBEDROUTER_CONFIG``, ``./embedrouter.toml`` and the
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
        """Build a ready-made router.

        Args:
            name: ``"voyage-4"`` (documents by -large, queries by -lite or on request higher), ``"cohere-v5"`` (-pro
                and -fast), ``"openai-small"``, ``"openai-large"``, ``"local"`` (all-MiniLM-L6-v2) or ``"offline"``
                (WordLlama).
            revision: for voyage-4, together with ``trust_remote_code=True``: this commit of voyage-4-nano joins the low
                tier. The model runs on this machine, so queries are free and work while the API is down.
            trust_remote_code: whether the Python code of that commit, which you have read, may run.
            settings: arguments of ``Router``, which override the preset's.

        Raises:
            ConfigError: the name is unknown, or a setting is wrong.
        """
        return cls(**{**preset(name, revision, trust_remote_code), **settings})

    # Embedding

    def embed(
        self,
        texts: Iterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        timeout: float | None = None,
        show_progress: ShowProgress = False,
    ) -> EmbeddingResult:
        """Return one vector per text, in order, from the cache or the cheapest model that is good enough.

        Args:
            texts: non-empty strings; equal texts are paid once.
            input_type: ``"document"`` for texts that are stored and searched, ``"query"`` for texts that search.
            tier: the lowest tier to accept; by default that of ``with embedrouter.tier(…)``, otherwise the router's.
            timeout: seconds for the whole call.
            show_progress: whether a bar shows texts, cache hits, money and the time left; ``"auto"`` shows one where
                the work lasts longer than two seconds and there is a terminal or a notebook.

        Raises:
            InvalidInputError: some texts cannot be embedded: ``indices``. No request was made.
            BudgetExceededError: the budget does not cover the call.
            NoModelAvailableError: every candidate failed; ``attempts`` lists the failed requests.
            BackendError: a request failed, and no other model may hide the reason: a missing key, a refused text.
        """
        question = ask(self._wiring, texts, input_type, tier, timeout)
        with Progress(show_progress, len(question.texts)) as progress:
            return warn_if_degraded(self._calls.run(self._calls.embed, question.shown_by(progress)), 4)

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
        question = ask(self._wiring, texts, input_type, tier, timeout)
        async with Progress(show_progress, len(question.texts)) as progress:
            return warn_if_degraded(await self._calls.arun(self._calls.embed, question.shown_by(progress)), 4)

    def embed_iter(
        self,
        texts: Iterable[str],
        *,
        input_type: InputType,
        tier: str | None = None,
        chunk_size: int | None = None,
        show_progress: ShowProgress = False,
    ) -> Generator[EmbeddingResult]:
        """Embed more texts than fit into memory; yield the results of consecutive texts, in order.

        Args:
            texts: any iterable; ``chunk_size`` texts are read at a time.
            chunk_size: texts per result; by default as many as have 64 MiB of vectors.
            show_progress: as of ``embed``; the time left is shown where ``texts`` has a length.

        Raises:
            EmbedRouterError: an error of ``embed``, raised at its chunk; positions count from the first text of all.
        """
        progress = Progress(show_progress, length_hint(texts) or None)
        question = ask(self._wiring, [], input_type, tier).shown_by(progress)
        return self._calls.each(question.each(chunks(texts, chunk_size_of(chunk_size, self.space)), texts), progress)

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
        progress = Progress(show_progress, length_hint(texts) or None)
        question = ask(self._wiring, [], input_type, tier).shown_by(progress)
        return self._calls.aeach(question.aeach(achunks(texts, chunk_size_of(chunk_size, self.space)), texts), progress)

    def estimate(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, batch: bool = False
    ) -> Estimate:
        """Estimate the tokens, requests and cost of ``embed``, or of ``submit_batch``, without calling any model."""
        return self._calls.run(self._calls.estimate, ask(self._wiring, texts, input_type, tier, batch=batch))

    async def aestimate(
        self, texts: Iterable[str], *, input_type: InputType, tier: str | None = None, batch: bool = False
    ) -> Estimate:
        """Do what ``estimate`` does without blocking the event loop."""
        return await self._calls.arun(self._calls.estimate, ask(self._wiring, texts, input_type, tier, batch=batch))

    def estimate_tiers(self, texts: Iterable[str], *, input_type: InputType) -> dict[str, Estimate]:
        """Estimate ``embed`` at each tier that a model can serve, lowest first."""
        items = validate(texts)
        highest = max(candidate.rank for candidate in self._wiring.candidates)
        return {name: self.estimate(items, input_type=input_type, tier=name) for name in self.tiers[: highest + 1]}

    def check_agreement(self) -> list[Agreement]:
        """Check that the vectors of all models may be mixed, by embedding a few short texts with every model.

        Endpoints of one model must return equal vectors; models of one space, far closer vectors for equal texts than
        for different ones. The cache is neither read nor written. Each model takes about 300 tokens.

        Raises:
            SpaceMismatchError: two models do not agree; the message names both and the distance of their vectors.
            EmbedRouterError: a model could not be called; the other models agree.
        """
        return check_agreement(self._wiring.candidates, self._wiring.default_tiers, partial(embed_alone, self))

    async def acheck_agreement(self) -> list[Agreement]:
        """Do what ``check_agreement`` does without blocking the event loop."""
        return await in_thread(self.check_agreement)

    def check_vectors(self, texts: Iterable[str], vectors: Any, *, input_type: InputType = "document") -> VectorCheck:
        """Check whether stored vectors are this router's, by embedding their texts: a handful is enough.

        Args:
            texts: exactly as they were embedded; the budget holds and the cost is booked.
            vectors: one for each text, of shape ``(texts, dimensions)``.

        Raises:
            InvalidInputError: there is not one vector for each text, or a text cannot be embedded.
            EmbedRouterError: an error of ``embed``.
        """
        return check_vectors(self, texts, vectors, input_type)

    async def acheck_vectors(
        self, texts: Iterable[str], vectors: Any, *, input_type: InputType = "document"
    ) -> VectorCheck:
        """Do what ``check_vectors`` does without blocking the event loop."""
        return await in_thread(self.check_vectors, texts, vectors, input_type=input_type)

    # Batches

    def submit_batch(
        self, texts: Iterable[str], *, input_type: InputType = "document", tier: str | None = None
    ) -> BatchJob:
        """Submit texts to the provider's batch endpoint, which costs a third or a half less and takes hours.

        Texts that are cached, or in a batch in progress, are not submitted again. ``BatchJob.wait`` stores the vectors
        in the cache, where ``embed`` finds them. The process may end before: ``batches`` returns the job later.

        Raises:
            ConfigError: no model of the tier has a batch endpoint, or the router has no cache or no ledger in a file.
            CacheError: the cache cannot keep the vectors, because it may only be read or its disk is full.
            InvalidInputError: some texts cannot be embedded; nothing was submitted.
            BudgetExceededError: the budget does not cover the batch; nothing was submitted.
            BackendError: the provider could not be reached, or refused the batch.
        """
        self._batches.check()
        question = ask(self._wiring, texts, input_type, tier, batch=True)
        return BatchJob(self._batches, self._batches.submit(question, self._calls.run(self._calls.prepare, question)))

    async def asubmit_batch(
        self, texts: Iterable[str], *, input_type: InputType = "document", tier: str | None = None
    ) -> BatchJob:
        """Do what ``submit_batch`` does without blocking the event loop."""
        return await in_thread(self.submit_batch, texts, input_type=input_type, tier=tier)

    def batches(self, *, ended: bool = False) -> list[BatchJob]:
        """Return the batches of this router's models that are in progress, or have ended, of all processes."""
        return [BatchJob(self._batches, [reference]) for reference in self._batches.references(ended=ended)]

    # Life cycle

    def close(self) -> None:
        self._calls.finish()
        for backend in self._wiring.backends.values():
            backend.close()
        self._wiring.close()

    async def aclose(self) -> None:
        await self._calls.afinish()
        for backend in self._wiring.backends.values():
            await backend.aclose()
        await in_thread(self._wiring.close)

    def __repr__(self) -> str:
        return escaped(f"Router({', '.join(self.models)}; {self.space})")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Router, **self._settings.arguments()), ()


def wiring_of(router: Router) -> Wiring:
    """Return the parts of a router, for other modules of the package."""
    return router._wiring


def settings_of(router: Router) -> RouterSettings:
    """Return the arguments of a router, for other modules of the package."""
    return router._settings


def embed_alone(router: Router, position: int, texts: Iterable[str], input_type: InputType) -> EmbeddingResult:
    """Embed texts with the model at ``position`` alone, without the cache and without the circuit breaker.

    The cost is booked, and the budget holds.
    """
    calls = router._calls.alone(position)
    return calls.run(calls.embed, ask(router._wiring, texts, input_type, router.tiers[0]))


def check_vectors(
    router: Router, texts: Iterable[str], vectors: Any, input_type: InputType, also: Sequence[str] | None = None
) -> VectorCheck:
    """Check stored vectors; ``also`` has for each text another one, of which its vector may be as well."""
    declared = [Model(model) if isinstance(model, str) else model for model in router._settings.models]
    subject = Subject(router, declared, router._wiring.candidates, partial(_altered, router))
    choose_tier(None, input_type, router._wiring.default_tiers)
    return check_stored(subject, texts, vectors, input_type, also)


def _altered(router: Router, models: Sequence[Model]) -> Router:
    """Return a router of other models with the budget and the ledger of this one, and without a cache."""
    ledger = router.ledger.file or router._settings.ledger
    return Router(**{**router._settings.arguments(), "models": models, "cache": None, "ledger": ledger})
