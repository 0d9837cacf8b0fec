"""Embed with Ray Data: ``Embed``, a class for ``Dataset.map_batches``. Importing this imports no Ray."""

from ._embed import Embed

__all__ = ["Embed"]
