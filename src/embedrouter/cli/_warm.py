"""``embedrouter warm``: embed texts into the cache, before a program needs the vectors.

Texts are read and embedded in chunks, so that memory holds one chunk. The vectors of every answered request are in the
cache before the next request: after a stop, the same command continues, and no text is paid for twice.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import Annotated

import typer

from .._display import counted
from ..cache import default_folder
from ..errors import ConfigError
from ..router import wiring_of
from ..spending import tag as booked_under
from ..tiered import default_tier
from ._batch import PollInterval, collect_batches
from ._console import Output
from ._options import AsJson, InputTypeName, RouterOptions, TagName, TierName, Yes, expand_bundles
from ._routers import cache_location, find_router, router_at_tier
from ._run import Run
from ._texts import TextOptions, Texts, list_texts


@expand_bundles
def command(
    source: TextOptions,
    router_options: RouterOptions,
    tier: TierName = None,
    tag: TagName = None,
    input_type: InputTypeName = "document",
    batch: Annotated[bool, typer.Option("--batch", help="Use the batch endpoint, which costs less.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --batch: submit, and do not wait.")] = False,
    every: PollInterval = 60.0,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Embed in this many processes, each with a local model; they share the cores."
        ),
    ] = 1,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Embed texts into the cache. You can stop it at any time: the next run continues and pays for no text twice.

    Shows the cost and asks, unless nothing is to be paid. If the budget does not cover all texts nothing is embedded;
    for per_call all texts are one call. Texts are read as by estimate.
    """
    if detach and not batch:
        raise typer.BadParameter("--detach goes with --batch.")
    if workers > 1 and batch:
        raise typer.BadParameter("--workers does not go with --batch: the provider does the work.")
    output, began = Output(as_json=as_json, yes=yes), time.monotonic()
    if source.list_only:
        with closing(Texts(source)) as texts:
            list_texts(texts, output)
        return
    options = asdict(router_options)
    chosen = find_router(**options)
    router, own_tier = router_at_tier(chosen, tier, input_type)
    if wiring_of(router).keeps_none:  # unless asked, as here
        chosen = find_router(**{**options, "cache": default_folder()})
        router, own_tier = router_at_tier(chosen, tier, input_type)
    location = cache_location(router)
    if location is None:
        raise ConfigError(
            "This configuration has no cache, so there is nothing to warm. Set cache=, or name one: --cache DIR."
        )
    with router, closing(Texts(source)) as texts, booked_under(tag) if tag else nullcontext():
        if batch:
            collect_batches(router, every, wait=not detach, output=output)
        run = Run(router, own_tier, input_type, texts, source, output, workers, tag or "")
        expected = run.expect(batch=batch)
        run.require_processes_help()
        run.require_keeping()
        counted_rows = texts.skipped.rows()
        run.ask()
        if batch:
            run.submit()
            facts = collect_batches(router, every, wait=not detach, output=output)
        else:
            facts = run.embed()
            done, embedded = facts["done"], facts["embedded"]
            rest = f"{embedded:,} embedded" + (", the others were in the cache or repeated" if embedded < done else "")
            counts = f"{counted(done, 'text')}: {rest}" if embedded else f"All {done:,} texts were in the cache"
            output.line(f"{counts}. {facts['embedding_seconds']:.1f} s.")
    if texts.skipped.rows() != counted_rows:  # texts that the provider has refused
        texts.skipped.show(output)
    if facts.get("shortened"):
        output.line(f"Shortened to the model's limit: {counted(facts['shortened'], 'text')}.")
    output.line(f"{run.format_usage()} Cache: {location}.")
    facts |= {"texts": expected.texts, "distinct": expected.unique, "expected": expected.cost, "usage": run.usage}
    facts |= {"tier": tier or default_tier(chosen, input_type), "tag": tag or "", "input_type": input_type}
    facts |= {"cache": location, "seconds": time.monotonic() - began, "skipped": texts.skipped.rows()}
    output.json(facts)
    if facts.get("failures"):
        raise typer.Exit(1)
