"""What people type who come from other libraries, and the line that they are told: nothing is sent, nothing is paid.

Each row is code as it is typed, and a part of the message: the line to write, or the value that is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import enum
import importlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

import embedrouter
from embedrouter import Budget, Model, RetryPolicy, Router, TieredRouter
from embedrouter.calls import chunks, validate
from embedrouter.errors import EmbedRouterError, InvalidInputError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.providers.versions import needed
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.emulator import Emulator

SMALL = "openai:text-embedding-3-small"


class Colour(enum.Enum):
    RED = "red"


class Closed:
    """A file, a generator or a coroutine, closed at the end; or any other object."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def close(self) -> None:
        getattr(self.item, "close", int)()


async def agenerate() -> Any:
    yield "a"


async def acoroutine() -> list[str]:
    return ["a"]


LINE = re.compile(r"(?:Write embed\(|Write |Leave them out: )(.+?)(?:, …\))?[.;](?: |$)")
"""The line that a message tells to write."""
WORDS = ("texts", "text", "number", "path", "file", "item", "message", "query", "prompt", "document", "node", "series",
         "index", "frame", "table", "array", "pairs", "documents", "nodes")  # fmt: skip
"""What a line calls that which was handed over."""

NAMES: dict[str, Any] = {
    "AIMessage": AIMessage, "Budget": Budget, "ChatMessage": ChatMessage, "ChatPromptTemplate": ChatPromptTemplate,
    "Colour": Colour, "Document": Document, "HumanMessage": HumanMessage, "MockEmbedding": MockEmbedding,
    "Model": Model, "NodeWithScore": NodeWithScore, "Path": Path, "QueryBundle": QueryBundle,
    "RetryPolicy": RetryPolicy, "Router": Router, "RouterEmbedding": RouterEmbedding,
    "RouterEmbeddings": RouterEmbeddings, "SMALL": SMALL, "SimpleNamespace": SimpleNamespace,
    "StringPromptValue": StringPromptValue, "TextNode": TextNode, "TieredRouter": TieredRouter,
    "acoroutine": acoroutine, "agenerate": agenerate, "asyncio": asyncio, "datetime": datetime, "decimal": decimal,
    "embedrouter": embedrouter, "io": io, "np": np, "pa": pa, "pd": pd, "pl": pl,
}  # fmt: skip
"""What stands in the namespace of a notebook."""

