"""What a provider of one's own is made of: see docs/write-a-provider.md.

A package that brings a provider names a module under the entry-point group ``embedrouter.providers``. The module has
``describe(model, catalogue, dimensions)``, which returns a ``Description``, and ``create(model, known, candidate)``,
which returns a ``Backend``. ``HttpBackend`` is a backend that makes one POST of JSON for each request, with the
timeouts, the limits of size, the proxies and the error messages of the package's own providers.
"""

from .models import Backend, BatchEndpoint, Card, Catalogue, Model, Server, custom_card, parse_token_count
from .providers import Description
from .providers._http import HttpBackend, NoVectorsError, decode_vectors, described
from .types import Answer, BatchProgress, Candidate, InputType, TokenCounts

__all__ = [
    "Answer",
    "Backend",
    "BatchEndpoint",
    "BatchProgress",
    "Candidate",
    "Card",
    "Catalogue",
    "Description",
    "HttpBackend",
    "InputType",
    "Model",
    "NoVectorsError",
    "Server",
    "TokenCounts",
    "custom_card",
    "decode_vectors",
    "described",
    "parse_token_count",
]
