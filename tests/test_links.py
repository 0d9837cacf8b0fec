"""No link inside the repository is dead, and the checker that says so finds faults that are planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doc_environment import ROOT
from tests.links import SITE, dead_in_markdown, dead_in_site

FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
REPOSITORY = "https://github.com/embedrouter/embedrouter"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_link_of_a_document_is_dead(file: Path) -> None:
    assert dead_in_markdown(file, ROOT) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "api").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text("# Start\n")
    (tmp_path / "docs" / "cache.md").write_text("# Cache\n\n## What `cache=` takes\n\n## Twice\n\n## Twice\n")
    (tmp_path / "docs" / "api" / "index.md").write_text("# API\n")
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\n")
    return tmp_path


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("docs/cash.md", "no such file"),
        ("docs/cache.md#what-cash-takes", "no such heading"),
        ("#nowhere", "no such heading"),
        (f"{SITE}cash/", "no such file"),
        (f"{SITE}cache/#nowhere", "no such heading"),
        (f"{REPOSITORY}/blob/main/CONTRIBUTION.md", "no such file"),
        (f"{REPOSITORY}/tree/main/examples", "no such file"),
        ("docs/cache.md", None),
        ("docs/cache.md#what-cache-takes", None),
        ("docs/cache.md#twice-1", None),
        (SITE, None),
        (f"{SITE}cache/#twice_1", None),
        (f"{SITE}api/", None),
        (f"{REPOSITORY}/blob/main/docs/cache.md#twice", None),
        (f"{REPOSITORY}/issues", None),
        ("https://example.com/nowhere", None),
    ],
)
def test_a_dead_link_in_markdown_is_found_with_its_line(link: str, reason: str | None, repository: Path) -> None:
    readme = repository / "README.md"
    for form in ("Read [it]({}).", "[it]: {}", '<img alt="" src="{}">', "[![badge](#title)]({})"):
        readme.write_text(f"# Title\n\n```text\n[no](link.md)\n```\n\n{form.format(link)}\n`[code](x.md)`\n")

        assert dead_in_markdown(readme, repository) == ([f"README.md:7: {link}: {reason}"] if reason else []), form


def test_a_link_from_a_page_to_a_file_outside_docs_is_dead_on_the_site(repository: Path) -> None:
    page = repository / "docs" / "api" / "index.md"
    page.write_text("[fine](../cache.md) [dead](../../CONTRIBUTING.md)\n")

    (wrong,) = dead_in_markdown(page, repository)
    assert wrong.startswith("docs/api/index.md:1: ../../CONTRIBUTING.md: leaves docs/")


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ('<a href="../cash/">', "no such page"),
        ('<a href="../cache/#nowhere">', "no such anchor"),
        ('<a href="#nowhere">', "no such anchor"),
        ('<img src="missing.svg">', "no such page"),
        ('<script src="/embedrouter/missing.js">', "no such page"),
        (f'<a href="{SITE}cash/">', "no such page"),
        (f'<a href="{SITE}cache/#nowhere">', "no such anchor"),
        (f'<a href="{REPOSITORY}/edit/main/docs/cash.md">', "no such file in the repository"),
        ('<a href="../cache/#used">', None),
        ('<a href="..">', None),
        (f'<a href="{SITE}">', None),
        ('<a href="/embedrouter/cache/">', None),
        (f'<a href="{REPOSITORY}/edit/main/docs/cache.md">', None),
        ('<a href="mailto:a@example.com">', None),
    ],
)
def test_a_dead_link_of_the_site_is_found_with_its_page(
    element: str, reason: str | None, repository: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    for name in ("cache", "scale"):
        (site / name).mkdir(parents=True)
    (site / "index.html").write_text("<h1>Start</h1>")
    (site / "cache" / "index.html").write_text('<h2 id="used">Used</h2>')
    (site / "scale" / "index.html").write_text(element)

    found = dead_in_site(site, repository)
    assert [line.rpartition(": ")[2] for line in found] == ([reason] if reason else [])
    assert all(line.startswith("scale/index.html: ") for line in found)
