"""A comparison as rows, as a data frame, as JSON, and as a table for terminals and notebooks."""

from __future__ import annotations

import html
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from .._display import Table, amounts, counted, data_size
from ..errors import ConfigError
from ._findings import MEASURES, Findings, Measured
from ._frontier import Cost, frontier

COSTS: tuple[Cost, Cost] = ("queries_cost", "corpus_cost")
DECIMALS = 4
"""Of dollars in the table for people."""
WHAT = {
    "judgements": "judged",
    "known items": "known items: each query was made from one document",
    "agreement": "no judgements: agreement with the first model",
}


def rows(found: Findings) -> list[dict[str, Any]]:
    """Return a row for each variant, the best first: numbers, dollars as ``Decimal``, and ``None`` for the unknown."""
    return [_row(item) for item in found.variants]


def _row(item: Measured) -> dict[str, Any]:
    variant, speed = item.variant, item.speed
    quality: dict[str, Any] = {}
    for measure in MEASURES:
        interval = item.quality[measure]
        quality |= {measure: interval.mean, f"{measure} low": interval.low, f"{measure} high": interval.high}
    return {
        "variant": variant.label,
        "models": " + ".join(variant.models),
        "dimensions": variant.dimensions,
        "dtype": variant.dtype or "float32",
        "escalated": variant.escalated,
        **quality,
        "dollars_per_million_queries": item.queries_cost,
        "corpus_dollars": item.corpus_cost,
        "corpus_batch_dollars": item.corpus_batch_cost,
        "index_bytes": item.index_bytes,
        "documents_per_second": speed and speed.documents_per_second,
        "query_seconds_median": speed and speed.query_median,
        "query_seconds_95th": speed and speed.query_95th,
        "speed_measured_at": speed and speed.at,
        "spent": item.spent,
        "dominated_by": item.dominated_by,
    }


def frame(found: Findings) -> Any:
    """Return the rows as a data frame of pandas, dollars as floats."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError("to_pandas() needs pandas, which is not installed. Run: pip install pandas") from error
    return pd.DataFrame([
        {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}
        for row in rows(found)
    ])  # fmt: skip


def content(found: Findings, *, by_query: bool) -> dict[str, Any]:
    """Return what JSON holds: dollars as texts, which lose no digit, times in ISO 8601."""
    variants = [{name: _plain(value) for name, value in row.items()} for row in rows(found)]
    whole: dict[str, Any] = {
        "collection": found.collection,
        "judged_by": found.judged_by,
        "documents": found.document_count,
        "queries": len(found.queries),
        "at": _plain(found.at),
        "spent": _plain(found.spent),
        "notes": list(found.notes),
        "left_out": dict(found.left_out),
        "variants": variants,
        "frontier": {by: frontier(found.variants, by) for by in COSTS},
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "difference": pair.difference.mean,
                "low": pair.difference.low,
                "high": pair.difference.high,
                "p": pair.p,
                "differs": pair.differs,
            }
            for pair in found.pairs
        ],
    }
    if by_query:
        for variant, item in zip(variants, found.variants, strict=True):
            values = {measure: item.by_query[measure].tolist() for measure in MEASURES}
            variant["by_query"] = {
                query: {
                    **{measure: values[measure][place] for measure in MEASURES},
                    "answer": [[hit.document, hit.score] for hit in answer],
                }
                for place, (query, answer) in enumerate(zip(found.queries, item.answers, strict=True))
            }
    return whole


def as_json(found: Findings, *, by_query: bool) -> str:
    """Return ``content`` as a text."""
    return json.dumps(content(found, by_query=by_query), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return value.isoformat() if isinstance(value, datetime) else value


# For people


def as_text(found: Findings) -> str:
    """Return a table with a line for each variant, and sentences below."""
    parts = [_title(found), repr(_table(found)), "\n".join(_sentences(found))]
    return "\n\n".join(filter(None, parts))


def as_html(found: Findings) -> str:
    """Return the same for a notebook."""
    sentences = "".join(f"<p>{html.escape(line)}</p>" for line in _sentences(found))
    return f"<p>{html.escape(_title(found))}</p>{_table(found)._repr_html_()}{sentences}"


def _table(found: Findings) -> Table[str, dict[str, str]]:
    queries, documents = (_money([getattr(item, name) for item in found.variants]) for name in COSTS)
    return Table(
        (
            item.variant.label,
            {
                **{measure: f"{item.quality[measure].mean:.3f}" for measure in MEASURES},
                "95 %": f"{item.quality[MEASURES[0]].low:.3f} to {item.quality[MEASURES[0]].high:.3f}",
                "1M queries": queries[place],
                "documents": documents[place],
                "query": _milliseconds(item),
                "index": data_size(item.index_bytes),
            },
        )
        for place, item in enumerate(found.variants)
    )


def _title(found: Findings) -> str:
    documents, queries = counted(found.document_count, "document"), counted(len(found.queries), "query")
    return f"{found.collection}: {documents}, {queries}, {WHAT[found.judged_by]}; 95 % interval of {MEASURES[0]}"


def _money(column: list[Decimal | None]) -> list[str]:
    known = iter(amounts([round(value, DECIMALS) for value in column if value is not None]))
    return ["unknown" if value is None else next(known) for value in column]


def _milliseconds(item: Measured) -> str:
    median = item.speed.query_median if item.speed else None
    return "unknown" if median is None else f"{median * 1000:,.1f} ms"


def _sentences(found: Findings) -> list[str]:
    return [*found.notes, *(f"Left out: {label}: {reason}" for label, reason in found.left_out.items())]
