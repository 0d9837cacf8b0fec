"""How models in folders are shown: by the last parts of the path, as many as tell the folders apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

PARTS = 2
"""Of a path, at least."""
SNAPSHOTS = "snapshots"
"""The folder of the hub's cache in which a commit names each folder; the model's name is above."""


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the short names of models in folders, by their whole names, where these are longer."""
    paths = {name: parts for name in names if (parts := _parts(name))}
    found: dict[str, str] = {}
    for name, parts in paths.items():
        count = PARTS + (SNAPSHOTS in parts[-PARTS:])
        while any(other[-count:] == parts[-count:] for other in paths.values() if other != parts):
            count += 1
        if count < len(parts) - 1:
            found[name] = f"{name.partition(':')[0]}:…/{'/'.join(parts[-count:])}"
    return found


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of the path of a model's folder; of any other name none."""
    place = Path(name.partition(":")[2]).expanduser()
    try:
        return place.absolute().parts if place.is_dir() and place.name else ()
    except OSError:  # a name that no path can be
        return ()


def with_short_names(label: str, short: Mapping[str, str]) -> str:
    """Return a label in which models in folders have their short names."""
    for name in sorted(short, key=len, reverse=True):
        label = label.replace(name, short[name])
    return label
