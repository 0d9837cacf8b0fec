"""Google's embeddings: the Gemini developer API and Vertex AI, what they accept, answer and refuse.

The developer API is `models.batchEmbedContents` and `models.embedContent` of `/v1` and `/v1beta`: at most 100 requests
in a batch, each with the path's model; over-long texts are cut, which no field can turn off, and the tokens are told of
gemini-embedding-2 alone. Vertex AI is
`embedContent` and `batchEmbedContents` for the Gemini models and `predict` for all but gemini-embedding-2, with 250
texts and 20,000 tokens a request; it cuts over-long texts unless `autoTruncate` is false, which refuses them. Several
parts of one content are one text. gemini-embedding-001 has task types, gemini-embedding-2 has none: it is told its task
in the text. A wrong key is HTTP 400 with the reason API_KEY_INVALID, a wrong token 401. Errors are `google.rpc.Status`,
as JSON.

Fields are those of google.ai.generativelanguage.v1beta and google.cloud.aiplatform.v1beta1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text
from tests.emulator.models import MODELS, Model, ProviderName
from tests.emulator.tokens import count_tokens, truncate

MAX_REQUESTS = 100
MAX_INSTANCES = 250
GEMINI = ("embedContent", "batchEmbedContents")
"""Methods of the Gemini models at Vertex AI; gemini-embedding-001 has the older one as well."""
TASK_TYPES = (
    "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
    "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
)  # fmt: skip
STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
RPC = "type.googleapis.com/google.rpc."
_DEVELOPER_PATH = re.compile(r"/v1(?:beta)?/models/([^/:]+):(embedContent|batchEmbedContents)")
_VERTEX_PATH = re.compile(
    r"/v1(?:beta1)?/(?:projects/[^/:]+/locations/[^/:]+/)?publishers/google/models/([^/:]+)"
    r":(embedContent|batchEmbedContents|predict)"
)
_WORDS = {
    403: "Permission denied: Consumer has been suspended.",
    429: "Resource has been exhausted (e.g. check quota).",
    500: "An internal error has occurred. Please retry or report it.",
    503: "The model is overloaded. Please try again later.",
    504: "The request timed out. Please try again.",
}
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a request, with the settings that belong to it."""

    text: str
    task: str | None
    dimensions: int | None
    cut: bool = True


