"""One name given to another collection by two renames, in stores that have no aliases."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .._display import shown_name
from ..errors import ConfigError


def rename_both(there: Collection[str], rename: Callable[[str, str], object], alias: str, to: str, aside: str) -> None:
    """Call the collection ``alias`` ``aside``, then the collection ``to`` ``alias``.

    After the first rename the name leads nowhere, so nothing is read from a wrong collection. Called again it goes on.

    Raises:
        ConfigError: a collection is missing, or a name is taken.
    """
    if is_renamed(there, alias, to, aside):
        return
    if alias in there:
        rename(alias, aside)
    rename(to, alias)


def is_renamed(there: Collection[str], alias: str, to: str, aside: str) -> bool:
    """Return whether both collections have their new names already.

    Raises:
        ConfigError: a collection is missing, or a name is taken.
    """
    if to not in there:
        if alias in there and aside in there:
            return True
        raise ConfigError(f"There is no collection {shown_name(to)} to switch to. Nothing was changed.")
    if alias in there and aside in there:
        raise ConfigError(
            f"The collection {shown_name(alias)} cannot be put aside as {shown_name(aside)}: there is one of that "
            "name. Nothing was changed. Remove or rename it first."
        )
    if alias not in there and aside not in there:
        raise ConfigError(f"There is no collection {shown_name(alias)}. Nothing was changed.")
    return False
