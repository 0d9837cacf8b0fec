"""Read what a server says in place of vectors: its words, and what follows from them.

Servers write a reason as a string, an object, a list of objects, plain text or a web page, and few have codes for what
they mean. The tables below say which words mean what; a new wording is a new row. Bodies are cut before anything looks
at them, because a gateway's error page may be long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

from ..types import RateLimits

MAX_READ = 2_000
"""Characters of a reason that are looked at."""
MAX_PARTS = 3
"""Items of a list of reasons that are read."""
MAX_WAIT = 30
"""Characters of a wait that are read."""
MAX_DEPTH = 6
"""Objects inside each other that are opened."""

Pattern = re.Pattern[str]


def _any(*patterns: str) -> Pattern:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _each(*patterns: str) -> list[Pattern]:
    """Compile patterns; ``NUM`` is a number, such as 2048, 2,048, 10K or 1M."""
    return [re.compile(pattern.replace("NUM", NUM), re.IGNORECASE) for pattern in patterns]


# The words

REASONS = ("message", "msg", "error", "detail", "details", "reason", "errors", "error_message", "errorMessage",
           "error_description", "description", "title", "fault", "Message", "faultstring", "err", "error_msg",
           "status_msg", "base_resp", "Error", "Response")  # fmt: skip
"""The fields in which servers write a reason, or an object or a list that has one."""
CODES = ("code", "error_type", "errorCode", "error_code", "type")
STATUSES = ("code", "status", "status_code", "statusCode", "http_code", "error_code")
"""The fields in which an answer with status 200 carries the status of its error."""
WAITS = {"retryDelay": 1.0, "retry_after": 1.0, "retryAfter": 1.0, "retry_after_seconds": 1.0, "retry_after_ms": 0.001,
         "retryAfterMs": 0.001, "estimated_time": 1.0}  # fmt: skip
"""The fields in which servers write a wait, and their units in seconds."""

HTML = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml|center|h1|title)", re.IGNORECASE)
TITLE = re.compile(r"<(title|h1)[^>]*>\s*(.{1,300}?)\s*</\1>", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^<>]{0,500}>")


def words(body: object, *, whole: bool = True) -> str:
    """Return the reason in a body of any shape: an object, a list, a text, a web page; empty where there is none.

    Args:
        whole: whether an object without a known field is shown as a whole.
    """
    found = _words(body, MAX_DEPTH)
    if whole and not found and isinstance(body, Mapping | list | tuple) and body:
        try:
            found = json.dumps(body, ensure_ascii=False, default=lambda _: "…")
        except (ValueError, RecursionError):
            found = ""
    return " ".join(found[:MAX_READ].split())


def parse_body(content: bytes | str) -> object:
    """Return the parsed JSON of a body, otherwise its text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def _words(body: object, depth: int) -> str:
    if isinstance(body, bytes):
        body = body[: 4 * MAX_READ].decode("utf-8", "replace")
    if isinstance(body, str):
        return _page(body) if HTML.match(body) else body[:MAX_READ].strip()
    if not depth:
        return ""
    if isinstance(body, Mapping):
        parts = [_words(body[name], depth - 1) for name in REASONS if name in body]
        distinct = [part for place, part in enumerate(parts) if part and not any(part in o for o in parts[:place])]
        story = ": ".join(reversed(distinct))[:MAX_READ]
        where = body.get("loc")
        if story and isinstance(where, list | tuple):
            story = f"{'.'.join(str(step) for step in where[:MAX_DEPTH])[:100]}: {story}"
        return story
    if isinstance(body, list | tuple):
        return "; ".join(filter(None, (_words(item, depth - 1) for item in body[:MAX_PARTS])))
    return ""


def is_page(body: object) -> bool:
    """Return whether a body is a web page."""
    text = body[:MAX_READ].decode("utf-8", "replace") if isinstance(body, bytes) else body
    return isinstance(text, str) and HTML.match(text) is not None


def _page(text: str) -> str:
    """Return the title of a web page, or its first words."""
    head = text[: 4 * MAX_READ]
    found = TITLE.search(head)
    return unescape(TAG.sub(" ", found[2] if found else head).strip())


