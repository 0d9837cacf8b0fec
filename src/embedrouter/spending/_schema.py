"""The tables of a ledger, and how those of an earlier version become the present ones.

Amounts are whole numbers of 10^-12 US dollars, so that sums are exact: prices have at most six decimals per million
tokens. Texts are never stored.

``requests`` is the detail and is removed after a while. The other tables are sums and stay: caps are checked against
``days``; ``totals`` is what was billed, ``savings`` what the cache and the removal of duplicates avoided.
"""

import sqlite3

from .._sqlite import ForeignError

VERSION = 3

REQUESTS = (
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,          -- seconds since 1970
        day TEXT NOT NULL,         -- UTC
        state TEXT NOT NULL,       -- reserved, settled, unconfirmed, released
        model TEXT NOT NULL,
        input_type TEXT NOT NULL,
        tier TEXT NOT NULL,
        tag TEXT NOT NULL,
        texts INTEGER NOT NULL,
        tokens INTEGER NOT NULL,   -- as billed; until settled, as estimated
        amount INTEGER,            -- 10^-12 US dollars; NULL where the price is unknown
        attempt INTEGER NOT NULL,
        until REAL NOT NULL,       -- when a reservation becomes unconfirmed
        free INTEGER NOT NULL      -- tokens among them that cost nothing
    )""",
    "CREATE TABLE days (day TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE allowances (model TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE savings (
        day TEXT NOT NULL, model TEXT NOT NULL, tag TEXT NOT NULL,
        texts INTEGER NOT NULL, tokens INTEGER NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (day, model, tag)
    ) WITHOUT ROWID""",
)
"""Version 1."""
ADDED = (
    """CREATE TABLE totals (         -- of all settled requests, also of those whose detail is removed
        day TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL, input_type TEXT NOT NULL, tag TEXT NOT NULL,
        requests INTEGER NOT NULL, texts INTEGER NOT NULL, tokens INTEGER NOT NULL,
        amount INTEGER NOT NULL,   -- where the price is known
        unpriced_tokens INTEGER NOT NULL,
        PRIMARY KEY (day, model, tier, input_type, tag)
    ) WITHOUT ROWID""",
    "CREATE INDEX settled_requests ON requests (at) WHERE state = 'settled'",
    "CREATE INDEX open_requests ON requests (until) WHERE state != 'settled'",
)
"""What version 2 adds."""
BILL = "ALTER TABLE requests ADD COLUMN bill TEXT"
"""What version 3 adds: the tokens that the provider reported, where they cannot be true and the estimate is booked."""
NUMBERS = (
    "CREATE TABLE numbers (last INTEGER NOT NULL)",
    "INSERT INTO numbers SELECT MAX(0, COALESCE(MAX(id), 0)) FROM requests",
)
"""What version 3 adds, too: the last number that a request was given. SQLite itself gives the number of a removed row
again, and a booking that is repeated would then meet the request of another process."""


def recognise(database: sqlite3.Connection, found: int) -> None:
    """Refuse a database that is no ledger.

    Raises:
        ForeignError: it has other tables.
    """
    columns = {name for _, name, *_ in database.execute("PRAGMA table_info(requests)")}
    if found == 0 or not columns >= {"state", "model", "input_type", "tier", "amount", "until", "free"}:
        raise ForeignError(f"another program, or another version of embedrouter wrote it: {found}, not {VERSION}")


def migrate(database: sqlite3.Connection, found: int) -> None:
    """Make the tables of a new file, or bring those of an earlier version to the present one."""
    if found == 0:
        for statement in REQUESTS:
            database.execute(statement)
    if found < 2:
        for statement in ADDED:
            database.execute(statement)
        add_to_totals(database)
    for statement in (BILL, *NUMBERS):
        database.execute(statement)


def add_to_totals(database: sqlite3.Connection, request: int | None = None) -> None:
    """Count one request that was settled just now; without ``request``, all settled ones."""
    database.execute(
        "INSERT INTO totals"
        " SELECT day, model, tier, input_type, tag, COUNT(*), SUM(texts), SUM(tokens), COALESCE(SUM(amount), 0),"
        " COALESCE(SUM(tokens) FILTER (WHERE amount IS NULL), 0)"
        f" FROM requests WHERE state = 'settled' {'' if request is None else 'AND id = :request'}"
        " GROUP BY day, model, tier, input_type, tag"
        " ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, texts = texts + excluded.texts,"
        " tokens = tokens + excluded.tokens, amount = amount + excluded.amount,"
        " unpriced_tokens = unpriced_tokens + excluded.unpriced_tokens",
        {} if request is None else {"request": request},
    )
