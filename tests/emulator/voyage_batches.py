"""Voyage's `/v1/files` and `/v1/batches`: what they accept, answer, refuse and write.

Written from the guide (batch inference) and the API reference (create, list, retrieve and cancel batch; upload file;
retrieve file content, whose example follows redirects). A line has a `custom_id` and a `body` with the input alone; the
other arguments stand in `request_params` of the batch. A batch of which the window closes is completed with what it
has, and the other requests are written to the error file; one that is cancelled writes no such lines. Where the
documentation gives no words, they are in the manner of the embeddings endpoint.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from tests.emulator.batch import Batch
from tests.emulator.batch_input import Complaint, Limits, Line
from tests.emulator.batch_output import NOT_RUN, NotRun, Outcome, Success, body_of
from tests.emulator.batches import Batches
from tests.emulator.exchange import EndpointName, Job, Reply, Request, Sketch
from tests.emulator.files import KEPT, File, Files
from tests.emulator.models import ProviderName
from tests.emulator.multipart import parse_form
from tests.emulator.voyage import FIELDS, Voyage

LIMITS = Limits(requests=100_000, inputs=100_000, bytes=1 << 30)
IN_FLIGHT = 100
ENDPOINT = "/v1/embeddings"
MODELS = (
    "voyage-4-large", "voyage-4", "voyage-4-lite", "voyage-3-large", "voyage-3.5", "voyage-3.5-lite", "voyage-code-3",
    "voyage-code-2"
)  # fmt: skip
"""The text embedding models of the guide's list."""
_CREATE = ("endpoint", "input_file_id", "completion_window", "request_params", "metadata")
_MOMENTS = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "cancelling_at", "cancelled_at")
_ROUTE = re.compile(r"/v1/(files|batches)(?:/([^/]+)(?:/(content|cancel))?)?")
_STORED = re.compile(r"/stored/([^/]+)")


class VoyageForm:
    """The batches of api.voyageai.com."""

    name: ProviderName = "voyage"
    window = 12 * 3600
    written_unless_run = frozenset({"expired"})
    output_purpose = "batch-output"

    def __init__(self, maker: Voyage) -> None:
        self._maker = maker

    def new_id(self) -> str:
        return f"batch-{uuid.uuid4().hex}"

    def read(self, batch: Batch, content: bytes, limits: Limits) -> tuple[tuple[Line, ...], tuple[Complaint, ...]]:
        if len(content) > limits.bytes:
            return (), (Complaint("file_too_large", f"The input file is larger than {limits.bytes} bytes."),)
        lines: list[Line] = []
        complaints = list(self._complaints(content.split(b"\n"), lines))
        inputs = sum(len(line.texts) for line in lines)
        if not complaints and inputs > limits.inputs:
            message = f"Each batch can contain up to {limits.inputs} inputs. Your batch has {inputs}."
            complaints.append(Complaint("too_many_inputs", message))
        return (() if complaints else tuple(lines)), tuple(complaints)

    def _complaints(self, raw: list[bytes], lines: list[Line]) -> Iterator[Complaint]:
        """Yield what is wrong with each line; keep the lines with which nothing is."""
        seen: set[str] = set()
        for number, text in enumerate(raw, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError:
                yield Complaint("invalid_json_line", "The line is not valid JSON.", None, number)
                continue
            if not isinstance(row, dict) or row.keys() != {"custom_id", "body"}:
                yield Complaint("invalid_request", "A request has the keys custom_id and body.", None, number)
            elif not isinstance(row["custom_id"], str) or row["custom_id"] in seen:
                yield Complaint("duplicate_custom_id", "The custom_id must be unique.", "custom_id", number)
            elif not isinstance(row["body"], dict) or row["body"].keys() != {"input"}:
                yield Complaint("invalid_request", "The body holds the input data alone.", "body", number)
            else:
                seen.add(row["custom_id"])
                lines.append(Line(row["custom_id"], row["body"]))

    def job(self, batch: Batch, line: Line) -> Job:
        return self._maker.check({**batch.params, **line.body})

    def failure(self, status: int, line: Line) -> Any:
        return {"detail": "Internal Server Error" if status >= 500 else f"Request failed ({status})."}

    def shown(self, batch: Batch) -> dict[str, Any]:
        errors = {"object": "list", "data": [complaint.shown() for complaint in batch.complaints]}
        moments = dict(batch.moments)
        if batch.status == "expired":
            moments["completed_at"] = moments["expired_at"]
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": errors if batch.complaints else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "12h",
            "model": batch.params["model"],
            "status": "completed" if batch.status == "expired" else batch.status,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
            "request_counts": {
                "total": len(batch.lines),
                "completed": len(batch.succeeded),
                "failed": sum(not isinstance(outcome, Success) for outcome in batch.outcomes),
            },
            "metadata": batch.metadata,
            "created_at": _written(batch.created_at),
            "expected_completion_at": _written(batch.expires_at),
            **{moment: _written(moments.get(moment)) for moment in _MOMENTS},
        }

    def written(self, batch_id: str, outcome: Outcome) -> bytes:
        head = f'{{"batch_id": {json.dumps(batch_id)}, "custom_id": {json.dumps(outcome.line.custom_id)}, "response": '
        if isinstance(outcome, Success):
            body = body_of(self._maker, outcome)
            return head.encode() + b'{"status_code": 200, "body": ' + body + b'}, "error": null}\n'
        if isinstance(outcome, NotRun):
            error = {"code": outcome.code, "message": NOT_RUN[outcome.code]}
            return f'{head}null, "error": {json.dumps(error)}}}\n'.encode()
        response = {"status_code": outcome.status, "message": outcome.body["detail"]}
        return f'{head}{json.dumps(response)}, "error": null}}\n'.encode()


