"""What is handed over in place of a list of texts: the texts in it, or the line that makes texts of it.

Data frames, arrays and the documents of frameworks are told apart by the names of their methods, so that none of these
libraries is imported.
"""

import io
import os
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Number
from typing import Any

import numpy as np

from .._display import looks_like_key, shown_name
from ..errors import InvalidInputError
from ..types import plain

COLUMNS = ("text", "texts", "content", "contents", "page_content", "body", "document", "documents", "chunk", "chunks",
           "passage", "sentence", "sentences", "question", "query", "input", "title", "abstract", "summary",
           "description")  # fmt: skip
"""The names under which texts are usually kept, the most usual first."""
ATTRIBUTES = ("page_content", "content", "text", "query_str")
"""The attributes in which objects of frameworks keep a text."""
ARRAY = {"U", "T", "O", "S"}
"""The kinds of numpy's arrays that may hold texts."""
EMPTY, MISSING = "empty", "missing"


def texts_in(given: Any) -> Iterable[Any]:
    """Return what is handed over as an iterable of texts.

    Raises:
        InvalidInputError: it is no collection of texts, or has no order; the message has the line to write.
    """
    if isinstance(given, list | tuple):
        return given
    if reason := _refused(given):
        raise InvalidInputError(f"texts must be a list of strings, not {reason}")
    if isinstance(given, np.ndarray):
        items: list[Any] = given.tolist()
        return items
    return given.to_pylist() if _is_arrow(given) else given  # type: ignore[no-any-return]


def text_in(item: Any) -> Any:
    """Return a text, or that of a document or node, as a plain ``str``; what is no text stays, and is refused.

    A document of LangChain is its ``page_content``; a node of LlamaIndex is its text with those metadata that the node
    has embedded, as in LlamaIndex's own indexes.
    """
    if issubclass(type(item), str):  # isinstance believes what an object says
        return plain(item)
    if type(getattr(item, "page_content", None)) is str:
        return item.page_content
    if _is_node(item):
        return item.get_content(metadata_mode="embed")
    return item


def defect(item: object) -> str:
    """Return why an item that is no string cannot be embedded."""
    if not _is_missing(item):
        return f"not a string but {_kind(item)}"
    return f"{MISSING} ({_kind(item).removesuffix('Type') if not isinstance(item, Number | np.generic) else 'NaN'})"


def line_for(faults: Mapping[int, tuple[Any, str]], given: Any, *, some: bool) -> str:
    """Return the sentence with the line that makes texts of what was handed over.

    Args:
        faults: of each wrong item, the item and its fault.
        some: whether other items are texts.
        given: what was handed over.
    """
    other = next((item for item, fault in faults.values() if fault != EMPTY and not _is_missing(item)), None)
    if isinstance(other, str):
        return "Write [text.encode('utf-8', 'replace').decode() for text in texts]."
    if other is not None:
        return _line_for_item(other, given, some=some)
    missing = [item for item, fault in faults.values() if fault != EMPTY]
    return (
        f"Leave them out: {_filter(given, next(iter(faults)), missing, any(f == EMPTY for _, f in faults.values()))}."
    )


def one_text(text: Any) -> Any:
    """Return the text of a method that embeds one.

    Raises:
        InvalidInputError: it is none; the message has the line to write.
    """
    if type(text) is str and text:
        return text
    found = text_in(text)
    if isinstance(found, str):
        if not found:
            raise InvalidInputError("The text is empty; nothing was sent. Leave the call out.", indices=[0])
        return found
    if isinstance(found, list | tuple):
        how = "Several texts are embedded by embed_documents(texts), in LlamaIndex get_text_embedding_batch(texts)."
        how = how if not found or isinstance(found[0], str) else "Pass the text itself."
    elif isinstance(found, Mapping):
        how = f"Write item[{_key(_pick(found, found))}]."
    else:
        how = f"Write {_of_one(found)}." if _of_one(found) else "Pass the text itself."
    kind = "None" if found is None else _kind(found)
    raise InvalidInputError(f"One text is embedded here, not {kind}; nothing was sent. {how}", indices=[0])


# Collections that are refused


def _refused(given: Any) -> str:
    """Return the kind of what is no collection of texts, and what to write; an empty string for a collection."""
    kind = _kind(given)
    if isinstance(given, str):
        return "one str. Write embed([text], …)."
    if isinstance(given, Mapping):
        return f"{kind}, of which only the keys would be embedded. Write {_of_mapping(given)}."
    if isinstance(given, set | frozenset):
        return f"{kind}, whose order is another in each process. Write sorted(texts)."
    if isinstance(given, io.IOBase):
        one = "file.read()" if isinstance(given, io.TextIOBase) else "file.read().decode()"
        lines = "; for a text in each line [line.rstrip('\\n') for line in file]" if one == "file.read()" else ""
        return f"a file. Write embed([{one}], …){lines}."
    if (names := _columns(given)) is not None:
        return f"{kind}. Write {_of_frame(given)}[{_key(_pick(names))}]."
    if isinstance(given, np.ndarray) or _is_tensor(given):
        return _refused_array(given)
    if isinstance(given, AsyncIterable):
        return f"an asynchronous {kind}. Write aembed_iter(texts, …), or [text async for text in texts]."
    if isinstance(given, Awaitable):
        return f"a {kind}. Await it: embed(await texts, …)."
    if line := _of_one(text_in(given) if _is_node(given) else given):
        return f"one {kind}. Write embed([{line}], …)."
    if type(getattr(given, "page_content", None)) is str or _is_node(given):
        return f"one {kind}. Write embed([{'node' if _is_node(given) else 'document'}], …)."
    if isinstance(given, Iterable):
        return ""
    if isinstance(given, type):
        return f"the type {kind}. Pass the texts themselves."
    return f"{kind}. {'Call it' if callable(given) else 'Pass a list: embed([text], …)'}."


