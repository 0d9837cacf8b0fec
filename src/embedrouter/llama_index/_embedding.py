"""A router as LlamaIndex's ``BaseEmbedding``."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode
from pydantic import computed_field, field_serializer

from .._display import explained, get_logger
from ..calls import Embedded, Progress, one_text, run, surrounded
from ..errors import ConfigError, SpaceMismatchError
from ..models import first_given
from ..retrieval.given_router import ROUTER_SETTINGS, GivenRouter, as_router
from ..retrieval.index_guard import OF_THE_ROUTER, GuardedRouter, ShownIsHeld
from ..retrieval.stored_router import described
from ..router import Router, wiring_of
from ..types import InputType
from ._batches import Turns, checked, require_text, with_text
from ._events import Vectors, noted, observed

logger = get_logger("embedrouter.llama_index")

TITLE = "Generating embeddings"
"""Of LlamaIndex's bars."""

CALL = "RouterEmbedding('openai:text-embedding-3-small')"


@explained(CALL, model=CALL, model_name=CALL)
class RouterEmbedding(ShownIsHeld, BaseEmbedding):
    """Embed through a router, wherever LlamaIndex takes ``BaseEmbedding``.

    The framework hands over up to 2,048 texts at once, and the router makes requests of the provider's size. A field
    that is set later, also by ``model_copy(update=…)``, is checked as at the beginning; one that follows from the
    router cannot be set.

    ``to_dict`` and ``model_dump`` hold the router as a configuration file does, and ``from_dict`` and
    ``model_validate`` build it again. No key is in it: ``Model(…, api_key_env=…)`` says where keys are read. A router
    with keys or objects in its settings, such as a function in ``Model.wrap``, can be dumped and not be loaded: hand it
    over with ``from_dict(data, router=router)``.

    A ``rate_limiter`` is asked once for each request that goes out to a provider, and not for texts in the cache. It
    and the callback manager are in no dump; in pickles they are where they can be pickled.

    Args:
        router: the one router in front of the vector store; a ``TieredRouter`` is refused, because an index holds one
            space. Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the vector store. Its space is recorded with the first documents, and from then on a router of
            another space is refused.
        settings: fields of ``BaseEmbedding``, such as ``callback_manager``; ``on_empty``; and arguments of ``Router``,
            such as ``budget``, where the router is built here.

    Raises:
        ConfigError: ``settings`` has a field that follows from the router, such as ``space``, or ``router`` is none of
            the above; the message has the line to write.
        SpaceMismatchError: the index is recorded in another space.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts handed to the router at once.")
    space: str = Field(default="", description="The embedding space of every vector.")
    query_tier: str | None = Field(default=None, description="The tier of queries, over the router's.")
    document_tier: str | None = Field(default=None, description="The tier of documents, over the router's.")
    index: str | None = Field(default=None, description="The name of the vector store that is held to the space.")
    on_empty: Literal["error", "skip"] = Field(
        default="error",
        description="The treatment of nodes without text in a pipeline: refused, or left without an embedding.",
    )

    _guarded: GuardedRouter = PrivateAttr()

    def __init__(
        self,
        router: GivenRouter,
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(router, Mapping):  # model_validate
            settings = _arguments({"router": router, **settings})
            router = settings.pop("router")
        fields = type(self).model_fields
        of_router = {name: settings.pop(name) for name in ROUTER_SETTINGS & settings.keys() - fields.keys()}
        guarded = GuardedRouter(as_router(router, of_router), index)
        guarded.require_tiers(query_tier, document_tier)
        if given := OF_THE_ROUTER.intersection(settings):
            raise ConfigError(f"{min(given)} follows from the router. Leave it out.")
        shown = {"model_name": ", ".join(guarded.router.models), "space": str(guarded.router.space)}
        own = {"query_tier": query_tier, "document_tier": document_tier, "index": index}
        super().__init__(**{**shown, **own, **settings})
        self._guarded = guarded

    @field_validator("embeddings_cache")
    @classmethod
    def _no_second_cache(cls, cache: object) -> None:
        if cache is not None:
            raise ConfigError(
                "embeddings_cache mixes queries with documents, because its key is the bare text. The router has a "
                "cache of its own: Router(…, cache=…)."
            )

    @classmethod
    def class_name(cls) -> str:
        return "RouterEmbedding"

    @classmethod
    def from_config(cls, path: str | Path | None = None, **settings: Any) -> Self:
        """Build the router from a TOML file; see ``Router.from_config``. ``settings`` are the other arguments."""
        return cls(router=Router.from_config(path), **settings)

    @computed_field(description="The router's configuration.", repr=False)  # type: ignore[prop-decorator]
    @property
    def router(self) -> Router:
        """The one router in front of the vector store."""
        return self._guarded.router

    @computed_field(description="A hash of everything that decides a vector, for the keys of caches.")  # type: ignore[prop-decorator]
    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides a vector: the key of ``IngestionCache`` is made of ``to_dict()``.

        It changes with the models, their prompts, dimensions and tiers, with ``on_too_long`` and ``cache_dtype``, and
        not with keys, addresses and folders.
        """
        return self._guarded.fingerprint(self.query_tier, self.document_tier)

    # Data: what a configuration file holds

    @field_serializer("router")
    def _described(self, router: Router) -> dict[str, Any]:
        return described(router, strict=True)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields and the router's configuration, of which ``from_dict`` builds the embedder again.

        As text, of which ``IngestionCache`` makes its keys, the configuration is not shown: ``fingerprint`` says what
        decides a vector, and an address or a folder does not.
        """
        data = super().to_dict(**kwargs)
        return data | {"router": Configuration(data["router"])} if "router" in data else data

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build an embedder from what ``to_dict`` returned. ``kwargs`` are other arguments, such as ``router``.

        Raises:
            ConfigError: keys or objects are missing; the message names them.
            SpaceMismatchError: the router gives vectors of another space than the embedder that was dumped.
        """
        return cls(**_arguments({**data, **kwargs}))

    # Copies

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with fields set and checked as if they were set one after the other."""
        other = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(other, name, value)
        return other

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False, **_: Any) -> Self:
        """Do what ``model_copy`` does; pydantic has both."""
        return self.model_copy(update=update, deep=deep)

    def with_tier(self, tier: str, *, documents: str | None = None) -> Self:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        self._guarded.require_tiers(tier, documents)
        return self.model_copy(update={"query_tier": tier, "document_tier": first_given(documents, self.document_tier)})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        limiter = getattr(self, "rate_limiter", None)
        memo[id(limiter)] = limiter  # the copy's requests go to the same provider
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[str, Any]:
        kept = BaseEmbedding.__getstate__(copy.copy(self))["__dict__"]  # which loses what cannot be pickled
        state = BaseModel.__getstate__(self)
        own = dict(state["__dict__"])
        for name, empty in (("callback_manager", CallbackManager([])), ("rate_limiter", None)):
            if name in own and name not in kept:
                logger.warning(
                    "The %s of a RouterEmbedding cannot be pickled, and the copy has none. Set it there%s.",
                    name,
                    ", or limit the rate with Model(…, requests_per_minute=…)" if empty is None else "",
                )
                own[name] = empty
        return {**state, "__dict__": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        BaseModel.__setstate__(self, state)

    # What LlamaIndex calls: its own forms ask the rate limiter for each batch, and count positions from its beginning

    def to_payload(self) -> dict[str, Any]:
        """Return what events say of the embedder."""
        names = ("model_name", "embed_batch_size", "space", "query_tier", "document_tier")
        return {"class_name": self.class_name(), **{name: getattr(self, name) for name in names}}

    def get_query_embedding(self, query: str) -> list[float]:
        """Return the vector of a query."""
        return run(self._one(query, "query", _done(self._get_query_embedding)))

    async def aget_query_embedding(self, query: str) -> list[float]:
        """Do what ``get_query_embedding`` does without blocking the event loop."""
        return await self._one(query, "query", self._aget_query_embedding)

    def get_text_embedding(self, text: str) -> list[float]:
        """Return the vector of a document."""
        return run(self._one(text, "document", _done(self._get_text_embedding)))

    async def aget_text_embedding(self, text: str) -> list[float]:
        """Do what ``get_text_embedding`` does without blocking the event loop."""
        return await self._one(text, "document", self._aget_text_embedding)

    async def _one(
        self, text: str, input_type: InputType, embed: Callable[[str], Awaitable[list[float]]]
    ) -> list[float]:
        require_text(text)

        async def embed_it(texts: list[str]) -> Vectors:
            return [await embed(texts[0])]

        return (await self._observed([text], input_type, embed_it))[0]

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Vectors:
        """Return the vectors of documents, in batches of ``embed_batch_size``.

        Args:
            texts: validated all together before the first is sent.
            show_progress: whether a bar shows how many texts have a vector.
            kwargs: ignored, as in ``BaseEmbedding``.

        Raises:
            InvalidInputError: some texts cannot be embedded; ``indices`` are positions in ``texts``.
        """
        items = checked(texts)
        with Progress(show_progress, len(items), TITLE) as bar:
            report = bar.begin(items)
            batches = [run(self._batch(*part, bar, report, blocking=True)) for part in self._batches(items)]
        return [vector for batch in batches for vector in batch]

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Vectors:
        """Do what ``get_text_embedding_batch`` does without blocking the event loop, ``num_workers`` at a time."""
        items = checked(texts)
        turns = asyncio.Semaphore(self.num_workers) if self.num_workers and self.num_workers > 1 else nullcontext()

        async def embed(first: int, batch: list[str]) -> Vectors:
            async with turns:
                return await self._batch(first, batch, bar, report, blocking=False)

        async with Progress(show_progress, len(items), TITLE) as bar:
            report = bar.begin(items)
            tasks = [asyncio.ensure_future(embed(*part)) for part in self._batches(items)]
            try:
                parts = await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise
        return [vector for part in parts for vector in part]

    def _batches(self, texts: list[str]) -> list[tuple[int, list[str]]]:
        size = self.embed_batch_size
        return [(first, texts[first : first + size]) for first in range(0, len(texts), size)]

    async def _batch(
        self, first: int, texts: list[str], bar: Progress, report: Callable[[Embedded], None], *, blocking: bool
    ) -> Vectors:
        embed = _done(self._get_text_embeddings) if blocking else self._aget_text_embeddings
        with surrounded(first=first, report=report):
            vectors = await self._observed(texts, "document", embed)
        bar.fill(texts)
        return vectors

    async def _observed(
        self, texts: list[str], input_type: InputType, embed: Callable[[list[str]], Awaitable[Vectors]]
    ) -> Vectors:
        """Embed between the events of LlamaIndex's callbacks and instrumentation."""
        own = self.query_tier if input_type == "query" else self.document_tier
        first = self._guarded.first_model(input_type, own)
        payload = {**self.to_payload(), "model_name": first.partition(":")[2]}
        return await observed(texts, embed, payload, self.callback_manager, self._tier_of)

    def _tier_of(self, model: str) -> str:
        return next(item.tier for item in wiring_of(self.router).candidates if item.name == model)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of each node, as a step of a pipeline; ``on_empty`` says what of nodes without text."""
        texts = with_text(nodes, self.on_empty)
        return _filled(nodes, texts, self.get_text_embedding_batch(list(texts.values()), **kwargs))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Do what ``__call__`` does without blocking the event loop."""
        texts = with_text(nodes, self.on_empty)
        return _filled(nodes, texts, await self.aget_text_embedding_batch(list(texts.values()), **kwargs))

    # What subclasses of BaseEmbedding implement

    def _get_query_embedding(self, query: str) -> list[float]:
        with surrounded(limiter=self._limiter):
            return noted(self._guarded.result([query], "query", self.query_tier)).to_list()[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        with surrounded(limiter=self._limiter):
            return noted(await self._guarded.aresult([query], "query", self.query_tier)).to_list()[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([one_text(text)])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> Vectors:
        with surrounded(limiter=self._limiter):
            return noted(self._guarded.result(texts, "document", self.document_tier)).to_list()

    async def _aget_text_embeddings(self, texts: list[str]) -> Vectors:
        with surrounded(limiter=self._limiter):
            return noted(await self._guarded.aresult(texts, "document", self.document_tier)).to_list()

    @property
    def _limiter(self) -> Turns | None:
        limiter = getattr(self, "rate_limiter", None)  # a field from LlamaIndex 0.14.16 on
        return None if limiter is None else Turns(limiter)


class Configuration(dict[str, Any]):
    """The configuration of a router, which is no part of the text of what holds it."""

    def __repr__(self) -> str:
        return "Configuration(…)"


def _arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an embedder from its dump."""
    given = {name: value for name, value in data.items() if name not in OF_THE_ROUTER and name != "class_name"}
    if "router" not in data:
        return given
    router = as_router(data["router"], {})
    if (space := data.get("space", str(router.space))) != str(router.space):
        raise SpaceMismatchError(
            f"The embedder that was dumped is in the space {space}, and this router gives {router.space}: a distance "
            "between the two means nothing. Use the models that it was built with."
        )
    return given | {"router": router}


def _done(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    """Return a blocking function as one that is awaited, and never suspends."""

    async def call(argument: Any) -> Any:
        return function(argument)

    return call


def _filled(nodes: Sequence[BaseNode], texts: Mapping[int, str], vectors: Vectors) -> Sequence[BaseNode]:
    for place, vector in zip(texts, vectors, strict=True):
        nodes[place].embedding = vector
    return nodes
