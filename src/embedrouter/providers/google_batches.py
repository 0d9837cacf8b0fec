"""Google's batch endpoint for embeddings, through the google-genai SDK: the Gemini developer API alone has one.

Half the price, an answer within 24 hours. A batch is a file of JSON lines, each with the name of its text as ``key``,
and so is its answer; the display name is the client reference. The file is built in memory: texts are not written to
disk. The SDK reads an answer as a whole, which limits the texts of one batch.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import BackendError, BadResponseError
from ..models import BatchEndpoint, implausible_count, parse_token_count
from ..types import Answer, BatchProgress, InputType
from ._batch_files import error_code
from ._remote import RemoteBackend
from ._responses import decode_vectors

ENDED = frozenset({
    "JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED",
    "JOB_STATE_EXPIRED",
})  # fmt: skip
FAILED = "JOB_STATE_FAILED"
OVER = "FAILED_PRECONDITION"
"""The status of a cancellation that comes too late."""
EXPERIMENTAL = r"batches\.create_embeddings\(\) is experimental"
"""What the SDK warns of at each call. The filter stays: to take it back would race with other threads."""
NAMES = {"task_type": "taskType", "output_dimensionality": "outputDimensionality"}
"""The SDK's names of settings, and the API's."""


class GoogleBatches(BatchEndpoint):
    """Calls ``files`` and ``batches`` with the client, the requests and the errors of a backend.

    Args:
        http_options: returns the SDK's options of one request with this timeout, in seconds.
    """

    window = 172_800.0  # the target are 24 hours; a job expires after 48
    max_texts = 10_000
    max_bytes = 200_000_000
    bytes_per_text = 400

    def __init__(self, backend: RemoteBackend, http_options: Callable[[float], dict[str, Any]]) -> None:
        self._backend, self._http_options = backend, http_options
        self._model = backend.model

    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        content = b"".join(
            json.dumps({"key": name, "request": self._request(text, input_type)}, ensure_ascii=False).encode() + b"\n"
            for name, text in texts.items()
        )
        config = {"mime_type": "application/jsonl", **self._options(timeout)}
        if base := self._backend.endpoint.url:  # else the SDK sends the texts to the address that the answer names
            config["http_options"]["base_url"] = base
        with self._backend.clients.lease() as client, self._errors(list(texts.values())):
            return str(client.files.upload(file=io.BytesIO(content), config=config).name)

    def submit(self, file: str, reference: str, input_type: InputType, *, timeout: float) -> str:
        config = {"display_name": reference, **self._options(timeout)}
        warnings.filterwarnings("ignore", EXPERIMENTAL)
        with self._backend.clients.lease() as client, self._errors():
            return str(client.batches.create_embeddings(model=self._name, src={"file_name": file}, config=config).name)

    def find(self, reference: str, *, timeout: float) -> str | None:
        config = {"page_size": 100, **self._options(timeout)}
        with self._backend.clients.lease() as client, self._errors():
            jobs = client.batches.list(config=config)
            return next((str(job.name) for job in jobs if job.display_name == reference), None)

    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._backend.clients.lease() as client, self._errors():
            job = client.batches.get(name=batch, config=self._options(timeout))
            state = job.state.name
        refusal = error_code(job.error and job.error.code) if state == FAILED else ""
        return BatchProgress(ended=state in ENDED, texts=0, answered=0, refusal=refusal)  # the SDK drops the counts

    def results(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        options = self._options(timeout)
        with self._backend.clients.lease() as client, self._errors():
            job = client.batches.get(name=batch, config=options)
            file = job.dest and job.dest.file_name
            for line in io.BytesIO(client.files.download(file=file, config=options)) if file else ():
                if line.strip():
                    yield self.parse_line(line)

    def cancel(self, batch: str, *, timeout: float) -> None:
        from google.genai.errors import ClientError

        with self._backend.clients.lease() as client, self._errors():
            try:
                client.batches.cancel(name=batch, config=self._options(timeout))
            except ClientError as error:
                if error.status != OVER:
                    raise

    def parse_line(self, line: bytes) -> tuple[str, Answer | str]:
        """Parse one line of an answer. Messages may quote the text: only codes are kept.

        Raises:
            BadResponseError: the line is none of a batch's results.
        """
        try:
            fields = json.loads(line)
            name, response, error = str(fields["key"]), fields.get("response") or {}, fields.get("error")
            error = error or response.get("error")
            if error:
                return name, error_code(error.get("status") or error.get("code"))
            usage = response.get("usageMetadata") or {}
            tokens = usage.get("promptTokenCount", response.get("tokenCount"))
            values = response["embedding"]["values"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadResponseError(
                "a line of the batch's answers cannot be understood", model=self._model.name
            ) from error
        tokens = int(tokens) if isinstance(tokens, str) and tokens.isdecimal() else tokens
        try:
            vectors = decode_vectors([values], self._model.name, self._backend.length)
        except BadResponseError:  # billed as any other
            return name, Answer(np.empty((0, 0), np.float32), None)
        return name, Answer(vectors, parse_token_count(tokens), implausible=implausible_count(tokens))

    @property
    def _name(self) -> str:
        return self._model.deployment or self._model.id

    def _request(self, text: str, input_type: InputType) -> dict[str, Any]:
        request = self._backend.build_request([text], input_type)
        return {"content": request["contents"][0], **{NAMES[name]: told for name, told in request["config"].items()}}

    def _options(self, timeout: float) -> dict[str, Any]:
        return {"http_options": self._http_options(timeout)}

    @contextmanager
    def _errors(self, texts: list[str] | None = None) -> Iterator[None]:
        try:
            yield
            return
        except BackendError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._backend.chained(error, texts or [])
        raise failure