TEXTS = [  # what is handed over in place of texts
    ("'one text'", "embed([text], …)"),
    ("b'one text'", "embed([text.decode()], …)"),
    ("['a', b'b']", "[text if isinstance(text, str) else text.decode() for text in texts]"),
    ("[b'a', b'b']", "[text.decode() for text in texts]"),
    ("bytearray(b'one text')", "embed([text.decode()], …)"),
    ("None", "embed([text], …)"),
    ("7", "embed([str(number)], …)"),
    ("[1, 2, 3]", "[str(number) for number in texts]"),
    ("['a', 2]", "1"),
    ("[True, 'a']", "[str(number) for number in texts]"),
    ("[decimal.Decimal('1.5')]", "[str(number) for number in texts]"),
    ("['a', 1.5]", "[str(number) for number in texts]"),
    ("[['a', 'b'], ['c']]", "[text for part in texts for text in part]"),
    ("[('a', 'b', 'c')]", "[text for part in texts for text in part]"),
    ("[[]]", "[text for part in texts for text in part]"),
    ("[[1, 2, 3], [4]]", "token"),
    ("[[0.1, 0.2], [0.3, 0.4]]", "vectors"),
    ("[np.array([0.1, 0.2])]", "vectors"),
    ("[('id-1', 'a'), ('id-2', 'b')]", "[text for _, text in pairs]"),
    ("list(enumerate(['a', 'b']))", "[text for _, text in pairs]"),
    ("enumerate(['a', 'b'])", "[text for _, text in pairs]"),
    ("{'id-1': 'a'}.items()", "[text for _, text in pairs]"),
    ("[(Document('a'), 0.5)]", "[item for item, _ in pairs]"),
    ("[('a', 1), ('b', 2)]", "[text for text, _ in pairs]"),
    ("{'id-1': 'a', 'id-2': 'b'}", "list(texts.values())"),
    ("dict.fromkeys(['a', 'b'])", "list(texts)"),
    ("{1: 'a', 2: 'b'}", "list(texts.values())"),
    ("{'text': ['a', 'b']}", "texts['text']"),
    ("{'id': [1, 2], 'content': ['a', 'b']}", "texts['content']"),
    ("{'a', 'b'}", "sorted(texts)"),
    ("frozenset(['a', 'b'])", "sorted(texts)"),
    ("[{'text': 'a'}, {'text': 'b'}]", "[item['text'] for item in texts]"),
    ("[{'id': 7, 'content': 'a'}]", "[item['content'] for item in texts]"),
    ("[{'role': 'user', 'content': 'a'}]", "[item['content'] for item in texts]"),
    ("[{'page_content': 'a', 'metadata': {}}]", "[item['page_content'] for item in texts]"),
    ("[{'title': 'a', 'note': 'b'}]", "[item['title'] for item in texts]"),
    ("[{}]", "texts"),
    ("['']", "[text for text in texts if text.strip()]"),
    ("['a', '', 'b']", "empty: 1"),
    ("('a', '')", "[text for text in texts if text.strip()]"),
    ("[None]", "[text for text in texts if text and text.strip()]"),
    ("['a', None]", "missing ("),
    ("['a', None, '']", "[text for text in texts if text and text.strip()]"),
    ("['a', float('nan')]", "[text for text in texts if isinstance(text, str) and text.strip()]"),
    ("['a', np.nan]", "missing ("),
    ("['a', pd.NA]", "[text for text in texts if isinstance(text, str) and text.strip()]"),
    ("['a', pd.NaT]", "missing ("),
    ("['a\\ud800']", "encode('utf-8', 'replace')"),
    ("pd.Series(['a', None, 'b'])", "series.dropna()"),
    ("pd.Series(['a', None], index=['x', 'row-9'])", "'row-9'"),
    ("pd.Series(['a', np.nan], dtype=object)", "series.dropna()"),
    ("pd.Series(['a', None], dtype='string')", "series.dropna()"),
    ("pd.Series(['a', None], dtype='category')", "series.dropna()"),
    ("pd.Series(['a', ''], index=[10, 20])", "20"),
    ("pd.Series(['a', ''])", "series[series.str.strip() != '']"),
    ("pd.Series([1, 2])", "series.astype(str)"),
    ("pd.Series([0.5, 2])", "series.astype(str)"),
    ("pd.to_datetime(pd.Series(['2026-11-01']))", "series.astype(str)"),
    ("pd.Series([['a'], ['b']])", "series.explode()"),
    ("pd.Index(['a', None])", "dropna()"),
    ("pd.DataFrame({'text': ['a'], 'id': [1]})", "frame['text']"),
    ("pd.DataFrame({'id': [1], 'body': ['a']})", "frame['body']"),
    ("pd.DataFrame({'id': [1], 'question': ['a']})", "frame['question']"),
    ("pd.DataFrame({'text': ['a']})[['text']]", "frame['text']"),
    ("pl.DataFrame({'text': ['a'], 'id': [1]})", "frame['text']"),
    ("pl.LazyFrame({'text': ['a']})", "frame.collect()['text']"),
    ("pl.Series(['a', None])", "series.drop_nulls()"),
    ("pl.Series(['a', ''])", "series.filter(series.str.strip_chars() != '')"),
    ("pl.Series([1, 2])", "series.cast(str)"),
    ("pa.table({'text': ['a'], 'id': [1]})", "table['text']"),
    ("pa.array(['a', None])", "drop_null()"),
    ("pa.array([1, 2])", "[str(number) for number in texts.to_pylist()]"),
    ("pa.chunked_array([['a'], [None]])", "drop_null()"),
    ("pa.scalar('a')", "embed([text.as_py()], …)"),
    ("pd.DataFrame({'text': ['a'], 'id': [1]}).itertuples()", "row.text"),
    ("pd.DataFrame({'text': ['a'], 'id': [1]}).iterrows()", "[row['text'] for _, row in pairs]"),
    ("pd.DataFrame({'text': ['a']}).to_dict('records')", "[item['text'] for item in texts]"),
    ("pd.DataFrame({'text': ['a']}).values", "array.ravel()"),
    ("np.array('a')", "embed([text.item()], …)"),
    ("np.array([['a', 'b']])", "array.ravel()"),
    ("np.array([b'a'])", "[text.decode() for text in texts]"),
    ("np.array([1.5, 2.5])", "vectors"),
    ("np.zeros((2, 4))", "vectors"),
    ("np.array(['a', None], dtype=object)", "[text for text in texts if text and text.strip()]"),
    ("[Path('notes.txt')]", "[path.read_text() for path in texts]"),
    ("Path('notes.txt')", "embed([path.read_text()], …)"),
    ("Path('.').glob('*.toml')", "[path.read_text() for path in texts]"),
    ("io.StringIO('a\\nb\\n')", "embed([file.read()], …)"),
    ("open('notes.txt')", "[line.rstrip('\\n') for line in file]"),
    ("open('notes.txt', 'rb')", "embed([file.read().decode()], …)"),
    ("[io.StringIO('a')]", "[file.read() for file in texts]"),
    ("[Colour.RED]", "[item.value for item in texts]"),
    ("Colour", "[item.value for item in texts]"),
    ("[datetime.date(2026, 11, 1)]", "[str(item) for item in texts]"),
    ("[pd.Timestamp('2026-11-01')]", "[str(item) for item in texts]"),
    ("HumanMessage('a')", "embed([message.content], …)"),
    ("[HumanMessage('a'), AIMessage('b')]", "[message.content for message in texts]"),
    ("[ChatMessage(content='a')]", "[message.content for message in texts]"),
    ("Document('a')", "embed([document], …)"),
    ("[Document('')]", "empty: 0"),
    ("TextNode(text='a')", "embed([node], …)"),
    ("[NodeWithScore(node=TextNode(text=''))]", "empty: 0"),
    ("QueryBundle('a')", "embed([query.query_str], …)"),
    ("[QueryBundle('a')]", "[query.query_str for query in texts]"),
    ("StringPromptValue(text='a')", "embed([prompt.to_string()], …)"),
    ("ChatPromptTemplate.from_messages([('user', 'a')]).invoke({})", "embed([prompt.to_string()], …)"),
    ("[SimpleNamespace(text='a')]", "[item.text for item in texts]"),
    ("[SimpleNamespace(content='a')]", "[item.content for item in texts]"),
    ("[SimpleNamespace(name='a')]", "SimpleNamespace"),
    ("[lambda: 'a']", "function"),
    ("str", "type"),
    ("len", "function"),
    ("[object()]", "[str(item) for item in texts]"),
    ("(text for text in ['a', ''])", "[text for text in texts if text.strip()]"),
    ("agenerate()", "aembed_iter"),
    ("acoroutine()", "await"),
    ("asyncio.Queue()", "Queue"),
]


