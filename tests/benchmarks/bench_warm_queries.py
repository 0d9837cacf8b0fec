"""Queries that were asked before: 500 different ones, one at a time, round and round."""

from __future__ import annotations

from .contest import Contest
from .table import RATE

NUMBER = 500


def test_from_disk(contest: Contest) -> None:
    """The first time that a process meets a query which another has asked before."""
    contest.ours("ours:warm_query_lists", number=NUMBER, cache_memory=0)
    contest.limit("SQLite + tolist", "limits:sqlite_queries", number=NUMBER)
    contest.peer("LangChain, file store", "langchain:warm_queries", goals={RATE: 5}, number=NUMBER, store="files")
    contest.run("Warm query from disk, list out", rounds=7)


def test_from_memory(contest: Contest) -> None:
    """What a service does all day."""
    contest.ours("ours:warm_query_lists", number=NUMBER)
    contest.limit("dictionary of arrays + tolist", "limits:dictionary_tolist", number=NUMBER)
    contest.limit("dictionary of lists + copy", "limits:dictionary_list", number=NUMBER)
    contest.peer("LangChain, file store", "langchain:warm_queries", goals={RATE: 7}, number=NUMBER, store="files")
    contest.peer("LangChain, memory store", "langchain:warm_queries", number=NUMBER, store="memory")
    contest.peer("LlamaIndex, memory cache", "llama_index:warm_queries", number=NUMBER)
    contest.run("Warm query from memory, list out", rounds=7)


def test_from_memory_arrays(contest: Contest) -> None:
    """Peers have lists only."""
    contest.ours("ours:warm_query_arrays", number=NUMBER)
    contest.limit("dictionary of arrays + copy", "limits:dictionary_array", number=NUMBER)
    contest.peer("LangChain, file store", "langchain:warm_queries", goals={RATE: 30}, number=NUMBER, store="files")
    contest.run("Warm query from memory, array out", rounds=7)
