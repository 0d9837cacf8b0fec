"""One batch: a record that the service changes and the client looks at, and how a provider shows and writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.emulator.batch_input import Complaint, Limits, Line
from tests.emulator.batch_output import Failure, Outcome, Success
from tests.emulator.exchange import Job
from tests.emulator.models import ProviderName

ENDED = frozenset({"failed", "completed", "expired", "cancelled"})


class Form(Protocol):
    """What differs between the batch endpoints of the providers: words, shapes and rules, not what happens when."""

    name: ProviderName
    window: int
    """Seconds."""
    written_unless_run: frozenset[str]
    """Ends after which requests that never ran are written to the error file."""
    output_purpose: str
    """The purpose of the files that batches write."""

    def new_id(self) -> str: ...

    def read(self, batch: Batch, content: bytes, limits: Limits) -> tuple[tuple[Line, ...], tuple[Complaint, ...]]:
        """Return the requests of the input file, or what is wrong with it."""
        ...

    def job(self, batch: Batch, line: Line) -> Job:
        """Check one request as the maker does; raise `Refusal`."""
        ...

    def failure(self, status: int, line: Line) -> Any:
        """Return the body of a scripted error."""
        ...

    def shown(self, batch: Batch) -> dict[str, Any]:
        """Return the object that the API answers."""
        ...

    def written(self, batch_id: str, outcome: Outcome) -> bytes:
        """Return a line of the output or error file."""
        ...


@dataclass(slots=True)
class Batch:
    """The state of one batch; `outcomes` grows in the order of `lines`."""

    form: Form
    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    output_kept: int
    created_at: int
    number: int
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the creation says of all requests, where the lines do not."""
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
        return self.created_at + self.form.window

    @property
    def succeeded(self) -> list[Success]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Success)]

    @property
    def failed(self) -> int:
        """How many requests were refused or met an error; what never ran counts neither so nor so."""
        return sum(isinstance(outcome, Failure) for outcome in self.outcomes)

    def become(self, status: str, now: int) -> None:
        """Change the status and write down when."""
        self.status = status
        self.moments[f"{status}_at"] = now

    def shown(self) -> dict[str, Any]:
        """Return the object that the API answers."""
        return self.form.shown(self)
