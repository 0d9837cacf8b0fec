"""The files of people on the command line: which are taken, how each is read, and what is said of the others."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from embedrouter.cli._texts import LocatedText, TextOptions, Texts
from embedrouter.errors import ConfigError
from tests.command_line import run
from tests.emulator import Emulator, count_tokens

SHARED = Path(__file__).parents[2] / "shared" / "retrieval"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, entered."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, content: str | bytes = "a text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(*paths: str, **options: Any) -> list[LocatedText]:
    return list(Texts(TextOptions(list(paths), **options)))


def texts_of(*paths: str, **options: Any) -> list[str]:
    return [item.text for item in read(*paths, **options)]


def skipped(*paths: str, **options: Any) -> dict[str, list[str]]:
    texts = Texts(TextOptions(list(paths), **options))
    list(texts)
    return {row["reason"]: row["names"] for row in texts.skipped.rows()}


# Which files


@pytest.mark.parametrize(
    ("paths", "taken"),
    [
        (["docs"], ["docs/a.md", "docs/sub/b.md"]),
        (["docs/**/*.md"], ["docs/a.md", "docs/sub/b.md"]),
        (["docs/*.md", "docs"], ["docs/a.md", "docs/sub/b.md"]),
        (["docs/*"], ["docs/a.md", "docs/c.unknown", "docs/sub/b.md"]),
        (["docs/s?b/[ab].md"], ["docs/sub/b.md"]),
        (["./docs/c.unknown", "docs/sub"], ["docs/c.unknown", "docs/sub/b.md"]),
        (["."], ["docs/a.md", "docs/sub/b.md"]),
    ],
)
def test_paths_folders_and_globs_name_files_once(place: Path, paths: list[str], taken: list[str]) -> None:
    """A glob means the same quoted and expanded by a shell; a suffix counts where a folder is named."""
    for name in ("docs/a.md", "docs/sub/b.md", "docs/c.unknown"):
        write(place / name)

    assert [item.id for item in read(*paths)] == taken


def test_what_git_ignores_is_what_git_says(place: Path) -> None:
    """Nested files, negation, anchors, and the repository's own exclude file, compared with git."""
    subprocess.run(["git", "init", "-q"], check=True, cwd=place)
    write(place / ".git/info/exclude", "*.private.md\n")
    write(place / ".gitignore", "/build/\n*.log.md\n!keep.log.md\ndeep/**/x.md\nodd\\ name.md\n!\n")
    write(place / "sub/.gitignore", "!again.log.md\nlocal.md\n/top.md\n")
    names = ["a.md", "a.log.md", "keep.log.md", "build/a.md", "sub/build/a.md", "sub/again.log.md", "sub/local.md"]
    names += ["sub/in/local.md", "sub/in/top.md", "sub/top.md", "deep/a/b/x.md", "deep/x.md", "odd name.md"]
    for name in [*names, "p.private.md"]:
        write(place / name)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"], check=True, cwd=place, capture_output=True
    ).stdout.decode()

    assert [item.id for item in read(".")] == sorted(n for n in listed.split("\0") if n.endswith(".md"))
    assert [item.id for item in read("sub")] == [
        n for n in sorted(listed.split("\0")) if n.startswith("sub/") and "md" in n
    ]


def test_secrets_packages_and_hidden_files_are_left_out_and_said(place: Path) -> None:
    """Nothing of these is for a provider's eyes; ``--no-ignore`` takes them."""
    for name in ("a.md", "secrets.txt", "node_modules/x/README.md", "my-env/pyvenv.cfg", "my-env/b.md", ".hidden/c.md"):
        write(place / name)
    for name in (".env", "id_rsa", "server.pem", "credentials.json"):
        write(place / name, '{"text": "key"}')

    assert [item.id for item in read(".")] == ["a.md"]
    assert skipped(".") == {
        "may hold secrets; --no-ignore takes them": [".env", "credentials.json", "id_rsa", "secrets.txt", "server.pem"],
        "hidden": [".hidden/"],
        "packages of others": ["my-env/", "node_modules/"],
    }
    assert len(read(".", no_ignore=True)) == 6
    assert [item.id for item in read("a.md", "secrets.txt")] == ["a.md"]
    with pytest.raises(ConfigError, match="secrets"):
        read("secrets.txt")


