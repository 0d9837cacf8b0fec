"""Documents, queries and judgements as people have them: each format is read, and what does not fit is said."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from pyarrow import parquet

from embedrouter.comparison import Questions
from embedrouter.comparison._judgements import read_judgements
from embedrouter.comparison._reading import read_questions
from embedrouter.errors import ConfigError
from tests.properties import examples

SHARED = Path(__file__).resolve().parents[2] / "shared" / "retrieval"
if not SHARED.exists():
    SHARED = Path(__file__).resolve().parents[3] / "shared" / "retrieval"

TITLES = {"d1": "Lamps", "d2": "", "d3": "Ropes"}
BODIES = {"d1": "Oil burns in a lamp.", "d2": "A wheel turns.", "d3": "Hemp makes a rope."}
DOCUMENTS = {"d1": "Lamps Oil burns in a lamp.", "d2": "A wheel turns.", "d3": "Ropes Hemp makes a rope."}
QUERIES = {"q1": "what burns", "q2": "what turns"}
GRADES = {"q1": {"d1": 2}, "q2": {"d2": 1, "d3": 1}}
BEIR = [{"_id": name, "title": TITLES[name], "text": BODIES[name]} for name in TITLES]
ASKED = [{"_id": name, "text": text} for name, text in QUERIES.items()]
JUDGED: list[dict[str, Any]] = [
    {"query-id": query, "corpus-id": document, "score": grade}
    for query, found in GRADES.items()
    for document, grade in found.items()
]


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tsv(rows: Sequence[Mapping[str, Any]], *, heading: bool = True) -> str:
    above = "\t".join(rows[0]) + "\n" if heading else ""
    return above + "".join("\t".join(map(str, row.values())) + "\n" for row in rows)


def write(folder: Path, files: Mapping[str, str | bytes | Sequence[Mapping[str, Any]]]) -> Path:
    """Write files; rows become a Parquet file."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        if isinstance(content, bytes):
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        else:
            parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in content]), path)
    return folder


def everything(questions: Questions) -> tuple[object, ...]:
    return dict(questions.documents), dict(questions.queries), dict(questions.relevant), questions.judged_by


ALL = (DOCUMENTS, QUERIES, GRADES, "judgements")


# Folders

