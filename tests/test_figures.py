"""The pictures of the documentation are drawn from figures that were measured, and the figures are true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import embedrouter.calls._calls as calls
from docs.figures import call_stages, cost_quality, judged, mixed_spaces, style, throughput

PICTURES = [module.PICTURE for module in (mixed_spaces, cost_quality, throughput, call_stages)]
EACH = pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
THEMES = pytest.mark.parametrize("theme", style.THEMES, ids=lambda theme: theme.name)
SVG = "{http://www.w3.org/2000/svg}"


def committed(picture: style.Picture, theme: style.Theme) -> str:
    return (style.FOLDER / f"{picture.name}-{theme.name}.svg").read_text("utf-8")


def texts(svg: str) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def numbers(svg: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![#\w.])-?\d+(?:\.\d+)?", svg)]


@EACH
@THEMES
def test_a_picture_is_what_its_script_draws(picture: style.Picture, theme: style.Theme) -> None:
    """Texts to the letter; places to half a pixel, because releases of matplotlib may round differently."""
    drawn, kept = picture.svg(theme), committed(picture, theme)

    assert texts(drawn) == texts(kept)
    assert [drawn.count(mark) for mark in ("<path", "<text")] == [kept.count(mark) for mark in ("<path", "<text")]
    assert numbers(drawn) == pytest.approx(numbers(kept), abs=0.5), "run: python -m docs.figures.NAME"


@EACH
@THEMES
def test_a_picture_can_be_read_on_a_phone_and_aloud(picture: style.Picture, theme: style.Theme) -> None:
    """A phone shows 358 of the 420 pixels: no text is smaller than 10 there, and none leaves the picture.

    The widths are those of DejaVu Sans, which is wider than the fonts that readers have.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    root = ElementTree.fromstring(committed(picture, theme))
    assert (root.get("role"), root.get("width")) == ("img", str(style.WIDTH))
    assert [len(item.text or "") > 20 for item in root if item.tag in (f"{SVG}title", f"{SVG}desc")] == [True, True]
    for item in root.iter(f"{SVG}text"):
        text, look = "".join(item.itertext()), item.get("style", "")
        size = float(re.findall(r"font-size: ([\d.]+)px", look)[0])
        weight = "bold" if "font-weight: 700" in look else "normal"
        font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        anchor = {"start": 0.0, "middle": 0.5, "end": 1.0}[(re.findall(r"text-anchor: (\w+)", look) or ["start"])[0]]
        left = float(item.get("x", 0)) - anchor * width
        assert size * 358 / style.WIDTH >= 10, text
        assert left >= 0, text
        assert left + width <= style.WIDTH, text


@EACH
def test_no_picture_says_where_it_was_made(picture: style.Picture) -> None:
    for theme in style.THEMES:
        assert not re.search(r"/(home|work|tmp|root)/", committed(picture, theme))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@THEMES
def test_colours_stand_out_from_the_page(theme: style.Theme) -> None:
    """Text by 4.5 to 1 and marks by 3 to 1, as WCAG 2 asks, on the pages of GitHub and of this site."""
    pages = {"light": ("#ffffff",), "dark": ("#0d1117", "#1e2129")}[theme.name]
    for page in pages:
        assert min(contrast(colour, page) for colour in (theme.ink, theme.quiet)) >= 4.5
        assert min(contrast(colour, page) for colour in (theme.good, theme.bad, theme.other)) >= 3
    assert min(contrast(colour, theme.fill) for colour in (theme.ink, theme.quiet)) >= 4.5


# What was measured


def facts(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((style.FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def test_mixed_vectors_lose_what_the_picture_says() -> None:
    """Whole queries of another model find by chance; half of the documents are lost where one answer is right."""
    for found in facts("mixed-spaces")["collections"].values():
        assert found["all_queries"] < 0.03 < found["half_of_the_documents"] < found["one_space"]
    squad = facts("mixed-spaces")["collections"]["SQuAD"]
    assert squad["half_of_the_documents"] < 0.65 * squad["one_space"]


def test_a_second_run_costs_nothing_in_the_picture() -> None:
    paid = facts("mixed-spaces")["bill"]
    assert paid["second_run"] == 0 < paid["first_run"] < paid["tokens_of_all_rows"]
    assert paid["tokens_of_all_rows"] / paid["first_run"] == pytest.approx(paid["rows"] / paid["distinct"], rel=0.1)


def test_the_line_of_the_best_is_what_no_smaller_index_reaches() -> None:
    """The smallest vectors lose most; eight bits lose nothing."""
    variants = facts("cost-quality")["variants"]
    best = cost_quality.frontier(variants)
    for variant in variants:
        assert any(item["bytes"] <= variant["bytes"] and item["ndcg"][1] >= variant["ndcg"][1] for item in best)
    whole = {
        (item["models"][0], item["dtype"]): item["ndcg"][1] for item in variants if item["dimensions"] in (256, 384)
    }
    for model in ("WordLlama", "MiniLM"):
        assert whole[model, "int8"] == pytest.approx(whole[model, "float32"], abs=0.002)
        assert whole[model, "binary"] < whole[model, "float32"] - 0.03


def test_the_throughput_is_that_of_the_page() -> None:
    """What others reach, times how often ours is as fast, is what ours reaches."""
    found = throughput.rows(throughput.PICTURE.facts())
    assert list(found) == list(throughput.WORKS)
    for row in found.values():
        names = [name for name, _, _ in throughput.bars(row)]
        assert {"embedrouter", *row["others"]} == set(names)
        assert all(rate * (times or 1) == pytest.approx(row["ours"]) for _, rate, times in throughput.bars(row))


def test_the_stages_are_those_of_a_call() -> None:
    """In the order in which the module that runs them lists them."""
    listed = re.findall(r"^    ([a-z][a-z ,-]*?)  +``_\w+``", calls.__doc__ or "", re.MULTILINE)
    assert [stage.code for stage in call_stages.STAGES] == listed


@pytest.mark.slow
def test_measured_again_wordllama_and_the_bill_are_what_the_picture_says(shared: Path, tmp_path: Path) -> None:
    """The part that needs no torch: a thousand questions of each collection, and the whole bill."""
    pytest.importorskip("wordllama")
    kept = facts("mixed-spaces")
    for name, found in kept["collections"].items():
        collection = judged.read(name, queries=1000)
        documents, queries = mixed_spaces.embedded(collection, judged.WORDLLAMA, tmp_path)
        assert judged.ndcg(collection, documents, queries) == pytest.approx(found["other_space"], abs=0.025)

    again = mixed_spaces.bill(judged.read("SQuAD"), tmp_path)

    assert again == {key: value for key, value in kept["bill"].items() if key != "model"}