def test_excluded_files_are_left_out(place: Path) -> None:
    """By a pattern as in .gitignore, matched from here and from the folder."""
    for name in ("docs/a.md", "docs/old/b.md", "docs/c.txt", "d.md"):
        write(place / name)

    assert [item.id for item in read("docs", "d.md", exclude=["docs/old", "*.txt", "./d.md"])] == ["docs/a.md"]
    assert [item.id for item in read("docs", exclude=["old/", "!old/b.md"])] == ["docs/a.md", "docs/c.txt"]


@pytest.mark.skipif(os.name == "nt", reason="links, pipes and names of bytes")
def test_what_cannot_be_read_is_left_out_and_said(place: Path) -> None:
    """Links in circles, links that lead out, pipes, binary files, files that are no text."""
    write(place / "out.md")
    folder = place / "folder"
    write(folder / "a.md")
    (folder / "circle").symlink_to(folder)
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "out.md").symlink_to(place / "out.md")
    (folder / "same.md").symlink_to("a.md")
    os.mkfifo(folder / "pipe.md")
    write(folder / "binary.txt", b"\0\1")
    write(folder / "latin.txt", b"caf\xe9")
    write(folder / "utf16.txt", "text".encode("utf-16"))
    write(folder / "blank.txt", " \n")
    write(folder / "huge.txt", b"x" * 5_000_001)
    (folder / "x.json").mkdir()
    (Path(os.fsdecode(os.fsencode(folder) + b"/n\xffme.md"))).write_text("named")

    assert [item.id for item in read("folder")] == ["folder/a.md", "folder/n\\udcffme.md", "folder/same.md"]
    found = skipped("folder")
    assert {reason: len(names) for reason, names in found.items()} == {
        "a link to a folder": 1,
        "a link to a file outside the folder": 1,
        "no regular file": 1,
        "not text": 1,
        "not UTF-8 text": 1,
        "UTF-16 text, not UTF-8": 1,
        "empty": 1,
        "over 5 MB": 1,
        next(reason for reason in found if found[reason] == ["folder/loop.md"]): 1,
    }
    assert len(read("folder/huge.txt")) == 1


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_pipe_is_read_once_and_kept(place: Path) -> None:
    """As with process substitution of a shell; estimate and embedding read it twice."""
    os.mkfifo(place / "pipe")
    thread = threading.Thread(target=(place / "pipe").write_text, args=("one\ntwo\n",))
    thread.start()
    texts = Texts(TextOptions(["pipe"]))
    try:
        assert [item.text for item in texts] == [item.text for item in texts] == ["one", "two"]
    finally:
        texts.close()
        thread.join()


# How they are read


PAGE = (
    "<html><head><title>A page</title><style>p {}</style></head><body><script>x < 1</script><h1>Tea</h1><p>Green &amp;"
    "\n <b>hot</b>.<p>Next<br>line<table><tr><td>1<td>2</table><pre>a  b\nc</pre><svg><title>no</title></svg></body>"
)
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"output_type": "stream", "text": ["secret"]}]},
        {"cell_type": "raw", "source": "raw"},
    ]
}
ROWS = [{"text": "one", "n": {"b": ["x", "y"]}}, {"text": "two", "n": {"b": ["z"]}}]


@pytest.mark.parametrize(
    ("name", "content", "options", "texts"),
    [
        ("a.html", PAGE, {}, ["A page\nTea\nGreen & hot.\nNext\nline\n1 2\na b\nc"]),
        ("a.ipynb", json.dumps(NOTEBOOK), {}, ["# Title\ntext\n\nx = 1"]),
        ("a.csv", '\ufefftext,n\r\n"a, ""b""\nc",1\r\nd,2\r\n', {}, ['a, "b"\nc', "d"]),
        ("a.csv", "id;text\n1;a,b\n", {}, ["a,b"]),
        ("a.tsv", "id\ttext\n1\ta,b\n", {}, ["a,b"]),
        ("a.csv", "a.b,c\nx,y\n", {"fields": ["a.b", "c"], "join": ": "}, ["x: y"]),
        ("a.csv", "text\n" + "x" * 200_000 + "\n", {}, ["x" * 200_000]),
        ("a.json", json.dumps(ROWS), {}, ["one", "two"]),
        ("a.json", json.dumps(["one", "two"]), {}, ["one", "two"]),
        ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=1), {}, ["one", "two"]),
        ("a.json", json.dumps({"a": [], "data": ROWS}), {"fields": ["data.*.text"]}, ["one", "two"]),
        ("a.json", json.dumps({"text": "one", "tags": ["x"]}), {}, ["one"]),
        ("a.json", "[" + " " * 65_533 + '12, "x"]', {"skip_bad": True}, ["x"]),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)), {"fields": ["n.b.0"]}, ["x", "z"]),
        ("a.ndjson", "\n".join(map(json.dumps, ROWS)), {"fields": ["n.b.*"]}, ["x", "y", "z"]),
        (
            "a.jsonl",
            '{"title": "", "text": "a"}\n{"title": "T", "text": "b"}',
            {"fields": ["title", "text"]},
            ["a", "T\nb"],
        ),
        ("words.txt", "one\n\ntwo\r\n", {"format": "lines"}, ["one", "two"]),
        ("page.html", "<b>x</b>", {"format": "text"}, ["<b>x</b>"]),
        ("README", "a text", {}, ["a text"]),
    ],
)
def test_formats(place: Path, name: str, content: str, options: dict[str, Any], texts: list[str]) -> None:
    """Plain and compressed, each text exactly."""
    write(place / name, content)
    write(place / f"{name}.gz", gzip.compress(content.encode()))

    assert texts_of(name, **options) == texts
    assert texts_of(f"{name}.gz", **options) == texts


