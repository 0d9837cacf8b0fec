"""``embedrouter warm``: embed texts into the cache, before a program needs the vectors.

Texts are read and embedded in chunks, so that memory holds one chunk. The vectors of every answered request are in the
cache before the next request: after a stop, the same command continues, and no text is paid for twice.
"""

import time
from collections.abc import Iterable
from contextlib import closing, nullcontext
from typing import Annotated, Any

import typer

from ..errors import ConfigError, EmbedRouterError
from ..router import Router, wiring_of
from ..spending import tag as booked_under
from ..tiered import default_tier
from ..types import InputType
from ._batch import PollInterval, collect_batches
from ._console import Output, exit_on_interrupt, format_money
from ._estimate import estimate_tiers, texts_at_once
from ._options import AsJson, CacheFolder, ConfigFile, ModelName, Yes
from ._routers import cache_location, find_router, router_at_tier
from ._texts import STDIN, ChunkSize, FieldName, InputTypeName, LocatedText, Source, Texts, chunks, locate_rejected

BATCH_CHUNK = 50_000
"""Texts in one batch."""


def command(
    path: Source,
    tier: Annotated[str | None, typer.Option(metavar="T", help="The tier; by default the router's.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="Book the spending under this name.")] = None,
    input_type: InputTypeName = "document",
    field: FieldName = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    batch: Annotated[bool, typer.Option("--batch", help="Use the batch endpoint, which costs less.")] = False,
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
    output, began = Output(as_json=as_json, yes=yes), time.monotonic()
    chosen = find_router(model, config, cache)
    router, own_tier = router_at_tier(chosen, tier, input_type)
    location = cache_location(router)
    if location is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    with router, closing(Texts(path, field)) as texts, booked_under(tag) if tag else nullcontext():
        if batch:
            collect_batches(router, every, wait=not detach, output=output)
        with output.busy("counting tokens"):
            expected = estimate_tiers(router, texts, [own_tier], input_type, chunk_size, batch=batch)[own_tier]
        wiring_of(router).require_affordable(expected.cost)
        output.line(
            f"{expected.texts:,} texts, {expected.unique:,} distinct, {expected.cached:,} in the cache; the rest is "
            f"{'' if expected.exact else 'about '}{expected.likely_tokens:,} tokens."
        )
        output.confirm_cost([expected], "Agree with --yes.", piped=path == STDIN)
        if batch:
            for chunk in chunks(texts, BATCH_CHUNK):
                with locate_rejected(chunk):
                    router.submit_batch([item.text for item in chunk], input_type=input_type, tier=own_tier)
            facts = collect_batches(router, every, wait=not detach, output=output)
        else:
            size = chunk_size or texts_at_once(router, own_tier, input_type)
            facts = _embed(router, chunks(texts, size), expected.texts, input_type, own_tier, output)
    output.line(f"{_format_usage(router)} Cache: {location}.")
    facts |= {"texts": expected.texts, "distinct": expected.unique, "expected": expected.cost, "usage": router.usage}
    facts |= {"tier": tier or default_tier(chosen, input_type), "tag": tag or "", "input_type": input_type}
    output.json({**facts, "cache": location, "seconds": time.monotonic() - began})
    if facts.get("failures"):
        raise typer.Exit(1)


def _embed(
    router: Router, parts: Iterable[list[LocatedText]], total: int, input_type: InputType, tier: str, output: Output
) -> dict[str, Any]:
    """Embed chunk after chunk; return the facts to report."""
    began = time.monotonic()
    done = embedded = 0
    with (
        exit_on_interrupt(lambda: f"Stopped. {_resume_message(router)}"),
        output.progress("embedding", total) as advance,
    ):
        for chunk in parts:
            wanted = [item.text for item in chunk]
            try:
                with locate_rejected(chunk):
                    result = router.embed(wanted, input_type=input_type, tier=tier)
            except EmbedRouterError as error:
                if router.usage.requests:
                    done += router.estimate(wanted, input_type=input_type, tier=tier).cached
                    progress = f"{done:,} of {total:,} texts are embedded. {_resume_message(router)}"
                    error.add_note(progress)
                raise
            done += len(result)
            embedded += len({text for text, cached in zip(wanted, result.cached, strict=True) if not cached})
            advance(done, router.usage.cost)
    rest = f"{embedded:,} embedded, the others were in the cache or repeated"
    counts = f"{done:,} texts: {rest}" if embedded else f"All {done:,} texts were in the cache"
    output.line(f"{counts}. {time.monotonic() - began:.1f} s.")
    return {"embedded": embedded}


def _resume_message(router: Router) -> str:
    return (
        f"{_format_usage(router)} What was answered is in the cache ({cache_location(router)}): the same command "
        "continues from there and pays for nothing twice."
    )


def _format_usage(router: Router) -> str:
    usage = router.usage
    unknown = f", and {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    saved = f", {format_money(usage.saved)} saved" if usage.saved else ""
    requests = f"{usage.requests:,} request{'' if usage.requests == 1 else 's'}"
    return f"Spent: {format_money(usage.cost)} for {usage.tokens:,} tokens in {requests}{unknown}{saved}."
