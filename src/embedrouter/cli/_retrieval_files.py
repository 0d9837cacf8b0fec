"""Files of a retrieval collection: texts as JSON lines, and relevance judgements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import ConfigError


def read_texts(path: Path) -> dict[str, str]:
    """Read the texts of a JSON lines file, by id, each after its title if there is one.

    Raises:
        ConfigError: the file cannot be read, or a line has another form; the message names the line.
    """
    found: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            name = str(row.get("id", row.get("_id", "")))
            text = " ".join(part for part in (row.get("title"), row["text"]) if part).strip()
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ConfigError(f'{path}, line {number}: expected {{"id": …, "text": …}}.') from None
        if not name or not text:
            raise ConfigError(f"{path}, line {number}: the {'text' if name else 'id'} is missing.")
        if name in found:
            raise ConfigError(f"{path}, line {number}: the id {name!r} is there twice.")
        found[name] = text
    if not found:
        raise ConfigError(f"{path} holds no texts.")
    return found


def read_judgements(
    path: Path, queries: Mapping[str, str], documents: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Read the relevance of documents, by query, for the given queries and documents.

    A line holds query, document and relevance, separated by tabs or blanks; the second of TREC's four columns is
    ignored. Without a number the relevance is 1. The first line may be a heading.

    Raises:
        ConfigError: the file cannot be read, a line has another form, or no line is about these queries.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in _lines(path):
        columns = line.rstrip("\n").split("\t") if "\t" in line else line.split()
        try:
            relevance = float(columns[-1]) if len(columns) > 2 else 1.0
            query, document = {2: (0, 1), 3: (0, 1), 4: (0, 2)}[len(columns)]
        except (ValueError, KeyError):
            if number == 1:
                continue
            raise ConfigError(f"{path}, line {number}: expected a query id, a document id and a number.") from None
        if relevance > 0 and columns[query] in queries and columns[document] in documents:
            found.setdefault(columns[query], {})[columns[document]] = relevance
    if not found:
        raise ConfigError(
            f"No line of {path} says that a document of the corpus is relevant to one of the queries. Check that the "
            "ids are those of both files."
        )
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines that are not blank, each after its number."""
    try:
        with path.expanduser().open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text. Convert the file.") from error
