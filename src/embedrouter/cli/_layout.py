"""Tables and paragraphs as lines that fit a width. Nothing is cut: a name that is to be copied stays in one piece."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from rich.cells import cell_len

from .._display import cells, escaped, priced

GAP = "  "
"""Between two columns."""
MAX_BLOCKS = 3
"""Lines of the facts of one row."""
INDENT = "    "
"""Before the facts of a row whose name stands on a line of its own."""


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cells: list[str]
    right: bool
    """Whether the column holds numbers, which are aligned right."""
    empty: bool
    """Whether there is nothing in it but zeros."""


def table_lines(
    rows: Sequence[Mapping[str, object]], width: int, *, total: bool = False, optional: Sequence[str] = ()
) -> Iterator[tuple[str, bool]]:
    """Lay out a table, and say of each line whether it is a heading. The first column names the row.

    A table that is too wide has headings of several lines, and lacks optional columns, and columns in which there is
    nothing; a line below it names them. If it lacks most of them, the name of each row has a line of its own above
    the facts, which may take several lines. Where even that is too wide, the facts are text.

    Args:
        width: cells of the screen.
        total: whether the last row is the sum of the others.
        optional: columns that may be left out, the most important first.
    """
    columns = _columns(rows, total=total)
    or_empty = [*optional, *(column.name for column in columns[1:] if column.empty and column.name not in optional)]
    for shown in (columns, _fitting(columns, width, or_empty)):
        for several_lines in (False, True):
            heading, body = _grid(shown, several_lines=several_lines)
            most = 2 * (len(columns) - len(shown)) <= len(or_empty) + 1
            if most and _fits(heading + body, width):
                rule = "─" * max(map(cell_len, heading + body))
                yield from ((line, True) for line in heading)
                yield rule, False
                yield from ((line, False) for line in (body[:-1] if total else body))
                yield from ((rule, False), (body[-1], False)) if total else ()
                yield from _note(columns, shown, width)
                return
    names, *facts = columns
    room = width - len(INDENT)
    shown = _fitting(facts, room, or_empty)
    if len(_blocks(shown, room)) > 1:
        shown = _fitting(facts, room, optional)
    fewest = len(_blocks(shown, room))
    narrowest = next(cells for cells in range(room + 1) if len(_blocks(shown, cells)) <= fewest) if room > 0 else 0
    blocks = [_grid(block, several_lines=True) for block in _blocks(shown, narrowest)]
    if 1 <= len(blocks) <= MAX_BLOCKS and all(_fits(heading + body, room) for heading, body in blocks):
        yield from ((f"{INDENT}{line}", True) for heading, _ in blocks for line in heading)
        yield "─" * max(cell_len(f"{INDENT}{line}") for heading, body in blocks for line in heading + body), False
        for name, *lines in zip(names.cells, *(body for _, body in blocks), strict=True):
            yield name, True
            yield from ((f"{INDENT}{line}", False) for line in lines)
        yield from _note(facts, shown, width)
        return
    for number, name in enumerate(names.cells):
        yield name, True
        known = ((column.name.replace("_", " "), column.cells[number].strip()) for column in facts)
        text = "; ".join(f"{fact}: {cell}" for fact, cell in known if cell)
        yield from ((line, False) for line in wrap(f"{INDENT}{text}", width))


def _blocks(columns: Sequence[_Column], width: int) -> list[list[_Column]]:
    """Split columns into as few lines as they fit into."""
    blocks: list[list[_Column]] = []
    for column in columns:
        heading, body = _grid([*blocks[-1], column] if blocks else [column], several_lines=True)
        if blocks and _fits(heading + body, width):
            blocks[-1].append(column)
        else:
            blocks.append([column])
    return blocks


def _fitting(columns: Sequence[_Column], width: int, optional: Sequence[str]) -> list[_Column]:
    """Return the columns that are not optional, and those of the optional ones for which there is room."""
    kept: set[str] = {column.name for column in columns} - set(optional)
    for name in optional:
        heading, body = _grid([column for column in columns if column.name in kept | {name}], several_lines=True)
        if _fits(heading + body, width):
            kept.add(name)
    return [column for column in columns if column.name in kept]


def _note(columns: Sequence[_Column], shown: Sequence[_Column], width: int) -> Iterator[tuple[str, bool]]:
    if left_out := ", ".join(column.name.replace("_", " ") for column in columns if column not in shown):
        yield from ((line, False) for line in wrap(f"The window is too narrow for: {left_out}. --json has all.", width))


def wrap(text: str, width: int) -> list[str]:
    """Break a text between words into lines of a width, with the blanks at its beginning before each line.

    A word that is longer than a line stays in one piece, where it is.
    """
    words = text.lstrip(" ").split(" ")
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines = [f"{indent}{words[0]}"]
    for word in words[1:]:
        if cell_len(f"{lines[-1]} {word}") > width >= cell_len(f"{indent}{word}"):
            lines.append(f"{indent}{word}")
        else:
            lines[-1] += f" {word}"
    return lines


def _columns(rows: Sequence[Mapping[str, object]], *, total: bool) -> list[_Column]:
    found = []
    for name in rows[0]:
        values = [None if name == "cost" and not priced(row) else row[name] for row in rows]
        shown = list(map(escaped, cells(values, unknown="unknown", total=total)))
        right = any(isinstance(value, int | float | Decimal) for value in values)
        empty = all(value == 0 or value == "" for value in values)
        found.append(_Column(name, shown, right, empty))
    return found


def _grid(columns: Sequence[_Column], *, several_lines: bool) -> tuple[list[str], list[str]]:
    """Return the lines of the heading, and those of the rows."""
    headings = [column.name.replace("_", " ") for column in columns]
    widest = [max(map(cell_len, column.cells), default=0) for column in columns]
    stacked = [
        heading.split() if several_lines and cell_len(heading) > cells else [heading]
        for heading, cells in zip(headings, widest, strict=True)
    ]
    height = max(map(len, stacked), default=0)
    above = [[""] * (height - len(words)) + words for words in stacked]
    widths = [max(map(cell_len, words + column.cells)) for words, column in zip(above, columns, strict=True)]

    def lines(table: Sequence[Sequence[str]]) -> list[str]:
        return [
            GAP.join(
                " " * (width - cell_len(cell)) + cell if column.right else cell + " " * (width - cell_len(cell))
                for column, width, cell in zip(columns, widths, row, strict=True)
            ).rstrip()
            for row in zip(*table, strict=True)
        ]

    return lines(above), lines([column.cells for column in columns])


def _fits(lines: Sequence[str], width: int) -> bool:
    return max(map(cell_len, lines), default=0) <= width
