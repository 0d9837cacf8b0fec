"""Token counts, the same for everyone who asks, and never from the network.

OpenAI's texts are counted with the real cl100k_base vocabulary when a copy of it lies on this machine (llama-index
ships one), so that limits bite where they bite in production. The other makers' tokenizers would need a download, so
their texts are counted by a rule: one token for each CJK character, each punctuation mark, and each run of up to
twelve letters or digits. The rule is close enough for limits and exact enough for bills, because it never changes.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from unittest import mock

if TYPE_CHECKING:
    import tiktoken

Side = Literal["START", "END"]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]{{1,12}}|[^\w\s]|_")
_CL100K_FILE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


def count_tokens(provider: str, text: str) -> int:
    """Return how many tokens `provider` bills for `text`."""
    encoding = _cl100k() if provider in ("openai", "azure") else None
    if encoding is not None:
        return len(encoding.encode_ordinary(text))
    return len(_TOKEN.findall(text))


def truncate(text: str, limit: int, discard: Side = "END") -> str:
    """Return the part of `text` within `limit` tokens, dropping what lies over it at the given side."""
    spans = [match.span() for match in _TOKEN.finditer(text)]
    if len(spans) <= limit:
        return text
    return text[: spans[limit - 1][1]] if discard == "END" else text[spans[-limit][0] :]


def decode(tokens: Sequence[int]) -> str:
    """Return the text behind OpenAI token ids, or a stand-in that is as unique when the vocabulary is missing."""
    encoding = _cl100k()
    return encoding.decode(list(tokens)) if encoding is not None else " ".join(f"t{token}" for token in tokens)


@functools.cache
def _cl100k() -> tiktoken.Encoding | None:
    directory = _vocabulary_directory()
    if directory is None:
        return None
    import tiktoken

    with mock.patch.dict(os.environ, {"TIKTOKEN_CACHE_DIR": str(directory)}):
        return tiktoken.get_encoding("cl100k_base")


def _vocabulary_directory() -> Path | None:
    if importlib.util.find_spec("tiktoken") is None or importlib.util.find_spec("llama_index") is None:
        return None
    core = importlib.util.find_spec("llama_index.core")
    if core is None or core.origin is None:
        return None
    directory = Path(core.origin).parent / "_static" / "tiktoken_cache"
    return directory if (directory / _CL100K_FILE).is_file() else None
