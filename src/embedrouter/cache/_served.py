"""Remember the name that a server gives to each declared model, beside the cache.

Some servers answer any name with the model that is loaded. Its vectors may have the right length and are of another
space all the same. So the first name that a server reports for a declared model is kept, and another name later is
refused. Names that differ by a maker's prefix, a tag such as ``:latest`` or a date are one, and so are the names that a
maker has given to one model.
"""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ._records import read_record, write_once

FOLDER = "served"
"""Inside the cache's folder."""

SYNONYMS = {"text-embedding-ada-002-v2": "text-embedding-ada-002", "ada": "text-embedding-ada-002"}
"""Names of one model: OpenAI said ``-v2`` in 2023, not in 2024, and again since 2025; Azure says ``ada``."""

_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})$")


class ServedNames:
    """The names by which servers call the declared models.

    Args:
        folder: of the cache; ``None`` keeps the names in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder / FOLDER if folder else None
        self._names: dict[str, str] = {}

    def known(self, model: str, fingerprint: str) -> str | None:
        """Return the name that this process has seen; no file is read."""
        return self._names.get(_key(model, fingerprint))

    def remember(self, model: str, fingerprint: str, name: str) -> str:
        """Return the name that was reported first, which may be ``name``."""
        path = self.path(model, fingerprint)
        return self._names.setdefault(_key(model, fingerprint), _stored(path, name) if path else name)

    def forget(self, model: str, fingerprint: str) -> None:
        """Forget the name of a model: the next one that is reported is the first."""
        self._names.pop(_key(model, fingerprint), None)
        if (path := self.path(model, fingerprint)) is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def path(self, model: str, fingerprint: str) -> Path | None:
        """Return the file of a model's name, for messages."""
        return self._folder / f"{_key(model, fingerprint)}.json" if self._folder else None


def _stored(path: Path, name: str) -> str:
    """Return the recorded name; without a record, record ``name``. A damaged record is written again."""
    record = {"served_as": name}
    with suppress(OSError):  # a folder that cannot be written keeps no names
        if not path.exists():
            write_once(path, record)
        if path.is_file() and _read(path) is None:
            path.unlink(missing_ok=True)
            write_once(path, record)
    return _read(path) or name


def _read(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(read_record(path)["served_as"])
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