class VoyageBatchApi:
    """The endpoints of api.voyageai.com around the Batch API."""

    name: ProviderName = "voyage"

    def __init__(self, maker: Voyage, files: Files, batches: Batches) -> None:
        self._maker = maker
        self._files = files
        self._batches = batches

    def serves(self, path: str) -> bool:
        match = _ROUTE.fullmatch(path)
        if _STORED.fullmatch(path):
            return True
        return match is not None and match[3] in (None, "content" if match[1] == "files" else "cancel")

    def sketch(self, request: Request) -> Sketch:
        endpoint: EndpointName = "files" if request.path.startswith("/v1/files") else "batches"
        return Sketch(None, (), None, None, endpoint=endpoint)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        return self._maker.failure(status, reason, request)

    def answer(self, request: Request) -> Reply:
        """Do what is asked for; raise `Refusal`."""
        if stored := _STORED.fullmatch(request.path):
            return self._stored(request, stored[1])
        self._maker.authenticate(request)
        found = _ROUTE.fullmatch(request.path)
        match (request.method, *(found.groups() if found else ())):
            case ("POST", "files", None, None):
                return _json(_shown(self._upload(request)))
            case ("GET", "files", str() as id, None):
                return _json(_shown(self._file(id)))
            case ("GET", "files", str() as id, "content"):
                return self._elsewhere(request, id) if self._batches.elsewhere else _content(self._file(id))
            case ("POST", "batches", None, None):
                return _json(self._create(request))
            case ("GET", "batches", None, None):
                return _json(self._list(request.query))
            case ("GET", "batches", str() as id, None):
                return _json(self._batches.look(id) or self._no_batch(id))
            case ("POST", "batches", str() as id, "cancel"):
                return _json(self._cancel(id))
            case _:
                return self._not_allowed()

    def _not_allowed(self) -> NoReturn:
        self._maker.refuse("Method Not Allowed", status=405)

    def _upload(self, request: Request) -> File:
        form = parse_form(request.headers.get("content-type", ""), request.body)
        if form is None:
            self._maker.refuse("The request is no multipart form.")
        if form.keys() != {"file", "purpose"}:
            self._maker.refuse("Arguments 'file' and 'purpose' are required, and no others are supported by our API.")
        file = form["file"]
        if form["purpose"].text != "batch":
            self._unaccepted("purpose", form["purpose"].text, "'batch'")
        if not (file.filename or "").endswith(".jsonl"):
            self._maker.refuse("The Batch API only supports .jsonl files.")
        return self._files.add(file.filename or "", "batch", file.content, KEPT)

    def _file(self, id: str) -> File:
        file = self._files.get(id)
        if file is None:
            self._maker.refuse(f"File {id} not found.", status=404)
        return file

    def _elsewhere(self, request: Request, id: str) -> Reply:
        """Return a redirect to another name of this machine."""
        port = request.headers["host"].rpartition(":")[2]
        return Reply(302, b"", {"location": f"http://localhost:{port}/voyage-api/stored/{self._file(id).id}?signed=1"})

    def _stored(self, request: Request, id: str) -> Reply:
        if request.query.get("signed") != "1" or {"authorization", "x-secret"} & request.headers.keys():
            self._maker.refuse("A signed address takes no headers that belong to another host.")
        return _content(self._file(id))

    def _create(self, request: Request) -> dict[str, Any]:
        fields = self._maker.read(request)
        for name in fields:
            if name not in _CREATE:
                self._maker.refuse(f"Argument '{name}' is not supported by our API.")
        for name in _CREATE[:3]:
            if not isinstance(fields.get(name), str):
                self._maker.refuse(f"Argument '{name}' is required and must be a string.")
        if fields["endpoint"] != ENDPOINT:
            self._unaccepted("endpoint", fields["endpoint"], f"'{ENDPOINT}'")
        if fields["completion_window"] != "12h":
            self._unaccepted("completion_window", fields["completion_window"], "'12h'")
        params = self._params(fields.get("request_params"))
        file = self._files.get(fields["input_file_id"])
        if file is None or file.purpose != "batch":
            self._maker.refuse(f"File {fields['input_file_id']} is no input file of a batch.")
        if self._batches.in_flight >= IN_FLIGHT:
            self._maker.refuse(f"Your organization has {IN_FLIGHT} batch jobs in flight already.", status=429)
        return self._batches.create(file.id, ENDPOINT, self._metadata(fields.get("metadata")), KEPT, params)

    def _params(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._maker.refuse("Argument 'request_params' is required and must be an object.")
        for name in value:
            if name not in FIELDS - {"input"}:
                self._maker.refuse(f"Argument '{name}' is not supported by our API.")
        if value.get("model") not in MODELS:
            self._unaccepted("model", value.get("model"), ", ".join(MODELS))
        return value

    def _metadata(self, value: object) -> dict[str, str] | None:
        if value is None:
            return None
        if not isinstance(value, dict) or len(value) > 16:
            self._maker.refuse("Argument 'metadata' must be an object of at most 16 keys.")
        for key, text in value.items():
            if len(key) > 64 or not isinstance(text, str) or len(text) > 512:
                self._maker.refuse("Keys of 'metadata' have at most 64 characters, and values 512.")
        return value

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        limit = query.get("limit", "20")
        if query.keys() - {"limit", "after"} or not limit.isdecimal() or not 1 <= int(limit) <= 100:
            self._maker.refuse("Argument 'limit' ranges between 1 and 100.")
        rows = list(self._batches.newest_first())
        if "after" in query:
            places = [place for place, row in enumerate(rows) if row.id == query["after"]]
            if not places:
                self._unaccepted("after", query["after"], "IDs of batches")
            rows = rows[places[0] + 1 :]
        shown = [row.shown() for row in rows[: int(limit)]]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(rows) > len(shown),
        }

    def _cancel(self, id: str) -> dict[str, Any]:
        before = self._batches.status(id)
        batch = self._batches.cancel(id) or self._no_batch(id)
        if before not in ("validating", "in_progress"):
            self._maker.refuse(f"A batch with the status {batch['status']} cannot be cancelled.")
        return batch

    def _no_batch(self, id: str) -> NoReturn:
        self._maker.refuse(f"Batch {id} not found.", status=404)

    def _unaccepted(self, name: str, value: object, accepted: str) -> NoReturn:
        self._maker.refuse(
            f"Value '{value}' provided for argument '{name}' is not accepted. Accepted values are {accepted}."
        )


def _shown(file: File) -> dict[str, Any]:
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": file.size,
        "created_at": _written(file.created_at),
        "expires_at": _written(file.expires_at),
    }


def _content(file: File) -> Reply:
    if isinstance(file.content, bytes):
        return Reply(200, file.content, content_type="text/plain")
    return Reply(200, b"", content_type="text/plain", pieces=file.content.pieces())


def _written(moment: int | None) -> str | None:
    """Return a moment in the manner of RFC 3339."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


def _json(body: Mapping[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode(), {"x-request-id": uuid.uuid4().hex})
