"""Write what the process has embedded and spent to standard error when it ends, if ``EMBEDROUTER_SUMMARY=1`` asks."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from decimal import Decimal

from .._display import counted, escaped
from .._process import Lock, PerProcess, at_worker_exit, watch_end
from ..types import dollars
from ._calls import BatchCollected, CallBegan, CallEnded, RequestAnswered, RequestFailed, RequestSent
from ._event import Event
from ._watch import watch

VARIABLE = "EMBEDROUTER_SUMMARY"


@dataclass(slots=True)
class Figures:
    """The totals of one model."""

    texts: int = 0
    cached: int = 0
    tokens: int = 0
    unpriced: int = 0
    """Tokens of unknown price."""
    cost: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __str__(self) -> str:
        """Return the figures in one line."""
        cached = f", {self.cached:,} from the cache" if self.cached else ""
        unknown = f", {counted(self.unpriced, 'token')} of unknown price" if self.unpriced else ""
        money = f"{dollars(self.cost)}{unknown}, saved {dollars(self.saved)}"
        return f"{counted(self.texts, 'text')}{cached}, {counted(self.tokens, 'token')}, {money}"


class _Totals:
    """The totals of one process."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.by_model: defaultdict[str, Figures] = defaultdict(Figures)
        at_worker_exit(self.write)

    def write(self) -> None:
        """Write the totals, once."""
        with self.lock:
            totals, self.by_model = self.by_model, defaultdict(Figures)
        if not totals:
            return
        lines = [f"  {escaped(model)}: {figures}" for model, figures in sorted(totals.items())]
        whole = sum(totals.values(), Figures())
        _write("\n".join(["embedrouter in this process:", *lines, *([f"  total: {whole}"] if len(totals) > 1 else [])]))


class Summary:
    """Adds up what the calls of the process bring. A forked child begins anew."""

    def __init__(self) -> None:
        self._totals = PerProcess(_Totals)

    def around(self, began: CallBegan | RequestSent) -> AbstractContextManager[object]:
        """Enter nothing."""
        return nullcontext()

    def receive(self, event: Event) -> None:
        """Add an event."""
        totals = self._totals.get()
        match event:
            case CallEnded():
                parts = {
                    share.model: Figures(texts=share.texts, cached=share.cached, saved=share.saved)
                    for share in event.by_model
                }
            case RequestAnswered() | BatchCollected():
                unpriced = event.tokens if event.cost is None else 0
                parts = {event.model: Figures(tokens=event.tokens, unpriced=unpriced, cost=event.cost or Decimal(0))}
            case RequestFailed() if event.cost:
                parts = {event.model: Figures(cost=event.cost)}
            case _:
                return
        with totals.lock:
            for model, figures in parts.items():
                totals.by_model[model] += figures

    def at_end(self, deadline: float) -> None:
        """Write the totals when the interpreter ends."""
        self._totals.get().write()


_summary: list[Summary] = []


def summarise_if_asked() -> None:
    """Begin to add up, if the variable of the environment asks for it."""
    if not _summary and os.environ.get(VARIABLE, "0") not in ("", "0"):
        _summary.append(Summary())
        watch(_summary[0])
        watch_end(_summary[0])


def _write(text: str) -> None:
    """Write to standard error, which may be closed; past Python's buffer, which would be flushed again at the end."""
    with suppress(Exception):
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        data = f"{text}\n".encode(encoding, "backslashreplace")
        try:
            number = sys.stderr.fileno()
        except (OSError, ValueError):  # replaced by an object without a file
            sys.stderr.write(data.decode(encoding))
        else:
            while data:
                data = data[os.write(number, data) :]
