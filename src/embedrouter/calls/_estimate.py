"""Estimate what a call would be billed, at most and likely, and the disk that its vectors would take.

Where the model's own tokenizer counts, both figures are the bill. Other counts are upper ones: the likely figure is the
share of such counts that was billed for the model before, as far as the ledger has seen, and otherwise a usual one.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..cache import disk_size
from ..spending import Learned
from ..types import Estimate
from ._afford import Afford, pack_requests
from ._call import Call, input_limit
from ._size import Sized
from ._wiring import Wiring

USUAL = 0.65
"""The share of an upper count that is billed: 0.56 to 0.67 for prose, Markdown and source code, counted by cl100k_base.
Chinese and Russian are billed 0.4 to 0.5 of it, German 0.9."""


async def estimate(
    wiring: Wiring, afford: Afford, call: Call, texts: Sequence[str], missing: int, sized: Sized, distinct: int
) -> Estimate:
    """Return the estimate of a call.

    Args:
        texts: of the call, as they came.
        missing: how many distinct texts are not cached.
        sized: what is to be sent for those.
        distinct: how many texts differ.
    """
    model, count = call.first, sum(item.tokens for item in sized.texts)

    def look() -> tuple[Learned, int]:
        learned = wiring.ledger.learned(model.name, call.input_type, exact=sized.exact)
        return learned, disk_size(wiring.cache, len(sized.texts) + len(sized.parts), model)

    learned, size = await call.effects.run_blocking(look)
    likely = count if sized.exact and not learned.exceeded else learned.likely(count, 1.0 if sized.exact else USUAL)
    return Estimate(
        texts=len(texts),
        unique=distinct,
        cached=distinct - missing,
        tokens=count,
        requests=len(pack_requests(sized.texts, model)),
        cost=await afford.cost(call, count),
        model=model.name,
        exact=sized.exact,
        likely_tokens=likely,
        likely_cost=await afford.cost(call, likely),
        is_bound=not learned.exceeded,
        cache_bytes=size,
        too_long=len(sized.parts) or sum(item.tokens > input_limit(model) for item in sized.texts),
    )


def total(wiring: Wiring, parts: Sequence[Estimate], texts: int, *, batch: bool = False) -> Estimate:
    """Return the sum of the estimates of parts. Free tokens apply once to all, so the costs cannot be added.

    Args:
        parts: at least one.
        texts: how many there are in all, with those that are in no part because they are repeated.
    """
    names = ("unique", "cached", "tokens", "likely_tokens", "requests", "cache_bytes", "too_long")
    counts = {name: sum(getattr(part, name) for part in parts) for name in names}
    cost, likely_cost = (wiring.cost(parts[0].model, counts[name], batch=batch) for name in ("tokens", "likely_tokens"))
    exact, is_bound = all(part.exact for part in parts), all(part.is_bound for part in parts)
    return replace(parts[0], texts=texts, cost=cost, likely_cost=likely_cost, exact=exact, is_bound=is_bound, **counts)
