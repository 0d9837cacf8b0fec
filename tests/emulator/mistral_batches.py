"""Mistral's `/v1/files` and `/v1/batch/jobs`: what they accept, answer, refuse and write.

Written from the maker's openapi.yaml, the guide (batch processing) and the models of the SDK mistralai 3.7.0. A line
has a `body`, which is a request of the endpoint, and a `custom_id`; of what one job says the model is the most. Times
are Unix seconds; a job counts its requests when it runs. Where the documentation gives no words, they are in the manner
of the embeddings endpoint.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tests.emulator.batch import Batch
from tests.emulator.batch_input import Complaint, Limits, Line
from tests.emulator.batch_output import NotRun, Outcome, Success, body_of
from tests.emulator.batches import Batches
from tests.emulator.compatible import Compatible
from tests.emulator.exchange import EndpointName, Job, Reply, Request, Sketch
from tests.emulator.files import KEPT, File, Files
from tests.emulator.multipart import parse_form

LIMITS = Limits(requests=1_000_000, inputs=1_000_000, bytes=512 * 1000 * 1000)
ENDPOINT = "/v1/embeddings"
LONGEST = 7 * 24
"""Hours; a job has less."""
_CREATE = ("input_files", "requests", "endpoint", "model", "agent_id", "metadata", "timeout_hours")
_QUERY = ("page", "page_size", "model", "agent_id", "metadata", "created_after", "created_by_me", "status", "order_by")
_STATUSES = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
    "cancelled": "CANCELLED",
}
_FILES = re.compile(r"/v1/files(?:/([^/]+)(?:/(content))?)?")
_JOBS = re.compile(r"/v1/batch/jobs(?:/([^/]+)(?:/(cancel))?)?")


class MistralForm:
    """The jobs of api.mistral.ai."""

    name = "mistral"
    window = 24 * 3600
    written_unless_run: frozenset[str] = frozenset()
    output_purpose = "batch"

    def __init__(self, maker: Compatible) -> None:
        self._maker = maker

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def read(self, batch: Batch, content: bytes, limits: Limits) -> tuple[tuple[Line, ...], tuple[Complaint, ...]]:
        lines: list[Line] = []
        complaints = list(self._complaints(content.split(b"\n"), lines))
        if len(content) > limits.bytes or len(lines) > limits.requests:
            complaints.append(Complaint("", "The input file is too large."))
        return (() if complaints else tuple(lines)), tuple(complaints)

    def _complaints(self, raw: list[bytes], lines: list[Line]) -> Iterator[Complaint]:
        """Yield what is wrong with each line; keep the lines with which nothing is."""
        seen: set[str] = set()
        for number, text in enumerate(raw):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError:
                yield Complaint("", f"Line {number} is not valid JSON")
                continue
            if not isinstance(row, dict) or row.keys() - {"custom_id", "body"} or not isinstance(row.get("body"), dict):
                yield Complaint("", f"Line {number} is no request of a batch")
            elif not isinstance(row.get("custom_id"), str) or row["custom_id"] in seen:
                yield Complaint("", f"Line {number} repeats a custom_id")
            else:
                seen.add(row["custom_id"])
                lines.append(Line(row["custom_id"], row["body"]))

    def job(self, batch: Batch, line: Line) -> Job:
        return self._maker.check({**line.body, "model": batch.params["model"]})

    def failure(self, status: int, line: Line) -> Any:
        return json.loads(self._maker.reply(status, "api_error", "The server had an error.").body)

    def shown(self, batch: Batch) -> dict[str, Any]:
        return {
            "id": batch.id,
            "object": "batch",
            "input_files": [batch.input_file_id],
            "metadata": batch.metadata,
            "endpoint": batch.endpoint,
            "model": batch.params["model"],
            "agent_id": None,
            "output_file": batch.output_file_id,
            "error_file": batch.error_file_id,
            "errors": [{"message": complaint.message, "count": 1} for complaint in batch.complaints],
            "outputs": None,
            "status": _STATUSES[batch.status],
            "created_at": batch.created_at,
            "total_requests": len(batch.lines),
            "completed_requests": len(batch.succeeded) + batch.failed,
            "succeeded_requests": len(batch.succeeded),
            "failed_requests": batch.failed,
            "started_at": batch.moments.get("in_progress_at"),
            "completed_at": batch.moments.get(f"{batch.status}_at") if batch.ended else None,
        }

    def written(self, batch_id: str, outcome: Outcome) -> bytes:
        assert not isinstance(outcome, NotRun), "a job writes no such lines"
        custom_id = outcome.line.custom_id
        head = f'{{"id": "batch-{batch_id[:8]}-{custom_id[:8]}-0", "custom_id": {json.dumps(custom_id)}, "response": '
        if isinstance(outcome, Success):
            status, body = 200, body_of(self._maker, outcome)
        else:
            status, body = outcome.status, json.dumps(outcome.body).encode()
        return f'{head}{{"status_code": {status}, "body": '.encode() + body + b'}, "error": null}\n'


class MistralBatchApi:
    """The endpoints of api.mistral.ai around batch jobs."""

    name = "mistral"

    def __init__(self, maker: Compatible, files: Files, batches: Batches) -> None:
        self._maker = maker
        self._files = files
        self._batches = batches

    def serves(self, path: str) -> bool:
        return bool(_FILES.fullmatch(path) or _JOBS.fullmatch(path))

    def sketch(self, request: Request) -> Sketch:
        endpoint: EndpointName = "files" if request.path.startswith("/v1/files") else "batches"
        return Sketch(None, (), None, None, endpoint=endpoint)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        return self._maker.failure(status, reason, request)

    def answer(self, request: Request) -> Reply:
        """Do what is asked for; raise `Refusal`."""
        self._maker.authenticate(request)
        if file := _FILES.fullmatch(request.path):
            return self._about_files(request, file[1], content=file[2] is not None)
        job = _JOBS.fullmatch(request.path)
        assert job is not None
        match (request.method, job[1], job[2]):
            case ("POST", None, None):
                return _json(self._create(request))
            case ("GET", None, None):
                return _json(self._list(request.query))
            case ("GET", str() as id, None):
                return _json(self._batches.look(id) or self._not_found("job", id))
            case ("POST", str() as id, "cancel"):
                return _json(self._cancel(id))
            case _:
                return self._not_allowed()

    def _about_files(self, request: Request, id: str | None, *, content: bool) -> Reply:
        if id is None:
            return _json(_shown(self._upload(request))) if request.method == "POST" else self._not_allowed()
        file = self._files.get(id) or self._not_found("file", id)
        if request.method != "GET":
            return self._not_allowed()
        if not content:
            return _json(_shown(file))
        if isinstance(file.content, bytes):
            return Reply(200, file.content, content_type="application/octet-stream")
        return Reply(200, b"", content_type="application/octet-stream", pieces=file.content.pieces())

    def _upload(self, request: Request) -> File:
        form = parse_form(request.headers.get("content-type", ""), request.body)
        if form is None or "file" not in form:
            self._maker.refuse(422, "missing", "Field required: file")
        for name in form:
            if name not in ("file", "purpose", "expiry", "visibility"):
                self._maker.refuse(422, "extra_forbidden", f"Extra inputs are not permitted: {name}")
        if form["purpose"].text != "batch":
            self._maker.refuse(422, "enum", "purpose must be one of fine-tune, batch, ocr")
        if not (form["file"].filename or "").endswith(".jsonl"):
            self._maker.refuse(400, "invalid_file", "Files of batches are .jsonl files.")
        return self._files.add(form["file"].filename or "", "batch", form["file"].content, KEPT)

    def _create(self, request: Request) -> dict[str, Any]:
        fields = self._maker.read(request)
        for name in fields:
            if name not in _CREATE:
                self._maker.refuse(422, "extra_forbidden", f"Extra inputs are not permitted: {name}")
        if fields.get("endpoint") != ENDPOINT:
            self._maker.refuse(422, "enum", f"endpoint must be {ENDPOINT} here")
        if fields.get("requests") is not None or not isinstance(fields.get("input_files"), list):
            self._maker.refuse(422, "value_error", "Exactly one of input_files and requests is needed.")
        if fields.get("model") not in self._maker.rules.models:
            self._maker.refuse(400, "invalid_model", f"Invalid model: {fields.get('model')}")
        hours = fields.get("timeout_hours", 24)
        if not isinstance(hours, int) or not 0 < hours < LONGEST:
            self._maker.refuse(422, "less_than", f"timeout_hours must be less than {LONGEST}")
        for key, value in (fields.get("metadata") or {}).items():
            if not 1 <= len(key) <= 32 or not isinstance(value, str) or not 1 <= len(value) <= 512:
                self._maker.refuse(422, "string_too_long", "Keys of metadata have up to 32 characters.")
        for id in fields["input_files"]:
            if (file := self._files.get(id)) is None or file.purpose != "batch":
                self._not_found("file", id)
        (input_file,) = fields["input_files"]
        params = {"model": fields["model"]}
        return self._batches.create(input_file, ENDPOINT, fields.get("metadata"), KEPT, params)

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of the jobs; a name that is no parameter is one of metadata, as the guide's example has it."""
        page, size = int(query.get("page", "0")), int(query.get("page_size", "100"))
        labels = {name: value for name, value in query.items() if name not in _QUERY}
        rows = [row.shown() for row in self._batches.newest_first() if labels.items() <= (row.metadata or {}).items()]
        rows = [row for row in rows if query.get("status", row["status"]) == row["status"]]
        return {"object": "list", "data": rows[page * size : (page + 1) * size], "total": len(rows)}

    def _cancel(self, id: str) -> dict[str, Any]:
        ended = self._batches.status(id) in ("completed", "failed", "expired", "cancelled")
        job = self._batches.cancel(id) or self._not_found("job", id)
        if ended:
            self._maker.refuse(400, "invalid_request_error", f"A job with the status {job['status']} has ended.")
        return job

    def _not_found(self, what: str, id: str) -> NoReturn:
        self._maker.refuse(404, "not_found", f"No {what} {id}")

    def _not_allowed(self) -> NoReturn:
        self._maker.refuse(405, "not_allowed", "Method Not Allowed")


def _shown(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "sample_type": "batch_request" if isinstance(file.content, bytes) else "batch_result",
        "source": "upload" if isinstance(file.content, bytes) else "mistral",
        "num_lines": None,
        "mimetype": "application/jsonl",
        "signature": None,
        "expires_at": file.expires_at,
        "visibility": "workspace",
    }


def _json(body: Mapping[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode(), {"mistral-correlation-id": str(uuid.uuid4())})
