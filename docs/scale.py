"""Compute the tables of docs/scale.md: what many documents and many queries cost and need.

    python docs/scale.py --write
    python docs/scale.py --documents 5_000_000 --document_tokens 400 --queries 50 --cached 0.3

Prices and limits are the catalogue's. The other figures are assumptions, or were measured: each is a field below with
its unit and its source, and an option of the same name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where the pages' own scripts are

import generated

from embedrouter.cache import row_size
from embedrouter.models import load_catalogue


@dataclass(frozen=True)
class Assumptions:
    """What the tables are computed from. Change one by an option of its name."""

    # the work
    documents: int = 100_000_000
    document_tokens: int = 250
    """In the mean: a paragraph or a short page."""
    queries: float = 10_000
    """A second."""
    query_tokens: int = 15
    cached: float = 0.5
    """The share of queries that are in the cache."""
    distinct_queries: int = 20_000_000
    """That the cache holds, before their time to live ends."""

    # accounts and machines
    tokens_per_minute: int = 5_000_000
    """Where the maker documents no limit. Look at the page of your account."""
    price_of_machine: float = 0.08
    """US dollars an hour, for two cores."""
    workers: int = 16
    """Processes that ask queries."""
    window: float = 0.010
    """Seconds for which a process gathers queries into one request: ``micro_batch_window``."""

    # measured in November 2026 on two cores that other work shared; alone they do more
    local_documents: float = 72
    """A second, on two cores: all-MiniLM-L6-v2 on OpenVINO, paragraphs."""
    local_query: float = 0.0043
    """Seconds of two cores: the same, one query."""
    cpu_document: float = 150e-6
    """Seconds of a core for a document that is sent: count, request, answer, cache, ledger."""
    cpu_query: float = 410e-6
    """Seconds of a core for a query that is sent, in micro-batches."""
    cpu_cached: float = 310e-6
    """Seconds of a core for a query that is read from Redis."""
    redis_row: float = 20e-6
    """Seconds of the Redis server's one core for a vector that is read or written."""
    redis_script: float = 100e-6
    """Seconds of it for one of the four scripts of a request: reserve, settle, and the limits before and after."""


PAGE = Path(__file__).with_suffix(".md")
CHOICES = (
    ("voyage:voyage-4-large", 1024),
    ("voyage:voyage-4", 1024),
    ("voyage:voyage-4-lite", 1024),
    ("openai:text-embedding-3-small", 1536),
    ("openai:text-embedding-3-large", 1024),
    ("cohere:embed-v4.0", 1536),
    ("all-MiniLM-L6-v2 on this machine", 384),
)
NUMBERS = ("float32", "float16", "int8")
KEY = 141
"""Bytes of Redis for a key of 24 bytes in hexadecimal, its entry, and its share of the table (server 7.0)."""


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description="Compute the tables of docs/scale.md.")
    parser.add_argument("--write", action="store_true", help="Put the tables into the page.")
    for item in fields(Assumptions):
        kind = float if isinstance(item.default, float) else int
        parser.add_argument(f"--{item.name}", type=kind, default=item.default)
    chosen = vars(parser.parse_args(given))
    write = chosen.pop("write")
    found = parts(Assumptions(**chosen))
    if write:
        generated.write(PAGE, found)
    else:
        print("\n\n".join(found.values()))


def parts(assumed: Assumptions = Assumptions()) -> dict[str, str]:
    """Return all tables, as Markdown."""
    return {
        "documents": documents(assumed),
        "vectors": memory(assumed),
        "queries": queries(assumed),
        "state": state(assumed),
        "machines": machines(assumed),
    }


