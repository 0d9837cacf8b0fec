"""The command: read, say what it will cost, ask, compare, and print what was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ...cache import DEFAULT, default_folder
from ...comparison import Choice, Comparison, Plan, plan_comparison
from ...errors import BudgetExceededError, ConfigError, EmbedRouterError
from ...spending import Budget
from ...types import dollars
from .. import _completion
from .._console import Output, exit_on_interrupt, resume_message
from .._exclusive import exclusive
from .._options import AsJson, CachePlace, ConfigFile, NoCache, Yes, expand_bundles
from ._files import STDOUT, require_replaceable, write_csv, write_html
from ._models import contestants
from ._options import QuestionOptions
from ._parts import amount_of, budget_of, cascade_of, dimensions_of, names_of, prompts_of
from ._shown import show_choice, show_comparison, show_plan


@expand_bundles
def command(
    source: QuestionOptions,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="PROVIDER:NAME", help="A model; repeat it.", autocompletion=_completion.models
        ),
    ] = None,
    config: ConfigFile = None,
    dimensions: Annotated[
        str | None, typer.Option("--dimensions", metavar="N,N", help="Shorter vectors, too: 256,512. Nothing is paid.")
    ] = None,
    dtypes: Annotated[
        str | None, typer.Option("--dtype", metavar="TYPE,TYPE", help="Smaller numbers, too: float16,int8,binary.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="KIND=TEXT", help="Each model with prompts, too: 'query=Find: '."),
    ] = None,
    cascades: Annotated[
        list[str] | None,
        typer.Option("--cascade", metavar="A,B[,SHARE]", help="A first, then B for the doubtful queries; 0.3."),
    ] = None,
    under: Annotated[
        str | None, typer.Option("--under", metavar="DOLLARS", help="Choose for at most so much a million queries.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="DOLLARS", help="At most so much in all; or 5.00/day.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write the figures; - is stdout.")] = None,
    cache: CachePlace = None,
    no_cache: NoCache = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare models on your own documents and queries: quality with intervals, dollars, speed, bytes.

    Shows the cost and asks, unless nothing is to be paid. You can stop it at any time: the next run pays for no text
    twice, and a second one costs nothing. Without --model and --config: the model that comes with this package, and
    the cheapest one of each provider whose key is set.
    """
    exclusive(cache=cache, no_cache=no_cache)
    if as_json and csv == STDOUT:
        raise typer.BadParameter("--json prints on stdout, and so does --csv -.")
    limit, cap = amount_of(under, "--under"), budget_of(budget)
    shorter, numbers = dimensions_of(dimensions), names_of(dtypes)
    prompted, cascaded = prompts_of(prompts or []), list(map(cascade_of, cascades or []))
    table = Path(csv) if csv not in (None, STDOUT) else None
    for path in (html, table):
        require_replaceable(path, (source.corpus, source.queries, source.qrels))
    output = Output(as_json=as_json or csv == STDOUT, yes=yes)
    with output.busy("reading"):
        questions = source.read()
    kept = None if no_cache else cache or DEFAULT
    with contestants(models or [], config, kept, cap) as given:
        with output.busy("counting tokens"), _named(cap):
            plan = plan_comparison(
                questions,
                given,
                dimensions=shorter,
                dtypes=numbers,
                prompts=prompted,
                cascades=cascaded,
                cache=kept,
                budget=cap,
            )
        with plan:
            show_plan(plan, output)
            estimates = [estimate for both in plan.estimates.values() for estimate in both]
            output.confirm_cost(estimates, "Agree with --yes, or try a sample first: --limit 1000 --query-limit 300.")
            place = None if no_cache else cache or default_folder()
            total = sum(estimate.unique for estimate in estimates)
            with (
                exit_on_interrupt(lambda: f"Stopped. {_goes_on(plan, place)}"),
                _noted(plan, place),
                output.progress("comparing", total) as advance,
            ):
                found = plan.run(advance=lambda _, done, __, spent: advance(done, spent))
    show_comparison(found, questions.notes, output)
    if html is not None:
        write_html(html, found)
        output.line(f"The page with charts: {html}")
    if csv is not None:
        write_csv(csv, found)
    choice, refusal = _chosen(found, limit)
    if choice is not None:
        show_choice(choice, output)
    best = {"best": choice and choice.measured.variant.label, "configuration": choice and _configuration(choice)}
    if as_json:
        output.json({**found.to_dict(), **best})
    if refusal is not None:
        raise refusal


def _chosen(found: Comparison, limit: str | None) -> tuple[Choice | None, ConfigError | None]:
    """Return the best variant for a price; or the error that none costs so little, which is told last."""
    try:
        return found.best_under(limit), None
    except ConfigError as error:
        return None, error


def _configuration(choice: Choice) -> dict[str, object] | None:
    try:
        return choice.to_dict()
    except ConfigError:  # with objects that no file can hold
        return None


def _goes_on(plan: Plan, place: object) -> str:
    """Return what was paid, and how the comparison goes on."""
    return resume_message(f"Spent: {dollars(plan.spent)}.", place)


@contextmanager
def _named(cap: Budget | None) -> Iterator[None]:
    """Name the option of a cap that does not suffice."""
    try:
        yield
    except BudgetExceededError as error:
        if cap is not None and cap.per_call is not None:
            error.add_note("Here per_call is --budget. A sample costs less: --limit 1000 --query-limit 300.")
        raise


@contextmanager
def _noted(plan: Plan, place: object) -> Iterator[None]:
    """Add to an error what was paid before."""
    try:
        yield
    except EmbedRouterError as error:
        if plan.spent:
            error.add_note(_goes_on(plan, place))
        raise
