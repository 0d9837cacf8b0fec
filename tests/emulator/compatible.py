"""Servers that speak OpenAI's embeddings protocol, each in its own dialect, and Ollama's own `POST /api/embed`.

What a server takes, refuses and says is a row of `RULES`, written from the makers' documentation and, where the program
is public, its source; the row's comment names it. None of the package's own tables is read here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from tests.emulator.encodings import QUANTISED, as_base64, quantise
from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text, texts_in
from tests.emulator.models import Model, find
from tests.emulator.tokens import count_tokens, truncate

Body = dict[str, Any]


def _openai_error(status: int, kind: str, message: str) -> Body:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _mistral_error(status: int, kind: str, message: str) -> Body:
    if status == 401:
        return {"detail": "Invalid API Key"}
    if status == 422:
        details = [{"type": kind, "loc": ["body"], "msg": message, "input": None}]
        return {"object": "error", "message": {"detail": details}, "type": "invalid_request_error", "param": None,
                "code": None}  # fmt: skip
    code = "1500" if kind == "invalid_model" else {429: "1300", 404: "1500"}.get(status, "3210")
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code,
            "raw_status_code": status}  # fmt: skip


def _jina_error(status: int, kind: str, message: str) -> Body:
    if status == 400:
        return {"detail": {"message": message, "request_id": uuid.uuid4().hex, "code": kind}}
    if status == 422:
        return {"detail": f"Validation error: {message}", "request_id": uuid.uuid4().hex, "errors": []}
    return {"detail": message}


def _detail(status: int, kind: str, message: str) -> Body:
    return {"detail": message}


def _nvidia_error(status: int, kind: str, message: str) -> Body:
    if status in (401, 403):
        return {"status": status, "title": "Unauthorized", "detail": "Authentication failed"}
    return {"error": message} if status in (400, 422) else {"status": status, "title": kind, "detail": message}


def _openrouter_error(status: int, kind: str, message: str) -> Body:
    return {"error": {"message": message, "code": status}}


def _tei_error(status: int, kind: str, message: str) -> Body:
    return {"message": message, "code": status, "type": kind}


def _ollama_error(status: int, kind: str, message: str) -> Body:
    return {"error": message}


def _databricks_error(status: int, kind: str, message: str) -> Body:
    return {"error_code": kind, "message": message}


def _vllm_error(status: int, kind: str, message: str) -> Body:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What one server takes and says. Statuses and words are by the kind of the mistake."""

    models: tuple[str, ...]
    route: str = "/v1/embeddings"
    texts: int
    tokens: int | None = None
    fields: frozenset[str]
    """The fields that the documentation names; others are refused, or ignored where `tolerant`."""
    tolerant: bool = False
    format_field: str = "encoding_format"
    formats: tuple[str, ...] = ("float", "base64")
    dimensions_field: str = "dimensions"
    dtype_field: str = ""
    """The field that asks for other numbers than floats; empty where the field of the format asks for them."""
    dtypes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What it takes besides float, by model."""
    whole_floats: bool = False
    """Whether integers are written as floats: 12.0."""
    type_field: str = ""
    types: tuple[str, ...] = ()
    cuts: bool = False
    """Whether a long text is cut where the request does not forbid it."""
    no_cutting: tuple[str, object] = ("", None)
    """The field that forbids it, with its value."""
    key: bool = True
    error: Callable[[int, str, str], Body] = _openai_error
    unknown_model: tuple[int, str] = (404, "model_not_found")
    unknown_model_words: str = "model '{name}' not found"
    unknown_field: tuple[int, str] = (422, "extra_forbidden")
    too_many: tuple[int, str, str] = (400, "invalid_request_error", "Too many inputs: at most {limit} are allowed.")
    too_long: tuple[int, str, str]
    usage: tuple[str, ...] = ("prompt_tokens", "total_tokens")
    served: Mapping[str, str] = field(default_factory=dict)
    """The name by which the answer calls a model, where it is another."""
    begins_with: bytes = b""
    """White space before an answer, by which a gateway keeps the connection open while it waits."""


OPENAI_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})

RULES: Mapping[str, Rules] = {
    # docs.mistral.ai/api (openapi.yaml: additionalProperties false); the limits' words are from public issues
    "mistral": Rules(
        models=("mistral-embed", "codestral-embed"),
        texts=256,
        tokens=16_384,
        fields=frozenset({"model", "input", "metadata", "output_dimension", "output_dtype", "encoding_format"}),
        dimensions_field="output_dimension",
        dtype_field="output_dtype",
        dtypes={"codestral-embed": QUANTISED},
        error=_mistral_error,
        unknown_model=(400, "invalid_model"),
        unknown_model_words="Invalid model: {name}",
        too_many=(400, "invalid_request_prompt", "Too many inputs in request, split into more batches."),
        too_long=(400, "invalid_request_prompt", "Input id 0 has {count} tokens, exceeding max {limit} tokens."),
    ),
    # jina-ai/jina-on-prem, server/adapters/jina.py, rendering of the envelope
    "jina": Rules(
        models=("jina-embeddings-v3", "jina-embeddings-v2-base-en"),
        texts=512,
        fields=frozenset({
            "model", "input", "task", "dimensions", "normalized", "truncate", "embedding_type", "late_chunking",
            "return_multivector",
        }),
        tolerant=True,
        format_field="embedding_type",
        formats=("float", "base64", "binary", "ubinary"),
        whole_floats=True,
        type_field="task",
        types=("retrieval.query", "retrieval.passage", "text-matching", "classification", "separation"),
        error=_jina_error,
        unknown_model=(422, "value_error"),
        too_many=(422, "too_long", "'input' Each input list can contain at most {limit} items."),
        too_long=(
            400, "INPUT_TOKEN_LIMIT_EXCEEDED",
            "Input text exceeds the model's maximum of {limit} tokens. Use 'truncate: true' to automatically truncate, "
            "or split into smaller chunks.",
        ),
    ),
    # docs.nvidia.com/nim/nemo-retriever/text-embedding, reference
    "nvidia": Rules(
        models=("nvidia/nv-embedqa-e5-v5", "nvidia/llama-3.2-nv-embedqa-1b-v2"),
        texts=50,
        fields=frozenset({*OPENAI_FIELDS, "input_type", "truncate", "modality", "embedding_type"}),
        type_field="input_type",
        types=("query", "passage"),
        cuts=True,
        no_cutting=("truncate", "NONE"),
        error=_nvidia_error,
        too_many=(400, "invalid", "The batch size should not be larger than {limit}."),
        too_long=(400, "invalid", "Input length {count} exceeds maximum allowed token size {limit}"),
    ),
    # openrouter.ai/docs, api reference, embeddings
    "openrouter": Rules(
        models=("openai/text-embedding-3-small",),
        texts=2048,
        fields=frozenset({*OPENAI_FIELDS, "provider", "input_type"}),
        error=_openrouter_error,
        unknown_model=(400, "invalid"),
        unknown_model_words="Model {name} does not exist",
        served={"openai/text-embedding-3-small": "text-embedding-3-small"},
        begins_with=b"\n         \n",
        too_long=(400, "invalid", "This model's maximum context length is {limit} tokens, you requested {count}."),
    ),
    # togethercomputer/openapi, EmbeddingsRequest
    "together": Rules(
        models=("intfloat/multilingual-e5-large-instruct",),
        texts=1000,
        fields=frozenset({"model", "input"}),
        formats=(),
        dimensions_field="",
        too_long=(422, "invalid_request_error", "Input is too long: {count} tokens, the maximum is {limit} tokens"),
    ),
    # docs.fireworks.ai, CreateEmbeddingRequest (additionalProperties false)
    "fireworks": Rules(
        models=("nomic-ai/nomic-embed-text-v1.5",),
        texts=2048,
        fields=frozenset({"model", "input", "prompt_template", "dimensions", "return_logits", "normalize"}),
        formats=(),
        too_long=(400, "invalid_request_error", "The prompt is too long: {count}, maximum context length: {limit}"),
    ),
    # deepinfra.com/docs/openai_api
    "deepinfra": Rules(
        models=("BAAI/bge-m3",),
        texts=1024,
        fields=OPENAI_FIELDS,
        formats=("float",),
        error=_detail,
        too_many=(400, "invalid", "inputs: ensure this value has at most {limit} items"),
        too_long=(400, "invalid", "Input length {count} exceeds maximum sequence length {limit} tokens"),
    ),
    # docs.databricks.com, foundation model APIs
    "databricks": Rules(
        models=("databricks-gte-large-en",),
        route="/serving-endpoints/embeddings",
        texts=150,
        fields=frozenset({"model", "input", "instruction"}),
        formats=(),
        dimensions_field="",
        error=_databricks_error,
        unknown_model=(404, "RESOURCE_DOES_NOT_EXIST"),
        too_many=(400, "BAD_REQUEST", "The number of inputs exceeds the maximum of {limit}."),
        too_long=(400, "BAD_REQUEST", "Input has {count} tokens, exceeding the maximum of {limit} tokens"),
    ),
    # alibabacloud.com/help, text embedding; the words are from public issues
    "dashscope": Rules(
        models=("text-embedding-v4",),
        route="/compatible-mode/v1/embeddings",
        texts=10,
        fields=OPENAI_FIELDS,
        formats=("float",),
        too_many=(400, "InvalidParameter", "batch size is invalid, it should not be larger than {limit}."),
        too_long=(400, "InvalidParameter", "Range of input length should be [1, {limit}]"),
    ),
    # ollama/ollama, server/routes.go EmbedHandler
    "ollama": Rules(
        models=("nomic-embed-text", "all-minilm"),
        route="/api/embed",
        texts=10_000,
        fields=frozenset({"model", "input", "truncate", "options", "keep_alive", "dimensions"}),
        tolerant=True,
        formats=(),
        cuts=True,
        no_cutting=("truncate", False),
        key=False,
        error=_ollama_error,
        too_long=(400, "", "the input length exceeds the context length"),
    ),
    # vllm-project/vllm, entrypoints/pooling
    "vllm": Rules(
        models=("BAAI/bge-m3", "intfloat/multilingual-e5-large-instruct"),
        texts=10_000,
        fields=frozenset({*OPENAI_FIELDS, "truncate_prompt_tokens", "add_special_tokens", "priority", "request_id"}),
        key=False,
        error=_vllm_error,
        unknown_model=(404, "NotFoundError"),
        too_long=(
            400, "BadRequestError",
            "This model's maximum context length is {limit} tokens. However, your request has {count} input tokens. "
            "Please reduce the length of the input messages.",
        ),
    ),
    # huggingface/text-embeddings-inference, router/src/http
    "tei": Rules(
        models=("BAAI/bge-m3",),
        texts=32,
        fields=OPENAI_FIELDS,
        tolerant=True,
        cuts=True,
        key=False,
        error=_tei_error,
        too_many=(422, "Validation", "batch size {count} > maximum allowed batch size {limit}"),
        too_long=(422, "Validation", "Input validation error: `inputs` must have less than {limit} tokens"),
    ),
    # lmstudio.ai/docs
    "lmstudio": Rules(
        models=("text-embedding-nomic-embed-text-v1.5",),
        texts=10_000,
        fields=OPENAI_FIELDS,
        tolerant=True,
        formats=("float",),
        dimensions_field="",
        cuts=True,
        key=False,
        error=lambda status, kind, message: {"error": message},
        too_long=(400, "", "too long"),
    ),
    # docs.litellm.ai, proxy; the texts of errors as in its source
    "litellm": Rules(
        models=("text-embedding-3-small",),
        texts=2048,
        fields=frozenset({*OPENAI_FIELDS, "input_type", "metadata", "timeout"}),
        key=False,
        unknown_model=(400, "invalid_request_error"),
        too_long=(
            400, "invalid_request_error",
            "litellm.BadRequestError: OpenAIException - This model's maximum context length is {limit} tokens, however "
            "you requested {count} tokens.",
        ),
    ),
}  # fmt: skip


class Compatible:
    """The endpoint of one server of `RULES`."""

    def __init__(self, name: str, keys: Collection[str] | None) -> None:
        self.name = name
        self.keys = keys
        self.rules = RULES[name]

    def serves(self, path: str) -> bool:
        return path == self.rules.route

    def sketch(self, request: Request) -> Sketch:
        fields, rules = request.fields() or {}, self.rules
        return Sketch(
            as_text(fields.get("model")),
            texts_in(fields.get("input")),
            as_text(fields.get(rules.type_field)) if rules.type_field else None,
            as_count(fields.get(rules.dimensions_field)) if rules.dimensions_field else None,
        )

    def accept(self, request: Request) -> Job:
        self.authenticate(request)
        return self.check(self.read(request))

    def authenticate(self, request: Request) -> None:
        """Refuse a missing key, and a wrong one when the emulator was given a list."""
        if (self.rules.key and request.key is None) or (self.keys is not None and request.key not in self.keys):
            self.refuse(401, "invalid_api_key", "Invalid API key provided.")

    def read(self, request: Request) -> Body:
        """Return the body; refuse one that is no object."""
        fields = request.fields()
        if fields is None:
            self.refuse(400, "invalid_request_error", "The body is no JSON object.")
        return fields

    def check(self, fields: Body) -> Job:
        """Return the job behind a body."""
        rules = self.rules
        unknown = sorted(fields.keys() - rules.fields)
        if unknown and not rules.tolerant:
            status, kind = rules.unknown_field
            self.refuse(status, kind, f"Extra inputs are not permitted: {unknown[0]}")
        model = self._model(fields.get("model"))
        texts = fields.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            self.refuse(400, "invalid_request_error", "input must be a list of texts that are not empty")
        if len(texts) > rules.texts:
            status, kind, words = rules.too_many
            self.refuse(status, kind, words.format(limit=rules.texts, count=len(texts)))
        role = fields.get(rules.type_field) if rules.type_field else None
        if role is not None and role not in rules.types:
            self.refuse(422, "enum", f"{rules.type_field} must be one of {', '.join(rules.types)}")
        asked = fields.get(rules.format_field, "float") if rules.formats else "float"
        if rules.formats and asked not in rules.formats and not rules.tolerant:
            self.refuse(422, "enum", f"{rules.format_field} must be one of {', '.join(rules.formats)}")
        dtype = (
            asked if asked in QUANTISED else fields.get(rules.dtype_field, "float") if rules.dtype_field else "float"
        )
        if rules.dtype_field and dtype not in (accepted := ("float", *rules.dtypes.get(model.name, ()))):
            self.refuse(422, "enum", f"{rules.dtype_field} must be one of {', '.join(accepted)}")
        kept = self._fit(fields, model, tuple(texts))
        tokens = sum(count_tokens(self.name, text) for text in kept)
        if rules.tokens is not None and tokens > rules.tokens:
            self.refuse(400, "invalid_request_prompt", "Too many tokens overall, split into more batches.")
        written = "base64" if asked == "base64" and "base64" in rules.formats else "float"
        return Job(model, kept, tuple(texts), role, self._dimensions(fields, model), tokens, (written,), dtype)

    def _model(self, name: object) -> Model:
        if name not in self.rules.models:
            status, kind = self.rules.unknown_model
            self.refuse(status, kind, self.rules.unknown_model_words.format(name=name))
        return find(str(name))

    def _dimensions(self, fields: Mapping[str, Any], model: Model) -> int:
        name = self.rules.dimensions_field
        if not name or fields.get(name) is None:
            return model.default
        asked = as_count(fields[name])
        if asked is None or (asked not in model.dimensions and asked != model.default):
            self.refuse(400, "invalid_request_error", f"{name} {fields[name]} is not supported by {model.name}.")
        return asked

    def _fit(self, fields: Mapping[str, Any], model: Model, texts: tuple[str, ...]) -> tuple[str, ...]:
        rules = self.rules
        field_name, value = rules.no_cutting
        if rules.cuts and (not field_name or fields.get(field_name) != value):
            return tuple(truncate(text, model.max_tokens) for text in texts)
        for text in texts:
            if (count := count_tokens(self.name, text)) > model.max_tokens:
                status, kind, words = rules.too_long
                self.refuse(status, kind, words.format(limit=model.max_tokens, count=count))
        return texts

    def render(self, answer: Answer) -> Reply:
        job, rules = answer.job, self.rules
        written: list[str | list[float]] = []
        for place in answer.order:
            values = quantise(answer.vectors[place], job.dtype)
            listed = values.astype(np.float64) if rules.whole_floats else values
            written.append(as_base64(values) if job.formats[0] == "base64" else listed.tolist())
        if self.name == "ollama":
            body: Body = {"model": job.model.name, "embeddings": written, "total_duration": 14_143_917}
            if answer.tokens is not None:
                body["prompt_eval_count"] = answer.tokens
            return Reply(200, json.dumps(body, separators=(",", ":")).encode())
        rows = [
            {"object": "embedding", "embedding": row, "index": place}
            for row, place in zip(written, answer.order, strict=True)
        ]
        name = rules.served.get(job.model.name, job.model.name)
        body = {"id": uuid.uuid4().hex, "object": "list", "data": rows, "model": name}
        if answer.tokens is not None:
            body["usage"] = dict.fromkeys(rules.usage, answer.tokens)
        return Reply(200, rules.begins_with + json.dumps(body, separators=(",", ":")).encode())

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        words = {
            401: ("invalid_api_key", "Invalid API key provided."),
            402: ("insufficient_credits", "Insufficient credits. Add more to continue."),
            404: ("not_found", "Not Found"),
            429: ("rate_limited", "Rate limit exceeded"),
        }
        if reason == "insufficient_quota":
            words[429] = ("insufficient_quota", "You exceeded your current quota, please check your plan and billing.")
        kind, message = words.get(status, ("api_error", "The server had an error."))
        return self.reply(status, kind, message)

    def refuse(self, status: int, kind: str, message: str) -> NoReturn:
        """Raise the refusal with this server's error body."""
        raise Refusal(self.reply(status, kind, message), message)

    def reply(self, status: int, kind: str, message: str) -> Reply:
        """Return an error in this server's shape."""
        return Reply(status, json.dumps(self.rules.error(status, kind, message)).encode())
