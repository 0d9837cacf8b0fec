"""What the bills of a model say about its estimates: how far these are above, on the average, and whether always above.

The sums are in the ledger, for each model and input type, apart for the counts of the model's own tokenizer. Compared
are requests of which the provider reported the tokens, counted for the model that answered. Recent bills count most: a
model, or the texts it is given, may change.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

PRIOR = 2_000
"""Estimated tokens whose weight the usual share has: bills of a few short texts say little."""
REMEMBERED = 200
"""Requests at which all sums are halved. So one bill over its estimate counts for at most so many further requests."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What was estimated and billed."""

    requests: int = 0
    estimated: int = 0
    """Tokens."""
    billed: int = 0
    """Tokens."""
    exceeded: int = 0
    """Requests that were billed over their estimates, among the last ones."""

    def __add__(self, other: Learned) -> Learned:
        return Learned(
            self.requests + other.requests,
            self.estimated + other.estimated,
            self.billed + other.billed,
            self.exceeded + other.exceeded,
        )

    def likely(self, tokens: int, usual: float) -> int:
        """Return the tokens that are likely to be billed for so many estimated ones.

        Args:
            usual: the share of the estimate that is usually billed, which counts the more, the less was seen.
        """
        share = (self.billed + usual * PRIOR) / (self.estimated + PRIOR)
        likely = -int(-tokens * share // 1)
        return likely if self.exceeded else min(tokens, likely)


def learn(database: sqlite3.Connection, reservation: int, billed: int) -> None:
    """Compare the estimate of a request that is not settled yet with its bill."""
    database.execute(
        "INSERT INTO estimates"
        " SELECT model, input_type, exact, 1, estimate, :billed, :billed > estimate FROM requests"
        " WHERE id = :reservation AND exact IS NOT NULL AND estimate > 0"
        " ON CONFLICT DO UPDATE SET requests = requests / (1 + (requests >= :most)) + 1,"
        " estimated = estimated / (1 + (requests >= :most)) + excluded.estimated,"
        " billed = billed / (1 + (requests >= :most)) + excluded.billed,"
        " exceeded = exceeded / (1 + (requests >= :most)) + excluded.exceeded",
        {"reservation": reservation, "billed": billed, "most": REMEMBERED},
    )


def read_learned(database: sqlite3.Connection, model: str, input_type: str, exact: bool) -> Learned:
    """Read what was estimated and billed for texts of a model."""
    row = database.execute(
        "SELECT requests, estimated, billed, exceeded FROM estimates WHERE model = ? AND input_type = ? AND exact = ?",
        (model, input_type, exact),
    ).fetchone()
    return Learned(*row) if row else Learned()