def code_of(body: object) -> str:
    """Return the provider's error code."""
    for found in _objects(body):
        for name in CODES:
            if isinstance(code := found.get(name), str) and code:
                return code[:100]
    return ""


def carried_status(body: object) -> int | None:
    """Return the HTTP status that an error inside of an answer names."""
    for found in _objects(body):
        for name in STATUSES:
            code = found.get(name)
            number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == len("400") else code
            if isinstance(number, int) and 400 <= number < 600:
                return number
    return None


def _objects(body: object) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a body that may describe an error, the innermost first."""
    if isinstance(body, list | tuple):
        body = body[0] if body else None
    if isinstance(body, Mapping):
        for name in ("error", "detail", "errors", "details"):
            yield from _objects(body.get(name))
        yield body


# What follows from the words

NUM = r"(\d[\d,_]{0,14}(?:\.\d{1,9})?[KkMm]?)(?!\.{0,2}\d)"
"""Of bounded length: on a long row of digits an unbounded number would be tried at each place in each length."""
UNIT = r"(?:milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"
SECONDS = {"ms": 0.001, "mi": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SPAN = re.compile(rf"(?<![\d.])(\d+(?:\.\d+)?)\s*({UNIT})(?![a-z])", re.IGNORECASE)
WAIT = re.compile(
    r"(?:try again|retry(?:ing)?|wait(?:ing)?|retry[-_ ]after|again|resets?|available)\W{0,3}"
    r"(?:(?:after|in|for|at least|about|approximately|another|your request|the request|again)\W{1,3}){0,4}"
    rf"((?:\d+(?:\.\d+)?\s*{UNIT}\s*(?:and\s*)?)+(?![a-z])"
    r"|\d+(?:\.\d+)?(?=\s*(?:$|[.;,)]\s|[.;,)]$)))",
    re.IGNORECASE,
)
"""How servers say when to come back: "try again in 1m2.5s", "retry after 17 seconds", "Please wait 300 ms"."""

QUOTA = _any(
    r"exceeded your (?:current )?quota", r"insufficient[ _](?:credits?|quota|balance|funds)", r"\bbilling\b",
    r"out of (?:credits?|funds)", r"(?:credit|account) balance", r"balance is (?:too low|insufficient|not enough)",
    r"payment required", r"(?:add|purchase|buy|more) credits", r"no credits?\b", r"spend(?:ing)? limit",
    r"top up your (?:account|balance)", r"exceeded your (?:\w+ ){0,4}credits", r"account is in good standing",
    r"余额不足|欠费|请充值",
    r"credit limit", r"budget has been exceeded", r"exceeded budget", r"quota (?:is )?(?:exhausted|used up)",
)  # fmt: skip
"""The account's money is used up: no retry helps."""

LIMITS = {
    "requests": _each(
        r"NUM\s*(?:RPM\b|(?:API\s+)?(?:requests?|calls?)\s*(?:per|/|a|every)\s*min)",
        r"requests per min(?:ute)?\W{0,3}(?:\(RPM\))?\W{0,3}Limit\W{0,2}NUM",
        r"\bRPM\b\W{0,3}(?:limit\W{0,2}(?:is|of)?\W*)NUM",
        r"(?<!tokens per min\. )(?<!tokens per minute\. )\bLimit\W{0,2}NUM\s*/\s*min",
    ),
    "tokens": _each(
        r"NUM\s*(?:TPM\b|tokens?\s*(?:per|/|a|every)\s*min)",
        r"tokens per min(?:ute)?\W{0,3}(?:\(TPM\))?\W{0,3}Limit\W{0,2}NUM",
        r"\bTPM\b\W{0,3}(?:limit\W{0,2}(?:is|of)?\W*)NUM",
    ),
}
"""Limits a minute, as a refusal names them."""

