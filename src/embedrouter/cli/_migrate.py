"""``embedrouter migrate``: move an index into the space of another model, in steps that each say what comes next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import migrate
from ..comparison import QUERIES, Chosen, read_judgements, read_texts
from ..errors import ConfigError, EmbedRouterError
from ..migrate import Migration, Plan, Verification, described, migration, require_droppable, require_unswitched
from ..types import OverlongPolicy
from . import _completion
from ._batch import PollInterval
from ._console import Output, exit_on_interrupt
from ._exclusive import exclusive
from ._options import AsJson, BatchAndWait, CachePlace, CollectionName, Yes, expand_bundles
from ._routers import cache_location, settings_for

FIELDS = ("collection", "into", "name", "budget", "cache", "on_too_long")
"""Options that say which migration it is: each step is given them again."""


@dataclass(frozen=True, slots=True)
class Where:
    """What is moved where to; the command takes this class as one parameter (see ``expand_bundles``)."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="The index: a folder (Chroma, Qdrant, LanceDB, FAISS of LangChain, a storage context of LlamaIndex), "
            "a JSONL or Parquet file with vectors, postgresql://…, or the http:// address of Chroma or Qdrant.",
        ),
    ]
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="MODEL", autocompletion=_completion.models, help="The new model, or an embedrouter.toml."
        ),
    ]
    collection: CollectionName = None
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="STORE", help="Another store for the new collection, of any kind; chroma:DIR …"),
    ] = None
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the new collection; by default the old name with the space."),
    ] = None
    budget: Annotated[str | None, typer.Option("--budget", metavar="USD/PERIOD", help='Such as "5.00/day".')] = None
    cache: CachePlace = None
    on_too_long: Annotated[
        OverlongPolicy | None,
        typer.Option("--on-too-long", help="Texts over the model's limit; by default the mean of their parts."),
    ] = None


