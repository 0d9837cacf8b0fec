"""The report of a comparison: one page that says everything, escapes every text and loads nothing."""

from __future__ import annotations

import math
import re
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, resources
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter.comparison import Comparison, Interval, JudgedBy
from embedrouter.comparison._report import html_report
from embedrouter.comparison._report._answers import disputes
from embedrouter.comparison._report._figures import money, seconds
from embedrouter.comparison._report._scale import log_ticks, round_steps, side_by_side
from embedrouter.comparison._report._standing import AXES, frontier
from embedrouter.comparison._report._tables import numbers
from tests.browser import Page
from tests.comparisons import USUAL, Told, comparison
from tests.properties import examples

VOID = {"meta", "link", "input", "wbr"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "&lt;b&gt; &amp; <!-- <![CDATA[",
    "\x00\x1b[31m\ud800 \ufffe\r\nnext",
    "سؤال عن العبّارة \u202e reversed",
    "🦜👩‍👩‍👧 鼻" * 3,
    "x" * 400,
)


# Reading a page


@dataclass
class Element:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def all(self, name: str = "", **attributes: str) -> list[Element]:
        """Return the elements within, by name and attributes; a class is one of several."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if name in ("", child.name) and all(
                    child.has(key.rstrip("_"), value) for key, value in attributes.items()
                ):
                    found.append(child)
                found += child.all(name, **attributes)
        return found

    def one(self, name: str = "", **attributes: str) -> Element:
        (found,) = self.all(name, **attributes)
        return found

    def has(self, key: str, value: str) -> bool:
        own = self.attributes.get(key) or ""
        return value in own.split() if key == "class" else own == value

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Strict(HTMLParser):
    """A parser that refuses elements that are not closed in order, and attributes that are given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root]


def read(page: str) -> Element:
    """Return the html element of a page, which must be well-formed."""
    assert page.startswith("<!DOCTYPE html>\n")
    parser = Strict()
    parser.feed(page)
    parser.close()
    page.encode()  # no lone surrogates
    return parser.root.one("html")


def report(told: Sequence[Told] = USUAL, **more: Any) -> Element:
    return read(html_report(comparison(told, **more)))


def squeezed(text: str) -> str:
    return " ".join(text.split())


# What it says


def test_the_answer_names_the_best_and_the_cheapest_that_may_be_as_good() -> None:
    """What somebody who reads one line has to know."""
    best, cheapest, *_ = report().one(class_="answer").all("li")

    assert squeezed(best.text).startswith(
        "The best: 1 openai:text-embedding-3-large. nDCG@10 0.811 (0.772 to 0.851), $1.95"
    )
    assert squeezed(cheapest.text).startswith(
        "The cheapest that is not worse by more than chance: 4 voyage:voyage-4-lite. nDCG@10 0.780, $0.30"
    )
    assert "−0.032 (−0.074 to +0.011) against the best" in cheapest.text


def test_the_answer_names_the_smallest_index_that_may_be_as_good() -> None:
    """Bytes are money, too, where the store is in memory."""
    page = report([Told("whole", 0.8, "0"), Told("int8", 0.77, "0", dtype="int8"), Told("short", 0.2, "0", 64)])

    assert "more than chance: 2 int8. 12.6 MB, in place of 25.3 MB." in page.one(class_="answer").text


def test_where_every_cheaper_variant_is_worse_the_answer_says_so() -> None:
    """The price buys quality."""
    page = report([Told("good", 0.9, "2"), Told("bad", 0.4, "1"), Told("free", 0.3, "0")])

    sentence = "No variant whose queries cost less is as good, as far as these queries can tell."
    assert sentence in page.one(class_="answer").text


def test_the_frontier_is_what_nothing_cheaper_reaches() -> None:
    """By each price; what has no known price is on none."""
    found = comparison()

    for axis in AXES:
        costs = [axis.cost(item) for item in found.variants]
        means = [item.quality["nDCG@10"].mean for item in found.variants]
        beaten = [
            cost is None
            or any(
                other is not None and (other, -mean) < (cost, -means[place]) and mean >= means[place]
                for other, mean in zip(costs, means, strict=True)
            )
            for place, cost in enumerate(costs)
        ]
        assert sorted(frontier(found, axis)) == [place for place, item in enumerate(beaten) if not item]


