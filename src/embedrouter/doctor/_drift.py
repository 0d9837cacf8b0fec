"""Drift: whether a model still gives the vectors of the probe texts that it gave on an earlier day.

The vectors are kept in one small JSON file for each model, input type and version of the probe texts, in the folder
``probes`` beside the cache. The file is named after a hash of the model's fingerprint, so that every deployment of a
model is compared with the same vectors. The file contains no text and no key.
"""

import base64
import json
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..cache import read_record, write_again
from ..errors import ConfigError
from ..events import Events, ModelChanged
from ..models.agreement import PROBE_VERSION, SAME_MODEL_COSINE, ProbeVectors, lowest_cosine
from ..types import InputType, Vectors
from ._finding import Finding, fine, problem, warning

PROBE_FOLDER = "probes"
"""Inside the cache's folder, or the user's data folder."""

CHANGED = (
    "Do not mix new and old vectors: start a new cache folder and embed the documents again into an empty index, or go "
    "back to the old model. Then accept the new model: repeat with --accept"
)


class ProbeRecords:
    """Read and write records in a folder, which the first write creates.

    Args:
        version: of the probe texts; a record of another version is not found.
    """

    def __init__(self, folder: Path, version: int = PROBE_VERSION) -> None:
        self.folder = folder
        self._version = version

    def read(self, fingerprint: str, input_type: InputType, shape: tuple[int, ...]) -> tuple[date, Vectors] | None:
        """Return the day and the vectors of the stored record, or ``None``.

        Raises:
            ConfigError: the record is damaged.
        """
        path = self._path(fingerprint, input_type)
        try:
            content = read_record(path)
            vectors = np.frombuffer(base64.b64decode(content["vectors"], validate=True), "<f4").reshape(shape)
            if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
                raise ValueError("a vector is zero or not finite")
            return date.fromisoformat(content["day"]), vectors.astype(np.float32)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ConfigError(f"The probe vectors in {path} cannot be read ({type(error).__name__}).") from error

    def write(self, fingerprint: str, input_type: InputType, day: date, model: str, vectors: Vectors) -> None:
        """Store the record of a model's vectors, in place of an older one.

        Raises:
            ConfigError: the folder cannot be written.
        """
        content = {
            "model": model,
            "fingerprint": fingerprint,
            "input_type": input_type,
            "day": day.isoformat(),
            "vectors": base64.b64encode(vectors.astype("<f4").tobytes()).decode(),
        }
        try:
            write_again(self._path(fingerprint, input_type), content)
        except OSError as error:
            raise ConfigError(f"The probe vectors cannot be stored in {self.folder} ({error.strerror}).") from error

    def _path(self, fingerprint: str, input_type: InputType) -> Path:
        named = json.dumps([self._version, fingerprint, input_type])
        return self.folder / f"{blake2b(named.encode(), digest_size=16).hexdigest()}.json"


def check_drift(
    probed: ProbeVectors, records: ProbeRecords, today: date, *, keep: bool, accept: bool, events: Events
) -> Iterator[Finding]:
    """Compare vectors with the records, and store missing records.

    Args:
        keep: whether the vectors may be stored: not where deployments of one model disagree.
        accept: whether to replace records that differ.
    """
    for kind, vectors in probed.vectors.items():
        check = f"drift, {kind}"
        try:
            old = records.read(probed.fingerprint, kind, vectors.shape)
        except ConfigError as error:
            if not accept:
                yield problem(probed.name, check, str(error), "Store today's vectors instead: repeat with --accept.")
                continue
            old = None
        day, cosine = (old[0], lowest_cosine(old[1].astype(vectors.dtype), vectors)) if old else (None, None)
        facts = {"cosine": cosine, "since": day, "stored": False}
        than_old = f"those of {day} (cosine {cosine:.4f})" if old else ""
        if cosine is not None and cosine >= SAME_MODEL_COSINE:
            yield fine(probed.name, check, f"none since {day} (cosine {cosine:.4f})", **facts)
        elif old and not accept:
            events.emit(
                ModelChanged,
                model=probed.name,
                input_type=kind,
                what="cosine to the vectors of the first check",
                was="1",
                now=f"{cosine:.4f}",
            )
            story = f"the vectors differ from {than_old}: the provider changed the model"
            yield problem(probed.name, check, story, CHANGED, **facts)
        elif not keep:
            story = "not stored: deployments of this model do not agree"
            yield warning(probed.name, check, story, "Solve that problem first, then repeat.", **facts)
        else:
            try:
                records.write(probed.fingerprint, kind, today, probed.name, vectors)
            except ConfigError as error:
                advice = "Make the folder writable, or name another cache folder."
                yield problem(probed.name, check, str(error), advice, **facts)
                continue
            story = f"today's vectors are stored for comparison in {records.folder}"
            if old:
                story = f"accepted: {story}, instead of {than_old}"
            yield fine(probed.name, check, story, **{**facts, "stored": True})
