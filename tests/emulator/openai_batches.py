"""OpenAI's batches: how they are shown, read and written.

An HTTP answer, good or bad, stands under `response`; a request that never ran has `response` null and says why under
`error` (API reference, the request output object). Ids depend on the batch and the `custom_id` alone.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from tests.emulator.batch import Batch
from tests.emulator.batch_input import Complaint, Limits, Line, read_input
from tests.emulator.batch_output import NOT_RUN, NotRun, Outcome, Success, body_of
from tests.emulator.exchange import Job
from tests.emulator.models import ProviderName, find
from tests.emulator.openai import OpenAI, error_body, scripted_error

_MOMENTS = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"
)  # fmt: skip


class OpenAIForm:
    """The batches of api.openai.com."""

    name: ProviderName = "openai"
    window = 24 * 3600
    written_unless_run = frozenset({"expired", "cancelled"})
    output_purpose = "batch_output"

    def __init__(self, maker: OpenAI) -> None:
        self._maker = maker

    def new_id(self) -> str:
        return f"batch_{uuid.uuid4().hex}"

    def read(self, batch: Batch, content: bytes, limits: Limits) -> tuple[tuple[Line, ...], tuple[Complaint, ...]]:
        return read_input(content, batch.endpoint, limits)

    def job(self, batch: Batch, line: Line) -> Job:
        return self._maker.check(self._maker.known(dict(line.body)), find(line.body["model"]))

    def failure(self, status: int, line: Line) -> Any:
        return error_body(*scripted_error(status, None, line.body["model"], ""))

    def shown(self, batch: Batch) -> dict[str, Any]:
        done = batch.succeeded
        errors = {"object": "list", "data": [complaint.shown() for complaint in batch.complaints]}
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": batch.lines[0].body["model"] if batch.lines else None,
            "errors": errors if batch.complaints else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
            "created_at": batch.created_at,
            "expires_at": batch.expires_at,
            **{moment: batch.moments.get(moment) for moment in _MOMENTS},
            "request_counts": {"total": len(batch.lines), "completed": len(done), "failed": batch.failed},
            "usage": _usage(sum(success.job.tokens for success in done)) if batch.lines else None,
            "metadata": batch.metadata,
        }

    def written(self, batch_id: str, outcome: Outcome) -> bytes:
        custom_id = outcome.line.custom_id
        stamp = hashlib.blake2b(f"{batch_id}/{custom_id}".encode("utf-8", "surrogatepass"), digest_size=16)
        head = f'{{"id": "batch_req_{stamp.hexdigest()}", "custom_id": {json.dumps(custom_id)}, '
        if isinstance(outcome, NotRun):
            error = {"code": outcome.code, "message": NOT_RUN[outcome.code]}
            return f'{head}"response": null, "error": {json.dumps(error)}}}\n'.encode()
        if isinstance(outcome, Success):
            status, body = 200, body_of(self._maker, outcome)
        else:
            status, body = outcome.status, json.dumps(outcome.body).encode()
        head += f'"response": {{"status_code": {status}, "request_id": "{stamp.hexdigest()[::-1]}", "body": '
        return head.encode() + body + b'}, "error": null}\n'


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