def test_every_figure_of_every_variant_is_in_the_table() -> None:
    """Measures with intervals, dollars, speed, bytes, and which variants are worse by more than chance."""
    row = report().one("table", class_="figures").one("tbody").all("tr")[8]

    cells = [squeezed(cell.text) for cell in row.all("td")]
    assert squeezed(row.one("th").text) == "9 openai:text-embedding-3-small at 256, int8256 dimensions; int8"
    assert cells[0] == "0.6840.639 to 0.729"
    assert cells[4:] == ["$0.30", "$0.19", "$0.093", "480", "160 ms", "400 ms", "3.2 MB", "none", "4"]


@pytest.mark.parametrize(
    ("judged_by", "heading", "measure"),
    [
        ("judgements", "judgements", "nDCG@10, with"),
        ("known items", "known items, no judgements", "nDCG@10 on known items, with"),
        ("agreement", "agreement, no judgements", "agreement (nDCG@10), with"),
    ],
)
def test_how_it_was_judged_stands_beside_the_figures(judged_by: JudgedBy, heading: str, measure: str) -> None:
    """Known items and agreement look like quality, and are something else."""
    page = report(judged_by=judged_by, notes=["12 documents were cut."])

    section = page.one("section", class_="judged")
    assert section.one("h2").text == f"How it was judged: {heading}"
    assert section.has("class", "caution") is (judged_by != "judgements")
    assert "12 documents were cut." in section.text
    assert all(measure in svg.text for svg in page.all("svg", role="img"))


def test_few_queries_are_said_to_be_few() -> None:
    """Thirty queries look like a result."""
    assert "With only 30 queries the intervals are wide" in report(queries=30).text
    assert "With only 1 query the intervals" in report(queries=1).text
    assert "With only" not in report(queries=50).text


def test_what_was_left_out_is_named_with_the_reason() -> None:
    """A model without a key is missed by whoever looks for it."""
    page = report(left_out={"cohere:embed-v4.0": "Set CO_API_KEY."})

    assert (page.one("dt").text, page.one("dd").text) == ("cohere:embed-v4.0", "Set CO_API_KEY.")
    assert "No model could be compared" in read(html_report(replace(comparison(), variants=[], pairs=[]))).text


def test_day_and_versions_are_at_the_end() -> None:
    """Figures without them cannot be compared later."""
    footer = report().one("footer").text

    assert f"2026-11-30 with Python 3.{'.'.join(map(str, sys.version_info[1:3]))}" in footer
    assert f"numpy {metadata.version('numpy')}" in footer
    assert "The comparison cost $0.020." in footer


def test_each_pair_says_on_how_many_queries_each_is_better() -> None:
    """Few pairs are open at once, many behind a summary."""
    found = comparison(USUAL[:3])
    page = read(html_report(found))

    rows = page.one("table", class_="pairs").one("tbody").all("tr")
    assert len(rows) == 3
    assert all(sum(int(cell.text) for cell in row.all("td")[-3:]) == 60 for row in rows)
    assert "open" in page.all("details")[0].attributes
    assert "45 differences are more than chance" in report().text


def test_queries_on_which_variants_differ_most_show_both_answers() -> None:
    """Relevant documents are marked with words, long ones can be opened, and those that nobody found are listed."""
    found = comparison()
    page = read(html_report(found))

    articles = page.all("article")
    assert len(articles) == 12
    for item, article in zip(disputes(found), articles, strict=True):
        key = list(found.queries)[item.query]
        assert squeezed(article.one("blockquote").text) == found.queries[key]
        sides = article.one("div", class_="sides").all("section")
        for place, side in zip((item.best, item.worst), sides, strict=True):
            shown = [hit.text for entry in side.all("li") for hit in entry.one("p").all("bdi")]
            marked = [entry.one("bdi").text for entry in side.all("li", class_="relevant")]
            ten = [hit.document for hit in found.variants[place].answers[item.query]]
            assert shown == ten
            assert marked == [document for document in ten if document in found.relevant[key]]
            assert side.text.count("✓ relevant, grade") == len(marked)
            assert all(found.documents[document] in squeezed(side.text) for document in ten)