CALLS = [  # the call itself
    ("router.embed(['a'])", "input_type='document'"),
    ("router.embed('a')", "input_type='document'"),
    ("router.embed(['a'], 'document')", "input_type='document'"),
    ("router.embed(['a'], input_type='passage')", "Write input_type='document'"),
    ("router.embed(['a'], input_type='search_query')", "Write input_type='query'"),
    ("router.embed(['a'], input_type='documents')", "'document'"),
    ("router.embed(['a'], input_type='retrieval.query')", "'query'"),
    ("router.embed(['a'], input_type='RETRIEVAL_DOCUMENT')", "Write input_type='document'"),
    ("router.embed(['a'], input_type='classification')", "'document'"),
    ("router.embed(['a'], input_type='query', timeout=-1)", "Leave it out"),
    ("router.embed(['a'], input_type=None)", "'document' or 'query'"),
    ("router.embed(input=['a'], input_type='document')", "texts"),
    ("router.embed(['a'], input_type='document', model='openai:text-embedding-3-small')", "Router"),
    ("router.embed(['a'], input_type='document', dimensions=256)", "Router([…], dimensions=256)"),
    ("router.embed(['a'], input_type='document', teir='low')", "tier="),
    ("router.embed(['a'], input_type='document', tier='best')", "low, medium, high"),
    ("router.embed(['a'], input_type='document', tier=1)", "low, medium, high"),
    ("router.embed(['a'], input_type='document', tier='High')", "'high'"),
    ("router.embed(['a'], input_type='document', timeout='soon')", "timeout"),
    ("router.embed(['a'], input_type='document', timeout=True)", "timeout"),
    ("router.embed_documents(['a'])", "RouterEmbeddings"),
    ("router.embed_query('a')", "RouterEmbeddings"),
    ("router.encode(['a'])", "router.embed"),
    ("router.embeddings.create(input=['a'], model='text-embedding-3-small')", "router.embed"),
    ("router.get_text_embedding('a')", "RouterEmbedding"),
    ("router.embed_iter(['a'], input_type='document', chunk_size=0)", "chunk_size"),
    ("list(router.embed_iter(['', 'a'], input_type='document', chunk_size=1))", "empty: 0"),
    ("router.embed_iter('a text', input_type='document')", "[text]"),
    ("router.embed_iter({'id': 'a'}, input_type='document')", "list(texts.values())"),
    ("router.embed_iter(pd.DataFrame({'text': ['a']}), input_type='document')", "frame['text']"),
    ("router.estimate({'id': 'a'}, input_type='document')", "list(texts.values())"),
    ("router.estimate_tiers('a', input_type='document')", "embed([text], …)"),
    ("router.estimate_tiers(['a'], input_type='text')", "'document' or 'query'"),
    ("router.submit_batch('a')", "cache=…"),
    ("asyncio.run(router.aembed({'id': 'a'}, input_type='document'))", "list(texts.values())"),
    ("asyncio.run(router.aembed(['a']))", "input_type='document'"),
    ("asyncio.run(router.aestimate([Path('a')], input_type='document'))", "read_text()"),
    ("router.aembed_iter('a', input_type='document')", "[text]"),
    ("tiered.embed('a', input_type='document')", "embed([text], …)"),
    ("tiered.embed(['a'], input_type='document', tier='middle')", "low, medium, high"),
    ("tiered.embed(['a'])", "input_type='document'"),
    ("tiered.router('higher')", "low, medium, high"),
    ("embedrouter.tier()", "tier('high')"),
    ("router.cache = None", "Router"),
    ("router.ledger.totals('months')", "month"),
]