class Google:
    """The endpoint of generativelanguage.googleapis.com."""

    name: ProviderName = "google"
    served: tuple[ProviderName, ...] = ("google",)
    path = _DEVELOPER_PATH

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = keys

    def serves(self, path: str) -> bool:
        return self.path.fullmatch(path) is not None

    def sketch(self, request: Request) -> Sketch:
        name, _ = self._route(request)
        try:
            texts = self._texts(request, name)
        except Refusal:
            return Sketch(name, (), None, None)
        return Sketch(name, tuple(one.text for one in texts), texts[0].task, texts[0].dimensions)

    def accept(self, request: Request) -> Job:
        self.authorise(request)
        name, _ = self._route(request)
        return self.job(name, self._texts(request, name))

    def job(self, name: str, texts: Sequence[Text]) -> Job:
        """Check texts as a request for them is checked; raise `Refusal`."""
        model = self.model(name)
        for place, one in enumerate(texts):
            self._check(one, model, place)
        kept = tuple(truncate(one.text, model.max_tokens) for one in texts)
        tokens = sum(count_tokens(self.name, text) for text in kept)
        first = texts[0]
        if any((one.task, one.dimensions) != (first.task, first.dimensions) for one in texts):
            raise NotImplementedError("the emulator embeds texts of one task and one number of dimensions in a request")
        inputs = tuple(one.text for one in texts)
        self._limit(model, len(texts), tokens)
        return Job(model, kept, inputs, first.task, first.dimensions or model.default, tokens, ("float",))

    def render(self, answer: Answer) -> Reply:
        vectors = [{"values": answer.vectors[place].tolist()} for place in answer.order]
        body: dict[str, Any] = {"embeddings": vectors}
        if answer.tokens is not None and answer.job.model.counted:
            details = [{"modality": "TEXT", "tokenCount": answer.tokens}]
            body["usageMetadata"] = {"promptTokenCount": answer.tokens, "promptTokenDetails": details}
        return _json(200, body)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        found = self.path.fullmatch(request.path)
        name = found[1] if found else "unknown"
        if reason == "insufficient_quota":
            return exhausted("EmbedContentRequestsPerDayPerUserPerProjectPerModel-FreeTier", wait="45s")
        if status == 404:
            return error_reply(404, _no_model(name))
        if status in (400, 401):
            return _wrong_key()
        return error_reply(status, _WORDS.get(status, f"The request failed ({status})."))

    # What the requests of both places have in common.

    def _route(self, request: Request) -> tuple[str, str]:
        found = self.path.fullmatch(request.path)
        assert found is not None
        return found[1], found[2]

    def authorise(self, request: Request) -> None:
        key = request.headers.get("x-goog-api-key", "").strip()
        if not key:
            refuse(403, "Method doesn't allow unregistered callers (callers without established identity).")
        if self.keys is not None and key not in self.keys:
            raise Refusal(_wrong_key(), "API key not valid")

    def model(self, name: str) -> Model:
        row = MODELS.get(name)
        if row is None or row.provider not in self.served:
            refuse(404, _no_model(name))
        return row

    def _texts(self, request: Request, name: str) -> list[Text]:
        fields = self._fields(request)
        _, method = self._route(request)
        if method == "embedContent":
            return [self.text(fields, name, "")]
        only(fields, ("model", "requests"), "")
        if fields.get("model", f"models/{name}") != f"models/{name}":
            refuse(400, "* BatchEmbedContentsRequest.model: must be the model of the path")
        requests = fields.get("requests")
        if not isinstance(requests, list) or not requests:
            refuse(400, "* BatchEmbedContentsRequest.requests: requests is not specified\n")
        if len(requests) > MAX_REQUESTS:
            refuse(400, f"* BatchEmbedContentsRequest.requests: at most {MAX_REQUESTS} requests can be in one batch\n")
        return [self.text(_object(one, place), name, f"requests[{place}]") for place, one in enumerate(requests)]

    def text(self, fields: Mapping[str, Any], name: str, where: str) -> Text:
        only(fields, ("model", "content", "taskType", "title", "outputDimensionality"), where)
        if fields.get("model", f"models/{name}") != f"models/{name}":
            refuse(400, f"* {where}.model: unexpected model name format")
        if where and "model" not in fields:
            refuse(400, f"* {where}.model: model is required\n")
        text = _content(fields.get("content"), where)
        return Text(text, _task(fields.get("taskType"), where), _dimensions(fields, where))

    def _fields(self, request: Request) -> dict[str, Any]:
        fields = request.fields()
        if fields is None:
            refuse(400, "Invalid JSON payload received. Unexpected token.")
        return fields

    def _check(self, one: Text, model: Model, place: int) -> None:
        if one.task is not None and not model.tasks:
            refuse(400, f"task_type is not supported by {model.name}. Put the task before the text.")
        if one.dimensions is not None and one.dimensions not in model.dimensions:
            refuse(400, f"Unable to submit request because it has an outputDimensionality value of {one.dimensions}.")
        tokens = count_tokens(self.name, one.text)
        if not one.cut and tokens > model.max_tokens:
            refuse(
                400,
                f"Unable to submit request because the input token count is {tokens} but the model supports up to "
                f"{model.max_tokens}. Reduce the input token count and try again. You can also use the CountTokens API "
                "to calculate prompt token count and billable characters.",
            )

    def _limit(self, model: Model, texts: int, tokens: int) -> None:
        """Refuse what the request as a whole may not be."""


