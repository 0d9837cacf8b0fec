"""The two environments: ours is the one that runs the benchmarks, the peers' is made once and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import embedrouter
from tests.environments import environment, place

REQUIREMENTS = Path(__file__).parent / "peers.txt"


def peers_folder() -> Path:
    """Return the folder of the peers' environment, made if it is not there yet (some minutes, and the network)."""
    return environment(REQUIREMENTS)


def variables(folder: Path) -> Mapping[str, str]:
    """Return what both environments are told.

    Both find the tokenizer's vocabulary that LlamaIndex ships, because `langchain-openai` would download it; nothing
    else may reach the network. And both keep compiled code, as is usual: imports would compile our own each time.
    """
    return {
        "TIKTOKEN_CACHE_DIR": str(Path(place(folder, "purelib")) / "llama_index/core/_static/tiktoken_cache"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": "",
    }


def ours() -> Mapping[str, str]:
    """Return what our environment is told besides: where the package under test is."""
    return {"PYTHONPATH": str(Path(embedrouter.__file__).parents[1])}