FOLDERS: dict[str, dict[str, Any]] = {
    "BEIR": {"corpus.jsonl": lines(BEIR), "queries.jsonl": lines(ASKED), "qrels/test.tsv": tsv(JUDGED)},
    "BEIR without a heading": {
        "corpus.jsonl": lines(BEIR),
        "queries.jsonl": lines(ASKED),
        "qrels/test.tsv": tsv(JUDGED, heading=False),
    },
    "BEIR, compressed": {
        "corpus.jsonl.gz": lines(BEIR),
        "queries.jsonl.gz": lines(ASKED),
        "qrels/test.tsv": tsv(JUDGED),
    },
    "several splits": {
        "corpus.jsonl": lines(BEIR),
        "queries.jsonl": lines(ASKED),
        "qrels/dev.tsv": "q1\td2\t1\n",
        "qrels/test.tsv": tsv(JUDGED),
        "qrels/train.tsv": "q1\td3\t1\n",
    },
    "MTEB with JSON lines": {
        "corpus.jsonl": lines(BEIR),
        "queries.jsonl": lines(ASKED),
        "qrels/test.jsonl": lines(JUDGED),
        "README.md": "configs",
    },
    "the hub's Parquet": {
        "corpus/test-00000-of-00002.parquet": BEIR[:2],
        "corpus/test-00001-of-00002.parquet": BEIR[2:],
        "queries/test-00000-of-00001.parquet": ASKED,
        "qrels/test-00000-of-00001.parquet": JUDGED,
        "qrels/train-00000-of-00001.parquet": [{"query-id": "q1", "corpus-id": "d3", "score": 1}],
    },
    "the hub's Parquet with judgements as default": {
        "corpus/corpus-00000-of-00001.parquet": BEIR,
        "queries/queries-00000-of-00001.parquet": ASKED,
        "data/test-00000-of-00001.parquet": [{**row, "score": float(row["score"])} for row in JUDGED],
    },
    "labels": {
        "corpus.jsonl": lines(BEIR),
        "queries.jsonl": lines(ASKED),
        "labels.json": json.dumps({"corpus": {"d1": "a", "d2": "b", "d3": "b"}, "queries": {"q1": "a", "q2": "b"}}),
    },
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_with_its_queries_and_judgements(tmp_path: Path, name: str) -> None:
    found = read_questions(write(tmp_path / "handbook", FOLDERS[name]))

    grades = {"q1": {"d1": 1}, "q2": {"d2": 1, "d3": 1}} if name == "labels" else GRADES
    assert everything(found) == (DOCUMENTS, QUERIES, grades, "judgements")
    assert (found.name, found.notes) == ("handbook", ())


def test_another_split_is_chosen_and_a_missing_one_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    folder = write(tmp_path, FOLDERS["several splits"])

    assert read_questions(folder, split="dev").relevant == {"q1": {"d2": 1}}
    with pytest.raises(ConfigError, match=r"has 'dev', 'test', 'train', and no 'best'\. Choose one: --subset"):
        read_questions(folder, split="best")
    write(tmp_path / "one", FOLDERS["BEIR"])
    with pytest.raises(ConfigError, match=r"has 'test', and no 'dev'\."):
        read_questions(tmp_path / "one", split="dev")


def test_the_only_judgements_are_used_whatever_they_are_called(tmp_path: Path) -> None:
    files = {name.replace("test", "dev"): content for name, content in FOLDERS["BEIR"].items()}

    assert everything(read_questions(write(tmp_path, files))) == ALL


def test_a_folder_of_one_part_is_read_as_such(tmp_path: Path) -> None:
    """Multilingual sets on the hub have folders such as ``en-corpus``, which are named one by one."""
    write(
        tmp_path,
        {"en-corpus/a-0.jsonl": lines(BEIR), "en-queries/test.parquet": ASKED, "en-qrels/test.csv": csv_of(JUDGED)},
    )

    found = read_questions(tmp_path / "en-corpus", tmp_path / "en-queries", tmp_path / "en-qrels")

    assert everything(found) == ALL


# Files


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    return tsv(rows).replace("\t", ",")


FILES: dict[str, tuple[str, Any]] = {
    "JSON lines": ("corpus.jsonl", lines(BEIR)),
    "a list in JSON": ("corpus.json", json.dumps(BEIR)),
    "an object by id": (
        "corpus.json",
        json.dumps({row["_id"]: {k: row[k] for k in ("title", "text")} for row in BEIR}),
    ),
    "JSON lines named .json": ("corpus.json", lines(BEIR)),
    "CSV": ("corpus.csv", csv_of([{k: row[k] for k in ("_id", "title", "text")} for row in BEIR])),
    "TSV": ("corpus.tsv", tsv([{k: row[k] for k in ("_id", "title", "text")} for row in BEIR])),
    "MS MARCO's pairs": ("collection.tsv", "".join(f"{name}\t{text}\n" for name, text in DOCUMENTS.items())),
    "Pyserini's contents": ("docs.jsonl", lines([{"id": k, "contents": v} for k, v in DOCUMENTS.items()])),
    "Parquet": ("corpus.parquet", [{k: row[k] for k in ("_id", "title", "text")} for row in BEIR]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read(tmp_path: Path, name: str) -> None:
    file, content = FILES[name]
    write(tmp_path, {file: content, "queries.tsv": "q1\twhat burns\nq2\twhat turns\n", "qrels.tsv": tsv(JUDGED)})

    found = read_questions(tmp_path / file, tmp_path / "queries.tsv", tmp_path / "qrels.tsv")

    assert everything(found) == ALL


def test_fields_and_ids_are_named_also_inside_of_objects(tmp_path: Path) -> None:
    rows = [{"meta": {"key": name}, "head": TITLES[name], "part": [BODIES[name]]} for name in TITLES]
    asked = [{"n": name, "q": {"en": text}} for name, text in QUERIES.items()]
    write(tmp_path, {"a.jsonl": lines(rows), "b.jsonl": lines(asked), "c.tsv": tsv(JUDGED)})

    found = read_questions(
        *(tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.tsv")),
        fields=["head", "part.*"],
        id_field="meta.key",
        query_fields=["q.en"],
        query_id_field="n",
    )

    assert everything(found) == ALL


def test_objects_in_memory_are_read_like_files() -> None:
    by_id = {row["_id"]: {"title": row["title"], "text": row["text"]} for row in BEIR}
    lists: dict[str, Any] = {query: list(found) for query, found in GRADES.items()}

    assert everything(read_questions(DOCUMENTS, QUERIES, GRADES)) == ALL
    assert everything(read_questions(by_id, ASKED, JUDGED)) == ALL
    assert everything(read_questions(BEIR, QUERIES, [("q1", "d1", 2), ("q2", "d2", 1), ("q2", "d3", 1)])) == ALL
    assert read_questions(DOCUMENTS, QUERIES, lists).relevant == {"q1": {"d1": 1}, "q2": {"d2": 1, "d3": 1}}


def test_documents_of_langchain_are_read_with_their_ids() -> None:
    documents = [Document(text, id=name) for name, text in DOCUMENTS.items()]

    assert everything(read_questions(documents, QUERIES, GRADES)) == ALL


def test_a_dataset_of_llama_index_is_read_from_memory_and_from_its_file(tmp_path: Path) -> None:
    """``EmbeddingQAFinetuneDataset`` writes its fields, and since 0.14 has left llama-index-core."""
    relevant = {query: list(found) for query, found in GRADES.items()}
    dataset = {"queries": QUERIES, "corpus": DOCUMENTS, "relevant_docs": relevant, "mode": "text"}
    write(tmp_path, {"dataset.json": json.dumps(dataset, indent=4)})

    expected = (DOCUMENTS, QUERIES, {"q1": {"d1": 1}, "q2": {"d2": 1, "d3": 1}}, "judgements")
    assert everything(read_questions(SimpleNamespace(**dataset))) == expected
    assert everything(read_questions(tmp_path / "dataset.json")) == expected


def test_lines_of_a_text_file_are_queries_and_without_judgements_the_best_model_is_the_measure(tmp_path: Path) -> None:
    write(tmp_path, {"corpus.jsonl": lines(BEIR), "queries.txt": "what burns\n\nwhat turns\n"})

    found = read_questions(tmp_path / "corpus.jsonl", tmp_path / "queries.txt")

    assert everything(found) == (DOCUMENTS, {"1": "what burns", "2": "what turns"}, {}, "agreement")


def test_ids_are_texts_in_every_file(tmp_path: Path) -> None:
    """BEIR's TSV has texts where its JSON has numbers, and Parquet with a gap in a column of numbers has floats."""
    write(
        tmp_path,
        {
            "corpus.jsonl": lines([{"id": 1, "text": "one"}, {"id": "2", "text": "two"}, {"id": 3.0, "text": "three"}]),
            "queries.jsonl": lines([{"id": 7, "text": "seven"}]),
            "qrels.tsv": "7\t1\t1\n7\t3\t1\n",
        },
    )

    found = read_questions(*(tmp_path / name for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")))

    assert list(found.documents) == ["1", "2", "3"]
    assert found.relevant == {"7": {"1": 1, "3": 1}}


# Judgements

WRITTEN: dict[str, Any] = {
    "qrels.tsv": tsv(JUDGED),
    "bare.tsv": tsv(JUDGED, heading=False),
    "other words.tsv": "topic number\tpassage\tjudged\n" + tsv(JUDGED, heading=False),
    "turned.csv": "score,corpus_id,query_id\n"
    + "".join(f"{r['score']},{r['corpus-id']},{r['query-id']}\n" for r in JUDGED),
    "bare.csv": tsv(JUDGED, heading=False).replace("\t", ","),
    "qrels.trec": "".join(f"{r['query-id']} 0 {r['corpus-id']} {r['score']}\n" for r in JUDGED),
    "qrels.txt": "".join(f"{r['query-id']}\tQ0\t{r['corpus-id']}\t{r['score']}\n" for r in JUDGED),
    "no suffix": "".join(f"{r['query-id']}   0  {r['corpus-id']}  {r['score']}\n" for r in JUDGED),
    "qrels.json": json.dumps(GRADES),
    "rows.json": json.dumps(JUDGED),
    "qrels.jsonl": lines(JUDGED),
    "ir_datasets.jsonl": lines(
        [
            {"query_id": r["query-id"], "doc_id": r["corpus-id"], "relevance": r["score"], "iteration": "0"}
            for r in JUDGED
        ]
    ),
    "qrels.parquet": JUDGED,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_judgements_are_read_in_every_form(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: WRITTEN[name]})

    assert read_judgements([tmp_path / name]).grades == GRADES


names = st.text("abc019-_:.é", min_size=1, max_size=6)


@given(
    st.dictionaries(names, st.dictionaries(names, st.integers(-2, 4), min_size=1, max_size=4), min_size=1, max_size=4)
)
@settings(examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_judgements_are_what_another_reader_finds(tmp_path: Path, grades: dict[str, dict[str, int]]) -> None:
    """``ir_measures`` reads TREC's files for trec_eval."""
    ir_measures = pytest.importorskip("ir_measures")
    path = tmp_path / "any.qrels"
    path.write_text(
        "".join(f"{q} 0 {d} {grade}\n" for q, found in grades.items() for d, grade in found.items()), "utf-8"
    )

    expected: dict[str, dict[str, int]] = {}
    for one in ir_measures.read_trec_qrels(str(path)):
        if one.relevance > 0:
            expected.setdefault(one.query_id, {})[one.doc_id] = one.relevance
    assert read_judgements([path]).grades == expected


def test_grades_of_nought_and_below_are_no_answers() -> None:
    found = read_questions(DOCUMENTS, QUERIES, {"q1": {"d1": 1, "d2": 0, "d3": -1}, "q2": {"d2": 0}})

    assert found.relevant == {"q1": {"d1": 1}}
    assert found.notes == ("Queries without a relevant document (1), left out: q2.",)


def test_what_does_not_fit_is_counted_and_named() -> None:
    grades = {"q1": {"d1": 1, "gone": 2}, **{f"x{number}": {"d1": 1} for number in range(5)}}

    found = read_questions({**DOCUMENTS, "d4": " \n"}, {**QUERIES, "q3": ""}, grades)

    assert found.relevant == {"q1": {"d1": 1}}
    assert list(found.queries) == ["q1"]
    assert found.notes == (
        "Documents without a text, left out (1): d4.",
        "Queries without a text, left out (1): q3.",
        "Judgements about queries that are not there (5), left out: x0, x1, x2 and 2 more.",
        "Relevant documents that are not in the corpus (1), left out: gone.",
        "Queries without a relevant document (1), left out: q2.",
    )


def test_a_text_that_comes_twice_is_used_once_and_the_highest_of_two_grades_counts(tmp_path: Path) -> None:
    write(tmp_path, {"corpus.jsonl": lines([*BEIR, BEIR[0]]), "qrels.tsv": "q1 d1 1\nq1 d1 3\nq1 d1 0\n"})

    found = read_questions(tmp_path / "corpus.jsonl", QUERIES, tmp_path / "qrels.tsv")

    assert (dict(found.documents), found.relevant) == (DOCUMENTS, {"q1": {"d1": 3}})
    assert found.notes[0] == "Documents that are there twice, used once (1): d1."
    assert "Judgements with several grades (1), of which the highest counts: q1 and d1." in found.notes


INLINE: dict[str, Any] = {
    "lists of ids": {"q1": ["d1"], "q2": ["d2", "d3"]},
    "grades": {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 1, "d3": 1}},
    "objects": {"q1": [{"doc_id": "d1", "grade": 1}], "q2": [{"id": "d2"}, {"id": "d3", "score": 1}]},
    "one text": {"q1": "d1", "q2": "d2; d3"},
    "a list as a text": {"q1": "['d1']", "q2": "['d2', 'd3']"},
}


@pytest.mark.parametrize("name", INLINE)
def test_queries_that_name_their_documents_need_no_other_file(tmp_path: Path, name: str) -> None:
    """As hand-made test sets of retrieval have it."""
    for field in ("relevant_docs", "expected"):
        write(tmp_path, {"set.jsonl": lines([{"query": QUERIES[one], field: INLINE[name][one]} for one in QUERIES])})

        found = read_questions(
            DOCUMENTS, tmp_path / "set.jsonl", relevant_field=None if field == "relevant_docs" else field
        )

        assert found.relevant == {"1": {"d1": 1}, "2": {"d2": 1, "d3": 1}}
        assert (found.judged_by, found.notes) == ("judgements", ())


def test_a_field_in_which_no_query_names_a_document_is_refused() -> None:
    with pytest.raises(ConfigError, match="No query names a document in the field 'expected'"):
        read_questions(DOCUMENTS, [{"query": "what burns", "answer": "oil"}], relevant_field="expected")


# Sentences

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a grade that is no number": (
        {"qrels.tsv": "q1\td1\t1\nq1\td2\tgood\n"},
        r"qrels\.tsv, line 2: the grade is 'good'",
    ),
    "a grade with a fraction": (
        {"qrels.tsv": "q1\td1\t0.5\n"},
        r"line 1: the grade is '0\.5'\. Grades are whole numbers",
    ),
    "a run": ({"qrels.tsv": "q1 Q0 d1 1 0.9 bm25\n"}, r"results of a search \(a run of TREC\)"),
    "another number of columns": ({"qrels.tsv": "q1 d1 1\nq1\n"}, r"line 2: expected a query id, .* and not 1 columns"),
    "columns of other names": (
        {"qrels.jsonl": lines([{"q": 1, "d": 2}])},
        r"no column query-id or qid\. Columns there: 'q'",
    ),
    "documents of another file": (
        {"qrels.tsv": "q1 x1 1\nq2 x2 1\n"},
        r"about these documents: the documents are called 'd1', 'd2' …, the judgements name 'x1', 'x2'\.",
    ),
    "queries of another file": (
        {"qrels.tsv": "5 d1 1\n"},
        r"the queries are called 'q1', 'q2', the judgements name '5'",
    ),
    "query and document exchanged": (
        {"qrels.tsv": "d1\tq1\t1\n"},
        r"documents where queries are expected\. The order is",
    ),
    "no grade above nought": ({"qrels.tsv": "q1\td1\t0\n"}, r"have no grade above 0"),
    "empty judgements": (
        {"qrels.tsv": "query-id\tcorpus-id\tscore\n"},
        r"there is no judgement\. .* Or pass documents and",
    ),
    "one id, two texts": (
        {"corpus.jsonl": lines([{"id": "1", "text": "a"}, {"id": 1, "text": "b"}])},
        r"corpus\.jsonl, line 2: the id '1' is there already, with another text",
    ),
    "an id that is missing": (
        {"corpus.jsonl": lines([{"id": "1", "text": "a"}, {"text": "b"}])},
        r"line 2: no id\. Give all rows an id, or none",
    ),
    "no text": (
        {"corpus.jsonl": lines([{"id": "1", "body_text": "a"}])},
        r"no field 'text'\. Fields there: 'id', 'body_text'\.",
    ),
    "a text that is a number": ({"corpus.jsonl": lines([{"id": "1", "text": 3}])}, r"the field 'text' holds a number"),
    "an id that is an object": (
        {"corpus.jsonl": lines([{"id": {}, "text": "a"}])},
        r"an id is a text or a whole number",
    ),
    "broken JSON": ({"corpus.jsonl": '{"id": "1"\n'}, r"corpus\.jsonl, line 1: broken JSON"),
    "nothing but empty texts": (
        {"corpus.jsonl": lines([{"id": "1", "text": ""}])},
        r"There is no document with a text",
    ),
    "no ids, and judgements": ({"corpus.jsonl": lines([{"text": "a"}])}, r"The documents have no ids, .*: --id NAME"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_told_with_its_place_and_the_next_action(tmp_path: Path, name: str) -> None:
    files, message = REFUSED[name]
    given = {"corpus.jsonl": lines(BEIR), "queries.jsonl": lines(ASKED), "qrels.tsv": tsv(JUDGED), **files}
    write(tmp_path, given)
    qrels = next((file for file in files if "qrels" in file), "qrels.tsv")

    with pytest.raises(ConfigError, match=message):
        read_questions(tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / qrels)


def test_judgements_without_queries_are_refused() -> None:
    with pytest.raises(ConfigError, match="There are judgements, and no queries"):
        read_questions(DOCUMENTS, None, GRADES)


# Samples

MANY = {f"d{number}": f"text {number}" for number in range(100)}
MANY_ASKED = {f"q{number}": f"query {number}" for number in range(50)}
MANY_GRADES = {f"q{number}": {f"d{number}": 1, f"d{number + 50}": 2} for number in range(50)}


def test_a_sample_of_the_documents_keeps_the_best_answer_of_each_query_and_is_labelled() -> None:
    found = read_questions(MANY, MANY_ASKED, MANY_GRADES, limit=60, query_limit=20)

    assert (len(found.documents), len(found.queries)) == (60, 20)
    assert all(f"d{int(query[1:]) + 50}" in found.relevant[query] for query in found.queries)
    assert all(found.relevant[query].keys() <= found.documents.keys() for query in found.queries)
    assert list(found.documents) == [name for name in MANY if name in found.documents], "in the order of the corpus"
    assert found.notes == (
        "A sample: 20 of 50 queries.",
        "A sample: 60 of 100 documents, those first that answer a query. Among fewer documents all figures are higher "
        "than among all.",
    )
    assert found == read_questions(MANY, MANY_ASKED, MANY_GRADES, limit=60, query_limit=20)
    assert found.queries != read_questions(MANY, MANY_ASKED, MANY_GRADES, query_limit=20, seed=1).queries


def test_a_sample_that_has_no_room_for_every_answer_says_so() -> None:
    found = read_questions(MANY, MANY_ASKED, MANY_GRADES, limit=10)

    assert (len(found.documents), len(found.queries)) == (10, 10)
    assert found.notes[0].endswith("than among all; for 40 queries there was no room.")


# Stores' neighbours: the two collections that lie here


@pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared is not here")
@pytest.mark.parametrize(
    ("name", "documents", "queries", "judgements"),
    [("squad-dev", 2067, 10570, 10570), ("banking77", 10003, 3080, 400_120)],
)
def test_the_collections_beside_the_project_are_read_whole(
    name: str, documents: int, queries: int, judgements: int
) -> None:
    found = read_questions(SHARED / name)

    assert (found.name, len(found.documents), len(found.queries)) == (name, documents, queries)
    assert sum(map(len, found.relevant.values())) == judgements
    assert found.notes == ()


# Anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "text", "title", "relevant_docs", "q1", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
contents = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(json_values, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(st.lists(st.text("ad1q0 .,\t\"'", max_size=4), max_size=5), max_size=4).map(
        lambda rows: "\n".join("\t".join(row) for row in rows).encode()
    ),
)
files = st.tuples(
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.txt", "a", "a.jsonl.gz"]), contents
)


@given(files, st.none() | files, st.none() | files)
@settings(examples(800), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_files_end_in_questions_or_in_one_sentence(
    tmp_path: Path, corpus: tuple[str, bytes], queries: tuple[str, bytes] | None, qrels: tuple[str, bytes] | None
) -> None:
    paths: list[Path | None] = []
    for part, given_file in zip("cqr", (corpus, queries, qrels), strict=True):
        (tmp_path / part).mkdir(exist_ok=True)
        for path in (tmp_path / part).iterdir():
            path.unlink()
        if given_file:
            (tmp_path / part / given_file[0]).write_bytes(given_file[1])
        paths.append(tmp_path / part / given_file[0] if given_file else None)

    found, sentence = None, "."
    try:
        found = read_questions(*paths)
    except ConfigError as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert sentence.endswith((".", "?"))
    if found is not None:
        assert all(text.strip() and text.encode() for text in (*found.documents.values(), *found.queries.values()))
        assert all(grades.keys() <= found.documents.keys() for grades in found.relevant.values())