class Vertex(Google):
    """The endpoint of aiplatform.googleapis.com."""

    name: ProviderName = "vertex"
    served = ("google", "vertex")
    path = _VERTEX_PATH

    def render(self, answer: Answer) -> Reply:
        rows = [answer.vectors[place].tolist() for place in answer.order]
        counts = [count_tokens(self.name, answer.job.texts[min(i, len(answer.job.texts) - 1)]) for i in answer.order]
        if rows and answer.tokens is not None and sum(counts) != answer.tokens:
            counts = [answer.tokens, *[0] * (len(counts) - 1)]
        if answer.job.formats == ("predictions",):
            return _json(200, {"predictions": [
                {"embeddings": {"values": row, **_statistics(count, answer)}}
                for row, count in zip(rows, counts, strict=True)
            ]})  # fmt: skip
        usage = {} if answer.tokens is None else {"usageMetadata": _usage(answer.tokens)}
        if answer.job.formats == ("embedding",):
            return _json(200, {**({"embedding": {"values": rows[0]}} if rows else {}), **usage, "truncated": False})
        return _json(200, {"embeddings": [{"values": row} for row in rows], **usage})

    def accept(self, request: Request) -> Job:
        job = super().accept(request)
        _, method = self._route(request)
        if method not in (("predict",) if job.model.provider == "vertex" else ("predict",) * job.model.tasks + GEMINI):
            refuse(400, f"{job.model.name} is not supported in the {method} API.")
        formats = {"predict": "predictions", "embedContent": "embedding"}.get(method, "embeddings")
        return Job(job.model, job.texts, job.inputs, job.input_type, job.dimensions, job.tokens, (formats,))

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        if reason is None and status == 401:
            return _wrong_token()
        return super().failure(status, reason, request)

    def authorise(self, request: Request) -> None:
        if request.headers.get("x-goog-api-key"):
            super().authorise(request)
        elif request.key is None or (self.keys is not None and request.key not in self.keys):
            raise Refusal(_wrong_token(), "invalid authentication credentials")

    def _texts(self, request: Request, name: str) -> list[Text]:
        fields = self._fields(request)
        _, method = self._route(request)
        if method == "predict":
            return self._instances(fields)
        if method == "embedContent":
            return [self.text(fields, name, "")]
        only(fields, ("requests",), "")
        requests = fields.get("requests")
        if not isinstance(requests, list) or not requests:
            refuse(400, "requests must not be empty.")
        return [self.text(_object(one, place), name, f"requests[{place}]") for place, one in enumerate(requests)]

    def text(self, fields: Mapping[str, Any], name: str, where: str) -> Text:
        settings = ("taskType", "title", "outputDimensionality", "autoTruncate")
        only(fields, ("content", "embedContentConfig", *settings), where)
        config = fields.get("embedContentConfig") or {name: fields[name] for name in settings if name in fields}
        only(config, settings, f"{where}.embed_content_config")
        text = _content(fields.get("content"), where)
        cut = _cut(config)
        return Text(text, _task(config.get("taskType"), where), _dimensions(config, where), cut)

    def _instances(self, fields: Mapping[str, Any]) -> list[Text]:
        only(fields, ("instances", "parameters"), "")
        instances, parameters = fields.get("instances"), fields.get("parameters") or {}
        only(parameters, ("outputDimensionality", "autoTruncate"), "parameters")
        if not isinstance(instances, list) or not instances:
            refuse(400, "Empty instances.")
        if len(instances) > MAX_INSTANCES:
            refuse(400, f"{MAX_INSTANCES} instance(s) is allowed per prediction. Actual: {len(instances)}")
        texts = []
        for place, one in enumerate(instances):
            fields = _object(one, place)
            only(fields, ("content", "task_type", "title"), f"instances[{place}]")
            if not isinstance(text := fields.get("content"), str) or not text:
                refuse(400, "The text content is empty.")
            task = _task(fields.get("task_type"), f"instances[{place}]")
            texts.append(Text(text, task, _dimensions(parameters, "parameters"), _cut(parameters)))
        return texts

    def _limit(self, model: Model, texts: int, tokens: int) -> None:
        if model.max_request_tokens is not None and tokens > model.max_request_tokens:
            refuse(
                400,
                f"Unable to submit request because the input token count is {tokens} but the model supports up to "
                f"{model.max_request_tokens} tokens per request. Reduce the input token count and try again.",
            )