def test_parquet_is_read_by_column(place: Path) -> None:
    """Columns of structs and lists, in batches; a file without the column is said to have others."""
    table = pyarrow.table({"n": [1, 2], "meta": [{"body": "a"}, {"body": "b"}]})
    parquet.write_table(table, place / "a.parquet")
    write(place / "b.parquet.gz", gzip.compress((place / "a.parquet").read_bytes()))

    assert texts_of("a.parquet", fields=["meta.body"]) == texts_of("b.parquet.gz", fields=["meta.body"]) == ["a", "b"]
    assert [item.id for item in read("a.parquet", fields=["meta.body"], id_field="n")] == ["1", "2"]
    with pytest.raises(ConfigError, match=r"no column 'text'. Columns there: 'n', 'meta'"):
        read("a.parquet")


def test_ids_are_those_of_rows_or_of_places(place: Path) -> None:
    """A row without an id has its file and line."""
    write(place / "a.jsonl", '{"id": 7, "text": "one"}\n\n{"text": "two"}\n')
    write(place / "b.md", "one two three")

    assert [item.id for item in read("a.jsonl", "b.md", id_field="id")] == ["7", "a.jsonl:3", "b.md"]
    split = read(
        "b.md",
        split="langchain:CharacterTextSplitter",
        split_options=["chunk_size=5", 'separator=" "', "chunk_overlap=0"],
    )
    assert [(item.id, item.location, item.text) for item in split] == [
        ("b.md#1", "b.md, chunk 1", "one"),
        ("b.md#2", "b.md, chunk 2", "two"),
        ("b.md#3", "b.md, chunk 3", "three"),
    ]


# What is wrong


BROKEN = [
    ("a.json", b"[" * 200_000, "nested too deeply"),
    ("a.json", b'{"a":' * 200_000, "no JSON"),
    ("a.json", b'[{"text": "one"}, {"text": ', "a.json, row 2: broken JSON"),
    ("a.json", b'[{"text": "one"} {"text": "two"}]', "a.json, row 2: broken JSON"),
    ("a.json", b'{"a": [], "b": []}', "several lists, 'a', 'b'"),
    ("a.json", b'{"text": NaN}', "holds a number"),
    ("a.json", b"", "a.json"),
    ("a.jsonl", b"[" * 200_000, "a.jsonl, line 1: JSON that is nested too deeply"),
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", "a.jsonl, line 1: JSON with a number that is too long"),
    ("a.jsonl", b'{"text": "one"}\n{"text": "\\ud800"}', "a.jsonl, line 2: a text with half of a character"),
    (
        "a.jsonl",
        b'{"text": "one"}\n{"text": null}',
        "a.jsonl, line 2: the field 'text' holds null. Fields there: 'text'",
    ),
    (
        "a.jsonl",
        b'{"text": "one"}\n{"text": ["two"]}',
        "a.jsonl, line 2: the field 'text' holds a list. --field text.*",
    ),
    ("a.jsonl", b'{"text": "one"}\n{"text": 2}', "a.jsonl, line 2: the field 'text' holds a number"),
    ("a.jsonl", b'{"text": "one"}\n{"text": " "}', "a.jsonl, line 2: the field 'text' holds an empty text"),
    (
        "a.jsonl",
        b'{"text": "one"}\n{"body": "two"}',
        "a.jsonl, line 2: the field 'text' is missing. Fields there: 'body'",
    ),
    ("a.csv", b"text,n\none,1\ntwo\n", "a.csv, line 3: 1 cells under 2 columns"),
    ("a.csv", b"text,n\none,1\nt\0wo,2\n", "a.csv, line 3: not text"),
    ("a.csv", b"text,n\none,1\ncaf\xe9,2\n", "a.csv, line 3: not UTF-8 text"),
    ("a.csv", b'text,n\none,1\n"two,2\n', "a.csv, line 3: a broken row"),
    ("a.csv", b"a,b\none,1\n", "no column 'text'. Columns there: 'a', 'b'"),
    ("a.csv", b"", "There is no text"),
    ("a.md.gz", gzip.compress(b"a text" * 1000)[:-12], "compressed data that end too early"),
    ("a.md.gz", b"a text", "damaged compressed data"),
    ("a.parquet", b"PAR1", "no Parquet file"),
    ("a.ipynb", b'{"cells": 1}', "no Jupyter notebook"),
    ("a.txt", b"caf\xe9", "not UTF-8 text"),
    ("a.unknown", b"\0", "not text"),
]


