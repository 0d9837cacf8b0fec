"""txtai vectors in front of a router.

    from embedrouter.integrations.txtai import METHOD

    embeddings = Embeddings(method=METHOD, path="openai:text-embedding-3-small", content=True)

``path`` is a router, or what one is built of; ``vectors`` are the other arguments of ``RouterVectors``. txtai keeps
both in the index, without keys, so ``Embeddings().load(folder)`` builds the router anew, in another process too.
"""

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

    Args:
        config: of the index. ``path`` is a router, the name of a model, a list of models, or the path of a TOML file;
            ``vectors`` has ``query_tier``, ``document_tier``, ``index`` (a name for the index, on this machine) and
            arguments of ``Router``, such as ``budget``, where the router is built here.

    Raises:
        ConfigError: ``path`` is none of these, or a setting is wrong; the message has the line to write.
        SpaceMismatchError: the index was made in another space.
    """

    def __init__(self, config: dict[str, Any], scoring: Any, models: Any) -> None:
        settings = dict(config.get("vectors") or {})
        own = {name: settings.pop(name, None) for name in OWN}
        if config.get("path") is None:
            raise ConfigError('path= is missing: Embeddings(method=METHOD, path="openai:text-embedding-3-small").')
        self._guarded = GuardedRouter(as_router(config["path"], settings), own.pop("index"))
        self._guarded.require_tiers(*own.values())
        self._tiers: dict[InputType, str | None] = {"query": own["query_tier"], "document": own["document_tier"]}
        made_in = config.setdefault(SPACE, str(self.router.space))
        if made_in != str(self.router.space):
            raise SpaceMismatchError(
                f"The index is in the space {made_in}, and its router gives {self.router.space} now. Load the index "
                "with the models that filled it, or index the texts again."
            )
        if not isinstance(config["path"], str | list):
            config["path"] = described(self.router)  # what txtai can write into the index
            config["vectors"] = {name: value for name, value in (config.get("vectors") or {}).items() if name in OWN}
        super().__init__(config, scoring, models)

    @property
    def router(self) -> Router:
        """The one router in front of the index."""
        return self._guarded.router

    def loadmodel(self, path: Any) -> Router:
        """Return the router, which is there already."""
        return self.router

    def encode(self, data: Any, category: str | None = None) -> Vectors:
        """Return one row per text, as float32; see ``Router.embed`` for the errors."""
        kind: InputType = "document" if category == "data" else "query"
        return np.array(self._guarded.result(list(data), kind, self._tiers[kind]).vectors, np.float32)
