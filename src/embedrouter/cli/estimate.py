"""``embedrouter estimate``: what embedding texts would cost, tier by tier. Nothing is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, cast

import typer

from ..errors import ConfigError, InvalidInputError, NoModelAvailableError
from ..router import wiring_of
from ..tiered import TieredRouter
from ..types import Estimate, InputType
from .choice import (
    AsJson,
    CacheFolder,
    ConfigFile,
    ModelName,
    configured,
    exclusive,
)
from .levels import WORDLLAMA, AnyRouter, at_tier, choose
from .sheet import Sheet, price
from .texts import Item, Texts, slices

__all__ = ["Source", "chosen_by", "command", "estimates", "input_type_of", "placed"]

Source = Annotated[
    str, typer.Argument(metavar="PATH|-", help="A file, a folder of text and .jsonl files, or - (stdin).")
]
Field = Annotated[str | None, typer.Option("--field", metavar="NAME", help="The field of JSON lines; text.")]
Kind = Annotated[str, typer.Option("--input-type", metavar="document|query", help="What the texts are for.")]

SHOWN = 5


def command(
    path: Source,
    tier: Annotated[
        list[str] | None, typer.Option(metavar="T", help="A tier to ask; can be repeated. Otherwise all that differ.")
    ] = None,
    input_type: Kind = "document",
    field: Field = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    batch: Annotated[bool, typer.Option("--batch", help="Through the provider's batch endpoint: see warm.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what embedding texts would cost: tokens, requests, money, and what is already in the cache.

    A .jsonl file has one text per line, any other file is one text. Nothing is called and nothing is paid.
    """
    exclusive(model=model, config=config)
    kind, sheet = input_type_of(input_type), Sheet(as_json=as_json)
    router, place = chosen_by(model, config, cache)
    with router, closing(Texts(path, field)) as texts:
        with sheet.busy("counting tokens"):
            found = estimates(router, texts, tier or tiers_of(router, kind), kind, batch=batch)
        skipped = texts.skipped
    columns = ("tier", "model", "texts", "distinct", "cached", "tokens", "requests", "cost")
    sheet.table(columns, [(name, *row(estimate)) for name, estimate in found.items()], numbers=columns[2:])
    for reason, files in skipped.items():
        more = f" and {len(files) - SHOWN:,} more" if len(files) > SHOWN else ""
        sheet.line(f"skipped, {reason}: {', '.join(files[:SHOWN])}{more}")
    sheet.line(f"Tokens, requests and cost are those of texts not in the cache ({place or 'none is in use'}).")
    rows = [{"tier": name, **asdict(estimate)} for name, estimate in found.items()]
    sheet.json({"input_type": kind, "cache": place, "tiers": rows, "skipped": skipped})


def chosen_by(model: str | None, config: str | None, cache: Path | None) -> tuple[AnyRouter, str | None]:
    """Return the router that the options choose, and where its cache is."""
    folder = "default" if cache is None else str(cache.expanduser())
    where = None if model else configured(config)
    return choose(None, where, folder) if where else choose(model or WORDLLAMA, None, folder)


def input_type_of(name: str) -> InputType:
    """Return what texts are for.

    Raises:
        BadParameter: it is neither of the two.
    """
    if name not in ("document", "query"):
        raise typer.BadParameter(f"--input-type is document or query, not {name!r}.")
    return cast(InputType, name)


def tiers_of(router: AnyRouter, input_type: InputType) -> list[str]:
    """Return the tiers that differ in the model that is asked first, lowest first, each by its highest name."""
    if isinstance(router, TieredRouter):
        return router.own_tiers
    asked: dict[str, str] = {}
    for name in router.tiers:
        try:
            asked[router.estimate(["a"], input_type=input_type, tier=name).model] = name
        except NoModelAvailableError:
            break
    return list(asked.values())


def estimates(
    router: AnyRouter, texts: Iterable[Item], tiers: Sequence[str], input_type: InputType, *, batch: bool = False
) -> dict[str, Estimate]:
    """Return the estimate of each tier, reading the texts once and holding few of them.

    Raises:
        ConfigError: there are no texts.
    """
    seen: set[bytes] = set()
    count = 0

    def new() -> Iterator[Item]:
        nonlocal count
        for item in texts:
            count += 1
            digest = blake2b(item.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield item

    found: dict[str, Estimate] = {}
    for part in slices(new()):
        with placed(part):
            for tier in tiers:
                one, own = at_tier(router, tier, input_type)
                of_part = one.estimate([item.text for item in part], input_type=input_type, tier=own, batch=batch)
                found[tier] = _sum(found[tier], of_part) if tier in found else of_part
    if not count:
        raise ConfigError("There is no text to embed. Pass a file, a folder of text and .jsonl files, or - for stdin.")
    return {
        tier: replace(
            of_tier,
            texts=count,
            cost=wiring_of(at_tier(router, tier, input_type)[0]).cost(of_tier.model, of_tier.tokens, batch=batch),
        )
        for tier, of_tier in found.items()
    }


@contextmanager
def placed(part: Sequence[Item]) -> Iterator[None]:
    """Say of texts that are refused which ones they are: the router knows positions in one slice only."""
    try:
        yield
    except InvalidInputError as error:
        places = [part[index].place for index in error.indices]
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        said = f"{error} Positions count from 0 at {part[0].place}; meant are: {'; '.join(places[:SHOWN])}{more}."
        raise InvalidInputError(said, indices=error.indices) from error


def row(estimate: Estimate) -> tuple[str, ...]:
    """Return an estimate as the cells of a table."""
    return (
        estimate.model,
        f"{estimate.texts:,}",
        f"{estimate.unique:,}",
        f"{estimate.cached:,}",
        f"{'' if estimate.exact else 'about '}{estimate.tokens:,}",
        f"{estimate.requests:,}",
        price(estimate.cost),
    )


def _sum(one: Estimate, other: Estimate) -> Estimate:
    return replace(
        one,
        unique=one.unique + other.unique,
        cached=one.cached + other.cached,
        tokens=one.tokens + other.tokens,
        requests=one.requests + other.requests,
        exact=one.exact and other.exact,
    )
