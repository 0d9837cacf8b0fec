"""Money: prices, budgets, the ledger of what was spent and saved, and the tags it is booked under."""

from ._accounts import Account, BookedRequest, Heading, ImplausibleBill, Period, Unconfirmed, sum_accounts
from ._bookings import GRACE, Savings, whole_units, without_free
from ._books import Bookings, Books, TableName, query_rows
from ._budget import Budget
from ._learned import REMEMBERED, Learned
from ._ledger import Ledger
from ._prices import DECIMALS, UNIT, as_price, cost, sum_of
from ._project import project_tag
from ._readings import CapLeft
from ._refusals import Refusal, over_call, over_cap, unknown_price
from ._tags import current_tag, tag
from ._usage import Charge, Saving, UsageTotals, usage_of