@pytest.mark.parametrize(("name", "content", "says"), BROKEN, ids=[f"{row[0]}-{n}" for n, row in enumerate(BROKEN)])
def test_broken_files_give_one_sentence(place: Path, name: str, content: bytes, says: str) -> None:
    """With the file and the line, and never a traceback; bad parts are left out on request."""
    write(place / name, content)
    write(place / "good.md")

    done = run("estimate", name)
    lenient = run("estimate", name, "good.md", "--skip-bad", "--json")

    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith("embedrouter: ")
    assert done.stderr.count("\n") == 1
    assert lenient.returncode == 0, lenient.stderr
    assert json.loads(lenient.stdout)["tiers"][0]["texts"] >= 1


def test_bad_rows_are_counted_and_listed(place: Path) -> None:
    """And the rest goes on."""
    write(place / "a.jsonl", '{"text": "one"}\nno\n{"text": 3}\n{"text": "four"}\n{"text": 5}\n')

    done = run("warm", "a.jsonl", "--skip-bad", "--cache", "kept")

    assert done.returncode == 0
    assert "2 texts: 2 embedded" in done.stdout
    assert "skipped, broken JSON: 1 (a.jsonl, line 2)" in done.stdout
    assert "skipped, the field 'text' holds a number: 2 (a.jsonl, line 3, a.jsonl, line 5)" in done.stdout


def test_files_of_another_kind_are_left_out_of_a_folder(place: Path) -> None:
    """A project holds tables and settings without any text; each is said."""
    for name, content in (
        ("package.json", '{"name": "x"}'),
        ("a.csv", "x,y\n1,2\n"),
        ("b.json", "// no"),
        ("c.md", "c"),
    ):
        write(place / name, content)

    assert texts_of(".") == ["c"]
    assert skipped(".") == {
        "no column 'text'": ["a.csv"],
        "no JSON": ["b.json"],
        "the field 'text' is missing": ["package.json"],
    }


def test_a_file_that_changes_is_not_embedded(place: Path) -> None:
    """A person agreed to the price of what was counted."""
    write(place / "a.md", "one")
    write(place / "b.md", "two")
    texts = Texts(TextOptions(["a.md", "b.md"]))
    list(texts)
    write(place / "b.md", "a much longer text")

    again = iter(texts)

    assert next(again).text == "one"
    with pytest.raises(ConfigError, match=r"b\.md is not what was counted"):
        next(again)
    (place / "b.md").unlink()
    with pytest.raises(ConfigError, match=r"b\.md cannot be read"):
        list(texts)


def test_a_list_shows_what_would_be_taken(place: Path) -> None:
    """Without a router: no configuration is read and no model loaded."""
    write(place / "embedrouter.toml", "broken")
    write(place / "a.md")
    write(place / "b.png")

    shown = run("warm", ".", "--list")
    facts = json.loads(run("estimate", ".", "--list", "--json").stdout)

    assert shown.stdout.splitlines() == [
        "a.md: 1 text, 6 characters",
        "skipped, a .png file: 1 (b.png)",
        "skipped, a .toml file: 1 (embedrouter.toml)",
        "1 text in 1 file.",
    ]
    assert facts["files"] == [{"file": "a.md", "texts": 1, "characters": 6}]
    assert [row["reason"] for row in facts["skipped"]] == ["a .png file", "a .toml file"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["estimate", "a.md", "--model", "openai:x", "--model", "openai:y"],
        ["warm", "a.md", "--cache", "x", "--cache", "y"],
        ["cache", "info", "--cache", "x", "--cache", "y"],
    ],
)
def test_an_option_that_takes_one_value_is_refused_twice(place: Path, arguments: list[str]) -> None:
    """The last would win silently."""
    done = run(*arguments)

    assert done.returncode == 2
    assert "is given 2 times" in done.stderr


