"""Read what people have into ``Questions``: files, folders, stores and objects; and say what does not fit, and why.

What cannot be used is an error with the next action, before anything is paid. What is only left out, such as a
judgement of a document that is not there, is a note, which stands beside every figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from .._display import escaped, shown, shown_name
from .._files import DOCUMENTS as DOCUMENT_FORMATS
from .._files import format_of
from ..errors import ConfigError
from ..stores import is_store, readable
from ._folders import CORPUS, Collection, find_collection, shards
from ._judgements import Grades, inline_judgements, read_judgements
from ._known_items import COUNT, known_items
from ._matching import matching
from ._questions import Questions
from ._rows import read_json_file, shown_path
from ._sample import sampled_documents, sampled_queries
from ._texts import DOCUMENTS, QUERIES, Chosen, read_texts

DATASET = ("corpus", "queries", "relevant_docs")
"""The three parts of LlamaIndex's ``EmbeddingQAFinetuneDataset``, in memory and in its JSON file."""
UNNAMED = "collection"
ABOUT = ("README", "LICENSE", "CHANGELOG")
"""Files that say what a folder holds."""
PAGE = 1000
"""Rows of a store in memory at once, beside their texts."""


def read_questions(
    corpus: Any,
    queries: Any = None,
    qrels: Any = None,
    *,
    fields: Sequence[str] | None = None,
    query_fields: Sequence[str] | None = None,
    id_field: str | None = None,
    query_id_field: str | None = None,
    relevant_field: str | None = None,
    join: str = " ",
    split: str | None = None,
    collection: str | None = None,
    limit: int | None = None,
    query_limit: int | None = None,
    known: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Questions:
    """Read documents, queries and judgements.

    Args:
        corpus: a folder as BEIR, MTEB and the hub have it, with queries and judgements in it; a file of JSON lines,
            JSON, CSV, TSV or Parquet, also compressed (``.gz``), or a folder of such files; the folder or address of a
            vector store; a vector store of LangChain or LlamaIndex; a mapping of texts by id; or texts.
        queries: a file or mapping of the same kinds, or a file with one query on each line. Without queries, and where
            the corpus brings none, they are made from documents: known items.
        qrels: judgements as TREC, BEIR and MTEB write them, JSON ``{query: {document: grade}}``, CSV; or a mapping.
            Without them the best model is the measure: agreement.
        fields: the fields with the text of a document, joined by ``join``; by default title and text, as BEIR has it.
        query_fields: the same for queries.
        id_field: the field with the id of a document; by default ``_id``, ``id`` and the like.
        query_id_field: the same for queries.
        relevant_field: the field of a query with the ids of the documents that answer it, where ``qrels`` is ``None``;
            by default ``relevant_docs`` and the like.
        join: is put between several fields.
        split: which judgements of a folder, as ``"dev"`` of ``qrels/dev.tsv``; by default ``"test"``.
        collection: of several in a store.
        limit: at most so many documents, those first that answer a query.
        query_limit: at most so many queries.
        known: how many known items, from documents all over the corpus.
        seed: of everything that is drawn: the same seed draws the same.
        name: of the collection, for reports; by default that of the folder or file.

    Raises:
        ConfigError: something cannot be read or does not fit together; the message has the next action.
    """
    for option, value in (("limit", limit), ("query_limit", query_limit), ("known", known)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{option} is a number, at least 1, not {shown(value)}.")
    own_name, corpus, queries, qrels = _sources(corpus, queries, qrels, split, collection)
    if known is not None and queries is not None:
        raise ConfigError("Known items take the place of queries. Leave out the queries, or the number of known items.")
    name = name or own_name
    documents = read_texts(corpus, DOCUMENTS, Chosen(fields, id_field, join))
    if queries is None:
        kept, notes = sampled_documents(documents.items, {}, limit, seed)
        made = known_items(kept, min(known or COUNT, query_limit or COUNT), seed)
        notes = (made.note, *documents.notes(), *notes)
        return Questions(name, made.documents, made.queries, made.relevant, "known items", notes)
    asked = read_texts(queries, QUERIES, Chosen(query_fields, query_id_field, join, relevant_field))
    notes = (*documents.notes(), *asked.notes())
    relevant: Grades = {}
    judged = inline_judgements(asked, documents.items) if qrels is None else read_judgements(qrels)
    if judged is not None:
        relevant, left_out = matching(judged, documents, asked)
        notes += left_out
    elif relevant_field is not None:
        raise ConfigError(f"No query names a document in the field {shown_name(relevant_field)}. Check --relevant.")
    names, more = sampled_queries(list(relevant or asked.items), query_limit, seed)
    relevant = {name: relevant[name] for name in names if name in relevant}
    kept, others = sampled_documents(documents.items, relevant, limit, seed)
    if relevant:
        relevant = {
            query: found
            for query, grades in relevant.items()
            if (found := {document: grade for document, grade in grades.items() if document in kept})
        }
        names = list(relevant)
    return Questions(
        name,
        {name: item.text for name, item in kept.items()},
        {name: asked.items[name].text for name in names},
        relevant,
        "judgements" if relevant else "agreement",
        (*notes, *more, *others),
    )


# Where things are


def _sources(
    corpus: Any, queries: Any, qrels: Any, split: str | None, collection: str | None
) -> tuple[str, Any, Any, Any]:
    """Return a name, and what documents, queries and judgements are read from: lists of paths, or objects."""
    name = UNNAMED
    if isinstance(corpus, str | Path):
        place = Path(corpus).expanduser()
        name = place.absolute().name.partition(".")[0] or UNNAMED
        found = _from_path(str(corpus), place, split, collection)
        corpus = found.corpus if isinstance(found, Collection) else found
        if isinstance(found, Collection):
            if found.queries and queries is None:
                queries, qrels = found.queries, qrels if qrels is not None else found.qrels or None
            elif not found.queries and found.qrels and qrels is None:
                qrels = found.qrels
        if name in CORPUS:
            name = place.absolute().parent.name or name
    elif not isinstance(corpus, Mapping | Sequence | Set | Iterator):
        corpus = _from_object(corpus)
    corpus, queries, qrels = _dataset(corpus, queries, qrels)
    if queries is None and qrels is not None:
        raise ConfigError("There are judgements, and no queries. Pass the queries, too; or leave out the judgements.")
    return name, corpus, _paths(queries, split), _paths(qrels, split)


def _from_path(given: str, place: Path, split: str | None, collection: str | None) -> Any:
    if "://" in given:
        return _stored(given, collection)
    if not place.exists():
        raise ConfigError(f"There is no {shown_path(place)}. Check the path.")
    if place.is_dir() and (found := find_collection(place, split)):
        return found
    if place.suffix.lower() != ".json" and is_store(place):
        return _stored(str(place), collection)
    if place.is_file():
        return Collection([place], [], [])
    if files := shards(place, split):
        return Collection(files, [], [])
    here = ", ".join(sorted(escaped(item.name) for item in place.iterdir())[:5]) or "nothing"
    raise ConfigError(
        f"{shown_path(place)} holds {here}, and no documents: corpus.jsonl as BEIR has it, other files of JSON lines, "
        "JSON, CSV, TSV or Parquet, or a vector store. Write the texts to a file of JSON lines: "
        '{"id": …, "text": …}.'
    )


def holds_questions(place: Path, split: str | None) -> bool:
    """Return whether a folder is read here: one of a collection, of a store, or of files with rows and no others."""
    if find_collection(place, split) is not None or is_store(place):
        return True
    pages = any(format_of(path) in DOCUMENT_FORMATS and path.stem.upper() not in ABOUT for path in place.iterdir())
    return not pages and bool(shards(place, split))


def _stored(store: Any, collection: str | None = None) -> dict[str, str]:
    """Return the texts of a store by id."""
    with readable(store, collection) as opened:
        return {row.id: row.text for page in opened.pages(PAGE) for row in page}


def _from_object(corpus: Any) -> Any:
    """Return the texts of a vector store, or of ``InMemoryVectorStore``, and anything else as it is."""
    kept = getattr(corpus, "store", None)
    if isinstance(kept, Mapping):
        return kept
    if all(hasattr(corpus, part) for part in DATASET):
        return corpus
    try:
        return _stored(corpus)
    except ConfigError:
        if isinstance(corpus, Iterable):
            return corpus
        raise


def _paths(source: Any, split: str | None) -> Any:
    """Return the files that a path names, and anything else as it is."""
    if not isinstance(source, str | Path):
        return source
    place = Path(source).expanduser()
    if not place.exists():
        raise ConfigError(f"There is no {shown_path(place)}. Check the path.")
    if place.is_file():
        return [place]
    if files := shards(place, split):
        return files
    raise ConfigError(f"The folder {shown_path(place)} has no JSON lines, JSON, CSV, TSV or Parquet files.")


def _dataset(corpus: Any, queries: Any, qrels: Any) -> tuple[Any, Any, Any]:
    """Return the parts of one file or object with documents, queries and judgements."""
    one = corpus
    if isinstance(corpus, list) and len(corpus) == 1 and isinstance(corpus[0], Path) and corpus[0].suffix == ".json":
        content = read_json_file(corpus[0])
        one = content if isinstance(content, Mapping) else None
    if isinstance(one, Mapping) and all(isinstance(one.get(part), Mapping) for part in DATASET):
        parts = [one[part] for part in DATASET]
    elif all(isinstance(getattr(one, part, None), Mapping) for part in DATASET):
        parts = [getattr(one, part) for part in DATASET]
    else:
        return corpus, queries, qrels
    return parts[0], parts[1] if queries is None else queries, parts[2] if qrels is None and queries is None else qrels
