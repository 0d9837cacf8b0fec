"""One name given to another collection by two renames, in stores that have no aliases."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .._display import shown_name
from ..errors import ConfigError


def rename_both(
    names: Callable[[], Collection[str]], rename: Callable[[str, str], object], alias: str, to: str, aside: str
) -> None:
    """Call the collection ``alias`` ``aside``, then the collection ``to`` ``alias``.

    After the first rename the name leads nowhere, so nothing is read from a wrong collection. Called again it goes on.

    Raises:
        ConfigError: a collection is missing, or a name is taken.
    """
    there = names()
    if to not in there:
        if alias in there and aside in there:
            return  # it was done before
        raise ConfigError(f"There is no collection {shown_name(to)} to switch to. Nothing was changed.")
    if alias in there:
        if aside in there:
            raise ConfigError(
                f"The collection {shown_name(alias)} cannot be put aside as {shown_name(aside)}: there is one of that "
                "name. Nothing was changed. Remove or rename it first."
            )
        rename(alias, aside)
    elif aside not in there:
        raise ConfigError(f"There is no collection {shown_name(alias)}. Nothing was changed.")
    rename(to, alias)