@expand_bundles
def command(
    where: Where,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what it takes; nothing is called or made.")] = False,
    verify_only: Annotated[bool, typer.Option("--verify", help="Compare both collections once more.")] = False,
    switch: Annotated[bool, typer.Option("--switch", help="Verify, then give the new one the old one's name.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Give the name back to the old one.")] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="After the switch: remove the old one.")] = False,
    batch: BatchAndWait = False,
    every: PollInterval = 60.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that cannot be embedded.")] = False,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare answers to these: JSON lines, CSV …")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(metavar="FILE", help="Judgements for them: nDCG before, after.")] = None,
    old_model: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="The old model, for the answers to --queries before."),
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", metavar="NAME", help="Where programs set index= to another name.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Switch, or remove the old one, against advice.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move an index into the space of another model: plan, run, verify; then --switch, and at last --drop-old.

    Without a step it shows the plan, asks, fills a new collection beside the old one, and verifies it. The old one is
    never written to. You can stop it at any time: the same command goes on, and pays nothing twice. Exit code 1: the
    verification has failed.
    """
    exclusive(plan=plan_only, verify=verify_only, switch=switch, undo=undo, drop_old=drop_old)
    if qrels is not None and queries is None:
        raise typer.BadParameter("--qrels goes with --queries.")
    steps = _Steps(where, _asked(where), Output(as_json=as_json, yes=yes))
    answers = _answers(queries, qrels, old_model)
    if plan_only:
        steps.next(*(("--drop-old", "--undo") if steps.plan().switched else ("",)))
    elif undo:
        steps.undo(index)
    elif drop_old:
        steps.drop_old(force)
    elif switch:
        steps.switch(answers, index, force)
    else:
        if not verify_only:
            steps.run(batch, every, skip_bad)
        steps.verify(answers)
    steps.output.json(steps.facts)
    if steps.failed:
        raise typer.Exit(1)


def _asked(where: Where) -> Migration:
    """Return the migration that options describe."""
    given = {"cache": where.cache, "budget": where.budget, "on_too_long": where.on_too_long}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not where.to.endswith(".toml"):
        settings = {"on_too_long": settings_for(where.to)["on_too_long"], **settings}
    return migration(where.source, where.to, where.collection, where.into, where.name, settings)


def _answers(queries: Path | None, qrels: Path | None, old: str | None) -> dict[str, Any]:
    """Return what ``verify`` is given for the comparison of answers.

    Raises:
        ConfigError: a file cannot be read, or no judgement is about the queries.
    """
    if queries is None:
        return {"old": old}
    texts = {name: item.text for name, item in read_texts([queries], QUERIES, Chosen()).items.items()}
    judged = None if qrels is None else read_judgements([qrels]).grades
    if judged is not None and not judged.keys() & texts.keys():
        raise ConfigError(
            f"No line of {qrels} is about a query of {queries}. Check that the ids are those of the file."
        )
    return {"queries": texts, "qrels": judged, "old": old}


class _Steps:
    """The steps of one command, and what they have found."""

    def __init__(self, where: Where, asked: Migration, output: Output) -> None:
        self._where, self._asked, self.output = where, asked, output
        self.facts: dict[str, Any] = {}
        self.failed = False

    def plan(self) -> Plan:
        """Show what the migration takes."""
        with self.output.busy("reading"):
            plan = migrate.plan(self._asked)
        for name, fact in plan.rows():
            self.output.line(f"{name}: {fact}")
        self.facts["plan"] = {one.name: getattr(plan, one.name) for one in fields(plan) if one.name != "migration"}
        self._asked = plan.migration
        return plan

    def run(self, batch: bool, every: float, skip_bad: bool) -> None:
        """Ask, and fill the new collection."""
        plan, output = self.plan(), self.output
        require_unswitched(plan.alias, plan.switched)
        estimate = plan.estimate
        if batch:
            estimate = replace(estimate, cost=plan.batch_cost, likely_cost=plan.likely_batch_cost)
        if estimate.unique > estimate.cached:
            output.confirm_cost([estimate], "Agree with --yes.")
        given = [option for option, on in (("--batch", batch), ("--skip-bad", skip_bad)) if on]
        with self._resumable(plan, " ".join(given)):
            moved = migrate.run(plan, batch=batch, every=every, skip_bad=skip_bad, show_progress="auto")
        output.line(str(moved), style="bold")
        self.facts["run"] = asdict(moved)

    def verify(self, answers: dict[str, Any]) -> Verification:
        """Show the verification, and what comes next."""
        with self.output.busy("verifying"):
            verification = migrate.verify(self._asked, **answers)
        self._show(verification)
        self.next("--switch" if verification.passed else "")
        return verification

    def switch(self, answers: dict[str, Any], index: str | None, force: bool) -> None:
        """Verify, ask, and give the new collection the old one's name."""
        with self.output.busy("verifying"):
            verification = migrate.verify(self._asked, **answers)
        self._show(verification)
        if self.failed and not force:
            self.output.line("Nothing was switched. --force switches all the same.")
            self.next("")
            return
        self.failed = False
        question = "This lets programs open the new collection, which are to embed queries by the new model from now on"
        self.output.require_agreement(question, "Nothing was switched. Agree with --yes.")
        done = migrate.switch(self._asked, verification=verification, force=force, index=index)
        self.output.line(str(done), style="bold")
        self.facts["switch"] = {**asdict(done), "verification": None}
        self.output.line("In your programs, with LangChain or LlamaIndex:")
        for adapter in ("RouterEmbeddings", "RouterEmbedding"):
            self.output.code(f"  {adapter}({json.dumps(self._where.to, ensure_ascii=False)})")
        self.next("--drop-old", "--undo")

    def undo(self, index: str | None) -> None:
        """Give the name back."""
        done = migrate.switch(self._asked, undo=True, index=index)
        self.output.line(str(done), style="bold")
        self.facts["switch"] = asdict(done)
        self.next("--switch")

    def drop_old(self, force: bool) -> None:
        """Name what is removed, ask, and remove it."""
        with self._asked.opened() as opened:
            require_droppable(opened, force=force)
            what = described(opened)
        question = f"This removes {what[0].lower()}{what[1:]}, for good"
        self.output.require_agreement(question, "Nothing was removed. Agree with --yes.")
        removed = migrate.drop_old(self._asked, force=force)
        self.output.line(f"Removed: {removed}.", style="bold")
        self.facts["removed"] = removed

    def next(self, *steps: str) -> None:
        """Print the commands that come next."""
        lines = [self._line(step) for step in steps]
        if lines:
            self.output.line("Next:" if len(lines) == 1 else "When the new one has proved itself, or the way back:")
        for line in lines:
            self.output.code(f"  {line}")
        self.facts["next"] = lines

    def _line(self, step: str) -> str:
        given = [
            part
            for name in FIELDS
            if (value := getattr(self._where, name)) is not None
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        return shlex.join(["embedrouter", "migrate", self._where.source, "--to", self._where.to, *given, *step.split()])

    def _show(self, verification: Verification) -> None:
        for check in verification.checks:
            self.output.line(str(check), style="bold" if check.passed is False else None)
        self.failed = not verification.passed
        self.facts["verification"] = {"passed": verification.passed, "checks": list(map(asdict, verification.checks))}

    @contextmanager
    def _resumable(self, plan: Plan, given: str) -> Iterator[None]:
        """Say how it goes on, where a run is stopped or fails."""
        location = cache_location(self._asked.router)
        kept = f"what was paid for is in the cache ({location})" if location else "no cache is in use"
        again = f"Rows that were written are in {plan.name}, and {kept}. To go on: {self._line(given)}"
        with exit_on_interrupt(lambda: f"Stopped. {again}"):
            try:
                yield
            except EmbedRouterError as error:
                error.add_note(again)
                raise
