"""Find dead links: in the built documentation site, and in Markdown as GitHub shows it.

What a link of another host leads to is not asked. An absolute link to our own site or to a file of our own repository
is taken for what it names: the page in ``docs/``, the file in this checkout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = "https://embedrouter.github.io/embedrouter/"
FILES = re.compile(
    r"https://(?:github\.com/embedrouter/embedrouter/(?:blob|tree|raw|edit)|"
    r"raw\.githubusercontent\.com/embedrouter/embedrouter)/main/(.*)"
)
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src", "source": "src", "object": "data"}


# The built site


@dataclass
class _Reader(HTMLParser):
    """What a page links to, and the anchors that it has."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if (link := found.get(LINKS.get(tag, ""))) is not None:
            self.links.append(link)
        self.anchors |= {found[name] or "" for name in ("id", "name") if name in found}


def dead_in_site(site: Path, root: Path) -> list[str]:
    """Return what is wrong with the links of a built site; ``root`` is the repository."""
    pages: dict[Path, _Reader] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = _Reader()
        pages[path].feed(path.read_text("utf-8"))
    wrong = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            if reason := _dead(link, path, site, root, pages):
                wrong.append(f"{path.relative_to(site)}: {link}: {reason}")
    return wrong


def _dead(link: str, page: Path, site: Path, root: Path, pages: dict[Path, _Reader]) -> str | None:
    if file := FILES.fullmatch(link.partition("#")[0]):
        return None if (root / unquote(file[1])).exists() else "no such file in the repository"
    parts = urlsplit(link.removeprefix(SITE) or "." if link.startswith(SITE) else link)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    if link.startswith(SITE):
        target = site / path
    elif path.startswith("/"):
        target = site / path.removeprefix(urlsplit(SITE).path)
    else:
        target = page.parent / path if path else page
    target = target.resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "no such page"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return None


# Markdown


def dead_in_markdown(file: Path, root: Path) -> list[str]:
    """Return what is wrong with the links of a Markdown file of the repository, with their lines."""
    wrong = []
    for line, link in _links(file.read_text("utf-8")):
        if reason := _dead_link(link, file, root):
            wrong.append(f"{file.relative_to(root)}:{line}: {link}: {reason}")
    return wrong


def _dead_link(link: str, file: Path, root: Path) -> str | None:
    address, _, anchor = link.partition("#")
    docs = root / "docs"
    if found := FILES.fullmatch(address):
        target = root / unquote(found[1])
    elif link.startswith(SITE):
        name = address.removeprefix(SITE).rstrip("/")
        choices = [docs / name, docs / f"{name}.md", docs / name / "index.md"] if name else [docs / "index.md"]
        target = next((choice for choice in choices if choice.is_file()), choices[-1])
    elif urlsplit(link).scheme:
        return None
    else:
        target = (file.parent / unquote(address)).resolve() if address else file
        if file.is_relative_to(docs) and not target.is_relative_to(docs):
            return "leaves docs/, which the site has not: write the absolute address of the file"
    if not target.exists():
        return "no such file"
    if anchor and target.suffix == ".md" and unquote(anchor) not in _anchors(target):
        return "no such heading"
    return None


def _links(text: str) -> Iterator[tuple[int, str]]:
    """Yield the links outside of code: inline ones, definitions, and those of HTML."""
    for number, line in _prose(text):
        plain = re.sub(r"(`+).+?\1", lambda code: "`" * len(code[0]), line)
        for found in re.finditer(r"\]\(<?([^\s()>]+(?:\([^\s()]*\))?)>?[^)]*\)", plain):
            yield number, found[1]
        if definition := re.match(r"\s*\[[^]]+\]:\s+<?(\S+?)>?\s*$", plain):
            yield number, definition[1]
        for found in re.finditer(r'<[a-z][^>]*\s(?:href|src|srcset)="([^"]+)"', plain):
            yield number, found[1]


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are in no fenced block."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            if mark and line.strip() == fence:
                fence = ""
        elif mark:
            fence = mark[1]
        else:
            yield number, line


@cache
def _anchors(file: Path) -> frozenset[str]:
    """Return the anchors of the headings, as GitHub and as the site make them."""
    found: dict[str, int] = {}
    anchors = set()
    for _, line in _prose(file.read_text("utf-8")):
        anchors |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
        if not (heading := re.match(r"#+\s+(.*?)(?:\s+#+)?(?:\s*\{\s*#([\w-]+)\s*\})?\s*$", line)):
            continue
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
        words = re.sub(r"[^\w\s-]", "", title.lower()).strip()
        for name in {re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)}:
            again = found.get(name, 0)
            found[name] = again + 1
            anchors |= {name} if not again else {f"{name}-{again}", f"{name}_{again}"}
        anchors |= {heading[2]} if heading[2] else set()
    return frozenset(anchors)
