"""Presets: the settings of ready-made routers.

In a family of models the best model embeds documents and the cheapest one queries, in one space.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ._declaration import Model

NANO = "sentence-transformers:voyageai/voyage-4-nano"

PRESETS: dict[str, dict[str, Any]] = {
    "voyage-4": {
        "models": [
            Model("voyage:voyage-4-large", tier="high"),
            Model("voyage:voyage-4", tier="medium"),
            Model("voyage:voyage-4-lite", tier="low"),
        ],
        "dimensions": 1024,
        "query_tier": "low",
    },
    "cohere-v5": {
        "models": [Model("cohere:embed-v5.0-pro", tier="high"), Model("cohere:embed-v5.0-fast", tier="low")],
        "query_tier": "low",
    },
    "openai-small": {"models": ["openai:text-embedding-3-small"]},
    "openai-large": {"models": ["openai:text-embedding-3-large"]},
    "local": {"models": ["sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"]},
    "offline": {"models": ["wordllama:l2_supercat_256"]},
}


def preset(name: str, revision: str | None = None, trust_remote_code: bool = False) -> dict[str, Any]:
    """Return the arguments of ``Router`` for a preset.

    Raises:
        ConfigError: the name is unknown, or the local model is requested from another preset or without its conditions.
    """
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}. Choose one of {', '.join(PRESETS)}.")
    settings = dict(PRESETS[name])
    if revision is not None or trust_remote_code:
        if name != "voyage-4":
            raise ConfigError(f"revision= and trust_remote_code= are for the preset 'voyage-4', not {name!r}.")
        nano = Model(NANO, tier="low", revision=revision, trust_remote_code=trust_remote_code)
        settings["models"] = [*settings["models"], nano]
    return settings
