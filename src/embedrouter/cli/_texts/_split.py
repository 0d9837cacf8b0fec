"""Splitting texts as a program does: with the splitters of LangChain and LlamaIndex, so that their chunks are warmed.

What these frameworks embed is not always what a splitter returns. LlamaIndex embeds a node's metadata before its text,
and its ``SimpleDirectoryReader`` puts the path of the file there; so files are read by that reader, and the text of a
node is the one that LlamaIndex's embedders are given.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import ConfigError

LANGCHAIN, LLAMA_INDEX = "langchain", "llama-index"
MODULES = {LANGCHAIN: "langchain_text_splitters", LLAMA_INDEX: "llama_index.core.node_parser"}
PACKAGES = {LANGCHAIN: "langchain-text-splitters", LLAMA_INDEX: "llama-index-core"}
EXAMPLES = (
    "langchain:RecursiveCharacterTextSplitter, llama-index:SentenceSplitter, or my_module:make_splitter of your own"
)


class Splitter:
    """Split texts by a splitter of LangChain or LlamaIndex, or of the user's own.

    Args:
        name: ``langchain:CLASS``, ``llama-index:CLASS``, with ``.METHOD`` for another constructor, or ``MODULE:NAME``
            of a class or function that makes a splitter: an object of either framework, or a function from a text to
            texts.
        settings: ``NAME=VALUE`` for each argument; a value is JSON, or a text.

    Raises:
        ConfigError: there is no such splitter or setting, or its package is not installed.
    """

    def __init__(self, name: str, settings: Sequence[str] = ()) -> None:
        self._name = name
        source, _, path = name.partition(":")
        if not path:
            raise ConfigError(f"--split {name} names no splitter. Write {EXAMPLES}.")
        module = _module(source)
        make = _member(module, source, path)
        arguments = dict(map(_setting, settings))
        _require_known(make, arguments, name)
        with self._explained("cannot be made with these settings"):
            self._splitter = make(**arguments)
        self.reads_files: bool = hasattr(self._splitter, "get_nodes_from_documents")
        """Whether ``split_file`` gives what a program would embed of a file."""
        if not (self.reads_files or hasattr(self._splitter, "split_text") or callable(self._splitter)):
            kind = type(self._splitter).__name__
            raise ConfigError(f"--split {name} gives a {kind}, which is no splitter. Write {EXAMPLES}.")
        if getattr(self._splitter, "embed_model", None) is not None:
            raise ConfigError(f"--split {name} embeds texts to split them, which would be paid for. Choose another.")

    def split_file(self, path: Path) -> list[str]:
        """Return the chunks of a file that is one text, as LlamaIndex's ``SimpleDirectoryReader`` reads it."""
        with self._explained(f"failed on {path}"):
            reader = import_module("llama_index.core").SimpleDirectoryReader(input_files=[path], raise_on_error=True)
            return self._nodes(reader.load_data())

    def split_text(self, text: str) -> list[str]:
        """Return the chunks of a text."""
        with self._explained("failed"):
            if self.reads_files:
                return self._nodes([import_module("llama_index.core").Document(text=text)])
            split = getattr(self._splitter, "split_text", self._splitter)
            return [getattr(chunk, "page_content", chunk) for chunk in split(text)]

    def _nodes(self, documents: Sequence[Any]) -> list[str]:
        mode = import_module("llama_index.core.schema").MetadataMode.EMBED
        return [node.get_content(metadata_mode=mode) for node in self._splitter.get_nodes_from_documents(documents)]

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ConfigError(f"--split {self._name} {what}: {reason}") from error


def _module(source: str) -> Any:
    name = MODULES.get(source, source)
    try:
        return import_module(name)
    except ImportError as error:
        if source in MODULES:
            raise ConfigError(
                f"--split {source}:… needs {PACKAGES[source]}, which is not installed. "
                f"Run: pip install {PACKAGES[source]}"
            ) from error
        raise ConfigError(f"--split: the module {name!r} cannot be imported ({error}). Write {EXAMPLES}.") from error


def _member(module: Any, source: str, path: str) -> Any:
    """Return the class or function of a dotted path inside a module."""
    found = module
    for part in path.split("."):
        there = _splitters(module) if found is module else _constructors(found)
        found = getattr(found, part, None)
        if not callable(found) or part.startswith("_"):
            raise ConfigError(f"There is no splitter {source}:{path}. {_choice(part, there)}")
    return found


def _choice(wrong: str, there: Sequence[str]) -> str:
    near = get_close_matches(wrong, there, 1)
    return f"{f'Did you mean {near[0]}? ' if near else ''}There are: {', '.join(there) or 'none'}."


def _splitters(module: Any) -> list[str]:
    names = sorted(getattr(module, "__all__", vars(module)))
    return [name for name in names if name.endswith(("Splitter", "Parser")) and not name.startswith("_")]


def _constructors(kind: Any) -> list[str]:
    return [name for name in dir(kind) if name.startswith("from_")]


def _setting(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"--split-option {given} has no value. Write NAME=VALUE, such as chunk_size=1000.")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _require_known(make: Any, arguments: Mapping[str, Any], name: str) -> None:
    known = _arguments(make)
    if known is None:
        return
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"{name} has no setting {argument!r}. {_choice(argument, known)}")


def _arguments(make: Any) -> list[str] | None:
    """Return the arguments of a constructor, with those that it hands to its base classes; ``None`` if any is taken."""
    owner = make if isinstance(make, type) else getattr(make, "__self__", None)
    called = [make] if not isinstance(make, type) else []
    if isinstance(owner, type):
        called += [vars(kind)["__init__"] for kind in owner.__mro__[:-1] if "__init__" in vars(kind)]
    names: dict[str, None] = {}
    for function in called:
        parameters = inspect.signature(function).parameters.values()
        names |= dict.fromkeys(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return [name for name in names if name not in ("self", "cls")]
    return None
