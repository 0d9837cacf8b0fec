"""What people read: what will be paid, the figures, what they mean, and the configuration of the best."""

from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal

from ..._display import cost_shown, counted, data_size, first_few
from ...comparison import (
    MEASURES,
    Choice,
    Comparison,
    Interval,
    Measured,
    Pair,
    Plan,
    as_good,
    cheapest_as_good,
    difference_of,
    smallest_as_good,
)
from ...errors import ConfigError
from ...spending import sum_of
from ...types import Estimate
from .._console import Output

QUALITY = MEASURES[0]
DIGITS = 3
"""Of an amount of money that is no bill."""
CENTS = 2
NAMED = 3
"""Variants that a sentence names."""
JUDGED = {
    "judgements": "with judgements",
    "known items": "known items, made from documents",
    "agreement": "without judgements: agreement with the first model",
}


# Before


def show_plan(plan: Plan, output: Output) -> None:
    """Show what is compared on, what belongs beside the figures, and what each model will cost."""
    questions = plan.questions
    output.line(_heading(questions.name, len(questions.documents), len(questions.queries), questions.judged_by), "bold")
    for note in questions.notes:
        output.line(note)
    output.line()
    output.table([{"model": label, **_cost(both)} for label, both in plan.estimates.items()], optional=["at most"])
    for label, reason in plan.left_out.items():
        output.line(f"Left out: {label}: {reason}")
    if all(estimate.unique == estimate.cached for both in plan.estimates.values() for estimate in both):
        output.line("Every vector is in the cache: this costs nothing.")


def _heading(name: str, documents: int, queries: int, judged_by: str) -> str:
    return f"{name}: {counted(documents, 'document')}, {counted(queries, 'query')}, {JUDGED[judged_by]}"


def _cost(both: Sequence[Estimate]) -> dict[str, object]:
    """Return the columns for one model."""
    likely = sum_of(estimate.likely_cost for estimate in both)
    most = sum_of(estimate.cost for estimate in both)
    bound = all(estimate.is_bound for estimate in both)
    return {
        "texts": sum(estimate.unique for estimate in both),
        "in the cache": sum(estimate.cached for estimate in both),
        "tokens": sum(estimate.likely_tokens for estimate in both),
        "likely": cost_shown(likely),
        "at most": cost_shown(most) if bound else "no bound",
    }


# Figures


def show_comparison(found: Comparison, told: Sequence[str], output: Output) -> None:
    """Show the table, whether differences are more than chance, and which variants are worth their price.

    Args:
        told: notes that were shown before.
    """
    output.line()
    output.line(_heading(found.collection, found.document_count, len(found.queries), found.judged_by), "bold")
    output.table(_rows(found.variants))
    for sentence in (*_verdict(found), *_prices(found), *(note for note in found.notes if note not in told)):
        output.line(sentence)
    for label, reason in found.left_out.items():
        output.line(f"Left out: {label}: {reason}")
    output.line(f"Spent: {cost_shown(found.spent)}." if found.spent else "Spent: nothing.")


def _rows(variants: Sequence[Measured]) -> list[dict[str, object]]:
    """Return a row for each variant: quality, dollars, speed and bytes, without columns in which nothing is known."""
    speeds = [item.speed for item in variants]
    rates = _aligned([_rate(speed.documents_per_second if speed else None) for speed in speeds])
    medians = _aligned([_milliseconds(speed.query_median if speed else None) for speed in speeds])
    slow = _aligned([_milliseconds(speed.query_95th if speed else None) for speed in speeds])
    sizes = _aligned([data_size(item.index_bytes) for item in variants])
    rows: list[dict[str, object]] = [
        {
            "variant": item.variant.label,
            QUALITY: _interval(item.quality[QUALITY]),
            **{measure: item.quality[measure].mean for measure in MEASURES[1:]},
            "1M queries": _rounded(item.queries_cost),
            "corpus": _rounded(item.corpus_cost),
            "batch": "" if item.corpus_batch_cost is None else _rounded(item.corpus_batch_cost),
            "docs/s": rates[place],
            "query": medians[place],
            "95th": slow[place],
            "index": sizes[place],
        }
        for place, item in enumerate(variants)
    ]
    empty = [name for name in rows[0] if all(row[name] == "" for row in rows)]
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def _interval(interval: Interval) -> str:
    half = max(interval.high - interval.mean, interval.mean - interval.low)
    return f"{interval.mean:.3f} ±{half:.3f}"


