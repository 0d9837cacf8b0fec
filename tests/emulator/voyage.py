"""Voyage AI's `POST /v1/embeddings`: what it accepts, answers and refuses.

Limits: 1,000 texts a request, the model's context a text (cut unless `truncation` is false, which refuses), and a
number of tokens a request that depends on the model (API reference, text embeddings). `output_dtype` is of the models
that have several lengths; base64 is of its numbers, a byte each for integers. Every refusal of a request is a
400 with `{"detail": …}`, an unknown model included. `encoding_format` is base64 or null, never "float"; `input_type`
is query, document or null. voyage-4-nano has open weights and is not served.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any, NoReturn

from tests.emulator.encodings import QUANTISED, as_base64, quantise
from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text, texts_in
from tests.emulator.models import MODELS, Model, ProviderName, served_by
from tests.emulator.tokens import count_tokens, truncate

MAX_TEXTS = 1000
FIELDS = frozenset({
    "input", "model", "input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"
})  # fmt: skip
_DTYPES = ("float", *QUANTISED)


class Voyage:
    """The endpoint of api.voyageai.com."""

    name: ProviderName = "voyage"

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = keys

    def serves(self, path: str) -> bool:
        return path == "/v1/embeddings"

    def sketch(self, request: Request) -> Sketch:
        fields = request.fields() or {}
        return Sketch(
            as_text(fields.get("model")),
            texts_in(fields.get("input")),
            as_text(fields.get("input_type")),
            as_count(fields.get("output_dimension")),
        )

    def accept(self, request: Request) -> Job:
        self.authenticate(request)
        return self.check(self.read(request))

    def authenticate(self, request: Request) -> None:
        """Refuse a missing key, and a wrong one when the emulator was given a list."""
        if request.key is None or (self.keys is not None and request.key not in self.keys):
            self.refuse("Provided API key is invalid.", status=401)

    def read(self, request: Request) -> dict[str, Any]:
        """Return the body; refuse one that is no object."""
        fields = request.fields()
        if fields is None:
            self.refuse("The request body is not valid JSON.")
        return fields

    def check(self, fields: dict[str, Any]) -> Job:
        """Return the job behind a body."""
        unknown = sorted(fields.keys() - FIELDS)
        if unknown:
            self.refuse(f"Argument '{unknown[0]}' is not supported by our API.")
        fields = {name: value for name, value in fields.items() if value is not None}
        model = self._model(fields)
        texts = self._texts(fields)
        role = fields.get("input_type")
        if role not in (None, "query", "document"):
            self._unaccepted("input_type", role, "'query', 'document' or null")
        encoding = fields.get("encoding_format")
        if encoding not in (None, "base64"):
            self._unaccepted("encoding_format", encoding, "'base64' or null")
        dtype = fields.get("output_dtype", "float")
        dtypes = _DTYPES if model.dimensions else ("float",)  # models with several lengths are those with several types
        if dtype not in dtypes:
            self._unaccepted("output_dtype", dtype, ", ".join(dtypes))
        dimensions = self._dimensions(fields, model)
        kept = self._fit(fields, model, texts)
        tokens = sum(count_tokens("voyage", text) for text in kept)
        if model.max_request_tokens is not None and tokens > model.max_request_tokens:
            self.refuse(
                f"Request to model '{model.name}' failed. The max allowed tokens per submitted batch is "
                f"{model.max_request_tokens}. Your batch has {tokens} tokens after truncation. Please lower the number "
                "of tokens in the batch."
            )
        return Job(model, kept, texts, role, dimensions, tokens, (encoding or "float",), dtype)

    def _model(self, fields: dict[str, Any]) -> Model:
        name = fields.get("model")
        if not isinstance(name, str):
            self.refuse("Argument 'model' is required and must be a string.")
        model = served_by("voyage", name)
        if model is None:
            self.refuse(_no_model(name))
        return model

    def _texts(self, fields: dict[str, Any]) -> tuple[str, ...]:
        value = fields.get("input")
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.refuse("Argument 'input' is required and must be a string or a list of strings.")
        if not texts or not all(texts):
            self.refuse("Input cannot contain empty strings or empty lists.")
        if len(texts) > MAX_TEXTS:
            self.refuse(f"The batch size limit is {MAX_TEXTS}. Your batch size is {len(texts)}.")
        return tuple(texts)

    def _dimensions(self, fields: dict[str, Any], model: Model) -> int:
        if "output_dimension" not in fields:
            return model.default
        asked = as_count(fields["output_dimension"])
        allowed = model.dimensions or (model.default,)
        if asked is None or asked not in allowed:
            self._unaccepted("output_dimension", fields["output_dimension"], ", ".join(map(str, allowed)))
        return asked

    def _fit(self, fields: dict[str, Any], model: Model, texts: tuple[str, ...]) -> tuple[str, ...]:
        cut = fields.get("truncation", True)
        if not isinstance(cut, bool):
            self._unaccepted("truncation", cut, "true, false")
        if cut:
            return tuple(truncate(text, model.max_tokens) for text in texts)
        over = [i for i, text in enumerate(texts) if count_tokens("voyage", text) > model.max_tokens]
        if over:
            self.refuse(
                f"Request to model '{model.name}' failed. The example at index {over[0]} in your batch has too many "
                f"tokens and does not fit into the model's context window of {model.max_tokens} tokens. Please lower "
                "the number of tokens in the listed example(s) or use truncation."
            )
        return texts

    def render(self, answer: Answer) -> Reply:
        job = answer.job
        rows = []
        for place in answer.order:
            values = quantise(answer.vectors[place], job.dtype)
            written = as_base64(values) if job.formats[0] == "base64" else values.tolist()
            rows.append({"object": "embedding", "embedding": written, "index": place})
        body: dict[str, Any] = {"object": "list", "data": rows, "model": job.model.name}
        if answer.tokens is not None:
            body["usage"] = {"total_tokens": answer.tokens}
        return Reply(200, json.dumps(body, separators=(",", ":")).encode(), _headers())

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        model = self.sketch(request).model or "unknown"
        details = {
            400: _no_model(model),
            401: "Provided API key is invalid.",
            404: "Not Found",
            429: (
                "You have not yet added your payment method in the billing page and will have reduced rate limits of "
                "3 RPM and 10K TPM."
            ),
        }
        detail = details.get(status, "The server had an error." if status >= 500 else f"Request failed ({status}).")
        return self._error(status, detail)

    def _unaccepted(self, name: str, value: object, accepted: str) -> NoReturn:
        self.refuse(f"Value '{value}' provided for argument '{name}' is not accepted. Accepted values are {accepted}.")

    def refuse(self, detail: str, *, status: int = 400) -> NoReturn:
        """Raise the refusal with this maker's error body."""
        raise Refusal(self._error(status, detail), detail)

    def _error(self, status: int, detail: str) -> Reply:
        return Reply(status, json.dumps({"detail": detail}, separators=(",", ":")).encode(), _headers())


def _headers() -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex}


def _no_model(name: str) -> str:
    served = [row.name for row in MODELS.values() if served_by("voyage", row.name)]
    return f"Model {name} is not supported. Supported models are {served}."
