"""``embedrouter demo``: index real texts in both frameworks, ask questions, and show cost and savings.

The texts are the docstrings of the standard library, or a folder of the user; the model is wordllama at two sizes
unless another is named, so that neither a key nor the network is needed. The two sizes are two spaces, so each needs an
index of its own; in a configuration with a family such as voyage-4 two tiers search one index.

All work goes through the frameworks' own vector stores and the router's public methods, and the router counts every
number that is shown.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..models import tier as requested_tier
from ..router import Router
from ..spending import tag
from ..tiered import default_tier
from ..types import Estimate, Usage
from ._console import STEP, Output, exit_on_interrupt, first_few, interrupt_message
from ._corpus import Corpus, Passage, read_folder, read_standard_library
from ._demo_stores import HITS, HITS_PER_SOURCE, STORES, Store, find_stores
from ._options import AsJson, CacheFolder, ConfigFile, ModelName, NoCache, Yes, exclusive
from ._routers import WORDLLAMA, AnyRouter, build_router, cache_location, distinct_tiers, router_at_tier, settings_for

TWO_SIZES = {
    "routers": {tier: {**settings_for(WORDLLAMA), "dimensions": size} for tier, size in (("low", 64), ("high", 256))}
}
"""Wordllama at two tiers."""
TAG = "demo"
"""The tag of the demo's spending, which is no project's."""
OPENAI_MODELS = ("openai:text-embedding-3-small", "openai:text-embedding-3-large")


def command(
    texts: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Your texts, not Python's docstrings.")] = None,
    ask: Annotated[list[str] | None, typer.Option(help="A question of your own; can be repeated.")] = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Index only the first texts.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Index real texts in LangChain and LlamaIndex, ask questions, and show what was cached, computed and paid.

    Run it twice: the second run is answered from the cache.
    """
    exclusive(model=model, config=config)
    router = build_router(config, settings_for(model) if model else TWO_SIZES, cache, no_cache)
    run_demo(router, texts, ask, limit, Output(as_json=as_json, yes=yes))


def run_demo(
    router: AnyRouter, folder: Path | None, questions: list[str] | None, limit: int | None, output: Output
) -> None:
    """Fill indexes, ask questions and show the results.

    Args:
        folder: a folder of texts; the standard library's docstrings when left out.
        questions: questions instead of the prepared ones.
        limit: number of texts to index.

    Raises:
        ConfigError: there are no texts, neither framework is installed, or the user did not agree to the price.
    """
    location = cache_location(router)
    with router, tag(TAG), exit_on_interrupt(lambda: interrupt_message(location)):
        began = time.monotonic()
        kinds = find_stores()
        with output.busy("reading texts"):
            corpus = read_standard_library() if folder is None else read_folder(folder.expanduser())
        passages, questions = corpus.passages[:limit], questions or corpus.questions
        texts = [passage.text for passage in passages]
        names = distinct_tiers(router, "query")
        tiers = {name: router_at_tier(router, name, "query") for name in (names[0], names[-1])}
        main, _ = tiers[names[-1]]
        missing = [extra for extra in STORES if extra not in kinds]
        _show_start(replace(corpus, passages=passages), main, location, missing, output)
        to_fill = dict.fromkeys(single for single, _ in tiers.values())
        estimates = [single.estimate(texts, input_type="document") for single in to_fill]
        estimates.append(main.estimate(questions, input_type="query"))
        output.confirm_cost(estimates, "Agree with --yes, or try a --limit first.")

        main_tier = default_tier(router, "document") if isinstance(router, Router) else names[-1]
        filled = [_fill(kind, main, main_tier, passages, output) for kind in kinds.values()]
        stores = [store for store, _ in filled]
        compared = []
        for name, (single, own_tier) in tiers.items() if len(tiers) > 1 else ():
            # lowest first: a cached better vector would serve both
            if single is not main:
                filled.append(_fill(type(stores[0]), single, name, passages, output))
            store = stores[0] if single is main else filled[-1][0]
            with requested_tier(own_tier):
                sources = store.search(questions[0])
                found = single.embed(questions[:1], input_type="query")  # from the cache: names the model
            compared.append({"tier": name, "model": found.models[0], "space": str(found.space), "sources": sources})
        answers = {question: {store.name: store.search(question) for store in stores} for question in questions}
        indexes = [facts for _, facts in filled]
        usage, seconds, elsewhere = router.usage, time.monotonic() - began, _openai_costs([*texts, *questions])
        output.table([{"question": question, **sources} for question, sources in answers.items()])
        output.line(f"Shown are the sources of the {HITS} nearest passages, ranked by their best {HITS_PER_SOURCE}.")
        _show_tiers(questions[0], compared, output)
        _show_totals(indexes, usage, elsewhere, output)
        output.line(_verdict(len(texts), usage, seconds, location), style="bold")
        facts: dict[str, Any] = {"corpus": corpus.name, "skipped": corpus.skipped, "missing_extras": missing}
        facts |= {"models": main.models, "cache": location, "indexes": indexes, "tiers": compared}
        facts["answers"] = [{"question": question, "sources": sources} for question, sources in answers.items()]
        output.json({**facts, "usage": usage, "elsewhere": elsewhere, "seconds": seconds})


