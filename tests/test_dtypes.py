"""``output_dtype``: integers and packed bits from the provider to the cache, the adapters and the stores, in a space of
their own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedrouter import Model, RetryPolicy, Router, Space
from embedrouter.backends import Backend
from embedrouter.cache import CacheDatabase, ForeignRows
from embedrouter.cache._codec import decode, decode_any, encode
from embedrouter.doctor import ProbeRecords, check_models
from embedrouter.errors import BackendError, BadResponseError, ConfigError, NoModelAvailableError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.models import load_catalogue
from embedrouter.models.agreement import comparable, highest_cosine_between_texts, lowest_cosine
from embedrouter.retrieval.calibration import nearest_documents
from embedrouter.types import Answer, Entry, InputType, OutputDtype
from tests.either import embed
from tests.emulator import Emulator, Fault, vector
from tests.emulator.encodings import quantise
from tests.raw_server import RawServer, Reply
from tests.test_doctor import TODAY

DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)
NUMBERS = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
PROVIDERS = {"voyage": "voyage:voyage-4-lite", "cohere": "cohere:embed-v4.0"}
SERVERS = {"mistral": "mistral:codestral-embed", "jina": "jina:jina-embeddings-v3"}
WORDS: dict[str, dict[str, str | None]] = {
    "mistral": {"document": None, "query": None},
    "jina": {"document": "retrieval.passage", "query": "retrieval.query"},
}
"""What these two servers are told of the input type."""
ONCE = RetryPolicy(attempts=1)
TEXTS = ["When does the ferry leave?", "Where can bicycles be parked?", "雨が降る"]

NOT_OFFERED = {("jina", "int8"), ("jina", "uint8")}

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_offer = pytest.mark.parametrize(
    ("provider", "dtype"),
    [
        (provider, dtype)
        for provider in (*PROVIDERS, *SERVERS)
        for dtype in DTYPES
        if (provider, dtype) not in NOT_OFFERED
    ],
)
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(autouse=True)
def _no_request_breaks_a_rule(emulator: Emulator) -> Iterator[None]:
    yield
    assert emulator.refused == ()


def declared(emulator: Emulator, provider: str, dtype: OutputDtype | None, **settings: Any) -> Model:
    url = emulator.url_of(provider) if provider in SERVERS else getattr(emulator, f"{provider}_url")
    return Model(
        (PROVIDERS | SERVERS)[provider], **{"base_url": url, "api_key": "k", "output_dtype": dtype, **settings}
    )


def expected(provider: str, dtype: str, text: str, input_type: str, dimensions: int | None = None) -> Any:
    name = (PROVIDERS | SERVERS)[provider].partition(":")[2]
    told = WORDS[provider][input_type] if provider in WORDS else input_type
    return quantise(vector(name, dimensions, told, text), dtype)


# From the provider to the user


@each_offer
def test_the_providers_numbers_arrive_bit_for_bit(
    emulator: Emulator, asynchronous: bool, provider: str, dtype: OutputDtype
) -> None:
    """In the type of the numbers, and in a space whose dimensions are those that a store has to declare."""
    with Router([declared(emulator, provider, dtype, dimensions=512)], cache=None) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")
        query = embed(router, asynchronous, TEXTS[:1], input_type="query").vectors[0]

    assert result.vectors.dtype == NUMBERS[dtype]
    assert result.vectors.shape == (3, 64 if "binary" in dtype else 512)
    for row, text in zip(result.vectors, TEXTS, strict=True):
        assert np.array_equal(row, expected(provider, dtype, text, "document", 512))
    assert np.array_equal(query, expected(provider, dtype, TEXTS[0], "query", 512))
    model = (PROVIDERS | SERVERS)[provider].partition(":")[2]
    assert result.space == router.space == Space(f"{model}+{dtype}", result.vectors.shape[1])
    sent = emulator.received[0]
    assert sent.dimensions == 512
    assert dtype in (sent.fields.get("output_dtype"), sent.fields.get("embedding_type")) or (
        sent.fields["embedding_types"] == [dtype]
    )


@each_dtype
def test_lists_come_from_a_voyage_that_takes_no_base64(
    emulator: Emulator, asynchronous: bool, dtype: OutputDtype
) -> None:
    """As a gateway may refuse base64, and answer with a list of integers."""
    with Router([declared(emulator, "voyage", dtype, encoding_format="omit")], cache=None) as router:
        result = embed(router, asynchronous, TEXTS[:1], input_type="query")

    assert "encoding_format" not in emulator.received[0].fields
    assert np.array_equal(result.vectors[0], expected("voyage", dtype, TEXTS[0], "query"))


@each_dtype
def test_voyages_own_sdk_reads_the_same_numbers(emulator: Emulator, dtype: OutputDtype) -> None:
    """Its base64 decoder is another program than ours."""
    import voyageai

    sdk: Any = voyageai
    theirs = sdk.Client(api_key="k", base_url=emulator.voyage_url).embed(
        TEXTS, model="voyage-4-lite", input_type="query", output_dtype=dtype, truncation=False
    )
    with Router([declared(emulator, "voyage", dtype)], cache=None) as router:
        ours = router.embed(TEXTS, input_type="query")

    assert theirs.embeddings == ours.vectors.tolist()


def test_a_router_without_texts_gives_the_type_too(emulator: Emulator) -> None:
    """An empty array that is joined with others must not make floats of them."""
    with Router([declared(emulator, "voyage", "ubinary")], cache=None) as router:
        result = router.embed([], input_type="document")

    assert (result.vectors.dtype, result.vectors.shape) == (np.uint8, (0, 128))


def test_the_adapters_hand_out_integers(emulator: Emulator) -> None:
    """Stores of bytes take Python's integers, and refuse floats."""
    router = Router([declared(emulator, "voyage", "int8")], cache=None)
    chain, index = RouterEmbeddings(router), RouterEmbedding(router=router)
    right = expected("voyage", "int8", TEXTS[0], "query").tolist()

    for found in (chain.embed_query(TEXTS[0]), index.get_query_embedding(TEXTS[0])):
        assert found == right
        assert {type(number) for number in found} == {int}
    (document,) = chain.embed_documents(TEXTS[:1])
    assert {type(number) for number in document} == {int}
    assert index.get_text_embedding_batch(TEXTS[:1]) == [document]
    router.close()


