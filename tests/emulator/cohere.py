"""Cohere's `POST /v2/embed`: what it accepts, answers and refuses.

Limits: 96 texts a request; each text is cut at the model's context unless `truncate` is NONE, which refuses it
instead (the default END cuts silently). `input_type` is required; `embedding_types` may be left out and means float,
as the service does though its reference once called it required; `output_dimension` exists from embed-v4 on. Answers
group the vectors by type, echo the texts (the English v3 models echo them in lower case) and bill `input_tokens`.
Errors are `{"id", "message"}`, without the id for a body that does not fit the schema. Images are not served.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any, NoReturn

from tests.emulator.encodings import QUANTISED, as_base64, quantise
from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text, texts_in
from tests.emulator.models import Model, ProviderName, served_by
from tests.emulator.tokens import count_tokens, truncate
from tests.emulator.vectors import Vector

MAX_TEXTS = 96
_TYPES = ("float", "base64", *QUANTISED)
_ROLES = ("search_document", "search_query", "classification", "clustering")
_UNSERVED = ("images", "inputs")
_FIELDS = frozenset({
    "model", "input_type", "texts", "embedding_types", "output_dimension", "truncate", "max_tokens", "priority",
    *_UNSERVED,
})  # fmt: skip

_RATE = "trial token rate limit exceeded, limit is 100000 tokens per minute"
_MONTHLY = "You are using a Trial key, which is limited to 1000 API calls / month."


class Cohere:
    """The endpoint of api.cohere.com."""

    name: ProviderName = "cohere"

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = keys

    def serves(self, path: str) -> bool:
        return path == "/v2/embed"

    def sketch(self, request: Request) -> Sketch:
        fields = request.fields() or {}
        return Sketch(
            as_text(fields.get("model")),
            texts_in(fields.get("texts")),
            as_text(fields.get("input_type")),
            as_count(fields.get("output_dimension")),
        )

    def accept(self, request: Request) -> Job:
        if request.key is None:
            self._refuse(401, "no api key supplied")
        if self.keys is not None and request.key not in self.keys:
            self._refuse(401, _wrong_key())
        fields = request.fields()
        if fields is None:
            self._refuse(400, "invalid request: request body is not valid JSON")
        unknown = sorted(fields.keys() - _FIELDS)
        if unknown:
            self._refuse(422, f"invalid request: unknown field {unknown[0]!r}", identified=False)
        fields = {name: value for name, value in fields.items() if value is not None}
        model = self._model(fields)
        texts = self._texts(fields)
        if fields.get("input_type") not in _ROLES:
            self._refuse(400, "invalid request: valid input_type must be provided with the provided model")
        dimensions = self._dimensions(fields, model)
        types = fields.get("embedding_types", ["float"])
        if not isinstance(types, list) or not types or any(item not in _TYPES for item in types):
            self._refuse(400, f"invalid request: embedding_types must be a list of {', '.join(_TYPES)}")
        kept = self._fit(fields, model, texts)
        tokens = sum(count_tokens("cohere", text) for text in kept)
        return Job(model, kept, texts, fields["input_type"], dimensions, tokens, tuple(types))

    def _model(self, fields: dict[str, Any]) -> Model:
        name = fields.get("model")
        if not isinstance(name, str) or not name:
            self._refuse(400, "invalid request: model is required")
        model = served_by("cohere", name)
        if model is None:
            self._refuse(404, _no_model(name))
        return model

    def _texts(self, fields: dict[str, Any]) -> tuple[str, ...]:
        for name in _UNSERVED:
            if name in fields:
                self._refuse(400, f"invalid request: the emulator embeds texts only, not {name}")
        texts = fields.get("texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self._refuse(422, "invalid request: texts must be an array of strings", identified=False)
        if not texts:
            self._refuse(400, "invalid request: at least one text must be provided")
        if len(texts) > MAX_TEXTS:
            message = f"invalid request: total number of texts must be at most {MAX_TEXTS} - received {len(texts)}"
            self._refuse(400, message)
        if not all(texts):
            self._refuse(400, "invalid request: texts must not contain empty strings")
        return tuple(texts)

    def _dimensions(self, fields: dict[str, Any], model: Model) -> int:
        if "output_dimension" not in fields:
            return model.default
        asked = as_count(fields["output_dimension"])
        if not model.dimensions:
            self._refuse(400, f"invalid request: output_dimension is not supported by model '{model.name}'")
        if asked is None or asked not in model.dimensions:
            allowed = ", ".join(map(str, sorted(model.dimensions)))
            self._refuse(400, f"invalid request: output_dimension must be one of {allowed}")
        return asked

    def _fit(self, fields: dict[str, Any], model: Model, texts: tuple[str, ...]) -> tuple[str, ...]:
        limit = model.max_tokens
        if "max_tokens" in fields:
            asked = as_count(fields["max_tokens"])
            if asked is None or asked < 1:
                self._refuse(400, "invalid request: max_tokens must be a positive integer")
            limit = min(limit, asked)
        side = fields.get("truncate", "END")
        if side in ("START", "END"):
            return tuple(truncate(text, limit, side) for text in texts)
        if side != "NONE":
            self._refuse(400, "invalid request: truncate must be one of NONE, START, END")
        excess = max(count_tokens("cohere", text) for text in texts) - limit
        if excess > 0:
            message = (
                f"too many tokens: size limit exceeded by {excess} tokens. Try using shorter or fewer inputs. "
                f"The limit for this model is {limit} tokens."
            )
            self._refuse(400, message, error_type="TOO_MANY_TOKENS")
        return texts

    def render(self, answer: Answer) -> Reply:
        job = answer.job
        english = job.model.name.startswith("embed-english-")
        billed: dict[str, int] = {} if answer.tokens is None else {"input_tokens": answer.tokens}
        if job.model.dimensions and billed:
            billed["image_tokens"] = 0
        meta: dict[str, Any] = {"api_version": {"version": "2"}}
        if billed:
            meta["billed_units"] = billed
        body = {
            "id": str(uuid.uuid4()),
            "texts": [text.lower() if english else text for text in job.inputs],
            "embeddings": {kind: [_written(answer.vectors[i], kind) for i in answer.order] for kind in job.formats},
            "meta": meta,
            "response_type": "embeddings_by_type",
        }
        headers = {
            "num_chars": str(sum(map(len, job.inputs))),
            "num_tokens": str(job.tokens),
            "x-debug-trace-id": uuid.uuid4().hex,
        }
        return Reply(200, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), headers)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        model = self.sketch(request).model or "unknown"
        messages = {
            401: _wrong_key(),
            404: _no_model(model),
            429: _MONTHLY if reason == "insufficient_quota" else _RATE,
            500: "internal server error",
            503: "service unavailable, please try again later",
        }
        message = messages.get(status, f"the request failed with status {status}")
        return self._error(status, {"id": str(uuid.uuid4()), "message": message})

    def _refuse(self, status: int, message: str, *, identified: bool = True, error_type: str | None = None) -> NoReturn:
        body = {"error_type": error_type} if error_type else {}
        body |= {"id": str(uuid.uuid4())} if identified else {}
        raise Refusal(self._error(status, {**body, "message": message}), message)

    def _error(self, status: int, body: dict[str, str]) -> Reply:
        raw = json.dumps(body, separators=(",", ":")).encode()
        return Reply(status, raw, {"x-debug-trace-id": uuid.uuid4().hex})


def _written(vector: Vector, kind: str) -> str | list[float]:
    return as_base64(vector) if kind == "base64" else quantise(vector, kind).tolist()


def _wrong_key() -> str:
    return (
        "Incorrect API key provided: ***********. You can find your API key at https://dashboard.cohere.com/api-keys."
    )


def _no_model(name: str) -> str:
    return f"model '{name}' not found, make sure the correct model ID was used and that you have access to the model."
