"""The variants of each model that a comparison measures, and those that a model does not offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._display import shown, shown_name
from ..errors import ConfigError
from ..models import Model
from ..retrieval import Cascade
from ..retrieval.given_router import GivenRouter, as_router
from ..router import Router, settings_of, wiring_of
from ..types import Candidate
from ._findings import Variant
from ._labels import short_names, with_short_names
from ._ranking import STORED_DTYPES, StoredDtype
from ._subject import Subject

SHOWN_PROMPT = 24
"""Characters of a prompt in a label."""


@dataclass(frozen=True, slots=True)
class Single:
    """A variant of one router."""

    subject: Subject
    dimensions: int
    stored: StoredDtype | None
    variant: Variant

    @property
    def label(self) -> str:
        return self.variant.label


@dataclass(frozen=True, slots=True)
class Pairing:
    """A cascade of two variants."""

    first: Single
    second: Single
    share: float
    variant: Variant

    @property
    def label(self) -> str:
        return self.variant.label

    @property
    def subjects(self) -> list[Subject]:
        """The routers that embed for it: one, where both variants are of one router."""
        return list({id(part.subject): part.subject for part in (self.first, self.second)}.values())


# Routers


def subjects(
    given: Sequence[GivenRouter], prompts: Sequence[Mapping[str, str]], settings: Mapping[str, Any]
) -> tuple[list[Subject], dict[str, str], dict[str, str]]:
    """Return a router for each model, and one more for each of the prompts.

    Then what no model offers, with the reason; and the short names of models in folders, which are in the labels.

    Raises:
        ConfigError: a model is not known, or a setting is wrong.
    """
    if isinstance(given, str | Model | Router | Mapping) or not isinstance(given, Iterable):
        raise ConfigError("models= is a list, such as ['openai:text-embedding-3-small', 'wordllama:l2_supercat_256'].")
    routers: list[tuple[Router, bool]] = []
    left_out: dict[str, str] = {}
    for item in given:
        owned = not isinstance(item, Router)
        try:
            routers.append((as_router(item, settings if owned else {}), owned))
        except ConfigError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            left_out[item.name if isinstance(item, Model) else str(item)] = str(error)
    short = short_names([*left_out, *(item.name for router, _ in routers for item in wiring_of(router).candidates)])
    left_out = {with_short_names(name, short): reason for name, reason in left_out.items()}
    found: list[Subject] = []
    for router, owned in routers:
        label = _unique(with_short_names(_label(router), short), found)
        found.append(Subject(label, router, owned))
        for prompt in prompts:
            prompted = f"{label}, {_shown_prompts(prompt)}"
            try:
                found.append(Subject(_unique(prompted, found), _altered(router, prompts=dict(prompt)), owned=True))
            except ConfigError as error:
                left_out[prompted] = str(error)
    if not found and not left_out:
        raise ConfigError("Name the models to compare: compare(corpus, queries, models=['provider:name', …]).")
    return found, left_out, short


def _label(router: Router) -> str:
    candidates = wiring_of(router).candidates
    names = " + ".join(dict.fromkeys(candidate.name for candidate in candidates))
    declared = [item for item in settings_of(router).models if isinstance(item, Model)]
    if settings_of(router).dimensions or any(model.dimensions and model.space is None for model in declared):
        names += f" at {candidates[0].dimensions}"
    if candidates[0].output_dtype:
        names += f", {candidates[0].output_dtype} of the provider"
    return names


def _unique(label: str, others: Sequence[Subject]) -> str:
    taken = {subject.label for subject in others}
    names = [label, *(f"{label} (no. {number})" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def _shown_prompts(prompts: Mapping[str, str]) -> str:
    parts = []
    for kind, text in prompts.items():
        short = text if len(text) <= SHOWN_PROMPT else f"{text[:SHOWN_PROMPT]}…"
        parts.append(f"{kind} prompt {short!r}")
    return ", ".join(parts)


def _altered(router: Router, **changes: Any) -> Router:
    """Return a router of the same models with other settings of these."""
    return Router(**_arguments(router, **changes))


def _arguments(router: Router, **changes: Any) -> dict[str, Any]:
    settings = settings_of(router).arguments()
    if "dimensions" in changes:
        settings["dimensions"] = None
    models = [Model(item) if isinstance(item, str) else item for item in settings["models"]]
    return {**settings, "models": [replace(model, **changes) for model in models]}


# Variants


def singles(
    subject: Subject, dimensions: Sequence[int], dtypes: Sequence[StoredDtype]
) -> tuple[list[Single], dict[str, str]]:
    """Return the variants of a router, its own vectors first; and what its models do not offer, with the reason.

    Shorter vectors are cut from the router's own, where the catalogue says that the maker documents these as the
    beginnings of longer ones: then they are what the provider itself returns for ``dimensions=``.
    """
    own = subject.candidate("document")
    sizes, left_out = {own.dimensions: subject.label}, {}
    for size in dimensions:
        label = f"{subject.label} at {size}"
        if size == own.dimensions:
            continue
        reason = _cut_refused(subject.router, own, size)
        if reason:
            left_out[label] = reason
        else:
            sizes[size] = label
    found = []
    for size, label in sizes.items():
        found.append(_single(subject, size, None, label))
        for dtype in dtypes:
            if own.output_dtype:
                left_out[f"{label}, {dtype}"] = f"its vectors are {own.output_dtype} already."
            else:
                found.append(_single(subject, size, dtype, f"{label}, {dtype}"))
    return found, left_out


def _cut_refused(router: Router, own: Candidate, size: int) -> str:
    """Return why a router's vectors may not be cut to ``size``; an empty string where they may."""
    try:
        with _altered(router, dimensions=size) as shorter:
            longer = [candidate.longer for candidate in wiring_of(shorter).candidates]
            whole = [(candidate.dimensions, candidate.fingerprint) for candidate in wiring_of(router).candidates]
    except ConfigError as error:
        return str(error)
    if all(native in lengths for native, lengths in zip(whole, longer, strict=True)):
        return ""
    return f"its maker does not say that vectors of {own.dimensions} dimensions may be cut to {size}."


