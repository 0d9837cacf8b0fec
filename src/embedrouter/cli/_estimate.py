"""``embedrouter estimate``: the tokens, requests and cost of embedding texts, tier by tier, without any request."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Annotated

import typer

from .._display import data_size
from ..errors import ConfigError
from ..router import Router, wiring_of
from ..types import Estimate, InputType
from ._console import STEP, Output, first_few
from ._options import AsJson, CacheFolder, ConfigFile, ModelName
from ._routers import AnyRouter, cache_location, distinct_tiers, find_router, router_at_tier
from ._texts import ChunkSize, FieldName, InputTypeName, LocatedText, Source, Texts, chunks, locate_rejected


def command(
    path: Source,
    tier: Annotated[
        list[str] | None, typer.Option(metavar="T", help="A tier; can be repeated; by default all.")
    ] = None,
    input_type: InputTypeName = "document",
    field: FieldName = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    batch: Annotated[bool, typer.Option("--batch", help="Through the provider's batch endpoint: see warm.")] = False,
    chunk_size: ChunkSize = None,
    as_json: AsJson = False,
) -> None:
    """Show what embedding texts would cost: tokens, requests, money, and what is already in the cache.

    A .jsonl file has one text per line, any other file is one text. No request is made and nothing is paid.
    """
    output = Output(as_json=as_json)
    with find_router(model, config, cache) as router, closing(Texts(path, field)) as texts:
        with output.busy("counting tokens"):
            tiers = tier or distinct_tiers(router, input_type)
            found = estimate_tiers(router, texts, tiers, input_type, chunk_size, batch=batch)
        location = cache_location(router)
    rows = [{"tier": name, **asdict(estimate)} for name, estimate in found.items()]
    output.table([{"tier": name, **_shown(estimate)} for name, estimate in found.items()])
    for reason, files in texts.skipped.items():
        output.line(f"skipped, {reason}: {first_few(files)}")
    output.line(f"Tokens, requests and cost are those of texts not in the cache ({location or 'none is in use'}).")
    output.json({"input_type": input_type, "cache": location, "tiers": rows, "skipped": texts.skipped})


def estimate_tiers(
    router: AnyRouter,
    texts: Iterable[LocatedText],
    tiers: Sequence[str],
    input_type: InputType,
    chunk_size: int | None = None,
    *,
    batch: bool = False,
) -> dict[str, Estimate]:
    """Return the estimate of each tier, with one chunk in memory; the chunks are those of ``warm``.

    Raises:
        ConfigError: there are no texts.
    """
    asked = {tier: router_at_tier(router, tier, input_type) for tier in tiers}
    count = 0
    parts: dict[str, list[Estimate]] = {tier: [] for tier in tiers}
    sizes = {tier: chunk_size or texts_at_once(*asked[tier], input_type) for tier in tiers}
    for size in dict.fromkeys(sizes.values()):
        seen: set[bytes] = set()
        count = 0
        for chunk in chunks(texts, size):
            count += len(chunk)
            by_digest = {_digest(item.text): item for item in reversed(chunk)}
            new = [item for digest, item in reversed(by_digest.items()) if digest not in seen]
            seen |= by_digest.keys()
            wanted = [item.text for item in new]
            with locate_rejected(new):
                for tier, (single, own_tier) in asked.items():
                    if sizes[tier] == size:
                        estimate = single.estimate(wanted, input_type=input_type, tier=own_tier, batch=batch)
                        parts[tier].append(estimate)
    if not count:
        raise ConfigError("There is no text to embed. Pass a file, a folder of text and .jsonl files, or - for stdin.")
    return {tier: _sum(parts[tier], asked[tier][0], count, batch=batch) for tier in tiers}


def texts_at_once(router: Router, tier: str, input_type: InputType) -> int | None:
    """Return how many texts ``warm`` embeds at once: few where a model runs on this machine, so that its bar moves."""
    model = router.estimate(["a"], input_type=input_type, tier=tier).model
    is_local = any(candidate.local for candidate in wiring_of(router).candidates if candidate.name == model)
    return STEP if is_local else None


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


def _sum(parts: list[Estimate], router: Router, texts: int, *, batch: bool) -> Estimate:
    """Sum the estimates of the chunks. Free tokens apply once to all chunks, so the costs cannot be added."""
    names = ("unique", "cached", "tokens", "likely_tokens", "requests", "cache_bytes")
    counts = {name: sum(getattr(part, name) for part in parts) for name in names}
    cost, likely_cost = (
        wiring_of(router).cost(parts[0].model, counts[name], batch=batch) for name in ("tokens", "likely_tokens")
    )
    exact, is_bound = all(part.exact for part in parts), all(part.is_bound for part in parts)
    return replace(parts[0], texts=texts, cost=cost, likely_cost=likely_cost, exact=exact, is_bound=is_bound, **counts)
