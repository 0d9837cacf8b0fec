"""Whether judgements fit documents and queries: what does not is counted and named, and a wrong file is an error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from .._display import escaped, plural
from ..errors import ConfigError
from ._judgements import Grades, Judgements
from ._texts import Texts, named

EXAMPLES = 2
LONG = 60
"""Characters of an id in a message."""


def matching(judged: Judgements, documents: Texts, queries: Texts) -> tuple[Grades, tuple[str, ...]]:
    """Return the judgements of documents and queries that are there, in the order of the queries, and notes.

    Raises:
        ConfigError: there is no such judgement; the message shows the ids of both sides.
    """
    if judged.labels is not None:
        return _by_labels(judged, documents, queries)
    for texts, option in ((documents, "--id"), (queries, "--query-id")):
        if not (texts.has_ids or texts.answers):
            raise ConfigError(
                f"The {plural(texts.kind.noun)} have no ids, which judgements need. Name the field: {option} NAME."
            )
    grades: Grades = {}
    unknown: dict[str, None] = {}
    for query in queries.items:
        given = judged.grades.get(query, {})
        known = {document: grade for document, grade in given.items() if document in documents.items}
        unknown |= dict.fromkeys(document for document in given if document not in known)
        if known:
            grades[query] = known
    if not grades:
        raise ConfigError(_no_overlap(judged, documents, queries))
    return grades, tuple(_notes(judged, queries, grades, list(unknown)))


def _notes(judged: Judgements, queries: Texts, grades: Grades, unknown: Sequence[str]) -> Iterable[str]:
    strangers = [query for query in judged.asked if query not in queries.items]
    without = [query for query in queries.items if query not in grades]
    if strangers:
        yield f"Judgements about queries that are not there ({len(strangers):,}), left out: {named(strangers)}."
    if unknown:
        yield f"Relevant documents that are not in the corpus ({len(unknown):,}), left out: {named(unknown)}."
    if without:
        yield f"Queries without a relevant document ({len(without):,}), left out: {named(without)}."
    if judged.disputed:
        pairs = [f"{query} and {document}" for query, document in judged.disputed]
        yield f"Judgements with several grades ({len(pairs):,}), of which the highest counts: {named(pairs)}."


def _by_labels(judged: Judgements, documents: Texts, queries: Texts) -> tuple[Grades, tuple[str, ...]]:
    """Return the documents that have the label of a query."""
    assert judged.labels is not None
    of_documents, of_queries = judged.labels
    by_label: dict[str, list[str]] = defaultdict(list)
    for name in documents.items:
        if name in of_documents:
            by_label[of_documents[name]].append(name)
    grades = {
        query: dict.fromkeys(by_label[of_queries[query]], 1)
        for query in queries.items
        if by_label.get(of_queries.get(query, ""))
    }
    if not grades:
        both = f"documents are called {_examples(documents.items)}, labelled are {_examples(of_documents)}"
        raise ConfigError(f"No query has the label of a document ({both}). Check that the ids are those of both files.")
    without = [query for query in queries.items if query not in grades]
    note = f"Queries without a relevant document ({len(without):,}), left out: {named(without)}."
    return grades, (note,) if without else ()


def _no_overlap(judged: Judgements, documents: Texts, queries: Texts) -> str:
    """Return why no judgement is about these documents and queries, and what to do."""
    judged_documents = {document: None for grades in judged.grades.values() for document in grades}
    if not judged_documents:
        return "The judgements have no grade above 0: no document answers a query. Check the order of the columns."
    if _overlap(judged.asked, documents.items) and _overlap(judged_documents, queries.items):
        return (
            "The judgements have documents where queries are expected. The order is: query id, document id, grade; or "
            "name the columns in a first line: query-id, corpus-id, score."
        )
    side, ours, theirs = "documents", documents.items.keys(), judged_documents.keys()
    if not _overlap(judged.asked, queries.items):
        side, ours, theirs = "queries", queries.items.keys(), judged.asked.keys()
    return (
        f"No judgement is about these {side}: the {side} are called {_examples(ours)}, the judgements name "
        f"{_examples(theirs)}. Check that the files belong together, and which field is the id (--id, --query-id)."
    )


def _overlap(some: Collection[str], others: Collection[str]) -> bool:
    return any(name in others for name in some)


def _examples(names: Iterable[str]) -> str:
    few = [name for name, _ in zip(names, range(EXAMPLES + 1), strict=False)]
    return ", ".join(f"'{escaped(name[:LONG])}'" for name in few[:EXAMPLES]) + (" …" if len(few) > EXAMPLES else "")
