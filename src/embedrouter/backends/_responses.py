"""What answers of different providers have in common: how numbers are written, and what a status means."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import numpy as np

from ..errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from ..types import Vectors

__all__ = ["from_status", "matrix", "retry_after"]

LONGEST_MESSAGE = 300

TOO_LONG = re.compile(
    r"maximum context length|context length|too many tokens|too long|must have less than \d+ tokens|max(imum)? input",
    re.IGNORECASE,
)
"""How OpenAI, vLLM, Ollama, Cohere, Voyage and TEI say that a text is over the limit; none has a code for it."""


def matrix(embeddings: Sequence[object], model: str) -> Vectors:
    """Return vectors, written as base64 of float32 or as lists of numbers, as an array (texts, dimensions).

    Raises:
        BadResponseError: they are neither, or differ in length.
    """
    try:
        rows = [
            np.frombuffer(base64.b64decode(row, validate=True), "<f4")
            if isinstance(row, str)
            else np.asarray(row, np.float32)
            for row in embeddings
        ]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise BadResponseError(f"the vectors cannot be read: {type(error).__name__}", model=model) from error


def from_status(
    status: int,
    message: str,
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    code: str = "",
    texts: Sequence[str] = (),
) -> BackendError:
    """Return the error for an HTTP status.

    Args:
        message: what the provider says; shortened, and dropped if it quotes one of ``texts``.
        code: the provider's own word for the error.
    """
    if any(text[:40] in message for text in texts):
        message = "the provider's message is left out because it quotes a text"
    story = f"HTTP {status}: {' '.join(message.split())[:LONGEST_MESSAGE]}"
    wait = retry_after(headers or {})
    match status:
        case 401 | 403 | 498:
            return AuthenticationError(f"{story} Check the API key and its permissions.", model=model, status=status)
        case 404:
            return UnavailableError(
                f"{story} Check the model's name, base_url and your access to it.",
                model=model,
                status=status,
                retryable=False,
            )
        case 400 | 413 | 422:
            too_long = code != "max_tokens_per_request" and TOO_LONG.search(message) is not None
            return InputRejectedError(story, model=model, status=status, too_long=too_long)
        case 408:
            return RequestTimeoutError(story, model=model, status=status, retry_after=wait)
        case 429:
            hopeless = code == "insufficient_quota" or "request too large" in message.lower()
            return RateLimitedError(story, model=model, status=status, retry_after=wait, retryable=not hopeless)
        case 409 | 425 | 499:
            return UnavailableError(story, model=model, status=status, retry_after=wait)
        case 501 | 505:
            return UnavailableError(story, model=model, status=status, retryable=False)
        case _ if status >= 500:
            return UnavailableError(story, model=model, status=status, retry_after=wait)
        case _:
            return BackendError(story, model=model, status=status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks to wait: the longest of what ``retry-after-ms`` and ``retry-after`` say."""
    lower = {name.lower(): value for name, value in headers.items()}
    waits = [_number(lower.get("retry-after-ms"), 0.001), _number(lower.get("retry-after"), 1.0)]
    if waits[1] is None and (date := lower.get("retry-after")):
        waits.append(_until(date))
    known = [wait for wait in waits if wait is not None and wait >= 0]
    return max(known, default=None)


def _number(text: str | None, scale: float) -> float | None:
    try:
        return float(text) * scale if text else None
    except ValueError:
        return None


def _until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
