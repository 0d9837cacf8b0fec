"""What answers of different providers have in common: how numbers are written, and what a status means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

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
from ..models import MOST_TOKENS, Model
from ..types import RateLimits, Vectors
from ._environment import secrets
from ._redaction import harmless, hidden, repeats

__all__ = ["failed", "from_status", "matrix", "rate_limits", "retry_after", "unreadable", "was_sent"]

LONGEST_MESSAGE = 300

MOST_DIGITS = 20
LONGEST_RESET = 86400.0
"""Seconds after which a limit per minute is surely whole again; who says more means something else."""

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
TOO_LONG = re.compile(
    r"maximum context length|context length|too many tokens|too long|must have less than \d+ tokens|max(imum)? input",
    re.IGNORECASE,
)
"""How OpenAI, vLLM, Ollama, Cohere, Voyage and TEI say that a text is over the limit; none has a code for it."""

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
    "SSLCertVerificationError",
    "gaierror",
}
"""Exceptions of the libraries below the SDKs that say, as do their subclasses, that no connection was made."""

STUMBLES = (TypeError, AttributeError, LookupError, RecursionError, ValueError)
"""How SDKs that do not check answers fail at them."""


def matrix(embeddings: Sequence[object], model: str) -> Vectors:
    """Return vectors, written as base64 of float32 or as lists of numbers, as an array (texts, dimensions).

    Raises:
        BadResponseError: they are neither, or differ in length.
    """
    decode = _base64()
    try:
        rows = [decode(row) if isinstance(row, str) else _numbers(row) for row in embeddings]
        size, *others = {len(row) for row in rows} or {0}
        if others:
            raise ValueError("vectors of several lengths")
        return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), size // 4)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadResponseError(f"the vectors cannot be read: {type(error).__name__}", model=model) from error


def _numbers(row: object) -> bytes:
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        numbers = np.asarray(row, "<f4")
    if numbers.ndim != 1:
        raise ValueError("not a list of numbers")
    return numbers.tobytes()


@cache
def _base64() -> Callable[[Any], bytes]:
    """Return a decoder that takes a third of the time of ``binascii``; what is no base64 is a ``ValueError``."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)).validate_strings


def from_status(
    status: int,
    message: str,
    *,
    model: Model,
    headers: Mapping[str, str] | None = None,
    code: str = "",
    texts: Sequence[str] = (),
    sent: Sequence[str] = (),
    unknown_model: bool = False,
) -> BackendError:
    """Return the error for an HTTP status.

    Args:
        message: what the provider says; shortened, without keys, and left out if it quotes one of ``texts``.
        code: the provider's own word for the error.
        sent: keys that went with the request, besides those of ``model``.
        unknown_model: whether the provider says that it does not serve the model.
    """
    story = f"HTTP {status}: {_quotable(message, [*secrets(model), *sent], texts)}"
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


def failed(
    error: Exception, ours: Exception, model: Model, texts: Sequence[str], sent: Sequence[str] = ()
) -> Exception:
    """Return our error for one of a library's, which becomes its cause unless it repeats a text or a key.

    Raise it outside the ``except`` clause: inside, Python would attach the library's error as the context all the same.
    """
    if ours is not error:
        ours.__cause__ = error if harmless(error, texts, [*secrets(model), *sent]) else None
    return ours


def _quotable(message: str, secret: Sequence[str], texts: Sequence[str]) -> str:
    """Return what may be shown of a provider's message."""
    if repeats(message, texts):
        return "(the provider's message is left out because it quotes a text)"
    return " ".join(hidden(message, secret).split())[:LONGEST_MESSAGE]


def was_sent(error: BaseException | None) -> bool:
    """Say whether a request whose connection failed may have reached the provider: not if none was ever made."""
    while error is not None:
        if any(kind.__name__ in NO_CONNECTION for kind in type(error).__mro__):
            return False
        if getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":  # of ssl.SSLError: it does not speak TLS
            return False
        reasons = [item for item in error.args if isinstance(item, Exception)]
        error = error.__cause__ or next(iter(reasons), None)  # __context__ may be what the caller was handling
    return True


def unreadable(error: Exception) -> bool:
    """Say whether an SDK stumbled, inside itself and not where it is called, over an answer that is none."""
    inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
    return inside and isinstance(error, STUMBLES) and not isinstance(error, UnicodeEncodeError)  # of a key or a header


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
    said = {lower: value for name, value in headers.items() if (lower := name.lower()).startswith("x-ratelimit-")}
    if not said:
        return None

    def amount(name: str) -> int | None:
        text = said.get(f"x-ratelimit-{name}", "")
        return min(int(text), MOST_TOKENS) if text.isdecimal() and len(text) < MOST_DIGITS else None

    def seconds(name: str) -> float | None:
        parts = DURATION.findall(said.get(f"x-ratelimit-reset-{name}", ""))
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
        return total if parts and total <= LONGEST_RESET else None

    return RateLimits(  # a limit of 0 is how some say that there is none
        requests=amount("limit-requests") or None,
        requests_left=amount("remaining-requests"),
        requests_reset=seconds("requests"),
        tokens=amount("limit-tokens") or None,
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
    except (ValueError, TypeError, IndexError, OverflowError):  # all of which it raises for what is no date
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