def documents(assumed: Assumptions) -> str:
    """Return what the documents cost and how long they take, for each model."""
    rows = []
    tokens = assumed.documents * assumed.document_tokens
    for model, _ in CHOICES:
        card = load_catalogue().get(model)
        if card is None:
            hours = assumed.documents / assumed.local_documents / 3600
            rows.append([model, money(hours * assumed.price_of_machine), "", big(hours), "one machine of two cores"])
            continue
        texts = min(card.texts or 10**9, (card.tokens or 10**9) // assumed.document_tokens)
        requests = ceil(assumed.documents / texts)
        minutes = {
            f"{big(card.tokens_per_minute or assumed.tokens_per_minute)} tokens a minute"
            + ("" if card.tokens_per_minute else ", assumed"): tokens
            / (card.tokens_per_minute or assumed.tokens_per_minute),
            f"{big(card.requests_per_minute or 0)} requests a minute": requests / (card.requests_per_minute or 10**12),
            f"{big(card.texts_per_minute or 0)} texts a minute": assumed.documents / (card.texts_per_minute or 10**12),
        }
        slowest = max(minutes, key=lambda name: minutes[name])
        batch = money(dollars(tokens, card.batch_price)) if card.batch_price is not None else "none"
        rows.append([model, money(dollars(tokens, card.price)), batch, big(minutes[slowest] / 60), slowest])
    cores = big(assumed.documents * assumed.cpu_document / 3600)
    told = f"Through an API, preparing and storing all of them takes {cores} core hours."
    return (
        generated.table(("model", "cost", "in batches", "hours", "at a limit of"), rows, right=" rrr") + f"\n\n{told}"
    )


def memory(assumed: Assumptions) -> str:
    """Return what the vectors of the documents take, for each number of dimensions and type of number."""
    rows = []
    for dimensions in sorted({dimensions for _, dimensions in CHOICES}):
        for number in NUMBERS:
            row = row_size(dimensions, number)
            disk, redis, file = folder_bytes(row), redis_bytes(row), row - 16
            rows.append([f"{dimensions:,} {number}", *(size(assumed.documents * each) for each in (disk, redis, file))])
    return generated.table(("vectors", "folder", "Redis", "Parquet"), rows, right=" rrr")


def queries(assumed: Assumptions) -> str:
    """Return what the queries cost a day, and how they fit the documented limits, for each model."""
    rows = []
    sent = assumed.queries * (1 - assumed.cached)
    for model, _ in CHOICES:
        card = load_catalogue().get(model)
        tokens = sent * 60 * assumed.query_tokens
        if card is None:
            needed = ceil(sent * assumed.local_query)
            cost = money(needed * 24 * assumed.price_of_machine)
            rows.append([model, cost, "none", f"{needed:,} machines of two cores"])
            continue
        limits = [
            f"{big(number)} {unit}"
            for number, unit in (
                (card.tokens_per_minute, "tokens"),
                (card.requests_per_minute, "requests"),
                (card.texts_per_minute, "texts"),
            )
            if number
        ]
        if card.texts_per_minute:
            least = f"too many: {big(sent * 60)} a minute"
        elif card.requests_per_minute:
            least = big(ceil(max(1.0, sent * 60 / card.requests_per_minute)))
        else:
            least = "1"
        cost = money(dollars(tokens * 60 * 24, card.price))
        rows.append([model, cost, "<br>".join(limits) or "your account's", least])
    titles = ("model", "cost a day", "limits a minute", "queries a request must hold")
    return generated.table(titles, rows, right=" r")


def state(assumed: Assumptions) -> str:
    """Return what the queries need of the Redis server, for each number of dimensions."""
    rows = []
    sent = assumed.queries * (1 - assumed.cached)
    for dimensions in sorted({dimensions for _, dimensions in CHOICES}):
        row = row_size(dimensions, "float32")
        held = size(assumed.distinct_queries * redis_bytes(row))
        reads, writes = size(assumed.queries * assumed.cached * row), size(sent * row)
        rows.append([f"{dimensions:,}", held, f"{reads}/s", f"{writes}/s"])
    return generated.table(("dimensions", "Redis, memory", "reads", "writes"), rows, right="rrrr")


def machines(assumed: Assumptions) -> str:
    """Return what the queries need whatever the dimensions are."""
    sent = assumed.queries * (1 - assumed.cached)
    requests = sent / max(1.0, sent / assumed.workers * assumed.window)
    cores = assumed.queries * assumed.cached * assumed.cpu_cached + sent * assumed.cpu_query
    busy = (assumed.queries + sent) * assumed.redis_row + 4 * requests * assumed.redis_script
    rows = [
        ["tokens a minute, sent", big(sent * 60 * assumed.query_tokens)],
        ["requests a minute", big(requests * 60)],
        ["cores of workers", f"{cores:.1f}"],
        ["commands of Redis a second", big(assumed.queries + sent + 4 * requests)],
        ["Redis, of its one core", f"{busy:.0%}"],
    ]
    return generated.table(("what", "needed"), rows, right=" r")


# Sizes


def redis_bytes(row: int) -> int:
    """Return the memory that a row takes in Redis: its allocator gives out four sizes between powers of two."""
    wanted = row + (9 if row >= 256 else 4)  # the header of a string, and the zero at its end
    step = max(16, 1 << max(0, (wanted - 1).bit_length() - 3))
    return ceil(wanted / step) * step + KEY


def folder_bytes(row: int) -> float:
    """Return the disk that a row takes in a cache folder: whole rows on pages of 32 KiB, and an index of the keys."""
    return 32_768 / (32_760 // (row + 46)) + 43


# Text


def dollars(tokens: float, price: Decimal | None) -> float:
    """Return the price of tokens in US dollars."""
    assert price is not None
    return tokens / 1e6 * float(price)


def money(amount: float) -> str:
    """Return US dollars, with cents where there are few."""
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"


def big(number: float) -> str:
    """Return a number with two or three digits that count, and its unit."""
    for unit, power in (("billion", 1e9), ("million", 1e6)):
        if number >= power:
            return f"{number / power:,.3g} {unit}"
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def size(number: float) -> str:
    """Return bytes with their unit."""
    for unit, power in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= power:
            return f"{number / power:,.3g} {unit}"
    return f"{number / 1e3:,.3g} kB"


if __name__ == "__main__":
    main()