def test_disputes_are_of_many_pairs_where_many_queries_differ_as_much() -> None:
    """Of two models, queries that either wins."""
    found = comparison(USUAL[:2], queries=40)
    flags = np.arange(40) % 4 == 0
    won = [flags.astype(np.float32), (~flags).astype(np.float32)]
    variants = [
        replace(item, dominated_by=None, by_query={**item.by_query, "nDCG@10": values})
        for item, values in zip(found.variants, won, strict=True)
    ]

    assert Counter(item.best for item in disputes(replace(found, variants=variants))) == {0: 6, 1: 6}


# The texts of others


def test_no_text_becomes_markup() -> None:
    """Names, keys and texts of documents are data of users, and of whoever wrote the documents."""
    usual = {(tag.name, *sorted(tag.attributes)) for tag in report().all()}
    names = [Told(text, 0.5 + place / 20, "1") for place, text in enumerate(HOSTILE)]
    found = comparison(names, texts=HOSTILE, left_out={text: text for text in HOSTILE}, notes=HOSTILE)
    hostile = replace(
        found,
        collection=HOSTILE[0],
        queries={f"{key}{HOSTILE[1]}": text for key, text in found.queries.items()},
        relevant={f"{key}{HOSTILE[1]}": of for key, of in found.relevant.items()},
    )

    page = read(html_report(hostile))

    found_tags = {(tag.name, *sorted(tag.attributes)) for tag in page.all()}
    assert {name for name, *_ in found_tags} <= {name for name, *_ in usual} | {"dl", "dt", "dd"}
    assert not [tag for tag in found_tags if any(name.startswith("on") for name in tag[1:])]
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert HOSTILE[0] in page.one("h1").text
    assert [label.text for label in page.one("table", class_="figures").all("bdi")][-1] == HOSTILE[0]


def test_names_keep_their_order_and_texts_their_own_direction() -> None:
    """A character that turns the line around turns nothing beside the name."""
    page = report([Told("a\u202eb", 0.5, "1"), Told("c", 0.6, "1")], texts=["سؤال\u202e"])

    assert "a\\u202eb" in page.one("table", class_="figures").text
    assert all(tag.attributes.get("dir") == "auto" for tag in page.all("blockquote") + page.all("div", class_="text"))


@st.composite
def things_told(draw: st.DrawFn) -> tuple[list[Told], dict[str, Any]]:
    """What any comparison may be made from."""
    texts = st.text(min_size=1, max_size=60)
    labels = draw(st.lists(texts, min_size=1, max_size=30, unique=True))
    costs = st.none() | st.sampled_from(["0", "0.30", "1.80"]) | st.decimals("1e-12", "1e9", places=12).map(str)
    times = st.none() | st.floats(0, 1e4)
    told = [
        Told(label, draw(st.floats(0, 1)), draw(costs), median=draw(times), slowest=draw(times)) for label in labels
    ]
    more = {
        "queries": draw(st.integers(1, 3)),
        "judged_by": draw(st.sampled_from(["judgements", "known items", "agreement"])),
        "texts": draw(st.lists(texts, min_size=1, max_size=4)),
        "left_out": draw(st.dictionaries(texts, texts, max_size=2)),
    }
    return told, more