def _fill(
    kind: type[Store], router: Router, tier: str, passages: Sequence[Passage], output: Output
) -> tuple[Store, dict[str, Any]]:
    """Fill a new store and show the facts; return both."""
    expected = router.estimate([passage.text for passage in passages], input_type="document")
    before, began = router.usage.requests, time.monotonic()
    with output.busy(f"loading {kind.name}"):
        store = kind(router)
    with output.progress(kind.name, len(passages)) as advance:
        for start in range(0, len(passages), STEP):
            store.add(passages[start : start + STEP])
            advance(min(start + STEP, len(passages)), router.usage.cost)
    requests, computed = router.usage.requests - before, expected.unique - expected.cached
    how = f"{expected.cached:,} texts from cache, {computed:,} computed" if computed else "all from cache"
    calls = f"{requests:,} call{'' if requests == 1 else 's'}, {time.monotonic() - began:.1f} s"
    output.line(f"{kind.name} index, tier {tier}: {expected.texts:,} vectors, {how}, {calls}")
    facts = {"store": kind.name, "tier": tier, "space": str(router.space), "texts": expected.texts}
    facts |= {"distinct": expected.unique, "cached": expected.cached, "computed": computed, "requests": requests}
    return store, facts


def _openai_costs(texts: Sequence[str]) -> list[Estimate]:
    """Estimate the cost of these texts with OpenAI's models, without a request and without a key."""
    routers = [Router([name], cache=None, on_too_long="mean") for name in OPENAI_MODELS]
    return [router.estimate(texts, input_type="document") for router in routers]


# Output


def _show_start(corpus: Corpus, router: Router, location: str | None, missing: list[str], output: Output) -> None:
    output.line(f"{len(corpus.passages):,} texts: {corpus.name}", style="bold")
    for reason, files in corpus.skipped.items():
        output.line(f"  skipped, {reason}: {first_few(files)}")
    output.line(f"Model: {', '.join(router.models)}.  Cache: {location or 'none'}.")
    for extra in missing:
        output.line(f"Without {extra}; to include it: pip install 'embedrouter[{extra}]'", style="yellow")
    output.line()


def _show_tiers(question: str, tiers: Sequence[dict[str, Any]], output: Output) -> None:
    if not tiers:
        output.line("There is one tier only; a configuration can have more (--config).")
        return
    output.line()
    output.line(f'"{question}" at two tiers:')
    output.table(tiers)
    if len({asked["space"] for asked in tiers}) > 1:
        output.line("Two spaces: their vectors cannot be compared, so each tier has an index of its own.")
    else:
        output.line("One space: both tiers search the same index, so the documents were embedded once.")


def _show_totals(
    indexes: Sequence[dict[str, Any]], usage: Usage, elsewhere: Sequence[Estimate], output: Output
) -> None:
    texts, computed = (sum(index[name] for index in indexes) for name in ("texts", "computed"))
    rows: dict[str, object] = {
        f"texts passed to the router for {len(indexes)} indexes": texts,
        "computed": computed,
        "from the cache, or repeated": texts - computed,
        "calls of the model, questions included": usage.requests,
        "tokens computed": usage.tokens,
        "tokens of unknown price": usage.unpriced_tokens,
        "cost": usage.cost,
        "saved by cache and dedupe": usage.saved,
    }
    rows |= {f"cost with {other.model}, each text once": other.cost for other in elsewhere}
    output.table([{"this run": name, "total": value} for name, value in rows.items()])


def _verdict(texts: int, usage: Usage, seconds: float, location: str | None) -> str:
    if not usage.requests:
        return f"All {texts:,} texts and the questions were in the cache: no embedding call was made. {seconds:.1f} s."
    if location is None:
        return f"Done in {seconds:.1f} s, without a cache: the next run computes all vectors again."
    return f"Done in {seconds:.1f} s. Run it again: all vectors are in the cache now."
