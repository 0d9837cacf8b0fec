"""The best variant that a price allows, as a configuration that is ready to use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeAlias

from .._display import data_size, dollars, escaped, shown
from ..config import MISSING
from ..description import describe
from ..errors import ConfigError
from ..models import Model, RouterSettings
from ..retrieval import Cascade
from ..router import Router
from ..tiered import TieredRouter
from ._findings import MEASURES, Measured
from ._frontier import by_merit, ndcg

Amount: TypeAlias = Decimal | str | int | float

OF_A_COMPARISON = ("budget", "ledger", "on_event", "clock", "sleep", "random")
"""Arguments of a router that belong to the comparison, and not to what uses its result."""
BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key of TOML without quotes."""
TIERS = ("low", "high")
"""The tiers of a cascade."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One variant as a configuration.

    Attributes:
        measured: what it reached and costs.
    """

    measured: Measured

    @property
    def models(self) -> list[Model]:
        """The models, with the dimensions and prompts that were measured."""
        return [Model(item) if isinstance(item, str) else item for given in self._routers for item in given["models"]]

    @property
    def dtype(self) -> str:
        """The numbers in which the vector store has to keep the vectors, for the index that was measured."""
        return self.measured.variant.dtype or "float32"

    def router(self, **settings: Any) -> Router | TieredRouter:
        """Build the router; of a cascade one with the tiers low and high, for a ``TieredRetriever``.

        Args:
            settings: other arguments of ``Router``, such as ``budget``; they override those of the comparison.
        """
        routers = [Router(**{**given, **settings}) for given in self._routers]
        return routers[0] if len(routers) == 1 else TieredRouter(dict(zip(TIERS, routers, strict=True)))

    @property
    def cascade(self) -> Cascade | None:
        """What escalates the measured share of the queries; ``None`` where one model answers all."""
        share = self.measured.variant.escalated
        return None if share is None else Cascade(share)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a configuration file.

        Raises:
            ConfigError: a file can hold neither keys nor objects, and the models have some; the message names them.
        """
        tables = [_table(given) for given in self._routers]
        return tables[0] if len(tables) == 1 else {"routers": dict(zip(TIERS, tables, strict=True))}

    def to_toml(self) -> str:
        """Return a configuration file, for ``Router.from_config``, of a cascade for ``TieredRouter.from_config``.

        Raises:
            ConfigError: as of ``to_dict``.
        """
        lines = [f"# {escaped(line)}" for line in (str(self), *self._advice())]
        content = self.to_dict()
        for name, table in content.get("routers", {"": content}).items():
            prefix = f"routers.{name}" if name else ""
            plain = {key: value for key, value in table.items() if not _is_nested(value)}
            lines += ["", f"[{prefix}]"] if prefix else []
            lines += [f"{_key(key)} = {_toml(value)}" for key, value in plain.items()]
            for key in sorted(table.keys() - plain.keys()):
                place, value = ".".join(filter(None, (prefix, _key(key)))), table[key]
                parts: list[Mapping[str, Any]] = value if isinstance(value, list) else [value]
                for part in parts:
                    lines += ["", f"[[{place}]]" if isinstance(value, list) else f"[{place}]"]
                    lines += [f"{_key(inner)} = {_toml(item)}" for inner, item in part.items()]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        """Describe the choice in one line."""
        item = self.measured
        price = (
            "unknown price" if item.queries_cost is None else f"{dollars(round(item.queries_cost, 6))} for 1M queries"
        )
        return f"{item.variant.label}: {MEASURES[0]} {ndcg(item):.3f}, {price}, index of {data_size(item.index_bytes)}"

    def _advice(self) -> list[str]:
        share = self.measured.variant.escalated
        if share is not None:
            return [f"TieredRetriever(…, cascade=Cascade({share:g})) escalates the share that was measured."]
        if self.dtype == "float32":
            return []
        again = "" if self.dtype == "float16" else ", four times as many as are wanted scored again by the whole query"
        return [f"The vector store keeps {self.dtype} numbers{again}."]

    @property
    def _routers(self) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in given.items() if name not in OF_A_COMPARISON}
            for given in self.measured.variant.declared
        ]


def best_under(
    variants: Sequence[Measured],
    dollars_per_million: Amount | None,
    corpus_dollars: Amount | None,
    index_bytes: int | None,
) -> Choice:
    """Return the variant with the highest nDCG@10 that keeps to all limits; of equal ones the cheapest.

    Raises:
        ConfigError: no variant keeps to them, or a limit is no amount.
    """
    limits: list[tuple[str, str, Decimal]] = []
    for name, what, given in (
        ("queries_cost", "for a million queries", dollars_per_million),
        ("corpus_cost", "for the documents", corpus_dollars),
        ("index_bytes", "bytes of vectors", index_bytes),
    ):
        if given is not None:
            limits.append((name, what, _amount(given, what)))
    fitting = list(variants)
    for name, what, limit in limits:
        known = [item for item in fitting if getattr(item, name) is not None]
        fitting = [item for item in known if getattr(item, name) <= limit]
        if not fitting:
            raise ConfigError(_nothing_fits(name, what, limit, known))
    return Choice(min(fitting, key=by_merit))


def _nothing_fits(name: str, what: str, limit: Decimal, known: Sequence[Measured]) -> str:
    is_money = name != "index_bytes"
    amount = dollars(limit) if is_money else f"{limit:,}"
    if not known:
        return f"No price is known of any variant that could cost {amount} {what}. Declare Model(…, price=…)."
    least = min(known, key=lambda item: getattr(item, name))
    lowest = dollars(getattr(least, name)) if is_money else f"{least.index_bytes:,}"
    return f"No variant takes at most {amount} {what}. The least is {lowest}, of {least.variant.label}."


def _amount(given: Amount, what: str) -> Decimal:
    try:
        amount = Decimal("nan" if isinstance(given, bool) else str(given))
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"The limit {what} is an amount such as 0.50, not {shown(given)}.")
    return amount


def _table(given: Mapping[str, Any]) -> dict[str, Any]:
    cache = given.get("cache")
    kept = {name: value for name, value in given.items() if name != "cache" or isinstance(cache, str | Path)}
    content = describe(RouterSettings(**kept), {})
    if missing := content.get(MISSING):
        raise ConfigError(f"No file can hold {'; '.join(missing)}. Use router() in place of a file.")
    return content


# TOML


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
