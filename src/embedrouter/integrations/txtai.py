"""txtai vectors in front of a router.

    from embedrouter.integrations.txtai import METHOD

    embeddings = Embeddings(method=METHOD, path="openai:text-embedding-3-small", content=True)

``path`` is a router, or what one is built of; ``vectors`` are the other arguments of ``RouterVectors``. txtai keeps
both in the index, without keys, so ``Embeddings().load(folder)`` builds the router anew, in another process too.
"""

from functools import cached_property
from typing import Any

import numpy as np

from ..providers.versions import require_extra

require_extra(__name__, "txtai", "txtai")

from txtai.vectors import Vectors as TxtaiVectors

from ..errors import ConfigError, SpaceMismatchError
from ..retrieval.given_router import as_router
from ..retrieval.index_guard import GuardedRouter
from ..retrieval.stored_router import described
from ..router import Router
from ..types import InputType, Vectors

__all__ = ["METHOD", "RouterVectors"]

METHOD = f"{__name__}.RouterVectors"
"""The ``method`` of txtai's configuration."""
OWN = ("query_tier", "document_tier", "index")
SPACE = "embedrouter"
"""The entry of the configuration that names the space."""


class RouterVectors(TxtaiVectors):
    """Embed through a router, wherever txtai takes a vector model. What is indexed is documents, all else queries.

    txtai normalises the vectors.

    In the configuration of the index ``path`` is a router, the name of a model, a list of models, or the path of a TOML
    file; ``vectors`` has ``query_tier``, ``document_tier``, ``index`` (a name for the index, on this machine) and
    arguments of ``Router``, such as ``budget``, where the router is built here.

    Raises:
        ConfigError: at the first use: ``path`` is none of these, or a setting is wrong. (txtai turns errors of the
            construction into an ``ImportError`` without the reason.)
        SpaceMismatchError: at the first use: the index was made in another space.
    """

    @property
    def router(self) -> Router:
        """The one router in front of the index."""
        return self._guarded.router

    def loadmodel(self, path: Any) -> None:
        """Load nothing: the router is built at the first use."""

    def encode(self, data: Any, category: str | None = None) -> Vectors:
        """Return one row per text, as float32; see ``Router.embed`` for the errors."""
        kind: InputType = "document" if category == "data" else "query"
        tier = (self.config.get("vectors") or {}).get(f"{kind}_tier")
        return np.array(self._guarded.result(list(data), kind, tier).vectors, np.float32)

    @cached_property
    def _guarded(self) -> GuardedRouter:
        given = dict(self.config.get("vectors") or {})
        own = {name: given.pop(name) for name in OWN if name in given}
        if self.config.get("path") is None:
            raise ConfigError('path= is missing: Embeddings(method=METHOD, path="openai:text-embedding-3-small").')
        guarded = GuardedRouter(as_router(self.config["path"], given), own.get("index"))
        guarded.require_tiers(own.get("query_tier"), own.get("document_tier"))
        space = str(guarded.router.space)
        if self.config.setdefault(SPACE, space) != space:
            raise SpaceMismatchError(
                f"The index is in the space {self.config[SPACE]}, and its router gives {space} now. Load the index "
                "with the models that filled it, or index the texts again."
            )
        self.config.update(path=described(guarded.router), vectors=own)  # what txtai can write into the index
        return guarded
