"""The documentation site is built strictly, and each page is opened in a headless Chromium."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Page
from tests.built_site import build, served
from tests.doc_environment import ROOT
from tests.links import dead_in_site

pytestmark = pytest.mark.slow

PHONE = 390


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Build the site once for all processes of a run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    said = shared / "site.txt"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            said.write_text(build(shared / "site"))
    assert said.read_text() == ""
    return shared / "site"


def faults(page: Page, address: str, name: str) -> list[str]:
    """Open a page as a desktop shows it, then as a phone does; return what is wrong with it."""
    page.open(f"{address}{name}")
    page.run("new Promise(done => requestIdleCallback(() => setTimeout(done, 20)))")  # for what scripts ask for
    wrong = [f"console: {line}" for line in page.console]
    wrong += [f"asks {link}" for link in page.requests if not link.startswith((address, "data:", "blob:"))]
    wrong += [f"not shown: {link}" for link in page.run(NOT_SHOWN)]
    page.tell("Emulation.setDeviceMetricsOverride", width=PHONE, height=800, deviceScaleFactor=1, mobile=True)
    width = page.run("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    if width > PHONE:
        wrong.append(f"{width} pixels wide on a phone of {PHONE}, because of {page.run(WIDEST)}")
    return [f"{name or 'index'}: {fault}" for fault in wrong]


NOT_SHOWN = "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"
WIDEST = f"""[...document.querySelectorAll('body *')].filter(part => part.getBoundingClientRect().right > {PHONE})
    .map(part => part.outerHTML.slice(0, 120)).pop()"""


def test_no_link_of_the_site_is_dead(site: Path) -> None:
    assert dead_in_site(site, ROOT) == []


def test_each_page_is_without_errors_asks_no_other_host_and_fits_on_a_phone(site: Path, browser: Page) -> None:
    """Tables and code may scroll inside themselves."""
    pages = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    names = ["" if page == "." else f"{page}/" for page in pages]
    with served(site) as address:
        found = [fault for name in names for fault in faults(browser, address, name)]

    assert len(names) == len(list((ROOT / "docs").rglob("*.md"))) - len(list((ROOT / "docs" / "submit").rglob("*.md")))
    assert found == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<script>nothing.at.all</script>", "console: .*ReferenceError"),
        ("<script>fetch('http://127.0.0.1:9/stars').catch(() => 0)</script>", "asks http://127.0.0.1:9/stars"),
        ("<img src='data:image/png;base64,AAAA'>", "not shown: data:"),
        ("<div style='width: 500px'>wide</div>", "50[01] pixels wide on a phone of 390, because of <div"),
        ("<div style='overflow: auto'><div style='width: 500px'>wide</div></div>", None),
    ],
)
def test_a_fault_of_a_page_is_found(planted: str, fault: str | None, tmp_path: Path, browser: Page) -> None:
    head = "<!doctype html><link rel='icon' href='data:,'><meta name='viewport' content='width=device-width'>"
    (tmp_path / "index.html").write_text(f"{head}<body style='margin: 0'>{planted}")
    with served(tmp_path) as address:
        found = faults(browser, address, "")

    assert bool(found) == bool(fault)
    assert re.search(fault or "", "\n".join(found)), found


def test_the_search_finds_a_word_and_its_hit_leads_to_a_page_with_the_word(site: Path, browser: Page) -> None:
    with served(site) as address:
        browser.open(address)
        browser.run("document.querySelector('[data-md-component=search-query]').focus()")
        browser.tell("Input.insertText", text="SpaceMismatchError")
        link: Any = browser.run(FIRST_HIT)
        assert isinstance(link, str), browser.console
        asked = list(browser.requests)
        browser.open(link)
        text = browser.run("document.querySelector('article').innerText")

    assert "SpaceMismatchError" in text
    assert any(request.endswith("search_index.json") for request in asked)
    assert all(request.startswith(address) for request in asked if not request.startswith(("data:", "blob:")))


FIRST_HIT = """new Promise(done => {
    const ends = Date.now() + 10_000;
    const look = () => {
        const hit = document.querySelector('.md-search-result__item a');
        hit || Date.now() > ends ? done(hit && hit.href) : setTimeout(look, 50);
    };
    look();
})"""
SCHEME = "[document.body.dataset.mdColorScheme, getComputedStyle(document.body).backgroundColor].join(' ')"
TOGGLE = "document.querySelector('[data-md-component=palette] label:not([hidden])').click()"


def test_colours_follow_the_system_until_the_reader_chooses(site: Path, browser: Page) -> None:
    with served(site) as address:
        browser.open(address, dark=False)
        light = browser.run(SCHEME)
        browser.open(address, dark=True)
        dark = browser.run(SCHEME)
        browser.run(TOGGLE)
        chosen = browser.run(SCHEME)
        browser.open(f"{address}api/", dark=True)
        kept = browser.run(SCHEME)
        browser.run(TOGGLE)
        other = browser.run(SCHEME)
        browser.run("localStorage.clear()")

    assert light.startswith("default rgb(255, 255, 255)")
    assert dark.startswith("slate ")
    assert dark.split(" ", 1)[1] != light.split(" ", 1)[1]
    assert chosen == kept == light
    assert other == dark


def test_docstrings_are_shown_as_text_and_not_as_their_source(site: Path) -> None:
    """Sections have headings, and no mark of another markup is left."""
    for path in sorted((site / "api").rglob("index.html")):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        for mark in ("Args:", "``", ":class:", ":func:", ":meth:", ".. note"):
            assert mark not in text, f"{path.parent.name}: {mark}"
