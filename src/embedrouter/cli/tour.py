"""What the demo does, in order: texts, price, indexes, two tiers, questions, figures.

All work goes through the frameworks' own vector stores and the router's public methods, and every figure is what the
router counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from ..errors import ConfigError
from ..models import tier
from ..router import Router
from .corpus import Corpus, Passage, folder, standard_library
from .figures import Answer, AtTier, Elsewhere, Index, Outcome
from .levels import AnyRouter, Level, levels_of
from .report import Report, money
from .stores import Store, installed

__all__ = ["run"]

OPENAI = ("openai:text-embedding-3-small", "openai:text-embedding-3-large")
SLICE = 512
"""Texts handed to a store at once: the progress bar's step."""


def run(
    chosen: AnyRouter,
    place: str | None,
    texts: Path | None,
    ask: list[str] | None,
    limit: int | None,
    yes: bool,
    report: Report,
) -> None:
    """Index, ask and report.

    Args:
        chosen: the router, or the routers, to show.
        place: where its cache is, for the report; ``None`` if it has none.
        texts: a folder; the standard library's documentation when left out.
        ask: questions instead of the prepared ones.
        limit: how many texts to take.
        yes: the user agrees to whatever it costs.

    Raises:
        ConfigError: there are no texts, neither framework is installed, or nobody agreed to the price.
    """
    began = time.monotonic()
    kinds, missing = installed()
    if not kinds:
        raise ConfigError(
            "The demo fills a vector store of LangChain or LlamaIndex, and neither is installed. "
            "Run: pip install 'embedrouter[langchain]' or 'embedrouter[llama-index]'"
        )
    with report.busy("reading texts"):
        corpus = _corpus(texts, ask, limit)
    levels = levels_of(chosen, corpus.questions[0])
    main = levels[-1].router
    report.begin(corpus, main, place, missing)
    _agree(levels, corpus, yes, report)

    filled = [_fill(kind, levels[-1], corpus.passages, report) for kind in kinds]
    stores = [store for store, _ in filled]
    compared = []
    for level in levels if len(levels) > 1 else []:  # lowest first: a better vector in the cache would answer for both
        store = stores[0]
        if level.own_index:
            store, index = _fill(kinds[0], level, corpus.passages, report)
            filled.append((store, index))
        compared.append(_at(level, store, corpus.questions[0]))
    answers = [Answer(question, {store.name: store.ask(question) for store in stores}) for question in corpus.questions]

    report.answers(answers)
    report.tiers(corpus.questions[0], compared)
    report.end(
        Outcome(
            indexes=[index for _, index in filled],
            answers=answers,
            tiers=compared,
            usage=chosen.usage,
            elsewhere=_elsewhere(corpus),
            seconds=time.monotonic() - began,
        )
    )


def _corpus(texts: Path | None, ask: list[str] | None, limit: int | None) -> Corpus:
    corpus = standard_library() if texts is None else folder(texts.expanduser())
    return replace(corpus, passages=corpus.passages[:limit], questions=ask or corpus.questions)


def _fill(kind: type[Store], level: Level, passages: Sequence[Passage], report: Report) -> tuple[Store, Index]:
    router = level.router
    known = router.estimate([passage.text for passage in passages], input_type="document")
    before, began = router.usage, time.monotonic()
    with report.busy(f"loading {kind.name.partition(' ')[0]}"):
        store = kind(router)
    with report.progress(kind.name, len(passages)) as advance:
        for start in range(0, len(passages), SLICE):
            part = passages[start : start + SLICE]
            store.add(part)
            advance(len(part))
    index = Index(
        store=kind.name,
        tier=level.documents,
        space=str(router.space),
        texts=known.texts,
        distinct=known.unique,
        cached=known.cached,
        requests=router.usage.requests - before.requests,
        seconds=time.monotonic() - began,
    )
    report.index(index)
    return store, index


def _at(level: Level, store: Store, question: str) -> AtTier:
    router = level.router
    with nullcontext() if level.own_index else tier(level.tier):
        hits = store.ask(question)
        result = router.embed([question], input_type="query")  # just cached: says which model it was
    return AtTier(level.tier, result.models[0], str(result.space), level.own_index, hits)


# Money


def _agree(levels: Sequence[Level], corpus: Corpus, yes: bool, report: Report) -> None:
    """Say what the run costs and ask, if it costs anything.

    Raises:
        ConfigError: nobody agreed.
    """
    texts = [passage.text for passage in corpus.passages]
    main = levels[-1].router
    estimates = [main.estimate(corpus.questions, input_type="query")]
    estimates += [
        level.router.estimate(texts, input_type="document")
        for level in levels
        if level.own_index or level is levels[-1]
    ]
    costs = [estimate.cost for estimate in estimates]
    total = None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))
    if total != 0:
        tokens = sum(estimate.tokens for estimate in estimates)
        count = f"{tokens:,}" if all(estimate.exact for estimate in estimates) else f"at most {tokens:,}"
        price = "an unknown price" if total is None else f"about {money(total)}"
        asked = f"This run embeds {count} tokens for {price} with {estimates[-1].model}"
        if not yes and not report.confirm(f"{asked}. Go ahead?"):
            raise ConfigError(f"{asked}. Nothing was embedded. Agree with --yes, or try a --limit first.")


def _elsewhere(corpus: Corpus) -> list[Elsewhere]:
    """Return what OpenAI's models take for these texts and questions. Nothing is called and no key is needed."""
    found = []
    texts = [passage.text for passage in corpus.passages]
    for name in OPENAI:
        with Router([name], cache=None, on_too_long="mean") as router:
            documents = router.estimate(texts, input_type="document")
            queries = router.estimate(corpus.questions, input_type="query")
        cost = (documents.cost or Decimal(0)) + (queries.cost or Decimal(0))
        found.append(Elsewhere(name, documents.tokens + queries.tokens, cost, documents.exact))
    return found
