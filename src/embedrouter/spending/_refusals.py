"""Why an amount does not fit the budget, as messages say it: the cap, the amounts, and what to do."""

from decimal import Decimal

from .._display import shown_name
from ..types import dollars
from ._accounts import utc_day


class Refusal(str):
    """Why an amount does not fit the budget: the cap, the amounts, and what to do."""

    tag: str
    """The tag whose cap it is; ``""`` where the cap counts everything."""

    def __new__(cls, reason: str, tag: str = "") -> "Refusal":
        refusal = super().__new__(cls, reason)
        refusal.tag = tag
        return refusal


def unknown_price(scope: str) -> Refusal:
    """Refuse an amount that is not known, because no cap can hold."""
    reason = "its price is unknown, so no budget can hold. Set Model(…, price=…), US dollars per million tokens."
    return Refusal(reason, scope)


def over_call(scope: str, cap: Decimal, amount: Decimal) -> Refusal:
    """Refuse a whole call over ``per_call``."""
    under, where = _named("per_call", scope)
    story = f"the call would cost about {dollars(amount)}{under}, over per_call={dollars(cap)}"
    return Refusal(f"{story}. Send fewer texts or raise {where}.", scope)


def over_cap(
    scope: str,
    name: str,
    cap: Decimal,
    *,
    counted: Decimal,
    amount: Decimal,
    unconfirmed: Decimal,
    day: str,
    now: float,
) -> Refusal:
    """Refuse an amount that would pass a cap of the window of a day, in which ``counted`` is counted already."""
    under, where = _named(name, scope)
    wait = "" if name == "total" else ", or wait for the next window"
    story = f"{dollars(counted)} are spent or set aside{under}; {dollars(amount)} more would pass"
    hints = _listed(unconfirmed) + _behind(day, now)
    return Refusal(f"{story} {name}={dollars(cap)}. Raise {where}{wait}.{hints}", scope)


def _named(cap: str, scope: str) -> tuple[str, str]:
    """Return whose spending a cap counts, and the name of the cap, as a message says them."""
    if not scope:
        return "", cap
    return f" under the tag {shown_name(scope)}", f"{cap} of the tag {shown_name(scope)}"


def _listed(unconfirmed: Decimal) -> str:
    """Say how much is unconfirmed, if any is."""
    if not unconfirmed:
        return ""
    return (
        f" {dollars(unconfirmed)} of them are unconfirmed: compare with the provider's bill, and release what was not "
        "billed: embedrouter ledger show."
    )


def _behind(day: str, now: float) -> str:
    """Say that the clock is behind the ledger, if it is."""
    if day == utc_day(now):
        return ""
    return (
        f" The windows are those of {day}, the latest day in the ledger; this machine's clock says {utc_day(now)}: "
        "set the clock right, or, if the ledger's day was never reached, begin a new ledger."
    )