BATCH = _each(
    r"maximum allowed batch size\D{0,4}NUM",
    r"batch ?size(?! \d+ tokens)[^.;]{0,40}?(?:larger|greater|more|bigger|exceed\w*|over) than\D{0,4}NUM(?! tokens)",
    r"(?:max(?:imum)?|limit)[ _](?:batch|client batch|items|inputs?|texts?)(?:[ _]size)?\W{0,3}"
    r"(?:(?:is|of|count)\W{0,3})?NUM(?!\s*(?:tokens|chars))",
    r"batch size limit\W{0,3}(?:is|of)?\W{0,3}NUM",
    r"maximum item count\D{0,4}NUM",
    r"array\D{0,40}(?:maximum|max|at most)(?: length)?(?: of)?\W{0,3}NUM(?!\s*tokens)",
    r"array[^.]{0,40}dimensions or less\D{0,9}NUM",
    r"(?:number|count|amount) of (?:texts|inputs?|items|documents|strings|sentences|instances|rows)(?: \w+){0,3}?"
    r" (?:is|are|be|exceeds?)(?: (?:at most|less than or equal to|not (?:exceed|more than)|up to|the|a|max(?:imum)?"
    r"(?: of)?|limit(?: of)?|limited to|no more than))*\W{0,3}NUM(?!\s*tokens)",
    r"(?:at most|up to|maximum(?: of)?|max|no more than|more than|limit(?: is| of|ed to)?|exceed\w*)\W{0,3}NUM"
    r" (?:items?|texts?|inputs?|requests?|documents?|strings?|sentences?|instances?|embeddings?)\b(?! tokens?)",
    r"NUM instance\(?s?\)? (?:is|are) allowed",
    r"batchSize must be NUM",
    r"too many (?:inputs|texts|items|documents|sentences|strings)\D{0,60}NUM(?!\s*tokens)",
)  # fmt: skip
"""Texts that one request may have."""

REQUEST_TOKENS = _any(
    r"tokens?(?: allowed)? per (?:submitted )?(?:request|batch)", r"max_tokens_per_request",
    r"number of tokens in the batch", r"tokens in (?:the|a|this|your) (?:whole )?(?:request|batch)\b",
    r"(?:your|the) batch has \d+ tokens",
)  # fmt: skip
"""The tokens of all texts together are too many: no text is at fault."""

TOO_LONG = _any(
    r"context (?:length|window|size)", r"exceed\w*(?: \w+){0,4} context", r"too many (?:input )?tokens",
    r"(?<!took )(?<!taking )(?<!takes )\btoo long\b(?! to\b)", r"must have less than \d+ tokens",
    r"too large to process", r"max(?:imum)?[ _](?:input|sequence|token)", r"token (?:limit|count)",
    r"(?:exceed\w*|longer|more|larger|greater)(?: than)?(?: \w+){0,5} \(?\d[\d,]* tokens",
    r"cannot exceed \d[\d,]* tok",
    r"(?:input|text|sequence|prompt)s?(?:\[\d+\])?(?: \w+){0,2} (?:length|longer)\b(?: \w+){0,3} (?:exceed|than|be)",
    r"expected maxLength", r"size of tensor a \(\d+\) must match the size of tensor b", r"range of input length",
)  # fmt: skip
"""A text is over the model's limit; no server has a code for it."""

TEXT_TOKENS = _each(
    r"less than NUM tokens",
    r"(?:max(?:imum)?|most|allowed)"
    r"(?: (?:allowed|supported|number|of|input|sequence|token|tokens|length|size|context))*"
    r"\W{0,3}(?:(?:is|are|of|to)\W{1,3})?NUM",
    r"(?:context|sequence|input|token)[ _]?(?:length|window|size|limit|tokens)(?: of this model)?"
    r"\W{0,3}(?:(?:is|of|limit|only|allowed)\W{1,3})*NUM(?!\W*(?:tokens\W*)?(?:exceeds?|is|are)\b)",
    r"batch size\W{0,3}(?:(?:is|of)\W{1,3})?NUM",
    r"size of NUM",
    r"(?:supports?|accepts?|takes|allows?)(?: only)?(?: up to| at most)?(?: a maximum of)? NUM",
    r"(?:exceeds?|exceed|longer than|more than|larger than|greater than|over|up to|at most)"
    r"(?: (?:the|a|max(?:imum)?|model|model's|allowed|limit|length|size|number|of))* NUM(?: tok| limit|\)|$)",
    r"\[\d+,\s*NUM\]",
    r"\b\d{1,9} > NUM",
    r"tensor b \(NUM\)",
    r"NUM[- ]tokens? (?:limit|maximum|or (?:less|fewer)|context)",
    r"limit(?: is|:| of)? NUM(?: tok|\.|$)",
)  # fmt: skip
"""Tokens that one text may have, where the server says that one is too long; the surest wording first."""

