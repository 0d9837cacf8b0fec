"""Fill the indices of all tiers alike: nodes, documents that are split once, and folders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from llama_index.core import Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, Document, MetadataMode, TransformComponent
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from .._process import in_thread
from ..calls import run
from ..errors import ConfigError
from ..retrieval.tiered_stores import TieredStores, overrides
from ..stores import guard
from ..tiered import TieredRouter
from ._batches import with_text
from ._embedding import RouterEmbedding


class LlamaIndexStores(TieredStores[VectorStoreIndex]):
    """The indices of a retriever."""

    noun = "index"
    adapter = RouterEmbedding
    example = "embed_model=RouterEmbedding(router={router})"

    @staticmethod
    def embedder(index: VectorStoreIndex) -> object:
        """Return what embeds for an index. LlamaIndex has no public name for it, so it is known by its class."""
        return next((value for value in vars(index).values() if isinstance(value, BaseEmbedding)), None)

    def own_embedder(self, name: str) -> RouterEmbedding:
        """Return what embeds for the index of a tier."""
        embedder: RouterEmbedding = self._embedder(name)
        return embedder


class TieredIndices:
    """The part of ``TieredRetriever`` that fills, changes, saves and loads the indices of all tiers.

    Methods have the names of ``VectorStoreIndex``. Where an index fails, those of lower tiers are not changed yet:
    repeat the call; vectors already paid for are in the cache.
    """

    transformations: Sequence[TransformComponent] | None
    """What splits documents; ``Settings.transformations`` where left out."""

    @property
    @abstractmethod
    def _tiered(self) -> LlamaIndexStores: ...

    # Nodes

    def insert_nodes(self, nodes: Sequence[BaseNode], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Insert nodes into every index under their own ids.

        Args:
            nodes: what to insert; nodes without text follow the embedders' ``on_empty``.
            tiers: the indices to fill; all when left out. Nodes that are in one index only are found at its tier only.
            kwargs: further arguments of the vector stores' ``add``.

        Raises:
            InvalidInputError: some nodes have no text; the message has their ids.
        """
        run(self._insert_nodes(nodes, tiers, kwargs, blocking=True))

    async def ainsert_nodes(
        self, nodes: Sequence[BaseNode], *, tiers: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Do what ``insert_nodes`` does without blocking the event loop."""
        await self._insert_nodes(nodes, tiers, kwargs, blocking=False)

    async def _insert_nodes(
        self, nodes: Sequence[BaseNode], tiers: Sequence[str] | None, kwargs: Mapping[str, Any], *, blocking: bool
    ) -> None:
        names = self._tiered.fill_order(tiers)
        filled = {name: with_text(nodes, self._tiered.own_embedder(name).on_empty) for name in names}
        for name in names:
            with self._tiered.embedding(name) as index:
                methods = index.insert_nodes, index.ainsert_nodes
                copies = _copies([nodes[place] for place in filled[name]])
                await act(index, "async_add", *methods, copies, blocking=blocking, **kwargs)

    def delete_nodes(self, node_ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Remove nodes from every index, or from those of ``tiers``."""
        run(self._delete_nodes(node_ids, tiers, kwargs, blocking=True))

    async def adelete_nodes(
        self, node_ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Do what ``delete_nodes`` does without blocking the event loop."""
        await self._delete_nodes(node_ids, tiers, kwargs, blocking=False)

    async def _delete_nodes(
        self, node_ids: Sequence[str], tiers: Sequence[str] | None, kwargs: Mapping[str, Any], *, blocking: bool
    ) -> None:
        for name in self._tiered.fill_order(tiers):
            index, ids = self._tiered.store(name), list(node_ids)
            await act(index, "adelete_nodes", index.delete_nodes, index.adelete_nodes, ids, blocking=blocking, **kwargs)

    # Documents, by their ids

    def insert(self, document: Document, *, tiers: Sequence[str] | None = None) -> None:
        """Split a document, once, and insert the parts into every index, in place of those of a document with its id.

        Parts without text are left out.
        """
        self.update_ref_doc(document, tiers=tiers)

    async def ainsert(self, document: Document, *, tiers: Sequence[str] | None = None) -> None:
        """Do what ``insert`` does without blocking the event loop."""
        await self.aupdate_ref_doc(document, tiers=tiers)

    def update_ref_doc(self, document: Document, *, tiers: Sequence[str] | None = None) -> None:
        """Replace the parts of the document with this id in every index."""
        run(self._replace([document], self._tiered.fill_order(tiers), blocking=True))

    async def aupdate_ref_doc(self, document: Document, *, tiers: Sequence[str] | None = None) -> None:
        """Do what ``update_ref_doc`` does without blocking the event loop."""
        await self._replace([document], self._tiered.fill_order(tiers), blocking=False)

    def refresh_ref_docs(self, documents: Sequence[Document], *, tiers: Sequence[str] | None = None) -> list[bool]:
        """Insert the documents that are new, and replace those that have changed, in every index.

        Returns:
            For each document, whether an index had to be changed.
        """
        return run(self._refresh(documents, tiers, blocking=True))

    async def arefresh_ref_docs(
        self, documents: Sequence[Document], *, tiers: Sequence[str] | None = None
    ) -> list[bool]:
        """Do what ``refresh_ref_docs`` does without blocking the event loop."""
        return await self._refresh(documents, tiers, blocking=False)

    async def _refresh(
        self, documents: Sequence[Document], tiers: Sequence[str] | None, *, blocking: bool
    ) -> list[bool]:
        names = self._tiered.fill_order(tiers)
        changed = []
        for document in documents:
            known = [await self._hash(name, document, blocking=blocking) for name in names]
            changed.append(any(found != document.hash for found in known))
        outdated = [document for document, new in zip(documents, changed, strict=True) if new]
        await self._replace(outdated, names, blocking=blocking)
        return changed

    async def _hash(self, name: str, document: Document, *, blocking: bool) -> str | None:
        docstore, id_ = self._tiered.store(name).docstore, document.id_
        return docstore.get_document_hash(id_) if blocking else await docstore.aget_document_hash(id_)

    async def _replace(self, documents: Sequence[Document], names: Sequence[str], *, blocking: bool) -> None:
        """Embed the parts of documents, remove what was there under the documents' ids, and insert the parts."""
        if not documents:
            return
        steps = Settings.transformations if self.transformations is None else self.transformations
        split = partial(run_transformations, list(documents), list(steps))
        parts = split() if blocking else await in_thread(split)
        nodes = [node for node in parts if node.get_content(MetadataMode.EMBED)]
        for name in names:
            with self._tiered.embedding(name) as index:
                embedder, copies = self._tiered.own_embedder(name), _copies(nodes)
                embedded = embedder(copies) if blocking else await embedder.acall(copies)
                for document in documents:
                    if await self._hash(name, document, blocking=blocking) is not None:
                        await _remove(index, document.id_, {}, blocking=blocking)
                await act(index, "async_add", index.insert_nodes, index.ainsert_nodes, embedded, blocking=blocking)
                hashes = {document.id_: document.hash for document in documents}
                if blocking:
                    index.docstore.set_document_hashes(hashes)
                else:
                    await index.docstore.aset_document_hashes(hashes)

    def delete_ref_doc(self, ref_doc_id: str, *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Remove the parts of a document, and the document's entry, from every index.

        Args:
            ref_doc_id: the document's id.
            tiers: the indices to change; all when left out.
            kwargs: further arguments of the vector stores' ``delete``.
        """
        for name in self._tiered.fill_order(tiers):
            run(_remove(self._tiered.store(name), ref_doc_id, kwargs, blocking=True))

    async def adelete_ref_doc(self, ref_doc_id: str, *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Do what ``delete_ref_doc`` does without blocking the event loop."""
        for name in self._tiered.fill_order(tiers):
            await _remove(self._tiered.store(name), ref_doc_id, kwargs, blocking=False)

    # Folders

    def persist(self, persist_dir: str | Path) -> None:
        """Save every index, in a folder of its tier's name, which is marked with the tier's space.

        What a vector store keeps elsewhere, such as in a database, stays there: give it again when loading.

        Raises:
            SpaceMismatchError: a folder holds an index of another space; nothing was saved.
        """
        places = _folders(persist_dir, self._tiered.router)
        for asked, folder in places.items():
            guard(folder, self._tiered.router.router(asked))
        for asked, folder in places.items():
            index = self._tiered.store(self._tiered.name(asked))
            index.storage_context.persist(persist_dir=str(folder))

    async def apersist(self, persist_dir: str | Path) -> None:
        """Do what ``persist`` does without blocking the event loop."""
        await in_thread(self.persist, persist_dir)

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | Path,
        router: TieredRouter,
        *,
        vector_stores: Mapping[str, BasePydanticVectorStore] | None = None,
        **settings: Any,
    ) -> Self:
        """Load what ``persist`` saved.

        Args:
            persist_dir: the folder that was given to ``persist``.
            router: the routers, by tier.
            vector_stores: the vector store of each tier whose vectors are kept elsewhere.
            settings: the retriever's other arguments.

        Raises:
            SpaceMismatchError: a tier's folder was filled in another space than that of its router.
            ConfigError: a tier has no folder.
        """
        places = _folders(persist_dir, router)
        for asked, folder in places.items():
            if not folder.is_dir():
                raise ConfigError(f"There is no {str(folder)!r} for the tier {asked!r}. Save with persist(…) first.")
            guard(folder, router.router(asked))
        indices: dict[str, Any] = {}
        for asked, folder in places.items():
            store = (vector_stores or {}).get(asked)
            context = StorageContext.from_defaults(persist_dir=str(folder), vector_store=store)
            indices[asked] = load_index_from_storage(context, embed_model=RouterEmbedding(router.router(asked)))
        return cls(indices, router=router, **settings)  # type: ignore[call-arg]

    @classmethod
    async def afrom_persist_dir(cls, persist_dir: str | Path, router: TieredRouter, **settings: Any) -> Self:
        """Do what ``from_persist_dir`` does without blocking the event loop."""
        return await in_thread(cls.from_persist_dir, persist_dir, router, **settings)


def _folders(persist_dir: str | Path, router: TieredRouter) -> dict[str, Path]:
    """Return the folder of each tier that has a router of its own."""
    return {asked: Path(persist_dir).expanduser() / quote(asked, safe="") for asked in router.own_tiers}


async def act(
    index: VectorStoreIndex,
    needed: str,
    function: Callable[..., Any],
    afunction: Callable[..., Any],
    *arguments: Any,
    blocking: bool,
    **settings: Any,
) -> Any:
    """Call a method, or its asynchronous form; the method in a thread where the vector store lacks ``needed``."""
    if blocking:
        return function(*arguments, **settings)
    if overrides(index.vector_store, BasePydanticVectorStore, needed):
        return await afunction(*arguments, **settings)
    return await in_thread(function, *arguments, **settings)


async def _remove(index: VectorStoreIndex, ref_doc_id: str, kwargs: Mapping[str, Any], *, blocking: bool) -> None:
    """Remove a document, with the entry by which ``refresh_ref_docs`` knows it."""
    settings = {"delete_from_docstore": True, **kwargs}
    methods = index.delete_ref_doc, index.adelete_ref_doc
    await act(index, "adelete", *methods, ref_doc_id, blocking=blocking, **settings)
    if blocking:
        index.docstore.delete_document(ref_doc_id, raise_error=False)
    else:
        await index.docstore.adelete_document(ref_doc_id, raise_error=False)


def _copies(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """Return copies without an embedding, which would otherwise go into indices of other spaces."""
    return [node.model_copy(update={"embedding": None, "metadata": dict(node.metadata)}) for node in nodes]
