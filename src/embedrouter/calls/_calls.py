"""Run the calls of one router: the stages in order, for both forms of a call.

Texts are passed down the stages, and vectors are passed back up:

    validate, distinct texts     ``_validate``
    recall                       ``_recall``: recent queries, in memory
    micro-batch                  ``_micro_batch``: small calls as one request
    look up                      ``_look_up``: the cache
    share                        ``_share``: texts that another call is embedding
    claim                        ``_claim``: texts that another process is embedding
    size                         ``_size``: count tokens, split texts over the limit
    afford                       ``_afford``: the budget, concurrent requests
    send                         ``_send``: the candidates, cheapest first
    isolate                      ``_isolate``: refused texts, one by one
    retries                      ``_retries``
    one attempt                  ``_attempt``: admission, reservation, request, cache, booking
    assemble                     ``_assemble``: the order of the input

A forked child builds new stages, because the state that calls share belongs to one process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from .._process import PerProcess, in_thread, is_daemon_process, threads
from .._sqlite import ends_in
from ..cache import QueryMemory, VectorCache
from ..errors import (
    ConfigError,
    EmbedRouterError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    OutOfThreadsError,
)
from ..events import CallBilled, numbered_call, watched
from ..limits import ModelHealth
from ..providers import runtime_of
from ..types import Candidate, EmbeddingResult, Estimate
from ._account import CallAccount
from ._assemble import assemble, savings, warn_if_degraded
from ._async import AsyncEffects, end
from ._call import Call, SizedText, TextsRejected, TextsTooLong, without
from ._effects import Effects, Running
from ._estimate import estimate
from ._progress import Progress
from ._question import Question
from ._size import Sized
from ._stages import Stages
from ._surroundings import surroundings
from ._sync import SyncEffects, run
from ._validate import format_positions, positions
from ._wiring import Wiring, in_turn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Texts for a batch endpoint."""

    candidate: Candidate
    texts: Sequence[SizedText]
    """Texts without a cached vector; a text over the limit is replaced by its parts."""
    positions: Mapping[str, int]
    """First position of each text in the input; for a part, the position of the whole text."""


