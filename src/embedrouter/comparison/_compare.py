"""``compare``: which model is worth its price, on one's own documents and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._display import first_few, shown_name
from .._process import in_thread
from ..cache import DEFAULT, CacheLike, Default, default_folder
from ..calls import ShowProgress
from ..errors import InvalidInputError
from ..retrieval.given_router import GivenRouter
from ..spending import Budget
from ._comparison import Comparison
from ._given import as_questions
from ._measures import require_library
from ._plan import Plan
from ._questions import Questions
from ._variants import Single, known_dimensions, known_dtypes, pairings, singles, subjects


def compare(
    corpus: Any,
    queries: Any = None,
    qrels: Any = None,
    models: Sequence[GivenRouter] = (),
    *,
    dimensions: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    prompts: Sequence[Mapping[str, str]] = (),
    cascades: Sequence[tuple[str, str, float]] = (),
    cache: CacheLike | Default = DEFAULT,
    budget: Budget | str | None = None,
    show_progress: ShowProgress = "auto",
    **settings: Any,
) -> Comparison:
    """Compare embedding models on documents and queries: quality with intervals, dollars, speed, bytes.

    Each model ranks against its own vectors only, by exact search. Every vector is kept in the cache, so a second
    comparison costs nothing, and one that was stopped goes on where it was. The vectors of one model at a time are in
    memory, about three times over.

        found = embedrouter.compare("scifact", models=["openai:text-embedding-3-small", "wordllama:l2_supercat_256"])
        router = found.best_under(dollars_per_million="0.50").router()

    Args:
        corpus: the documents: a mapping from ids to texts, a list of texts, a data frame, a file or a folder of BEIR, a
            vector store or its address; or ``Questions``, in place of queries and judgements too.
        queries: likewise. Without any, sentences or titles of documents have to find these (known items).
        qrels: which documents answer which query: a file, or for each query its documents and their grades. Without
            any, the ten nearest documents of the first model count as relevant (agreement).
        models: names, ``Model``s, or ``Router``s, which keep their own cache, ledger and budget.
        dimensions: shorter vectors to compare as well, of the models whose vectors may be cut. They cost nothing more,
            and are what the provider returns for ``dimensions=``.
        dtypes: number types in which a store may keep vectors, to compare as well: ``"float16"``, ``"int8"`` and
            ``"binary"``. Of the last two, four times as many documents are found and scored again by the whole query.
        prompts: texts before documents and queries to compare as well, such as ``[{"query": "query: "}]``. These are
            other inputs for a provider, and paid for.
        cascades: two variants and the share of the queries that the first may hand to the second, such as
            ``[("wordllama:l2_supercat_256", "openai:text-embedding-3-small", 0.3)]``.
        cache: as of ``Router``, for all models together.
        budget: as of ``Router``, for all models together.
        show_progress: as of ``Router.embed``.
        settings: other arguments of the ``Router`` of each model. Texts over a model's limit are embedded in part
            (``on_too_long="truncate"``), and counted in ``Comparison.notes``.

    Raises:
        ConfigError: an argument is wrong, or a package is missing; nothing was called.
        InvalidInputError: a text cannot be embedded; nothing was called.
        BudgetExceededError: the budget does not cover the comparison; nothing was called.
        NoModelAvailableError: no model could be called.
    """
    with plan_comparison(
        as_questions(corpus, queries, qrels),
        models,
        dimensions=dimensions,
        dtypes=dtypes,
        prompts=prompts,
        cascades=cascades,
        cache=cache,
        budget=budget,
        **settings,
    ) as plan:
        return plan.run(show_progress=show_progress)


async def acompare(corpus: Any, queries: Any = None, qrels: Any = None, models: Any = (), **options: Any) -> Comparison:
    """Do what ``compare`` does without blocking the event loop."""
    return await in_thread(compare, corpus, queries, qrels, models, **options)


def plan_comparison(
    questions: Questions,
    models: Sequence[GivenRouter],
    *,
    dimensions: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    prompts: Sequence[Mapping[str, str]] = (),
    cascades: Sequence[tuple[str, str, float]] = (),
    cache: CacheLike | Default = DEFAULT,
    budget: Budget | str | None = None,
    **settings: Any,
) -> Plan:
    """Return what ``compare`` would do and what that costs. No model is called.

    Raises: as ``compare``.
    """
    require_library()
    sizes, numbers, questions = known_dimensions(dimensions), known_dtypes(dtypes), _usable(questions)
    kept = default_folder() if isinstance(cache, Default) else cache  # asks for what the default cache leaves out, too
    given = {"on_too_long": "truncate", **settings, "cache": kept, "budget": budget}
    routers, left_out, short = subjects(models, prompts, given)
    variants: list[Single] = []
    for subject in routers:
        found, refused = singles(subject, sizes, numbers)
        variants += found
        left_out |= refused
    both, missing = pairings(cascades, variants, left_out, short)
    plan = Plan(questions, routers, variants, both, left_out | missing)
    try:
        plan.estimate()
    except BaseException:
        plan.close()
        raise
    return plan


def _usable(questions: Questions) -> Questions:
    """Return the queries that can be measured.

    Raises:
        InvalidInputError: a text is empty, or there is nothing to compare on.
    """
    for kind, texts in (("document", questions.documents), ("query", questions.queries)):
        if not texts:
            raise InvalidInputError(f"There is no {kind} to compare on.")
        if empty := [name for name, text in texts.items() if not text]:
            raise InvalidInputError(
                f"{kind} {first_few(list(map(shown_name, empty)), 1)}: the text is empty. Leave it out."
            )
    if questions.judged_by == "agreement":
        return replace(questions, relevant={})
    relevant = {
        query: judged
        for query in questions.queries
        if (judged := {name: grade for name, grade in questions.relevant.get(query, {}).items() if grade > 0})
    }
    if not relevant:
        raise InvalidInputError(
            "No query has a relevant document. Check that the ids of the judgements are those of queries and documents."
        )
    return replace(questions, queries={query: questions.queries[query] for query in relevant}, relevant=relevant)