SETTINGS = [  # declarations
    ("Router(SMALL)", "['openai:text-embedding-3-small']"),
    ("Router('text-embedding-3-small')", "['openai:text-embedding-3-small']"),
    ("Router(Model(SMALL))", "[Model("),
    ("Router()", "Router(['openai:text-embedding-3-small']"),
    ("Router([])", "['openai:text-embedding-3-small']"),
    ("Router(None)", "['openai:text-embedding-3-small']"),
    ("Router({'low': SMALL})", "Model("),
    ("Router({SMALL})", "list"),
    ("Router([SMALL, None])", "models"),
    ("Router([3])", "models"),
    ("Router([router])", "Model"),
    ("Router([{'model': SMALL}])", "Model('openai:text-embedding-3-small'"),
    ("Router(['text-embedding-3-small'])", "'openai:text-embedding-3-small'"),
    ("Router(['openai/text-embedding-3-small'])", "'openai:text-embedding-3-small'"),
    ("Router(['openai:text-embeding-3-small'])", "'openai:text-embedding-3-small'"),
    ("Router(['openai:text-embedding-3-small '])", "'openai:text-embedding-3-small'"),
    ("Router(['OpenAI:text-embedding-3-small'])", "'openai:text-embedding-3-small'"),
    ("Router(['opnai:text-embedding-3-small'])", "'openai:text-embedding-3-small'"),
    ("Router(['azure:text-embedding-3-small'])", "azure_openai:text-embedding-3-small"),
    ("Router(['huggingface:sentence-transformers/all-MiniLM-L6-v2'])", "sentence-transformers:"),
    ("Router(['all-MiniLM-L6-v2'])", "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"),
    ("Router(['sentence-transformers/all-MiniLM-L6-v2'])", "sentence-transformers:sentence-transformers/all-MiniLM"),
    ("Router(['openai:gpt-4o'])", "space="),
    ("Router(['openai:text-embedding-3-small', 'openai:text-embedding-3-large'])", "space"),
    ("Router([SMALL], dimension=256)", "dimensions="),
    ("Router([SMALL], dimensions='many')", "dimensions must be a number"),
    ("Router([SMALL], dimensions=99999)", "1536"),
    ("Router([SMALL], dimensions=0)", "dimensions"),
    ("Router([SMALL], dimensions=256.5)", "dimensions"),
    ("Router([SMALL], dimensions=True)", "dimensions must be a number"),
    ("Router(['openai:text-embedding-ada-002'], dimensions=256)", "1536"),
    ("Router([SMALL], budget=5.0)", 'budget="5.0/day"'),
    ("Router([SMALL], budget=5)", 'budget="5/day"'),
    ("Router([SMALL], budget='5')", 'budget="5/day"'),
    ("Router([SMALL], budget='5 USD/day')", 'budget="5/day"'),
    ("Router([SMALL], budget='5/week')", "/month"),
    ("Router([SMALL], budget={'per_day': '5'})", "Budget(per_day='5')"),
    ("Router([SMALL], budget=('5', 'day'))", 'budget="'),
    ("Router([SMALL], retry=3)", "RetryPolicy(attempts=3)"),
    ("Router([SMALL], retry='3')", "RetryPolicy(attempts=3)"),
    ("Router([SMALL], retry=False)", "RetryPolicy(attempts=1)"),
    ("Router([SMALL], retry={'attempts': 3})", "RetryPolicy(attempts=3)"),
    ("Router([SMALL], max_retries=3)", "retry=RetryPolicy(attempts=3)"),
    ("Router([SMALL], retries=3)", "retry="),
    ("Router([SMALL], timeout=60)", "Model(…, timeout=60)"),
    ("Router([SMALL], api_key='k')", "Model(…, api_key=…)"),
    ("Router([SMALL], base_url='http://localhost/v1')", "Model(…, base_url=…)"),
    ("Router(model=SMALL)", "models=["),
    ("Router(SMALL, 256)", "dimensions=256"),
    ("Router([SMALL], cache=7)", "cache"),
    ("Router([SMALL], cache='')", "cache"),
    ("Router([SMALL], cache='none')", "cache=None"),
    ("Router([SMALL], cache={})", "cache"),
    ("Router([SMALL], cache_dir='here')", "cache="),
    ("Router([SMALL], cache_dtype='float64')", "'float32' or 'float16'"),
    ("Router([SMALL], cache_dtype=np.float16)", "'float32' or 'float16'"),
    ("Router([SMALL], cache_memory='much')", "64MB"),
    ("Router([SMALL], cache_memory=-1)", "cache_memory"),
    ("Router([SMALL], micro_batch_window='10ms')", "micro_batch_window"),
    ("Router([SMALL], micro_batch_window=10)", "seconds"),
    ("Router([SMALL], tiers='low')", "tiers"),
    ("Router([SMALL], tiers=['low', 'low'])", "tiers"),
    ("Router([SMALL], tiers=3)", "tiers"),
    ("Router([SMALL], tiers=['low', 1])", "tiers"),
    ("Router([SMALL], query_tier='cheap')", "low, medium, high"),
    ("Router([SMALL], query_tier=0)", "low, medium, high"),
    ("Router([SMALL], on_too_long='cut')", "'truncate'"),
    ("Router([SMALL], on_too_long=True)", "'truncate'"),
    ("Router([SMALL], when_unavailable='fallback')", "'degrade'"),
    ("Router([SMALL], on_event='print')", "on_event must be a function"),
    ("Router([SMALL], ledger=False)", "ledger"),
    ("Router([SMALL], ledger=7)", "ledger"),
    ("Router([SMALL], catalog='missing.toml')", "missing.toml"),
    ("Router([SMALL], catalog=7)", "catalog"),
    ("Router([SMALL], clock=3)", "clock"),
    ("Router.preset('voyage')", "voyage-4"),
    ("Router.preset('openai')", "openai-small"),
    ("Model()", "Model('openai:text-embedding-3-small'"),
    ("Model(None)", "'provider:name'"),
    ("Model(['openai:text-embedding-3-small'])", "'provider:name'"),
    ("Model('openai', 'text-embedding-3-small')", "'openai:text-embedding-3-small'"),
    ("Model(model=SMALL)", "Model('openai:text-embedding-3-small'"),
    ("Model(SMALL, 'high')", "tier='high'"),
    ("Model(SMALL, apikey='k')", "api_key="),
    ("Model(SMALL, openai_api_key='k')", "api_key="),
    ("Model(SMALL, api_base='http://localhost/v1')", "base_url="),
    ("Model(SMALL, url='http://localhost/v1')", "base_url="),
    ("Model(SMALL, dimension=256)", "dimensions="),
    ("Model(SMALL, max_retries=3)", "Router(…, retry=RetryPolicy(attempts=3))"),
    ("Model(SMALL, budget='5/day')", "Router(…, budget=…)"),
    ("Model(SMALL, chunk_size=100)", "batch_size="),
    ("Model(SMALL, rpm=100)", "requests_per_minute="),
    ("Model(SMALL, request_timeout=100)", "timeout="),
    ("Model(SMALL, timeout='soon')", "timeout must be a number"),
    ("Model(SMALL, timeout='60s')", "60"),
    ("Model(SMALL, timeout=0)", "timeout must be positive"),
    ("Model(SMALL, timeout=(5, 60))", "timeout must be a number"),
    ("Model(SMALL, batch_size='all')", "batch_size must be a number"),
    ("Model(SMALL, batch_size=0)", "batch_size must be positive"),
    ("Model(SMALL, max_concurrency=0)", "max_concurrency must be positive"),
    ("Model(SMALL, price='free')", "price"),
    ("Model(SMALL, price=0.02)", 'price="0.02"'),
    ("Model(SMALL, price=-1)", "price"),
    ("Model(SMALL, free_tokens='many')", "free_tokens"),
    ("Model(SMALL, headers='Authorization: x')", "{'X-Team': 'search'}"),
    ("Model(SMALL, headers={'X-Team': 7})", "'7'"),
    ("Model(SMALL, headers=[('X-Team', 'a')])", "{'X-Team': 'search'}"),
    ("Model(SMALL, extra_body='truncate')", "{'truncate': 'END'}"),
    ("Model(SMALL, extra_body={'input': 'x'})", "extra_body"),
    ("Model(SMALL, prompts='query: ')", "{'query': 'query: '}"),
    ("Model(SMALL, prompts={'passage': 'p: '})", "'document'"),
    ("Model(SMALL, prompts={'query': 7})", "prompts"),
    ("Model(SMALL, api_key=7)", "api_key"),
    ("Model(SMALL, api_key=lambda: 'k')", "api_key"),
    ("Model(SMALL, api_key_env='sk-abcdefgh12345678')", "name of a variable"),
    ("Model(SMALL, tier=None)", "tier"),
    ("Model(SMALL, tier=1)", "tier"),
    ("Router([Model(SMALL, tier='best')])", "low, medium, high"),
    ("Model(SMALL, output_dtype='float16')", "'int8'"),
    ("Model(SMALL, output_dtype=np.int8)", "'int8'"),
    ("Model(SMALL, encoding_format='json')", "'base64'"),
    ("Model(SMALL, trust_remote_code='false')", "trust_remote_code"),
    ("Model(SMALL, trust_remote_code='yes')", "trust_remote_code"),
    ("Model(SMALL, base_url='api.openai.com/v1')", "https://api.openai.com/v1"),
    ("Model(SMALL, base_url='localhost:8080/v1')", "http://localhost:8080/v1"),
    ("Model(SMALL, base_url='https//api.openai.com/v1')", "https://"),
    ("Model(SMALL, base_url='https:/api.openai.com/v1')", "https://"),
    ("Model(SMALL, base_url='ftp://api.openai.com/v1')", "https://"),
    ("Model(SMALL, base_url='https://api.openai.com/v1?key=x')", "query"),
    ("Model(SMALL, base_url='https://user:pw@api.openai.com/v1')", "password"),
    ("Model(SMALL, base_url=7)", "base_url"),
    ("Model(SMALL, base_url='http://localhost:port/v1')", "port"),
    ("Model(SMALL, base_url='http://')", "base_url"),
    ("Budget('5')", "Budget(per_day='5.00')"),
    ("Budget(5)", "per_day="),
    ("Budget(per_day=5.0)", '"5.0"'),
    ("Budget(per_day='five')", "5.00"),
    ("Budget(per_day='$5')", "5.00"),
    ("Budget(per_day='5,00')", "5.00"),
    ("Budget(per_day='-5')", "negative"),
    ("Budget(per_day=True)", "5.00"),
    ("Budget(per_day='nan')", "5.00"),
    ("Budget(per_week='5')", "per_month="),
    ("Budget(daily='5')", "per_day="),
    ("Budget(per_days='5')", "per_day="),
    ("Budget(limit='5')", "per_day="),
    ("Budget(per_day='5', when_exceeded='warn')", "'degrade'"),
    ("RetryPolicy(retries=3)", "attempts="),
    ("RetryPolicy(max_retries=3)", "attempts="),
    ("RetryPolicy(attempts='many')", "attempts must be a number"),
    ("RetryPolicy(attempts=0)", "at least 1"),
    ("RetryPolicy(attempts=None)", "attempts"),
    ("RetryPolicy(attempts=True)", "attempts"),
    ("RetryPolicy(timeout='soon')", "timeout must be a number"),
    ("RetryPolicy(timeout=-1)", "negative"),
    ("RetryPolicy(timeout=None)", "timeout"),
    ("TieredRouter(router)", "TieredRouter({'low': …, 'high': …})"),
    ("TieredRouter([router])", "TieredRouter({'low': …, 'high': …})"),
    ("TieredRouter({})", "TieredRouter({'low': …, 'high': …})"),
    ("TieredRouter({'low': SMALL})", "Router(["),
    ("TieredRouter(low=router)", "TieredRouter({'low': …"),
    ("Model.wrap('openai:text-embedding-3-small', like='openai:text-embedding-3-small')", "function"),
    ("Model.wrap(lambda texts: texts)", "space='…', dimensions=…"),
    ("Model.wrap(lambda texts: texts, space='mine')", "dimensions=…"),
    ("Model.wrap(MockEmbedding, space='mine', dimensions=4)", "MockEmbedding("),
    ("Model.wrap(router, space='mine', dimensions=4)", "function"),
    ("Model.wrap(acoroutine, space='mine', dimensions=4)", "plain function"),
]

