"""Documents that were not embedded yet: 20,000 short texts, an API that takes 200 ms, default settings.

LlamaIndex and LiteLLM send one request after the other, so their seconds grow with the number of texts: they get 4,000
and 2,048. `langchain-openai` counts tokens with the vocabulary that LlamaIndex ships, as we do.
"""

from __future__ import annotations

from .contest import Contest
from .server import Server
from .table import CPU, RATE

NUMBER = 20_000


def test_arrays_out(contest: Contest, server: Server) -> None:
    """The seconds decide how long an index takes to build, the CPU what else the machine can do meanwhile."""
    api = server.url(200)
    contest.ours("ours:cold_arrays", number=NUMBER, api=api)
    contest.limit("all requests at once + decoding", "limits:raw_documents", number=NUMBER, api=api)
    contest.limit(
        "all requests at once + decoding + SQLite", "limits:raw_documents", number=NUMBER, api=api, stored=True
    )
    contest.peer("LlamaIndex OpenAIEmbedding", "llama_index:cold_documents", goals={RATE: 10}, number=4000, api=api)
    contest.peer("langchain-openai", "langchain:cold_documents", goals={RATE: 3}, number=NUMBER, api=api)
    contest.peer("LiteLLM, requests of 2,048", "litellm:cold_documents", number=2048, api=api)
    contest.peer(
        "openai SDK, 8 requests of 2,048 at once",
        "limits:sdk_documents",
        goals={CPU: 2},
        at_home=True,
        number=NUMBER,
        api=api,
    )
    contest.run("Cold documents at 200 ms", rounds=3, warm_ups=0, measures=(RATE, CPU))


def test_lists_out(contest: Contest, server: Server) -> None:
    """The same through the adapter: lists of floats are what takes the time then."""
    api = server.url(200)
    contest.ours("ours:cold_lists", number=NUMBER, api=api)
    contest.peer("langchain-openai", "langchain:cold_documents", number=NUMBER, api=api)
    contest.run("Cold documents at 200 ms, lists out", rounds=3, warm_ups=0, measures=(RATE, CPU))
