"""Models: declarations, the catalogue, spaces, tiers, and the settings of a router; ``agreement`` compares models."""

from ._backend import Backend, BatchEndpoint, own_answer, own_counts
from ._catalogue import HUB, LOCAL, PRICE_MAX_AGE, Card, Catalogue, did_you_mean, load_catalogue
from ._declaration import LocalRuntime, Model, check_address, framework_methods, is_secret
from ._no_embedder import NoEmbedder
from ._resolution import custom_card, resolve, shared_space
from ._servers import Server
from ._settings import NO_FOLDERS, RouterSettings, SetOnce, preset
from ._tiers import TIERS, choose_tier, first_given, rank, requested, tier
from ._tokens import MOST_TOKENS, implausible_count, parse_token_count, plausible_count, split_text