def _of_mapping(given: Mapping[Any, Any]) -> str:
    values = list(given.values())
    if values and all(value is None for value in values):  # of dict.fromkeys
        return "list(texts)"
    column = _pick(given)
    if values and all(isinstance(value, list | tuple) or _is_array(value) for value in values):
        return f"texts[{_key(column)}]"
    if values and _columns(values[0]) is not None:  # the splits of a data set
        return f"texts[{_key(next(iter(given)))}][{_key(_pick(_columns(values[0]) or ()))}]"
    if values and isinstance(values[0], Mapping):
        return f"[item[{_key(_pick(values[0], values[0]))}] for item in texts.values()]"
    return "list(texts.values())"


def _columns(given: Any) -> Sequence[Any] | None:
    """Return the names of the columns of a data frame, a table or a data set."""
    if isinstance(given, type) or _is_array(given):
        return None
    if hasattr(given, "collect_schema"):  # of polars; a lazy frame warns of its columns
        return list(given.collect_schema().names())
    found = getattr(given, "column_names", getattr(given, "columns", None))
    return None if found is None or callable(found) or not isinstance(found, Iterable) else list(found)


def _of_frame(given: Any) -> str:
    if type(given).__name__ == "LazyFrame":
        return "frame.collect()"
    return "frame" if hasattr(given, "columns") and not _is_arrow(given) and "Table" not in _kind(given) else "table"


def _refused_array(given: Any) -> str:
    kind, form = _kind(given), tuple(given.shape)
    if _is_tensor(given) or given.dtype.kind not in ARRAY:
        return f"{kind} of {given.dtype}: numbers, perhaps vectors or token ids. Pass the texts that they were made of."
    if not form:
        return "an array that holds one text. Write embed([text.item()], …)."
    return f"an array of {len(form)} dimensions. Write array.ravel(). One column is array[:, 0]." if form[1:] else ""


# Items that are refused


def _line_for_item(item: Any, given: Any, *, some: bool) -> str:
    of = "texts.to_pylist()" if _is_arrow(given) else "texts"
    if isinstance(item, tuple) and (fields := getattr(item, "_fields", ())):
        name = _pick(fields, dict(zip(fields, item, strict=True)))
        return f"Write [row.{name if str(name).isidentifier() else '…'} for row in texts]."
    if isinstance(item, tuple) and len(item) == 2 and (line := _of_pair(*item)):
        return f"Write {line}."
    if isinstance(item, list | tuple) or _is_array(item):
        return _of_nested(item, given)
    if isinstance(item, Mapping):
        return f"Write [item[{_key(_pick(item, item))}] for item in {of}]."
    if isinstance(item, Number | np.generic) and not isinstance(item, np.datetime64):
        return f"Write {_converted(given) or f'[str(number) for number in {of}]'}."
    if line := _of_one(item):
        name = line.partition(".")[0] if "(" not in line.partition(".")[0] else "item"
        text = f"{name} if isinstance({name}, str) else " if some else ""
        return f"Write [{text}{line} for {name} in {of}]."
    if callable(item):
        return "Call it."
    return f"Write {_converted(given) or f'[str(item) for item in {of}]'}."


def _of_pair(first: Any, second: Any) -> str:
    """Return the line for pairs, such as the items of a dictionary, or documents with their scores."""
    if hasattr(second, "index") and hasattr(second, "iloc"):  # a row of pandas
        return f"[row[{_key(_pick(second.index))}] for _, row in pairs]"
    if isinstance(text_in(second), str):
        return "[text for _, text in pairs]"
    if isinstance(text_in(first), str):
        return "[text for text, _ in pairs]" if isinstance(first, str) else "[item for item, _ in pairs]"
    return ""


def _of_nested(item: Any, given: Any) -> str:
    content = item.dtype.kind if isinstance(item, np.ndarray) else _number_in(item)
    if content and content not in ARRAY:
        what = "token ids" if content in ("i", "u") else "vectors"
        return f"They are {what} already: pass the texts that they were made of."
    if _is_array(given) and hasattr(given, "explode"):
        return "Write series.explode()."
    return "Write [text for part in texts for text in part]."


