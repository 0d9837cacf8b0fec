"""Money as exact arithmetic: ``Decimal`` US dollars, prices per million tokens as on the makers' price sheets."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from .._display import shown
from ..errors import ConfigError

MILLION = Decimal(1_000_000)
UNIT = Decimal(10) ** -12
"""The smallest amount that is kept, in US dollars."""
DECIMALS = 6
"""Decimals of a price that the ledger books exactly."""
MAX_PLAUSIBLE_PRICE = Decimal(5)
"""US dollars per million tokens: no embedding model costs this much, so a higher price is a slipped decimal point."""


def cost(tokens: int, price: Decimal | None) -> Decimal | None:
    """Return what ``tokens`` cost in US dollars; ``None`` where the price is unknown."""
    return None if price is None else tokens * price / MILLION


def sum_of(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of amounts; ``None`` where one is unknown."""
    whole = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        whole += amount
    return whole


def as_price(value: str | int | Decimal | None, where: str) -> Decimal | None:
    """Read a price in US dollars per million tokens, exactly.

    Raises:
        ConfigError: the value is not a number, is a float (which cannot hold a price exactly), or is implausible.
    """
    if value is None:
        return None
    if isinstance(value, float):
        raise ConfigError(f'{where}: write the price as a string, such as price="{value}", so that it is exact.')
    try:
        price = Decimal(value)
    except InvalidOperation as error:
        raise ConfigError(
            f"{where}: {shown(value)} is not a price in US dollars per million tokens, as 0.02 is."
        ) from error
    if price.is_finite() and price != round(price, DECIMALS):
        raise ConfigError(
            f"{where}: {price} has more than {DECIMALS} decimals; the ledger keeps no finer prices. Round it."
        )
    if not 0 <= price <= MAX_PLAUSIBLE_PRICE:
        raise ConfigError(
            f"{where}: {price} US dollars per million tokens is not plausible for embeddings "
            f"(0 to {MAX_PLAUSIBLE_PRICE}). Was the price per thousand, or per token?"
        )
    return price
