"""Whether a job of several calls fits the budget, asked before the first of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from embedrouter import Budget, Router
from embedrouter.errors import BudgetExceededError
from embedrouter.router import wiring_of

MODEL = "openai:text-embedding-3-small"


def router(budget: Budget | None, **settings: object) -> Router:
    return Router([MODEL], cache=None, ledger=":memory:", budget=budget, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("cap", ["per_call", "per_day", "per_month", "total"])
def test_every_cap_is_held_against_the_whole_job(cap: str) -> None:
    """A job is one call to the user who started it, so ``per_call`` counts too."""
    asked = router(Budget(**{cap: "1.00"}))  # type: ignore[arg-type]

    wiring_of(asked).require_affordable(Decimal("1.00"))
    with pytest.raises(BudgetExceededError, match=rf"^Nothing was called: .*\$1\.01.*{cap}=\$1\.00"):
        wiring_of(asked).require_affordable(Decimal("1.01"))


def test_what_costs_nothing_always_fits_and_what_is_unknown_never_does() -> None:
    """A budget cannot hold where the price is unknown; without a budget there is nothing to hold."""
    poor = router(Budget(total="0"))

    wiring_of(poor).require_affordable(Decimal(0))
    with pytest.raises(BudgetExceededError, match="its price is unknown"):
        wiring_of(poor).require_affordable(None)
    wiring_of(router(None)).require_affordable(None)
    wiring_of(router(Budget())).require_affordable(Decimal(1_000_000))


def test_asking_books_nothing(tmp_path: Path) -> None:
    """Neither in the accounts nor as something set aside."""
    with Router([MODEL], cache=None, ledger=tmp_path / "ledger.db", budget=Budget(total="1.00")) as asked:
        for _ in range(3):
            wiring_of(asked).require_affordable(Decimal("0.60"))

        assert asked.ledger.totals("day") == {}
