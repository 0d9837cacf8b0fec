"""Refuse options that exclude each other."""

import typer


def exclusive(**given: object) -> None:
    """Refuse options that exclude each other.

    Raises:
        BadParameter: more than one option was given.
    """
    if sum(value not in (None, False) for value in given.values()) > 1:
        names = (f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{' and '.join(names)} exclude each other.")
