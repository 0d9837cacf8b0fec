"""``embedrouter warm``: embed texts into the cache, so that the program that needs them later pays nothing.

Texts are read and embedded in slices, so memory holds a slice however many there are. Every answered request is in the
cache before the next is sent: a run that was stopped goes on where it stopped, and nothing is paid for twice.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated

import typer

from ..errors import ConfigError, EmbedRouterError
from ..tags import tag as tagged
from ..tiered import TieredRouter
from ..types import Estimate
from .choice import AsJson, CacheFolder, ConfigFile, ModelName, Yes, exclusive
from .estimate import Field, Kind, Source, chosen_by, estimates, input_type_of, placed
from .levels import AnyRouter
from .report import money
from .sheet import Sheet
from .texts import STDIN, Texts, slices

__all__ = ["command"]

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
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Embed texts into the cache. Stop it whenever you like: the next run continues and pays for nothing twice.

    Says what it costs and asks, unless nothing is to be paid. If the whole does not fit the budget nothing is embedded;
    for per_call the whole is one call. Texts are read as by estimate.
    """
    exclusive(model=model, config=config)
    kind, sheet = input_type_of(input_type), Sheet(as_json=as_json)
    router, place = chosen_by(model, config, cache)
    if place is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    name = tier or router.default_tier(kind)
    try:
        with router, closing(Texts(path, field)) as texts, tagged(tag) if tag else nullcontext():
            with sheet.busy("counting tokens"):
                expected = estimates(router, texts, [name], kind)[name]
            if isinstance(router, TieredRouter):
                router.afford(expected.cost, tier=name)
            else:
                router.afford(expected.cost)
            _agree(expected, yes, path == STDIN, sheet)
            began = time.monotonic()
            done, computed = 0, 0
            with sheet.spending("embedding", expected.texts) as advance:
                for part in slices(texts, FREE_SLICE) if expected.cost == 0 else slices(texts):
                    wanted = [item.text for item in part]
                    try:
                        with placed(part):
                            result = router.embed(wanted, input_type=kind, tier=name)
                    except EmbedRouterError as error:
                        if router.usage.requests:  # otherwise there is nothing to add
                            there = done + router.estimate(wanted, input_type=kind, tier=name).cached
                            so_far = f"{there:,} of {expected.texts:,} texts are embedded. {_kept(router, place)}"
                            error.args = (f"{error}\n{so_far}",)
                        raise
                    done += len(result)
                    computed += len({item.text for item, known in zip(part, result.cached, strict=True) if not known})
                    advance(done, speed=done / max(time.monotonic() - began, 1e-6), spent=router.usage.cost)
    except KeyboardInterrupt:
        print(f"\nStopped. {_kept(router, place)}", file=sys.stderr)
        raise typer.Exit(130) from None
    seconds = time.monotonic() - began
    if computed:
        sheet.line(f"{done:,} texts: {computed:,} embedded, the others were in the cache or the same. {seconds:.1f} s.")
    else:
        sheet.line(f"All {done:,} texts were in the cache. {seconds:.1f} s.")
    sheet.line(f"{_spent(router)} Cache: {place}.")
    facts = {"texts": done, "distinct": expected.unique, "embedded": computed, "tier": name, "tag": tag or ""}
    usage = asdict(router.usage)
    sheet.json(
        {**facts, "input_type": kind, "cache": place, "usage": usage, "expected": expected.cost, "seconds": seconds}
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


def _kept(router: AnyRouter, place: str) -> str:
    return (
        f"{_spent(router)} What was answered is in the cache ({place}): the same command continues from there and pays "
        "for nothing twice."
    )


def _spent(router: AnyRouter) -> str:
    usage = router.usage
    unknown = f", and {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    saved = f", {money(usage.saved)} saved" if usage.saved else ""
    requests = f"{usage.requests:,} request{'' if usage.requests == 1 else 's'}"
    return f"Spent: {money(usage.cost or Decimal(0))} for {usage.tokens:,} tokens in {requests}{unknown}{saved}."