ADAPTERS = [
    ("RouterEmbeddings()", "RouterEmbeddings('openai:text-embedding-3-small')"),
    ("RouterEmbeddings(model=SMALL)", "RouterEmbeddings('openai:text-embedding-3-small')"),
    ("RouterEmbeddings(SMALL, openai_api_key='k')", "api_key"),
    ("RouterEmbeddings(SMALL, api_key='k')", "Model('openai:text-embedding-3-small', api_key=…)"),
    ("RouterEmbeddings(SMALL, chunk_size=100)", "Model('openai:text-embedding-3-small', batch_size=…)"),
    ("RouterEmbeddings(SMALL, dimension=256)", "dimensions="),
    ("RouterEmbeddings(SMALL, max_retries=3)", "retry=RetryPolicy(attempts=3)"),
    ("RouterEmbeddings(7)", "list of models"),
    ("RouterEmbeddings({'low': SMALL})", "list of models"),
    ("RouterEmbeddings(tiered)", "tiered.router('high')"),
    ("RouterEmbeddings('missing.toml')", "missing.toml"),
    ("RouterEmbeddings(router, tier='low')", "query_tier="),
    ("RouterEmbeddings(router, query_tier='best')", "low, medium, high"),
    ("RouterEmbeddings(router, index='')", "name"),
    ("RouterEmbeddings(router, index=7)", "name"),
    ("lc.embed_query('')", "empty"),
    ("lc.embed_query(None)", "One text is embedded here, not None"),
    ("lc.embed_query(['a'])", "embed_documents"),
    ("lc.embed_query({'question': 'a'})", "['question']"),
    ("lc.embed_query(HumanMessage('a'))", "message.content"),
    ("lc.embed_query(b'a')", "text.decode()"),
    ("lc.embed_query(7)", "str("),
    ("lc.embed_documents('a')", "[text]"),
    ("lc.embed_documents(['a', ''])", "empty: 1"),
    ("lc.embed_documents({'id': 'a'})", "list(texts.values())"),
    ("lc.embed_documents(pd.DataFrame({'text': ['a']}))", "frame['text']"),
    ("lc.with_tier('best')", "low, medium, high"),
    ("asyncio.run(lc.aembed_query(['a']))", "embed_documents"),
    ("asyncio.run(lc.aembed_documents('a'))", "[text]"),
    ("RouterEmbedding()", "RouterEmbedding('openai:text-embedding-3-small')"),
    ("RouterEmbedding(model_name=SMALL)", "RouterEmbedding('openai:text-embedding-3-small')"),
    ("RouterEmbedding(SMALL, api_key='k')", "api_key"),
    ("RouterEmbedding(SMALL, embed_batch_size=0)", "embed_batch_size"),
    ("RouterEmbedding(tiered)", "tiered.router('high')"),
    ("RouterEmbedding(7)", "list of models"),
    ("li.get_query_embedding('')", "empty"),
    ("li.get_text_embedding('')", "empty"),
    ("li.get_text_embedding_batch(['a', ''])", "empty: 1"),
    ("li.get_text_embedding_batch('a text')", "[text]"),
    ("li.get_text_embedding(['a'])", "get_text_embedding_batch"),
    ("li([TextNode(text='')])", "empty"),
]

