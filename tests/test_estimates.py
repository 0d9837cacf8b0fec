"""Estimates: what is likely beside what it is at most, the disk of the vectors, and both held against what happens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedrouter
from embedrouter import Estimate, Router
from embedrouter.cache import VectorCache, disk_size
from embedrouter.cache._codec import encode
from embedrouter.cache._disk import DiskCache
from embedrouter.cli._estimate import estimate_tiers, texts_at_once
from embedrouter.cli._texts import LocatedText, chunks
from embedrouter.errors import RequestTimeoutError
from embedrouter.router import wiring_of
from embedrouter.spending import Account, Ledger
from embedrouter.testing import FakeBackend
from embedrouter.types import Answer, Entry, InputType, TokenCounts
from tests.command_line import run
from tests.either import embed
from tests.properties import examples

PRICE = Decimal(2)


class Rough(FakeBackend):
    """Counts two tokens too many for each word, and is billed a share of its count.

    Args:
        share: of the words times ten; over 1 is more than the count.
    """

    def __init__(self, share: float = 0.5, *, exact: bool = False, dimensions: int = 8, **settings: Any) -> None:
        super().__init__(dimensions=dimensions, **settings)
        self.share, self.exact, self.bills, self.requests = share, exact, 0, 0
        self.reports = True

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        return TokenCounts([10 * len(text.split()) for text in texts], exact=self.exact)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        answer = super().embed(texts, input_type, timeout=timeout)
        tokens = int(sum(10 * len(text.split()) for text in texts) * self.share)
        self.requests += 1
        self.bills += tokens
        return replace(answer, tokens=tokens if self.reports else None)


def words(count: int, name: str = "w") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


def estimated(router: Router, text: str, **asked: Any) -> Estimate:
    return router.estimate([text], **{"input_type": "document", **asked})


# The likely figure


def test_before_anything_was_billed_a_usual_share_is_likely(tmp_path: Path) -> None:
    """And no ledger is made to find out."""
    with Router([Rough().model(price=PRICE)], cache=tmp_path / "none") as router:
        found = estimated(router, words(10))

    assert (found.tokens, found.cost) == (100, Decimal("0.0002"))
    assert (found.likely_tokens, found.likely_cost, found.is_bound) == (65, Decimal("0.00013"), True)
    assert not (tmp_path / "none" / "ledger.db").exists()


def test_an_exact_count_is_likely_and_the_bound(tmp_path: Path) -> None:
    with Router([FakeBackend().model(price=PRICE)], cache=None, ledger=tmp_path / "l.db") as router:
        found = estimated(router, words(10))

    assert found.exact
    assert (found.likely_tokens, found.likely_cost) == (found.tokens, found.cost) == (10, Decimal("0.00002"))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_likely_figure_is_learnt_from_bills(tmp_path: Path, share: float, asynchronous: bool) -> None:
    """Of the model and the input type, in any process that shares the ledger."""
    with Router([Rough(share).model(price=PRICE)], cache=None, ledger=tmp_path / "l.db") as router:
        for number in range(20):
            embed(router, asynchronous, [words(100, f"{number}/")], input_type="document")
    with Router([Rough(share).model(price=PRICE)], cache=None, ledger=tmp_path / "l.db") as router:
        document, query = estimated(router, words(100)), estimated(router, words(100), input_type="query")

    assert abs(document.likely_tokens - share * 1000) < 40
    assert document.is_bound
    assert query.likely_tokens == 650


def test_a_bill_over_an_estimate_ends_the_bound(tmp_path: Path, asynchronous: bool) -> None:
    """The likely figure may then be above the estimate, which is not called a bound."""
    with Router([Rough(1.6).model(price=PRICE)], cache=None, ledger=tmp_path / "l.db") as router:
        for number in range(20):
            embed(router, asynchronous, [words(100, f"{number}/")], input_type="document")
        found = estimated(router, words(100))

    assert not found.is_bound
    assert found.likely_tokens > 1400 > found.tokens == 1000
    assert "some bills were over the estimate" in str(found)
    assert "at most" not in str(found)


def test_what_a_bill_says_nothing_about_is_not_learnt(tmp_path: Path) -> None:
    """An answer without tokens, a bill that cannot be true, another model after failover, a request without answer."""
    silent = Rough()
    silent.reports = False
    false = Rough(1000)
    failing = Rough(outcomes=[RequestTimeoutError("no answer")] * 9)
    second = Rough()
    policy = embedrouter.RetryPolicy(attempts=1, cooldown=0)
    models = [
        [silent.model("fake:silent", price=PRICE)],
        [false.model("fake:false", price=PRICE)],
        [failing.model("fake:first", space="s", price=1), second.model("fake:second", space="s", price=PRICE)],
    ]
    for each in models:
        with Router(each, cache=None, ledger=tmp_path / "l.db", retry=policy) as router:
            router.embed([words(100)], input_type="document")
    with closing(Ledger(tmp_path / "l.db")) as ledger:
        seen = [
            ledger.learned(f"fake:{name}", "document", exact=exact).requests
            for name in ("silent", "false", "first", "second")
            for exact in (True, False)
        ]

    assert seen == [0] * 8


def test_a_ledger_that_fails_fails_no_estimate(tmp_path: Path, asynchronous: bool) -> None:
    """Nothing is spent by it."""
    (tmp_path / "l.db").write_bytes(b"no database" * 100)
    with Router([Rough().model(price=PRICE)], cache=None, ledger=tmp_path / "l.db", budget="1/day") as router:
        assert estimated(router, words(10)).likely_tokens == 65


# The disk


@pytest.mark.parametrize(
    ("dimensions", "dtype", "count"),
    [
        (1536, "float32", 700),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1536, "float16", 900), (256, "float32", 3000), (3072, "float32", 300), (9000, "float32", 200))
        ),
    ],
)
def test_the_disk_is_that_of_a_real_folder(dimensions: int, dtype: Any, count: int, tmp_path: Path) -> None:
    """Within 8 %, for the first texts and for further ones."""
    sizes, expected = [0], []
    for part in range(2):
        texts = [f"{part} {number}" for number in range(count)]
        model = FakeBackend(dimensions=dimensions).model(price="0")
        with Router([model], cache=tmp_path, cache_dtype=dtype, micro_batch_window=0) as router:
            expected.append(router.estimate(texts, input_type="document").cache_bytes)
            router.embed(texts, input_type="document")
        sizes.append((tmp_path / "cache.db").stat().st_size)

    for before, after, size in zip(sizes, sizes[1:], expected, strict=False):
        assert abs(size - (after - before)) < 0.08 * (after - before)


def test_the_disk_of_integers_is_a_byte_for_each(tmp_path: Path) -> None:
    (candidate,) = wiring_of(Router([FakeBackend(dimensions=1024).model()], cache=None)).candidates
    with closing(DiskCache(tmp_path)) as store:
        row = encode(Entry(np.ones(1024, np.int8), 1))
        store.put_many({number.to_bytes(24, "big"): row for number in range(3000)})
        size = disk_size(VectorCache(store), 3000, replace(candidate, output_dtype="int8"))

    assert np.isclose(size, (tmp_path / "cache.db").stat().st_size, rtol=0.08)


def test_pieces_and_the_whole_text_take_a_row_each(tmp_path: Path) -> None:
    """And without a cache, or of cached texts, nothing is written."""
    model = FakeBackend(dimensions=2000).model(price="0", max_input_tokens=10)
    with Router([model], cache=tmp_path, on_too_long="mean") as router:
        long = router.estimate([words(100)], input_type="document").cache_bytes
        router.embed([words(100)], input_type="document")
        cached = router.estimate([words(100)], input_type="document").cache_bytes
    with Router([model], cache=None, on_too_long="mean") as router:
        none = router.estimate([words(100)], input_type="document").cache_bytes

    assert 11 * 8_016 < long < 20 * 8_016
    assert cached == none == 0


# As sentences and rows


def test_an_estimate_reads_as_what_is_likely_and_what_it_is_at_most(tmp_path: Path) -> None:
    with Router([Rough().model(price=PRICE)], cache=tmp_path) as router:
        found = estimated(router, words(10))

    assert str(found) == (
        "1 text, 1 distinct, 0 cached; the rest is about 65 tokens, at most 100, in 1 request to fake:model: about "
        "$0.00013, at most $0.0002; 32.8 kB on disk"
    )
    assert "at most 100" in found._repr_html_()


def test_the_estimate_command_shows_likely_most_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two makers of one price look alike where one count is exact and the other an upper one."""
    monkeypatch.setenv("VOYAGE_API_KEY", "k")
    (tmp_path / "a.txt").write_text("The harbour is open from five to nine. " * 40)
    shown = run("estimate", tmp_path / "a.txt", "--model", "voyage:voyage-4", "--cache", tmp_path / "c").stdout

    heading, _, row = (line for line in shown.splitlines() if "  " in line.strip() or "──" in line)
    for column in ("tokens", "at most", "cost", "cost at most", "disk"):
        assert column in heading
    assert "32.8 kB" in row