@pytest.mark.slow
@given(things_told())
@examples(60)
def test_any_comparison_is_a_page_whose_labels_do_not_overlap(told: tuple[list[Told], dict[str, Any]]) -> None:
    """One variant or thirty, of any name, price and quality."""
    found = comparison(told[0], **told[1])
    page = read(html_report(found))

    assert len(page.one("table", class_="figures").one("tbody").all("tr")) == len(found.variants)
    identities = [tag.attributes["id"] for tag in page.all() if "id" in tag.attributes]
    assert len(identities) == len(set(identities))
    for svg in page.all("svg", role="img"):
        _, _, width, height = map(float, (svg.attributes["viewbox"] or "").split())
        assert len(svg.all("g")) == len(found.variants)
        boxes = [box_of(text) for text in svg.all("text")]
        assert all(box.left >= 0 and box.right <= width and box.top >= 0 and box.bottom <= height for box in boxes)
        assert not [(one, other) for place, one in enumerate(boxes) for other in boxes[:place] if one.meets(other)]
        coordinates = re.findall(r"[-\d.]+", " ".join(mark.attributes.get("d") or "" for mark in svg.all("path")))
        assert all(math.isfinite(float(number)) for number in coordinates)


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float
    text: str

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def box_of(text: Element) -> Box:
    """Return about where a text is, as if every letter were of usual width."""
    size = 12 if text.has("class", "name") else 11
    width = len(text.text) * size * 0.55
    x, y = float(text.attributes["x"] or 0), float(text.attributes["y"] or 0)
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.attributes["text-anchor"] or ""]
    return Box(left, y - size * 0.75, left + width, y, text.text)


# One page, from nowhere else


def test_the_page_names_no_address_and_allows_no_request() -> None:
    """Not even one that a browser makes by itself, for a picture of the tab."""
    text = html_report(comparison())
    page = read(text)

    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"] or ""
    for name in ("style", "script"):
        hashed = b64encode(sha256(page.one(name).text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{hashed}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not [tag for tag in page.all() if {"style", "src", "srcset", "action", "xlink:href"} & tag.attributes.keys()]
    assert [tag.attributes["href"] for tag in page.all() if "href" in tag.attributes] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text


def test_tables_and_charts_say_what_they_are() -> None:
    """For screen readers: headings of rows and columns, names of charts, labels of switches."""
    page = report()

    assert page.attributes["lang"] == "en"
    assert all("scope" in heading.attributes for heading in page.all("th"))
    for svg in page.all("svg", role="img"):
        title, description = (svg.attributes["aria-labelledby"] or "").split()
        assert svg.one("title", id=title).text.startswith("nDCG@10 by dollars")
        assert (
            "On the frontier, the cheapest first: all-MiniLM-L6-v2, 0.688, free;"
            in svg.one("desc", id=description).text
        )
    assert all("aria-hidden" in svg.attributes for svg in page.all("svg") if "role" not in svg.attributes)
    identities = {tag.attributes.get("id") for tag in page.all("input")}
    assert {label.attributes["for"] for label in page.all("label")} == identities


def test_variants_are_told_apart_without_colours() -> None:
    """A disc, a ring and a cross."""
    svg = report().all("svg", role="img")[0]
    shapes = {kind: {mark.name for group in svg.all("g", class_=kind) for mark in group.all(class_="mark")}
              for kind in ("frontier", "behind", "dominated")}  # fmt: skip

    assert shapes == {"frontier": {"circle"}, "behind": {"circle"}, "dominated": {"path"}}


def test_colours_have_enough_contrast_in_light_and_dark() -> None:
    """At least 4.5 to 1 for texts, as WCAG asks, on each ground on which they stand."""
    style = resources.files("embedrouter.comparison._report").joinpath("report.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for colours in (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in (light, dark)):
        pairs = [(ink, ground) for ink in ("ink", "soft", "faint", "accent") for ground in ("paper", "raised")]
        pairs += [("good", "good-paper"), ("soft", "good-paper"), ("ink", "good-paper"), ("care", "care-paper")]
        ratios = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
        assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


# Figures and positions


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(None, "unknown"), ("0", "free"), ("1234.567", "$1,234.57"), ("0.30", "$0.30"), ("0.0934", "$0.093"),
     ("0.00001234", "$0.000012"), ("0.999", "$1.00"), ("12E+3", "$12,000.00")],
)  # fmt: skip
def test_money_is_shown_in_cents_or_with_two_digits(amount: str | None, shown: str) -> None:
    """What is less than a cent is not nothing."""
    assert money(None if amount is None else Decimal(amount)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "unknown"),
        (0.00012, "0.12 ms"),
        (0.0081, "8.1 ms"),
        (0.1424, "142 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
    ],
)
def test_times_are_shown_in_their_unit(value: float | None, shown: str) -> None:
    """From a model in memory to a slow server."""
    assert seconds(value) == shown


