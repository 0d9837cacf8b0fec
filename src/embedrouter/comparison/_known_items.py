"""Known items: queries made from documents, each of which has to find the document that it was made from.

They need no judgements. They share words with their document more than the questions of people do, so they compare
models with each other, and say nothing about how good a search will be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from ..errors import ConfigError
from ._texts import Item

COUNT = 300
"""Queries by default: enough for intervals of about five points."""
MIN_LETTERS, MAX_LETTERS = 25, 300
"""Characters of a sentence that is a query."""
MIN_TITLE = 8
"""Characters of a title that is a query."""
REST = 2
"""So many times as long as the query is what stays of its document at least."""
ENOUGH_TITLES = 0.5
"""The share of documents with a usable title from which on titles are the queries."""
FEWEST = 20
"""Queries below which no comparison says anything."""
END = re.compile(r"(?<!\b\w)[.!?…]+[\"'”’)\]]*\s+|[。！？]+|\n+")
"""The end of a sentence, unless the next one begins with a small letter."""
TRUST = (
    "The queries are known items, made from the documents: {made}. They show which model finds a document by a part of "
    "it, and share more words with it than the questions of people do. Differences between models count, absolute "
    "figures do not; decide on real queries with judgements (--qrels)."
)


@dataclass(frozen=True, slots=True)
class KnownItems:
    """Documents as they are searched, and a query for some of them."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    note: str


def known_items(items: Mapping[str, Item], count: int = COUNT, seed: int = 0) -> KnownItems:
    """Make queries from documents all over the corpus, the same ones for the same seed.

    A query is the title of a document, which then is no part of the documents that are searched; or, where most
    documents have no title of their own, a sentence, which is taken out of its document.

    Raises:
        ConfigError: too few documents have a title of their own or several sentences.
    """
    random = Random(seed)
    titles = Counter(item.title.casefold() for item in items.values())
    usable = [
        name
        for name, item in items.items()
        if len(item.title) >= MIN_TITLE
        and titles[item.title.casefold()] == 1
        and item.body.strip()
        and item.title.casefold() not in item.body.casefold()
    ]
    if len(usable) >= max(FEWEST, ENOUGH_TITLES * len(items)):
        return _from_titles(items, _spread(usable, count, random))
    return _from_sentences(items, count, random)


def _from_titles(items: Mapping[str, Item], names: Sequence[str]) -> KnownItems:
    documents = {name: item.body if item.body.strip() else item.text for name, item in items.items()}
    queries = {f"title of {name}": items[name].title for name in names}
    made = f"{len(names):,} titles, which are left out of the documents that are searched"
    relevant = {f"title of {name}": {name: 1} for name in names}
    return KnownItems(documents, queries, relevant, TRUST.format(made=made))


def _from_sentences(items: Mapping[str, Item], count: int, random: Random) -> KnownItems:
    documents = {name: item.text for name, item in items.items()}
    seen = Counter(sentence for text in documents.values() for sentence in set(_sentences(text)))
    found: dict[str, tuple[str, str]] = {}
    for part in _strata(list(documents), count):
        for name in random.sample(part, len(part)):
            if taken := _taken(documents[name], seen, random):
                found[name] = taken
                break
    if len(found) < min(FEWEST, count):
        raise ConfigError(
            f"Only {len(found):,} of {len(documents):,} documents have a title of their own, or several sentences of "
            f"which one can be the query, and fewer than {FEWEST} queries tell nothing. Pass queries: a file with one "
            "on each line is enough. Or split long pages as your program does: --split."
        )
    queries = {f"sentence of {name}": sentence for name, (sentence, _) in found.items()}
    documents |= {name: rest for name, (_, rest) in found.items()}
    made = f"{len(found):,} sentences, each taken out of its document"
    return KnownItems(documents, queries, {f"sentence of {name}": {name: 1} for name in found}, TRUST.format(made=made))


def _taken(text: str, seen: Mapping[str, int], random: Random) -> tuple[str, str] | None:
    """Return a sentence that stands nowhere else, and its document without it; ``None`` where there is none."""
    fitting = [
        sentence
        for sentence in _sentences(text)
        if MIN_LETTERS <= len(sentence) <= MAX_LETTERS
        and seen[sentence] == 1
        and text.count(sentence) == 1
        and len(text) >= (1 + REST) * len(sentence)
    ]
    if not fitting:
        return None
    sentence = random.choice(fitting)
    before, _, after = text.partition(sentence)
    rest = f"{before.rstrip()} {after.lstrip()}".strip()
    query = " ".join(sentence.split())
    return None if query.casefold() in " ".join(rest.casefold().split()) else (query, rest)


def _sentences(text: str) -> list[str]:
    ends = [match.end() for match in END.finditer(text) if not text[match.end() : match.end() + 1].islower()]
    return [sentence for begin, end in pairwise([0, *ends, len(text)]) if (sentence := text[begin:end].strip())]


def _spread(names: Sequence[str], count: int, random: Random) -> list[str]:
    """Choose names from all over a list, one from each of ``count`` parts."""
    return [random.choice(part) for part in _strata(names, count)]


def _strata(names: Sequence[str], count: int) -> list[Sequence[str]]:
    count = min(count, len(names))
    bounds = [len(names) * number // count for number in range(count + 1)] if count else [0]
    return [names[begin:end] for begin, end in pairwise(bounds)]
