"""``embedrouter warm``: embed texts into the cache, so that the program that needs them later pays nothing.

Texts are read and embedded in slices, so memory holds a slice however many there are. Every answered request is in the
cache before the next is sent: a run that was stopped goes on where it stopped, and nothing is paid for twice.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Annotated, Any

import typer

from ..errors import ConfigError, EmbedRouterError
from ..router import Router, wiring_of
from ..spending import tag as tagged
from ..tiered import default_tier
from ..types import Estimate, InputType
from .batch import Every, collect
from .choice import AsJson, CacheFolder, ConfigFile, ModelName, Yes, exclusive
from .estimate import (
    Field,
    Kind,
    Source,
    chosen_by,
    estimates,
    input_type_of,
    placed,
)
from .levels import at_tier
from .report import money
from .sheet import Sheet
from .texts import STDIN, Texts, slices

__all__ = ["command"]

BATCH_SLICE = 50_000
"""Texts submitted at once."""
FREE_SLICE = 512
"""Texts of a slice where nothing is paid: a local model is slow, and its bar should move."""


def command(
    path: Source,
    tier: Annotated[
        str | None, typer.Option(metavar="T", help="The tier to embed with; otherwise the router's.")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="Book the spending under this name.")] = None,
    input_type: Kind = "document",
    field: Field = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Use the provider's batch endpoint: OpenAI's costs half and takes a day.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --batch: submit, and do not wait.")] = False,
    every: Every = 60.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Embed texts into the cache. Stop it whenever you like: the next run continues and pays for nothing twice.

    Says what it costs and asks, unless nothing is to be paid. If the whole does not fit the budget nothing is embedded;
    for per_call the whole is one call. Texts are read as by estimate.
    """
    exclusive(model=model, config=config)
    if detach and not batch:
        raise typer.BadParameter("--detach goes with --batch.")
    kind, sheet = input_type_of(input_type), Sheet(as_json=as_json)
    chosen, place = chosen_by(model, config, cache)
    if place is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    router, own = at_tier(chosen, tier, kind)
    began = time.monotonic()
    with router, closing(Texts(path, field)) as texts, tagged(tag) if tag else nullcontext():
        if batch:
            collect([router], every, wait=not detach, sheet=sheet)
        with sheet.busy("counting tokens"):
            expected = estimates(router, texts, [own], kind, batch=batch)[own]
        wiring_of(router).require_affordable(expected.cost)
        _agree(expected, yes, path == STDIN, sheet)
        run = Run(router, texts, kind, own, place, sheet)
        facts = run.in_batches(every, wait=not detach) if batch else run.directly(expected)
    sheet.line(f"{_spent(router)} Cache: {place}.")
    facts |= {"distinct": expected.unique, "tier": tier or default_tier(chosen, kind), "tag": tag or "", "cache": place}
    facts |= {"input_type": kind, "usage": asdict(router.usage), "expected": expected.cost}
    sheet.json({**facts, "seconds": time.monotonic() - began})
    if facts.get("failures"):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Run:
    """The part of the command that spends."""

    router: Router
    texts: Texts
    kind: InputType
    tier: str
    place: str
    sheet: Sheet

    def directly(self, expected: Estimate) -> dict[str, Any]:
        """Embed slice after slice; return what is to be reported."""
        router = self.router
        began = time.monotonic()
        done = computed = 0
        try:
            with self.sheet.spending("embedding", expected.texts) as advance:
                for part in slices(self.texts, FREE_SLICE) if expected.cost == 0 else slices(self.texts):
                    wanted = [item.text for item in part]
                    try:
                        with placed(part):
                            result = router.embed(wanted, input_type=self.kind, tier=self.tier)
                    except EmbedRouterError as error:
                        if router.usage.requests:  # otherwise there is nothing to add
                            there = done + router.estimate(wanted, input_type=self.kind, tier=self.tier).cached
                            so_far = f"{there:,} of {expected.texts:,} texts are embedded. {self._kept()}"
                            error.args = (f"{error}\n{so_far}",)
                        raise
                    done += len(result)
                    computed += len({item.text for item, known in zip(part, result.cached, strict=True) if not known})
                    advance(done, speed=done / max(time.monotonic() - began, 1e-6), spent=router.usage.cost)
        except KeyboardInterrupt:
            print(f"\nStopped. {self._kept()}", file=sys.stderr)
            raise typer.Exit(130) from None
        seconds = f"{time.monotonic() - began:.1f} s."
        if computed:
            others = "the others were in the cache or the same"
            self.sheet.line(f"{done:,} texts: {computed:,} embedded, {others}. {seconds}")
        else:
            self.sheet.line(f"All {done:,} texts were in the cache. {seconds}")
        return {"texts": done, "embedded": computed}

    def in_batches(self, every: float, *, wait: bool) -> dict[str, Any]:
        """Submit slice after slice, and wait for what is under way; return what is to be reported."""
        done = 0
        for part in slices(self.texts, BATCH_SLICE):
            with placed(part):
                self.router.submit_batch([item.text for item in part], input_type=self.kind, tier=self.tier)
            done += len(part)
        return {"texts": done, **collect([self.router], every, wait=wait, sheet=self.sheet)}

    def _kept(self) -> str:
        return (
            f"{_spent(self.router)} What was answered is in the cache ({self.place}): the same command continues from "
            "there and pays for nothing twice."
        )


def _agree(expected: Estimate, yes: bool, piped: bool, sheet: Sheet) -> None:
    """Say what the run costs and ask, if it costs anything.

    Raises:
        ConfigError: nobody agreed.
    """
    sheet.line(
        f"{expected.texts:,} texts, {expected.unique:,} distinct, {expected.cached:,} in the cache; the rest is "
        f"{'' if expected.exact else 'about '}{expected.tokens:,} tokens."
    )
    if expected.cost == 0:
        return
    cost = "an unknown price" if expected.cost is None else f"about {money(expected.cost)}"
    asked = f"This embeds {expected.tokens:,} tokens for {cost} with {expected.model}"
    if not yes and (piped or not sheet.confirm(f"{asked}. Go ahead?")):
        raise ConfigError(f"{asked}. Nothing was embedded. Agree with --yes.")


def _spent(router: Router) -> str:
    usage = router.usage
    unknown = f", and {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    saved = f", {money(usage.saved)} saved" if usage.saved else ""
    requests = f"{usage.requests:,} request{'' if usage.requests == 1 else 's'}"
    return f"Spent: {money(usage.cost or Decimal(0))} for {usage.tokens:,} tokens in {requests}{unknown}{saved}."
