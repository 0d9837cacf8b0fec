"""The router that the demo shows, and the quality tiers it can compare.

By default two tiers of wordllama: 64 and 256 of its dimensions. These are two spaces, so each needs an index. A
configuration with a family such as voyage-4 gives the other case: two tiers that ask one index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..cache import default_folder
from ..config import load
from ..errors import NoModelAvailableError
from ..models import Model
from ..router import Router
from ..tiered import TieredRouter, default_tier
from ..types import InputType

__all__ = ["AnyRouter", "Level", "at_tier", "choose", "levels_of"]

AnyRouter: TypeAlias = Router | TieredRouter

WORDLLAMA = "wordllama:l2_supercat_256"


@dataclass(frozen=True, slots=True)
class Level:
    """One quality tier to compare."""

    tier: str
    router: Router
    own_index: bool
    """Whether it needs an index besides the one that everything else uses: another space."""
    documents: str
    """The tier of the documents in its index."""


def choose(model: str | None, config: str | None, cache: Path | str | None) -> tuple[AnyRouter, str | None]:
    """Return the router to show, and where its cache is.

    Args:
        cache: a folder, ``None`` for no cache, or ``"default"``.
    """
    given: dict[str, Any] = {} if cache == "default" else {"cache": cache}
    place = str(given.get("cache", default_folder()) or "") or None
    if config:
        loaded = load(None if config == "auto" else config)
        if "routers" in loaded.content:
            tables, settings = loaded.tiered()
            routers = {name: Router(**{**table, **given}) for name, table in tables.items()}
            places = {table["cache"] for table in tables.values() if table.get("cache")}
            return TieredRouter(routers, **settings), place if given or not places else ", ".join(map(str, places))
        table = {**loaded.router(), **given}
        place = place if "cache" not in table else str(table["cache"]) if table["cache"] else None
        return Router(**table), place
    if model:
        return Router([model], on_too_long="mean", **given), place
    low = Router([Model(WORDLLAMA, dimensions=64, tier="low")], **given)
    high = Router([Model(WORDLLAMA, dimensions=256, tier="high")], **given)
    return TieredRouter({"low": low, "high": high}), place


def at_tier(chosen: AnyRouter, tier: str | None, input_type: InputType) -> tuple[Router, str]:
    """Return the one router that serves a tier, by default the usual one, and what to ask it for."""
    name = tier or default_tier(chosen, input_type)
    if isinstance(chosen, TieredRouter):
        router = chosen.router(name)
        return router, default_tier(router, input_type)
    return chosen, name


def levels_of(chosen: AnyRouter, question: str) -> list[Level]:
    """Return the lowest and the highest tier that differ; a single one if there is no other."""
    answering: dict[str | int, Level] = {}
    for name in chosen.tiers:
        try:
            if isinstance(chosen, TieredRouter):
                router = chosen.router(name)
                answering[id(router)] = Level(name, router, own_index=True, documents=name)
            else:
                model = chosen.estimate([question], input_type="query", tier=name).model
                answering[model] = Level(name, chosen, own_index=False, documents=default_tier(chosen, "document"))
        except NoModelAvailableError:
            break
    levels = list(answering.values())
    main = replace(levels[-1], own_index=False)
    return [levels[0], main] if len(levels) > 1 else [main]
