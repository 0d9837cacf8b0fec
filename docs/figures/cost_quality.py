"""What each smaller index costs in quality: one collection, the models that run on this machine, one chart.

    python -m docs.figures.cost_quality                  # draw from cost-quality.json
    python -m docs.figures.cost_quality measure CACHE    # measure first: minutes, and the collections

``embedrouter.compare`` measures WordLlama and all-MiniLM-L6-v2 on SQuAD: fewer numbers, shorter number types, and a
cascade that asks MiniLM for three questions in ten. Both models are free of charge, so the cost is what a store keeps
for each document.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

import embedrouter
from embedrouter.comparison import read_questions

from . import judged, style

HEIGHT = 400
Place: TypeAlias = tuple[float, float, Literal["left", "right"], Literal["top", "bottom"]]
DTYPES = {"float32": "32 bit", "float16": "16 bit", "int8": "8 bit", "binary": "1 bit"}
SHAPES = {"WordLlama": "o", "MiniLM": "s", "WordLlama, then MiniLM": "^"}


def measure(cache: Path) -> dict[str, Any]:
    """Return for each variant its bytes a document and its nDCG@10 with the interval."""
    folder, judgements = judged.FILES["SQuAD"]
    corpus, queries, qrels = (judged.FOLDER / folder / name for name in ("corpus.jsonl", "queries.jsonl", judgements))
    questions = read_questions(corpus, queries, qrels)
    minilm = judged.minilm()
    found = embedrouter.compare(
        questions,
        models=[judged.WORDLLAMA, minilm],
        dimensions=[64, 128, 256],
        dtypes=["float16", "int8", "binary"],
        cascades=[(judged.WORDLLAMA, minilm.name, 0.3)],
        cache=cache,
        ledger=":memory:",
        show_progress=False,
    )
    return {
        "measured": date.today().isoformat(),
        "collection": "SQuAD",
        "documents": len(questions.documents),
        "queries": len(questions.queries),
        "variants": [_variant(item, len(questions.documents)) for item in found.variants],
    }


def _variant(item: Any, documents: int) -> dict[str, Any]:
    quality = item.quality["nDCG@10"]
    names = ["WordLlama" if model == judged.WORDLLAMA else "MiniLM" for model in item.variant.models]
    return {
        "models": names,
        "dimensions": item.variant.dimensions,
        "dtype": item.variant.dtype or "float32",
        "escalated": item.variant.escalated,
        "bytes": item.index_bytes // documents,
        "ndcg": [round(float(value), 3) for value in (quality.low, quality.mean, quality.high)],
    }


# The drawing


def frontier(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the variants of which none that is as small is better, from the smallest."""
    found: list[dict[str, Any]] = []
    for variant in sorted(variants, key=lambda item: (item["bytes"], -item["ndcg"][1])):
        if not found or variant["ndcg"][1] > found[-1]["ndcg"][1]:
            found.append(variant)
    return found


def draw(facts: dict[str, Any], figure: Figure, theme: style.Theme) -> None:
    """Draw a point for each variant with its interval, and the line of the best for each size."""
    head = style.canvas(figure)
    style.heading(head, theme, 14, "Quality and size of the index (nDCG@10)")
    style.note(head, theme, 36, f"SQuAD: {facts['documents']:,} documents, {facts['queries']:,} queries; bars: 95 %")
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.74))
    axes.patch.set_alpha(0)
    best = frontier(facts["variants"])
    axes.plot([item["bytes"] for item in best], [item["ndcg"][1] for item in best], color=theme.other, linewidth=1.2)
    colours = dict(zip(SHAPES, (theme.good, theme.bad, theme.ink), strict=True))
    for variant in facts["variants"]:
        name, (low, mean, high) = ", then ".join(variant["models"]), variant["ndcg"]
        axes.errorbar(
            variant["bytes"], mean, yerr=[[mean - low], [high - mean]], marker=SHAPES[name], color=colours[name],
            markersize=7, linewidth=1.2, markerfacecolor=colours[name] if variant in best else "none",
        )  # fmt: skip
        if label := _label(variant, variant in best):
            across, down, ha, va = _place(variant, variant in best)
            axes.annotate(
                label, (variant["bytes"], mean), (across, down), textcoords="offset points", color=theme.ink,
                fontsize=style.SMALL, ha=ha, va=va,
            )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlim(6, 9000)
    axes.set_ylim(0.38, 0.82)
    axes.xaxis.set_major_locator(FixedLocator([8, 32, 128, 512, 2048]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("bytes of a document's vector (logarithmic)", fontsize=style.SMALL)
    axes.tick_params(labelsize=style.SMALL, colors=theme.quiet, length=0)
    for place, (name, shape) in enumerate(SHAPES.items()):
        y = 0.5 - 0.035 * place
        axes.plot([150], [y], marker=shape, color=colours[name], markersize=7)
        axes.text(200, y, name, color=theme.ink, va="center", fontsize=style.SMALL)


def _label(variant: dict[str, Any], is_best: bool) -> str:
    """Name the points of the line, and the whole vectors of each model."""
    if len(variant["models"]) == 2:
        return f"{100 * variant['escalated']:.0f} % escalated"
    if is_best or (variant["dtype"] == "float32" and variant["dimensions"] in (256, 384)):
        return f"{variant['dimensions']} × {DTYPES[variant['dtype']]}"
    return ""


def _place(variant: dict[str, Any], is_best: bool) -> Place:
    """Return where a label stands beside its point, so that none lies on another."""
    if len(variant["models"]) == 2:
        return (12, -8, "right", "top")
    if variant["models"] == ["MiniLM"] and variant["dtype"] != "binary":
        return (18, 6, "right", "bottom") if is_best else (-10, 6, "left", "bottom")
    return (9, -1, "left", "top") if is_best else (-4, -7, "left", "top")


def description(facts: dict[str, Any]) -> str:
    """Return the line of the best in words."""
    best = "; ".join(
        f"{item['models'][0]}, {item['dimensions']} numbers of {DTYPES[item['dtype']]}: {item['bytes']:,} bytes, "
        f"{item['ndcg'][1]:.3f}"
        for item in frontier(facts["variants"])
    )
    return f"nDCG@10 on SQuAD, by bytes of a document's vector. The best of each size: {best}."


PICTURE = style.Picture("cost-quality", "What each smaller index costs in quality", draw, description, HEIGHT)

if __name__ == "__main__":
    PICTURE.main(measure)
