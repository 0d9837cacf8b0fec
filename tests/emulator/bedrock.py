"""Amazon Bedrock's `POST /model/{modelId}/invoke`: what its embedding models accept, answer and refuse.

A request is signed (SigV4, which is computed again here with botocore's own signer) or carries a Bedrock API key as a
bearer token. The model's id, or that of an inference profile, stands percent-encoded in the path. Each maker's models
have bodies of their own, from AWS's user guide: unknown fields, missing fields and wrong values are refused in the
words of Bedrock's schema check. Titan and Nova take one text, of 50,000 characters at most; Cohere's v3 models 96 of
2,048 characters. The shapes and headers of answers are those of recorded ones; billed tokens stand in a header, for
Titan in the body as well. Errors have their kind in `x-amzn-errortype` and `{"message"}` as their body.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import unquote

from tests.emulator.exchange import Answer, Job, Refusal, Reply, Request, Sketch, as_count, as_text, texts_in
from tests.emulator.models import Model, ProviderName, served_by
from tests.emulator.tokens import count_tokens, truncate

ACCESS_KEY, SECRET_KEY = "AKIAEMULATED0EXAMPLE", "emulated/secret+key0123456789ABCDEFGHIJK"
SESSION_TOKEN = "emulated-session-token-0123456789"
REGIONS = ("us-east-1", "eu-central-1")
"""The regions for which a request may be signed."""

MAX_TEXTS = 96
TITAN_CHARACTERS = NOVA_CHARACTERS = 50_000
COHERE_V3_CHARACTERS = 2048
QUERY_PROMPT = 17
"""Tokens that Nova bills for a query besides its text, as recorded."""
CLOCK_SKEW = 300.0

_ROUTE = re.compile(r"/model/(.+)/invoke")
_RAW_ROUTE = re.compile(r"(?:/[\w-]+)?/model/([^/:]+)/invoke")
_PROFILE = re.compile(r"(?:us|eu|apac|global|us-gov|jp|au)\.")
_ARN = re.compile(r"arn:aws:bedrock:[a-z0-9-]+:\d{0,12}:(?:foundation-model|inference-profile)/")
_PURPOSES = ("GENERIC_INDEX", "GENERIC_RETRIEVAL", "TEXT_RETRIEVAL", "IMAGE_RETRIEVAL", "VIDEO_RETRIEVAL",
             "DOCUMENT_RETRIEVAL", "AUDIO_RETRIEVAL", "CLASSIFICATION", "CLUSTERING")  # fmt: skip
_ROLES = ("search_document", "search_query", "classification", "clustering")
_SIGNATURE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
                        r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})")  # fmt: skip

_INVALID_TOKEN = "The security token included in the request is invalid."
_WRONG_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_WRONG_KEY = "Authentication failed: Please make sure your API Key is valid."
_NO_MODEL = "The provided model identifier is invalid."


class Bedrock:
    """The endpoint of one region: bedrock-runtime."""

    name: ProviderName = "bedrock"

    def __init__(self, keys: Collection[str] | None, profiles: Mapping[str, str] | None = None) -> None:
        self.keys, self.profiles = keys, profiles or {}

    def serves(self, path: str) -> bool:
        return _ROUTE.fullmatch(path) is not None

    def sketch(self, request: Request) -> Sketch:
        identifier = _identifier(request)
        model = self._model(identifier)
        fields = request.fields() or {}
        parameters = fields.get("singleEmbeddingParams")
        nova = parameters if isinstance(parameters, dict) else {}
        text = nova.get("text")
        value = text.get("value") if isinstance(text, dict) else None
        asked = (fields.get("dimensions"), fields.get("output_dimension"), nova.get("embeddingDimension"))
        return Sketch(
            model.name if model else None,
            texts_in(fields.get("texts") or fields.get("inputText") or value),
            as_text(fields.get("input_type") or nova.get("embeddingPurpose")),
            next((as_count(number) for number in asked if number is not None), None),
            identifier if model is None or identifier != model.name else None,
        )

    def accept(self, request: Request) -> Job:
        self._check_access(request)
        if _RAW_ROUTE.fullmatch(request.raw_path) is None:
            self._refuse(404, "UnknownOperationException", "The operation is unknown: the model's id is not encoded.")
        if request.headers.get("content-type") != "application/json":
            self.invalid("The content type must be application/json.")
        model = self._model(_identifier(request))
        if model is None:
            self.invalid(_NO_MODEL)
        fields = request.fields()
        if fields is None:
            self.malformed("")
        return _maker(model).accept(self, model, fields)

    def _model(self, identifier: str) -> Model | None:
        name = self.profiles.get(identifier) or _PROFILE.sub("", _ARN.sub("", identifier), count=1)
        return served_by("bedrock", name)

    def _check_access(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not given:
            self._refuse(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if given.startswith("Bearer "):
            if self.keys is not None and request.key not in self.keys:
                self._refuse(403, "AccessDeniedException", _WRONG_KEY)
            return
        found = _SIGNATURE.fullmatch(given)
        if found is None:
            self._refuse(
                403, "IncompleteSignatureException", "The request signature does not conform to AWS standards."
            )
        access_key, day, region, service, names, signature = found.groups()
        token = request.headers.get("x-amz-security-token")
        if access_key != ACCESS_KEY or token not in (None, SESSION_TOKEN):
            self._refuse(403, "UnrecognizedClientException", _INVALID_TOKEN)
        if region not in REGIONS or service != "bedrock":
            scope = f"Credential should be scoped to a valid region and to the service bedrock, not {region}/{service}."
            self._refuse(403, "InvalidSignatureException", scope)
        signed = names.split(";")
        needed = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
        moment = request.headers.get("x-amz-date", "")
        if not needed <= set(signed) or not moment.startswith(day) or _age(moment) > CLOCK_SKEW:
            self._refuse(403, "InvalidSignatureException", "Signature expired, or a header is not signed.")
        if _signature(request, signed, region, token, moment) != signature:
            self._refuse(403, "InvalidSignatureException", _WRONG_SIGNATURE)

    def render(self, answer: Answer) -> Reply:
        job = answer.job
        headers = {"x-amzn-requestid": str(uuid.uuid4()), "x-amzn-bedrock-invocation-latency": "78"}
        if answer.tokens is not None:
            headers["x-amzn-bedrock-input-token-count"] = str(answer.tokens)
        rows = [answer.vectors[place].tolist() for place in answer.order]
        body = _maker(job.model).write(job, rows, answer.tokens)
        return Reply(200, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), headers)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        if reason == "insufficient_quota":
            return _error(
                400, "ServiceQuotaExceededException", "Your request exceeds the service quota for your account."
            )
        kinds = {
            400: ("ValidationException", _NO_MODEL),
            401: ("UnrecognizedClientException", _INVALID_TOKEN),
            403: ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
            404: ("ResourceNotFoundException", "The requested resource is not found."),
            408: ("ModelTimeoutException", "Model has timed out in processing the request. Try your request again."),
            424: ("ModelErrorException", "The system encountered an unexpected error during processing."),
            429: ("ThrottlingException", "Too many requests, please wait before trying again."),
            500: ("InternalServerException", "The system encountered an unexpected error during processing."),
            503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
        }
        kind, message = kinds.get(status, ("InternalServerException", f"The request failed ({status})."))
        return _error(403 if status == 401 else status, kind, message)

    # Refusals

    def invalid(self, message: str) -> NoReturn:
        """Refuse a request that is not valid."""
        self._refuse(400, "ValidationException", message)

    def malformed(self, *violations: str) -> NoReturn:
        """Refuse a body that does not fit the model's schema."""
        found = "#".join(violations)
        self.invalid(
            f"Malformed input request{f': {found}' if found else ''}, please reformat your input and try again."
        )

    def _refuse(self, status: int, kind: str, message: str) -> NoReturn:
        raise Refusal(_error(status, kind, message), message)

    def require(
        self, fields: Mapping[str, Any], needed: Collection[str], known: Collection[str], at: str = "#"
    ) -> None:
        """Refuse a body that lacks a field, or has another."""
        missing = [f"{at}: required key [{name}] not found" for name in needed if name not in fields]
        unknown = [f"{at}: extraneous key [{name}] is not permitted" for name in fields if name not in known]
        if missing or unknown:
            self.malformed("".join([*missing, *(f"#{item.removeprefix('#')}" for item in unknown)]))

    def one_of(self, value: object, allowed: Collection[object], at: str) -> None:
        """Refuse a value that is not among `allowed`."""
        if value not in allowed or isinstance(value, bool):
            self.malformed(f"#/{at}: {value} is not a valid enum value")

    def text(self, value: object, longest: int | None, at: str = "") -> str:
        """Return a text of a length that may be."""
        if not isinstance(value, str):
            self.malformed(f"{at}expected type: String, found: {type(value).__name__}")
        if not value:
            self.malformed(f"{at}expected minLength: 1, actual: 0")
        if longest is not None and len(value) > longest:
            self.malformed(f"{at}expected maxLength: {longest}, actual: {len(value)}")
        return value