# Spaces


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([("voyage:voyage-4", None), ("voyage:voyage-4", "int8")], "number types"),
        ([("voyage:voyage-4", "int8"), ("voyage:voyage-4", "uint8")], "number types"),
        ([("cohere:embed-v4.0", "binary"), ("cohere:embed-v4.0", "ubinary")], "number types"),
        ([("voyage:voyage-4-large", "int8"), ("voyage:voyage-4-lite", "int8")], "no maker calls the int8 vectors"),
        ([("cohere:embed-v5.0-pro", "ubinary"), ("cohere:embed-v5.0-fast", "ubinary")], "no maker calls the ubinary"),
    ],
)
def test_vectors_of_two_number_types_or_models_are_never_mixed(
    models: list[tuple[str, OutputDtype | None]], reason: str
) -> None:
    """A family's makers call its floats comparable, and say nothing of integers."""
    with pytest.raises(SpaceMismatchError, match=reason):
        Router([Model(name, output_dtype=dtype) for name, dtype in models], cache=None)


def test_two_places_of_one_model_share_the_space(emulator: Emulator) -> None:
    """For failover; and the vectors' agreement can be checked."""
    models = [declared(emulator, "voyage", "ubinary"), declared(emulator, "voyage", "ubinary", api_key="other")]
    with Router(models, cache=None) as router:
        (agreement,) = router.check_agreement()

    assert router.space == Space("voyage-4-lite+ubinary", 128)
    assert agreement.agrees
    assert agreement.cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("voyage:voyage-finance-2", "int8", "does not offer output_dtype='int8'. Leave output_dtype= out"),
        ("mistral:mistral-embed", "int8", "does not offer output_dtype='int8'. Leave output_dtype= out"),
        (
            "jina:jina-embeddings-v3",
            "int8",
            "does not offer output_dtype='int8'. Choose one of binary, ubinary, or leave",
        ),
        ("openai:text-embedding-3-small", "binary", "does not offer output_dtype='binary'. Leave"),
        ("wordllama:l2_supercat_256", "binary", "does not offer"),
        ("sentence-transformers:sentence-transformers/all-MiniLM-L6-v2", "int8", "does not offer"),
    ],
)
def test_models_without_the_numbers_are_refused_by_name(name: str, dtype: OutputDtype, message: str) -> None:
    """Before anything is sent. What sentence-transformers makes of a text as int8 depends on the rest of the batch."""
    with pytest.raises(ConfigError, match=message) as caught:
        Router([Model(name, output_dtype=dtype)], cache=None)

    assert str(caught.value).startswith(name)


