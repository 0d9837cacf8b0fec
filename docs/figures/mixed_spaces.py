"""Vectors of two models in one index, and what the router pays for: the figure of the README.

    python -m docs.figures.mixed_spaces                  # draw from mixed-spaces.json
    python -m docs.figures.mixed_spaces measure CACHE    # measure first: minutes, and the collections

all-MiniLM-L6-v2, cut to its first 256 numbers, and WordLlama with 256 numbers embed the same collections. The index
takes either without a complaint. The bill is the router's ledger for SQuAD as it is published, a paragraph beside every
question, indexed twice with text-embedding-3-small; an emulator counts the tokens with OpenAI's own vocabulary.
"""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedrouter import Model, Router

from . import judged as given
from . import style

HEIGHT = 576
DIMENSIONS = 256
PRICED = "text-embedding-3-small"


def embedded(collection: given.Collection, model: Any, cache: Path) -> tuple[Any, Any]:
    """Return the vectors of documents and queries by one model, at the common number of dimensions."""
    with Router([model], cache=cache, ledger=":memory:", on_too_long="truncate") as router:
        documents = router.embed(list(collection.documents.values()), input_type="document").vectors
        queries = router.embed(list(collection.queries.values()), input_type="query").vectors
    return given.unit(documents, DIMENSIONS), given.unit(queries, DIMENSIONS)


def quality(collection: given.Collection, cache: Path) -> dict[str, float]:
    """Return nDCG@10 with one space, with half of the documents of another, and with queries of another."""
    documents, queries = embedded(collection, given.minilm(), cache)
    others, other_queries = embedded(collection, given.WORDLLAMA, cache)
    half = np.random.default_rng(0).permutation(len(documents)) < len(documents) // 2
    mixed = np.where(half[:, None], others, documents)
    return {
        "one_space": given.ndcg(collection, documents, queries),
        "other_space": given.ndcg(collection, others, other_queries),
        "half_of_the_documents": given.ndcg(collection, mixed, queries),
        "all_queries": given.ndcg(collection, documents, other_queries),
    }


def bill(collection: given.Collection, folder: Path) -> dict[str, int]:
    """Index a row for each question twice, as a pipeline does that runs each night; return the ledger's tokens."""
    from tests.emulator import Emulator, count_tokens

    rows = [collection.documents[document] for judged in collection.relevant.values() for document in judged]
    paid = []
    with Emulator() as emulator:
        model = Model(f"openai:{PRICED}", base_url=emulator.openai_url, api_key="any", price="0.02")
        for _ in range(2):
            with Router([model], cache=folder / "cache", ledger=folder / "ledger.db") as router:
                router.embed(rows, input_type="document")
                paid.append(router.ledger.totals("model")[f"openai:{PRICED}"].tokens)
    return {
        "rows": len(rows),
        "distinct": len(set(rows)),
        "tokens_of_all_rows": sum(count_tokens("openai", row) for row in rows),
        "first_run": paid[0],
        "second_run": paid[1] - paid[0],
    }


def measure(folder: Path) -> dict[str, Any]:
    """Return everything that the figure shows; vectors of local models stay in the folder."""
    collections = {}
    for name in given.FILES:
        collection = given.read(name)
        found = {measure: round(value, 3) for measure, value in quality(collection, folder).items()}
        collections[name] = {"documents": len(collection.documents), "queries": len(collection.queries), **found}
    with tempfile.TemporaryDirectory() as empty:
        paid = bill(given.read("SQuAD"), Path(empty))
    return {"measured": date.today().isoformat(), "collections": collections, "bill": {"model": PRICED, **paid}}


# The drawing

QUALITY = (
    ("one_space", "All vectors from all-MiniLM-L6-v2"),
    ("other_space", "All vectors from WordLlama"),
    ("half_of_the_documents", "Mixed: half of the documents from WordLlama"),
    ("all_queries", "Mixed: the queries from WordLlama"),
)
BILLS = (
    ("tokens_of_all_rows", "Every row sent"),
    ("first_run", "embedrouter, first run"),
    ("second_run", "embedrouter, second run"),
)
LINE, GAP, THICK, LONGEST = 22, 10, 13, 300
"""Pixels: from one line of text or bar to the next, between groups, of a bar across, of the longest bar."""


def draw(facts: dict[str, Any], figure: Figure, theme: style.Theme) -> None:
    """Draw quality above, the bill below."""
    axes, y = style.canvas(figure), 14.0
    style.heading(axes, theme, y, "Retrieval quality (nDCG@10, 1 is best)")
    style.note(axes, theme, y + LINE, "two models, 256 numbers each: a store takes both")
    y += 2 * LINE + GAP
    for key, label in QUALITY:
        axes.text(style.LEFT, y, label, color=theme.ink, va="center")
        for collection, found in facts["collections"].items():
            y += LINE
            colour = theme.bad if label.startswith("Mixed") else theme.good
            _bar(axes, theme, y, found[key], colour, f"{found[key]:.3f}", collection)
        y += LINE + GAP
    y += GAP
    paid = facts["bill"]
    most = paid["tokens_of_all_rows"]
    style.heading(axes, theme, y, f"Tokens paid: {paid['rows']:,} rows, {paid['distinct']:,} distinct texts")
    style.note(axes, theme, y + LINE, "SQuAD, a row per question; tokens of text-embedding-3-small")
    y += 2 * LINE + GAP
    for key, label in BILLS:
        axes.text(style.LEFT, y, label, color=theme.ink, va="center")
        _bar(axes, theme, y + LINE, paid[key] / most, theme.bad if paid[key] == most else theme.good, f"{paid[key]:,}")
        y += 2 * LINE + GAP


def _bar(axes: Axes, theme: style.Theme, y: float, share: float, colour: str, figure: str, name: str = "") -> None:
    """Draw a bar from the left, and behind it its figure and name."""
    end = style.LEFT + max(share * LONGEST, 2)
    axes.barh(y, end - style.LEFT, left=style.LEFT, height=THICK, color=colour, linewidth=0)
    axes.text(end + 6, y, figure, color=theme.ink, va="center", fontweight="bold")
    axes.text(end + 54, y, name, color=theme.quiet, va="center", fontsize=style.SMALL)


def description(facts: dict[str, Any]) -> str:
    """Return the figures in words."""
    paid = facts["bill"]
    quality = "; ".join(
        f"{label}: "
        + ", ".join(f"{found[key]:.3f} on {collection}" for collection, found in facts["collections"].items())
        for key, label in QUALITY
    )
    bills = "; ".join(f"{label}: {paid[key]:,}" for key, label in BILLS)
    return f"nDCG@10. {quality}. Tokens paid for {paid['rows']:,} rows of SQuAD, {bills}."


PICTURE = style.Picture(
    "mixed-spaces", "Mixed vectors find little, and repeated texts cost nothing", draw, description, HEIGHT
)

if __name__ == "__main__":
    PICTURE.main(measure)
