"""Check whether stored vectors come from a router's models, and if not, what they are.

The texts of a few stored vectors are embedded, and the two vectors of each text are compared by their cosine. Where a
vector does not match, the same texts are embedded in the other ways in which stores are filled: with line breaks
replaced by blanks, as queries, without the model's prompts, by the other models of the router. The way that gives the
stored vectors is the finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._display import shown
from ..calls import validate
from ..errors import EmbedRouterError, InvalidInputError
from ..models import Model
from ..models.agreement import comparable
from ..types import PACKED, Candidate, EmbeddingResult, InputType, OutputDtype, Space
from . import _findings as findings
from ._check import MATCH, Finding, VectorCheck

Numbers = NDArray[np.float64]

READINGS: Mapping[str, Callable[[str], str]] = {
    "": str,
    "line breaks": lambda text: text.replace("\n", " "),
    "ends": str.strip,
    "both": lambda text: text.replace("\n", " ").strip(),
}
"""What is done to a text before it is embedded."""

RELATED = 0.35
"""The cosine from which other ways are tried: vectors of two models stay near 0, and no other way is worth a cent."""


class CheckedRouter(Protocol):
    """What the check uses of a router."""

    space: Space
    models: tuple[str, ...]

    def embed(self, texts: Iterable[str], *, input_type: InputType) -> EmbeddingResult:
        """Embed texts."""
        ...

    def close(self) -> None:
        """Close what the router has opened."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The router whose vectors are compared.

    Attributes:
        declared: its models as they were declared.
        candidates: the same models, resolved.
        alter: builds a router of other declarations, which books in the same ledger.
    """

    router: CheckedRouter
    declared: Sequence[Model]
    candidates: Sequence[Candidate]
    alter: Callable[[Sequence[Model]], CheckedRouter]


def check_stored(
    subject: Subject, texts: Iterable[str], vectors: Any, input_type: InputType, also: Sequence[str] | None = None
) -> VectorCheck:
    """Embed texts and compare their vectors with the stored ones.

    Args:
        vectors: one for each text, of shape ``(texts, dimensions)``.
        also: for each text another one, of which the stored vector may be as well.

    Raises:
        InvalidInputError: there is not one vector for each text.
        EmbedRouterError: the texts cannot be embedded.
    """
    texts = validate(texts)
    dtype = subject.candidates[0].output_dtype
    work = _Work(subject, as_numbers(vectors, len(texts), dtype), input_type, dtype)
    ours = work.embed(subject.router, texts, input_type)
    cosines = work.cosines(ours)
    if work.stored.shape[1] != ours.shape[1]:
        length = findings.other_length(work.stored.shape[1], ours.shape[1], cosines, subject.router.space)
        return work.report(cosines, length, whole=False)
    if also is not None and not (cosines >= MATCH).all():
        cosines = np.maximum(cosines, work.cosines(work.embed(subject.router, also, input_type)))
    if (cosines >= MATCH).all():
        ratio = np.linalg.norm(work.stored, axis=1) / np.linalg.norm(ours, axis=1)
        return work.report(cosines, findings.match(1.0 if dtype else float(np.median(ratio))))
    if bad := int((~work.usable).sum()):
        return work.report(cosines, findings.unusable(bad))
    if _is_shuffled(work.stored, ours, cosines):
        return work.report(cosines, findings.SHUFFLED)
    related = float(np.median(cosines[cosines < MATCH])) >= RELATED
    found = work.explain(texts, list(also or ()), cosines) if related else None
    if found is None:
        some_match = (cosines >= MATCH).any()
        found = findings.partly(cosines) if some_match else findings.other(cosines, subject.router.space)
    return work.report(cosines, found)


def as_numbers(vectors: Any, texts: int, dtype: OutputDtype | None) -> Numbers:
    """Return stored vectors as an array of shape ``(texts, dimensions)``.

    Raises:
        InvalidInputError: there is not one vector of numbers for each text, or the vectors differ in length.
    """
    try:
        array = np.asarray(vectors if isinstance(vectors, np.ndarray) else [np.asarray(one) for one in vectors])
        if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
            raise ValueError
    except (ValueError, TypeError):
        raise InvalidInputError(
            f"vectors must be one list of numbers for each text, all of one length, not {shown(vectors)}.", indices=()
        ) from None
    if len(array) != texts:
        raise InvalidInputError(
            f"There are {texts:,} texts and {len(array):,} vectors. Pass one vector for each text.", indices=()
        )
    if dtype in PACKED:
        return np.asarray(comparable(array.astype(np.uint8), dtype) * 2.0 - 1.0, np.float64)
    return array.astype(np.float64) - (128 if dtype == "uint8" and array.min() >= 0 else 0)


def cosines_of(one: Numbers, other: Numbers) -> Numbers:
    """Return the cosine of the corresponding vectors of two sets; 0 for a vector that has no direction."""
    with np.errstate(all="ignore"):
        products = (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return np.asarray(np.nan_to_num(np.clip(products, -1, 1)), np.float64)


class _Work:
    """The stored vectors, and what comparing them has cost."""

    def __init__(self, subject: Subject, stored: Numbers, input_type: InputType, dtype: OutputDtype | None) -> None:
        self.stored = stored
        self.usable = np.isfinite(stored).all(axis=1) & stored.any(axis=1)
        self._subject = subject
        self._dtype: OutputDtype | None = dtype
        self._input_type: InputType = input_type
        self._cost: Decimal | None = Decimal(0)

    def embed(self, router: CheckedRouter, texts: Sequence[str], input_type: InputType) -> Numbers:
        result = router.embed(texts, input_type=input_type)
        unpriced = result.usage.unpriced_tokens
        self._cost = None if self._cost is None or unpriced else self._cost + result.usage.cost
        return as_numbers(result.vectors, len(texts), self._dtype)

    def cosines(self, ours: Numbers) -> Numbers:
        """Return the cosines of the stored vectors and ours, of vectors of another length by their beginnings."""
        width = min(self.stored.shape[1], ours.shape[1])
        return cosines_of(self.stored[:, :width], ours[:, :width])

    def report(self, cosines: Numbers, found: Finding, *, whole: bool = True) -> VectorCheck:
        """Return the result; ``whole`` is whether the stored vectors are as long as ours."""
        return VectorCheck(
            model=", ".join(self._subject.router.models),
            space=self._subject.router.space,
            cosines=cosines,
            compared_whole=whole,
            same_space=found.same_space,
            finding=found.text,
            advice=found.advice,
            cost=self._cost,
        )

    def explain(self, texts: Sequence[str], also: Sequence[str], cosines: Numbers) -> Finding | None:
        """Return in which other way the vectors that do not match were made, if one way explains all of them."""
        rest = np.flatnonzero(cosines < MATCH)
        for way in self._ways():
            try:
                found = self._try(way, [texts, also] if also else [texts], rest)
            except EmbedRouterError:  # a prompt that a model does not take, or the budget: the other ways remain
                continue
            if found == {""}:
                return way.finding
            if found and way.finding is None:
                breaks = {"line breaks", "both"} & found
                return findings.line_breaks(cosines[rest].tolist()) if breaks else findings.BLANK_ENDS
            if found and way.finding is not None:
                return replace(way.finding, text=f"{way.finding.text} Line breaks were replaced by blanks as well.")
        return None

    def _try(self, way: _Way, sources: Sequence[Sequence[str]], rest: NDArray[np.intp]) -> set[str]:
        """Return the readings of the texts that give all the vectors of some rows; an empty set where a row is left."""
        read = {
            (name, number): [reading(source[int(row)]) for row in rest]
            for number, source in enumerate(sources)
            for name, reading in READINGS.items()
        }
        distinct = list(dict.fromkeys(text for column in read.values() for text in column if text))
        router = way.router()
        try:
            vectors = dict(zip(distinct, self.embed(router, distinct, way.input_type), strict=True))
        finally:
            if router is not self._subject.router:
                router.close()
        found: set[str] = set()
        for place, row in enumerate(rest):
            for (name, _), column in read.items():
                new = vectors.get(column[place])
                if new is not None and cosines_of(self.stored[row : row + 1], new[None])[0] >= MATCH:
                    found.add(name)
                    break
            else:
                return set()
        return found

    def _ways(self) -> Iterator[_Way]:
        subject = self._subject
        asked: InputType = self._input_type
        router = subject.router
        yield _Way(lambda: router, asked, None)
        other: InputType = "query" if asked == "document" else "document"
        if not all(candidate.symmetric for candidate in subject.candidates):
            yield _Way(lambda: router, other, findings.other_input_type(other, asked))
            bare = [replace(model, prompts={"document": "", "query": ""}) for model in subject.declared]
            yield _Way(partial(subject.alter, bare), asked, findings.without_prompts(asked))
        if any(model.prompts is not None for model in subject.declared):
            own = [replace(model, prompts=None) for model in subject.declared]
            yield _Way(partial(subject.alter, own), asked, findings.WITH_PROMPTS)
        if len(subject.declared) > 1:
            for model in subject.declared:
                yield _Way(partial(subject.alter, [model]), asked, findings.other_member(model.name))


@dataclass(frozen=True, slots=True)
class _Way:
    """A way in which texts may have been embedded."""

    router: Callable[[], CheckedRouter]
    input_type: InputType
    finding: Finding | None
    """``None`` for the way of the router itself."""


def _is_shuffled(stored: Numbers, ours: Numbers, cosines: Numbers) -> bool:
    """Return whether each vector that does not match is that of another text."""
    table = np.array([cosines_of(np.broadcast_to(one, ours.shape), ours) for one in stored[cosines < MATCH]])
    return bool((table.max(axis=1) >= MATCH).all())
