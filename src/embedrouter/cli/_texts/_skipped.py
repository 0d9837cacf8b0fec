"""What was left out of the texts, and why: counts by reason, with the first names."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..._display import first_few
from .._console import Output

MAX_NAMES = 1000
"""Names kept for each reason; memory stays small where millions of rows are bad."""


class Skipped:
    """Files, rows and texts that were left out, by reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, dict[str, None]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one more; a name that is there already is not counted again."""
        names = self._names.setdefault(reason, {})
        if name not in names:
            self._counts[reason] += 1
            if len(names) < MAX_NAMES:
                names[name] = None

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()
        self._names.clear()

    def __len__(self) -> int:
        return self._counts.total()

    def rows(self) -> list[dict[str, Any]]:
        """Return ``{"reason", "count", "names"}`` for each reason, for JSON."""
        return [
            {"reason": reason, "count": count, "names": list(self._names[reason])}
            for reason, count in self._counts.items()
        ]

    def show(self, output: Output, every: bool = False) -> None:
        """Print a line for each reason with the first names, or with ``every`` all names."""
        for line in self.lines(every):
            output.line(line)

    def lines(self, every: bool = False) -> Iterable[str]:
        """Return a line for each reason."""
        for reason, count in self._counts.items():
            names = list(self._names[reason])
            shown = ", ".join(names) if every else first_few(names, count=count)
            yield f"skipped, {reason}: {count:,} ({shown})"

    def summary(self) -> str:
        """Return the lines as one sentence, or nothing."""
        return f"{'; '.join(self.lines()).capitalize()}. " if self else ""
