"""``embedrouter check``: compare a few vectors of a store with those that a model gives for their texts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

import typer

from .._display import first_few, masked
from ..checks import VectorCheck
from ..errors import AuthenticationError, ConfigError, EmbedRouterError
from ..limits import RetryPolicy
from ..models import HUB, LOCAL, Card, Model, load_catalogue
from ..providers import describe
from ..retrieval.store_guard import (
    COMPARED,
    SPARE,
    Marked,
    Row,
    Unreadable,
    check_rows,
    choose_rows,
    described,
    mark,
    recorded_space,
)
from ..router import Router, settings_of
from ..spending import tag
from ..stores import DumpedStore, opened
from ..tiered import require_single_space
from ..types import dollars
from ._console import Output, complain, complain_of
from ._exclusive import exclusive
from ._options import AsJson, CollectionName, ConfigFile, ModelName
from ._routers import find_router, read_config

TAG = "check"
"""The tag of the spending."""
CREDENTIALS = {"bedrock": ("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")}
"""Variables of which one is needed, of providers whose SDK otherwise looks for credentials in the network."""


def command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="A folder (Chroma, Qdrant, LanceDB, FAISS of LangChain, a storage context of LlamaIndex), a file "
            "(Milvus Lite, a dumped InMemoryVectorStore), postgresql://…, or the http:// address of Chroma, Qdrant or "
            "Milvus.",
        ),
    ],
    model: ModelName = None,
    config: ConfigFile = None,
    collection: CollectionName = None,
    which: Annotated[bool, typer.Option("--which", help="Try the models whose keys are set, cheapest first.")] = False,
    sample: Annotated[int, typer.Option("--sample", min=1, max=1000, help="Vectors to compare.")] = COMPARED,
    write: Annotated[bool, typer.Option("--mark", help="If they match, write the space into the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check whether the vectors in a store are those of a model: a few of its texts are embedded and compared.

    The exit code is 0 if they match, 1 if they do not, and 2 if they could not be compared. Nothing is created or
    changed, except with --mark. The cost is booked under the tag "check", within the budget.
    """
    exclusive(model=model, config=config)
    output = Output(as_json=as_json)
    try:
        with output.busy("comparing"), opened(store, collection) as marked, tag(TAG):
            verdict = _compare(marked, model, config, which, sample, write)
    except Unreadable as reason:
        complain(f"embedrouter: The store could not be compared: {reason}. In a program that has texts and vectors: "
                 "router.check_vectors(texts, vectors).")  # fmt: skip
        raise typer.Exit(2) from None
    except EmbedRouterError as error:
        complain_of(error)
        raise typer.Exit(2) from None
    for line in verdict.lines:
        output.line(line)
    output.json(verdict.facts())
    raise typer.Exit(0 if verdict.matches else 1)


@dataclass(slots=True)
class _Verdict:
    """What was compared, and what to do next."""

    title: str
    lines: list[str] = field(default_factory=list)
    check: VectorCheck | None = None
    found: str | None = None
    """The model of the catalogue whose vectors these are."""
    tried: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Models that were not tried, by the reason."""
    marked: bool = False
    cost: Decimal = Decimal(0)

    @property
    def matches(self) -> bool:
        return self.check.matches if self.check else self.found is not None

    def facts(self) -> dict[str, object]:
        check = self.check
        compared = {
            "model": check.model,
            "space": str(check.space),
            "compared": check.compared,
            "matching": check.matching,
            "cosines": [round(float(one), 6) for one in check.cosines],
            "same_space": check.same_space,
            "finding": check.finding,
            "advice": check.advice,
        } if check else {}  # fmt: skip
        searched = {"found": self.found, "tried": self.tried, "left_out": self.left_out}
        return {"store": self.title, "matches": self.matches, **compared, "marked": self.marked,
                "cost": self.cost, **searched}  # fmt: skip


def _compare(marked: Marked, model: str | None, config: str | None, which: bool, sample: int, write: bool) -> _Verdict:
    rows = choose_rows(marked.sample(SPARE * sample), sample)
    verdict = _Verdict(marked.title)
    accounts: dict[str, Any] = {}
    if model or config or not which:
        if not (model or config):
            config = _found_config(marked.place)
        with require_single_space(find_router(model, config, None)) as router:
            accounts = _accounts(router)
            check = check_rows(router, rows)
            verdict.check, verdict.cost = check, check.cost or Decimal(0)
            verdict.lines.append(f"{marked.title}: {described(check, marked)}")
            if check.same_space:
                verdict.lines.append(_next_line(marked, router, write, verdict))
    if which and not verdict.matches:
        _search(rows, verdict, marked, accounts)
    return verdict


def _found_config(place: str) -> str:
    """Return the option that searches for a configuration.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        read_config("auto")
    except ConfigError as error:
        if error.__cause__:
            raise
        raise ConfigError(
            "There is no configuration, so no model to compare with. Name one: embedrouter check "
            f"{place} --model openai:text-embedding-3-small. Or have the models of the catalogue tried: --which"
        ) from None
    return "auto"


