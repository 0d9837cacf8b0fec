"""Options of several parts: numbers and names between commas, prompts, cascades, amounts of money."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import typer

from ..._display import shown
from ...spending import Budget

SHARE = 0.3
"""The share of the queries that a cascade escalates, where none is given."""
KINDS = ("document", "query")


def names_of(given: str | None) -> list[str]:
    """Return the parts between commas."""
    return [part.strip() for part in (given or "").split(",") if part.strip()]


def dimensions_of(given: str | None) -> list[int]:
    """Return numbers between commas.

    Raises:
        BadParameter: a part is no number.
    """
    parts = names_of(given)
    wrong = [part for part in parts if not (part.isascii() and part.isdigit() and len(part) < 7)]
    if wrong:
        raise typer.BadParameter(f"--dimensions are numbers such as 256,512, not {shown(wrong[0])}.")
    return [int(part) for part in parts]


def prompts_of(given: Sequence[str]) -> list[dict[str, str]]:
    """Return the prompts of one variant: of documents, of queries, or of both.

    Raises:
        BadParameter: a prompt is for neither, or two are for one.
    """
    found: dict[str, str] = {}
    for one in given:
        kind, equals, text = one.partition("=")
        if not equals or kind not in KINDS or not text:
            raise typer.BadParameter("A prompt is written as --prompt 'query=Find: ' or --prompt 'document=About: '.")
        if kind in found:
            raise typer.BadParameter(f"--prompt '{kind}=…' is given twice. Compare one after the other.")
        found[kind] = text
    return [found] if found else []


def cascade_of(given: str) -> tuple[str, str, float]:
    """Return the two variants of a cascade, and the share of queries that is escalated.

    Raises:
        BadParameter: there are not two variants, or the share is no number from 0 to 1.
    """
    separator = ";" if ";" in given else ","  # labels such as "… at 256, int8" have commas
    parts = [part.strip() for part in given.split(separator)]
    share = SHARE
    if len(parts) == 3:
        try:
            share = float(parts.pop())
        except ValueError:
            share = -1.0
    if len(parts) != 2 or not all(parts) or not 0 <= share <= 1:
        raise typer.BadParameter(
            "A cascade is written as --cascade FIRST,SECOND or FIRST,SECOND,0.3; with semicolons where a variant's "
            "name has commas: 'FIRST at 256, int8; SECOND; 0.3'."
        )
    return parts[0], parts[1], share


def amount_of(given: str | None, option: str) -> str | None:
    """Return an amount of money as it was written.

    Raises:
        BadParameter: it is none.
    """
    if given is None:
        return None
    try:
        amount = Decimal(given.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or amount < 0:
        raise typer.BadParameter(f"{option} is an amount in dollars such as 0.50, not {shown(given)}.")
    return f"{amount:f}"


def budget_of(given: str | None) -> Budget | None:
    """Return the budget of a comparison: an amount for all of it, or one with a period, ``5.00/day``.

    Raises:
        BadParameter: it is no amount.
        ConfigError: it has another period.
    """
    if given is None or "/" in given or "per" in given:
        return Budget.of(given)
    return Budget(per_call=amount_of(given, "--budget"))