class Calls:
    """Run the calls of one router, in both forms."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self._stages = PerProcess(lambda: Stages(wiring))

    # Operations, shared by both forms

    def embed(self, effects: Effects, question: Question) -> Running[EmbeddingResult]:
        """Return the vectors of the texts in order."""
        if first := surroundings().first:
            question = replace(question, first=question.first + first)
        told = self.wiring.events.wanted(CallBilled)
        return self._embed_and_tell(effects, question) if told else self._embed(effects, question)

    async def _embed_and_tell(self, effects: Effects, question: Question) -> EmbeddingResult:
        events, account = self.wiring.events, CallAccount(self.wiring, question)
        with numbered_call(), watched(account.begin()):
            try:
                result = await self._embed(effects, question, account)
            except BaseException as error:
                events.report(account.failed(error))
                if isinstance(error, Exception):
                    await events.received(effects.detached().wait_for)
                raise
            events.report(account.ended(result))
        await events.received(effects.detached().wait_for)
        return result

    async def _embed(self, effects: Effects, question: Question, account: CallAccount | None = None) -> EmbeddingResult:
        wiring, texts = self.wiring, question.texts
        call = self._call(effects, question)
        if question.progress is not None:
            call = replace(call, report=question.progress.begin(texts))
        if account is not None:
            call = account.attached(call)
        embedded = await self._positioned(question, self._stages.get().first.embed(call, list(dict.fromkeys(texts))))
        avoided = savings(texts, embedded.found)
        if account is not None:
            account.avoided = avoided
        wiring.totals.save(avoided, question.tag)
        if wiring.ledger.flush_due():
            if is_daemon_process():  # it may be ended as soon as it has returned
                await effects.run_blocking(wiring.ledger.flush)
            else:
                with suppress(OutOfThreadsError):  # it is due again later
                    threads.submit(wiring.ledger.flush)
        number, rank = wiring.candidates[0].number, question.rank
        result = assemble(
            texts, embedded.found, embedded.charges, avoided, space=wiring.space, number=number, rank=rank
        )
        if question.progress is not None:
            question.progress.end(result)
        return result

    async def estimate(self, effects: Effects, question: Question) -> Estimate:
        """Estimate the tokens, requests and cost of ``embed``; read the cache and make no request."""
        call, distinct = self._call(effects, question), list(dict.fromkeys(question.texts))
        missing, sized = await self._prepare(call, question, distinct)
        afford = self._stages.get().afford
        return await estimate(self.wiring, afford, call, question.texts, len(missing), sized, len(distinct))

    async def prepare(self, effects: Effects, question: Question) -> Prepared:
        """Return the texts to be sent for the texts that are not cached."""
        call = self._call(effects, question)
        _, sized = await self._prepare(call, question, list(dict.fromkeys(question.texts)))
        places: dict[str, int] = {}
        for index, text in enumerate(question.texts):
            places.setdefault(text, index)
        for whole, parts in sized.parts.items():
            for part in parts:
                places.setdefault(part, places[whole])
        return Prepared(call.first, sized.texts, places)

    async def _prepare(self, call: Call, question: Question, texts: Sequence[str]) -> tuple[list[str], Sized]:
        stages, memory = self._stages.get(), self.wiring.memory
        if call.input_type == "query":
            texts = [text for text in texts if memory.recall(text, call.rank) is None]
        missing = without(texts, await stages.reader.look_up(call, texts))
        return missing, await self._positioned(question, stages.size.measure(call, missing)) if missing else Sized([])

    async def _positioned(self, question: Question, stage: Running[T]) -> T:
        """Run a stage. Its refusals name texts; the public errors name positions."""
        try:
            return await stage
        except TextsTooLong as error:
            refusal: EmbedRouterError = _too_long(error, question)
        except TextsRejected as error:
            refusal = _rejected(error, question, self.wiring)
        raise refusal  # here, because an error raised in the handler would have the texts in its context

    def _call(self, effects: Effects, question: Question) -> Call:
        learned = self._stages.get().learned
        able = [learned.apply(item) for item in self.wiring.candidates if item.rank >= question.rank]
        if not able:
            raise NoModelAvailableError(
                "No model of this router has the requested tier or a higher one; nothing was called. "
                "Ask for a lower tier, or give a model a higher one: Model(…, tier=…)."
            )
        candidates = able
        if question.batch:
            candidates = [
                replace(item, price=item.batch_price, free_tokens=item.batch_free_tokens)
                for item in able
                if item.batch_price is not None
            ]
        if not candidates:
            raise ConfigError(
                f"No batch endpoint is known of {', '.join(candidate.name for candidate in able)}. Nothing was called. "
                "embedrouter models shows a batch price for each that has one; everything else is embedded with embed."
            )
        lower = [item for item in self.wiring.candidates if item.rank < question.rank]
        around = surroundings()
        return Call(
            effects=effects,
            input_type=question.input_type,
            rank=question.rank,
            tag=question.tag,
            deadline=question.deadline,
            candidates=sorted(candidates, key=in_turn),
            lower=sorted(lower, key=lambda item: (-item.rank, item.index)),
            limiter=around.limiter,
            report=around.report,
        )

    # The two forms

    def run(self, ask: Callable[[Effects, Question], Running[T]], question: Question) -> T:
        """Run ``embed``, ``estimate`` or ``prepare`` in the calling thread.

        After Ctrl-C, ``run`` waits for the requests in flight; a second Ctrl-C ends the wait.
        """
        stages = self._stages.get()
        started = stages.started
        end(stages.tasks.left())
        try:
            with ends_in(question.timeout):
                return run(ask(SyncEffects(started, self.wiring.sleep), question))
        except KeyboardInterrupt:
            started.finish()
            raise
        except EmbedRouterError as error:
            raise _brief(error)  # noqa: B904 - the same error

    async def arun(self, ask: Callable[[Effects, Question], Running[T]], question: Question) -> T:
        """Run ``embed``, ``estimate`` or ``prepare`` in the running event loop."""
        tasks = self._stages.get().tasks
        if left := tasks.left():
            await in_thread(end, left)
        try:
            with ends_in(question.timeout):
                return await ask(AsyncEffects(tasks, self.wiring.sleep), question)
        except EmbedRouterError as error:
            raise _brief(error)  # noqa: B904 - the same error

    def each(self, questions: Iterable[Question], progress: Progress) -> Generator[EmbeddingResult]:
        """Embed the texts of one question after the other."""
        with progress:
            for question in questions:
                yield warn_if_degraded(self.run(self.embed, question))

    async def aeach(self, questions: AsyncIterable[Question], progress: Progress) -> AsyncGenerator[EmbeddingResult]:
        """Do what ``each`` does in the running event loop."""
        async with progress:
            async for question in questions:
                yield warn_if_degraded(await self.arun(self.embed, question))

    def alone(self, position: int) -> Calls:
        """Return calls to the model at ``position`` alone, without the cache and without the circuit breaker."""
        wiring = self.wiring
        retry = replace(wiring.retry, cooldown=0)
        return Calls(
            replace(
                wiring,
                candidates=[wiring.candidates[position]],
                cache=VectorCache(None),
                memory=QueryMemory(0),
                retry=retry,
                share=False,
            )
        )

    def health(self) -> list[ModelHealth]:
        """Return the health of each model, in the order of the candidates."""
        now, limits = self.wiring.clock(), self._stages.get().limits
        return [
            replace(
                limits[candidate.index].health(candidate.name, now),
                runtime=runtime_of(self.wiring.backends[candidate.index]),
            )
            for candidate in self.wiring.candidates
        ]

    def finish(self) -> None:
        """Wait until paid answers of calls whose time was up are stored; no longer than one request may take."""
        stages = self._stages.get()
        stages.started.finish(self._longest)
        for state in stages.states:
            state.finish()

    async def afinish(self) -> None:
        """Do what ``finish`` does, also for cancelled calls of the running event loop."""
        await self._stages.get().tasks.finish(self._longest)
        await in_thread(self.finish)

    @property
    def _longest(self) -> float:
        return max(candidate.timeout for candidate in self.wiring.candidates)


def _brief(error: EmbedRouterError) -> EmbedRouterError:
    """Return an error without the frames of stages and SDKs, and without a cause that its message repeats."""
    cause = None if isinstance(error, NoModelAvailableError) else error.__cause__
    error.__cause__, error.__context__ = cause, None
    while cause is not None:
        cause.__traceback__, cause.__context__ = None, None
        cause = cause.__cause__
    return error.with_traceback(None)


def _too_long(error: TextsTooLong, question: Question) -> InvalidInputError:
    where = positions(question.texts, set(error.texts), question.first)
    return InvalidInputError(
        f"{len(error.texts)} of the texts are longer than the {error.limit} tokens that {error.model} takes, nothing "
        f"was sent. By position: {format_positions(where)}. Split them, or build the router with "
        "on_too_long='truncate' (embed their beginning) or 'mean' (average the vectors of their parts).",
        indices=where,
    )


def _rejected(error: TextsRejected, question: Question, wiring: Wiring) -> InputRejectedError:
    """Return the error for all texts that were rejected, with their positions in the user's input and the reasons."""
    reasons: dict[str, list[str]] = {}
    for text, reason in error.reasons.items():
        reasons.setdefault(str(reason), []).append(text)
    stories = []
    for story, texts in reasons.items():
        if where := positions(question.texts, set(texts), question.first):
            stories.append(f"{story} (texts at {format_positions(where)}).")
    errors = list(error.reasons.values())
    too_long = any(reason.too_long for reason in errors)
    if too_long and wiring.on_too_long == "error":
        stories.append("Split the text, or build the router with on_too_long='truncate' or 'mean'.")
    if error.others_embedded:
        kept = "and are in the cache" if wiring.cache.store else "and not kept, because the router has no cache"
        stories.append(f"The other texts were embedded {kept}.")
    rejection = InputRejectedError(
        " ".join(stories),
        model=errors[0].model,
        status=errors[0].status,
        too_long=too_long,
        indices=positions(question.texts, set(error.reasons), question.first),
    )
    rejection.__cause__ = errors[0].__cause__
    return rejection
