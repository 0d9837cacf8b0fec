"""What the answers of all providers have in common: vectors, HTTP statuses, and headers about limits and waits."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
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
from ._messages import carried_status, code_of, is_page, parse_span, read, words
from ._redaction import echoes_input, mask_keys

MAX_MESSAGE = 300
"""Characters of a provider's message that are shown."""
MAX_DIGITS = 20
"""Digits of a limit in a header."""
MAX_MOMENT = 40
"""Characters of a date."""
MAX_RESET = 86400.0
"""Seconds until a limit per minute is surely whole again; a header with more seconds means something else."""
EPOCH = 10**9
"""A reset that is larger is a moment, in seconds or milliseconds since 1970."""
NONE_LEFT = re.compile(r"(?:\bremaining=|;\s*r=)0(?!\d)")
RESET = re.compile(r"(?:\breset=|;\s*t=)(\d{1,6})(?!\d)")
"""The parts of the header ``RateLimit`` in the drafts of its standard."""
GATEWAY = "llm_provider-"
"""The beginning of headers that LiteLLM passes on from the provider behind it."""
KINDS: dict[int, type[BackendError]] = {
    **dict.fromkeys((401, 403, 498), AuthenticationError),
    **dict.fromkeys((400, 413, 422), InputRejectedError),
    408: RequestTimeoutError,
    **dict.fromkeys((409, 425, 499), UnavailableError),
    429: RateLimitedError,
}
GATEWAY_TIMEOUT = frozenset({408, 504, 524})
"""Statuses of a gateway that waited for the provider's answer in vain: the provider may answer, and bill. LiteLLM and
Portkey say so with 408, nginx, HAProxy and Envoy with 504, Cloudflare with 524."""
REJECTED = frozenset(status for status, kind in KINDS.items() if kind is InputRejectedError)
FAILED, TOO_MANY, NOT_FOUND, PAYMENT_REQUIRED, UNAUTHORIZED = 500, 429, 404, 402, 401
OUT_OF_MONEY = frozenset({400, 402, 403, TOO_MANY, FAILED})
"""Statuses with which gateways and providers say that the account's money is used up."""

TOKENS = ("prompt_tokens", "input_tokens", "total_tokens")
"""The fields in which servers report the tokens of an embeddings request."""
PARSE_FAILURES = (TypeError, AttributeError, LookupError, RecursionError, ValueError)
"""Exceptions that SDKs raise by accident where an answer has another form than they expect."""


UNREADABLE = (ValueError, TypeError, OverflowError)


def decode_vectors(embeddings: Sequence[object], model: str, length: int = 0, number: str = "float32") -> Vectors:
    """Decode vectors, written as base64 of the numbers' bytes or as lists of numbers, to an array (texts, dimensions).

    Args:
        length: the number of dimensions that is expected. See ``stack_vectors``.
        number: the type of the numbers: "float32", "int8" or "uint8".

    Raises:
        BadResponseError: vectors came and none can be read, or they differ in length and none has the expected one.
    """
    try:
        rows = [read_vector(row, partial(_as_bytes, number)) for row in embeddings]
        if not any(rows) and any(embeddings):
            raise ValueError("no vector can be read")
        return stack_vectors(rows, length, number)
    except UNREADABLE as error:
        story = "the vectors are neither lists of numbers nor base64 of float32. Check base_url and encoding_format="
        if number != "float32":
            story = (
                f"the vectors cannot be read as {number}. The server may not know the setting: leave output_dtype= out"
            )
        raise BadResponseError(story, model=model, retryable=None if number == "float32" else False) from error


def read_vector(row: object, read: Callable[[Any], bytes]) -> bytes:
    """Return a vector as the bytes of its numbers; none where it is missing or cannot be read."""
    try:
        return read(row)
    except UNREADABLE:
        return b""


