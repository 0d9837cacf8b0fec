"""How every figure looks: colours for light and dark pages, sizes that a phone can show, one way to write an SVG.

The colours are Okabe and Ito's, which readers tell apart whose eyes miss a colour; on dark pages lighter ones of the
same hues. No figure depends on colour alone: each bar and point has its name beside it. Texts stay texts, so that they
are found, read aloud and drawn in the reader's own font.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
PIXELS = 72
"""A pixel of the SVG is a point, so that sizes below are what the page shows."""
WIDTH = 420
"""Of every figure, in pixels; a phone shows some 360 of them."""
TEXT, SMALL, HEADING = 13, 12, 14
LEFT = 4


@dataclass(frozen=True)
class Theme:
    """The colours of one kind of page."""

    name: str
    ink: str
    quiet: str
    line: str
    good: str
    bad: str
    other: str
    fill: str
    """Behind text in a box."""


THEMES = (
    Theme("light", "#1f2328", "#57606a", "#d0d7de", "#0072b2", "#d55e00", "#8c959f", "#eef4fa"),
    Theme("dark", "#f0f6fc", "#9da7b1", "#3d444d", "#56b4e9", "#f0883e", "#7d8590", "#1c2733"),
)
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "embedrouter",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": PIXELS,
}
FONTS = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif'
Facts = Any


def canvas(figure: Figure) -> Axes:
    """Return axes over the whole figure whose units are pixels, from the upper left corner; nothing of them is seen."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(figure.get_figheight() * PIXELS, 0)
    return axes


def heading(axes: Axes, theme: Theme, y: float, text: str) -> None:
    """Write the first line of a part of the figure."""
    axes.text(LEFT, y, text, color=theme.ink, va="center", fontsize=HEADING, fontweight="bold")


def note(axes: Axes, theme: Theme, y: float, text: str) -> None:
    """Write what is small beside the figures: where they come from."""
    axes.text(LEFT, y, text, color=theme.quiet, va="center", fontsize=SMALL)


def figure(draw: Callable[[Figure, Theme], None], theme: Theme, *, height: int, title: str, description: str) -> str:
    """Return an SVG without a background.

    Args:
        title: what a screen reader says first, and a pointer shows.
        description: the figures in words, for who does not see the picture.
    """
    colours = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.quiet,
        "ytick.color": theme.ink,
        "axes.edgecolor": theme.line,
    }
    settings: Any = mpl.rcParamsDefault | SETTINGS | colours  # a reader's own matplotlibrc changes nothing
    with mpl.rc_context(settings), io.StringIO() as written:
        drawn = Figure(figsize=(WIDTH / PIXELS, height / PIXELS))
        draw(drawn, theme)
        drawn.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _accessible(written.getvalue(), height, title, description)


def _accessible(svg: str, height: int, title: str, description: str) -> str:
    """Give the SVG its role, title and description, the reader's font, and its size in pixels."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-labelledby="title description" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="description">{escape(description)}</desc>'
    )
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<svg[^>]*>", lambda _: head, body, count=1)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans', sans-serif|(font[^;\"]*?)'DejaVu Sans'", _font, body)
    return "\n".join(line.rstrip() for line in body.splitlines()) + "\n"


def _font(found: re.Match[str]) -> str:
    return (found[1] or found[2]) + FONTS.replace('"', "'")


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn from a file of facts.

    Attributes:
        name: of ``NAME.json``, ``NAME-light.svg`` and ``NAME-dark.svg``.
        title: what a screen reader says first.
        draw: draws the facts.
        description: returns the facts in words.
        height: in pixels.
        source: the file of facts, if it is another than ``NAME.json``.
    """

    name: str
    title: str
    draw: Callable[[Facts, Figure, Theme], None]
    description: Callable[[Facts], str]
    height: int
    source: Path | None = None

    def facts(self) -> Facts:
        """Read what was measured, where there is such a file."""
        path = self.source or FOLDER / f"{self.name}.json"
        found: Facts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def svg(self, theme: Theme) -> str:
        """Draw the figure for one kind of page."""
        facts = self.facts()
        text = self.description(facts)
        return figure(partial(self.draw, facts), theme, height=self.height, title=self.title, description=text)

    def main(self, measure: Callable[[Path], Facts] | None = None) -> None:
        """Draw the figure; with ``measure FOLDER`` on the command line measure first, with the folder as a cache."""
        if sys.argv[1:2] == ["measure"] and measure is not None:
            facts = measure(Path(sys.argv[2]))
            (FOLDER / f"{self.name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for theme in THEMES:
            (FOLDER / f"{self.name}-{theme.name}.svg").write_text(self.svg(theme), encoding="utf-8")
