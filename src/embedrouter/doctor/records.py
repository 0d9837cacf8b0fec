"""The vectors of the probe texts as they were on an earlier day.

One small JSON file for each model, input type and set of probe texts, in the folder ``probes`` beside the cache. It is
named after a hash of the model's fingerprint, so that every place that serves the model is held to the same vectors. It
holds no text and no key.
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
from ..models import _agreement as probes
from ..types import InputType, Vectors

__all__ = ["FOLDER", "Record", "Records"]

FOLDER = "probes"
"""Inside the cache's folder, or the user's data folder."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a model made of the probe texts, and when."""

    day: date
    model: str
    vectors: Vectors


class Records:
    """Reads and writes the records in a folder, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, fingerprint: str, input_type: InputType, shape: tuple[int, int]) -> Record | None:
        """Return what is stored, if anything is.

        Raises:
            ConfigError: it is damaged.
        """
        path = self._path(fingerprint, input_type)
        try:
            content = json.loads(path.read_text("utf-8"))
            numbers = np.frombuffer(base64.b64decode(content["vectors"], validate=True), "<f4").reshape(shape)
            if not np.isfinite(numbers).all() or not numbers.any(axis=1).all():
                raise ValueError("not a vector for each text")
            return Record(date.fromisoformat(content["day"]), str(content["model"]), np.asarray(numbers, np.float32))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError, binascii.Error) as error:
            raise ConfigError(f"The probe vectors in {path} cannot be read ({type(error).__name__}).") from error

    def write(self, fingerprint: str, input_type: InputType, record: Record) -> None:
        """Keep a record, over an older one.

        Raises:
            ConfigError: the folder cannot be written.
        """
        content = {
            "probes": probes.VERSION,
            "model": record.model,
            "fingerprint": fingerprint,
            "input_type": input_type,
            "day": record.day.isoformat(),
            "vectors": base64.b64encode(np.ascontiguousarray(record.vectors, "<f4").data).decode("ascii"),
        }
        try:
            for folder in (self.folder.parent, self.folder):  # mkdir's mode is not that of the parents it makes
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=1)
                Path(name).replace(self._path(fingerprint, input_type))
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"The probe vectors cannot be kept in {self.folder} ({error.strerror}).") from error

    def _path(self, fingerprint: str, input_type: InputType) -> Path:
        named = json.dumps([probes.VERSION, fingerprint, input_type])
        return self.folder / f"{blake2b(named.encode(), digest_size=16).hexdigest()}.json"
