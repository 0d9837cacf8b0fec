"""What a model is: its declaration, the catalogue's facts, its space, its tier, and whether models agree."""

from ._agreement import VERSION
from ._backend import Backend, BatchEndpoint
from ._catalogue import Card, load_catalogue
from ._declaration import Model, check_address, is_secret
from ._presets import preset
from ._resolution import custom_card, resolve
from ._spaces import the_one_space
from ._tiers import TIERS, nearest, rank, requested, tier
from ._tokens import MOST_TOKENS, parse_token_count

__all__ = [
    "MOST_TOKENS",
    "TIERS",
    "VERSION",
    "Backend",
    "BatchEndpoint",
    "Card",
    "Model",
    "check_address",
    "custom_card",
    "is_secret",
    "load_catalogue",
    "nearest",
    "parse_token_count",
    "preset",
    "rank",
    "requested",
    "resolve",
    "the_one_space",
    "tier",
]
