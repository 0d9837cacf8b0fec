"""What a comparison will embed and what that costs, before anything is called; then the comparison itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from decimal import Decimal
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._display import counted
from ..calls import Progress, ShowProgress
from ..errors import BudgetExceededError, CacheError, EmbedRouterError, LedgerError, NoModelAvailableError
from ..router import wiring_of
from ..spending import sum_of
from ..types import Estimate, InputType, Usage, Vectors
from ._comparison import Comparison
from ._evaluation import evaluated
from ._findings import Variant
from ._questions import Questions
from ._ranking import Ranking, cut, rank
from ._subject import Advance, Subject
from ._variants import Pairing, Single

STOPPING = (BudgetExceededError, CacheError, LedgerError)
"""Errors that end a comparison: the next model would fail alike, or be paid for in vain."""

_Told: TypeAlias = Callable[[str, int], None]
"""Is told what is embedded, and how many texts of the model are done."""


class Plan:
    """A comparison that was not made yet: its variants, and what their vectors will cost.

    A context manager: its end closes the routers that the comparison has built.

    Attributes:
        questions: documents, queries and judgements.
        left_out: models and variants that cannot be compared, each with the reason. ``run`` adds models that fail.
    """

    def __init__(
        self,
        questions: Questions,
        subjects: Sequence[Subject],
        singles: Sequence[Single],
        pairings: Sequence[Pairing],
        left_out: Mapping[str, str],
    ) -> None:
        self.questions = questions
        self.left_out = dict(left_out)
        self._subjects, self._singles, self._pairings = subjects, singles, pairings
        self._documents = sorted(questions.documents, reverse=True)
        """The ids, in the order in which trec_eval ranks documents of equal scores."""
        self._texts: dict[InputType, _Distinct] = {
            "document": _Distinct.of([questions.documents[name] for name in self._documents]),
            "query": _Distinct.of(list(questions.queries.values())),
        }

    # Before anything is called

    def estimate(self) -> None:
        """Estimate the cost; leave out models without a key, a package or a price.

        Raises:
            BudgetExceededError: the budget does not cover the comparison.
            NoModelAvailableError: no model is left.
        """
        for subject in self._subjects:
            try:
                subject.estimate(self._texts["document"].texts, self._texts["query"].texts)
            except STOPPING:
                raise
            except EmbedRouterError as error:
                self.left_out[subject.label] = str(error)
        usable = self._usable
        self._require_any(usable)
        for subject in usable:
            wiring_of(subject.router).require_affordable(self.cost)

    @property
    def variants(self) -> list[Variant]:
        """What ``run`` will measure, as far as it is known before."""
        usable = self._usable
        singles = [single.variant for single in self._singles if single.subject in usable]
        return singles + [pair.variant for pair in self._pairings if all(item in usable for item in pair.subjects)]

    @property
    def estimates(self) -> dict[str, tuple[Estimate, Estimate]]:
        """The estimates of the documents and of the queries, by the label of each model."""
        return {item.label: item.estimates for item in self._usable if item.estimates is not None}

    @property
    def likely_cost(self) -> Decimal | None:
        """The dollars that the comparison is expected to cost; ``None`` where a price is unknown."""
        return sum_of(estimate.likely_cost for both in self.estimates.values() for estimate in both)

    @property
    def cost(self) -> Decimal | None:
        """The dollars that the comparison costs at most; ``None`` where a price is unknown."""
        return sum_of(estimate.cost for both in self.estimates.values() for estimate in both)

    @property
    def spent(self) -> Decimal:
        """The dollars that were paid so far."""
        return sum((subject.spent for subject in self._subjects), Decimal(0))

    def __str__(self) -> str:
        """Describe what will be embedded: two lines for each model, and one for each that is left out."""
        questions = self.questions
        lines = [f"{counted(len(questions.documents), 'document')}, {counted(len(questions.queries), 'query')}"]
        for label, estimates in self.estimates.items():
            lines += [
                f"{label}, {kind}: {item}" for kind, item in zip(("documents", "queries"), estimates, strict=True)
            ]
        return "\n".join([*lines, *(f"{label} is left out: {reason}" for label, reason in self.left_out.items())])

    # The comparison

    def run(self, *, show_progress: ShowProgress = False, advance: Advance | None = None) -> Comparison:
        """Embed what is not in the cache, search, and measure.

        A model that fails is left out. What was paid for is in the cache: a run that was stopped goes on from there.

        Args:
            show_progress: as of ``Router.embed``.
            advance: is called with what is embedded, the texts that are done, all texts, and the dollars spent.

        Raises:
            BudgetExceededError: the budget was used up meanwhile.
            NoModelAvailableError: no model could be called.
        """
        subjects = self._usable
        each = sum(len(distinct.texts) for distinct in self._texts.values())
        rankings: dict[str, Ranking] = {}
        with Progress(show_progress, each * len(subjects), "comparing") as bar:
            for place, subject in enumerate(subjects):

                def told(kind: str, texts: int, label: str = subject.label, before: int = place * each) -> None:
                    usage = sum((item.total for item in subjects), Usage())
                    bar.reach(before + texts, usage, cached=sum(item.recalled for item in subjects))
                    if advance is not None:
                        advance(f"{label}, {kind}", before + texts, each * len(subjects), self.spent)

                try:
                    rankings |= self._rankings(subject, told)
                except STOPPING:
                    raise
                except EmbedRouterError as error:
                    self.left_out[subject.label] = str(error)
        self._require_any(rankings)
        found = evaluated(self.questions, self._documents, self._singles, self._pairings, rankings, self.left_out)
        return replace(found, spent=self.spent)

    def _rankings(self, subject: Subject, told: _Told) -> dict[str, Ranking]:
        """Embed with one router, and rank with each of its variants."""
        documents = self._vectors(subject, "document", told, 0)
        queries = self._vectors(subject, "query", told, len(self._texts["document"].texts))
        return {
            single.label: rank(cut(documents, single.dimensions), cut(queries, single.dimensions), single.stored)
            for single in self._singles
            if single.subject is subject
        }

    def _vectors(self, subject: Subject, kind: InputType, told: _Told, before: int) -> Vectors:
        distinct = self._texts[kind]
        found = subject.embed(distinct.texts, kind, lambda done: told(f"{kind}s", before + done))
        return found if len(found) == len(distinct.places) else found[distinct.places]

    @property
    def _usable(self) -> list[Subject]:
        return [subject for subject in self._subjects if subject.label not in self.left_out]

    def _require_any(self, usable: Sized) -> None:
        """Refuse to compare nothing.

        Raises:
            NoModelAvailableError: every model is left out; the message has each reason.
        """
        if not usable:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in self.left_out.items())
            raise NoModelAvailableError(f"No model is left to compare. {reasons}")

    def close(self) -> None:
        """Close the routers that were built for the comparison."""
        for subject in self._subjects:
            subject.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Distinct:
    """The distinct texts of a list, each paid once, and the place of each item among them."""

    texts: list[str]
    places: NDArray[np.intp]

    @classmethod
    def of(cls, items: Sequence[str]) -> Self:
        distinct = {text: place for place, text in enumerate(dict.fromkeys(items))}
        return cls(list(distinct), np.array([distinct[text] for text in items], np.intp))