def _number_in(item: Any) -> str:
    if _is_tensor(item):
        return "f" if "float" in str(item.dtype) else "i"
    number = item[0] if isinstance(item, list | tuple) and item else None
    return "" if not isinstance(number, Number) else "i" if isinstance(number, int) else "f"


def _of_one(item: Any) -> str:
    """Return the expression that makes a text of one item; an empty string where none is known."""
    match item:
        case bytes() | bytearray():
            return "text.decode()"
        case memoryview():
            return "bytes(text).decode()"
        case bool() | Number():
            return "" if _is_missing(item) else "str(number)"
        case os.PathLike():
            return "path.read_text()"
        case io.TextIOBase():
            return "file.read()"
        case io.IOBase():
            return "file.read().decode()"
        case Enum():
            return "item.value"
    if isinstance(item, type) or _is_array(item) or _columns(item) is not None:
        return ""
    for name, line in (("to_string", "prompt.to_string()"), ("as_py", "text.as_py()")):
        if callable(getattr(item, name, None)):
            return line
    for name in ATTRIBUTES[1:]:
        if isinstance(getattr(item, name, None), str):
            role = hasattr(item, "role") or hasattr(item, "type")
            return f"{'query' if name == 'query_str' else 'message' if role else 'item'}.{name}"
    return ""


def _filter(given: Any, position: int, missing: Sequence[Any], empty: bool) -> str:
    """Return the line that leaves out what is missing or empty."""
    library = _library(given)
    if library == "pandas" and _is_array(given):
        name = "index" if hasattr(given, "get_loc") else "series"
        if not empty:
            return f"{name}.dropna()"
        filled = ".fillna('')" if missing else ""
        return f"{name}[{name}{filled}.str.strip() != '']"
    if library == "polars":
        return "series.filter(series.str.strip_chars() != '')" if empty else "series.drop_nulls()"
    of = "texts.to_pylist()" if library == "pyarrow" else "texts"
    if library == "pyarrow" and not empty:
        return "texts.drop_null()"
    if isinstance(given, list | tuple) and position < len(given) and not isinstance(given[position], str):
        if _is_node(given[position]):
            return "[node for node in nodes if node.get_content(metadata_mode='embed').strip()]"
        if hasattr(given[position], "page_content"):
            return "[document for document in documents if document.page_content.strip()]"
    if any(item is not None for item in missing):
        return f"[text for text in {of} if isinstance(text, str) and text.strip()]"
    return f"[text for text in {of} if {'text and ' if missing else ''}text.strip()]"


def _converted(given: Any) -> str:
    """Return how a column of other values becomes one of texts."""
    if _is_array(given) and not isinstance(given, np.ndarray):
        return {"pandas": "series.astype(str)", "polars": "series.cast(str)"}.get(_library(given), "")
    return ""


# Kinds


def label_of(given: Any, position: int) -> str:
    """Return the label of a row of pandas, for a message; an empty string where it is the position, or a text."""
    index = getattr(given, "index", None)
    if _library(given) != "pandas" or index is None or callable(index):
        return ""
    label = index[position]
    word = repr(label.item() if isinstance(label, np.generic) else label) if not isinstance(label, str) else ""
    return "" if word == str(position) else word or shown_name(label)


def _pick(names: Iterable[Any], values: Mapping[Any, Any] | None = None) -> Any:
    """Return the name under which a text is most likely kept."""
    known = list(names)
    usual = [name for name in COLUMNS if name in known]
    texts = [name for name in known if values is not None and isinstance(values[name], str)]
    return next(iter([name for name in usual if not texts or name in texts] + texts + usual + known), "…")


def _key(name: object) -> str:
    """Return a key as it is written, unless it looks like a text or like a secret."""
    if isinstance(name, str):
        return repr(name) if len(name) < 40 and name.isprintable() and not looks_like_key(name) else "'…'"
    return repr(name) if isinstance(name, int) else "…"


def _kind(item: object) -> str:
    return item.__name__ if isinstance(item, type) else type(item).__name__


def _library(given: object) -> str:
    return type(given).__module__.partition(".")[0]


def _is_arrow(given: object) -> bool:
    return _library(given) == "pyarrow" and hasattr(given, "to_pylist") and hasattr(given, "null_count")


def _is_array(given: object) -> bool:
    """Return whether it is an array, a series or an index: of one column."""
    return isinstance(given, np.ndarray) or _is_tensor(given) or _is_arrow(given) or (
        hasattr(given, "dtype") and hasattr(given, "to_list")
    )  # fmt: skip


def _is_tensor(given: object) -> bool:
    return _library(given) in ("torch", "tensorflow", "jax", "jaxlib", "cupy") and hasattr(given, "shape")


def _is_node(item: Any) -> bool:
    return not isinstance(item, type) and callable(getattr(item, "get_content", None)) and "llama_index" in str(
        [kind.__module__ for kind in type(item).__mro__]
    )  # fmt: skip


def _is_missing(item: Any) -> bool:
    """Return whether it is what libraries put where a value is missing."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(item, Number | np.generic) and bool(item != item)