def stack_vectors(rows: Sequence[bytes], length: int, number: str = "float32") -> Vectors:
    """Stack vectors to an array; one that is missing or of another length is NaN or zeros, and spoils no other.

    Args:
        rows: each the bytes of a vector's numbers.
        length: the number of dimensions that is expected; where all vectors have another, they are stacked as they are.

    Raises:
        ValueError: the vectors differ in length and none has the expected one.
    """
    written = np.dtype(number).newbyteorder("<")
    expected = written.itemsize * length
    sizes = {len(row) for row in rows if row} or {expected if rows else 0}
    if len(sizes) > 1 and expected not in sizes:
        raise ValueError("vectors of several lengths")
    size = expected if expected in sizes else max(sizes)
    count = size // written.itemsize
    missing = np.full(count, np.nan if number == "float32" else 0, written).tobytes()
    content = b"".join(row if len(row) == size else missing for row in rows)
    return np.frombuffer(content, written).reshape(len(rows), count)


def _as_bytes(number: str, row: object) -> bytes:
    return base64_decoder()(row) if isinstance(row, str) else as_numbers(row, number)


def as_numbers(row: object, number: str) -> bytes:
    """Return a list of numbers as the bytes of numbers of a type.

    Raises:
        UNREADABLE: it is no such list.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes another number, which is refused
        floats = np.asarray(row, "<f4")
        numbers = floats.astype(number, copy=False)
    if floats.ndim != 1 or (numbers is not floats and not np.array_equal(numbers, floats)):
        raise ValueError(f"not a list of {number}")
    return numbers.tobytes()


@cache
def base64_decoder() -> Callable[[Any], bytes]:
    """Return pydantic's decoder, three times as fast as ``binascii``; it raises ``ValueError`` for other text."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)).validate_strings


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a provider answers in place of vectors."""

    status: int
    body: object
    """Parsed JSON, or text."""
    headers: Mapping[str, str] | None = None
    advice: str = ""
    """What to do next, where the provider's module knows it better than the status does."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the request that the provider may not take, by its words."""
        found = read(words(self.body))
        is_text = found.too_long or found.batch_size is not None
        wrong = self.status in REJECTED or self.status >= FAILED
        return found.fields if wrong and not is_text else frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that was refused, for messages and for what must not be in them."""

    model: str
    texts: Sequence[str] = ()
    keys: Sequence[str] = ()
    """Must not be shown."""
    address: str = ""
    """Host and path."""
    key_origin: str = ""
    """The variable or the argument that the key was read from."""


def error_from_refusal(refusal: Refusal, asked: Asked) -> BackendError:
    """Return the error for a refusal.

    The reason is shortened, keys in it are masked, and it is left out if it echoes one of the texts.
    """
    status, code, reason = refusal.status, code_of(refusal.body), words(refusal.body)
    found = read(reason, refusal.body)
    echoes = echoes_input(reason, asked.texts)
    shown = mask_keys(reason, asked.keys)[:MAX_MESSAGE] or "no reason was given"
    if echoes:
        shown = "(the provider's message is left out because it quotes a text)"
        found = replace(found, unknown_model=False, unsupported=False, not_allowed=False, quota=False, advice="")
    story = f"HTTP {status} from {mask_keys(asked.address, asked.keys)} for {asked.model}: {shown}"
    answer: dict[str, Any] = {"model": asked.model, "status": status}

    def unavailable(advice: str) -> UnavailableError:
        return UnavailableError(f"{_sentence(story)} {refusal.advice or advice}", **answer, retryable=False)

    kind = kind_of_status(status) or BackendError
    rejected = status in REJECTED
    if status == NOT_FOUND or code == "model_not_found" or (rejected and found.unknown_model):
        return unavailable("Check the model's name, base_url and your access to it.")
    if status < FAILED and found.advice:
        return unavailable(found.advice)
    if rejected and found.unsupported and not found.too_long:
        return unavailable("Leave the setting out that the server does not take, or ask another model.")
    if status == PAYMENT_REQUIRED or code == "insufficient_quota" or (found.quota and status in OUT_OF_MONEY):
        advice = "Check the credits and the billing of the account."
        return RateLimitedError(f"{_sentence(story)} {refusal.advice or advice}", **answer, retryable=False)
    if kind is AuthenticationError or (rejected and found.not_allowed):
        origin = f", which was read from {asked.key_origin}," if asked.key_origin else ""
        page = "A web page answered: perhaps of a gateway, a proxy or a firewall. Check base_url and headers=. "
        advice = refusal.advice or f"{page * is_page(refusal.body)}Check the API key{origin} and its permissions."
        return AuthenticationError(f"{_sentence(story)} {advice}", **answer)
    smaller = status == TOO_MANY and "request too large" in reason.lower()  # for the account's minute
    if kind is InputRejectedError or smaller or (status >= FAILED and found.too_long):
        many = found.batch_size if found.batch_size and found.batch_size < len(asked.texts) else None
        return InputRejectedError(
            story, **answer, too_long=found.too_long and not smaller, limit=found.limit, batch_size=many
        )
    if kind is BackendError:
        return BackendError(f"{_sentence(story)} {refusal.advice or 'Check the request and base_url.'}", **answer)
    asked_for = parse_retry_after(refusal.headers or {}, limited=kind is RateLimitedError)
    answer["retry_after"] = asked_for or (asked_for if found.wait is None else found.wait)
    answer["retryable"] = status not in (501, 505)
    answer["perhaps_billed"] = status in GATEWAY_TIMEOUT
    if kind is RateLimitedError:
        advice = refusal.advice or "Wait, or set Model(…, requests_per_minute=…, tokens_per_minute=…)."
        return RateLimitedError(f"{_sentence(story)} {advice}", **answer, limits=found.limits)
    advice = refusal.advice or "Try again later, or declare another model."
    return kind(f"{_sentence(story)} {advice}", **answer)


def refusal_in_answer(body: object, headers: Mapping[str, str] | None = None) -> Refusal | None:
    """Return the refusal that an answer with status 200 carries, by its code or its words."""
    status = carried_status(body)
    if status is None and isinstance(body, Mapping | list) and (reason := words(body, whole=False)):
        found = read(reason, body)
        if found.too_long or found.batch_size or found.unknown_model or found.unsupported:
            status = 400
        elif found.quota or found.limits or found.wait is not None:
            status = TOO_MANY
        else:
            found = read(f"{reason} {code_of(body)}".replace("_", " "))
            status = UNAUTHORIZED if found.not_allowed else TOO_MANY if found.limited else None
    return None if status is None else Refusal(status, body, headers)


def shown_reason(body: object, texts: Sequence[str], keys: Sequence[str]) -> str:
    """Return the reason in an answer without vectors, as far as it may be shown."""
    reason = words(body, whole=False)
    shown = "" if echoes_input(reason, texts) else mask_keys(reason, keys)[:MAX_MESSAGE]
    return shown and _sentence(shown)


def parse_name(body: Any) -> str | None:
    """Return the name by which a server calls the model in its answer."""
    name = body.get("model")
    return name if isinstance(name, str) and 0 < len(name.strip()) <= MAX_MESSAGE else None


def parse_usage(body: Any) -> object:
    """Return the billed tokens as an answer reports them, in any field that servers have for them."""
    usage = body.get("usage")
    reported = [usage.get(name) for name in TOKENS] if isinstance(usage, Mapping) else []
    return next((tokens for tokens in reported if tokens is not None), None)


def places_of(indices: Sequence[object]) -> list[int]:
    """Return the places of the rows of an answer; a row whose index cannot be a place has the one at which it came.

    An index that is left out where it is zero is zero; digits in quotation marks are digits.
    """
    if len(indices) > 1 and all(index in (0, "0") for index in indices):
        return [*range(len(indices))]
    read = [int(index) if isinstance(index, str) and index.isdecimal() else index for index in indices]
    if read.count(None) == 1 and 0 not in read:
        read[read.index(None)] = 0
    return [
        int(index) if isinstance(index, int | float) and index == index // 1 else position
        for position, index in enumerate(read)
    ]


def _sentence(story: str) -> str:
    return story if story.endswith((".", "!", "?", ")", "。")) else f"{story}."


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


def parse_retry_after(headers: Mapping[str, str], *, limited: bool = False) -> float | None:
    """Parse the seconds that a provider, or the provider behind a gateway, asks to wait: the longest.

    Args:
        limited: whether a limit of the rate was exceeded; then, without a wait, the limit's reset is the wait.
    """
    found = _headers(headers)
    waits = [_seconds(found.get("retry-after-ms", ""), 0.001), _seconds(found.get("retry-after", ""), 1.0)]
    wait = max((wait for wait in waits if wait is not None and wait >= 0), default=None)
    return _reset_of_exceeded(found) if wait is None and limited else wait


def parse_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Parse the headers ``x-ratelimit-…`` of an answer; ``None`` where there are none."""
    found = {name: value for name, value in _headers(headers).items() if name.startswith("x-ratelimit-")}
    if not found:
        return None

    def number(name: str) -> int | None:
        text = found.get(f"x-ratelimit-{name}", "")
        return min(int(text), MOST_TOKENS) if text.isdecimal() and len(text) < MAX_DIGITS else None

    def limits(unit: str) -> tuple[int | None, int | None, float | None]:
        reset = _reset(found.get(f"x-ratelimit-reset-{unit}", ""))
        limit = number(f"limit-{unit}") or None  # some servers write 0 where there is no limit
        return limit, number(f"remaining-{unit}"), reset

    return RateLimits(*limits("requests"), *limits("tokens"))


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by their name in lower case; a gateway's own take precedence over those that it passes on."""
    lower = {name.lower(): value for name, value in headers.items()}
    behind = {name.removeprefix(GATEWAY): value for name, value in lower.items() if name.startswith(GATEWAY)}
    return behind | lower