def test_neighbouring_numbers_are_a_range() -> None:
    """Of thirty variants, a list of twenty."""
    assert numbers([]) == ""
    assert numbers([0, 2, 3, 5, 6, 7]) == "1, 3, 4, 6–8"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).map(sorted), st.floats(0.1, 20))
@examples(100)
def test_columns_stand_side_by_side_and_in_order(wanted: list[float], gap: float) -> None:
    """As near to their prices as the gap allows."""
    found = side_by_side(wanted, gap, 0, 100)

    least = min(gap, 100 / max(1, len(wanted) - 1))
    assert all(after - before >= least - 1e-6 for before, after in pairwise(found))
    assert -1e-6 <= found[0] <= found[-1] <= 100 + 1e-6
    if all(after - before >= gap for before, after in pairwise(wanted)):
        assert found == pytest.approx(wanted)


@given(st.floats(-12, 9), st.floats(1, 15), st.integers(6, 10))
@examples(100)
def test_ticks_are_few_round_and_inside(low: float, width: float, most: int) -> None:
    """From a cent to a fortune."""
    ticks = [math.log10(factor) + power for factor, power in log_ticks(low, low + width, most)]
    steps = round_steps(low, low + width, most)

    assert 1 <= len(ticks) <= most
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in [*ticks, *steps])
    assert 1 <= len(steps) <= most


def test_an_interval_of_no_width_is_drawn() -> None:
    """One query, or all alike."""
    found = comparison(USUAL[:1], queries=1)
    flat = {measure: Interval(1.0, 1.0, 1.0) for measure in found.variants[0].quality}

    page = read(html_report(replace(found, variants=[replace(found.variants[0], quality=flat)])))

    assert "1.000 to 1.000" in page.text


# In a browser


class Served:
    """A page behind an address on this machine, and what was asked for."""

    def __init__(self) -> None:
        self.page = b""
        self.address = ""
        self.asked: list[str] = []


@pytest.fixture
def served() -> Iterator[Served]:
    site = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(site.page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}/report.html"
        yield site
        server.shutdown()
        thread.join()


