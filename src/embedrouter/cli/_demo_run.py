"""The steps of the demo: read texts, show the price, fill indexes, compare two tiers, ask questions, show totals.

All work goes through the frameworks' own vector stores and the router's public methods, and the router counts every
number that is shown.
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
from ._console import exit_on_interrupt, format_money, interrupt_message
from ._corpus import Corpus, Passage, read_folder, read_standard_library
from ._demo_output import DemoOutput
from ._demo_results import DemoResult, FilledStore, ProviderCost, QuestionResult, TierResult
from ._demo_stores import Store, find_stores, rank_sources
from ._routers import AnyRouter, ComparedTier, compared_tiers

OPENAI_MODELS = ("openai:text-embedding-3-small", "openai:text-embedding-3-large")
CHUNK_SIZE = 512
"""Texts added to a store at once: one step of the progress bar."""


def run_demo(
    router: AnyRouter,
    cache_location: str | None,
    folder: Path | None,
    questions: list[str] | None,
    limit: int | None,
    yes: bool,
    output: DemoOutput,
) -> None:
    """Fill indexes, ask questions and show the results.

    Args:
        cache_location: folder of the router's cache, or ``None``.
        folder: a folder of texts; the standard library's docstrings when left out.
        questions: questions instead of the prepared ones.
        limit: number of texts to index.
        yes: whether to spend money without a question.

    Raises:
        ConfigError: there are no texts, neither framework is installed, or the user did not agree to the price.
    """
    with router, exit_on_interrupt(lambda: interrupt_message(cache_location)):
        began = time.monotonic()
        stores, missing = find_stores()
        if not stores:
            raise ConfigError(
                "The demo fills a vector store of LangChain or LlamaIndex, and neither is installed. "
                "Run: pip install 'embedrouter[langchain]' or 'embedrouter[llama-index]'"
            )
        with output.busy("reading texts"):
            corpus = _read_corpus(folder, questions, limit)
        tiers = compared_tiers(router)
        main = tiers[-1]
        output.show_start(corpus, main.router, cache_location, missing)
        _confirm_cost(tiers, corpus, yes, output)

        filled = [_fill(store, main, corpus.passages, output) for store in stores]
        first_store = filled[0][0]
        compared = []
        for compared_tier in tiers if len(tiers) > 1 else []:  # lowest first: a cached better vector would serve both
            store = first_store
            if compared_tier.own_index:
                store, index = _fill(stores[0], compared_tier, corpus.passages, output)
                filled.append((store, index))
            compared.append(_search_at_tier(compared_tier, store, corpus.questions[0]))
        main_stores = [store for store, _ in filled[: len(stores)]]
        answers = []
        for question in corpus.questions:
            hits = {store.name: store.search(question) for store in main_stores}
            sources = {name: rank_sources(found) for name, found in hits.items()}
            answers.append(QuestionResult(question, sources, hits))
        output.show_answers(answers)
        output.show_tiers(corpus.questions[0], compared)
        result = DemoResult(
            corpus=corpus.name,
            models=main.router.models,
            space=str(main.router.space),
            cache=cache_location,
            skipped=corpus.skipped,
            missing_extras=missing,
            indexes=[index for _, index in filled],
            answers=answers,
            tiers=compared,
            usage=router.usage,
            elsewhere=_openai_costs(corpus),
            seconds=time.monotonic() - began,
            all_from_cache=router.usage.requests == 0,
        )
        output.show_result(result)


def _read_corpus(folder: Path | None, questions: list[str] | None, limit: int | None) -> Corpus:
    corpus = read_standard_library() if folder is None else read_folder(folder.expanduser())
    return replace(corpus, passages=corpus.passages[:limit], questions=questions or corpus.questions)


def _fill(
    kind: type[Store], compared: ComparedTier, passages: Sequence[Passage], output: DemoOutput
) -> tuple[Store, FilledStore]:
    router = compared.router
    expected = router.estimate([passage.text for passage in passages], input_type="document")
    before, began = router.usage, time.monotonic()
    with output.busy(f"loading {kind.name.partition(' ')[0]}"):
        store = kind(router)
    with output.progress(kind.name, len(passages)) as advance:
        for start in range(0, len(passages), CHUNK_SIZE):
            chunk = passages[start : start + CHUNK_SIZE]
            store.add(chunk)
            advance(len(chunk))
    index = FilledStore(
        store=kind.name,
        tier=compared.documents,
        space=str(router.space),
        texts=expected.texts,
        distinct=expected.unique,
        cached=expected.cached,
        computed=expected.unique - expected.cached,
        requests=router.usage.requests - before.requests,
        seconds=time.monotonic() - began,
    )
    output.show_index(index)
    return store, index


def _search_at_tier(compared: ComparedTier, store: Store, question: str) -> TierResult:
    router = compared.router
    with nullcontext() if compared.own_index else tier(compared.tier):
        hits = store.search(question)
        result = router.embed([question], input_type="query")  # from the cache: names the model
    space = str(result.space)
    return TierResult(compared.tier, result.models[0], space, compared.own_index, hits, rank_sources(hits))


# Money


def _confirm_cost(tiers: Sequence[ComparedTier], corpus: Corpus, yes: bool, output: DemoOutput) -> None:
    """Show the cost and ask, if there is any.

    Raises:
        ConfigError: the user did not agree.
    """
    texts = [passage.text for passage in corpus.passages]
    main = tiers[-1]
    estimates = [main.router.estimate(corpus.questions, input_type="query")]
    estimates += [
        compared.router.estimate(texts, input_type="document")
        for compared in tiers
        if compared.own_index or compared is main
    ]
    costs = [estimate.cost for estimate in estimates]
    total = None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))
    if total != 0:
        tokens = sum(estimate.tokens for estimate in estimates)
        count = f"{tokens:,}" if all(estimate.exact for estimate in estimates) else f"at most {tokens:,}"
        price = "an unknown price" if total is None else f"about {format_money(total)}"
        question = f"This run embeds {count} tokens for {price} with {estimates[-1].model}"
        output.require_agreement(question, "Nothing was embedded. Agree with --yes, or try a --limit first.", yes=yes)


def _openai_costs(corpus: Corpus) -> list[ProviderCost]:
    """Estimate the cost of these texts and questions with OpenAI's models, without a request and without a key."""
    costs = []
    texts = [passage.text for passage in corpus.passages]
    for name in OPENAI_MODELS:
        with Router([name], cache=None, on_too_long="mean") as router:
            documents = router.estimate(texts, input_type="document")
            queries = router.estimate(corpus.questions, input_type="query")
        cost = (documents.cost or Decimal(0)) + (queries.cost or Decimal(0))
        costs.append(ProviderCost(name, documents.tokens + queries.tokens, cost, documents.exact))
    return costs