def exhausted(quota: str, *, wait: str | None) -> Reply:
    """Write the 429 of a quota, by its id, such as `…PerMinutePerUser…`; `wait` is what RetryInfo says."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/embed_content_free_tier_requests",
        "quotaId": quota,
        "quotaDimensions": {"location": "global", "model": "gemini-embedding-1.0"},
        "quotaValue": "100",
    }
    details: list[dict[str, Any]] = [
        {"@type": f"{RPC}Help", "links": [{"description": "Learn more about Gemini API quotas"}]},
        {"@type": f"{RPC}QuotaFailure", "violations": [violation]},
    ]
    said = f"{_QUOTA}\n* Quota exceeded for metric: {violation['quotaMetric']}, limit: 100"
    if wait is not None:
        details.append({"@type": f"{RPC}RetryInfo", "retryDelay": wait})
        said += f"\nPlease retry in {wait}."
    return error_reply(429, said, details)


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "promptTokenCount": tokens,
        "totalTokenCount": tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}],
    }


def _statistics(count: int, answer: Answer) -> dict[str, Any]:
    return {} if answer.tokens is None else {"statistics": {"token_count": count, "truncated": False}}


def _object(value: object, place: int) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        refuse(400, f"Invalid value at '[{place}]', expected an object.")
    return value


def only(fields: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := sorted(fields.keys() - set(known)):
        place = f" at '{where}'" if where else ""
        said = f'Invalid JSON payload received. Unknown name "{unknown[0]}"{place}: Cannot find field.'
        refuse(400, said, [{"@type": f"{RPC}BadRequest", "fieldViolations": [{"field": where, "description": said}]}])


def _content(value: object, where: str) -> str:
    content = value if isinstance(value, Mapping) else {}
    only(content, ("parts", "role"), f"{where}.content")
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts or content.get("role", "user") != "user":
        refuse(400, "* EmbedContentRequest.content: contents is not specified\n")
    for part in parts:
        if not isinstance(part, Mapping) or part.keys() != {"text"} or not isinstance(part["text"], str):
            refuse(400, "* EmbedContentRequest.content.parts: unsupported part")
    text = "".join(part["text"] for part in parts)
    if not text:
        refuse(400, "* EmbedContentRequest.content: content contains an empty Part.\n")
    return text


def _task(value: object, where: str) -> str | None:
    if value is not None and value not in TASK_TYPES:
        refuse(400, f"Invalid value at '{where}.task_type' (TaskType), {json.dumps(value)}")
    return as_text(value)


def _dimensions(fields: Mapping[str, Any], where: str) -> int | None:
    value = fields.get("outputDimensionality")
    if value is not None and as_count(value) is None:
        refuse(400, f"Invalid value at '{where}.output_dimensionality' (TYPE_INT32), {json.dumps(value)}")
    return as_count(value)


def _cut(config: Mapping[str, Any]) -> bool:
    cut = config.get("autoTruncate", True)
    if not isinstance(cut, bool):
        refuse(400, f"Invalid value at 'auto_truncate' (TYPE_BOOL), {json.dumps(cut)}")
    return cut


def _no_model(name: str) -> str:
    return (
        f"models/{name} is not found for API version v1beta, or is not supported for embedContent. Call ListModels to "
        "see the list of available models and their supported methods."
    )


def _wrong_key() -> Reply:
    said = "API key not valid. Please pass a valid API key."
    return error_reply(400, said, [
        {"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com",
         "metadata": {"service": "generativelanguage.googleapis.com"}},
        {"@type": f"{RPC}LocalizedMessage", "locale": "en-US", "message": said},
    ])  # fmt: skip


def _wrong_token() -> Reply:
    said = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    return error_reply(401, said, [
        {"@type": f"{RPC}ErrorInfo", "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED", "domain": "googleapis.com"}
    ])  # fmt: skip


def refuse(status: int, message: str, details: list[dict[str, Any]] | None = None) -> NoReturn:
    raise Refusal(error_reply(status, message, details), message)


def error_reply(
    status: int, message: str, details: list[dict[str, Any]] | None = None, status_name: str | None = None
) -> Reply:
    name = status_name or STATUSES.get(status, "UNKNOWN")
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    return _json(status, {"error": {**error, **({"details": details} if details else {})}})


def _json(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(
        status, json.dumps(body, separators=(",", ":")).encode(), content_type="application/json; charset=UTF-8"
    )
