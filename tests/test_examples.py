"""Every example runs as it stands, against the emulator, and does what it says.

The table `EXPECTED` holds, for each file, what it prints (fragments, in this order), how many requests each model gets,
and a function for everything else it promises. A new example fails here until it has a row.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.doc_environment import HUB_MODEL, ROOT, Ran, appear_in_order, execute, surroundings
from tests.emulator import Emulator, vector

FOLDER = ROOT / "examples"
ENGINES = {"daft_bulk.py", "ray_bulk.py", "spark_bulk.py"}
"""They run on engines: ``test_ray_cluster.py``, ``test_engines.py``."""
TESTS = "test_without_network.py"
EXAMPLES = sorted({path.name for path in FOLDER.glob("*.py")} - ENGINES)
KEY_OF = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY", "voyage": "VOYAGE_API_KEY"}

SMALL, LARGE, LITE = "text-embedding-3-small", "voyage-4-large", "voyage-4-lite"
SMALL_SPACE, LOCAL_SPACE = f"{SMALL} (1536 dimensions)", "wordllama/l2_supercat_256 (256 dimensions)"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Emulator]:
    with surroundings(tmp_path) as emulator:
        yield emulator


def run(name: str, *arguments: str) -> Ran:
    path = FOLDER / name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        return execute(path.read_text("utf-8"), str(path), file=path)


# What is expected of each


def repeated_texts_are_not_sent(ran: Ran, world: Emulator) -> None:
    texts = ran.names["texts"]
    assert [request.texts for request in world.received] == [tuple(texts[:3]), ("Where is my suitcase?",)]
    for row, text in zip(ran.names["documents"].vectors, texts, strict=True):
        assert np.allclose(row, vector(SMALL, None, None, text))


def queries_are_the_small_models_unless_asked(_: Ran, world: Emulator) -> None:
    assert [(request.model, request.input_type) for request in world.received] == [
        (LARGE, "document"),
        (LITE, "query"),
        (LARGE, "query"),
    ]


def nothing_is_paid_twice(_: Ran, world: Emulator) -> None:
    """Two chunks before the budget ends, two after it, and every text in one request alone."""
    sent = [text for request in world.received for text in request.texts]
    assert len(sent) == len(set(sent)) == 1999


def callers_are_sent_together(_: Ran, world: Emulator) -> None:
    assert sorted(len(request.texts) for request in world.received) == [1, 1, 24]
    assert {request.dimensions for request in world.received} == {512}, "as the file says"


def the_cheap_store_alone_would_have_been_wrong(ran: Ran, _: Emulator) -> None:
    """The two questions that share no word with their answer are among those that were escalated."""
    cheap = ran.names["retriever"].with_tier("low")
    for question, answer in ((3, "A doctor's note"), (5, "A lost key card")):
        assert not cheap.invoke(ran.names["questions"][question])[0].page_content.startswith(answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one example prints, how many requests each model gets, and what else it promises."""

    prints: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    also: Callable[[Ran, Emulator], None] | None = None
    latency: float = 0.0
    """Seconds that every answer takes, where the example is about time."""
    leaves: frozenset[str] = frozenset()
    """The files and folders that it makes where it runs."""


