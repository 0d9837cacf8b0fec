"""One batch of OpenAI's: a record that the service changes and the client looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.emulator.batch_input import Complaint, Line
from tests.emulator.batch_output import Failure, Outcome, Success

WINDOW = 24 * 3600
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
_MOMENTS = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"
)  # fmt: skip


@dataclass(slots=True)
class Batch:
    """The state of one batch; `outcomes` grows in the order of `lines`."""

    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    output_kept: int
    created_at: int
    number: int
    status: str = "validating"
    moments: dict[str, int] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    complaints: tuple[Complaint, ...] = ()
    outcomes: list[Outcome] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def expires_at(self) -> int:
        return self.created_at + WINDOW

    def become(self, status: str, now: int) -> None:
        """Change the status and write down when."""
        self.status = status
        self.moments[f"{status}_at"] = now

    def shown(self) -> dict[str, Any]:
        """Return the object that the API answers. What never ran counts neither as completed nor as failed."""
        done = [outcome for outcome in self.outcomes if isinstance(outcome, Success)]
        errors = {"object": "list", "data": [complaint.shown() for complaint in self.complaints]}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.lines[0].body["model"] if self.lines else None,
            "errors": errors if self.complaints else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **{moment: self.moments.get(moment) for moment in _MOMENTS},
            "request_counts": {
                "total": len(self.lines),
                "completed": len(done),
                "failed": sum(isinstance(outcome, Failure) for outcome in self.outcomes),
            },
            "usage": _usage(sum(success.job.tokens for success in done)) if self.lines else None,
            "metadata": self.metadata,
        }


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
