"""The result of a comparison: its findings, shown in several forms, and the choice of a variant."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from . import _choice, _frontier, _tables
from ._choice import Choice
from ._findings import Findings
from ._report import html_report


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Comparison(Findings):
    """The result of ``embedrouter.compare``.

    Attributes:
        collection: its name.
        judged_by: who says which documents answer a query.
        documents: the text of each document that stands in an answer or is relevant.
        document_count: how many documents were searched.
        queries: the text of each query with a relevant document.
        relevant: for each query its relevant documents and their grades.
        variants: by nDCG@10, the best first; of equal ones the cheapest, then the one with the smallest index.
        pairs: each pair of variants.
        left_out: models that could not be compared, each with the reason.
        at: when.
        notes: sentences that belong beside every figure: those of the questions, and what models could not take.
        spent: dollars paid in this comparison.
    """

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each variant, the best first: quality with intervals, dollars as ``Decimal``, speed, bytes.

        What is not known is ``None``.
        """
        return _tables.rows(self)

    def to_pandas(self) -> Any:
        """Return the rows as a data frame of pandas, dollars as floats.

        Raises:
            ConfigError: pandas is not installed.
        """
        return _tables.frame(self)

    def to_dict(self, *, by_query: bool = False) -> dict[str, Any]:
        """Return the comparison as JSON holds it: dollars as texts, which lose no digit, times in ISO 8601.

        Args:
            by_query: whether each variant has the measures and the answer of each query.
        """
        return _tables.content(self, by_query=by_query)

    def to_json(self, *, by_query: bool = False) -> str:
        """Return ``to_dict`` as a text."""
        return _tables.as_json(self, by_query=by_query)

    def to_html(self) -> str:
        """Return one page for a browser, with charts and answers side by side, that needs no other file."""
        return html_report(self)

    def frontier(self, by: Literal["queries_cost", "corpus_cost"] = "queries_cost") -> list[str]:
        """Return the labels of the variants whose nDCG@10 no other reaches for as much money or less, cheapest first.

        Args:
            by: the money: dollars for a million queries, or for the documents. Variants of unknown price are left out.
        """
        return _frontier.frontier(self.variants, by)

    def best_under(
        self,
        dollars_per_million: Decimal | str | float | None = None,
        *,
        corpus_dollars: Decimal | str | float | None = None,
        index_bytes: int | None = None,
    ) -> Choice:
        """Return the variant with the highest nDCG@10 that costs no more, as a configuration.

        Where agreement is measured, that is the first model wherever its price allows.

        Args:
            dollars_per_million: for a million queries like those of the comparison.
            corpus_dollars: for the documents of the comparison, once.
            index_bytes: of the stored vectors of these documents.

        Raises:
            ConfigError: no variant keeps to the limits; the message names the one that takes least.
        """
        return _choice.best_under(self.variants, dollars_per_million, corpus_dollars, index_bytes)

    def __str__(self) -> str:
        """Describe the comparison in a table."""
        return _tables.as_text(self)

    def __repr__(self) -> str:
        best = self.variants[0].variant.label
        return f"<Comparison on {self.collection}: {len(self.variants)} variants, the best is {best}>"

    def _repr_html_(self) -> str:
        return _tables.as_html(self)