def _rounded(amount: Decimal | None) -> Decimal | None:
    """Return an amount that is no bill with three digits, and cents at least."""
    if amount is None:
        return None
    decimals = max(CENTS, DIGITS - 1 - amount.adjusted()) if amount else CENTS
    return amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}" if rate >= DIGITS else f"{rate:.1f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f} ms"


def _aligned(cells: Sequence[str]) -> list[str]:
    """Return cells of one width, so that their last digits stand below each other."""
    width = max(map(len, cells))
    return [cell and cell.rjust(width) for cell in cells]


# Sentences


def _verdict(found: Comparison) -> list[str]:
    """Say which variant is best, and which others are as good as far as these queries can tell, the cheapest first."""
    best = found.variants[0].variant.label
    others = [_against(best, pair) for pair in found.pairs if best in (pair.first, pair.second)]
    if not others:
        return ["One variant was measured; name another one to compare it with: --model PROVIDER:NAME."]
    gaps = {label: gap for label, gap, _ in others}
    if equal := as_good(found):
        equal.sort(key=lambda item: (item.queries_cost is None, item.queries_cost, item.index_bytes))
        names = [item.variant.label for item in equal]
        listed = "; ".join(f"{name} ({_gap(gaps[name])})" for name in names[:NAMED])
        more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return [f"The best is {best}. As good, as far as these queries can tell: {listed}{more}.", *_instead(found)]
    label, gap, _ = min(others, key=lambda other: other[1].mean)
    certain = ", by more than chance" if all(differs for *_, differs in others) else ""
    return [f"The best is {best}{certain}. Next is {label} ({_gap(gap)})."]


def _instead(found: Comparison) -> Iterator[str]:
    """Name the cheapest and the smallest of the variants that are as good as the best, as the page does."""
    best = found.variants[0]
    if item := cheapest_as_good(found):
        cost, before = (cost_shown(_rounded(one.queries_cost)) for one in (item, best))
        price = f"{cost} for 1M queries, not {before}"
        yield f"The cheapest that is not worse by more than chance: {item.variant.label}, {price}."
    if item := smallest_as_good(found):
        sizes = f"{data_size(item.index_bytes)}, not {data_size(best.index_bytes)}"
        yield f"The smallest index that is not worse by more than chance: {item.variant.label}, {sizes}."


def _against(best: str, pair: Pair) -> tuple[str, Interval, bool]:
    """Return the other variant of a pair, by how much the best leads, and whether that is more than chance."""
    other = pair.second if pair.first == best else pair.first
    return other, difference_of(pair, best), pair.differs


def _gap(gap: Interval) -> str:
    mean, low, high = (round(value, 3) + 0.0 for value in (gap.mean, gap.low, gap.high))  # and no -0.000
    return f"behind by {mean:.3f} {QUALITY}, 95 %: {low:.3f} to {high:.3f}"


def _prices(found: Comparison) -> list[str]:
    """Say which variants are worth their price, and which are not."""
    sentences = []
    frontier = found.frontier()
    if len(frontier) > 1:
        sentences.append(f"Nobody reaches as much for less, cheapest first: {'; '.join(frontier)}.")
    dominated = [f"{item.variant.label} (by {item.dominated_by})" for item in found.variants if item.dominated_by]
    if dominated:
        sentences.append(
            f"Dominated, no cheaper and worse by more than chance: {first_few(dominated, separator='; ')}."
        )
    return sentences


def show_choice(choice: Choice, output: Output) -> None:
    """Print the configuration of the best variant, ready for ``embedrouter.toml``."""
    try:
        content = choice.to_toml()
    except ConfigError as error:
        output.line(str(error))
        return
    output.line()
    output.line("To use it, as embedrouter.toml:")
    output.code(content.rstrip())