# Texts that are too long, and refused ones


@pytest.fixture
def paid(place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """A configuration that points at the emulator."""
    monkeypatch.setenv("HARBOUR_KEY", "sk-harbour")
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(place / "embedrouter.toml"))
    write(
        place / "embedrouter.toml",
        f'cache = "kept"\n[[models]]\nmodel = "openai:text-embedding-3-small"\nbase_url = "{emulator.openai_url}"\n'
        'api_key_env = "HARBOUR_KEY"\n',
    )
    return emulator


def test_texts_over_the_limit_are_said_and_the_policy_can_be_chosen(place: Path, paid: Emulator) -> None:
    """No text is averaged silently; refused ones are left out on request."""
    write(place / "long.md", "word " * 9000)
    write(place / "short.md")

    refused = run("warm", "long.md", "short.md", "--yes")
    assert refused.returncode == 1
    assert "long.md" in refused.stderr
    assert paid.calls == 0

    left_out = run("warm", "long.md", "short.md", "--yes", "--skip-bad")
    assert "skipped, longer than the model takes: 1 (long.md)" in left_out.stdout
    assert left_out.returncode == 0

    averaged = run("warm", "long.md", "short.md", "--yes", "--on-too-long", "mean")
    assert "1 text is" in averaged.stdout
    assert "the vectors of their parts are averaged. Split texts" in averaged.stdout
    assert "Shortened to the model's limit: 1 text." in averaged.stdout
    assert json.loads(run("estimate", ".", "--on-too-long", "mean", "--json").stdout)["tiers"][0]["too_long"] == 0


