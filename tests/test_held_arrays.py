"""Arrays, lists and mappings that somebody still holds, and texts that are not plain strings."""

from __future__ import annotations

import asyncio
import enum
import pickle
import threading
from collections import UserString
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from markupsafe import Markup

from embedrouter import Model, Router
from embedrouter.cache import VectorCache
from embedrouter.errors import InvalidInputError
from embedrouter.models import Backend
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, Entry, InputType, TokenCounts
from tests.either import embed
from tests.emulator import Emulator

ONCE = {"cache": None, "retry": NO_WAITING, "micro_batch_window": 0}


def right(text: str) -> list[float]:
    return [float(len(text)), float(sum(map(ord, text)) % 1000 + 1)]


# Buffers


class Buffered(Embeddings):
    """Uses one array for all its answers."""

    def __init__(self) -> None:
        self.buffer = np.zeros((64, 2), np.float32)

    def embed_documents(self, texts: list[str]) -> Any:
        self.buffer[:] = -1
        self.buffer[: len(texts)] = [right(text) for text in texts]
        return self.buffer[: len(texts)]

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])[0]


class BufferedAsync(Buffered):
    """Has an asynchronous form of its own."""

    async def aembed_documents(self, texts: list[str]) -> Any:
        await asyncio.sleep(0)
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> Any:
        return (await self.aembed_documents([text]))[0]


class Row(list[float]):
    """A list that is filled again and again."""


class ListBuffered(Embeddings):
    """Uses one list for all its answers."""

    def __init__(self) -> None:
        self.row = Row([0.0, 0.0])

    def embed_documents(self, texts: list[str]) -> Any:
        return [right(text) for text in texts]

    def embed_query(self, text: str) -> Any:
        self.row[:] = right(text)
        return self.row


class BufferedBackend(Backend):
    """A backend whose threads each use one array for all their answers, and one list for all their counts."""

    def __init__(self) -> None:
        self.own = threading.local()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if not hasattr(self.own, "buffer"):
            self.own.buffer = np.zeros((64, 2), np.float32)
        self.own.buffer[:] = -1
        self.own.buffer[: len(texts)] = [right(text) for text in texts]
        return Answer(self.own.buffer[: len(texts)], None)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        if not hasattr(self.own, "counts"):
            self.own.counts = []
        self.own.counts[:] = [len(text) for text in texts]
        if isinstance(texts, list):
            texts.clear()  # its argument is its own
        return TokenCounts(self.own.counts, exact=True)


def function(buffer: Buffered) -> Any:
    return lambda texts: buffer.embed_documents(texts)


EMBEDDERS = {
    "an array": lambda: Model.wrap(Buffered(), space="house", dimensions=2),
    "an array, asynchronously": lambda: Model.wrap(BufferedAsync(), space="house", dimensions=2),
    "a list": lambda: Model.wrap(ListBuffered(), space="house", dimensions=2),
    "a function's array": lambda: Model.wrap(function(Buffered()), space="house", dimensions=2),
    "a backend's array": lambda: Model("own:backend", space="house", dimensions=2, backend=BufferedBackend()),
}


@pytest.mark.parametrize("input_type", ["document", pytest.param("query", marks=pytest.mark.slow)])
@pytest.mark.parametrize("holder", EMBEDDERS)
def test_a_buffer_that_is_used_again_changes_no_answer(holder: str, input_type: InputType, asynchronous: bool) -> None:
    """From many threads, or many tasks, each gets the vectors of its texts."""
    router = Router([EMBEDDERS[holder]()], **ONCE)  # type: ignore[arg-type]
    questions = [[f"text {number} {'x' * (number % 9)}", f"other {number}"] for number in range(200)]

    if asynchronous:

        async def ask() -> list[Any]:
            async with router:
                return await asyncio.gather(*[router.aembed(texts, input_type=input_type) for texts in questions])

        results = asyncio.run(ask())
    else:
        with ThreadPoolExecutor(16) as threads:
            results = list(threads.map(lambda texts: router.embed(texts, input_type=input_type), questions))

    wrong = [
        texts
        for texts, result in zip(questions, results, strict=True)
        if result.vectors.tolist() != [right(text) for text in texts]
    ]
    assert not wrong


