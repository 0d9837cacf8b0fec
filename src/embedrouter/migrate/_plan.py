"""Plan a migration: what there is to do, and what it takes in money, time and disk. Nothing is called or made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from html import escape
from typing import Any

from .._display import cost_shown, counted, data_size, html_table
from ..calls import total
from ..errors import ConfigError, NoModelAvailableError
from ..retrieval.given_router import GivenRouter
from ..retrieval.store_guard import recorded_space
from ..router import Router, wiring_of
from ..types import OVERLONG, Estimate, Space
from ._migration import Migration, Opened, migration
from ._rows import LeftOut, digest, reasons, same

ROWS = 4_096
"""Rows that are read, embedded and written at once: two full requests of most providers."""
LOCAL_ROWS = 512
"""The same where a model runs on this machine, so that a bar moves."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Plan:
    """What a migration takes. Money is US dollars; ``None`` is an unknown price.

    ``print`` shows it, and a notebook shows it as a table. ``run(plan)`` begins.

    Attributes:
        title: of the old collection.
        alias: its name.
        old: its space; ``None`` where it has no mark.
        space: the new one.
        name: of the new collection.
        place: the store of the new collection.
        texts: rows of the old collection.
        distinct: different texts among them.
        done: rows that are in the new collection already, equal in text and metadata.
        estimate: of the texts that are to be embedded; what is in the cache counts as done.
        batch_cost: of the same by the batch endpoint, at most; ``None`` without such an endpoint, too.
        likely_batch_cost: the same, as expected.
        hours: at the limits that the model declares (requests, texts and tokens per minute); ``None`` where it declares
            none. Servers may allow less.
        index_bytes: of texts, metadata and vectors in the new collection, without the store's own structures.
        left_out: ids of the rows that cannot be embedded or kept, by the reason.
        switched: whether programs open the new collection already, so that a run is refused.
        migration: what was asked for.
    """

    title: str
    alias: str
    old: Space | None
    space: Space
    name: str
    place: str
    texts: int
    distinct: int
    done: int
    estimate: Estimate
    batch_cost: Decimal | None
    likely_batch_cost: Decimal | None
    hours: float | None
    index_bytes: int
    left_out: Mapping[str, tuple[str, ...]]
    switched: bool
    migration: Migration = field(repr=False)

    def cost(self, *, batch: bool = False) -> Decimal | None:
        """Return what is paid at most, live or by the batch endpoint."""
        return self.batch_cost if batch else self.estimate.cost

    def rows(self) -> list[tuple[str, str]]:
        """Return the facts, each with its name."""
        estimate = self.estimate
        kept = sum(map(len, self.left_out.values()))
        about = "" if estimate.exact else "about "
        to_do = f"{counted(estimate.unique - estimate.cached, 'text')}, {about}{estimate.likely_tokens:,} tokens"
        facts = [
            ("from", f"{self.title}, {self.old or 'of an unknown space'}"),
            ("to", f"{self.name}, {self.space}, in {self.place}"),
            ("texts", f"{self.texts:,}, {self.distinct:,} distinct"),
            ("done", f"{counted(self.done, 'row')}; of the other texts {estimate.cached:,} in the cache"),
            ("to embed", f"{to_do} in {counted(estimate.requests, 'request')} to {estimate.model}"),
            ("cost", _range(estimate.likely_cost, estimate.cost, bound=estimate.is_bound)),
        ]
        if self.batch_cost is not None:
            facts.append(("by batch", _range(self.likely_batch_cost, self.batch_cost, bound=estimate.is_bound)))
        if estimate.unique > estimate.cached and (self.hours is not None or estimate.cost != 0):
            facts.append(("time", _time(self.hours)))
        in_cache = f", {data_size(estimate.cache_bytes)} for the cache" if estimate.cache_bytes else ""
        facts.append(("disk", f"about {data_size(self.index_bytes)} for the new collection{in_cache}"))
        if estimate.too_long:
            count = counted(estimate.too_long, "text")
            what = OVERLONG[wiring_of(self.migration.router).on_too_long]
            facts.append(("too long", f"{count}{'' if estimate.exact else ', perhaps'}: {what}"))
        if self.switched:
            facts.append(("switched", "programs open the new collection already"))
        if kept:
            facts.append(("unusable", reasons(self.left_out)))
        return facts

    def __str__(self) -> str:
        """Describe the plan, a fact on each line."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {fact}" for name, fact in rows)

    def __repr__(self) -> str:
        estimate = self.estimate
        return (
            f"<Plan: {self.alias} to {self.name}, {counted(self.texts, 'text')}, {cost_shown(estimate.cost)} at most>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{html_table(self.rows())}"


def plan(
    source: Any,
    target: GivenRouter | None = None,
    *,
    collection: str | None = None,
    into: Any = None,
    name: str | None = None,
    **settings: Any,
) -> Plan:
    """Return what a migration takes. Nothing is called, made or changed.

    In asynchronous code: ``await asyncio.to_thread(plan, source, target)``, and so for all functions of this module.

    Args:
        source: the old store: a path or an address, or a store object of LangChain or LlamaIndex.
        target: the router of the new space: a ``Router``, the name of a model, a list of models, a TOML file.
        collection: which one, of several in the store.
        into: another store for the new collection, of any kind that is written; by default the same.
        name: of the new collection; by default the old one's with the new space, such as
            ``handbook--text-embedding-3-small-1536``.
        settings: arguments of ``Router``, for one that is built here: ``budget=``, ``cache=``, ``on_too_long=`` …

    Raises:
        SpaceMismatchError: a collection of that name is there, in another space.
        ConfigError: a store cannot be opened, or the router not be built; the message has the next action.
    """
    asked = migration(source, target, collection, into, name, settings)
    with asked.opened() as opened:
        return examine(asked, opened)


def rows_at_once(router: Router) -> int:
    """Return how many rows are read, embedded and written at once."""
    model = router.estimate(["a"], input_type="document").model
    return LOCAL_ROWS if wiring_of(router).is_local(model) else ROWS


def examine(asked: Migration, opened: Opened) -> Plan:
    """Read the old collection once, and return the plan."""
    router, source = asked.router, opened.source
    left_out = LeftOut(allowed=True)
    seen: set[bytes] = set()
    planned: set[bytes] = set()
    parts: list[Estimate] = [router.estimate([], input_type="document")]
    texts = done = size = 0
    for page in source.pages(rows_at_once(router)):
        texts += len(page)
        usable = left_out.usable(page, opened.database)
        seen.update(digest(row.text) for row in usable)
        size += sum(len(row.content.encode("utf-8", "surrogatepass")) + len(str(row.entries())) for row in usable)
        kept = {} if opened.target is None else {row.id: row for row, _ in opened.target.fetch([r.id for r in usable])}
        lacking = [row for row in usable if not same(row, kept.get(row.id))]
        done += len(usable) - len(lacking)
        new = [row for key, row in {digest(row.text): row for row in lacking}.items() if key not in planned]
        planned.update(digest(row.text) for row in lacking)
        _, estimate = left_out.ask(new, partial(router.estimate, input_type="document"))
        parts += [estimate] if estimate is not None else []
    whole = total(wiring_of(router), parts[1:] or parts, texts - done)
    batch_cost, likely_batch_cost = _batch_costs(router, whole)
    return Plan(
        title=source.title,
        alias=opened.alias,
        old=recorded_space(source),
        space=router.space,
        name=opened.name,
        place=opened.database.place,
        texts=texts,
        distinct=len(seen),
        done=done,
        estimate=whole,
        batch_cost=batch_cost,
        likely_batch_cost=likely_batch_cost,
        hours=_hours(router, whole),
        index_bytes=size + texts * router.space.dimensions * 4,
        left_out=left_out.by_reason,
        switched=opened.switched,
        migration=replace(asked, collection=asked.collection or (None if source.database.named else opened.alias)),
    )


def _batch_costs(router: Router, whole: Estimate) -> tuple[Decimal | None, Decimal | None]:
    """Return what texts cost by the batch endpoint: at most, and as expected."""
    try:
        model = router.estimate(["a"], input_type="document", batch=True).model
    except (ConfigError, NoModelAvailableError):
        return None, None
    at_most, likely = (
        wiring_of(router).cost(model, tokens, batch=True) for tokens in (whole.tokens, whole.likely_tokens)
    )
    return at_most, likely


def _hours(router: Router, whole: Estimate) -> float | None:
    """Return the time that the declared limits of the model leave for an estimate."""
    model = next(one for one in wiring_of(router).candidates if one.name == whole.model)
    amounts = [
        (whole.requests, model.requests_per_minute),
        (whole.unique - whole.cached, model.texts_per_minute),
        (whole.likely_tokens, model.tokens_per_minute),
    ]
    minutes = [amount / limit for amount, limit in amounts if limit]
    return max(minutes) / 60 if minutes else None


def _range(likely: Decimal | None, at_most: Decimal | None, *, bound: bool) -> str:
    if likely == at_most and bound:
        return cost_shown(at_most)
    return f"about {cost_shown(likely)}" + (f", at most {cost_shown(at_most)}" if bound else "")


def _time(hours: float | None) -> str:
    if hours is None:
        return "unknown, because the model declares no limits (requests_per_minute, tokens_per_minute)"
    if hours < 1:
        return f"at least {counted(max(1, round(hours * 60)), 'minute')}, at the declared limits"
    return f"at least {hours:,.1f} hours, at the declared limits"
