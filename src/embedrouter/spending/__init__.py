"""Money: prices, budgets, the ledger of what was spent and saved, and the tags it is booked under."""

from ._accounts import Account, Unconfirmed, sum_accounts
from ._budget import Budget
from ._ledger import Ledger
from ._prices import DECIMALS, UNIT, as_price, cost
from ._tags import tag

__all__ = [
    "DECIMALS",
    "UNIT",
    "Account",
    "Budget",
    "Ledger",
    "Unconfirmed",
    "as_price",
    "cost",
    "sum_accounts",
    "tag",
]