# The makers


@dataclass(frozen=True, slots=True)
class _Maker:
    accept: Callable[[Bedrock, Model, dict[str, Any]], Job]
    write: Callable[[Job, list[list[float]], int | None], dict[str, Any]]


def _accept_titan(service: Bedrock, model: Model, fields: dict[str, Any]) -> Job:
    optional = ("dimensions", "normalize", "embeddingTypes") if model.dimensions else ()
    service.require(fields, ("inputText",), ("inputText", *optional))
    text = service.text(fields["inputText"], TITAN_CHARACTERS)
    dimensions = fields.get("dimensions", model.default)
    service.one_of(dimensions, model.dimensions or (model.default,), "dimensions")
    if not isinstance(fields.get("normalize", True), bool) or fields.get("embeddingTypes", ["float"]) != ["float"]:
        service.malformed("#: the emulator answers floats of length 1")
    tokens = count_tokens("bedrock", text)
    if tokens > model.max_tokens:
        service.invalid(
            f"400 Bad Request: Too many input tokens. Max input tokens: {model.max_tokens}, request input token count: "
            f"{tokens} "
        )
    return Job(model, (text,), (text,), None, dimensions, tokens, ("float",))


def _write_titan(job: Job, rows: list[list[float]], tokens: int | None) -> dict[str, Any]:
    row = rows[0] if rows else []
    body: dict[str, Any] = {"embedding": row}
    if job.model.dimensions:
        body["embeddingsByType"] = {"float": row}
    return body if tokens is None else {**body, "inputTextTokenCount": tokens}


