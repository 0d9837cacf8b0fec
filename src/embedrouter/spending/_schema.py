"""The tables of a ledger, and how those of an earlier version become the present ones.

Amounts are whole numbers of 10^-12 US dollars, so that sums are exact: prices have at most six decimals per million
tokens. Texts are never stored.

``requests`` is the detail and is removed after a while. The other tables are sums and stay: caps are checked against
``days``, those of a tag against ``tag_days``; ``totals`` is what was billed, ``savings`` what the cache and the removal
of duplicates avoided, ``estimates`` how far estimates are from bills.
"""

import sqlite3

from .._sqlite import ForeignError

VERSION = 4

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

OF_TAGS = (
    """CREATE TABLE tag_days (       -- as days, for each tag but the empty one
        tag TEXT NOT NULL, day TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (tag, day)
    ) WITHOUT ROWID""",
    """INSERT INTO tag_days SELECT tag, day, SUM(amount) FROM (
        SELECT tag, day, amount FROM totals
        UNION ALL SELECT tag, day, amount FROM requests WHERE state IN ('reserved', 'unconfirmed')
    ) WHERE tag != '' GROUP BY tag, day HAVING SUM(amount) > 0""",
)
"""What version 4 adds, to check the caps of a tag."""
OF_ESTIMATES = (
    "ALTER TABLE requests ADD COLUMN estimate INTEGER",  # tokens; NULL in requests of earlier versions
    "ALTER TABLE requests ADD COLUMN exact INTEGER",  # whether the model's own tokenizer counted; NULL: not compared
    """CREATE TABLE estimates (      -- of the requests whose tokens a provider reported
        model TEXT NOT NULL, input_type TEXT NOT NULL, exact INTEGER NOT NULL,
        requests INTEGER NOT NULL, estimated INTEGER NOT NULL, billed INTEGER NOT NULL,
        exceeded INTEGER NOT NULL,   -- requests that were billed over their estimates
        PRIMARY KEY (model, input_type, exact)
    ) WITHOUT ROWID""",
)
"""What version 4 adds, to learn from the estimates and the bills."""
APART = (
    "ALTER TABLE requests ADD COLUMN pieces INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE totals ADD COLUMN pieces INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE totals ADD COLUMN free_tokens INTEGER NOT NULL DEFAULT 0",
    "UPDATE totals SET free_tokens = tokens - unpriced_tokens WHERE amount = 0",
)
"""What version 4 counts apart: parts of texts over a model's limit from whole texts, and tokens that cost nothing."""


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
    for statement in ADDED if found < 2 else ():
        database.execute(statement)
    for statement in (BILL, *NUMBERS) if found < 3 else ():
        database.execute(statement)
    for statement in APART:
        database.execute(statement)
    if found < 2:
        add_to_totals(database)
    for statement in (*OF_TAGS, *OF_ESTIMATES):
        database.execute(statement)


def add_to_totals(database: sqlite3.Connection, request: int | None = None) -> None:
    """Count one request that was settled just now; without ``request``, all settled ones."""
    database.execute(
        "INSERT INTO totals"
        " SELECT day, model, tier, input_type, tag, COUNT(*), SUM(texts), SUM(tokens), COALESCE(SUM(amount), 0),"
        " COALESCE(SUM(tokens) FILTER (WHERE amount IS NULL), 0), SUM(pieces),"
        " SUM(CASE WHEN amount IS NULL THEN 0 WHEN amount = 0 THEN tokens ELSE free END)"
        f" FROM requests WHERE state = 'settled' {'' if request is None else 'AND id = :request'}"
        " GROUP BY day, model, tier, input_type, tag"
        " ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, texts = texts + excluded.texts,"
        " tokens = tokens + excluded.tokens, amount = amount + excluded.amount,"
        " unpriced_tokens = unpriced_tokens + excluded.unpriced_tokens, pieces = pieces + excluded.pieces,"
        " free_tokens = free_tokens + excluded.free_tokens",
        {} if request is None else {"request": request},
    )