def test_a_model_that_has_other_numbers_says_which(tmp_path: Path) -> None:
    """Of those that the maker documents and the server can be asked for."""
    rows = tmp_path / "rows.toml"
    rows.write_text(
        '[[servers]]\nname = "house"\ndtype_field = "kind"\ndtypes = { int8 = "i8", uint8 = "u8", binary = "b" }\n'
        '[[models]]\nmodel = "house:one"\nspace = "one"\ndimensions = 16\ndtypes = ["uint8", "binary", "ubinary"]\n'
    )
    with pytest.raises(ConfigError, match="Choose one of uint8, binary, or leave output_dtype= out"):
        Router([Model("house:one", output_dtype="int8", base_url="http://x")], cache=None, catalog=rows)
    odd = Model("house:two", output_dtype="binary", base_url="http://x", space="two", dimensions=12)
    with pytest.raises(ConfigError, match="multiple of 8"):
        Router([odd], cache=None, catalog=rows)


@pytest.mark.parametrize("dtype", ["float", "int4", ""])
def test_an_unknown_number_type_is_refused(dtype: Any) -> None:
    """``None`` is float32, as elsewhere."""
    with pytest.raises(ConfigError, match="output_dtype must be one of 'int8', 'uint8', 'binary', 'ubinary'"):
        Model("voyage:voyage-4", output_dtype=dtype)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('[[models]]\nmodel = "house:one"\nspace = "one"\ndimensions = 8\ntexts = 1\ndtypes = ["int4"]', "'int4'"),
        ('[[servers]]\nname = "house"\ndtype_field = "x"\ndtypes = { float = "f" }', "'float'"),
        ('[[servers]]\nname = "house"\ndtypes = { int8 = "int8" }', "dtype_field"),
    ],
)
def test_rows_with_wrong_number_types_are_refused(tmp_path: Path, row: str, message: str) -> None:
    """When the file is read, not at the first request."""
    (tmp_path / "rows.toml").write_text(row)

    with pytest.raises(ConfigError, match=message):
        load_catalogue(tmp_path / "rows.toml")


def test_a_mean_of_parts_is_refused_with_the_router(emulator: Emulator) -> None:
    """A mean of integers is none, and bits have no mean at all; a beginning has the model's own vector."""
    model = declared(emulator, "voyage", "int8")
    with pytest.raises(ConfigError, match=r"on_too_long='mean' averages floats.*Choose on_too_long='truncate'"):
        Router([model], cache=None, on_too_long="mean")
    Router([model], cache=None, on_too_long="truncate").close()


def test_a_configuration_file_has_the_setting(tmp_path: Path) -> None:
    """As every argument of ``Model``."""
    (tmp_path / "e.toml").write_text('cache = false\n[[models]]\nmodel = "voyage:voyage-4"\noutput_dtype = "binary"\n')
    with Router.from_config(tmp_path / "e.toml") as router:
        assert router.space == Space("voyage-4+binary", 128)


# The cache


@each_provider
@each_dtype
def test_a_reopened_cache_gives_the_same_bytes(
    emulator: Emulator, asynchronous: bool, tmp_path: Path, provider: str, dtype: OutputDtype
) -> None:
    """One byte for each number, whatever type floats are kept in; and nothing is paid for twice."""
    found = []
    for floats in ("float32", "float16"):
        with Router([declared(emulator, provider, dtype)], cache=tmp_path / "c", cache_dtype=floats) as router:
            found.append(embed(router, asynchronous, TEXTS, input_type="document"))

    assert emulator.calls == 1
    assert found[1].cached == (True, True, True)
    assert found[1].vectors.dtype == NUMBERS[dtype]
    assert found[1].vectors.tobytes() == found[0].vectors.tobytes()
    sizes = {len(row.value) for row in CacheDatabase(tmp_path / "c").rows()}
    assert sizes == {16 + router.space.dimensions}
    assert all(row.sound for row in CacheDatabase(tmp_path / "c").rows())


