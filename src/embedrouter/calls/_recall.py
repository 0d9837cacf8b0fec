"""Recall the vectors of recent queries from memory."""

from collections.abc import Sequence

from ..cache import QueryMemory
from ._call import Call, Embedded, Stage, without


class Recall:
    """Answer queries from memory, and keep the vectors of other queries in memory.

    Documents are not kept, because a document is embedded once.
    """

    def __init__(self, memory: QueryMemory, following: Stage) -> None:
        self._memory, self._following = memory, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        if call.input_type == "document":
            return await self._following.embed(call, texts)
        known = ((text, self._memory.recall(text, call.rank)) for text in texts)
        recalled = Embedded({text: found for text, found in known if found is not None})
        if missing := without(texts, recalled.found):
            embedded = await self._following.embed(call, missing)
            for text, found in embedded.found.items():
                self._memory.keep(text, found)
            recalled.add(embedded)
        return recalled
