"""What ``warm`` and ``embed`` share: count and ask first, then embed chunk after chunk.

The cache must keep what is paid for: otherwise nothing is called, and a cache that fails in the middle ends the run
after the requests in flight.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .._display import counted, dollars
from ..errors import CacheError, EmbedRouterError
from ..router import Router, wiring_of
from ..types import EmbeddingResult, Estimate, InputType
from ._console import Output, exit_on_interrupt
from ._estimate import estimate_tiers, texts_at_once, warn_of_long
from ._routers import cache_location
from ._texts import LocatedText, TextOptions, Texts, chunks, usable_texts

BATCH_CHUNK = 50_000
"""Texts in one batch."""


@dataclass(slots=True)
class Run:
    """One run of a command that embeds all texts of its source."""

    router: Router
    tier: str
    input_type: InputType
    texts: Texts
    source: TextOptions
    output: Output
    expected: Estimate = field(init=False)

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
        embed = partial(router.embed, input_type=self.input_type, tier=self.tier)
        with (
            exit_on_interrupt(lambda: f"Stopped. {_resume_message(router)}"),
            self.output.progress("embedding", expected.texts) as advance,
        ):
            for chunk in chunks(self.texts, self.texts.chunk_size or texts_at_once(router, self.tier, self.input_type)):
                try:
                    usable, result = usable_texts(chunk, self._skipped, embed)
                except EmbedRouterError as error:
                    if router.usage.requests:
                        wanted = [item.text for item in chunk]
                        kept = router.estimate(wanted, input_type=self.input_type, tier=self.tier).cached
                        error.add_note(self._note(done + kept, error))
                    raise
                receive(usable, result)
                done += len(result)
                embedded += len({item.text for item, cached in zip(usable, result.cached, strict=True) if not cached})
                recalled += sum(result.cached)
                shortened += sum(result.shortened)
                advance(done, router.usage.cost)
        counts = {"done": done, "embedded": embedded, "recalled": recalled, "repeated": done - embedded - recalled}
        return {**counts, "shortened": shortened, "embedding_seconds": time.monotonic() - began}

    @property
    def _skipped(self) -> Any:
        return self.texts.skipped if self.source.skip_bad else None

    def _note(self, kept: int, error: EmbedRouterError) -> str:
        """Return what a run that failed has reached, and how it goes on."""
        total = self.expected.texts
        if isinstance(error, CacheError):
            return (
                f"{kept:,} of {total:,} texts are kept. {format_usage(self.router)} After that, the same command "
                "continues from there."
            )
        return f"{kept:,} of {total:,} texts are embedded. {_resume_message(self.router)}"


def _resume_message(router: Router) -> str:
    location = cache_location(router)
    if location is None:
        return f"{format_usage(router)} No cache is in use: the next run starts anew."
    return (
        f"{format_usage(router)} What was answered is in the cache ({location}): the same command "
        "continues from there and pays for nothing twice."
    )


def format_usage(router: Router) -> str:
    """Return what a router has spent and saved, as a sentence."""
    usage = router.usage
    unknown = f", and {counted(usage.unpriced_tokens, 'token')} of unknown price" if usage.unpriced_tokens else ""
    saved = f", {dollars(usage.saved)} saved" if usage.saved else ""
    work = f"{counted(usage.tokens, 'token')} in {counted(usage.requests, 'request')}"
    return f"Spent: {dollars(usage.cost)} for {work}{unknown}{saved}."