def crowd(number: int) -> list[Told]:
    """Variants of five models at six lengths: six of each price, and much the same."""
    models = (("openai:text-embedding-3-small", "0.30"), ("openai:text-embedding-3-large", "1.95"),
              ("voyage:voyage-4", "0.9"), ("cohere:embed-v4.0", "1.8"), ("wordllama:l2_supercat_256", "0"))  # fmt: skip
    made = []
    for place in range(number):
        (name, cost), length = models[place % 5], (256, 512, 1024, 2048, 3072, 128)[place // 5 % 6]
        quality = 0.6 + 0.05 * (place % 4) + 0.02 * (place // 5)
        made.append(Told(f"{name} at {length}", quality, cost, length, median=0.1, slowest=0.3))
    return made


OVERLAPS = """
(() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg.chart")) {
    const frame = svg.getBoundingClientRect();
    if (!frame.width) continue;
    const boxes = Array.from(svg.querySelectorAll("text"), (text) => [text.textContent, text.getBBox()]);
    boxes.forEach(([one, a], place) => {
      const room = svg.viewBox.baseVal;
      if (a.x < 0 || a.x + a.width > room.width || a.y + a.height > room.height) found.push(`${one} leaves`);
      for (const [other, b] of boxes.slice(0, place)) {
        const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
        const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
        if (across > 0.5 && down > 2.5) found.push(`${one} on ${other}`);
      }
    });
    found.push(...(boxes.length < 5 ? ["nothing is drawn"] : []));
  }
  return found;
})()
"""
"""A line of text is higher than its letters: what is above and below them may overlap."""

PAGES: dict[str, Callable[[], Comparison]] = {
    "usual": comparison,
    "thirty variants": lambda: comparison(crowd(30)),
    "one variant, one query": lambda: comparison(USUAL[:1], queries=1),
    "all free": lambda: comparison(USUAL[6:8], judged_by="agreement"),
    "hostile": lambda: comparison(
        [Told(text, 0.5 + place / 20, ("1", "0", None)[place % 3]) for place, text in enumerate(HOSTILE)], texts=HOSTILE
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)], ids=["desk", "phone"])
def test_a_browser_has_nothing_to_complain_of(name: str, width: int, dark: bool, browser: Page, served: Served) -> None:
    """Nothing on the console, no request but for the page, nothing beside the window, no label on another."""
    served.page = html_report(PAGES[name]()).encode()

    browser.open(served.address, width=width, dark=dark)

    assert browser.console == []
    assert browser.requests == [served.address]
    assert served.asked == ["/report.html"]
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(f"matchMedia('(prefers-color-scheme: {'dark' if dark else 'light'})').matches")
    assert browser.run(OVERLAPS) == []
    browser.run("document.getElementById('by-corpus').click()")
    assert browser.run("document.querySelector('div.by-queries').offsetHeight") == 0
    assert browser.run(OVERLAPS) == []


@pytest.mark.slow
def test_without_scripts_the_page_says_the_same(browser: Page, served: Served) -> None:
    """The switch is a switch of the style sheet; only sorting needs a script."""
    served.page = html_report(comparison()).encode()
    browser.open(served.address)
    words = browser.run("document.body.innerText.replace(/\\s+/g, ' ')")
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(served.address)
        assert browser.run("document.querySelectorAll('th button').length") == 0
        assert browser.run("document.body.innerText.replace(/\\s+/g, ' ')") == words
        x, y = browser.run(
            "(b => [b.x + 5, b.y + 5])(document.querySelector('[for=by-corpus]').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            browser.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        assert browser.run("document.querySelector('div.by-corpus').offsetHeight") > 0
        assert browser.run("document.querySelector('div.by-queries').offsetHeight") == 0
    finally:
        browser.tell("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
def test_the_table_is_sorted_by_a_click_or_a_key(browser: Page, served: Served) -> None:
    """The highest first, then the lowest; what is unknown is always last."""
    found = comparison()
    served.page = html_report(found).encode()
    browser.open(served.address)
    order = "Array.from(document.querySelectorAll('.figures tbody .place'), (cell) => Number(cell.textContent))"
    head = "document.querySelectorAll('.figures th[data-sort]')[4]"
    by_cost = sorted(
        (item.queries_cost, place) for place, item in enumerate(found.variants, 1) if item.queries_cost is not None
    )

    assert browser.run(order) == list(range(1, 11))
    browser.run(f"{head}.querySelector('button').click()")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    dearest = browser.run(order)
    assert [found.variants[place - 1].queries_cost for place in dearest[:-1]] == [cost for cost, _ in reversed(by_cost)]
    browser.run(f"{head}.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.tell(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    assert browser.run(order) == [*(place for _, place in by_cost), dearest[-1]]


@pytest.mark.slow
def test_on_paper_both_charts_are_printed_on_white(browser: Page, served: Served) -> None:
    """Paper has no switch, and dark ink on a dark sheet is no use."""
    served.page = html_report(comparison()).encode()
    browser.open(served.address, dark=True)

    browser.tell(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )

    assert browser.run("Array.from(document.querySelectorAll('.charts > div'), (part) => part.offsetHeight > 300)") == [
        True,
        True,
    ]
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    browser.tell("Emulation.setEmulatedMedia", media="")


@pytest.mark.slow
def test_a_report_of_thousands_of_queries_stays_small(tmp_path: Path) -> None:
    """It holds the queries on which variants differ most, not all."""
    assert len(html_report(comparison(queries=3000))) < 600_000
