"""From texts to vectors without torch: tokens, batches of texts of similar length, a graph, the model's last modules.

Texts are sorted by their number of tokens before they are put into batches, so little is padded. No text is cut:
callers refuse those that are over the limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..types import Vectors
from ._last_modules import Last
from ._runtimes import Graph

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS = 512
"""Tokens in one batch, padding included, unless it is one text: what is computed stays in the processor's cache."""

FEEDS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""The inputs of graphs that can be filled."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A model's tokenizer, with what is around it: lower case, and how shorter texts of a batch are padded."""

    tokenizer: Tokenizer
    lower: bool
    padding: int
    """The id of the token that fills up; some models compute positions from it."""
    left: bool
    """Whether texts are filled up on the left."""

    @classmethod
    def of(cls, folder: Path, *, lower: bool) -> Self:
        """Read ``tokenizer.json`` and its settings.

        Raises:
            ImportError: the package tokenizers is missing.
            OSError, ValueError: a file is missing or broken.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        saved = tokenizer.padding or {}
        settings = {**_json(folder / "special_tokens_map.json"), **_json(folder / "tokenizer_config.json")}
        token = settings.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        padding = tokenizer.token_to_id(token) if isinstance(token, str) else None
        left = (settings.get("padding_side") or saved.get("direction", "right")) == "left"
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, lower, int(saved.get("pad_id", 0) if padding is None else padding), left)

    def read(self, texts: Sequence[str]) -> list[Any]:
        """Return the tokens of each text, special tokens included."""
        found: list[Any] = self.tokenizer.encode_batch_fast([text.lower() if self.lower else text for text in texts])
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(tokens.ids) for tokens in self.read(texts)]

    def prompt_tokens(self, prompt: str) -> int:
        """Return the number of a prompt's tokens, without the special token that ends a text."""
        if not prompt:
            return 0
        (tokens,) = self.tokenizer.encode_batch([prompt.lower() if self.lower else prompt])
        return len(tokens.ids) - int(bool(tokens.ids) and tokens.special_tokens_mask[-1])

    def feeds(self, tokens: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        """Return the inputs of a graph for one batch, each of shape (texts, tokens of the longest)."""
        width = max(len(found.ids) for found in tokens)
        ids = np.full((len(tokens), width), self.padding, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, found in enumerate(tokens):
            length = len(found.ids)
            part = slice(width - length, width) if self.left else slice(0, length)
            ids[row, part], mask[row, part], types[row, part] = found.ids, 1, found.type_ids
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        return dict(zip(FEEDS, (ids, mask, types, positions), strict=True))


@dataclass(frozen=True, slots=True)
class Encoder:
    """A whole model."""

    graph: Graph
    reader: Reader
    last: Last
    output: str
    """The graph's output that is the tokens' states or, for a graph that holds all modules, the vectors."""

    def encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        """Return a vector for each text, in the order of the texts; zeros for a text without a token."""
        tokens = self.reader.read([prompt + text for text in texts])
        skipped = self.reader.prompt_tokens(prompt) if self.last.skips_prompt else 0
        vectors = np.zeros((len(texts), self.last.dimensions), np.float32)
        parts = list(batches([len(found.ids) for found in tokens]))
        feeds = [self.reader.feeds([tokens[index] for index in part]) for part in parts]
        outputs = self.graph.run([{name: fed[name] for name in self.graph.inputs} for fed in feeds])
        for part, fed, found in zip(parts, feeds, outputs, strict=True):
            vectors[part] = self.last.vectors(found[self.output], fed["attention_mask"], skipped)
        return vectors


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of texts, the longest first; texts without a token are left out."""
    order = sorted((index for index, length in enumerate(lengths) if length), key=lambda index: -lengths[index])
    first = 0
    while first < len(order):
        number = max(1, TOKENS // lengths[order[first]])
        yield order[first : first + number]
        first += number


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found
