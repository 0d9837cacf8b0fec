"""Remember the name that a server gives to each declared model, beside the cache.

Some servers answer any name with the model that is loaded. Its vectors may have the right length and are of another
space all the same. So the first name that a server reports for a declared model is kept, and another name later is
refused. Names that differ by a maker's prefix, a tag such as ``:latest`` or a date are one, and so are the names that a
maker has given to one model.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ._records import FolderRecords, Records

FOLDER = "served"
"""Inside the cache's folder."""

PAUSE = 30.0
"""Seconds after which a name is recorded again on a server that did not answer."""

SYNONYMS = {"text-embedding-ada-002-v2": "text-embedding-ada-002", "ada": "text-embedding-ada-002"}
"""Names of one model: OpenAI said ``-v2`` in 2023, not in 2024, and again since 2025; Azure says ``ada``."""

_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})$")


class ServedNames:
    """The names by which servers call the declared models.

    Args:
        place: the folder of the cache, or records that workers share; ``None`` keeps the names in memory.
    """

    def __init__(self, place: Path | Records | None) -> None:
        self._records = FolderRecords(place / FOLDER) if isinstance(place, Path) else place
        self._names: dict[str, str] = {}
        self._again: dict[str, float] = {}
        """When the record of a name is tried again that a server did not answer for."""

    def known(self, model: str, fingerprint: str) -> str | None:
        """Return the name that this process has seen; nothing is read. ``None``: ``remember`` it."""
        key = _key(model, fingerprint)
        if (again := self._again.get(key)) is not None and time.monotonic() >= again:
            return None
        return self._names.get(key)

    def remember(self, model: str, fingerprint: str, name: str) -> str:
        """Return the name that was reported first, which may be ``name``."""
        key = _key(model, fingerprint)
        stored = None if self._records is None else _stored(self._records, key, self._names.get(key, name))
        if stored is not None:
            self._again.pop(key, None)
            self._names[key] = stored
        elif self._records is not None and self._records.shared:
            self._again[key] = time.monotonic() + PAUSE
        return self._names.setdefault(key, name)

    def forget(self, model: str, fingerprint: str) -> None:
        """Forget the name of a model: the next one that is reported is the first."""
        key = _key(model, fingerprint)
        self._names.pop(key, None)
        if self._records is not None:
            with suppress(OSError):
                self._records.remove(key)

    def path(self, model: str, fingerprint: str) -> Path | None:
        """Return the file of a model's name, for messages."""
        key = _key(model, fingerprint)
        return self._records.path(key) if isinstance(self._records, FolderRecords) else None


def _stored(records: Records, key: str, name: str) -> str | None:
    """Return the recorded name; without a record, record ``name``. A damaged record is written again.

    Returns:
        ``None`` where nothing can be read or written: then no name is kept.
    """
    with suppress(OSError):
        records.write_once(key, {"served_as": name})
        if (known := _read(records, key)) is not None:
            return known
        records.write_again(key, {"served_as": name})
        return _read(records, key)
    return None


def _read(records: Records, key: str) -> str | None:
    with suppress(ValueError, KeyError, TypeError):
        return str(records.read(key)["served_as"])
    return None


def same_name(one: str, other: str) -> bool:
    """Return whether two reported names mean one model."""
    (one_name, one_tag), (other_name, other_tag) = _parts(one), _parts(other)
    return one_name == other_name and (one_tag == other_tag or not one_tag or not other_tag)


def _parts(name: str) -> tuple[str, str]:
    """Return the name without the maker's prefix and a date, and the tag, empty where the tag is ``latest``."""
    base, _, tag = name.strip().lower().rpartition("/")[2].partition(":")
    base = _DATE.sub("", base)
    return SYNONYMS.get(base, base), "" if tag == "latest" else tag


def _key(model: str, fingerprint: str) -> str:
    return blake2b(f"{model}\0{fingerprint}".encode(), digest_size=16).hexdigest()
