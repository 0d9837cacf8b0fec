"""scikit-learn transformer in front of a router, for pipelines and for BERTopic.

from embedrouter.integrations.sklearn import RouterTransformer

make_pipeline(RouterTransformer("openai:text-embedding-3-small"), LogisticRegression()).fit(texts, labels)
BERTopic(embedding_model=make_pipeline(RouterTransformer("openai:text-embedding-3-small")))
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from ..providers.versions import require_extra

require_extra(__name__, "sklearn", "sklearn")

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from ..errors import InvalidInputError
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter
from ..types import InputType, Vectors

__all__ = ["RouterTransformer"]


class RouterTransformer(TransformerMixin, BaseEstimator):
    """Turn texts into vectors through a router. There is nothing to learn, so ``fit`` is optional.

    Clones share the router, so that a search over parameters pays once for each text.

    Args:
        router: the one router of the space; a ``TieredRouter`` is refused, because a model is trained in one space. Or
            the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        input_type: ``"document"`` for texts that are classified, clustered or searched, ``"query"`` for questions.
        tier: the tier of texts, over the router's.
        settings: arguments of ``Router``, such as ``{"budget": "5.00/day"}``, where the router is built here.

    Raises:
        ConfigError: at the first use: ``router`` is none of these, or a setting is wrong.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        input_type: InputType = "document",
        tier: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.router = router
        self.input_type: InputType = input_type
        self.tier = tier
        self.settings = settings

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts and the settings; nothing is embedded."""
        _texts(X)
        self._opened()
        return self

    def transform(self, X: Any) -> Vectors:
        """Return one row per text, as float32; see ``Router.embed`` for the errors.

        Args:
            X: a list, a column or an array of texts.
        """
        result = self._opened().result(_texts(X), self.input_type, self.tier)
        return np.array(result.vectors, np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return a name for each number of a vector."""
        return np.array([f"embedding{number}" for number in range(self._opened().router.space.dimensions)], object)

    def _opened(self) -> GuardedRouter:
        """Return the router, built at the first use: scikit-learn keeps and sets arguments as they are."""
        given = (self.router, self.settings)
        if getattr(self, "_given", None) != given:
            self._guarded = GuardedRouter(as_router(self.router, self.settings or {}), None)
            self._given = given
        self._guarded.require_tiers(self.tier)
        return self._guarded

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params(deep=False))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _texts(X: Any) -> list[Any]:
    """Return the texts of a list, of a column, or of a table of one column.

    Raises:
        InvalidInputError: there are several columns.
    """
    shape = np.shape(X) if hasattr(X, "shape") else ()
    if len(shape) > 1:
        if shape[1:] != (1,):
            raise InvalidInputError(
                f"RouterTransformer takes one column of texts, not a table of the shape {shape}. Choose the column: "
                "ColumnTransformer([('text', RouterTransformer(…), 'the column')])."
            )
        X = np.asarray(X, object)[:, 0]
    return list(X)
