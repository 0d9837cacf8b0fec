"""Which part of a row is its text, and which its id: fields by name, inside objects and lists."""

from collections.abc import Iterator, Sequence

from .._display import first_few, shown_name

DEFAULT = "text"
EACH = "*"
MANY = 20
"""Fields that a message names."""
KINDS = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", bytes: "bytes"}


class RowProblemError(Exception):
    """A row holds no text; the message is the reason, as it is counted.

    Args:
        hint: what to do next.
        foreign: whether the row has none of the fields, so that its file may be of another kind.
    """

    def __init__(self, reason: str, hint: str = "", *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.hint, self.foreign = hint, foreign


class Fields:
    """Find the texts and the id of rows.

    Args:
        names: ``a``, or ``a.b`` inside an object, ``a.0`` inside a list, ``a.*`` for each element of a list. The texts
            of several names are joined; those that are missing, null or empty are left out.
        join: is put between these.
        id_name: the field with the id.
    """

    def __init__(self, names: Sequence[str] | None = None, join: str = "\n", id_name: str | None = None) -> None:
        self._named = bool(names)
        self._names = list(names or [DEFAULT])
        self._join, self._id_name = join, id_name

    @property
    def path(self) -> list[str]:
        """The parts of the first name."""
        return self._names[0].split(".")

    @property
    def columns(self) -> dict[str, None]:
        """The columns of a table that may be needed, those of texts first."""
        names = [*self._names, *([self._id_name] if self._id_name else [])]
        return dict.fromkeys(part for name in names for part in (name, name.partition(".")[0]))

    def texts(self, row: object) -> list[str]:
        """Return the texts of a row: one, or one for each element that ``*`` stands for.

        Raises:
            RowProblemError: there is no text.
        """
        if isinstance(row, str) and not self._named:
            return [_checked(row)]
        if not isinstance(row, dict | list):
            raise RowProblemError(f"{_kind(row)} in place of an object with fields", foreign=True)
        if len(self._names) == 1:
            return [_checked(value) for value in self._values(row, self._names[0])]
        parts: list[str] = []
        for name in self._names:
            try:
                parts += self._values(row, name, optional=True)
            except RowProblemError as problem:
                if not problem.foreign:
                    raise
        if not parts:
            wanted = " and ".join(map(shown_name, self._names))
            raise RowProblemError(f"the fields {wanted} hold no text", _fields_of(row), foreign=True)
        return [_checked(self._join.join(parts))]

    def id(self, row: object) -> str:
        """Return the id of a row, or nothing where the row has none.

        Raises:
            RowProblemError: the field holds no text and no whole number.
        """
        if self._id_name is None or not isinstance(row, dict | list):
            return ""
        value = next(values_at(row, self._id_name), None)
        if value is None or value == "":
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise RowProblemError(f"the id {shown_name(self._id_name)} holds {_kind(value)}")
        return _checked(str(value))

    def _values(self, row: object, name: str, *, optional: bool = False) -> list[str]:
        found = list(values_at(row, name))
        shown = shown_name(name)
        if not found:
            raise RowProblemError(f"the field {shown} is missing", _fields_of(row), foreign=True)
        if optional:
            found = [value for value in found if value not in (None, "")]
        texts: list[str] = []
        for value in found:
            if not isinstance(value, str):
                each = f"--field {name}.* takes each element. " if isinstance(value, list) else ""
                raise RowProblemError(f"the field {shown} holds {_kind(value)}", each + _fields_of(row))
            if not value.strip():
                raise RowProblemError(f"the field {shown} holds an empty text", _fields_of(row))
            texts.append(value)
        return texts


def values_at(value: object, name: str) -> Iterator[object]:
    """Return what a name leads to: one value, several with ``*``, none where a part of the name is missing."""
    if isinstance(value, dict) and name in value:
        yield value[name]
        return
    first, _, others = name.partition(".")
    inside: list[object] = []
    if isinstance(value, dict) and first in value:
        inside = [value[first]]
    elif isinstance(value, list) and first == EACH:
        inside = value
    elif isinstance(value, list) and first.isdecimal() and int(first) < len(value):
        inside = [value[int(first)]]
    for element in inside:
        if others:
            yield from values_at(element, others)
        else:
            yield element


def _checked(text: str) -> str:
    """Return a text without half of a character, which no provider takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowProblemError("a text with half of a character (a lone surrogate)") from None
    if not text.strip():
        raise RowProblemError("an empty text")
    return text


def _fields_of(row: object) -> str:
    names = [shown_name(key) for key in row] if isinstance(row, dict) else []
    return f"Fields there: {first_few(names, MANY) or 'none'}. Choose with --field."


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text"
    return next((name for kind, name in KINDS.items() if isinstance(value, kind)), "a number")