# What is estimated is what happens


@examples(25)
@given(
    st.lists(st.lists(st.integers(1, 30), max_size=8), min_size=1, max_size=4),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from(["error", "mean", "truncate"]),
    st.integers(1, 5),
)
def test_estimate_bill_and_ledger_agree_in_any_workload(
    calls: list[list[int]], share: float, cached: bool, policy: Any, batch: int
) -> None:
    """A bill is never over its estimate, the ledger is the bill to the token, and every column adds up."""
    with TemporaryDirectory() as folder:
        rough = Rough(share)
        model = rough.model(price=PRICE, batch_size=batch, max_input_tokens=None if policy == "error" else 150)
        cache = Path(folder) / "cache" if cached else None
        with Router([model], cache=cache, ledger=Path(folder) / "l.db", on_too_long=policy) as router:
            for number, sizes in enumerate(calls):
                texts = [words(size) for size in sizes]
                expected = router.estimate(texts, input_type="document")
                before = rough.bills, rough.requests
                with embedrouter.tag(f"call {number % 2}"):
                    usage = router.embed(texts, input_type="document").usage
                billed, requests = rough.bills - before[0], rough.requests - before[1]
                assert billed <= expected.tokens
                assert expected.likely_tokens <= expected.tokens
                assert (usage.tokens, usage.requests) == (billed, requests)
                if policy == "error":
                    assert requests == expected.requests
            tables = [router.ledger.totals(by) for by in ("day", "month", "model", "tag")]
            detail = router.ledger.requests(None)
        sums = [sum(table.values(), Account()) for table in tables]

        assert sums == [sums[0]] * 4
        assert sums[0].tokens == rough.bills == sum(item.tokens for item in detail)
        assert sums[0].cost == rough.bills * PRICE / 1_000_000
        assert sums[0].requests == rough.requests == len(detail)
        assert sums[0].texts + sums[0].pieces == sum(item.texts + item.pieces for item in detail)


