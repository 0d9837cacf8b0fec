"""Pack texts into requests within every documented limit: of texts, of tokens and of bytes."""

from collections.abc import Sequence

from ..types import Candidate, Limits
from ._call import SizedText


def pack_texts(texts: Sequence[SizedText], candidate: Candidate) -> list[list[SizedText]]:
    """Split texts into requests within the candidate's limits."""
    tokens = [item.tokens for item in texts]
    limited = candidate.limits.size is not None
    sizes = [len(item.text.encode()) if limited else 0 for item in texts]
    return [list(texts[part]) for part in pack(tokens, sizes, candidate.limits)]


def pack(tokens: Sequence[int], sizes: Sequence[int], limits: Limits) -> list[slice]:
    """Split texts, given by their ``tokens`` and ``sizes`` in bytes, into consecutive requests within ``limits``.

    A text that alone exceeds a limit gets a separate request, which the provider accepts or refuses.
    """
    requests: list[slice] = []
    start = request_tokens = request_size = 0
    for position, (text_tokens, text_size) in enumerate(zip(tokens, sizes, strict=True)):
        full = (
            position - start >= limits.texts
            or (limits.tokens is not None and request_tokens + text_tokens > limits.tokens)
            or (limits.size is not None and request_size + text_size > limits.size)
        )
        if full and position > start:
            requests.append(slice(start, position))
            start, request_tokens, request_size = position, 0, 0
        request_tokens += text_tokens
        request_size += text_size
    if start < len(tokens):
        requests.append(slice(start, len(tokens)))
    return requests