def _accept_cohere(service: Bedrock, model: Model, fields: dict[str, Any]) -> Job:
    v4 = bool(model.dimensions)
    known = ("texts", "input_type", "truncate", "embedding_types", *(("output_dimension", "max_tokens") if v4 else ()))
    service.require(fields, ("texts", "input_type"), known)
    given = fields["texts"]
    if not isinstance(given, list):
        service.malformed(f"#/texts: expected type: JSONArray, found: {type(given).__name__}")
    if not 0 < len(given) <= MAX_TEXTS:
        service.malformed(f"#/texts: expected maximum item count: {MAX_TEXTS}, found: {len(given)}")
    longest = None if v4 else COHERE_V3_CHARACTERS
    over = [place for place, text in enumerate(given) if isinstance(text, str) and len(text) > (longest or len(text))]
    if over:
        service.malformed(
            "#".join(f"#/texts/{place}: expected maxLength: {longest}, actual: {len(given[place])}" for place in over)
        )
    texts = tuple(service.text(text, longest, f"#/texts/{place}: ") for place, text in enumerate(given))
    service.one_of(fields["input_type"], _ROLES, "input_type")
    service.one_of(
        fields.get("truncate", "NONE"), ("NONE", "START", "END", *(("LEFT", "RIGHT") if v4 else ())), "truncate"
    )
    if fields.get("embedding_types", ["float"]) != ["float"]:
        service.malformed("#/embedding_types: the emulator answers float only")
    dimensions = fields.get("output_dimension", model.default)
    service.one_of(dimensions, model.dimensions or (model.default,), "output_dimension")
    if fields.get("truncate") == "NONE":  # left out, texts are cut, although the documentation says otherwise
        if any(count_tokens("bedrock", text) > model.max_tokens for text in texts):
            service.invalid("Input is too long for requested model.")
        kept = texts
    else:
        kept = tuple(truncate(text, model.max_tokens) for text in texts)
    tokens = sum(count_tokens("bedrock", text) for text in kept)
    formats = ("by_type",) if v4 or "embedding_types" in fields else ("floats",)
    return Job(model, kept, texts, fields["input_type"], dimensions, tokens, formats)