@pytest.mark.parametrize("holder", EMBEDDERS)
def test_a_returned_array_is_the_callers_own(holder: str, asynchronous: bool) -> None:
    """Scaled in place by one caller, it changes neither the cache nor what others get."""
    router = Router([EMBEDDERS[holder]()], cache=MemoryCache(), retry=NO_WAITING)
    for _ in range(3):
        for input_type in ("document", "query"):
            found = embed(router, asynchronous, ["text", "text"], input_type=input_type).vectors
            assert found.tolist() == [right("text")] * 2
            found *= 0


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("form", [np.asmatrix, np.ma.masked_less, np.asfortranarray])
def test_arrays_of_a_special_kind_are_plain_ones(form: Any, asynchronous: bool) -> None:
    """A mask hides numbers, and a matrix has rows of two dimensions."""

    class Special(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            rows = np.array([right(text) for text in texts], np.float32)
            return Answer(form(rows, 0) if form is np.ma.masked_less else form(rows), 1)

    router = Router([Special(dimensions=2).model()], cache=MemoryCache(), retry=NO_WAITING)
    for _ in range(2):
        found = embed(router, asynchronous, ["a text", "b"], input_type="document").vectors
        assert found.tolist() == [right("a text"), right("b")]


class SharedBuffer(MemoryCache):
    """A store that reads every row into one buffer."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form, self.last = form, bytearray()

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        self.last[:] = bytes(len(self.last))
        found = super().get_many(keys)
        for key, value in found.items():
            self.last = bytearray(value)
            return {key: self.form(self.last)}
        return {}


@pytest.mark.parametrize("form", [bytearray, memoryview, lambda held: held])
def test_a_store_may_use_its_buffer_again(form: Any) -> None:
    """What was read stays what it was."""
    store = SharedBuffer(form)
    VectorCache(store).write({b"a": Entry(np.ones(2, np.float32), 1), b"b": Entry(np.full(2, 2, np.float32), 1)})
    first = VectorCache(store).read([b"a"], 2)
    VectorCache(store).read([b"b"], 2)

    assert first[b"a"].vector.tolist() == [1, 1]


def test_settings_that_their_user_changes_stay_what_the_router_was_built_with(
    emulator: Emulator, asynchronous: bool
) -> None:
    """The keys of the cache were made of them."""
    body: dict[str, Any] = {"extra": {"task": "a"}}
    prompts = {"query": "ask: "}
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", extra_body=body)
    router = Router([model], cache=MemoryCache(), retry=NO_WAITING)
    before = router.space
    body["extra"]["task"] = "b"
    body["user"] = "c"
    assert model.extra_body == {"extra": {"task": "a"}}
    assert Router([model], cache=None).space == before
    local = Model("own:prompted", space="own", dimensions=2, backend=FakeBackend(dimensions=2), prompts=prompts)
    prompts["query"] = "find: "
    assert local.prompts == {"query": "ask: "}
    assert pickle.loads(pickle.dumps(local.prompts)) == local.prompts


# Texts that are not plain


class Loud(str):
    """Does everything in its own way."""

    __slots__ = ()

    def __str__(self) -> str:
        return "loud"

    def __format__(self, spec: str) -> str:
        return "loud"

    def __radd__(self, other: str) -> str:
        return "loud"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loud)

    def __hash__(self) -> int:
        return 7

    def __len__(self) -> int:
        return 0

    def encode(self, *settings: Any) -> bytes:
        return b"loud"

    def isascii(self) -> bool:
        raise AssertionError


class Title(str, enum.Enum):  # noqa: UP042 - a StrEnum formats itself as its value
    """Its members' ``str`` is their name in some versions of Python, and their value in others."""

    ISLAND = "a ferry < an island"


TEXT = "a ferry < an island"
KINDS: dict[str, str] = {
    "markup": Markup(TEXT),
    "a member of an enum": Title.ISLAND,
    "numpy's": np.array([TEXT])[0],
    "with methods of its own": Loud(TEXT),
}


class Joining(FakeBackend):
    """Puts a prompt before each text, as local models do."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return super().embed(["<b> " + text for text in texts], input_type, timeout=timeout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_embedded_as_its_characters(kind: str, asynchronous: bool) -> None:
    """Whatever its class makes of them when it is joined, compared or encoded; and cached under these."""
    backend, cache = Joining(), MemoryCache()
    router = Router([backend.model()], cache=cache, retry=NO_WAITING)
    special = embed(router, asynchronous, [KINDS[kind], "another", KINDS[kind]], input_type="document")
    plain = embed(router, asynchronous, [TEXT], input_type="document")

    assert backend.calls[0].texts == ("<b> " + TEXT, "<b> another")
    assert {type(text) for call in backend.calls for text in call.texts} == {str}
    assert plain.cached == (True,)
    assert plain.vectors.tolist() == special.vectors[:1].tolist() == special.vectors[2:].tolist()
    assert router.estimate([KINDS[kind]], input_type="document").cached == 1


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_every_entrance_are_plain(kind: str) -> None:
    """Iterated, synchronously and asynchronously, too."""
    backend = Joining()
    router = Router([backend.model()], cache=None, retry=NO_WAITING)
    list(router.embed_iter([KINDS[kind]], input_type="document"))

    async def iterate() -> None:
        async def texts() -> AsyncIterator[str]:
            yield KINDS[kind]

        async for _ in router.aembed_iter(texts(), input_type="query"):
            pass

    asyncio.run(iterate())
    assert [call.texts for call in backend.calls] == [("<b> " + TEXT,)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_names_are_plain(kind: str) -> None:
    """Markup as a prompt would escape each text that it is joined with."""
    special = KINDS[kind]
    model = Model("own:model", space=special, prompts={"query": special}, served_as=[special], backend=FakeBackend())
    found = [model.space, *(model.prompts or {}).values(), *model.served_as]

    assert {type(item) for item in found} == {str}
    assert found == [TEXT] * 3


class Kind(str, enum.Enum):  # noqa: UP042 - as above
    QUERY = "query"


@pytest.mark.parametrize("query", [Kind.QUERY, Markup("query"), np.str_("query")])
def test_an_input_type_may_be_an_enums(query: Any, asynchronous: bool) -> None:
    """The key is of its value."""
    backend, cache = FakeBackend(), MemoryCache()
    router = Router([backend.model()], cache=cache, cache_memory=0, retry=NO_WAITING)
    embed(router, asynchronous, ["text"], input_type=query)

    assert embed(router, asynchronous, ["text"], input_type="query").cached == (True,)
    assert type(backend.calls[0].input_type) is str


class Pretending:
    """Says that it is a string."""

    __class__ = str  # type: ignore[assignment]


@pytest.mark.parametrize("wrong", [Pretending(), UserString("text"), b"text"], ids=["pretending", "user", "bytes"])
def test_what_only_looks_like_a_text_is_refused(wrong: Any, asynchronous: bool) -> None:
    """By position, before anything is sent."""
    with pytest.raises(InvalidInputError) as caught:
        embed(Router([FakeBackend().model()], cache=None), asynchronous, ["a", wrong], input_type="document")

    assert caught.value.indices == (1,)
