"""Stores that are saved as a whole: files and folders that a program reads at its start.

Rows are gathered in a draft beside the store. ``finish`` writes the whole store beside its name, puts it on disk, and
gives it the name; a run that is killed leaves the last whole one, and the draft.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .._display import shown_name
from ..errors import ConfigError
from ..retrieval.store_guard import Marked, Row, hold, metadata
from ..router import Router
from ..types import Vectors
from ._beside import beside_file, in_folder, write_beside
from ._draft import OF_FORMAT, Draft, has_begun
from ._exact import nearest
from ._metadata import unkeepable
from ._renaming import rename_both
from ._transfer import Distance, NotSwitchable, Readable, StoredText

PAGE = 500
"""Rows of a draft in memory at once."""


class Saved(Marked, Protocol):
    """A store as it is on disk, which is only read; see ``Readable``."""

    path: Path

    def distance(self) -> Distance | None: ...
    def count(self) -> int: ...
    def pages(self, size: int) -> Iterator[Sequence[StoredText]]: ...
    def ids(self) -> Iterator[str]: ...
    def fetch(self, ids: Sequence[str]) -> Sequence[tuple[StoredText, Vectors]]: ...
    def search(self, vector: Vectors, count: int) -> Sequence[str]: ...

    def settings(self) -> Mapping[str, Any]:
        """Return what a new store of the same layout is written with."""
        ...


class Format(Protocol):
    """One way in which stores are saved."""

    kind: str
    suffix: str
    """Of the names; empty for folders."""

    def is_saved_in(self, path: Path) -> bool:
        """Return whether a store of this format is at a path."""
        ...

    def read(self, path: Path) -> Saved:
        """Return the store at a path."""
        ...

    def save(self, path: Path, draft: Draft) -> None:
        """Write the rows and entries of a draft to a new file, or into a new folder."""
        ...

    def settings(self, like: Readable | None) -> Mapping[str, Any]:
        """Return what a store that is like another is written with."""
        ...


class WholeStore:
    """One store, as it was saved, or as it is being written."""

    def __init__(self, path: Path, form: Format, database: WholeDatabase) -> None:
        self.kind, self.name, self._form, self.database = form.kind, path.name, form, database
        self.path = path.resolve() if path.is_symlink() else path
        self.title = f"The {'file' if form.suffix else 'folder'} {str(path)!r}"
        self.place = shlex.quote(str(path))
        self._read: tuple[object, Saved] | None = None
        self._draft: Draft | None = Draft(draft) if has_begun(draft := draft_of(self.path)) else None

    @property
    def saved(self) -> Saved:
        """The store as it is on disk; read again when another program has changed it."""
        stamp = _stamp(self.path)
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, self._form.read(self.path)
        return self._read[1]

    # The mark

    def read(self) -> Mapping[str, Any]:
        return _kept(self._draft.entries()) if self._draft else self.saved.read()

    def write(self, entries: Mapping[str, str | int]) -> None:
        if self._draft:
            self._draft.write_entries(entries)
        else:
            self.saved.write(entries)

    def dimensions(self) -> int | None:
        return self.saved.dimensions() if self._draft is None else 0 if self._draft.count() else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into a store of another name, or after it was removed."

    def sample(self, count: int) -> Sequence[Row]:
        return self.saved.sample(count)

    # Reading

    def distance(self) -> Distance | None:
        return None if self._draft else self.saved.distance()

    def count(self) -> int:
        return self._draft.count() if self._draft else self.saved.count()

    def ids(self) -> Iterator[str]:
        yield from (self._draft or self.saved).ids()

    def pages(self, size: int) -> Iterator[Sequence[StoredText]]:
        if self._draft is None:
            yield from self.saved.pages(size)
            return
        for page in self._draft.pages(size):
            yield [row for row, _ in page]

    def fetch(self, ids: Sequence[str]) -> Sequence[tuple[StoredText, Vectors]]:
        return (self._draft or self.saved).fetch(ids)

    def search(self, vector: Vectors, count: int) -> Sequence[str]:
        if self._draft is None:
            return self.saved.search(vector, count)
        pages = (([row.id for row, _ in page], np.array([one for _, one in page])) for page in self._draft.pages(PAGE))
        return nearest(pages, vector, count)

    # Writing

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        self._writing().write(rows, vectors)

    def remove(self, ids: Sequence[str]) -> None:
        self._writing().remove(ids)

    def begin(self, entries: Mapping[str, Any]) -> None:
        """Begin a new store, with its mark and the settings of its format."""
        self._draft = Draft(draft_of(self.path))
        self._draft.write_entries(entries)

    def finish(self) -> None:
        """Save the whole store, if anything was written since it was saved."""
        if self._draft is None:
            return
        part = self.path.with_name(f".part-{self.path.name}")
        _remove(part)
        self._form.save(part, self._draft)
        entries = self._entries(self.path if self._form.suffix else part)
        write_beside(entries, _kept(self._draft.entries()))
        put_on_disk(part)
        if self.path.is_dir():  # a folder is not replaced in one step: the draft stays until the new one is there
            old = _replaced(self.path)
            _remove(old)
            self.path.replace(old)
            part.replace(self.path)
            _remove(old)
        else:
            part.replace(self.path)
        put_on_disk(self.path.parent, alone=True)
        self._draft.discard()
        self._draft = None

    def _entries(self, path: Path) -> Path:
        return beside_file(path) if self._form.suffix else in_folder(path)

    def drop(self) -> None:
        if self._draft:
            self._draft.discard()
            self._draft = None
        _remove(self.path)
        if self._form.suffix:
            _remove(beside_file(self.path))

    def close(self) -> None:
        if self._draft:
            self._draft.close()

    def _writing(self) -> Draft:
        """Return the draft; of a store that was saved it is made from what was saved."""
        if self._draft is None:
            saved = self.saved
            whole = Draft(unfinished := self.path.with_name(f".part-{draft_of(self.path).name.lstrip('.')}"))
            try:
                for page in saved.pages(PAGE):
                    rows = saved.fetch([row.id for row in page])
                    whole.write([row for row, _ in rows], np.array([vector for _, vector in rows]))
                whole.write_entries({**saved.settings(), **saved.read()})
            finally:
                whole.close()
            unfinished.replace(draft_of(self.path))
            self._draft = Draft(draft_of(self.path))
        return self._draft


class WholeDatabase:
    """The folder in which stores of one format stand, each a file or a folder of its own."""

    def __init__(self, folder: Path, form: Format, named: str | None = None) -> None:
        self.kind, self.named, self._folder, self._form = form.kind, named, folder, form
        self.title = f"The folder {str(folder)!r}"
        self.place = shlex.quote(str(folder / named if named else folder))
        self._open: list[WholeStore] = []

    def names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        there = {one.name for one in self._folder.iterdir() if not one.name.startswith(".")}
        there |= {name for one in self._folder.glob(".*.draft") if (name := one.name[1:].removesuffix(".draft"))}
        return sorted(name for name in there if self._is_ours(self._folder / name))

    def _is_ours(self, path: Path) -> bool:
        return self._form.is_saved_in(path) or has_begun(draft_of(path))

    def fitting_name(self, wanted: str) -> str:
        name = "".join("-" if sign in '/\\:*?"<>|' or not sign.isprintable() else sign for sign in wanted).strip(" .-")
        stem = (name.removesuffix(self._form.suffix) or "index").encode()[:200].decode("utf-8", "ignore")
        return stem + self._form.suffix

    def refusal(self, row: StoredText) -> str | None:
        return unkeepable(row)

    def open(self, name: str) -> WholeStore:
        path = self._folder / name
        if not path.exists() and not has_begun(draft_of(path)):
            raise ConfigError(f"There is no {str(path)!r}.")
        return self._opened(path)

    def create(self, name: str, router: Router, like: Readable | None = None) -> WholeStore:
        path = self._folder / name
        if not path.exists() and (old := _replaced(path)).exists():
            old.replace(path)  # the run was killed while it replaced a folder
        if path.exists() or has_begun(draft_of(path)):
            made = self._opened(path)
            hold(made, router, adopt=False)
            return made
        self._folder.mkdir(parents=True, exist_ok=True)
        made = self._opened(path)
        made.begin({**self._form.settings(like), **metadata(router)})
        return made

    def leads_to(self, alias: str) -> str | None:
        path = self._folder / alias
        return str(path.readlink()) if path.is_symlink() else None

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Turn a link, in one step; or rename both, where the name is no link."""
        link = self._folder / alias
        if not (self._folder / to).exists() and not link.exists():
            raise NotSwitchable(f"There is no {shown_name(to)} in {self.title}. Nothing was changed.")
        if link.is_symlink():
            turned = self._folder / f".link-{alias}"
            turned.unlink(missing_ok=True)
            turned.symlink_to(to)
            turned.replace(link)
        else:
            rename_both(self.names(), self._rename, alias, to, aside)
        put_on_disk(self._folder, alone=True)

    def _rename(self, old: str, new: str) -> None:
        """Give a store another name; that of a file's entries first, because they count only beside the file."""
        before, after = self._folder / old, self._folder / new
        pairs = [(draft_of(before), draft_of(after)), (before, after)]
        if self._form.suffix:
            pairs.insert(0, (beside_file(before), beside_file(after)))
        for one, other in pairs:
            if one.exists():
                one.rename(other)

    def close(self) -> None:
        for store in self._open:
            store.close()

    def _opened(self, path: Path) -> WholeStore:
        self._open.append(store := WholeStore(path, self._form, self))
        return store


def _replaced(path: Path) -> Path:
    """Return the name of a folder while another takes its place."""
    return path.with_name(f".old-{path.name}")


def _stamp(path: Path) -> object:
    """Return what changes when a file or the files of a folder are written."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    return [(file.name, (found := file.stat()).st_mtime_ns, found.st_size, found.st_ino) for file in files]


def _kept(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are written into the store."""
    return {name: value for name, value in entries.items() if not name.startswith(OF_FORMAT)}


def draft_of(path: Path) -> Path:
    """Return the file with the draft of a store."""
    return path.with_name(f".{path.name}.draft")


def put_on_disk(path: Path, *, alone: bool = False) -> None:
    """Have the system write a file, or a folder with its files, to the disk."""
    for one in [path] if alone or path.is_file() else [*path.rglob("*"), path]:
        if os.name == "nt" and one.is_dir():
            continue  # Windows opens no folders
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    remove: Callable[[Path], object] = shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink
    if path.exists() or path.is_symlink():
        remove(path)
