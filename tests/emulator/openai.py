"""OpenAI's `POST /v1/embeddings`: what it accepts, answers and refuses.

Limits: 2048 inputs, 8192 tokens an input, 300,000 tokens a request, no empty string (API reference, embeddings). The
error shape is `{"error": {message, type, param, code}}`; the words are the service's own where they are public. An
input may also be token ids, as some frameworks send; they are turned back into text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any, NoReturn

from tests.emulator.encodings import as_base64
from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text, texts_in
from tests.emulator.models import Model, ProviderName, served_by
from tests.emulator.tokens import count_tokens, decode

MAX_INPUTS = 2048
_FIELDS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})
_TOKENS_PER_MINUTE = 10_000_000
_BAD_INPUT = "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."


class OpenAI:
    """The endpoint of api.openai.com."""

    name: ProviderName = "openai"

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = keys

    def serves(self, path: str) -> bool:
        return path == "/v1/embeddings"

    def sketch(self, request: Request) -> Sketch:
        fields = request.fields() or {}
        texts = inputs(fields.get("input")) or texts_in(fields.get("input"))
        return Sketch(as_text(fields.get("model")), texts, None, as_count(fields.get("dimensions")))

    def accept(self, request: Request) -> Job:
        self.authenticate(request)
        fields = self.read(request)
        name = fields.get("model")
        if not isinstance(name, str) or not name:
            self.refuse(400, "you must provide a model parameter")
        model = served_by("openai", name)
        if model is None:
            message = f"The model `{name}` does not exist or you do not have access to it."
            self.refuse(404, message, code="model_not_found")
        return self.check(fields, model)

    def authenticate(self, request: Request) -> None:
        """Refuse a missing key, and a wrong one when the emulator was given a list."""
        if request.key is None:
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            self.refuse(401, message)
        if self.keys is not None and request.key not in self.keys:
            self.refuse(401, _wrong_key(request.key), code="invalid_api_key")

    def read(self, request: Request) -> dict[str, Any]:
        """Return the body; refuse a body that is no object or has an unknown field."""
        fields = request.fields()
        if fields is None:
            self.refuse(400, "We could not parse the JSON body of your request.")
        return self.known(fields)

    def known(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return `fields`; refuse an unknown field."""
        unknown = sorted(fields.keys() - _FIELDS)
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            self.refuse(400, f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
        return fields

    def check(self, fields: dict[str, Any], model: Model) -> Job:
        """Return the job behind a body whose model is known."""
        dimensions = self._dimensions(fields.get("dimensions"), model)
        encoding = fields.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            self.refuse(400, f"{encoding!r} is not one of ['float', 'base64'] - 'encoding_format'")
        if not isinstance(fields.get("user", ""), str):
            self.refuse(400, f"{fields['user']!r} is not of type 'string' - 'user'")
        texts = inputs(fields.get("input"))
        if not texts or len(texts) > MAX_INPUTS or not all(texts):
            self.refuse(400, _BAD_INPUT)
        counts = [count_tokens("openai", text) for text in texts]
        if max(counts) > model.max_tokens:
            asked = max(counts)
            message = (
                f"This model's maximum context length is {model.max_tokens} tokens, however you requested {asked} "
                f"tokens ({asked} in your prompt; 0 for the completion). Please reduce your prompt; or completion "
                "length."
            )
            self.refuse(400, message)
        if model.max_request_tokens is not None and sum(counts) > model.max_request_tokens:
            message = f"Requested {sum(counts)} tokens, max {model.max_request_tokens} tokens per request"
            self.refuse(400, message, kind="max_tokens_per_request", code="max_tokens_per_request")
        return Job(model, texts, texts, None, dimensions, sum(counts), (encoding,))

    def _dimensions(self, value: object, model: Model) -> int:
        if value is None:
            return model.default
        if not model.dimensions:
            self.refuse(400, "This model does not support specifying dimensions.")
        asked = as_count(value)
        if asked is None:
            self.refuse(400, f"{value!r} is not of type 'integer' - 'dimensions'")
        if asked < 1:
            self.refuse(400, f"{asked} is less than the minimum of 1 - 'dimensions'")
        if asked > model.native:
            message = f"Invalid value for 'dimensions' = {asked}. Must be less than or equal to {model.native}."
            self.refuse(400, message)
        return asked

    def render(self, answer: Answer) -> Reply:
        job = answer.job
        encoded = job.formats[0] == "base64"
        rows = [
            {
                "object": "embedding",
                "index": place,
                "embedding": as_base64(answer.vectors[place]) if encoded else answer.vectors[place].tolist(),
            }
            for place in answer.order
        ]
        body: dict[str, Any] = {"object": "list", "data": rows, "model": job.model.name}
        if answer.tokens is not None:
            body["usage"] = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
        return Reply(200, json.dumps(body).encode(), self.success_headers(job))

    def success_headers(self, job: Job) -> dict[str, str]:
        return {
            "openai-model": job.model.name,
            "openai-organization": "emulated",
            "openai-processing-ms": "21",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": str(_TOKENS_PER_MINUTE),
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-remaining-tokens": str(_TOKENS_PER_MINUTE - job.tokens),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "0s",
            **self.error_headers(),
        }

    def error_headers(self) -> dict[str, str]:
        return {"x-request-id": f"req_{uuid.uuid4().hex}"}

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        if status == 503:
            text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            return Reply(503, text.encode(), self.error_headers(), "text/plain")
        model = self.sketch(request).model or "unknown"
        message, kind, code = scripted_error(status, reason, model, request.key or "")
        return self.error(status, message, kind, code)

    def refuse(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> NoReturn:
        """Raise the refusal with this maker's error body."""
        raise Refusal(self.error(status, message, kind, code, param), message)

    def error(self, status: int, message: str, kind: str, code: str | None, param: str | None = None) -> Reply:
        text = json.dumps(error_body(message, kind, code, param), indent=4) + "\n"
        return Reply(status, text.encode(), self.error_headers(), "application/json; charset=utf-8")


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """Return the shape that every error of this maker has."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def inputs(value: object) -> tuple[str, ...] | None:
    """Return the inputs as text, or None when the field holds anything but strings or token ids."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return None
    if value and all(as_count(item) is not None for item in value):
        return (decode(value),)
    if all(isinstance(item, str) for item in value):
        return tuple(value)
    if all(isinstance(row, list) and all(as_count(item) is not None for item in row) for row in value):
        return tuple(decode(row) for row in value)
    return None


def _wrong_key(key: str) -> str:
    shown = key if len(key) <= 12 else key[:8] + "*" * (len(key) - 12) + key[-4:]
    return (
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )


def scripted_error(status: int, reason: str | None, model: str, key: str) -> tuple[str, str, str | None]:
    """Return message, type and code of a scripted error."""
    if reason == "insufficient_quota":
        message = (
            "You exceeded your current quota, please check your plan and billing details. For more information on "
            "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
        )
        return message, "insufficient_quota", "insufficient_quota"
    if reason == "request_too_large":
        message = (
            f"Request too large for {model} in organization org-emulated on tokens per min (TPM): Limit 40000, "
            "Requested 50000. The input or output tokens must be reduced in order to run successfully. Visit "
            "https://platform.openai.com/account/rate-limits to learn more."
        )
        return message, "tokens", "rate_limit_exceeded"
    table: dict[int, tuple[str, str, str | None]] = {
        401: (_wrong_key(key), "invalid_request_error", "invalid_api_key"),
        403: (
            "Country, region, or territory not supported",
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
        404: (
            f"The model `{model}` does not exist or you do not have access to it.",
            "invalid_request_error",
            "model_not_found",
        ),
        429: (
            f"Rate limit reached for {model} in organization org-emulated on requests per min (RPM): Limit 10000, "
            "Used 10000, Requested 1. Please try again in 6ms. Visit https://platform.openai.com/account/rate-limits "
            "to learn more.",
            "requests",
            "rate_limit_exceeded",
        ),
    }
    if status in table:
        return table[status]
    if status >= 500:
        return "The server had an error while processing your request. Sorry about that!", "server_error", None
    return f"The request was refused ({status}).", "invalid_request_error", None
