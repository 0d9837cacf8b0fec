"""What servers of OpenAI's protocol answer, as vectors and as errors."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from ..errors import (
    BackendError,
    BadResponseError,
    RequestTimeoutError,
    UnavailableError,
)
from ..models import Model, billed
from ..types import Answer, RateLimits
from ._responses import failed, from_status, matrix, rate_limits, was_sent

__all__ = ["answer", "read", "translated"]


def read(response: Any, model: Model) -> Answer:
    """Return what an embeddings response says, and what its headers say of the limits."""
    from pydantic_core import from_json  # the SDK has loaded it

    try:
        body = from_json(response.content)  # in a third of the time that json.loads takes
    except ValueError as error:
        raise BadResponseError(f"the answer is no JSON ({len(response.content)} bytes)", model=model.name) from error
    return answer(body, model, rate_limits(response.headers))


def answer(body: Any, model: Model, limits: RateLimits | None = None) -> Answer:
    """Return what the parsed body of an embeddings response says."""
    try:
        rows = body["data"]
        if any("index" in row for row in rows):
            rows = sorted(rows, key=lambda row: row["index"])
            if [row["index"] for row in rows] != list(range(len(rows))):
                raise BadResponseError("the answer repeats or skips an index", model=model.name)
        embeddings = [row["embedding"] for row in rows]
        tokens = (body.get("usage") or {}).get("prompt_tokens")
    except (KeyError, TypeError, AttributeError) as error:
        raise BadResponseError("the answer is not an embeddings response", model=model.name) from error
    return Answer(matrix(embeddings, model.name), billed(tokens), limits)


def translated(error: Exception, model: Model, texts: Sequence[str]) -> Exception:
    """Return our error for one of the SDK's or of httpx2's, or ``error`` itself when it is neither; see ``failed``."""
    sent = _keys(error)
    return failed(error, _ours(error, model, texts, sent), model, texts, sent)


def _keys(error: Exception) -> list[str]:
    """Return the keys that went with a request, such as a token that only its provider knew."""
    headers = getattr(getattr(error, "request", None), "headers", None) or {}
    return [word for name in ("authorization", "api-key") for word in headers.get(name, "").split()]


def _ours(error: Exception, model: Model, texts: Sequence[str], sent: Sequence[str]) -> Exception:
    import anyio
    import httpx2
    import openai

    match error:
        case openai.APITimeoutError() | httpx2.TimeoutException():
            return RequestTimeoutError("no answer in time", model=model.name, perhaps_billed=was_sent(error))
        case openai.APIConnectionError() | httpx2.RequestError() | ssl.SSLError() | anyio.EndOfStream():
            cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
            story = f"the connection failed ({type(cause or error).__name__})"
            return UnavailableError(story, model=model.name, perhaps_billed=was_sent(error))
        case openai.APIStatusError():
            body = error.body if isinstance(error.body, dict) else {}
            return from_status(
                error.status_code,
                str(body.get("message") or error.message),
                model=model,
                headers=dict(error.response.headers),
                code=str(body.get("code") or ""),
                texts=texts,
                sent=sent,
            )
        case openai.APIResponseValidationError():
            return BadResponseError("the answer is not an embeddings response", model=model.name)
        case openai.OpenAIError():
            return BackendError(f"the openai library failed ({type(error).__name__})", model=model.name)
        case _:
            return error
