"""Stored vectors of the probe texts, from an earlier day.

One small JSON file for each model, input type and version of the probe texts, in the folder ``probes`` beside the
cache. The file is named after a hash of the model's fingerprint, so that every deployment of a model is compared with
the same vectors. The file contains no text and no key.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..models.agreement import PROBE_VERSION
from ..types import InputType, Vectors

PROBE_FOLDER = "probes"
"""Inside the cache's folder, or the user's data folder."""


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """The vectors of the probe texts by one model on one day."""

    day: date
    model: str
    vectors: Vectors


class ProbeRecords:
    """Read and write records in a folder, which the first write creates.

    Args:
        version: of the probe texts; a record of another version is not found.
    """

    def __init__(self, folder: Path, version: int = PROBE_VERSION) -> None:
        self.folder = folder
        self._version = version

    def read(self, fingerprint: str, input_type: InputType, shape: tuple[int, int]) -> ProbeRecord | None:
        """Return the stored record, or ``None``.

        Raises:
            ConfigError: the record is damaged.
        """
        path = self._path(fingerprint, input_type)
        try:
            content = json.loads(path.read_text("utf-8"))
            vectors = np.frombuffer(base64.b64decode(content["vectors"], validate=True), "<f4").reshape(shape)
            if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
                raise ValueError("a vector is zero or not finite")
            day = date.fromisoformat(content["day"])
            return ProbeRecord(day, str(content["model"]), np.asarray(vectors, np.float32))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError, binascii.Error) as error:
            raise ConfigError(f"The probe vectors in {path} cannot be read ({type(error).__name__}).") from error

    def write(self, fingerprint: str, input_type: InputType, record: ProbeRecord) -> None:
        """Store a record, in place of an older one.

        Raises:
            ConfigError: the folder cannot be written.
        """
        content = {
            "probes": self._version,
            "model": record.model,
            "fingerprint": fingerprint,
            "input_type": input_type,
            "day": record.day.isoformat(),
            "vectors": base64.b64encode(np.ascontiguousarray(record.vectors, "<f4").data).decode("ascii"),
        }
        try:
            for folder in (self.folder.parent, self.folder):  # mkdir's mode does not apply to the parents it creates
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=1)
                Path(name).replace(self._path(fingerprint, input_type))
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"The probe vectors cannot be stored in {self.folder} ({error.strerror}).") from error

    def _path(self, fingerprint: str, input_type: InputType) -> Path:
        named = json.dumps([self._version, fingerprint, input_type])
        return self.folder / f"{blake2b(named.encode(), digest_size=16).hexdigest()}.json"
