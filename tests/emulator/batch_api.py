"""OpenAI's `/v1/files` and `/v1/batches`: what they accept, answer and refuse.

Only batches of embeddings are served. An upload is refused when its name or its first line is not JSON lines; all else
that may be wrong with the file fails the batch later, an unknown file id included (as the service does). Every
parameter that the API reference does not name is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from tests.emulator import params
from tests.emulator.batches import Batches
from tests.emulator.exchange import EndpointName, Reply, Request, Sketch
from tests.emulator.files import KEPT, File, Files
from tests.emulator.models import ProviderName
from tests.emulator.multipart import Part, parse_form
from tests.emulator.openai import OpenAI

ENDPOINTS = ("/v1/embeddings",)
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_READABLE = ("batch", "batch_output")
_UPLOAD = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
_CREATE = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_ROUTE = re.compile(r"/v1/(files|batches)(?:/([^/]+)(?:/(content|cancel))?)?")


class BatchApi:
    """The endpoints of api.openai.com around the Batch API."""

    name: ProviderName = "openai"

    def __init__(self, maker: OpenAI, files: Files, batches: Batches) -> None:
        self._maker = maker
        self._files = files
        self._batches = batches

    def serves(self, path: str) -> bool:
        match = _ROUTE.fullmatch(path)
        return match is not None and match[3] in (None, "content" if match[1] == "files" else "cancel")

    def sketch(self, request: Request) -> Sketch:
        endpoint: EndpointName = "files" if request.path.startswith("/v1/files") else "batches"
        return Sketch(None, (), None, None, endpoint=endpoint)

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        return self._maker.failure(status, reason, request)

    def answer(self, request: Request) -> Reply:
        """Do what is asked for; raise `Refusal`."""
        self._maker.authenticate(request)
        found = _ROUTE.fullmatch(request.path)
        match (request.method, *(found.groups() if found else ())):
            case ("POST", "files", None, None):
                return self._json(self._upload(request).shown())
            case ("GET", "files", None, None):
                return self._json(self._list_files(request.query))
            case ("GET", "files", str() as id, None):
                return self._json(self._file(id).shown())
            case ("DELETE", "files", str() as id, None):
                self._files.remove(self._file(id).id)
                return self._json({"object": "file", "id": id, "deleted": True})
            case ("GET", "files", str() as id, "content"):
                return self._content(self._file(id))
            case ("POST", "batches", None, None):
                return self._json(self._create(request))
            case ("GET", "batches", None, None):
                params.known(self._maker, request.query, ("limit", "after"))
                return self._json(
                    params.page(self._maker, request.query, self._batches.newest_first(), usual=20, most=100)
                )
            case ("GET", "batches", str() as id, None):
                return self._json(self._batches.look(id) or self._no_batch(id))
            case ("POST", "batches", str() as id, "cancel"):
                return self._json(self._cancel(id))
            case _:
                return self._not_allowed(request)

    def _not_allowed(self, request: Request) -> NoReturn:
        hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
        self._maker.refuse(405, f"Not allowed to {request.method} on {request.path}. {hint}")

    # Files.

    def _upload(self, request: Request) -> File:
        form = parse_form(request.headers.get("content-type", ""), request.body)
        if form is None:
            self._maker.refuse(400, "We could not parse the multipart form of your request.")
        params.known(self._maker, form, _UPLOAD)
        for name in ("file", "purpose"):
            if name not in form:
                params.missing(self._maker, name)
        purpose, file = form["purpose"].text, form["file"]
        if purpose not in _PURPOSES:
            self._maker.refuse(400, f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'")
        kept = self._kept(form, KEPT if purpose == "batch" else None)
        if purpose == "batch" and not _is_jsonl(file):
            self._maker.refuse(400, "Invalid file format for Batch API. Must be .jsonl")
        return self._files.add(file.filename or "upload", purpose, file.content, kept)

    def _kept(self, form: Mapping[str, Part], usual: int | None) -> int | None:
        anchor, seconds = (form.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
        if anchor is None and seconds is None:
            return usual
        count = int(seconds.text) if seconds and seconds.text.isdecimal() else None
        return params.expiry(self._maker, "expires_after", anchor.text if anchor else None, count)

    def _list_files(self, query: Mapping[str, str]) -> dict[str, Any]:
        params.known(self._maker, query, ("after", "limit", "order", "purpose"))
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            params.unsupported(self._maker, "order", order, ("asc", "desc"))
        rows = [file for file in self._files.all() if file.purpose == query.get("purpose", file.purpose)]
        return params.page(self._maker, query, rows if order == "asc" else rows[::-1], usual=10_000, most=10_000)

    def _file(self, id: str) -> File:
        file = self._files.get(id)
        if file is None:
            self._maker.refuse(404, f"No such File object: {id}", param="id")
        return file

    def _content(self, file: File) -> Reply:
        if file.purpose not in _READABLE:
            self._maker.refuse(400, f"Not allowed to download files of purpose: {file.purpose}")
        headers = {
            "content-disposition": f'attachment; filename="{file.filename}"',
            **self._maker.error_headers(),
        }
        if isinstance(file.content, bytes):
            return Reply(200, file.content, headers, "application/octet-stream")
        return Reply(200, b"", headers, "application/octet-stream", file.content.pieces())

    # Batches.

    def _create(self, request: Request) -> dict[str, Any]:
        fields = request.fields()
        if fields is None:
            self._maker.refuse(400, "We could not parse the JSON body of your request.")
        params.known(self._maker, fields, _CREATE)
        for name in ("input_file_id", "endpoint", "completion_window"):
            if fields.get(name) is None:
                params.missing(self._maker, name)
            if not isinstance(fields[name], str):
                params.wrong_type(self._maker, name, fields[name], "a string")
        if fields["endpoint"] not in ENDPOINTS:
            params.unsupported(self._maker, "endpoint", fields["endpoint"], ENDPOINTS)
        if fields["completion_window"] != "24h":
            params.unsupported(self._maker, "completion_window", fields["completion_window"], ("24h",))
        labels = params.metadata(self._maker, fields.get("metadata"))
        return self._batches.create(fields["input_file_id"], fields["endpoint"], labels, self._output_kept(fields))

    def _output_kept(self, fields: Mapping[str, Any]) -> int:
        policy = fields.get("output_expires_after")
        if policy is None:
            return KEPT
        if not isinstance(policy, dict):
            params.wrong_type(self._maker, "output_expires_after", policy, "an object")
        return params.expiry(self._maker, "output_expires_after", policy.get("anchor"), policy.get("seconds"))

    def _cancel(self, id: str) -> dict[str, Any]:
        """Cancelling twice is allowed; what has ended otherwise, or is being written, is in conflict."""
        batch = self._batches.cancel(id) or self._no_batch(id)
        if batch["status"] not in ("cancelling", "cancelled"):
            self._maker.refuse(409, f"Cannot cancel a batch with status '{batch['status']}'.")
        return batch

    def _no_batch(self, id: str) -> NoReturn:
        self._maker.refuse(404, f"No batch found with id '{id}'.")

    def _json(self, body: Mapping[str, Any]) -> Reply:
        return Reply(200, json.dumps(body, indent=2).encode(), self._maker.error_headers())


def _is_jsonl(file: Part) -> bool:
    """Say whether the service would take this for JSON lines: by the name and, as far as is known, the first line."""
    if not (file.filename or "").endswith(".jsonl"):
        return False
    try:
        json.loads(file.content.split(b"\n", 1)[0].decode())
    except ValueError:
        return False
    return True
