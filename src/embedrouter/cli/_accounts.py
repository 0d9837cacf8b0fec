"""Rows of accounts, requests and caps for the tables of ``stats``. Each column adds up as it is shown.

What is counted in different ways stands in columns of its own: whole texts and pieces of long ones; tokens that were
paid for, that were free, and of unknown price. Columns that no row needs are left out. An amount that is unknown is
``None``, and never zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal

from .._display import shown_name
from ..errors import ConfigError
from ..models import did_you_mean
from ..spending import Account, BookedRequest, CapLeft, cost
from ..types import dollars

WELL_KNOWN = (
    "openai:text-embedding-3-small",
    "openai:text-embedding-3-large",
    "voyage:voyage-4-lite",
    "voyage:voyage-4",
    "voyage:voyage-4-large",
    "cohere:embed-v4.0",
    "google_genai:gemini-embedding-001",
    "mistral:mistral-embed",
)
"""Models to compare with where none is named."""
OPTIONAL = ("pieces", "free tokens", "unpriced tokens", "unconfirmed", "free tokens saved")
"""Columns that are left out where they would be empty."""


def account_rows(by: str, accounts: Iterable[tuple[str, Account]]) -> list[dict[str, object]]:
    """Return the rows of accounts, which may end with a total."""
    rows = [_account_row(by, name, account) for name, account in accounts]
    empty = {column for column in OPTIONAL if not any(row[column] for row in rows)}
    names = {"paid tokens": "tokens"} if {"free tokens", "unpriced tokens"} <= empty else {}
    return [{names.get(name, name): value for name, value in row.items() if name not in empty} for row in rows]


def _account_row(by: str, name: str, account: Account) -> dict[str, object]:
    paid = account.tokens - account.free_tokens - account.unpriced_tokens
    return {
        by: name or "(none)",
        "requests": account.requests,
        "texts": account.texts,
        "pieces": account.pieces,
        "paid tokens": paid,
        "free tokens": account.free_tokens,
        "unpriced tokens": account.unpriced_tokens,
        "cost": None if account.is_unknown else account.cost,
        "unconfirmed": account.unconfirmed,
        "saved texts": account.saved_texts,
        "saved tokens": account.saved_tokens - account.saved_free_tokens,
        "free tokens saved": account.saved_free_tokens,
        "saved": None
        if account.is_unknown and account.saved_free_tokens == account.saved_tokens > 0
        else account.saved,
    }


def dearest_first(by: str, accounts: Mapping[str, Account]) -> dict[str, Account]:
    """Return accounts of models and tags by their cost, and those of days and months as they are."""
    if by not in ("model", "tag"):
        return dict(accounts)
    return dict(sorted(accounts.items(), key=lambda item: (-item[1].cost, item[1].unpriced_tokens == 0, item[0])))


def request_rows(requests: Iterable[BookedRequest]) -> list[dict[str, object]]:
    """Return the rows of single requests; a number is a name, without separators of thousands."""
    rows: list[dict[str, object]] = [
        {
            "number": str(request.number),
            "time": f"{request.at:%Y-%m-%d %H:%M:%S}",
            "model": request.model,
            "tag": request.tag,
            "texts": request.texts,
            "pieces": request.pieces,
            "tokens": request.tokens,
            "estimate": request.estimate,
            "cost": request.amount,
            "state": request.state,
        }
        for request in requests
    ]
    return rows


def cap_rows(caps: Iterable[CapLeft]) -> list[dict[str, object]]:
    """Return the rows of what is left of caps."""
    return [
        {
            "cap": cap.cap,
            "counts": f"tag {cap.tag}" if cap.tag else "everything",
            "limit": cap.limit,
            "spent or set aside": cap.counted,
            "left": cap.left,
            "resets": reset(cap),
        }
        for cap in caps
    ]


def reset(cap: CapLeft) -> str:
    """Describe when the window of a cap ends."""
    if cap.resets_at is None or cap.resets_in is None:
        return "each call" if cap.cap == "per_call" else "never"
    return f"{cap.resets_at:%Y-%m-%d %H:%M} UTC, in {cap.resets_in / timedelta(hours=1):,.1f} h"


def compare(total: Account, prices: Mapping[str, Decimal | None], names: Sequence[str]) -> list[dict[str, object]]:
    """Return what the tokens of an account would have cost with other models.

    Args:
        prices: US dollars per million tokens, by model.
        names: the models; the well-known ones where it is empty.

    Raises:
        ConfigError: a model has no price that is known.
    """
    rows: list[dict[str, object]] = []
    for name in names or WELL_KNOWN:
        if (price := prices.get(name)) is None:
            known = f"The price of {shown_name(name)} is not known."
            why = known if name in prices else f"{shown_name(name)} is not in the catalogue.{did_you_mean(name)}"
            raise ConfigError(f"{why} Choose a model whose price embedrouter models shows.")
        rows.append(
            {
                "model": name,
                "price": dollars(price),
                "cost": cost(total.tokens, price),
                "without cache": cost(total.tokens + total.saved_tokens, price),
            }
        )
    return rows


def csv_rows(by: str, accounts: Mapping[str, Account]) -> list[dict[str, object]]:
    """Return accounts as they are kept, for programs."""
    return [{by: name, **asdict(account)} for name, account in accounts.items()]
