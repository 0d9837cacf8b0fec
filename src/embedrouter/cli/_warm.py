"""``embedrouter warm``: embed texts into the cache, before a program needs the vectors.

Texts are read and embedded in chunks, so that memory holds one chunk. The vectors of every answered request are in the
cache before the next request: after a stop, the same command continues, and no text is paid for twice.
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Annotated, Any

import typer

from ..errors import ConfigError, EmbedRouterError
from ..router import Router, wiring_of
from ..spending import tag as booked_under
from ..tiered import default_tier
from ..types import Estimate, InputType
from ._batch import PollInterval, collect_batches
from ._console import Output, exit_on_interrupt, format_money
from ._estimate import estimate_tiers
from ._options import AsJson, CacheFolder, ConfigFile, ModelName, Yes
from ._routers import find_router, router_at_tier
from ._texts import STDIN, ChunkSize, FieldName, InputTypeName, Source, Texts, chunks, locate_rejected, parse_input_type

BATCH_CHUNK = 50_000
"""Texts in one batch."""
FREE_CHUNK = 512
"""Texts in a chunk of a free local model: such a model is slow, and the progress bar should move."""


def command(
    path: Source,
    tier: Annotated[str | None, typer.Option(metavar="T", help="The tier; by default the router's.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="Book the spending under this name.")] = None,
    input_type: InputTypeName = "document",
    field: FieldName = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Use the provider's batch endpoint: OpenAI's costs half and takes a day.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --batch: submit, and do not wait.")] = False,
    every: PollInterval = 60.0,
    chunk_size: ChunkSize = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Embed texts into the cache. You can stop it at any time: the next run continues and pays for no text twice.

    Shows the cost and asks, unless nothing is to be paid. If the budget does not cover all texts nothing is embedded;
    for per_call all texts are one call. Texts are read as by estimate.
    """
    if detach and not batch:
        raise typer.BadParameter("--detach goes with --batch.")
    kind, output = parse_input_type(input_type), Output(as_json=as_json)
    chosen, cache_location = find_router(model, config, cache)
    if cache_location is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    router, own_tier = router_at_tier(chosen, tier, kind)
    began = time.monotonic()
    with router, closing(Texts(path, field)) as texts, booked_under(tag) if tag else nullcontext():
        if batch:
            collect_batches([router], every, wait=not detach, output=output)
        with output.busy("counting tokens"):
            expected = estimate_tiers(router, texts, [own_tier], kind, chunk_size, batch=batch)[own_tier]
        wiring_of(router).require_affordable(expected.cost)
        _confirm_cost(expected, yes, path == STDIN, output)
        run = Run(router, texts, kind, own_tier, chunk_size, cache_location, output)
        facts = run.submit_batches(every, wait=not detach) if batch else run.embed(expected)
    output.line(f"{_format_usage(router)} Cache: {cache_location}.")
    facts |= {"distinct": expected.unique, "tier": tier or default_tier(chosen, kind), "tag": tag or ""}
    facts |= {"cache": cache_location, "input_type": kind, "usage": asdict(router.usage), "expected": expected.cost}
    output.json({**facts, "seconds": time.monotonic() - began})
    if facts.get("failures"):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Run:
    """The part of the command that spends money."""

    router: Router
    texts: Texts
    input_type: InputType
    tier: str
    chunk_size: int | None
    cache_location: str
    output: Output

    def embed(self, expected: Estimate) -> dict[str, Any]:
        """Embed chunk after chunk; return the facts to report."""
        began = time.monotonic()
        done = embedded = 0
        size = self.chunk_size or (FREE_CHUNK if expected.cost == 0 else None)
        with (
            exit_on_interrupt(lambda: f"Stopped. {self._resume_message()}"),
            self.output.spending_progress("embedding", expected.texts) as advance,
        ):
            for chunk in chunks(self.texts, size):
                wanted = [item.text for item in chunk]
                try:
                    with locate_rejected(chunk):
                        result = self.router.embed(wanted, input_type=self.input_type, tier=self.tier)
                except EmbedRouterError as error:
                    self._add_progress(error, wanted, done, expected.texts)
                    raise
                done += len(result)
                embedded += len({item.text for item, cached in zip(chunk, result.cached, strict=True) if not cached})
                advance(done, self.router.usage.cost)
        seconds = f"{time.monotonic() - began:.1f} s."
        if embedded:
            self.output.line(
                f"{done:,} texts: {embedded:,} embedded, the others were in the cache or repeated. {seconds}"
            )
        else:
            self.output.line(f"All {done:,} texts were in the cache. {seconds}")
        return {"texts": done, "embedded": embedded}

    def submit_batches(self, every: float, *, wait: bool) -> dict[str, Any]:
        """Submit batch after batch, and collect the batches under way; return the facts to report."""
        done = 0
        for chunk in chunks(self.texts, BATCH_CHUNK):
            with locate_rejected(chunk):
                self.router.submit_batch([item.text for item in chunk], input_type=self.input_type, tier=self.tier)
            done += len(chunk)
        return {"texts": done, **collect_batches([self.router], every, wait=wait, output=self.output)}

    def _add_progress(self, error: EmbedRouterError, chunk: list[str], done: int, total: int) -> None:
        """Add to an error how many texts are embedded, if any request was paid."""
        if self.router.usage.requests:
            done += self.router.estimate(chunk, input_type=self.input_type, tier=self.tier).cached
            error.args = (f"{error}\n{done:,} of {total:,} texts are embedded. {self._resume_message()}",)

    def _resume_message(self) -> str:
        return (
            f"{_format_usage(self.router)} What was answered is in the cache ({self.cache_location}): the same command "
            "continues from there and pays for nothing twice."
        )


def _confirm_cost(expected: Estimate, yes: bool, piped: bool, output: Output) -> None:
    """Show the cost, and ask if there is any.

    Raises:
        ConfigError: the user did not agree.
    """
    output.line(
        f"{expected.texts:,} texts, {expected.unique:,} distinct, {expected.cached:,} in the cache; the rest is "
        f"{'' if expected.exact else 'about '}{expected.tokens:,} tokens."
    )
    if expected.cost == 0:
        return
    cost = "an unknown price" if expected.cost is None else f"about {format_money(expected.cost)}"
    question = f"This embeds {expected.tokens:,} tokens for {cost} with {expected.model}"
    output.require_agreement(question, "Nothing was embedded. Agree with --yes.", yes=yes, piped=piped)


def _format_usage(router: Router) -> str:
    usage = router.usage
    unknown = f", and {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    saved = f", {format_money(usage.saved)} saved" if usage.saved else ""
    requests = f"{usage.requests:,} request{'' if usage.requests == 1 else 's'}"
    return f"Spent: {format_money(usage.cost or Decimal(0))} for {usage.tokens:,} tokens in {requests}{unknown}{saved}."
