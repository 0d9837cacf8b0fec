"""Which files of a folder are documents, queries and judgements: BEIR's folders, and those that the hub exports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._display import shown_name
from ..errors import ConfigError
from ._rows import shown_path

FORMATS = (".jsonl", ".parquet", ".csv", ".tsv", ".json", ".ndjson")
COMPRESSED = tuple(f"{suffix}.gz" for suffix in FORMATS)
TABLES = (*COMPRESSED, *FORMATS)
GRADED = (*TABLES, ".txt", ".qrels", ".qrel", ".trec")
CORPUS = ("corpus", "documents", "docs", "collection", "passages")
QUERIES = ("queries", "topics", "questions")
QRELS = ("qrels", "default", "judgements", "judgments")
LABELS = "labels.json"
TEST = "test"
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True, slots=True)
class Collection:
    """The files of one collection; queries and judgements may be missing."""

    corpus: list[Path]
    queries: list[Path]
    qrels: list[Path]


def find_collection(folder: Path, split: str | None) -> Collection | None:
    """Return the files of a folder with a corpus; ``None`` where there is none.

    Raises:
        ConfigError: the folder has several splits, and not the one that is wanted.
    """
    corpus = _part(folder, CORPUS, split)
    if not corpus:
        return None
    queries = _part(folder, QUERIES, split)
    qrels = _part(folder, QRELS, split, GRADED, strict=True)
    if not qrels and (labels := folder / LABELS).is_file():
        qrels = [labels]
    if not qrels and queries and (folder / "data").is_dir():
        qrels = shards(folder / "data", split)
    return Collection(corpus, queries, qrels)


def _part(
    folder: Path, names: Sequence[str], split: str | None, suffixes: Sequence[str] = TABLES, *, strict: bool = False
) -> list[Path]:
    for name in names:
        for suffix in suffixes:
            if (file := folder / f"{name}{suffix}").is_file():
                return [file]
        if (inside := folder / name).is_dir() and (found := shards(inside, split, suffixes, strict=strict)):
            return found
    return []


def shards(folder: Path, split: str | None, suffixes: Sequence[str] = TABLES, *, strict: bool = False) -> list[Path]:
    """Return the files of a folder whose rows belong together, such as ``test-00000-of-00002.parquet``.

    Args:
        split: which of several; by default ``test``.
        strict: whether the only one has to be the one that is named.

    Raises:
        ConfigError: the files are of several splits, and not of the one that is wanted.
    """
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)
        if suffix and path.is_file() and not path.name.startswith("."):
            splits.setdefault(SHARD.sub("", path.name[: -len(suffix)]), []).append(path)
    wanted = split or TEST
    if len(splits) <= 1 and not (strict and splits and split and split not in splits):
        return [path for paths in splits.values() for path in paths]
    if wanted in splits:
        return [path for path in splits[wanted] if path.suffix == splits[wanted][0].suffix]
    there = ", ".join(shown_name(name) for name in list(splits)[:20])
    raise ConfigError(
        f"{shown_path(folder)} has {there}, and no {shown_name(wanted)}. Choose one: --subset (in Python: split=)."
    )
