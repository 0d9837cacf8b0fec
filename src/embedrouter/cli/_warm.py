"""``embedrouter warm``: embed texts into the cache, before a program needs the vectors.

Texts are read and embedded in chunks, so that memory holds one chunk. The vectors of every answered request are in the
cache before the next request: after a stop, the same command continues, and no text is paid for twice.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from .._display import counted
from ..errors import ConfigError, EmbedRouterError
from ..router import Router, wiring_of
from ..spending import tag as booked_under
from ..tiered import default_tier
from ..types import Estimate, InputType
from . import _completion
from ._batch import PollInterval, collect_batches
from ._console import STEP, Output, exit_on_interrupt, format_money
from ._estimate import estimate_tiers, warn_of_long
from ._options import AsJson, InputTypeName, RouterOptions, Yes, expand_bundles
from ._routers import cache_location, find_router, router_at_tier
from ._texts import TextOptions, Texts, chunks, list_texts, usable_texts

BATCH_CHUNK = 50_000
"""Texts in one batch."""


@expand_bundles
def command(
    source: TextOptions,
    router_options: RouterOptions,
    tier: Annotated[
        str | None,
        typer.Option(metavar="T", autocompletion=_completion.tiers, help="The tier; by default the router's."),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=_completion.tags, help="Book the spending under this name."),
    ] = None,
    input_type: InputTypeName = "document",
    batch: Annotated[bool, typer.Option("--batch", help="Use the batch endpoint, which costs less.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --batch: submit, and do not wait.")] = False,
    every: PollInterval = 60.0,
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
    if source.list_only:
        with closing(Texts(source)) as texts:
            list_texts(texts, output)
        return
    chosen = find_router(**asdict(router_options))
    router, own_tier = router_at_tier(chosen, tier, input_type)
    location = cache_location(router)
    if location is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    with router, closing(Texts(source)) as texts, booked_under(tag) if tag else nullcontext():
        if batch:
            collect_batches(router, every, wait=not detach, output=output)
        with output.busy("counting tokens"):
            expected = estimate_tiers(router, texts, [own_tier], input_type, batch=batch)[own_tier]
        wiring_of(router).require_affordable(expected.cost)
        output.line(
            f"{expected.texts:,} texts, {expected.unique:,} distinct, {expected.cached:,} in the cache; the rest is "
            f"{'' if expected.exact else 'about '}{expected.tokens:,} tokens."
        )
        warn_of_long(router, expected, source, output)
        texts.skipped.show(output)
        counted_rows = texts.skipped.rows()
        output.confirm_cost([expected], "Agree with --yes.", piped=source.piped)
        if batch:
            submit = partial(router.submit_batch, input_type=input_type, tier=own_tier)
            for chunk in chunks(texts, BATCH_CHUNK):
                usable_texts(chunk, texts.skipped if source.skip_bad else None, submit)
            facts = collect_batches(router, every, wait=not detach, output=output)
        else:
            facts = _embed(router, texts, expected, input_type, own_tier, output)
    if texts.skipped.rows() != counted_rows:  # texts that the provider has refused
        texts.skipped.show(output)
    if facts.get("shortened"):
        output.line(f"{counted(facts['shortened'], 'text')} were shortened to the model's limit.")
    output.line(f"{_format_usage(router)} Cache: {location}.")
    facts |= {"texts": expected.texts, "distinct": expected.unique, "expected": expected.cost, "usage": router.usage}
    facts |= {"tier": tier or default_tier(chosen, input_type), "tag": tag or "", "input_type": input_type}
    facts |= {"cache": location, "seconds": time.monotonic() - began, "skipped": texts.skipped.rows()}
    output.json(facts)
    if facts.get("failures"):
        raise typer.Exit(1)


def _embed(
    router: Router, texts: Texts, expected: Estimate, input_type: InputType, tier: str, output: Output
) -> dict[str, Any]:
    """Embed chunk after chunk; return the facts to report."""
    began = time.monotonic()
    done = embedded = shortened = 0
    embed = partial(router.embed, input_type=input_type, tier=tier)
    skipped = texts.skipped if texts.skip_bad else None
    with (
        exit_on_interrupt(lambda: f"Stopped. {_resume_message(router)}"),
        output.progress("embedding", expected.texts) as advance,
    ):
        for chunk in chunks(texts, texts.chunk_size or (STEP if expected.cost == 0 else None)):
            try:
                usable, result = usable_texts(chunk, skipped, embed)
            except EmbedRouterError as error:
                if router.usage.requests:
                    wanted = [item.text for item in chunk]
                    done += router.estimate(wanted, input_type=input_type, tier=tier).cached
                    progress = f"{done:,} of {expected.texts:,} texts are embedded. {_resume_message(router)}"
                    error.add_note(progress)
                raise
            done += len(result)
            embedded += len({item.text for item, cached in zip(usable, result.cached, strict=True) if not cached})
            shortened += sum(result.shortened)
            advance(done, router.usage.cost)
    rest = f"{embedded:,} embedded, the others were in the cache or repeated"
    counts = f"{done:,} texts: {rest}" if embedded else f"All {done:,} texts were in the cache"
    output.line(f"{counts}. {time.monotonic() - began:.1f} s.")
    return {"embedded": embedded, "shortened": shortened}


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
