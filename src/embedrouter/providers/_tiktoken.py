"""tiktoken encodings, if their vocabulary is on this machine.

tiktoken's package holds no vocabulary: it downloads one on first use, without a time limit. Here an encoding is used
only if the vocabulary's file is in tiktoken's folder, or in llama-index-core's, and is intact; otherwise token counts
are estimates. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from .._process import importing

if TYPE_CHECKING:
    from tiktoken import Encoding

VOCABULARIES = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    )
}
"""The name of a vocabulary's file in tiktoken's folder (the SHA-1 of its address) and the SHA-256 of its content."""

FOLDER = "TIKTOKEN_CACHE_DIR"


@cache
def encoding(name: str) -> Encoding | None:
    """Return an encoding, or ``None`` where it cannot be loaded without the network."""
    if name not in VOCABULARIES or util.find_spec("tiktoken") is None:
        return None
    filename, sha256 = VOCABULARIES[name]
    for folder in _folders():
        file = folder / filename
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            return _load(name, folder)
    return None


def _folders() -> list[Path]:
    """Return tiktoken's folder, and the one that llama-index-core ships."""
    chosen = os.environ.get(FOLDER) or os.environ.get("DATA_GYM_CACHE_DIR")
    llama_index = util.find_spec("llama_index")
    shipped = (llama_index and llama_index.submodule_search_locations) or ()
    return [
        Path(chosen or Path(tempfile.gettempdir(), "data-gym-cache")),
        *(Path(place, "core/_static/tiktoken_cache") for place in shipped),
    ]


def _load(name: str, folder: Path) -> Encoding:
    with importing:  # one thread at a time, because tiktoken takes the folder from the environment only
        import tiktoken

        before = os.environ.get(FOLDER)
        os.environ[FOLDER] = str(folder)
        try:
            return tiktoken.get_encoding(name)
        finally:
            if before is None:
                del os.environ[FOLDER]
            else:
                os.environ[FOLDER] = before