def _write_cohere(job: Job, rows: list[list[float]], tokens: int | None) -> dict[str, Any]:
    by_type = job.formats[0] == "by_type"
    english = "english" in job.model.name
    return {
        "id": str(uuid.uuid4()),
        "texts": [text.lower() if english else text for text in job.inputs],
        "embeddings": {"float": rows} if by_type else rows,
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
    }


def _accept_nova(service: Bedrock, model: Model, fields: dict[str, Any]) -> Job:
    service.require(
        fields, ("taskType", "singleEmbeddingParams"), ("schemaVersion", "taskType", "singleEmbeddingParams")
    )
    service.one_of(
        fields.get("schemaVersion", "nova-multimodal-embed-v1"), ("nova-multimodal-embed-v1",), "schemaVersion"
    )
    service.one_of(fields["taskType"], ("SINGLE_EMBEDDING",), "taskType")
    found = fields["singleEmbeddingParams"]
    parameters: dict[str, Any] = found if isinstance(found, dict) else {}
    at = "singleEmbeddingParams"
    service.require(
        parameters, ("embeddingPurpose", "text"), ("embeddingPurpose", "embeddingDimension", "text"), f"#/{at}"
    )
    service.one_of(parameters["embeddingPurpose"], _PURPOSES, f"{at}/embeddingPurpose")
    dimensions = parameters.get("embeddingDimension", model.default)
    service.one_of(dimensions, model.dimensions, f"{at}/embeddingDimension")
    part = parameters["text"] if isinstance(parameters["text"], dict) else {}
    service.require(part, ("truncationMode", "value"), ("truncationMode", "value"), f"#/{at}/text")
    service.one_of(part["truncationMode"], ("START", "END", "NONE"), f"{at}/text/truncationMode")
    text = service.text(part["value"], NOVA_CHARACTERS, f"#/{at}/text/value: ")
    if part["truncationMode"] == "NONE" and count_tokens("bedrock", text) > model.max_tokens:
        service.invalid("Input is too long for requested model.")
    kept = truncate(text, model.max_tokens)
    prompt = QUERY_PROMPT if parameters["embeddingPurpose"].endswith("RETRIEVAL") else 0
    tokens = count_tokens("bedrock", kept) + prompt
    return Job(model, (kept,), (text,), parameters["embeddingPurpose"], dimensions, tokens, ("float",))


def _write_nova(job: Job, rows: list[list[float]], tokens: int | None) -> dict[str, Any]:
    cut = {"truncatedCharLength": len(job.texts[0])} if job.texts != job.inputs else {}
    return {"embeddings": [{"embeddingType": "TEXT", "embedding": row, **cut} for row in rows]}


_MAKERS = {
    "amazon.titan": _Maker(_accept_titan, _write_titan),
    "cohere": _Maker(_accept_cohere, _write_cohere),
    "amazon.nova": _Maker(_accept_nova, _write_nova),
}


def _maker(model: Model) -> _Maker:
    return next(maker for beginning, maker in _MAKERS.items() if model.name.startswith(beginning))


# Requests and errors


def _identifier(request: Request) -> str:
    found = _ROUTE.fullmatch(request.path)
    return unquote(found[1]) if found else ""


def _signature(request: Request, signed: Collection[str], region: str, token: str | None, moment: str) -> str:
    """Compute the signature of a request as botocore does."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {name: value for name, value in request.headers.items() if name in signed}
    url = f"http://{request.headers.get('host', '')}{request.raw_path}"
    again = AWSRequest(method=request.method, url=url, data=request.body, headers=headers)
    again.context["timestamp"] = moment
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "bedrock", region)
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))


def _age(moment: str) -> float:
    try:
        signed = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return CLOCK_SKEW + 1
    return abs((datetime.now(UTC) - signed).total_seconds())


def _error(status: int, kind: str, message: str) -> Reply:
    """Write an error: those before the model is looked at write `Message` in place of `message`."""
    field = "Message" if message == _WRONG_KEY else "message"
    headers = {
        "x-amzn-requestid": str(uuid.uuid4()),
        "x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/",
    }
    return Reply(status, json.dumps({field: message}, separators=(",", ":")).encode(), headers)