def _next_line(marked: Marked, router: Router, write: bool, verdict: _Verdict) -> str:
    """Return what to do with a store whose vectors are the router's, and mark it if that is wanted."""
    recorded = recorded_space(marked)
    if recorded is not None and recorded != router.space:
        return f"Its mark says {recorded}, and its vectors say {router.space}. Correct the mark in its metadata."
    if isinstance(marked, DumpedStore):
        return "This kind of store has no place for a mark: name it with index= of the adapter."
    if recorded is None and write:
        mark(marked, router)
        recorded, verdict.marked = router.space, True
    if recorded is not None:
        was = "Marked now" if verdict.marked else "It is marked"
        return f"{was}: {recorded}. Open it with guard(store, router) of embedrouter.stores."
    return (
        "It is not marked, and nothing was changed. Mark it: repeat with --mark, or open it with "
        "guard(store, router, adopt=True) of embedrouter.stores."
    )


# Which model of the catalogue


def _accounts(router: Router) -> dict[str, Any]:
    """Return the settings by which other models' costs are booked with a router's, within its budget."""
    arguments = settings_of(router).arguments()
    return {name: arguments[name] for name in ("cache", "state", "ledger", "budget") if name in arguments}


def _search(rows: Sequence[Row], verdict: _Verdict, marked: Marked, accounts: Mapping[str, Any]) -> None:
    """Try the models that give vectors of this length, cheapest first, until one matches."""
    length = len(rows[0].vector)
    known = {verdict.check.model} if verdict.check else set()
    for name, reason in _candidates(length):
        if reason:
            verdict.left_out.setdefault(reason, []).append(name)
        elif verdict.found is None and name not in known:
            _try(name, length, rows, verdict, accounts)
    if verdict.found:
        verdict.lines.append(f"These are {verdict.found.partition(':')[2]}'s: all match {verdict.found}.")
        compared = f"embedrouter check {marked.place} --model {verdict.found}"
        unmarkable = isinstance(marked, DumpedStore)
        verdict.lines.append(f"Compare them: {compared}" if unmarkable else f"Compare and mark them: {compared} --mark")
    else:
        verdict.lines.append(f"No model that was tried gives these vectors of {length:,} numbers.")
    verdict.lines.append(f"Tried: {', '.join(verdict.tried) or 'none'}. Cost: {dollars(verdict.cost)}.")
    if not verdict.found:
        for reason, names in verdict.left_out.items():
            verdict.lines.append(f"Left out ({reason}): {first_few(names)}.")


def _candidates(length: int) -> Iterator[tuple[str, str]]:
    """Yield each model that gives vectors of a length, cheapest first, and why it cannot be tried here, or ``""``."""
    catalogue = load_catalogue()

    def price(card: Card) -> tuple[bool, Decimal]:
        price = Decimal(0) if card.provider in (HUB, LOCAL) else card.price
        return price is None, price or Decimal(0)

    seen: set[str] = set()
    for card in sorted(catalogue.values(), key=price):
        name = card.model.replace(f"{HUB}:", f"{LOCAL}:", 1)
        if not card.offers(length) or name in seen:
            continue
        seen.add(name)
        server = catalogue.servers.get(name.partition(":")[0])
        variables = CREDENTIALS.get(card.provider, server.keys if server and server.key_required else ())
        if variables and not any(os.environ.get(variable, "").strip() for variable in variables):
            yield name, f"set {variables[0]}"
        else:
            yield name, _absent(name)


def _absent(name: str) -> str:
    """Return why a local model cannot be tried; an empty text for one that is here, and for hosted models."""
    if not name.startswith(f"{LOCAL}:"):
        return ""
    try:
        return "" if describe(Model(name), load_catalogue(), None).files else "not on this machine"
    except EmbedRouterError:
        return "not on this machine"


def _try(name: str, length: int, rows: Sequence[Row], verdict: _Verdict, accounts: Mapping[str, Any]) -> None:
    try:
        dimensions = None if load_catalogue().find(name).dimensions == length else length  # type: ignore[union-attr]
        retry = RetryPolicy(attempts=1, timeout=20)
        with Router([name], dimensions=dimensions, retry=retry, **accounts) as router:
            check = check_rows(router, rows)
    except AuthenticationError as error:
        verdict.left_out.setdefault(masked(str(error).splitlines()[0]), []).append(name)
    except EmbedRouterError as error:
        verdict.left_out.setdefault(masked(str(error).splitlines()[0])[:120], []).append(name)
    else:
        verdict.tried.append(name)
        verdict.cost += check.cost or Decimal(0)
        if check.same_space:
            verdict.found = name
