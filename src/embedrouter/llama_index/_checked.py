"""``BaseEmbedding`` that checks all texts before the framework cuts them into batches.

Nothing is sent of a list with an invalid text, and positions in errors count from the first text of all.
"""

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding

from ..calls import validate


class CheckedEmbedding(BaseEmbedding):
    """Check the texts of a whole call, in both forms."""

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Return one vector per text."""
        return super().get_text_embedding_batch(validate(texts), show_progress=show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Do what ``get_text_embedding_batch`` does without blocking the event loop."""
        return await super().aget_text_embedding_batch(validate(texts), show_progress=show_progress, **kwargs)
