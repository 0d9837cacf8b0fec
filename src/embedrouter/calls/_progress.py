"""Show the progress of a call: texts, texts a second, time left, what came from the cache, money.

The bar is tqdm's, for terminals and notebooks. Drawing writes to a terminal, which may block, and the first bar imports
tqdm, so a thread of the package does both, in order.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal, Self, TypeAlias

from .._display import counted, dollars
from .._process import Lane, in_thread, threads
from ..errors import ConfigError, OutOfThreadsError
from ..spending import Charge, cost, usage_of
from ..types import EmbeddingResult, Found, Usage
from ._call import Embedded

ShowProgress: TypeAlias = 'bool | Literal["auto"]'
"""Whether to show a bar; ``"auto"`` shows one in a terminal or a notebook where work takes longer than ``PATIENCE``."""

PATIENCE = 2.0
"""Seconds of work before ``"auto"`` shows a bar."""


class Progress:
    """Draw one bar for a call, for the chunks of ``embed_iter``, or for other work; a context manager in both forms.

    Args:
        show: whether there is a bar.
        total: the number of texts, where it is known.
        title: what the bar begins with.
    """

    def __init__(self, show: ShowProgress, total: int | None, title: str | None = None) -> None:
        if show not in (True, False, "auto"):
            raise ConfigError(
                "show_progress is True, False, or 'auto': a bar where work takes long and somebody looks."
            )
        self.show: ShowProgress = show
        self._total, self._title = total, title
        self._lane = Lane(threads, 1) if show else None
        self._drawn: Future[None] | None = None
        """What was drawn last."""

    def __enter__(self) -> Self:
        self._draw(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw(self._close)
        if self._drawn is not None:
            wait([self._drawn])

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self._draw(self._close)
        if self._drawn is not None:
            await in_thread(wait, [self._drawn])

    def begin(self, texts: Sequence[str]) -> Callable[[Embedded], None]:
        """Begin a call; return what receives the parts of its result."""
        self._draw(self._begin, texts)
        return lambda part: self._draw(self._add, dict(part.found), list(part.charges))

    def fill(self, texts: Sequence[str]) -> None:
        """Count texts of the running call that have a vector, also by the request of another call."""
        self._draw(self._add, dict.fromkeys(texts), [])

    def end(self, result: EmbeddingResult) -> None:
        """End a call."""
        self._draw(self._end, len(result), sum(result.cached), result.usage)

    def reach(self, texts: int, usage: Usage, *, cached: int = 0) -> None:
        """Show how far work of another kind than a call is, such as a batch: figures since the bar was opened."""
        self._draw(self._show_figures, texts, cached, usage)

    def _draw(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._lane is None:
            return
        try:
            self._drawn = self._lane.submit(function, *arguments)
        except OutOfThreadsError:
            self._lane = None

    # In the thread

    def _open(self) -> None:
        self._texts, self._cached, self._usage = 0, 0, Usage()
        """Of the calls that have ended."""
        self._left: Counter[str] = Counter()
        """How often each text of the running call occurs that has no vector yet."""
        self._found, self._recalled, self._charges, self._saved = 0, 0, list[Charge](), Decimal(0)
        """Of the running call."""
        from tqdm.auto import tqdm
        from tqdm.notebook import tqdm_notebook

        looked_at = issubclass(tqdm, tqdm_notebook) or (sys.stderr is not None and sys.stderr.isatty())
        self._bar: Any = tqdm(
            total=self._total,
            desc=self._title,
            file=_Patient(sys.stderr),
            unit=" texts",
            dynamic_ncols=True,
            mininterval=0,  # each part is drawn, because parts are large
            miniters=1,
            delay=PATIENCE if self.show == "auto" else 0,
            disable=sys.stderr is None or (self.show == "auto" and not looked_at),
        )

    def _begin(self, texts: Iterable[str]) -> None:
        self._left = Counter(texts)

    def _add(self, vectors: Mapping[str, Found | None], charges: list[Charge]) -> None:
        for text, found in vectors.items():
            times = self._left.pop(text, 0)
            self._found += times
            if times and found is not None:
                cached, price = found.origin.cached, found.origin.candidate.price
                self._recalled += times if cached else 0
                self._saved += cost(found.tokens * (times - (not cached)), price) or 0
        self._charges += charges
        self._show_figures(self._found, self._recalled, usage_of(self._charges) + Usage(saved=self._saved))

    def _end(self, texts: int, cached: int, usage: Usage) -> None:
        self._show_figures(texts, cached, usage)
        self._texts, self._cached, self._usage = self._texts + texts, self._cached + cached, self._usage + usage
        self._found, self._recalled, self._charges, self._saved = 0, 0, [], Decimal(0)

    def _show_figures(self, texts: int, cached: int, usage: Usage) -> None:
        """Show figures of the running call, added to those of the calls before it."""
        texts, cached, usage = self._texts + texts, self._cached + cached, self._usage + usage
        self._bar.set_postfix_str(figures(texts - cached, cached, usage), refresh=False)
        self._bar.update(texts - self._bar.n)

    def _close(self) -> None:
        self._bar.close()


class _Patient:
    """Write to a terminal that may be gone: tqdm would keep its lock after an error, and every later bar would wait."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def figures(new: int, cached: int, usage: Usage) -> str:
    """Return what a bar says beside its numbers: "320 new, $0.0003", "320 from the cache, saved $0.0003"."""
    parts = [f"{new:,} new"] if new or not cached else []
    parts += [f"{cached:,} from the cache"] if cached else []
    parts += [dollars(usage.cost)] if usage.cost or not (usage.saved or usage.unpriced_tokens) else []
    parts += [f"{counted(usage.unpriced_tokens, 'token')} of unknown price"] if usage.unpriced_tokens else []
    parts += [f"saved {dollars(usage.saved)}"] if usage.saved else []
    return ", ".join(parts)