def _reset_of_exceeded(found: Mapping[str, str]) -> float | None:
    """Return the seconds until the exceeded limit is whole again; with nothing left where the headers say so."""
    resets: dict[str, float] = {}
    for name, value in found.items():
        is_reset = "reset" in name and "ratelimit" in name.replace("-", "")
        if is_reset and (reset := _reset(value)) is not None:
            resets[name] = reset
    used_up = [reset for name, reset in resets.items() if found.get(name.replace("reset", "remaining")) == "0"]
    unsaid = [reset for name, reset in resets.items() if name.replace("reset", "remaining") not in found]
    tokens = [reset for name, reset in resets.items() if "token" in name]
    standard = found.get("ratelimit", "")
    if NONE_LEFT.search(standard):
        used_up += [float(reset) for reset in RESET.findall(standard)]
    return max(used_up or unsaid or tokens, default=None)


def _reset(text: str) -> float | None:
    """Parse the seconds until a limit is whole again: a duration, a number of seconds, or a moment."""
    reset = _seconds(text.strip()[:MAX_MOMENT], 1.0)
    return reset if reset is not None and 0 <= reset <= MAX_RESET else None


def _seconds(text: str, scale: float) -> float | None:
    """Parse numbers, of which the largest counts, a duration, or a moment, from which the seconds are counted."""
    with suppress(ValueError):  # a gateway may send the header of the server behind it besides its own
        number = max(float(part) for part in text.split(","))
        if EPOCH <= number < math.inf:
            return max(0.0, number / (1000 if number >= EPOCH * 1000 else 1) - time.time())
        return number * scale
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError, IndexError, OverflowError):  # all of these mean that the text is no date
            when = parse(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return parse_span(text[:MAX_DIGITS])
