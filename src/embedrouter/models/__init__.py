"""Models: declarations, the catalogue, spaces, tiers, agreement of models, and the settings of a router."""

from ._agreement import (
    PROBE_TEXTS,
    PROBE_VERSION,
    SAME_MODEL_COSINE,
    Agreement,
    ProbeVectors,
    compare_models,
    highest_cosine_between_texts,
    lowest_cosine,
    require_agreement,
    unique_names,
)
from ._backend import Backend, BatchEndpoint
from ._catalogue import PRICE_MAX_AGE, Card, load_catalogue
from ._declaration import Model, check_address, framework_methods, is_secret
from ._presets import preset
from ._resolution import custom_card, resolve
from ._settings import RouterSettings
from ._spaces import shared_space
from ._tiers import TIERS, first_given, rank, requested, tier
from ._tokens import MOST_TOKENS, parse_token_count, split_text

__all__ = [
    "MOST_TOKENS",
    "PRICE_MAX_AGE",
    "PROBE_TEXTS",
    "PROBE_VERSION",
    "SAME_MODEL_COSINE",
    "TIERS",
    "Agreement",
    "Backend",
    "BatchEndpoint",
    "Card",
    "Model",
    "ProbeVectors",
    "RouterSettings",
    "check_address",
    "compare_models",
    "custom_card",
    "first_given",
    "framework_methods",
    "highest_cosine_between_texts",
    "is_secret",
    "load_catalogue",
    "lowest_cosine",
    "parse_token_count",
    "preset",
    "rank",
    "requested",
    "require_agreement",
    "resolve",
    "shared_space",
    "split_text",
    "tier",
    "unique_names",
]