def test_each_number_type_has_rows_of_its_own(emulator: Emulator, tmp_path: Path) -> None:
    """Also where floats are there already: bits are not made from them, nor from longer vectors."""
    for dtype in (None, *DTYPES):
        for dimensions in (1024, 512):
            model = declared(emulator, "voyage", dtype, dimensions=dimensions)
            with Router([model], cache=tmp_path / "c") as router:
                result = router.embed(TEXTS[:1], input_type="document")
                assert result.cached == ((dtype, dimensions) == (None, 512),)  # floats are cut from 1,024

    assert emulator.calls == 9


def test_queries_are_kept_in_memory_in_their_type(emulator: Emulator, tmp_path: Path) -> None:
    """And a caller who changes what came changes nothing that is kept."""
    with Router([declared(emulator, "cohere", "uint8")], cache=tmp_path / "c") as router:
        first = router.embed(TEXTS[:1], input_type="query").vectors
        right = first.copy()
        first[:] = 0
        second = router.embed(TEXTS[:1], input_type="query").vectors

    assert emulator.calls == 1
    assert second.dtype == np.uint8
    assert np.array_equal(second, right)


INTEGERS = st.one_of(
    arrays(np.int8, st.integers(1, 64)),
    arrays(np.uint8, st.integers(1, 64)),
)


