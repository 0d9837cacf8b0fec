"""Documents whose vectors are known already: 2,000 texts of 1,536 dimensions, after one warm-up call.

LiteLLM asks its cache for each text by itself, so 500 texts say as much, sooner.
"""

from __future__ import annotations

from .contest import Contest
from .server import Server
from .table import RATE

NUMBER = 2000


def test_lists_out(contest: Contest, server: Server) -> None:
    """What the frameworks ask for."""
    contest.ours("ours:warm_lists", number=NUMBER)
    contest.limit("SQLite + tolist", "limits:sqlite_lists", goals={RATE: 0.8}, number=NUMBER)
    contest.peer("LangChain, file store", "langchain:warm_documents", goals={RATE: 6}, number=NUMBER, store="files")
    contest.peer("LangChain, memory store", "langchain:warm_documents", number=NUMBER, store="memory")
    contest.peer("LlamaIndex, memory cache", "llama_index:warm_documents", number=NUMBER)
    contest.peer("LiteLLM, disk cache", "litellm:warm_documents", number=500, api=server.url(0))
    contest.peer("a JSON file each", "tutorial:warm_documents", number=NUMBER)
    contest.run("Warm documents, lists out", rounds=9)


def test_arrays_out(contest: Contest) -> None:
    """What numpy and the vector stores would rather have."""
    contest.ours("ours:warm_arrays", number=NUMBER)
    contest.limit("SQLite + frombuffer", "limits:sqlite_arrays", goals={RATE: 0.5}, number=NUMBER, mapped=False)
    contest.limit("the same, memory-mapped", "limits:sqlite_arrays", number=NUMBER, mapped=True)
    contest.run("Warm documents, arrays out", rounds=15)
