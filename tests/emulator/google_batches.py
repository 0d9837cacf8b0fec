"""Google's batch endpoint for embeddings and the file store below it, in the hands of a test.

`/upload/v1/files` begins a resumable upload, whose bytes go to the address in `x-goog-upload-url`;
`asyncBatchEmbedContent` takes the name of such a file and a display name; `/v1/batches` lists operations, shows one and
cancels one; the answer is a file of JSON lines in the order of the input. Fields may have the names of JSON or of the
protocol buffers, as Google has it. Nothing happens to a batch before the test lets it:

    emulator.google_batches.finish()          # everything, to its end
    emulator.google_batches.end("EXPIRED")    # without answers

A line is {"key", "request"}; its answer {"key", "response"} or {"key", "error"}. Requests are checked as single ones.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulator.exchange import EndpointName, Received, Refusal, Reply, Request, Sketch
from tests.emulator.google import Google, error_reply, only, refuse
from tests.emulator.journal import Journal
from tests.emulator.models import ProviderName
from tests.emulator.vectors import vector

MAX_UPLOAD = 2_000_000_000
_ROUTES = re.compile(
    r"/upload/v1(?:beta)?/files|/upload-session/\w+|/v1(?:beta)?/files/\w+:download|/v1(?:beta)?/batches(?:/\w+(?::cancel)?)?"
    r"|/v1(?:beta)?/models/[^/:]+:asyncBatchEmbedContent"
)
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.EmbedContentBatch"


@dataclass(slots=True)
class Batch:
    """One batch: a long-running operation whose metadata is the batch."""

    name: str
    display_name: str
    model: str
    file: str
    state: str = "PENDING"
    responses_file: str = ""
    counts: tuple[int, int] = (0, 0)
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")

    def shown(self) -> dict[str, Any]:
        good, bad = self.counts
        output = {"responsesFile": self.responses_file} if self.responses_file else None
        metadata = {
            "@type": _TYPE,
            "model": f"models/{self.model}",
            "displayName": self.display_name,
            "name": self.name,
            "inputConfig": {"fileName": self.file},
            "createTime": "2026-11-29T12:00:00Z",
            "updateTime": "2026-11-29T12:00:00Z",
            "batchStats": {"requestCount": str(good + bad), "successfulRequestCount": str(good)},
            "state": f"BATCH_STATE_{self.state}",
            **({"output": output} if output else {}),
        }
        ending: dict[str, Any] = {}
        if self.ended:
            ending = {"done": True, **({"error": self.error} if self.error else {"response": output or {}})}
        return {"name": self.name, "metadata": metadata, **ending}


@dataclass(slots=True)
class _Store:
    files: dict[str, bytes] = field(default_factory=dict)
    begun: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    failing: Callable[[str], bool] = lambda _: False


class GoogleBatches:
    """The batches and files of one account."""

    name: ProviderName = "google"

    def __init__(self, maker: Google, journal: Journal, base: Callable[[], str]) -> None:
        self._maker, self._journal, self._base = maker, journal, base
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._store, self.page = _Store(), 100
            """The most batches of one page of a list."""

    # What to let happen

    def finish(self) -> None:
        """Answer all requests of all batches."""
        with self._lock:
            for batch in self._store.batches.values():
                if not batch.ended:
                    self._answer(batch)

    def run(self) -> None:
        """Begin with all batches."""
        with self._lock:
            for batch in self._store.batches.values():
                batch.state = batch.state if batch.ended else "RUNNING"

    def end(self, state: str) -> None:
        """End all batches without answers."""
        with self._lock:
            for batch in self._store.batches.values():
                if not batch.ended:
                    batch.state = state
                    batch.error = {"code": 3, "message": "the batch was refused"} if state == "FAILED" else None

    def fail_texts(self, which: Callable[[str], bool]) -> None:
        """Let the requests of these texts end with an error."""
        self._store.failing = which

    # What happened

    @property
    def names(self) -> list[str]:
        return list(self._store.batches)

    @property
    def input_lines(self) -> list[dict[str, Any]]:
        """The lines of the input files of all batches, oldest first."""
        contents = [self._store.files[batch.file] for batch in self._store.batches.values()]
        return [json.loads(line) for content in contents for line in content.splitlines()]

    @property
    def received(self) -> tuple[Received, ...]:
        return tuple(
            one for one in self._journal.received if one.endpoint != "embeddings" and one.provider == self.name
        )

    # The endpoints

    def serves(self, path: str) -> bool:
        return _ROUTES.fullmatch(path) is not None

    def sketch(self, request: Request) -> Sketch:
        endpoint: EndpointName = "batches" if "atch" in request.path else "files"
        return Sketch(None, (), None, None, endpoint=endpoint)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        return self._maker.failure(status, reason, request)

    def answer(self, request: Request) -> Reply:
        """Do what is asked for; raise `Refusal`."""
        if "/upload-session/" not in request.path:  # whose address is the secret
            self._maker.authorise(request)
        last = request.path.rpartition("/")[2]
        with self._lock:
            match (request.method, last):
                case ("POST", "files"):
                    return self._begin_upload(request)
                case ("POST", id) if id in self._store.begun:
                    return self._upload(request, id)
                case ("GET", file) if file.endswith(":download"):
                    return self._download(request, f"files/{file.removesuffix(':download')}")
                case ("POST", model) if model.endswith(":asyncBatchEmbedContent"):
                    return _json(self._create(request, model.partition(":")[0]).shown())
                case ("POST", id) if id.endswith(":cancel"):
                    return self._cancel(f"batches/{id.removesuffix(':cancel')}")
                case ("GET", "batches"):
                    return self._list(request)
                case ("GET", id) if f"batches/{id}" in self._store.batches:
                    return _json(self._store.batches[f"batches/{id}"].shown())
                case _:
                    return refuse(404, "Requested entity was not found.")

    def _begin_upload(self, request: Request) -> Reply:
        told = request.headers
        if (told.get("x-goog-upload-protocol"), told.get("x-goog-upload-command")) != ("resumable", "start"):
            refuse(400, "Bad upload protocol.")
        fields = request.fields() or {}
        only(fields, ("file",), "")
        file = fields.get("file") or {}
        only(file, ("name", "displayName", "mimeType", "sizeBytes", "display_name", "mime_type", "size_bytes"), "file")
        size = told.get("x-goog-upload-header-content-length", "")
        if not size.isdecimal() or not 0 < int(size) <= MAX_UPLOAD or not told.get("x-goog-upload-header-content-type"):
            refuse(400, "Upload size or type is missing.")
        id = uuid.uuid4().hex
        self._store.begun[id] = (int(size), b"")
        url = f"{self._base()}/upload-session/{id}"
        return Reply(200, b"", {"x-goog-upload-url": url, "x-goog-upload-status": "active"})

    def _upload(self, request: Request, id: str) -> Reply:
        size, content = self._store.begun[id]
        command, offset = request.headers.get("x-goog-upload-command", ""), request.headers.get("x-goog-upload-offset")
        if offset != str(len(content)):
            refuse(400, "Bad upload offset.")
        content += request.body
        self._store.begun[id] = (size, content)
        if command == "upload":
            return Reply(200, b"", {"x-goog-upload-status": "active"})
        if command != "upload, finalize" or len(content) != size:
            refuse(400, "The upload is not complete.")
        del self._store.begun[id]
        name = self._keep(content)
        shown = {"name": name, "mimeType": "application/jsonl", "sizeBytes": str(size), "state": "ACTIVE",
                 "source": "UPLOADED", "uri": f"{self._base()}/v1beta/{name}"}  # fmt: skip
        return Reply(200, json.dumps({"file": shown}).encode(), {"x-goog-upload-status": "final"})

    def _keep(self, content: bytes) -> str:
        name = f"files/{uuid.uuid4().hex[:12]}"
        self._store.files[name] = content
        return name

    def _download(self, request: Request, name: str) -> Reply:
        if request.query.get("alt") != "media" or name not in self._store.files:
            refuse(403, "You do not have permission to access the File or it may not exist.")
        if not any(batch.responses_file == name for batch in self._store.batches.values()):
            refuse(400, "Only generated files can be downloaded.")
        return Reply(200, self._store.files[name], content_type="application/octet-stream")

    def _create(self, request: Request, model: str) -> Batch:
        self._maker.model(model)
        fields = request.fields() or {}
        only(fields, ("batch",), "")
        told = fields.get("batch")
        if not isinstance(told, Mapping):
            refuse(400, "batch is required")
        only(told, ("model", "displayName", "inputConfig", "priority"), "batch")
        source = told.get("inputConfig") or {}
        only(source, ("fileName", "file_name"), "batch.input_config")
        file, display_name = source.get("fileName", source.get("file_name")), told.get("displayName")
        if not isinstance(display_name, str) or not display_name:
            refuse(400, "* BatchEmbedContentRequest.batch.display_name: display_name is required\n")
        if file not in self._store.files:
            refuse(403, f"You do not have permission to access the File {file} or it may not exist.")
        batch = Batch(f"batches/{uuid.uuid4().hex}", display_name, model, str(file))
        self._store.batches[batch.name] = batch
        return batch

    def _cancel(self, name: str) -> Reply:
        batch = self._store.batches.get(name)
        if batch is None:
            refuse(404, "Requested entity was not found.")
        if batch.ended:
            said = "The batch has ended."
            raise Refusal(error_reply(400, said, status_name="FAILED_PRECONDITION"), said)
        batch.state = "CANCELLED"
        return _json({})

    def _list(self, request: Request) -> Reply:
        if request.query.keys() - {"pageSize", "pageToken"}:
            refuse(400, "Invalid query.")
        start, size = int(request.query.get("pageToken", "0")), min(int(request.query.get("pageSize", "50")), self.page)
        newest = list(reversed(self._store.batches.values()))
        more = {"nextPageToken": str(start + size)} if len(newest) > start + size else {}
        return _json({"operations": [batch.shown() for batch in newest[start : start + size]], **more})

    def _answer(self, batch: Batch) -> None:
        """Answer each line in the order of the input, and bill it."""
        lines, failed = [], 0
        for line in self._store.files[batch.file].splitlines():
            fields = json.loads(line)
            try:
                only(fields, ("key", "request"), "")
                job = self._maker.job(batch.model, [self._maker.text(fields["request"], batch.model, "")])
                if self._store.failing(job.inputs[0]):
                    refuse(500, "An internal error has occurred.")
            except Refusal as refusal:
                failed += 1
                lines.append({"key": fields["key"], "error": json.loads(refusal.reply.body)["error"]})
                continue
            self._journal.bill(self.name, job, batch=True)
            row = vector(job.model.name, job.dimensions, job.input_type, job.texts[0]).tolist()
            usage = {"promptTokenCount": job.tokens}
            lines.append({"key": fields["key"], "response": {"embedding": {"values": row}, "usageMetadata": usage}})
        batch.responses_file = self._keep(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        batch.counts, batch.state = (len(lines) - failed, failed), "SUCCEEDED"


def _json(body: Mapping[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode(), content_type="application/json; charset=UTF-8")
