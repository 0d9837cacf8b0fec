"""Whether a model still gives the vectors that it gave on an earlier day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from ..errors import ConfigError
from ..models import _agreement as probes
from ..types import Candidate, InputType, Vectors
from .finding import Finding, fine, problem, warning
from .records import Record, Records

__all__ = ["Probed", "drifted"]


@dataclass(frozen=True, slots=True)
class Probed:
    """A model that answered under every input type."""

    candidate: Candidate
    name: str
    vectors: Mapping[InputType, Vectors]
    seconds: Mapping[InputType, float]


def drifted(
    probed: Probed,
    records: Records,
    stored: dict[tuple[str, InputType], Record],
    today: date,
    *,
    keep: bool,
    accept: bool,
) -> Iterator[Finding]:
    """Compare with the records, and store what is missing.

    Args:
        stored: what this run has stored, which is no earlier day.
        keep: whether the vectors may be stored: not where places that claim to be one model disagree.
    """
    fingerprint = probed.candidate.fingerprint
    for kind, vectors in probed.vectors.items():
        if (fingerprint, kind) in stored:  # another place of the same model, with which it agrees
            continue
        check = f"drift, {kind}"
        new = Record(today, probed.name, vectors)
        try:
            old = records.read(fingerprint, kind, (vectors.shape[0], vectors.shape[1]))
        except ConfigError as error:
            if not accept:
                yield problem(probed.name, check, str(error), "Repeat with --accept to store today's in its place.")
                continue
            old = None
        least = None if old is None else probes.cosine(old.vectors, vectors)
        facts = {"cosine": least, "since": None if old is None else old.day, "stored": False}
        if old is not None and least is not None and least >= probes.SAME:
            yield fine(probed.name, check, f"none since {old.day} (cosine {least:.4f})", **facts)
            continue
        if old is not None and least is not None and not accept:
            yield problem(
                probed.name,
                check,
                f"the vectors are not those of {old.day}: cosine {least:.4f}. The model behind the name was changed",
                "New vectors must not meet the old ones: start a new cache folder and embed the documents again into "
                "an empty index, or go back to the old model. Then accept the new one: repeat with --accept",
                **facts,
            )
            continue
        if not keep:
            yield warning(
                probed.name, check, "not stored: its places do not agree", "Settle that first, then repeat.", **facts
            )
            continue
        try:
            records.write(fingerprint, kind, new)
        except ConfigError as error:
            yield problem(
                probed.name, check, str(error), "Make the folder writable, or name another cache folder.", **facts
            )
            continue
        stored[fingerprint, kind] = new
        story = f"today's vectors are stored for comparison in {records.folder}"
        if old is not None:
            story = f"accepted: {story}, in place of those of {old.day} (cosine {least:.4f})"
        yield fine(probed.name, check, story, **{**facts, "stored": True})