TAKEN = [
    "Router([SMALL], cache=True).close()",
    "Router([SMALL], cache=False, ledger=':memory:').close()",
    "Router((SMALL,), dimensions='256', cache_memory='64MB', cache=None, ledger=':memory:').close()",
    "Router({'a': SMALL}.values(), cache=None, ledger=':memory:').close()",
    "Model(SMALL, base_url='', timeout='60', batch_size='32', free_tokens='1000')",
    "Model(SMALL, base_url=' https://api.openai.com/v1 ')",
    "Model(SMALL, dimensions=np.int64(256), timeout=np.float64(5))",
    "RetryPolicy(3)",
    "RetryPolicy(attempts='3', timeout='60', cooldown=0)",
]

FILES = [
    ('models = "openai:text-embedding-3-small"', 'models = ["openai:text-embedding-3-small"]'),
    ('model = "openai:text-embedding-3-small"', "models = ["),
    ('models = ["text-embedding-3-small"]', "'openai:text-embedding-3-small'"),
    ("models = []", "models = ["),
    ("models = [7]", "models"),
    ('[[model]]\nmodel = "openai:text-embedding-3-small"', "models"),
    ('[[models]]\nname = "openai:text-embedding-3-small"', 'model = "openai:text-embedding-3-small"'),
    ('[models]\nmodel = "openai:text-embedding-3-small"', "[[models]]"),
    ('[[models]]\nmodel = "openai:text-embedding-3-small"\ndimension = 3', "dimensions"),
    ('[[models]]\nmodel = "openai:text-embedding-3-small"\napi_key = "k"', "api_key_env"),
    ('models = ["openai:text-embedding-3-small"]\nbudget = 5.0', 'budget = "5.0/day"'),
    ('models = ["openai:text-embedding-3-small"]\nbudget = "5"', 'budget="5/day"'),
    ('models = ["openai:text-embedding-3-small"]\nretry = 3', "[retry]"),
    ('models = ["openai:text-embedding-3-small"]\ncache = "false"', "cache = false"),
    ('models = ["openai:text-embedding-3-small"]\ntiers = "low"', "tiers"),
    ('models = ["openai:text-embedding-3-small"]\ndimension = 3', "dimensions"),
    ('models = ["openai:text-embedding-3-small"]\ndimensions = "many"', "dimensions must be a number"),
    ('models = ["openai:text-embedding-3-small"]\n[budget]\nper_day = 5.0', '"5.0"'),
    ('models = ["openai:text-embedding-3-small"]\n[budget]\nper_week = 5', "per_day"),
    ('models = ["openai:text-embedding-3-small"]\n[retry]\nretries = 5', "attempts"),
    ("models = [", "TOML"),
    ("", "models"),
]

