"""The page: one HTML file that loads nothing, says the same without JavaScript, and fits paper, phones and screens."""

from __future__ import annotations

import platform
from base64 import b64encode
from datetime import UTC
from hashlib import sha256
from importlib import metadata, resources

from ..._display import counted, escaped
from .._findings import Findings
from ._answers import answers
from ._chart import chart, key_glyph
from ._figures import money
from ._markup import Markup, element
from ._placement import LAYOUTS
from ._standing import AXES, QUALITY, Standing
from ._summary import answer, judged
from ._tables import figures, latency, left_out, pairs

PACKAGES = ("embedrouter", "ir-measures", "numpy")
"""What the figures were made with."""


GENERATOR = "embedrouter compare"
"""By which a page of ours is known again, at its beginning."""


def html_report(findings: Findings) -> str:
    """Return a comparison as one HTML page, without anything from elsewhere.

    It holds texts of documents: of the queries on which variants differ most, the ten nearest of both.
    """
    title = f"Embedding models on {escaped(findings.collection)}"
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="generator", content=GENERATOR),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("link", rel="icon", href="data:,"),  # or browsers would ask a server for one
        element("style", Markup(style)),
    )
    body = element("body", _header(findings), element("main", _sections(findings)), _footer(findings),
                   element("script", Markup(script)))  # fmt: skip
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(findings: Findings) -> list[Markup | None]:
    if not findings.variants:
        return [element("p", "No model could be compared."), left_out(findings)]
    chances = pairs(findings)
    return [
        element("section", element("h2", "The answer"), answer(findings)),
        element("section", element("h2", "Quality, price and latency"),
                element("div", _charts(findings), latency(findings), class_="beside")),
        judged(findings),
        left_out(findings),
        element("section", element("h2", "All figures"), figures(findings), class_="across"),
        None if chances is None else element("section", element("h2", "Differences and chance"), chances),
        answers(findings),
    ]  # fmt: skip


def _charts(findings: Findings) -> Markup:
    """Return the charts by each price, of which one is shown at a time, and on paper all."""
    inputs = [
        element("input", type="radio", name="axis", id=f"by-{axis.key}", checked=axis is AXES[0]) for axis in AXES
    ]
    labels = [element("label", axis.short, for_=f"by-{axis.key}") for axis in AXES]
    drawn = [
        element("div", element("p", axis.title, class_="on-paper"),
                [chart(findings, axis, layout) for layout in LAYOUTS], class_=f"by-{axis.key}")
        for axis in AXES
    ]  # fmt: skip
    return element("fieldset", element("legend", "Dollars for"), inputs, labels, drawn, _key(), class_="charts")


def _key() -> Markup:
    marks: tuple[tuple[Standing, str], ...] = (
        ("frontier", "on the frontier: better than all that cost less"),
        ("behind", "not on it, and not dominated: perhaps by chance, or its index is smaller"),
        ("dominated", "dominated: another is not dearer, and better by more than chance"),
    )
    items = [element("li", key_glyph(standing), text, class_=standing) for standing, text in marks]
    note = element("li", "Variants of one price stand side by side over one bracket. The line is the best "
                   f"{QUALITY} for the money.")  # fmt: skip
    return element("ul", items, note, class_="key")


def _header(findings: Findings) -> Markup:
    facts = [
        counted(findings.document_count, "document"),
        counted(len(findings.queries), "query"),
        counted(len(findings.variants), "variant"),
        f"{findings.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    ]
    title = element("h1", "Embedding models on ", element("bdi", escaped(findings.collection)))
    return element("header", title, element("p", ", ".join(facts)))


def _footer(findings: Findings) -> Markup:
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    measured = sorted({item.speed.at.astimezone(UTC).date() for item in findings.variants if item.speed is not None})
    days = " to ".join(dict.fromkeys(str(day) for day in (*measured[:1], *measured[-1:])))
    facts = [f"Made on {findings.at.astimezone(UTC):%Y-%m-%d} with {', '.join(versions)}."]
    if days:
        facts.append(f"Speed was measured on {days}.")
    facts.append(f"The comparison cost {money(findings.spent)}." if findings.spent else "The comparison cost nothing.")
    return element("footer", element("p", " ".join(facts)))


def _resource(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
