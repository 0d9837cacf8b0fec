"""Money: prices, budgets, the ledger of what was spent and saved, and the tags it is booked under."""

from ._accounts import Account, BookedRequest, Heading, ImplausibleBill, Period, Unconfirmed, sum_accounts
from ._bookings import Refusal
from ._budget import Budget
from ._learned import Learned
from ._ledger import Ledger
from ._prices import DECIMALS, UNIT, as_price, cost
from ._project import project_tag
from ._readings import CapLeft
from ._tags import current_tag, tag
from ._usage import Charge, Saving, UsageTotals, usage_of