UNKNOWN_MODEL = _any(
    r"(?:invalid|unknown|unrecognized|unsupported|no such|incorrect) model", r"not (?:a valid|found:?) model",
    r"\bmodels?\b[^.;]{0,120}?(?:not found|does not exist|doesn't exist|not exist|is not supported|isn't supported|"
    r"not available|is unknown|unavailable|not (?:currently )?loaded|"
    r"has been (?:deprecated|removed|retired)|decommissioned)",
    r"(?:not supported for|does not support|doesn't support|not support) (?:the )?embed\w*", r"not an embedding model",
    r"pooling type\b[^.;]{0,40} is not",
    r"no (?:healthy )?deployments? (?:available|found)", r"deployment[^.;]{0,60} (?:not found|does not exist)",
    r"model_not_found", r"model identifier is invalid", r"with on-demand throughput isn.t supported",
)  # fmt: skip
"""The server does not serve the model, or not for embeddings."""

NOT_ALLOWED = _any(
    r"api[ _]key (?:not valid|expired|invalid)", r"user location is not supported",
    r"(?:invalid|incorrect|wrong|expired|missing) (?:api|access|auth\w*)[ _-]?(?:key|token|credentials?)\b",
    r"(?:api[ _-]key|access[ _-]token|secretid)\b[^.;]{0,40}?(?:invalid|expired|not (?:valid|found)|no longer valid)",
    r"\bunauth(?:ori[sz]|enticat)ed\b", r"authentication (?:error|fails|failed|required)", r"no connected db",
)  # fmt: skip
"""The key is wrong, or the account may not call the server; Google says so with a 400, gateways with a 200,
LiteLLM without a database as in the last row."""

TOO_MANY = _any(
    r"rate[ _-]?limit", r"too[ _]many[ _]requests", r"rate exceeded", r"throttl(?:ed|ing)", r"request limit reached",
)  # fmt: skip
"""The rate of requests is limited: read where the status does not say it."""

REQUEST = {
    _any(r"plain HTTP request was sent to HTTPS", r"HTTP request to an HTTPS", r"plain HTTP to an SSL"):
        "Set base_url to an address that begins with https://.",
    _any(r"headers?(?: or cookie| fields?)?(?: is| are)? (?:too (?:large|long|big)|required|missing)",
         r"missing (?:\S+ ){0,2}header", r"invalid (?:provider|config) passed"):
        "Correct headers=, and the API key if it is very long.",
}  # fmt: skip
"""Faults of the request which no text has, and what to do next."""

UNSUPPORTED = _any(
    r"UnsupportedParams", r"(?:does not|doesn't|not) support(?:ed)? (?:the )?(?:following )?param",
    r"unsupported param",
    r"(?:unrecognized|unknown|unexpected|unsupported|invalid) (?:request )?(?:argument|parameter|field|keyword)",
    r"param(?:eter)?s?\b[^.;]{0,80} (?:is|are) not (?:supported|allowed|permitted)",
    r"(?:extra|additional) (?:fields|inputs|properties)(?: \w+)? not (?:permitted|allowed)", r"drop_params",
    r"extraneous key \[", r"required key \[", r"is not a valid enum value",
)  # fmt: skip
"""The server does not take a field of the request; no text is at fault."""

