"""The text of a web page and of a notebook.

Pages are parsed by the standard library: a cached vector belongs to one exact text, which must not change with the
release of a library, and what is wanted is small.
"""

import json
from html.parser import HTMLParser

from ..._files import FileProblemError

INVISIBLE = {"script", "style", "template", "noscript", "head", "svg", "math", "iframe", "object", "select", "textarea"}
"""Elements without visible text. The title is taken from the head."""
BLOCKS = (
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "dialog", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li"}
    | {"main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title"}
    | {"tr", "ul"}
)
"""Elements that begin and end a line."""
CELLS = {"td", "th"}
KINDS = {"markdown", "code", "heading"}
"""Cells with text of a person: raw cells are for converters."""


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = [""]
        self._hidden: list[str] = []
        self._title = False
        self._kept = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in INVISIBLE:
            self._hidden.append(tag)
        self._title |= tag == "title" and "svg" not in self._hidden
        self._kept += tag == "pre"
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        if tag == "title":
            self._title = False
        self._kept = max(0, self._kept - (tag == "pre"))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden and not self._title:
            return
        if self._kept:
            first, *others = data.split("\n")
            self.lines[-1] += first
            self.lines += others
        else:
            self.lines[-1] += data if not data.isspace() else " "

    def _break(self, tag: str) -> None:
        if tag in BLOCKS:
            self.lines.append("")
        elif tag in CELLS:
            self.lines[-1] += " "


def visible_text(html: str) -> str:
    """Return the title and the visible text of a page: one line for each block, none blank.

    Blanks in a row are one, as a browser shows them, but in ``<pre>``, which keeps its line ends.
    """
    parser = _Visible()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in parser.lines)
    return "\n".join(line for line in lines if line)


def notebook_text(source: str) -> str:
    """Return the Markdown and code cells of a notebook, with a blank line between two; outputs are left out.

    Raises:
        FileProblemError: this is no notebook.
    """
    sources = ["".join(source) for kind, source in _cells(source) if kind in KINDS]
    return "\n\n".join(text for text in sources if text.strip())


def langchain_notebook_text(source: str) -> str:
    """Return the text that LangChain's ``NotebookLoader`` makes of a notebook, with its settings by default.

    Raises:
        FileProblemError: this is no notebook.
    """
    return "".join(f"'{kind}' cell: '{source}'\n\n" for kind, source in _cells(source))


def _cells(source: str) -> list[tuple[str, str | list[str]]]:
    """Return the kind and the source of each cell; a source is a text, or a list of lines."""
    try:
        notebook = json.loads(source)
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]  # format 3
        found = [(cell["cell_type"], cell.get("source", cell.get("input", ""))) for cell in cells]
        for _, lines in found:
            "".join(lines)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise FileProblemError("no Jupyter notebook") from None
    return found
