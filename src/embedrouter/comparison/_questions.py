"""What models are compared on: documents, queries, and which documents answer which query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

JudgedBy: TypeAlias = Literal["judgements", "known items", "agreement"]
"""Who says which documents answer a query.

``"judgements"``: people or labels. ``"known items"``: each query was made from one document, which has to be found.
``"agreement"``: the ten nearest documents of the first model.
"""


@dataclass(frozen=True, slots=True)
class Questions:
    """Documents and queries of one collection, by their ids.

    Attributes:
        name: of the collection, for reports.
        documents: the text of each document.
        queries: the text of each query; a query without a relevant document is in no measure.
        relevant: for each query the relevant documents and their grades, all above 0; empty for ``"agreement"``.
        judged_by: who says so.
        notes: sentences that belong beside every figure: a sample in place of the whole, what was left out, and why.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    judged_by: JudgedBy = "judgements"
    notes: Sequence[str] = ()