FIELDS = {
    "encoding_format": _any(
        r"encoding[ _]format",
        r"\bbase64\b",
        r"embedding[ _]types?",
        r"float encoding",
        r"(?:unsupported|invalid|unknown) encoding",
    ),
    "dimensions": _any(r"\bdimensions?\b", r"output_dimension\w*", r"matryoshka"),
}
"""The fields that a server may refuse, and the words by which it names them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a refusal says."""

    wait: float | None = None
    """Seconds to wait."""
    limits: RateLimits | None = None
    quota: bool = False
    """Whether the account's money is used up."""
    too_long: bool = False
    limit: int | None = None
    """Tokens that one text may have."""
    batch_size: int | None = None
    """Texts that one request may have."""
    unknown_model: bool = False
    not_allowed: bool = False
    """Whether the key is wrong."""
    unsupported: bool = False
    """Whether the server does not take a field of the request."""
    fields: frozenset[str] = frozenset()
    """The fields that are named."""
    limited: bool = False
    """Whether the rate of requests is limited."""
    advice: str = ""
    """What to do next, where the request has a fault that is no text's."""


def read(message: str, body: object = None) -> Reading:
    """Return what a reason says; ``body`` may hold a wait in a field of its own."""
    message = message[:MAX_READ]
    wait, limits = _longest([_wait(message), *_waits(body)]), _rate_limits(message)
    batch_size = None if REQUEST_TOKENS.search(message) else _first(BATCH, message)
    too_long = batch_size is None and not REQUEST_TOKENS.search(message) and bool(TOO_LONG.search(message))
    return Reading(
        wait=wait,
        limits=limits,
        quota=wait is None and limits is None and bool(QUOTA.search(message)),
        too_long=too_long,
        limit=_first(TEXT_TOKENS, message) if too_long else None,
        batch_size=batch_size,
        unknown_model=bool(UNKNOWN_MODEL.search(message)),
        not_allowed=bool(NOT_ALLOWED.search(message)),
        unsupported=bool(UNSUPPORTED.search(message)),
        fields=frozenset(name for name, pattern in FIELDS.items() if pattern.search(message)),
        limited=bool(TOO_MANY.search(message)),
        advice=next((advice for pattern, advice in REQUEST.items() if pattern.search(message)), ""),
    )


def parse_span(text: str) -> float | None:
    """Parse a duration such as ``1m2.5s``, ``300 ms`` or ``17 seconds``; ``None`` where there is none."""
    parts = SPAN.findall(text)
    if not parts:
        return None
    return sum(float(amount) * _unit(unit.lower()) for amount, unit in parts)


def _unit(name: str) -> float:
    return SECONDS["ms"] if name.startswith(("ms", "mil")) else SECONDS[name[0]]


def _wait(message: str) -> float | None:
    waits = (found[1] for found in WAIT.finditer(message))
    return _longest([parse_span(wait) if not wait[-1:].isdigit() else float(wait) for wait in waits])


def _waits(body: object) -> Iterator[float | None]:
    """Yield the waits that stand in fields."""
    for found in _objects(body):
        for name, scale in WAITS.items():
            value = found.get(name)
            if isinstance(value, str):
                value = value[:MAX_WAIT]
                yield parse_span(value) or (float(value) * scale if value.isdecimal() else None)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield min(value, 10**MAX_WAIT) * scale


def _longest(waits: Sequence[float | None]) -> float | None:
    return max((wait for wait in waits if wait is not None and wait >= 0), default=None)


def _rate_limits(message: str) -> RateLimits | None:
    found = {unit: _first(patterns, message) for unit, patterns in LIMITS.items()}
    return RateLimits(**found) if any(found.values()) else None


def _first(patterns: Sequence[Pattern], message: str) -> int | None:
    """Return the number of the first pattern that matches."""
    for pattern in patterns:
        if (found := pattern.search(message)) and (number := _number(found[1])):
            return number
    return None


def _number(text: str) -> int | None:
    scale = {"k": 1_000, "m": 1_000_000}.get(text[-1].lower(), 1)
    digits = text.rstrip("KkMm").replace(",", "").replace("_", "")
    number = float(digits) * scale if digits and digits.count(".") <= 1 else 0.0
    return int(number) if 0 < number <= 10**9 else None