COMMANDS = [
    ("estimate", "Missing argument"),
    ("estimate missing.txt", "missing.txt"),
    ("warm missing-folder", "missing-folder"),
    ("estimate notes.txt --model text-embedding-3-small", "'openai:text-embedding-3-small'"),
    ("estimate notes.txt --model openai/text-embedding-3-small", "'openai:text-embedding-3-small'"),
    ("estimate notes.txt --config missing.toml", "missing.toml"),
    ("estimat notes.txt", "estimate"),
]


@pytest.fixture
def typed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What stands in the namespace of a notebook, in a folder with two files."""
    (tmp_path / "notes.txt").write_text("a text")
    (tmp_path / "notes.toml").write_text("a text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.openai_url)
    router = Router([SMALL], cache=None, ledger=":memory:")
    tiered = TieredRouter({"low": router, "high": router})
    yield {**NAMES, "router": router, "tiered": tiered, "lc": RouterEmbeddings(router), "li": RouterEmbedding(router)}
    assert emulator.received == ()  # nothing was sent
    router.close()


def told(code: str, names: dict[str, Any]) -> str:
    """Return the message of the error that a line of code raises; an empty string without one."""
    try:
        exec(code, dict(names))
    except (EmbedRouterError, ValueError, TypeError, AttributeError) as error:
        return str(error)
    return ""


def wrong(rows: list[tuple[str, Any]], tell: Callable[[str], str]) -> list[str]:
    """Return the rows that are told something else, with what they are told."""
    return [f"{row!r} wants {says!r}: {message}" for row, says in rows if says not in (message := tell(row))]


def test_what_is_no_text_is_told_the_line_that_makes_texts_of_it(typed: dict[str, Any]) -> None:
    """The line is run, too: what it gives can be embedded."""

    def tell(given: str) -> str:
        with contextlib.closing(Closed(eval(given, typed))) as held:
            message = told("router.embed(given, input_type='document')", typed | {"given": held.item})
        line = LINE.search(message)
        if line and "…" not in line[1]:
            with contextlib.closing(Closed(eval(given, typed))) as held:
                assert validate(eval(line[1], typed | dict.fromkeys(WORDS, held.item))) is not None
        return message

    assert wrong(TEXTS, tell) == []


@pytest.mark.parametrize("rows", [CALLS, SETTINGS, ADAPTERS], ids=["calls", "settings", "adapters"])
def test_wrong_calls_are_told_the_right_ones(rows: list[tuple[str, str]], typed: dict[str, Any]) -> None:
    """Of methods, declarations and adapters, in the words of other libraries."""
    assert wrong(rows, lambda code: told(code, typed)) == []


def test_what_is_meant_is_taken(typed: dict[str, Any]) -> None:
    """Where it can mean one thing only."""
    for code in TAKEN:
        assert told(code, typed) == ""


def test_wrong_keys_of_a_file_are_told_the_right_ones(typed: dict[str, Any], tmp_path: Path) -> None:
    """As TOML, not as Python."""

    def tell(content: str) -> str:
        (tmp_path / "embedrouter.toml").write_text(content)
        return told("Router.from_config('embedrouter.toml')", typed)

    assert wrong(FILES, tell) == []


def test_wrong_commands_are_told_the_right_ones(typed: dict[str, Any], tmp_path: Path) -> None:
    """With an exit code that a script sees."""

    def tell(command: str) -> str:
        ended = run(*command.split(), cwd=tmp_path)
        return " ".join(ended.stderr.split()) if ended.returncode else "no error"

    assert wrong(COMMANDS, tell) == []


def test_texts_are_taken_as_they_come() -> None:
    """Columns, arrays, views and the documents of frameworks hold texts in an order."""
    for given in (
        ("a", "b"),
        {"a": 1, "b": 2}.keys(),
        {1: "a", 2: "b"}.values(),
        deque(["a", "b"]),
        pd.Series(["a", "b"], index=["x", "y"]),
        pd.Series(["a", "b"], dtype="string"),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(["a", "b"], dtype=object),
        pd.Series(["a", "b"], dtype=pd.ArrowDtype(pa.string())),
        pd.Index(["a", "b"]),
        pd.array(["a", "b"]),
        pd.DataFrame({"text": ["a", "b"]})["text"],
        pl.Series(["a", "b"]),
        pl.Series(["a", "b"], dtype=pl.Categorical),
        pl.DataFrame({"text": ["a", "b"]})["text"],
        pa.array(["a", "b"]),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.chunked_array([["a"], ["b"]]),
        pa.table({"text": ["a", "b"]})["text"],
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        np.array(["a", "b"], dtype=np.dtypes.StringDType()),
        [np.str_("a"), np.str_("b")],
        [Document("a"), Document("b")],
        [TextNode(text="a"), LlamaIndexDocument(text="b")],
        [NodeWithScore(node=TextNode(text="a"), score=1.0), "b"],
    ):
        texts = validate(given)  # type: ignore[arg-type]
        assert texts == ["a", "b"]
        assert {type(text) for text in texts} == {str}
        assert [*chunks(given, 1)][0] != []  # type: ignore[arg-type]  # noqa: RUF015


def test_a_node_is_the_text_that_its_index_embeds() -> None:
    """With the metadata that are meant for embeddings; otherwise its vector would not be that of the index."""
    node = TextNode(text="a", metadata={"title": "t", "secret": "s"}, excluded_embed_metadata_keys=["secret"])

    assert validate([node]) == [node.get_content(metadata_mode=MetadataMode.EMBED)] == ["title: t\n\na"]  # type: ignore[list-item]


@pytest.mark.parametrize("adapter", [RouterEmbeddings, RouterEmbedding])
def test_a_column_is_embedded_for_a_guarded_index(adapter: Any, typed: dict[str, Any], emulator: Emulator) -> None:
    """Whether a column is empty is no question that pandas and numpy answer."""
    router = Router([FakeBackend().model()], cache=None, ledger=":memory:")
    embedder = adapter(router, index="columns")
    many = embedder.embed_documents if adapter is RouterEmbeddings else embedder.get_text_embedding_batch
    for column in (pd.Series(["a", "b"], index=["x", "y"]), np.array(["a", "b"]), pl.Series(["a", "b"])):
        assert len(many(column)) == 2


def test_positions_count_in_all_texts_of_a_call() -> None:
    """LlamaIndex cuts them into batches of 2,048; of ``embed_iter`` the chunks count together."""
    router = Router([fake := FakeBackend().model()], cache=None, ledger=":memory:")
    texts = [*["a"] * 3000, "", "b"]
    for call in (
        lambda: RouterEmbedding(router).get_text_embedding_batch(texts),
        lambda: asyncio.run(RouterEmbedding(router).aget_text_embedding_batch(texts)),
        lambda: RouterEmbeddings(router).embed_documents(texts),
        lambda: list(router.embed_iter(pd.Series(texts), input_type="document", chunk_size=999)),
    ):
        with pytest.raises(InvalidInputError, match="empty: 3000") as caught:
            call()
        assert caught.value.indices == (3000,)
    assert fake.backend is not None


def test_a_framework_that_is_missing_is_told_the_extra() -> None:
    """Other errors of an import stay as they are."""
    says = r"x needs langchain_core.*pip install 'embedrouter\[langchain\]'"
    with pytest.raises(ModuleNotFoundError, match=says), needed("x", "langchain"):
        importlib.import_module("langchain_core.no_such_module")
    with pytest.raises(ModuleNotFoundError, match="No module named"), needed("x", "langchain"):
        importlib.import_module("embedrouter.no_such_module")
