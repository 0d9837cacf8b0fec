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
from ..models import Model
from ..types import RateLimits, Vectors
from ._environment import known_key

__all__ = ["from_status", "matrix", "rate_limits", "retry_after", "was_sent"]

LONGEST_MESSAGE = 300

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
TOO_LONG = re.compile(
    r"maximum context length|context length|too many tokens|too long|must have less than \d+ tokens|max(imum)? input",
    re.IGNORECASE,
)
"""How OpenAI, vLLM, Ollama, Cohere, Voyage and TEI say that a text is over the limit; none has a code for it."""

QUOTED_KEY = re.compile(r"(?<=key provided: )\S+|\bsk-[\w*-]{4,}", re.IGNORECASE)
"""OpenAI repeats a wrong key, a short one in full."""

NO_CONNECTION = {
    "ConnectError",  # httpx, httpx2
    "ConnectTimeout",  # httpx, httpx2, requests
    "PoolTimeout",
    "NewConnectionError",  # urllib3
    "ConnectTimeoutError",
    "NameResolutionError",
    "ClientConnectorError",  # aiohttp
    "ConnectionTimeoutError",
    "ConnectionRefusedError",
    "gaierror",
}
"""Exceptions of the libraries below the SDKs that say that no connection was made."""


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
    model: Model,
    headers: Mapping[str, str] | None = None,
    code: str = "",
    texts: Sequence[str] = (),
    unknown_model: bool = False,
) -> BackendError:
    """Return the error for an HTTP status.

    Args:
        message: what the provider says; shortened, without keys, and left out if it quotes one of ``texts``.
        code: the provider's own word for the error.
        unknown_model: whether the provider says that it does not serve the model.
    """
    story = f"HTTP {status}: {_quotable(message, model, texts)}"
    wait = retry_after(headers or {})
    name = model.name
    match status:
        case 401 | 403 | 498:
            return AuthenticationError(f"{story} Check the API key and its permissions.", model=name, status=status)
        case _ if status == 404 or unknown_model:
            return UnavailableError(
                f"{story} Check the model's name, base_url and your access to it.",
                model=name,
                status=status,
                retryable=False,
            )
        case 400 | 413 | 422:
            too_long = code != "max_tokens_per_request" and TOO_LONG.search(message) is not None
            return InputRejectedError(story, model=name, status=status, too_long=too_long)
        case 408:
            return RequestTimeoutError(story, model=name, status=status, retry_after=wait, perhaps_billed=False)
        case 429 if "request too large" in message.lower():  # for a minute of the account: smaller ones may pass
            return InputRejectedError(story, model=name, status=status)
        case 429:
            exhausted = code == "insufficient_quota"
            return RateLimitedError(story, model=name, status=status, retry_after=wait, retryable=not exhausted)
        case 409 | 425 | 499:
            return UnavailableError(story, model=name, status=status, retry_after=wait)
        case 501 | 505:
            return UnavailableError(story, model=name, status=status, retryable=False)
        case _ if status >= 500:
            return UnavailableError(story, model=name, status=status, retry_after=wait)
        case _:
            return BackendError(story, model=name, status=status)


def _quotable(message: str, model: Model, texts: Sequence[str]) -> str:
    """Return what may be shown of a provider's message."""
    if any(_quotes(message, text) for text in texts):
        return "(the provider's message is left out because it quotes a text)"
    message = QUOTED_KEY.sub("…", message)
    if key := known_key(model):
        message = message.replace(key, "…")
    return " ".join(message.split())[:LONGEST_MESSAGE]


def _quotes(message: str, text: str) -> bool:
    """Say whether a message repeats a text: its beginning, or, where it is as short as a word, all of it in quotes."""
    if len(text) >= 12:
        return text[:40] in message
    return any(f"{mark}{text}{mark}" in message for mark in "\"'`")


def was_sent(error: BaseException | None) -> bool:
    """Say whether a request whose connection failed may have reached the provider: not if none was ever made."""
    while error is not None:
        if type(error).__name__ in NO_CONNECTION:
            return False
        reasons = [item for item in error.args if isinstance(item, Exception)]
        error = error.__cause__ or next(iter(reasons), None)  # __context__ may be what the caller was handling
    return True


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks to wait: the longest of what ``retry-after-ms`` and ``retry-after`` say."""
    lower = {name.lower(): value for name, value in headers.items()}
    waits = [_number(lower.get("retry-after-ms"), 0.001), _number(lower.get("retry-after"), 1.0)]
    if waits[1] is None and (date := lower.get("retry-after")):
        waits.append(_until(date))
    known = [wait for wait in waits if wait is not None and wait >= 0]
    return max(known, default=None)


def rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return what the headers ``x-ratelimit-…`` of an answer say; ``None`` where they are missing."""
    said = {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-ratelimit-")}
    if not said:
        return None

    def amount(name: str) -> int | None:
        text = said.get(f"x-ratelimit-{name}", "")
        return int(text) if text.isdecimal() else None

    def seconds(name: str) -> float | None:
        parts = DURATION.findall(said.get(f"x-ratelimit-reset-{name}", ""))
        return sum(float(number) * UNITS[unit] for number, unit in parts) if parts else None

    return RateLimits(
        requests=amount("limit-requests"),
        requests_left=amount("remaining-requests"),
        requests_reset=seconds("requests"),
        tokens=amount("limit-tokens"),
        tokens_left=amount("remaining-tokens"),
        tokens_reset=seconds("tokens"),
    )


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
