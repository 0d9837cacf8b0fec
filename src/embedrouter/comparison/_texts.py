"""Documents or queries by their ids, out of rows: which field is the text, the title and the id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from .._display import escaped, first_few, plural, shown_name
from .._files import values_at
from ..errors import ConfigError
from ._rows import LocatedRow, rows

TITLE = "title"
FEW = 3
"""Names that a sentence has."""
MANY = 20
"""Fields that a message names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is read, and which fields have its text and id where none are named."""

    noun: str
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    option: str
    """The option that names the field of the text."""
    answers: tuple[str, ...] = ()
    """Fields of a query with the documents that answer it."""


DOCUMENTS = Kind(
    "document",
    ("text", "contents", "content", "page_content", "passage", "document", "body"),
    ("_id", "id", "doc_id", "docid", "document_id", "corpus-id", "corpus_id", "docno", "pid"),
    "--field (in Python: fields=)",
)
QUERIES = Kind(
    "query",
    ("text", "query", "question", "title"),
    ("_id", "id", "query_id", "query-id", "qid"),
    "--query-field (in Python: query_fields=)",
    ("relevant_docs", "relevant_doc_ids", "relevant_documents", "relevant_ids", "relevant"),
)


@dataclass(frozen=True, slots=True)
class Item:
    """A document or a query."""

    title: str
    body: str

    @property
    def text(self) -> str:
        """What is embedded: title and text, as BEIR joins them."""
        return f"{self.title} {self.body}".strip() if self.title else self.body


@dataclass(slots=True)
class Texts:
    """What was read, by id.

    Attributes:
        has_ids: whether ids are the rows' own, and not numbers that were given here.
        left_out: ids or locations by the reason.
        answers: what rows say of the documents that answer them, by their ids.
    """

    kind: Kind
    items: dict[str, Item] = field(default_factory=dict)
    has_ids: bool = True
    left_out: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, object] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Remember that a row is not used."""
        self.left_out.setdefault(reason, []).append(name)

    def notes(self) -> list[str]:
        """Return a sentence for each reason."""
        return [
            f"{plural(self.kind.noun).capitalize()} {reason} ({len(names):,}): {named(names)}."
            for reason, names in self.left_out.items()
        ]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fields that the user names.

    Attributes:
        texts: fields with the text, joined where there are several; without any, the usual ones.
        id: the field with the id.
        join: is put between several.
        answers: the field of a query with the documents that answer it; by default one of the usual ones.
    """

    texts: Sequence[str] | None = None
    id: str | None = None
    join: str = " "
    answers: str | None = None


def read_texts(source: object, kind: Kind, chosen: Chosen) -> Texts:
    """Read documents or queries.

    Raises:
        ConfigError: a row has no text or no id, two rows have one id, or there is no text at all.
    """
    found = Texts(kind)
    columns = [*(chosen.texts or (*kind.texts, TITLE)), *([chosen.id] if chosen.id else kind.ids)]
    columns += [chosen.answers] if chosen.answers else kind.answers
    columns += [name.partition(".")[0] for name in columns if "." in name]
    for number, row in enumerate(rows(source, dict.fromkeys(columns)), 1):
        item = _item(row, kind, chosen)
        name = row.id or _id(row, kind, chosen)
        if number == 1:
            found.has_ids = bool(name)
        if bool(name) != found.has_ids:
            raise ConfigError(
                f"{row.location}: {'no id' if found.has_ids else 'an id, and the rows above have none'}. "
                "Give all rows an id, or none."
            )
        name = name or str(number)
        _add(found, name, item, row.location)
        if (answers := _answers(row, kind, chosen)) is not None:
            found.answers[name] = answers
    if not found.items:
        why = f" ({'; '.join(found.notes())})" if found.left_out else ""
        raise ConfigError(f"There is no {kind.noun} with a text{why}. Check the file, and {kind.option}.")
    return found


def _add(found: Texts, name: str, item: Item, location: str) -> None:
    problem = _unusable(name) or _unusable(item.text)
    there = found.items.get(name)
    if problem:
        found.leave_out(problem, escaped(name.encode("utf-8", "backslashreplace").decode()))
    elif there is None:
        found.items[name] = item
    elif there == item:
        found.leave_out("that are there twice, used once", name)
    else:
        raise ConfigError(
            f"{location}: the id {shown_name(name)} is there already, with another text. "
            "Give each text an id of its own, or name another field: --id (in Python: id_field=)."
        )


def _unusable(text: str) -> str:
    if not text.strip():
        return "without a text, left out"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "with half of a character (a lone surrogate), left out"
    return ""


# One row


def _item(row: LocatedRow, kind: Kind, chosen: Chosen) -> Item:
    value = row.value
    if isinstance(value, str) and not chosen.texts:
        return Item("", value)
    if not isinstance(value, Mapping | list):
        raise ConfigError(f"{row.location}: {_what(value)} in place of a {kind.noun} with fields. Check the file.")
    if chosen.texts:
        parts = [text for name in chosen.texts for text in _texts_at(row, name, kind)]
        return Item("", chosen.join.join(part for part in parts if part.strip()))
    name = next((name for name in kind.texts if isinstance(value, Mapping) and name in value), None)
    if name is None:
        raise ConfigError(f"{row.location}: no field {kind.texts[0]!r}. {_fields_of(value)}Choose with {kind.option}.")
    title = value.get(TITLE) if isinstance(value, Mapping) and kind is DOCUMENTS else None
    return Item(title.strip() if isinstance(title, str) else "", "".join(_texts_at(row, name, kind)))


def _texts_at(row: LocatedRow, name: str, kind: Kind) -> Iterable[str]:
    values = list(values_at(row.value, name))
    if not values:
        raise ConfigError(
            f"{row.location}: no field {shown_name(name)}. {_fields_of(row.value)}Choose with {kind.option}."
        )
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str):
            raise ConfigError(
                f"{row.location}: the field {shown_name(name)} holds {_what(value)} in place of a text. "
                f"{_fields_of(row.value)}Choose with {kind.option}."
            )
        yield value


def _id(row: LocatedRow, kind: Kind, chosen: Chosen) -> str:
    if chosen.id is not None:
        values = list(values_at(row.value, chosen.id)) if isinstance(row.value, Mapping | list) else []
        if not values:
            raise ConfigError(f"{row.location}: no field {shown_name(chosen.id)}. {_fields_of(row.value)}")
        return id_of(values[0], row.location)
    if not isinstance(row.value, Mapping):
        return ""
    name = next((name for name in kind.ids if name in row.value), None)
    return "" if name is None else id_of(row.value[name], row.location)


def _answers(row: LocatedRow, kind: Kind, chosen: Chosen) -> object:
    if chosen.answers is not None:
        return next(values_at(row.value, chosen.answers), None) if isinstance(row.value, Mapping | list) else None
    if not isinstance(row.value, Mapping):
        return None
    return next((row.value[name] for name in kind.answers if name in row.value), None)


def id_of(value: object, location: str) -> str:
    """Return an id as a text: 7 and "7" are the same, as they are in BEIR's files.

    Raises:
        ConfigError: it is neither a text nor a whole number.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise ConfigError(f"{location}: an id is a text or a whole number, not {_what(value)}. Check the file.")


def _what(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    kinds = {str: "a text", Mapping: "an object", list: "a list", Real: "a number"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), type(value).__name__)


def _fields_of(value: object) -> str:
    names = [shown_name(name) for name in value] if isinstance(value, Mapping) else []
    return f"Fields there: {first_few(names, MANY) or 'none'}. "


# Sentences


def named(names: Sequence[str]) -> str:
    """Return the first names, escaped, and how many there are more."""
    return escaped(first_few(names, FEW))
