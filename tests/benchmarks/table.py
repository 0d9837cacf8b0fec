"""The figures of one run, as a table to read and as JSON to draw from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from .contestants import Contestant, Role, Round


@dataclass(frozen=True, slots=True)
class Measure:
    """What is compared: the `cost` of a round, which is less the better it went, and how it is `shown`."""

    unit: str
    cost: Callable[[Round], float]
    shown: Callable[[float], float] = lambda cost: cost


RATE = Measure("texts/s", lambda round_: round_.seconds / round_.size, lambda cost: 1 / cost)
EACH = Measure("ms", lambda round_: 1000 * round_.seconds / round_.size)
WHOLE = Measure("s", lambda round_: round_.seconds)
CPU = Measure("µs CPU a text", lambda round_: 1e6 * round_.cpu / round_.size)
REQUESTS = Measure("requests", lambda round_: round_.requests)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contestant reached; `ratio` says how many times as good ours is."""

    name: str
    role: Role
    value: float
    ratio: float
    goal: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One work by one measure."""

    work: str
    unit: str
    rounds: int
    figures: list[Figure]


@dataclass(slots=True)
class Table:
    """All rows of a run."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        work: str,
        measure: Measure,
        contestants: Sequence[Contestant],
        taken: Sequence[Sequence[Round]],
        goals: Sequence[float | None],
    ) -> None:
        """Add a row: one measure of a race."""
        costs = [[measure.cost(round_) for round_ in rounds] for rounds in taken]
        own = next(cost for contestant, cost in zip(contestants, costs, strict=True) if contestant.role == "ours")
        figures = [
            Figure(
                contestant.name,
                contestant.role,
                measure.shown(median(cost)),
                median(other / mine for other, mine in zip(cost, own, strict=True)),
                goal,
            )
            for contestant, cost, goal in zip(contestants, costs, goals, strict=True)
        ]
        self.rows.append(Row(work, measure.unit, len(own), figures))
        print("\n" + markdown(self.rows[-1:]))

    def write(self) -> None:
        """Write the file that the environment names."""
        if path := os.environ.get("EMBEDROUTER_BENCH_JSON"):
            machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
            run = {"machine": machine, "rows": [asdict(row) for row in self.rows]}
            Path(path).write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")


HEADINGS = ("work", "unit", "ours", "beside", "theirs", "ours is … times as good", "goal")


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with a line for each contestant beside ours; in a limit's line the ratio is the part reached."""
    lines = [HEADINGS, ("---", "---", "--:", "---", "--:", "--:", "--:")]
    for row in rows:
        own = next(figure for figure in row.figures if figure.role == "ours")
        first = (row.work, row.unit, number(own.value))
        for figure in row.figures:
            if figure.role == "ours":
                continue
            name = figure.name if figure.role == "peer" else f"{figure.role}: {figure.name}"
            goal = "" if figure.goal is None else f"{'' if figure.ratio >= figure.goal else 'below '}{figure.goal:.3g}"
            lines.append((*first, name, number(figure.value), f"{figure.ratio:.3g}", goal))
            first = ("", "", "")
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float, digits: int = 3) -> str:
    """Return the digits that count."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"
