"""What the answers of all providers have in common: vectors, HTTP statuses, and headers about limits and waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from ..models import MOST_TOKENS
from ..types import RateLimits, Vectors
from ._redaction import echoes_input, mask_keys

MAX_MESSAGE = 300
"""Characters of a provider's message that are shown."""
MAX_DIGITS = 20
"""Digits of a limit in a header."""
MAX_RESET = 86400.0
"""Seconds until a limit per minute is surely whole again; a header with more seconds means something else."""

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
TOO_LONG = re.compile(
    r"maximum context length|context length|too many tokens|too long|must have less than \d+ tokens|max(imum)? input",
    re.IGNORECASE,
)
"""How OpenAI, vLLM, Ollama, Cohere, Voyage and TEI say that a text is over the limit; none has a code for it."""

KINDS: dict[int, type[BackendError]] = {
    **dict.fromkeys((401, 403, 498), AuthenticationError),
    **dict.fromkeys((400, 413, 422), InputRejectedError),
    408: RequestTimeoutError,
    **dict.fromkeys((409, 425, 499), UnavailableError),
    429: RateLimitedError,
}

PARSE_FAILURES = (TypeError, AttributeError, LookupError, RecursionError, ValueError)
"""Exceptions that SDKs raise by accident where an answer has another form than they expect."""


def decode_vectors(embeddings: Sequence[object], model: str) -> Vectors:
    """Decode vectors, written as base64 of float32 or as lists of numbers, to an array (texts, dimensions).

    Raises:
        BadResponseError: a vector is written in another way, or the vectors differ in length.
    """
    decode = _base64_decoder()
    try:
        rows = [decode(row) if isinstance(row, str) else _float32(row) for row in embeddings]
        size, *others = {len(row) for row in rows} or {0}
        if others:
            raise ValueError("vectors of several lengths")
        return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), size // 4)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadResponseError(f"the vectors cannot be read: {type(error).__name__}", model=model) from error


def _float32(row: object) -> bytes:
    with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and infinite numbers are refused
        numbers = np.asarray(row, "<f4")
    if numbers.ndim != 1:
        raise ValueError("not a list of numbers")
    return numbers.tobytes()


@cache
def _base64_decoder() -> Callable[[Any], bytes]:
    """Return pydantic's decoder, three times as fast as ``binascii``; it raises ``ValueError`` for other text."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)).validate_strings


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a provider answers in place of vectors."""

    status: int
    message: str
    headers: Mapping[str, str] | None = None
    code: str = ""
    """The provider's error code."""
    unknown_model: bool = False
    """Whether the message means that the provider does not serve the model."""


def error_from_refusal(refusal: Refusal, model: str, texts: Sequence[str], keys: Sequence[str]) -> BackendError:
    """Return the error for a refusal.

    The message is shortened, keys in it are masked, and it is left out if it echoes one of the texts.
    """
    status, message, code = refusal.status, refusal.message, refusal.code
    shown = " ".join(mask_keys(message, keys).split())[:MAX_MESSAGE]
    if echoes_input(message, texts):
        shown = "(the provider's message is left out because it quotes a text)"
    story = f"HTTP {status}: {shown}"
    answer: dict[str, Any] = {"model": model, "status": status}
    if refusal.unknown_model or status == 404:
        advice = "Check the model's name, base_url and your access to it."
        return UnavailableError(f"{story} {advice}", **answer, retryable=False)
    kind = kind_of_status(status) or BackendError
    if status == 429 and "request too large" in message.lower():  # for the account's minute: a smaller one may pass
        kind = InputRejectedError
    if kind is AuthenticationError:
        story += " Check the API key and its permissions."
    elif kind is InputRejectedError:
        is_text = status != 429 and code != "max_tokens_per_request"
        answer["too_long"] = is_text and TOO_LONG.search(message) is not None
    elif kind is not BackendError:
        answer["retry_after"] = parse_retry_after(refusal.headers or {})
        answer["retryable"] = status not in (501, 505) and code != "insufficient_quota"
        answer["perhaps_billed"] = False
    return kind(story, **answer)


def kind_of_status(status: int) -> type[BackendError] | None:
    """Return the error for a status that means the same at all providers."""
    return UnavailableError if status >= 500 else KINDS.get(status)


def failed_to_parse(error: Exception) -> bool:
    """Return whether an SDK failed, inside its own code, at an answer of a form that it does not expect."""
    if not isinstance(error, PARSE_FAILURES) or isinstance(error, UnicodeEncodeError):  # the latter of a header
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] != "embedrouter"


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Parse the seconds that a provider asks to wait: the longer of ``retry-after-ms`` and ``retry-after``."""
    lower = {name.lower(): value for name, value in headers.items()}
    waits = [_seconds(lower.get("retry-after-ms", ""), 0.001), _seconds(lower.get("retry-after", ""), 1.0)]
    return max((wait for wait in waits if wait is not None and wait >= 0), default=None)


def parse_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Parse the headers ``x-ratelimit-…`` of an answer; ``None`` where there are none."""
    found = {lower: value for name, value in headers.items() if (lower := name.lower()).startswith("x-ratelimit-")}
    if not found:
        return None

    def number(name: str) -> int | None:
        text = found.get(f"x-ratelimit-{name}", "")
        return min(int(text), MOST_TOKENS) if text.isdecimal() and len(text) < MAX_DIGITS else None

    def limits(unit: str) -> tuple[int | None, int | None, float | None]:
        parts = DURATION.findall(found.get(f"x-ratelimit-reset-{unit}", ""))
        reset = sum(float(amount) * UNITS[name] for amount, name in parts)
        limit = number(f"limit-{unit}") or None  # some servers write 0 where there is no limit
        return limit, number(f"remaining-{unit}"), reset if parts and reset <= MAX_RESET else None

    return RateLimits(*limits("requests"), *limits("tokens"))


def _seconds(text: str, scale: float) -> float | None:
    """Parse a number, or a date, from which the seconds are counted from now."""
    with suppress(ValueError):
        return float(text) * scale
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # all of these mean that the text is no date
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
