"""How much of a limit of tokens a minute is used, over three minutes that last a minute each.

    python -m pytest tests/benchmarks/bench_pace.py -o python_files="bench_*.py" -s

The limits are those that makers give. The settings run side by side: all of them wait most of the time. The goal is
0.95 with no 429; what is not declared is learnt from the first answer, so the requests before it may be too many.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import EmbedRouterError
from tests.emulator import Aligned, Bucket, Emulator, Pace, Sliding

MINUTES = 3
WORDS = ["the", "of", "and", "to", "in", "with", "this", "from", "which", "but", "there", "retrieval", "documentation"]


@dataclass(frozen=True)
class Setting:
    name: str
    model: str
    pace: Pace
    declared: dict[str, Any] = field(default_factory=dict)


SETTINGS = [
    Setting(
        "OpenAI, last minute",
        "openai:text-embedding-3-small",
        Sliding(tokens=300_000, requests=3000),
        {"tokens_per_minute": 300_000, "requests_per_minute": 3000},
    ),
    Setting(
        "OpenAI, bucket, learnt from headers",
        "openai:text-embedding-3-small",
        Bucket(tokens=400_000, requests=3000),
    ),
    Setting(
        "Cohere, minute of the clock",
        "cohere:embed-v4.0",
        Aligned(tokens=100_000, requests=40),
        {"tokens_per_minute": 100_000, "requests_per_minute": 40},
    ),
    Setting(
        "Voyage without payment, last minute",
        "voyage:voyage-4-lite",
        Sliding(tokens=10_000, requests=3),
        {"tokens_per_minute": 10_000, "requests_per_minute": 3},
    ),
]


def texts(tokens: int) -> list[str]:
    """Return different texts of about a hundred tokens each, that many in all."""
    chance = random.Random(tokens)
    return [" ".join(chance.choices(WORDS, k=chance.randint(50, 150))) for _ in range(tokens // 100)]


def work(setting: Setting) -> str:
    pace = setting.pace
    with Emulator(latency=0.1, pace=pace) as emulator:
        url = getattr(emulator, f"{setting.model.partition(':')[0]}_url")
        model = Model(setting.model, base_url=url, api_key="k", **setting.declared)
        with (
            Router([model], cache=None, ledger=":memory:", retry=RetryPolicy(attempts=9)) as router,
            suppress(EmbedRouterError),  # the time is up: what would end after it is not begun
        ):
            router.embed(texts((MINUTES + 2) * (pace.tokens or 0)), input_type="document", timeout=(MINUTES + 1) * 60)
    begin = min(at for at, _ in pace.accepted)
    parts = [pace.used(begin + 60 * n, begin + 60 * (n + 1)) / (pace.tokens or 1) for n in range(MINUTES)]
    used = sum(parts) / MINUTES
    return (
        f"| {setting.name} | {pace.tokens:,} | {pace.requests:,} | {len(pace.accepted)} | "
        f"{' '.join(f'{part:.3f}' for part in parts)} | {used:.3f} | {pace.provoked} |"
    )


def test_three_minutes_of_a_limit() -> None:
    """A job of millions of tokens takes as long as its limit lets it."""
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        rows = list(pool.map(work, SETTINGS))

    print("\n| limit | tokens | requests | sent | used in each minute | used | 429 |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))