# Splitters


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (["langchain"], "names no splitter"),
        (["langchain:RecursiveSplitter"], "RecursiveCharacterTextSplitter"),
        (["llama-index:SentenceSpliter"], "Did you mean SentenceSplitter?"),
        (["no_such_module:x"], "cannot be imported"),
        (["langchain:CharacterTextSplitter.from_tokens"], "from_tiktoken_encoder"),
        (["langchain:RecursiveCharacterTextSplitter", "chunk_sise=5"], "Did you mean chunk_size?"),
        (["langchain:RecursiveCharacterTextSplitter", "chunk_size"], "Write NAME=VALUE"),
        (["langchain:RecursiveCharacterTextSplitter", "chunk_size=10", "chunk_overlap=20"], "chunk overlap"),
        (["langchain:RecursiveCharacterTextSplitter", "chunk_size=many"], "cannot be made"),
        (["llama-index:SentenceSplitter", "chunk_size=1"], "larger chunk overlap"),
        (["json:loads"], "cannot be made"),
    ],
)
def test_wrong_splitters_are_answered_with_the_possible_ones(place: Path, split: list[str], says: str) -> None:
    """Before anything is read or paid."""
    write(place / "a.md")

    done = run("estimate", "a.md", "--split", split[0], *(part for o in split[1:] for part in ("--split-option", o)))

    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_splitter_of_ones_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function from a text to texts, made by a function."""
    write(place / "mine.py", "def make(by):\n    return lambda text: text.split(by)\n")
    write(place / "a.md", "one|two||three")
    monkeypatch.syspath_prepend(str(place))

    assert texts_of("a.md", split="mine:make", split_options=["by=|"]) == ["one", "two", "three"]


DOCUMENTS = {
    "docs/a.md": "# Tea\n\n"
    + "Green tea is brewed with water of 80 degrees. " * 30
    + "\n\n## More\n\nBlack tea is not.\n",
    "docs/sub/b.txt": "\ufeffA mark.\r\n" + "Boats lie in the harbour. " * 40,
    "docs/sub/c.py": "def f():\n    return 1\n",
    "docs/n.ipynb": json.dumps(NOTEBOOK),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset")
def test_what_langchain_and_llama_index_programs_embed_is_what_was_warmed(place: Path, paid: Emulator) -> None:
    """Real loaders, splitters and stores: the program's first run makes no request; the bill is the estimate."""
    from langchain_community.document_loaders import DirectoryLoader, NotebookLoader, TextLoader
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter
    from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
    from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter

    from embedrouter.langchain import RouterEmbeddings
    from embedrouter.llama_index import RouterEmbedding

    for name, content in DOCUMENTS.items():
        write(place / name, content)
    recursive = ["--split", "langchain:RecursiveCharacterTextSplitter", *_options(chunk_size=200, chunk_overlap=20)]
    headers = ["--split", "langchain:MarkdownHeaderTextSplitter", *_options(headers_to_split_on='[["#", "h"]]')]
    sentences = ["--split", "llama-index:SentenceSplitter", *_options(chunk_size=100, chunk_overlap=10)]
    for arguments in (
        recursive,
        [*headers, "--exclude", "*.ipynb"],
        sentences,
        ["--split", "llama-index:MarkdownNodeParser"],
    ):
        expected = json.loads(run("estimate", "docs", *arguments, "--json").stdout)["tiers"][0]
        before = paid.billed.total()
        facts = json.loads(run("warm", "docs", *arguments, "--yes", "--json").stdout)
        assert facts["usage"]["tokens"] == paid.billed.total() - before
        assert expected["tokens"] == facts["usage"]["tokens"] or not expected["exact"]
    calls = paid.calls

    embeddings = RouterEmbeddings("embedrouter.toml")
    loaders: list[tuple[str, Any]] = [("**/*.md", TextLoader), ("**/*.txt", TextLoader), ("**/*.ipynb", NotebookLoader)]
    for glob, loader in loaders:
        documents = DirectoryLoader("docs", glob=glob, loader_cls=loader).load()
        chunks = RecursiveCharacterTextSplitter(chunk_size=200, chunk_overlap=20).split_documents(documents)
        assert chunks
        InMemoryVectorStore.from_documents(chunks, embeddings)
    text = Path("docs/a.md").read_text()
    InMemoryVectorStore.from_documents(MarkdownHeaderTextSplitter([("#", "h")]).split_text(text), embeddings)
    embedding = RouterEmbedding("embedrouter.toml")
    for parser in (SentenceSplitter(chunk_size=100, chunk_overlap=10), MarkdownNodeParser()):
        files = SimpleDirectoryReader("docs", recursive=True).load_data()
        VectorStoreIndex.from_documents(files, embed_model=embedding, transformations=[parser])

    assert paid.calls == calls


def _options(**given: object) -> list[str]:
    return [part for name, value in given.items() for part in ("--split-option", f"{name}={value}")]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no collections here")
def test_whole_collections_are_estimated_to_the_token(place: Path, paid: Emulator) -> None:
    """Estimate, bill and ledger of a public collection."""
    corpus = str(SHARED / "banking77" / "corpus.jsonl")
    texts = dict.fromkeys(json.loads(line)["text"] for line in Path(corpus).read_text().splitlines())

    facts = json.loads(run("warm", corpus, "--yes", "--json").stdout)

    assert facts["distinct"] == len(texts)
    assert facts["usage"]["tokens"] == paid.billed.total() == sum(count_tokens("openai", text) for text in texts)
    assert json.loads(run("estimate", corpus, "--json").stdout)["tiers"][0]["tokens"] == 0


# Anything


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["text", "a", "*", "0"]), inside, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    content=st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    suffix=st.sampled_from(["txt", "html", "ipynb", "csv", "tsv", "json", "jsonl", "md.gz", "json.gz", ""]),
    field=st.sampled_from([None, "text", "a.text", "*.a", "0", ".", ""]),
    skip=st.booleans(),
)
def test_any_content_gives_texts_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, field: str | None, skip: bool
) -> None:
    """And the second reading gives what the first gave."""
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}".rstrip(".")
    path.write_bytes(content)
    texts = Texts(TextOptions([str(path)], fields=None if field is None else [field], skip_bad=skip))
    try:
        first = list(texts)
    except ConfigError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told
    if told:
        return

    assert list(texts) == first
    assert all(item.text.strip() for item in first)
    json.dumps([item.id for item in first]).encode()


@given(rows=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=8))
def test_lists_are_decoded_as_by_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    """Of any strings, indented or not."""
    path = tmp_path_factory.getbasetemp() / "list.json"
    for indent in (None, 2):
        path.write_text(json.dumps(rows, indent=indent))
        assert texts_of(str(path), skip_bad=True) == [text for text in rows if text.strip()]