KEEPS = frozenset({"cache"})
EXPECTED: Mapping[str, Expected] = {
    "first_steps.py": Expected(
        prints=(
            "4 texts, 3 distinct, $0.00000000 at most",
            "found:  Lost luggage",
            f"space:  {LOCAL_SPACE}, from wordllama:l2_supercat_256",
            "4 of 4 from the cache, 0 requests",
            "saved texts",
        ),
        leaves=KEEPS,
    ),
    "langchain_rag.py": Expected(
        prints=("Travel expenses are paid back within two weeks.\n\nQuestion: When are", "wordllama:l2_supercat_256"),
        leaves=KEEPS,
    ),
    "llama_index_rag.py": Expected(
        prints=("first build: 1 requests\nsecond build: 0 requests\n0.", " Travel expenses"), leaves=KEEPS
    ),
    "langgraph_tiers.py": Expected(
        prints=(
            "buy museum tickets? Tickets for the museum",
            "museum closed? The museum is closed on Mondays.",
            f"voyage:{LARGE}: 2 requests",
            f"voyage:{LITE}: 1 requests",
        ),
        requests={LARGE: 2, LITE: 1},
        also=queries_are_the_small_models_unless_asked,
        leaves=KEEPS,
    ),
    "cascade.py": Expected(
        prints=(
            " low: How many days of holiday do I have? Every employee has thirty days",
            "high: I feel unwell, what do you want from me? A doctor's note",
            "high: Somebody found my access pass, whom do I tell? A lost key card",
            "Cascade(0.3; escalated 3 of 8)",
            f"asked for: {HUB_MODEL} (384 dimensions): Bicycles",
        ),
        also=the_cheap_store_alone_would_have_been_wrong,
    ),
    "async_service.py": Expected(
        prints=(
            "50 callers, 25 questions: 2 requests",
            f"by default voyage:{LITE}, asked for more voyage:{LARGE}",
            "refused: 1 of the texts cannot be embedded, nothing was sent",
            "service",
        ),
        requests={LITE: 2, LARGE: 1},
        also=callers_are_sent_together,
        latency=0.02,
    ),
    "bulk_index.py": Expected(
        prints=(
            "refused: no text at (1500,)",
            "1,999 texts, 1,999 distinct, 0 cached",
            "stopped after 1,000 texts, 8,000 tokens: ",
            "1,999 distinct, 1,000 cached",
            "indexed 1,999 texts, 8,991 tokens paid in this run; saved $0.000160",
        ),
        requests={SMALL: 4},
        also=nothing_is_paid_twice,
        leaves=KEEPS,
    ),
    "batch_half_price.py": Expected(
        prints=("now $0.00002800, by batch $0.00001400", "200 answered, 0 failed", "200 of 200 from the cache"),
        leaves=KEEPS,
    ),
    "compare_models.py": Expected(
        prints=("79 documents", "wordllama:l2_supercat_256 at 128, int8", "[[models]]", "wordllama:l2_supercat_256"),
        leaves=KEEPS,
    ),
    "migrate_index.py": Expected(
        prints=(
            "(64 dimensions)\nto ",
            "3 rows in handbook--l2-supercat-256-256",
            "ok      search: 3 of 3 stored texts find themselves.",
            f"{LOCAL_SPACE}: The canteen serves",
        )
    ),
}


# The tests


PROGRAMS = [name for name in EXAMPLES if name != TESTS]
SLOW = {"cascade.py", "migrate_index.py"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PROGRAMS])
def test_an_example_does_what_it_says(name: str, world: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs the keys of its row alone, prints what it promises, sends nothing that a provider refuses."""
    if name not in EXPECTED:
        pytest.fail(f"nothing is asserted of examples/{name}: give it a row in EXPECTED")
    expected = EXPECTED[name]
    world.latency = expected.latency
    before = sorted(FOLDER.iterdir())
    for key in set(KEY_OF.values()) - keys_in(row_of(name)):
        monkeypatch.delenv(key)

    ran = run(name)

    assert (missing := appear_in_order(expected.prints, ran.printed)) is None, f"{missing!r} not in:\n{ran.printed}"
    assert Counter(request.model for request in world.received) == expected.requests
    assert not world.refused
    if expected.also is not None:
        expected.also(ran, world)
    assert {path.name for path in Path.cwd().iterdir()} == expected.leaves
    assert sorted(FOLDER.iterdir()) == before


def test_nothing_is_expected_of_files_that_are_gone() -> None:
    assert set(EXPECTED) <= set(EXAMPLES)


def test_a_model_of_an_api_shows_its_bill(world: Emulator) -> None:
    """The first example takes a model on the command line; its second run makes no request at all."""
    ran = run("first_steps.py", f"openai:{SMALL}")

    printed = ("$0.00000064 at most", f"space:  {SMALL_SPACE}, from openai:{SMALL}", "saved texts", "$0.00000074")
    assert appear_in_order(printed, ran.printed) is None
    repeated_texts_are_not_sent(ran, world)

    again = run("first_steps.py", f"openai:{SMALL}")

    assert "4 of 4 from the cache" in again.printed
    assert world.calls == 2


def test_each_test_without_a_network_passes(world: Emulator) -> None:
    """They are functions of a module, as pytest collects them."""
    found = importlib.util.spec_from_file_location("without_network", FOLDER / TESTS)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    tests = [test for name, test in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")]

    for test in tests:
        test()

    assert len(tests) == 3
    assert world.calls == 0


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
