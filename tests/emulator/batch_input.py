"""What OpenAI validates in the input file of a batch, before it works on any line.

The codes and messages are those that the service is known to answer; where none is published (`invalid_method` and the
three limits) the message is in the service's manner. A line may break several rules and is reported once for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from tests.emulator.models import served_by
from tests.emulator.openai import inputs

_FIELDS = {"custom_id": (str, "a string"), "method": (str, "a string"), "url": (str, "a string"),
           "body": (dict, "an object")}  # fmt: skip
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest file that is accepted (API reference, batches; the file guide says MB, read here as millions)."""

    requests: int = 50_000
    inputs: int = 50_000
    bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a valid file."""

    custom_id: str
    body: Mapping[str, Any]

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be embedded, as far as it can be read."""
        return inputs(self.body.get("input")) or ()


@dataclass(frozen=True, slots=True)
class Complaint:
    """One entry of a failed batch's `errors`."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def shown(self) -> dict[str, Any]:
        return asdict(self)


def read_input(content: bytes, endpoint: str, limits: Limits) -> tuple[tuple[Line, ...], tuple[Complaint, ...]]:
    """Return the requests of the file, or what is wrong with it."""
    if len(content) > limits.bytes:
        message = f"The input file is too large. The maximum size is {limits.bytes} bytes."
        return (), (Complaint("file_too_large", message),)
    raw = content.split(b"\n")
    if not raw[-1].strip():
        raw.pop()
    if len(raw) > limits.requests:
        message = f"The input file has {len(raw)} requests. Batches are limited to {limits.requests} requests."
        return (), (Complaint("too_many_tasks", message),)
    reader = _Reader(endpoint)
    complaints: list[Complaint] = []
    for number, line in enumerate(raw, 1):
        complaints += reader.complaints(number, line)
        if len(complaints) >= _SHOWN:
            break
    if not complaints and reader.inputs > limits.inputs:
        message = f"The input file has {reader.inputs} embedding inputs. Batches are limited to {limits.inputs} inputs."
        complaints.append(Complaint("too_many_inputs", message))
    return (() if complaints else tuple(reader.lines)), tuple(complaints)


class _Reader:
    """Goes through a file line by line and remembers what must not repeat or must not change."""

    def __init__(self, endpoint: str) -> None:
        self.lines: list[Line] = []
        self.inputs = 0
        self._endpoint = endpoint
        self._seen: set[str] = set()
        self._model: str | None = None

    def complaints(self, number: int, raw: bytes) -> Iterator[Complaint]:
        """Yield what is wrong with this line; when nothing is, keep it."""
        try:
            request = json.loads(raw.decode(), parse_constant=_no_constant)
        except ValueError:
            yield Complaint("invalid_json_line", "This line is not parseable as valid JSON.", None, number)
            return
        found = list(self._wrong(request) if isinstance(request, dict) else _no_object())
        for code, message, param in found:
            yield Complaint(code, message, param, number)
        if not found:
            self.lines.append(Line(request["custom_id"], request["body"]))
            self.inputs += _count(request["body"].get("input"))

    def _wrong(self, request: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
        good = set()
        for name, (kind, expected) in _FIELDS.items():
            if request.get(name) is None:
                yield "missing_required_parameter", f"Missing required parameter: '{name}'.", name
            elif not isinstance(request[name], kind):
                yield "invalid_type", f"Invalid type for '{name}': expected {expected}.", name
            else:
                good.add(name)
        if "custom_id" in good:
            if request["custom_id"] in self._seen:
                message = (
                    "The custom_id for this request is a duplicate of another request. The custom_id parameter must "
                    "be unique for each request in a batch."
                )
                yield "duplicate_custom_id", message, "custom_id"
            self._seen.add(request["custom_id"])
        if "method" in good and request["method"] != "POST":
            yield "invalid_method", f"Invalid value: '{request['method']}'. Value must be 'POST'.", "method"
        if "url" in good and request["url"] != self._endpoint:
            yield "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
        if "body" in good:
            yield from self._wrong_model(request["body"].get("model"))

    def _wrong_model(self, model: object) -> Iterator[tuple[str, str, str]]:
        if not isinstance(model, str) or not model:
            yield "invalid_request", "Model parameter is required.", "body.model"
        elif self._model is not None and model != self._model:
            message = (
                f"The model '{model}' for this request does not match the rest of the batch. Each batch must contain "
                "requests for a single model."
            )
            yield "mismatched_model", message, "body.model"
        else:
            self._model = model
            if served_by("openai", model) is None:
                message = f"The provided model '{model}' is not supported by the Batch API."
                yield "model_not_found", message, "body.model"


def _no_object() -> Iterator[tuple[str, str, str | None]]:
    yield "invalid_request", "Each line must be a JSON object.", None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _count(value: object) -> int:
    """Return how many inputs a body holds; one list of token ids is one input."""
    if not isinstance(value, list):
        return 1
    return len(value) if value and isinstance(value[0], str | list) else 1
