"""Drift: whether a model still gives the vectors that it gave on an earlier day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from ..errors import ConfigError
from ..models.agreement import SAME_MODEL_COSINE, lowest_cosine
from ..types import Candidate, InputType, Vectors
from ._finding import Finding, fine, problem, warning
from ._probe_records import ProbeRecord, ProbeRecords

CHANGED = (
    "Do not mix new and old vectors: start a new cache folder and embed the documents again into an empty index, or go "
    "back to the old model. Then accept the new model: repeat with --accept"
)


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """A model that answered under every input type."""

    candidate: Candidate
    name: str
    vectors: Mapping[InputType, Vectors]
    seconds: Mapping[InputType, float]


def check_drift(
    probed: ProbedModel,
    records: ProbeRecords,
    stored: dict[tuple[str, InputType], ProbeRecord],
    today: date,
    *,
    keep: bool,
    accept: bool,
) -> Iterator[Finding]:
    """Compare vectors with the records, and store missing records.

    Args:
        stored: records that this run has written, by fingerprint and input type: they are of no earlier day.
        keep: whether the vectors may be stored: not where deployments of one model disagree.
        accept: whether to replace records that differ.
    """
    fingerprint = probed.candidate.fingerprint
    for kind, vectors in probed.vectors.items():
        if (fingerprint, kind) in stored:  # another deployment of the same model, and the two agree
            continue
        check = f"drift, {kind}"
        try:
            old = records.read(fingerprint, kind, (vectors.shape[0], vectors.shape[1]))
        except ConfigError as error:
            if not accept:
                yield problem(probed.name, check, str(error), "Store today's vectors instead: repeat with --accept.")
                continue
            old = None
        cosine = None if old is None else lowest_cosine(old.vectors, vectors)
        facts = {"cosine": cosine, "since": None if old is None else old.day, "stored": False}
        if cosine is not None and cosine >= SAME_MODEL_COSINE:
            yield fine(probed.name, check, f"none since {facts['since']} (cosine {cosine:.4f})", **facts)
        elif old is not None and not accept:
            story = f"the vectors differ from those of {old.day} (cosine {cosine:.4f}): the provider changed the model"
            yield problem(probed.name, check, story, CHANGED, **facts)
        elif not keep:
            story = "not stored: deployments of this model do not agree"
            yield warning(probed.name, check, story, "Solve that problem first, then repeat.", **facts)
        else:
            new = ProbeRecord(today, probed.name, vectors)
            try:
                records.write(fingerprint, kind, new)
            except ConfigError as error:
                advice = "Make the folder writable, or name another cache folder."
                yield problem(probed.name, check, str(error), advice, **facts)
                continue
            stored[fingerprint, kind] = new
            story = f"today's vectors are stored for comparison in {records.folder}"
            if old is not None:
                story = f"accepted: {story}, instead of those of {old.day} (cosine {cosine:.4f})"
            yield fine(probed.name, check, story, **{**facts, "stored": True})
