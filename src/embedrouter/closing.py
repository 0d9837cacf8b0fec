"""Objects that may be closed, and open again when they are used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """A context manager of both kinds, for whatever has ``close`` and ``aclose``."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and files. Never required; a later call opens them again."""

    @abstractmethod
    async def aclose(self) -> None:
        """Do what ``close`` does, for the running event loop's connections too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