@examples(15)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=90), st.integers(1, 30), st.integers(1, 9), st.booleans())
def test_requests_of_several_chunks_are_those_that_are_sent(
    numbers: list[int], chunk: int, batch: int, free: bool
) -> None:
    """Texts that repeat in another chunk are cached when it comes."""
    with TemporaryDirectory() as folder:
        fake = Rough()
        model = fake.model(price=None if free else PRICE, batch_size=batch)
        located = [LocatedText(f"{place}", words(number % 7 + 1, f"{number}/")) for place, number in enumerate(numbers)]
        with Router([model], cache=folder) as router:
            found = estimate_tiers(router, located, ["high"], "document", chunk)["high"]
            for part in chunks(located, chunk):
                router.embed([item.text for item in part], input_type="document")

        assert found.requests == fake.requests
        assert found.texts == len(numbers)
        assert found.unique == len({item.text for item in located})


def test_a_model_on_this_machine_is_estimated_in_the_steps_of_its_bar(tmp_path: Path) -> None:
    """``warm`` embeds few texts at once, so that the bar moves."""
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(1300)))
    arguments = tmp_path / "texts.jsonl", "--model", "wordllama:l2_supercat_256", "--cache", tmp_path / "c"
    (estimate,) = json.loads(run("estimate", *arguments, "--json").stdout)["tiers"]
    warmed = json.loads(run("warm", *arguments, "--json").stdout)
    with Router(["wordllama:l2_supercat_256"], cache=None) as router:
        size = texts_at_once(router, "high", "document")

    assert size == 512
    assert estimate["requests"] == warmed["usage"]["requests"]
    assert np.isclose(estimate["cache_bytes"], (tmp_path / "c" / "cache.db").stat().st_size, rtol=0.1)
