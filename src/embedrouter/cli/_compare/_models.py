"""Which models are compared: those that are named, those of a configuration, or the usual ones."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from typing import Any

from ...cache import DEFAULT
from ...models import load_catalogue
from ...retrieval.given_router import GivenRouter
from ...router import Router
from ...spending import Budget
from .._routers import WORDLLAMA, read_config


@contextmanager
def contestants(
    models: Sequence[str], config: str | None, cache: Any, budget: Budget | None
) -> Iterator[list[GivenRouter]]:
    """Give the models to compare, and close the routers that were built for them.

    Args:
        config: a configuration; each of its routers is compared as one.
        cache: in place of the configuration's, unless it is ``DEFAULT``.
        budget: likewise, unless it is ``None``.
    """
    override: dict[str, Any] = {} if cache is DEFAULT else {"cache": cache}
    override |= {} if budget is None else {"budget": budget}
    with ExitStack() as routers:
        found: list[GivenRouter] = []
        if config is not None:
            for settings in read_config(config).routers().values():
                found.append(routers.enter_context(Router(**{**settings, **override})))
        found += dict.fromkeys(models)
        yield found or list(usual_models())


def usual_models() -> Iterator[str]:
    """Yield the cheapest model of each provider whose key is set, the dearest first, and the one of this package.

    The first is the measure where there are no judgements.
    """
    catalogue = load_catalogue()
    cheapest: dict[str, tuple[Decimal, str]] = {}
    for name, server in catalogue.servers.items():
        if not (server.url and any(os.environ.get(key, "").strip() for key in server.keys)):
            continue
        priced = [
            (card.price, card.model)
            for card in catalogue.values()
            if card.provider == name and card.price is not None and card.retired is None
        ]
        if priced:
            cheapest[name] = min(priced)
    yield from (model for _, model in sorted(cheapest.values(), reverse=True))
    yield WORDLLAMA
