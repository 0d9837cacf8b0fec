"""What ``warm`` and ``embed`` share: count and ask first, then embed chunk after chunk.

The cache must keep what is paid for: otherwise nothing is called, and a cache that fails in the middle ends the run
after the requests in flight.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from .._display import counted, dollars
from ..errors import CacheError, ConfigError, EmbedRouterError
from ..router import Router, wiring_of
from ..types import EmbeddingResult, Estimate, InputType, Usage
from ..workers import Processes, Worker
from ._console import Output, exit_on_interrupt, resume_message
from ._estimate import estimate_tiers, texts_at_once, warn_of_long
from ._routers import cache_location
from ._texts import LocatedText, Skipped, TextOptions, Texts, chunks, usable_texts

BATCH_CHUNK = 50_000
"""Texts in one batch."""
AHEAD = 2
"""Chunks that each worker has been given, so that none waits for this process."""

Answered: TypeAlias = tuple[list[LocatedText], EmbeddingResult]
"""The texts of a chunk that were embedded, and their vectors."""


@dataclass(slots=True)
class Run:
    """One run of a command that embeds all texts of its source."""

    router: Router
    tier: str
    input_type: InputType
    texts: Texts
    source: TextOptions
    output: Output
    workers: int = 1
    """Processes that embed; with one it is this process."""
    tag: str = ""
    """What the spending of further processes is booked under."""
    expected: Estimate = field(init=False)
    _elsewhere: Usage = field(default_factory=Usage)
    """What further processes have used."""
    _at: Sequence[LocatedText] = ()
    """The chunk that is being embedded."""

    def expect(self, *, batch: bool = False) -> Estimate:
        """Estimate the texts, refuse what the budget does not cover, and show what is to be done."""
        router, output, tier = self.router, self.output, self.tier
        with output.busy("counting tokens"):
            expected = estimate_tiers(router, self.texts, [tier], self.input_type, batch=batch)[tier]
        wiring_of(router).require_affordable(expected.cost)
        output.line(
            f"{counted(expected.texts, 'text')}, {expected.unique:,} distinct, {expected.cached:,} in the cache; the "
            f"rest is {'' if expected.exact else 'about '}{counted(expected.likely_tokens, 'token')}."
        )
        warn_of_long(router, expected, self.source, output)
        self.texts.skipped.show(output)
        self.expected = expected
        return expected

    def require_keeping(self) -> None:
        """Refuse a cache that cannot keep what is not in it yet, now and during the run.

        Raises:
            CacheError: nothing was called; the message has the next action.
        """
        if self.expected.unique > self.expected.cached:
            self.router.cache.require_keeping(self.expected.cache_bytes)
            self.router.cache.must_keep = True

    def require_processes_help(self) -> None:
        """Refuse several processes for a model that is called over the network, or whose cache is not shared.

        Raises:
            ConfigError: the message says what is faster instead.
        """
        model = self.expected.model
        if self.workers > 1 and not wiring_of(self.router).is_local(model):
            raise ConfigError(
                f"--workers is for models that run on this machine. {model} is called over the network: one process "
                "has many requests in flight. Leave --workers out; if your limits allow more, raise max_concurrency "
                "of the model."
            )

    def ask(self) -> None:
        """Show the cost and ask, unless nothing is to be paid."""
        self.output.confirm_cost([self.expected], "Agree with --yes.", piped=self.source.piped)

    def submit(self) -> None:
        """Submit the texts as batches."""
        submit = partial(self.router.submit_batch, input_type=self.input_type, tier=self.tier)
        for chunk in chunks(self.texts, BATCH_CHUNK):
            usable_texts(chunk, self._skipped, submit)

    def embed(
        self, receive: Callable[[Sequence[LocatedText], EmbeddingResult], object] = lambda texts, result: None
    ) -> dict[str, Any]:
        """Embed chunk after chunk; return the facts to report: ``done`` is the sum of the other numbers of texts.

        Args:
            receive: is called with the texts and the vectors of each chunk.
        """
        router, expected, began = self.router, self.expected, time.monotonic()
        done = embedded = recalled = shortened = 0
        parts = chunks(self.texts, self.texts.chunk_size or texts_at_once(router, self.tier, self.input_type))
        with (
            exit_on_interrupt(lambda: f"Stopped. {self._resume_message()}"),
            self.output.progress("embedding", expected.texts) as advance,
            closing(self._here(parts) if self.workers == 1 else self._in_processes(parts)) as answers,
        ):
            while True:
                try:
                    usable, result = next(answers)
                except StopIteration:
                    break
                except EmbedRouterError as error:
                    if self.usage.requests and not isinstance(error, ConfigError):  # of texts that cannot be read
                        error.add_note(self._note(done + self._kept, error))
                    raise
                receive(usable, result)
                done += len(result)
                embedded += len({item.text for item, cached in zip(usable, result.cached, strict=True) if not cached})
                recalled += sum(result.cached)
                shortened += sum(result.shortened)
                advance(done, self.usage.cost)
        counts = {"done": done, "embedded": embedded, "recalled": recalled, "repeated": done - embedded - recalled}
        return {**counts, "shortened": shortened, "embedding_seconds": time.monotonic() - began}

    @property
    def usage(self) -> Usage:
        """What the run has used, in all processes."""
        return self.router.usage + self._elsewhere

    def format_usage(self) -> str:
        """Return what the run has spent and saved, as a sentence."""
        usage = self.usage
        unknown = f", and {counted(usage.unpriced_tokens, 'token')} of unknown price" if usage.unpriced_tokens else ""
        saved = f", {dollars(usage.saved)} saved" if usage.saved else ""
        work = f"{counted(usage.tokens, 'token')} in {counted(usage.requests, 'request')}"
        return f"Spent: {dollars(usage.cost)} for {work}{unknown}{saved}."

    # Chunks, in order

    def _here(self, parts: Iterable[list[LocatedText]]) -> Generator[Answered]:
        embed = partial(self.router.embed, input_type=self.input_type, tier=self.tier)
        for chunk in parts:
            self._at = chunk
            yield usable_texts(chunk, self._skipped, embed)
            self._at = ()

    def _in_processes(self, parts: Iterable[list[LocatedText]]) -> Generator[Answered]:
        """Have processes embed the chunks, and yield them in the order of the texts."""
        rest = iter(parts)
        begun: deque[tuple[list[LocatedText], Future[EmbeddingResult]]] = deque()
        with Processes(Worker(self.router, self.input_type, self.tier, self.tag), self.workers) as processes:

            def embed(texts: list[str], first: list[Future[EmbeddingResult]]) -> EmbeddingResult:
                result = processes.result(first.pop() if first else processes.submit(texts))
                self._elsewhere += result.usage
                return result

            while True:
                for chunk in islice(rest, AHEAD * self.workers - len(begun)):
                    begun.append((chunk, processes.submit([item.text for item in chunk])))
                if not begun:
                    return
                self._at, future = begun.popleft()
                yield usable_texts(self._at, self._skipped, partial(embed, first=[future]))
                self._at = ()

    @property
    def _skipped(self) -> Skipped | None:
        return self.texts.skipped if self.source.skip_bad else None

    @property
    def _kept(self) -> int:
        """The texts of the current chunk that are in the cache."""
        if not self._at:
            return 0
        wanted = [item.text for item in self._at]
        return self.router.estimate(wanted, input_type=self.input_type, tier=self.tier).cached

    def _note(self, kept: int, error: EmbedRouterError) -> str:
        """Return what a run that failed has reached, and how it goes on."""
        total = self.expected.texts
        if isinstance(error, CacheError):
            return (
                f"{kept:,} of {total:,} texts are kept. {self.format_usage()} After that, the same command "
                "continues from there."
            )
        return f"{kept:,} of {total:,} texts are embedded. {self._resume_message()}"

    def _resume_message(self) -> str:
        return resume_message(self.format_usage(), cache_location(self.router))