def _single(subject: Subject, size: int, dtype: StoredDtype | None, label: str) -> Single:
    candidate = subject.candidate("document")
    declared = _arguments(subject.router, **({"dimensions": size} if size != candidate.dimensions else {}))
    names = tuple(dict.fromkeys(model.name for model in declared["models"]))
    prompts = next((model.prompts for model in declared["models"] if model.prompts), None)
    variant = Variant(label, names, size, dtype or candidate.output_dtype, prompts, declared=(declared,))
    return Single(subject, size, dtype, variant)


def known_dtypes(given: Sequence[str]) -> list[StoredDtype]:
    """Return number types of stores.

    Raises:
        ConfigError: a store has no such numbers.
    """
    known: dict[str, StoredDtype] = {name: name for name in STORED_DTYPES}
    if isinstance(given, str) or (unknown := [name for name in given if name not in known]):
        wrong = given if isinstance(given, str) else unknown[0]
        raise ConfigError(f"dtypes= is a list of some of {', '.join(known)}, not {shown_name(wrong)}.")
    return [known[name] for name in dict.fromkeys(given)]


def known_dimensions(given: Sequence[int]) -> list[int]:
    """Return numbers of dimensions.

    Raises:
        ConfigError: one is not a number above 0.
    """
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ConfigError(f"dimensions= is a list of numbers, such as [256, 512], not {shown(given)}.")
    for number in given:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigError(f"dimensions= is a list of numbers above 0, such as [256, 512]; {shown(number)} is none.")
    return list(dict.fromkeys(given))


# Cascades


def pairings(
    given: Sequence[tuple[str, str, float]],
    available: Sequence[Single],
    left_out: Mapping[str, str],
    short: Mapping[str, str],
) -> tuple[list[Pairing], dict[str, str]]:
    """Return the cascades; and those of which a part is left out, with the reason.

    Args:
        short: the short names of models, in place of which a cascade may have the whole ones.

    Raises:
        ConfigError: a part is no variant of this comparison, or a share is no number from 0 to 1.
    """
    by_label = {single.label: single for single in available}
    found: list[Pairing] = []
    missing: dict[str, str] = {}
    for item in given:
        if not isinstance(item, Sequence) or len(item) != 3:
            raise ConfigError(
                "cascades= is a list of (first, second, share), such as ('wordllama:…', 'openai:…', 0.3)."
            )
        first, second = (with_short_names(part, short) if isinstance(part, str) else part for part in item[:2])
        share = item[2]
        Cascade(share)
        label = f"{first}, then {second} for {share:.0%}"
        absent = [part for part in (first, second) if part not in by_label]
        for part in absent:
            if part not in left_out:
                raise ConfigError(
                    f"A cascade is of two variants of this comparison, and {shown_name(part)} is none. Variants are "
                    f"{'; '.join(by_label)}."
                )
        if absent:
            missing[label] = f"{absent[0]} is left out."
            continue
        one, other = by_label[first], by_label[second]
        variant = Variant(
            label,
            (*one.variant.models, *other.variant.models),
            other.dimensions,
            escalated=share,
            declared=(*one.variant.declared, *other.variant.declared),
        )
        found.append(Pairing(one, other, share, variant))
    return list({pairing.label: pairing for pairing in found}.values()), missing
