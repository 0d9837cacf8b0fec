"""Known items: queries that are made from documents, for people who have no judgements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter.comparison._known_items import known_items
from embedrouter.comparison._reading import read_questions
from embedrouter.comparison._texts import Item
from embedrouter.errors import ConfigError
from tests.properties import examples

SUBJECTS = (
    "Lamps",
    "Ropes",
    "Wheels",
    "Sails",
    "Bells",
    "Clocks",
    "Ovens",
    "Mills",
    "Locks",
    "Wells",
    "Looms",
    "Kites",
)
PLACES = ("in Aldgate", "in Bristol", "in Carlisle")


def article(subject: str, place: str) -> str:
    return (
        f"A page about {subject.lower()} {place} begins here. The guild of {subject} {place} was founded by "
        f"A. Smith of the harbour. It met each week until the great fire. Some of its {subject.lower()} are still "
        f"used {place}. Nobody knows why the records end so early."
    )


ARTICLES = {
    f"d{number}": article(subject, place)
    for number, (subject, place) in enumerate((s, p) for s in SUBJECTS for p in PLACES)
}
TITLED = {
    name: Item(f"History of number {name[1:]}", "Oil burns in a lamp, and a wheel turns by day and by night.")
    for name in ARTICLES
}


def test_a_sentence_is_taken_out_of_the_document_that_it_has_to_find() -> None:
    found = read_questions(ARTICLES)

    assert (found.judged_by, len(found.documents)) == ("known items", 36)
    assert len(found.queries) == 36
    for query, text in found.queries.items():
        (document,) = found.relevant[query]
        assert text in ARTICLES[document], "as it stood there"
        assert text not in found.documents[document]
        assert text.endswith(".")
        assert not text.endswith(" A."), "an initial ends no sentence"
        assert len(found.documents[document]) >= len(ARTICLES[document]) - len(text) - 2, "and nothing else is lost"
        assert found.documents[document].split() == ARTICLES[document].replace(text, " ").split()


def test_a_sentence_that_stands_in_several_documents_is_no_query() -> None:
    """The last sentence of every article and the one on the fire are the same in all."""
    found = read_questions(ARTICLES)

    assert not any("the records end" in text or "great fire" in text for text in found.queries.values())


def test_titles_are_the_queries_where_most_documents_have_one_of_their_own() -> None:
    found = known_items(TITLED)

    assert found.documents == {name: item.body for name, item in TITLED.items()}
    assert found.queries == {f"title of {name}": item.title for name, item in TITLED.items()}
    assert found.relevant == {f"title of {name}": {name: 1} for name in TITLED}


def test_titles_that_are_repeated_or_stand_in_the_text_are_no_queries() -> None:
    items = {
        name: Item("The whole series" if int(name[1:]) % 2 else f"The {article('x', name)}"[:30], f"{ARTICLES[name]}")
        for name in ARTICLES
    }

    found = known_items({name: Item(item.title, f"{item.title}: {item.body}") for name, item in items.items()})

    assert all(query.startswith("sentence of ") for query in found.queries)


def test_the_same_seed_makes_the_same_queries_from_all_over_the_corpus() -> None:
    many = {f"d{number}": f"{article('Lamps', f'in town {number}')}" for number in range(2000)}

    first, again, other = (read_questions(many, known=40, seed=seed) for seed in (3, 3, 4))

    assert first == again
    assert first.queries != other.queries
    places = sorted(int(next(iter(found))[1:]) for found in first.relevant.values())
    assert len(places) == 40
    assert all(50 * number <= place < 50 * (number + 1) for number, place in enumerate(places)), "one of each 50"


def test_every_output_is_told_what_known_items_are_worth() -> None:
    found = read_questions(ARTICLES, known=25)

    assert found.notes[0].startswith(
        "The queries are known items, made from the documents: 25 sentences, each taken out"
    )
    assert "Differences between models count, absolute figures do not" in found.notes[0]


def test_a_sample_of_the_corpus_is_taken_before_the_queries_are_made() -> None:
    found = read_questions(ARTICLES, limit=30, query_limit=22)

    assert (len(found.documents), len(found.queries)) == (30, 22)
    assert found.notes[1] == "A sample: 30 of 36 documents."


def test_documents_of_one_sentence_give_no_queries_and_the_message_says_what_does() -> None:
    with pytest.raises(
        ConfigError, match=r"Only 0 of 3 documents have a title of their own, or several .* Pass queries"
    ):
        read_questions({"a": "one short text", "b": "another one", "c": "a third one"})


def test_a_number_of_known_items_beside_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match="Known items take the place of queries"):
        read_questions(ARTICLES, {"q": "what"}, known=5)


def test_a_corpus_alone_in_a_file_is_enough(tmp_path: Path) -> None:
    rows = [{"id": name, "text": text} for name, text in ARTICLES.items()]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    assert read_questions(tmp_path / "corpus.jsonl").queries == read_questions(ARTICLES).queries


def test_sentences_of_other_scripts_are_found() -> None:
    """Chinese and Japanese have no blank after a full stop."""
    texts = {
        f"d{number}": f"第{number}号仓库建于很久以前的一个寒冷的冬天，那时河水已经结冰。"
        f"仓库{number}里保存着从远方运来的丝绸、茶叶和瓷器，由三个家族轮流看守。"
        f"后来第{number}号仓库被改建成学校，孩子们每天早晨都在那里朗读诗歌，直到新校舍建成为止。"
        for number in range(30)
    }

    found = read_questions(texts, known=25)

    assert len(found.queries) == 25
    assert all(text.endswith("。") for text in found.queries.values())


@given(
    st.lists(st.text("ab .\n。!Aé", max_size=200), min_size=1, max_size=40, unique=True),
    st.integers(1, 50),
    st.integers(0, 3),
)
@examples(300)
def test_no_query_stands_in_its_document_whatever_the_texts_are(texts: list[str], count: int, seed: int) -> None:
    items = {f"d{number}": Item("", text) for number, text in enumerate(texts) if text.strip()}

    try:
        found = known_items(items, count, seed)
    except ConfigError:
        return
    assert list(found.documents) == list(items)
    assert len(found.queries) <= count
    for query, text in found.queries.items():
        (document,) = found.relevant[query]
        assert text.casefold() not in found.documents[document].casefold()
        assert found.documents[document].strip()
