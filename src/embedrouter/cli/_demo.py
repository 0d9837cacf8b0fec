"""``embedrouter demo``: index real texts at two tiers, ask questions at both, and show what was not paid twice.

The texts are the docstrings of Python's standard library, or a folder of the user. The model is wordllama with 64 and
with 256 dimensions, so that neither a key nor the network is needed. All texts go through a vector store of LangChain
or LlamaIndex, as in a program of the user's, and the router's ledger counts every number that is shown. Wordllama is
free of charge: amounts of money are what the counted tokens cost with the model that most programs use.
"""

import ast
import re
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..cache import default_folder
from ..errors import ConfigError
from ..models import load_catalogue
from ..router import Router
from ..spending import Account, cost, tag
from ._console import STEP, Output, exit_on_interrupt, interrupt_message
from ._exclusive import exclusive
from ._ledgers import open_ledger
from ._options import AsJson, CachePlace, NoCache
from ._routers import WORDLLAMA, cache_location
from ._texts import Skipped, TextOptions, Texts

NOTHING = Account()
TAG = "demo"
"""The tag of the spending."""
TIERS = {"low": 64, "high": 256}
"""Dimensions of the vectors."""
PAID_MODEL = "openai:text-embedding-3-small"
QUESTIONS = ["cache the results of a function", "copy a directory tree", "download a file from the web"]
EXCLUDED = {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo"}
"""Parts of the standard library without useful docstrings or not in every Python version."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PASSAGE = re.compile(r"\S(?:.{0,598}\S)?(?=\s|$)|\S{600}", re.DOTALL)
"""As many whole words as fit into 600 characters; a longer word is cut."""

Passage: TypeAlias = tuple[str, str]
"""What a text is about, which is shown as the answer, and the text."""
Add: TypeAlias = Callable[[Sequence[Passage]], object]
Search: TypeAlias = Callable[[str], str]
Fill: TypeAlias = Callable[[Router], tuple[Add, Search]]
"""Open an empty store: what adds passages to it, and what returns the subject of the nearest one."""


def command(
    folder: Annotated[Path | None, typer.Argument(help="Your texts, not Python's docstrings.")] = None,
    ask: Annotated[list[str] | None, typer.Option(help="A question of your own; can be repeated.")] = None,
    cache: CachePlace = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Index real texts in LangChain or LlamaIndex, ask questions at two tiers, and show what was not paid twice.

    Run it twice: the second run is answered from the cache. No key and no network is needed.
    """
    exclusive(cache=cache, no_cache=no_cache)
    output, began = Output(as_json=as_json), time.monotonic()
    with output.busy("reading texts"):
        passages, skipped = read_folder(folder) if folder else (list(read_standard_library()), Skipped())
        framework, fill = _find_framework()
    questions = ask or (first_lines(passages) if folder else QUESTIONS)
    corpus = str(folder) if folder else "the docstrings of Python's standard library"
    kept = None if no_cache else cache or default_folder()  # named, because wordllama is kept only where one asks
    routers = {
        name: Router([WORDLLAMA], dimensions=size, on_too_long="mean", cache=kept) for name, size in TIERS.items()
    }
    location, ledger = cache_location(routers["high"]), routers["high"].ledger.file
    before = _counted(ledger)
    output.line(f"{len(passages):,} texts: {corpus}, in {framework}.", style="bold")
    skipped.show(output)
    low, high = TIERS.values()
    output.line(f"Indexed at tier low ({low} numbers a vector) and high ({high}), and once more, as after a restart.")
    answers: list[dict[str, str]] = [{"question": question} for question in questions]
    with exit_on_interrupt(lambda: interrupt_message(location)), tag(TAG):
        for name, router in routers.items():
            with router:
                search = _index(router, fill, passages, f"tier {name}", output)
                for answer in answers:
                    answer[name] = search(answer["question"])
                if name == "high":
                    _index(router, fill, passages, "tier high, again", output)
    counted, seconds = _counted(ledger, before), time.monotonic() - began
    output.line()
    for answer in answers:
        output.line(answer["question"], style="bold")
        for name in TIERS:
            output.line(f"    {name:<5}{answer[name]}")
    output.line()
    money = _show_money(counted, output)
    output.line(_verdict(counted, seconds, location), style="bold")
    output.line()
    output.line("In your own program, in place of its embedder:")
    output.code(f'  from embedrouter.langchain import RouterEmbeddings\n  RouterEmbeddings("{PAID_MODEL}")')
    output.code(f'  from embedrouter.llama_index import RouterEmbedding\n  RouterEmbedding("{PAID_MODEL}")')
    facts = {"corpus": corpus, "texts": len(passages), "skipped": skipped.rows(), "framework": framework}
    facts |= {"spaces": {name: str(router.space) for name, router in routers.items()}, "cache": location}
    output.json({**facts, "answers": answers, "counted": counted, "money": money, "seconds": seconds})


def _index(router: Router, fill: Fill, passages: Sequence[Passage], description: str, output: Output) -> Search:
    """Fill a new store, and return what searches it."""
    add, search = fill(router)
    with output.progress(description, len(passages)) as advance:
        for start in range(0, len(passages), STEP):
            add(passages[start : start + STEP])
            advance(min(start + STEP, len(passages)), router.usage.cost)
    return search


# What was counted


def _counted(ledger: Path | None, before: Account = NOTHING) -> Account:
    """Return what the ledger says of the demo since it said ``before``."""
    if ledger is None or not ledger.exists():
        return NOTHING
    with open_ledger(ledger) as opened:
        after = opened.totals("tag").get(TAG, NOTHING)
    return Account(*(getattr(after, item.name) - getattr(before, item.name) for item in fields(Account)))


def _show_money(counted: Account, output: Output) -> list[dict[str, object]]:
    """Show the tokens at the price of ``PAID_MODEL``; return the rows."""
    price = load_catalogue()[PAID_MODEL].price
    both = [("embedded", counted.texts, counted.tokens), ("avoided", counted.saved_texts, counted.saved_tokens)]
    rows: list[dict[str, object]] = [
        {"this run": name, "texts": texts, "tokens": tokens, "at OpenAI's price": cost(tokens, price)}
        for name, texts, tokens in (*both, ("asked for", both[0][1] + both[1][1], both[0][2] + both[1][2]))
    ]
    output.table(rows, total=True)
    output.line(
        f"Avoided: texts that were in the cache, or came twice. OpenAI's price is that of {PAID_MODEL}, ${price} per "
        "million tokens. Nothing was paid here: wordllama runs on this machine."
    )
    output.line()
    return rows


def _verdict(counted: Account, seconds: float, location: str | None) -> str:
    if not counted.texts:
        return f"All {counted.saved_texts:,} texts came from the cache: nothing was embedded. {seconds:.1f} s."
    if location is None:
        return f"Done in {seconds:.1f} s, without a cache: the next run embeds all texts again."
    return f"Done in {seconds:.1f} s. Run it again: all texts are in the cache now ({location})."


# Vector stores


def _find_framework() -> tuple[str, Fill]:
    """Return a vector store of an installed framework, and what opens an empty one.

    Raises:
        ConfigError: neither framework is installed.
    """
    with suppress(ImportError):
        from langchain_core.vectorstores import InMemoryVectorStore

        from ..langchain import RouterEmbeddings

        def open_langchain(router: Router) -> tuple[Add, Search]:
            store = InMemoryVectorStore(RouterEmbeddings(router))

            def add(passages: Sequence[Passage]) -> None:
                store.add_texts([text for _, text in passages], [{"subject": subject} for subject, _ in passages])

            return add, lambda question: str(store.similarity_search(question, k=1)[0].metadata["subject"])

        return "LangChain's InMemoryVectorStore", open_langchain
    with suppress(ImportError):
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import TextNode

        from ..llama_index import RouterEmbedding

        def open_llama_index(router: Router) -> tuple[Add, Search]:
            index = VectorStoreIndex(nodes=[], embed_model=RouterEmbedding(router=router))

            def add(passages: Sequence[Passage]) -> None:
                index.insert_nodes([
                    TextNode(text=text, metadata={"subject": subject}, excluded_embed_metadata_keys=["subject"])
                    for subject, text in passages
                ])  # fmt: skip

            def search(question: str) -> str:
                return str(index.as_retriever(similarity_top_k=1).retrieve(question)[0].metadata["subject"])

            return add, search

        return "LlamaIndex's VectorStoreIndex", open_llama_index
    raise ConfigError(
        "The demo fills a vector store of LangChain or LlamaIndex, and neither is installed. "
        "Run: pip install 'embedrouter[langchain]' or 'embedrouter[llama-index]'"
    )


# Texts


def read_folder(folder: Path) -> tuple[list[Passage], Skipped]:
    """Read the files of a folder, in passages short enough for any model; return what was left out, too.

    Raises:
        ConfigError: there is no text.
    """
    with closing(Texts(TextOptions([str(folder)], skip_bad=True))) as texts:
        named = ((item.id.removeprefix(f"{folder}/"), item.text) for item in texts)
        passages = [(name, part) for name, text in named for part in PASSAGE.findall(text)]
    if not passages:
        raise ConfigError(f"There is no text in {folder}. {texts.skipped.summary()}Pass a folder of texts.")
    return passages, texts.skipped


def first_lines(passages: Sequence[Passage]) -> list[str]:
    """Return the first lines of three passages, as questions."""
    chosen = passages[:: max(1, len(passages) // 3)][:3]
    return [text.partition("\n")[0].strip("#=-*/\"'<> \t")[:100] or text for _, text in chosen]


def read_standard_library() -> Iterator[Passage]:
    """Read the docstrings of the public modules, classes and functions of the standard library, which is not imported.

    Each passage begins with the sentence about its module and with its name: a search cannot find a paragraph such as
    "Return the value." alone.

    Raises:
        ConfigError: this Python is installed without its source files.
    """
    root, found = Path(sysconfig.get_path("stdlib")), False
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not all(map(_is_public, parts)) or not EXCLUDED.isdisjoint(parts):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in the strings of the parsed module
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        about = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
        sentence = re.split(r"(?<=[.:])\s", about, maxsplit=1)[0][:200]
        for name, docstring in _docstrings(tree, module):
            for part in PASSAGE.findall(docstring.encode(errors="ignore").decode()):
                found = True
                yield name, f"{module}: {sentence}\n{name}\n{part}"
    if not found:
        raise ConfigError(f"There are no docstrings in {root}: Python is installed without its source. Pass a folder.")


def _is_public(name: str) -> bool:
    return name.isidentifier() and (not name.startswith("_") or (name.startswith("__") and name.endswith("__")))


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Yield every public docstring under a node after its qualified name, from top to bottom."""
    if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
        yield name, docstring
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, DOCUMENTED):
            yield from _docstrings(child, name)
        elif not isinstance(child, ast.Module) and _is_public(child.name):
            yield from _docstrings(child, f"{name}.{child.name}")