@given(INTEGERS, st.sampled_from(["float32", "float16"]), st.data())
def test_a_row_of_integers_comes_back_or_not_at_all(vector: np.ndarray, floats: str, data: st.DataObject) -> None:
    """One flipped bit, the number type included, and it is a miss."""
    row = bytearray(encode(Entry(vector, 7), floats))
    entry = decode(bytes(row), vector.size)

    assert entry is not None
    assert entry.vector.dtype == vector.dtype
    assert np.array_equal(entry.vector, vector)
    assert entry.tokens == 7
    assert len(row) == 16 + vector.size
    assert not entry.vector.flags.writeable
    row[data.draw(st.integers(0, len(row) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert decode_any(bytes(row)) is None


def test_imported_integers_are_no_floats_of_the_wrong_length() -> None:
    """A folder may hold floats of length 1 and bytes, of as many dimensions: neither is measured by the other."""
    floats = np.eye(16, dtype=np.float32)
    unit = [encode(Entry(row, 1)) for row in floats]
    integers = [encode(Entry(np.full(16, 100 + place, np.uint8), 1)) for place in range(16)]
    mixed = ForeignRows([*unit, *integers])

    assert all(mixed.fits(row) for row in (*unit, *integers))
    assert not mixed.fits(encode(Entry(3 * floats[0], 1)))


# Wrong answers


def voyage_answering(answer: Callable[[Sequence[str]], Sequence[object]], **settings: Any) -> tuple[Model, list[int]]:
    """Return a model of whose server the test says each embedding, and the sizes of the requests so far."""
    sizes: list[int] = []

    def respond(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        sizes.append(len(texts))
        rows = [{"embedding": row, "index": place} for place, row in enumerate(answer(texts))]
        body = {"data": rows, "model": "voyage-4", "usage": {"total_tokens": len(texts)}}
        return httpx.Response(200, text=json.dumps(body))

    transport = httpx.MockTransport(respond)
    clients: dict[str, Any] = {
        "client": httpx.Client(transport=transport),
        "async_client": httpx.AsyncClient(transport=transport),
    }
    return Model("voyage:voyage-4", api_key="k", base_url="http://voyage.test/v1", **clients, **settings), sizes


def as_base64(values: object, number: str) -> str:
    return base64.b64encode(np.array(values, number).tobytes()).decode()


WRONG: list[tuple[str, object, str]] = [
    ("int8", [0.25] * 256, "cannot be read as int8.*leave output_dtype= out"),
    ("int8", as_base64([0.25] * 256, "<f4"), "vectors of 1024 numbers came, not of 256 for 256 dimensions as int8"),
    ("int8", [300] * 256, "cannot be read as int8"),
    ("int8", [-129] + [1] * 255, "cannot be read as int8"),
    ("uint8", [-1] + [1] * 255, "cannot be read as uint8"),
    ("uint8", [1e300] * 256, "cannot be read as uint8"),
    ("int8", [float("nan")] * 256, "cannot be read as int8"),
    ("int8", [[1] * 256], "cannot be read as int8"),
    ("int8", ["1"] * 3 + [None], "cannot be read as int8"),
    ("int8", [1] * 255, "vectors of 255 numbers came, not of 256"),
    ("binary", [1] * 31, "vectors of 31 numbers came, not of 32 for 256 dimensions as binary"),
    ("ubinary", as_base64([1] * 33, "u1"), "vectors of 33 numbers came, not of 32 for 256 dimensions as ubinary"),
    ("ubinary", [1] * 256, "vectors of 256 numbers came, not of 32"),
    ("ubinary", [0.5] * 256, "cannot be read as uint8"),
    ("int8", [0] * 256, "all zeros"),
    ("ubinary", as_base64([0] * 32, "u1"), "all zeros"),
]


@pytest.mark.parametrize(
    ("dtype", "row", "says"), WRONG, ids=[f"{case[0]}-{number}" for number, case in enumerate(WRONG)]
)
def test_an_answer_of_other_numbers_is_refused(asynchronous: bool, dtype: Any, row: object, says: str) -> None:
    """Floats, integers out of range, another length, nothing but zeros: none becomes a vector."""
    model, _ = voyage_answering(lambda texts: [row] * len(texts), output_dtype=dtype, dimensions=256)
    with Router([model], cache=None, retry=ONCE) as router, pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, TEXTS, input_type="document")

    error = caught.value.attempts[-1].error
    assert isinstance(error, BadResponseError)
    with pytest.raises(BadResponseError, match=says):
        raise error


def test_whole_numbers_written_as_floats_are_integers(asynchronous: bool) -> None:
    """Some JSON writers know no other numbers: 12.0."""
    model, _ = voyage_answering(lambda texts: [[12.0, -128.0] * 128], output_dtype="int8", dimensions=256)
    with Router([model], cache=None) as router:
        result = embed(router, asynchronous, TEXTS[:1], input_type="document")

    assert result.vectors.tolist() == [[12, -128] * 128]


def test_one_missing_vector_spoils_no_other(asynchronous: bool) -> None:
    """Its text alone is asked for once more, as with floats."""
    rows: list[object] = [[1] * 256, [300] * 256, [2] * 256]
    model, sizes = voyage_answering(lambda texts: rows if len(texts) == 3 else [[3] * 256], output_dtype="int8",
                                    dimensions=256)  # fmt: skip
    with Router([model], cache=None, retry=RetryPolicy(attempts=2), sleep=lambda seconds: None) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")

    assert result.vectors[:, 0].tolist() == [1, 3, 2]
    assert sizes == [3, 1]


@pytest.mark.parametrize(
    ("embeddings", "says"),
    [
        ({"float": [[0.5] * 1536]}, "no int8 vectors"),
        ({"int8": None}, "no int8 vectors"),
        ({"int8": [[300] * 1536]}, "cannot be read as int8"),
        ({"int8": [[0.5] * 1536]}, "numbers of another type"),
        ({"int8": [[1] * 1535]}, "vectors of 1535 numbers came"),
    ],
)
def test_coheres_wrong_answers_are_refused(
    emulator: Emulator, asynchronous: bool, embeddings: dict[str, Any], says: str
) -> None:
    """Its SDK checks no range, and cuts floats to whole numbers: those of a vector of length 1 to zeros."""
    emulator.script(Fault.status(200, body={"id": "1", "embeddings": embeddings, "texts": ["a"]}))
    model = declared(emulator, "cohere", "int8")
    with (
        Router([model], cache=None, retry=ONCE) as router,
        pytest.raises((BackendError, NoModelAvailableError), match=says),
    ):
        embed(router, asynchronous, ["a"], input_type="document")


# Servers of OpenAI's protocol, by their rows; embedders and backends of the user's


@pytest.mark.parametrize("dtype", ["int8", "ubinary"])
@pytest.mark.parametrize("format_field", ["encoding_format", "embedding_type"])
def test_a_server_is_asked_in_the_words_of_its_row(
    tmp_path: Path, asynchronous: bool, dtype: OutputDtype, format_field: str
) -> None:
    """As Mistral says it (``output_dtype``, in base64 too), and as Jina does (in the field of the format)."""
    dtype_field = "output_dtype" if format_field == "encoding_format" else format_field
    rows = tmp_path / "rows.toml"
    rows.write_text(
        f'[[servers]]\nname = "house"\nformat_field = "{format_field}"\n'
        f'dtype_field = "{dtype_field}"\ndtypes = {{ int8 = "the int8", ubinary = "the bits" }}\n'
    )
    server, numbers = RawServer(), [7] * 16

    def answer(body: dict[str, Any], texts: list[str]) -> Reply:
        row = as_base64(numbers, "u1") if body.get("encoding_format") == "base64" else numbers
        return Reply(body={"data": [{"embedding": row, "index": 0}], "model": "m", "usage": {"prompt_tokens": 1}})

    server.answer = answer
    dimensions = 16 if dtype == "int8" else 128
    settings: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "k"}
    model = Model("house:m", space="m", dimensions=dimensions, output_dtype=dtype, **settings)
    try:
        with Router([model], cache=None, catalog=rows, retry=ONCE) as router:
            result = embed(router, asynchronous, ["a"], input_type="document")
    finally:
        server.close()

    assert result.vectors.tolist() == [numbers]
    assert result.space == Space(f"m+{dtype}", 16)
    (body,) = server.received
    assert body[dtype_field] == {"int8": "the int8", "ubinary": "the bits"}[dtype]
    assert body["dimensions"] == dimensions
    assert body.get("encoding_format") == ("base64" if format_field == "encoding_format" else None)


@pytest.mark.parametrize("array", [False, True])
def test_a_wrapped_embedder_may_give_integers(asynchronous: bool, array: bool) -> None:
    """It is declared, because nothing tells bytes from bits, and checked as any answer is."""

    def bits(texts: list[str]) -> Any:
        rows = [[len(text), 255] for text in texts]
        return np.array(rows, np.uint8) if array else rows

    def floats(texts: list[str]) -> Any:
        return np.full((len(texts), 2), 0.5) if array else [[0.5, 0.5]] * len(texts)

    with Router([Model.wrap(bits, space="house", dimensions=16, output_dtype="ubinary")], cache=None) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")
    assert (router.space, result.vectors.dtype) == (Space("house+ubinary", 2), np.uint8)
    assert result.vectors.tolist() == [[len(text), 255] for text in TEXTS]
    wrong = Model.wrap(floats, space="house", dimensions=16, output_dtype="ubinary")
    with Router([wrong], cache=None, retry=ONCE) as router, pytest.raises(NoModelAvailableError, match="another type"):
        embed(router, asynchronous, TEXTS, input_type="document")


class Bytes(Backend):
    """A provider of the user's."""

    def __init__(self, number: str) -> None:
        self.number = number

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return Answer(np.array([[len(text), 1] for text in texts], self.number), tokens=None)


def test_a_backend_of_ones_own_answers_in_the_declared_type(asynchronous: bool) -> None:
    """An array of another type is refused: a cast would change numbers."""
    model = Model("house:one", space="house", dimensions=2, output_dtype="int8", backend=Bytes("int8"))
    with Router([model], cache=None) as router:
        assert embed(router, asynchronous, ["abc"], input_type="query").vectors.tolist() == [[3, 1]]
    wrong = Model("house:one", space="house", dimensions=2, output_dtype="int8", backend=Bytes("float32"))
    with (
        Router([wrong], cache=None, retry=ONCE) as router,
        pytest.raises(NoModelAvailableError, match="vectors of float32 came, not of int8"),
    ):
        embed(router, asynchronous, ["abc"], input_type="query")


# What compares vectors


@each_provider
@each_dtype
def test_doctor_finds_nothing_wrong_with_integers(
    emulator: Emulator, tmp_path: Path, provider: str, dtype: OutputDtype
) -> None:
    """No length of 1 is missed, different texts differ, and no drift is found on the next day."""
    for _ in range(2):
        with Router([declared(emulator, provider, dtype)], cache=None) as router:
            findings = list(check_models(router, ProbeRecords(tmp_path), cards=load_catalogue(), today=TODAY))
        assert [str(finding) for finding in findings if finding.level != "ok"] == []
    (answer,) = (finding for finding in findings if finding.check == "answer")
    dimensions, length = (1024, 128) if provider == "voyage" else (1536, 192)
    numbers = length if "binary" in dtype else dimensions
    assert f"{dimensions} dimensions, as {numbers} numbers of {router.embed([], input_type='query').vectors.dtype}" in (
        answer.story
    )
    assert [f.facts["cosine"] for f in findings if f.check.startswith("drift")] == pytest.approx([1, 1])


@each_dtype
def test_comparable_vectors_tell_the_cosine_of_the_floats(dtype: OutputDtype) -> None:
    """Near ones are near, and others are not: nothing is compared byte by byte."""
    random = np.random.default_rng(7)
    one = random.normal(size=(6, 1024)).astype(np.float32)
    near = one + 0.01 * random.normal(size=one.shape).astype(np.float32)
    one, near = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (one, near))
    first, second = (comparable(np.stack([quantise(row, dtype) for row in side]), dtype) for side in (one, near))

    assert lowest_cosine(one, near) > 0.9999
    assert lowest_cosine(first, second) == pytest.approx(lowest_cosine(one, near), abs=0.0005)
    assert highest_cosine_between_texts(first) == pytest.approx(highest_cosine_between_texts(one), abs=0.15)
    assert nearest_documents(second, first)[0][:, 0].tolist() == [*range(6)]


def test_another_model_behind_a_name_is_found_in_bits(emulator: Emulator) -> None:
    """The bits of voyage-4-large under the name of voyage-4-lite."""

    class Large(Backend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            rows = [quantise(vector("voyage-3.5", 1024, input_type, text), "binary") for text in texts]
            return Answer(np.stack(rows), tokens=None)

    other = Model(PROVIDERS["voyage"], output_dtype="binary", backend=Large())
    with (
        Router([declared(emulator, "voyage", "binary"), other], cache=None) as router,
        pytest.raises(SpaceMismatchError, match="do not agree"),
    ):
        router.check_agreement()


# Vector stores


def test_faiss_finds_packed_bits(emulator: Emulator) -> None:
    """Its binary index takes the array as it is, and compares by Hamming distance."""
    import faiss

    with Router([declared(emulator, "voyage", "ubinary")], cache=None) as router:
        index = faiss.IndexBinaryFlat(8 * router.space.dimensions)
        index.add(router.embed(TEXTS, input_type="document").vectors)
        _, found = index.search(router.embed(TEXTS, input_type="query").vectors, 1)

    assert found[:, 0].tolist() == [0, 1, 2]


def test_qdrant_finds_vectors_of_bytes(emulator: Emulator) -> None:
    """A collection of the type uint8, with the router's own number of dimensions."""
    from qdrant_client import QdrantClient, models

    with Router([declared(emulator, "voyage", "uint8")], cache=None) as router:
        client = QdrantClient(":memory:")
        size, datatype = router.space.dimensions, models.Datatype.UINT8
        config = models.VectorParams(size=size, distance=models.Distance.COSINE, datatype=datatype)
        client.create_collection("texts", vectors_config=config)
        rows = router.embed(TEXTS, input_type="document").vectors.tolist()
        client.upsert("texts", [models.PointStruct(id=place, vector=row) for place, row in enumerate(rows)])
        asked = router.embed(TEXTS, input_type="query").vectors.tolist()
        found = [client.query_points("texts", query=row, limit=1).points[0].id for row in asked]
        client.close()

    assert found == [0, 1, 2]
