"""``embedrouter estimate``: the tokens, requests and cost of embedding texts, tier by tier, without any request."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from typing import Annotated

import typer

from .._display import data_size
from ..calls import total
from ..errors import ConfigError
from ..router import Router, wiring_of
from ..types import OVERLONG, Estimate, InputType
from . import _completion
from ._console import STEP, Output
from ._options import AsJson, InputTypeName, RouterOptions, expand_bundles
from ._routers import AnyRouter, cache_location, distinct_tiers, find_router, router_at_tier
from ._texts import TextOptions, Texts, chunks, list_texts, usable_texts

SPLIT_EXAMPLE = "--split langchain:RecursiveCharacterTextSplitter --split-option chunk_size=1000"


@expand_bundles
def command(
    source: TextOptions,
    router_options: RouterOptions,
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="T", autocompletion=_completion.tiers, help="A tier; can be repeated; by default all."),
    ] = None,
    input_type: InputTypeName = "document",
    batch: Annotated[bool, typer.Option("--batch", help="Through the provider's batch endpoint: see warm.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what embedding texts would cost: tokens, requests, money, and what is already in the cache.

    A file of lines, rows or JSON objects has many texts, any other file is one. No request is made, nothing is paid.
    """
    output = Output(as_json=as_json)
    with closing(Texts(source)) as texts:
        if source.list_only:
            list_texts(texts, output)
            return
        with find_router(**asdict(router_options)) as router:
            with output.busy("counting tokens"):
                tiers = tier or distinct_tiers(router, input_type)
                found = estimate_tiers(router, texts, tiers, input_type, batch=batch)
            location = cache_location(router)
            for name, estimate in found.items():
                warn_of_long(router_at_tier(router, name, input_type)[0], estimate, source, output)
    rows = [{"tier": name, **asdict(estimate)} for name, estimate in found.items()]
    output.table([{"tier": name, **_shown(estimate)} for name, estimate in found.items()])
    texts.skipped.show(output)
    output.line(f"Tokens, requests and cost are those of texts not in the cache ({location or 'none is in use'}).")
    output.json({"input_type": input_type, "cache": location, "tiers": rows, "skipped": texts.skipped.rows()})


def estimate_tiers(
    router: AnyRouter,
    texts: Texts,
    tiers: Sequence[str],
    input_type: InputType,
    *,
    batch: bool = False,
) -> dict[str, Estimate]:
    """Return the estimate of each tier, with one chunk in memory; the chunks are those of ``warm``.

    Raises:
        ConfigError: there are no texts.
    """
    asked = {tier: router_at_tier(router, tier, input_type) for tier in tiers}
    count, refused = 0, dict.fromkeys(tiers, 0)
    parts: dict[str, list[Estimate]] = {tier: [] for tier in tiers}
    sizes = {tier: texts.chunk_size or texts_at_once(*asked[tier], input_type) for tier in tiers}
    skipped = texts.skipped if texts.skip_bad else None
    for size in dict.fromkeys(sizes.values()):
        seen: set[bytes] = set()
        count = 0
        for chunk in chunks(texts, size):
            count += len(chunk)
            by_digest = {_digest(item.text): item for item in reversed(chunk)}
            new = [item for digest, item in reversed(by_digest.items()) if digest not in seen]
            seen |= by_digest.keys()
            for tier, (single, own_tier) in asked.items():
                if sizes[tier] == size:
                    estimate = partial(single.estimate, input_type=input_type, tier=own_tier, batch=batch)
                    _, found = usable_texts(new, skipped, estimate)
                    parts[tier].append(found)
                    refused[tier] += len(new) - found.texts
    if not count:
        raise ConfigError(f"There is no text to embed. {texts.skipped.summary()}Pass files, folders, or - for stdin.")
    return {tier: total(wiring_of(asked[tier][0]), parts[tier], count - refused[tier], batch=batch) for tier in tiers}


def warn_of_long(router: Router, estimate: Estimate, source: TextOptions, output: Output) -> None:
    """Say how many texts are over the model's limit, what happens to them, and how to avoid that."""
    if not estimate.too_long:
        return
    what = OVERLONG[wiring_of(router).on_too_long]
    advice = "" if source.split else f" Split texts as your program does: {SPLIT_EXAMPLE}."
    about = "" if estimate.exact else " perhaps"
    verb = "text is" if estimate.too_long == 1 else "texts are"
    output.line(f"{estimate.too_long:,} {verb}{about} longer than {estimate.model} takes: {what}.{advice}")


def texts_at_once(router: Router, tier: str, input_type: InputType) -> int | None:
    """Return how many texts ``warm`` embeds at once: few where a model runs on this machine, so that its bar moves."""
    model = router.estimate(["a"], input_type=input_type, tier=tier).model
    return STEP if wiring_of(router).is_local(model) else None


def _shown(estimate: Estimate) -> dict[str, object]:
    """Return the columns of a table: what is likely, and what it is at most."""
    most = estimate.is_bound
    return {
        "texts": estimate.texts,
        "unique": estimate.unique,
        "cached": estimate.cached,
        "tokens": estimate.likely_tokens,
        "at most": estimate.tokens if most else "no bound",
        "requests": estimate.requests,
        "cost": estimate.likely_cost,
        "cost at most": estimate.cost if most else "no bound",
        "disk": data_size(estimate.cache_bytes),
        "model": estimate.model,
    }


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
