"""A wire-faithful emulator of embeddings endpoints, for tests.

It speaks to the makers' real SDKs over a real loopback socket: OpenAI, Azure OpenAI, Cohere, Voyage AI, Google and
Amazon Bedrock. It refuses what they refuse, in their words; answers deterministic vectors that `vector` computes as
well; counts what it would bill; and fails on command.

    with Emulator() as emulator:
        client = openai.OpenAI(api_key="any", base_url=emulator.openai_url, max_retries=0)
        emulator.script(Fault.rate_limited(retry_after=0.05), None)

The batch endpoints of OpenAI, Voyage AI and Mistral with their files are there as well; `emulator.batches`,
`emulator.voyage_batches` and `emulator.mistral_batches` let their time pass.
"""

from __future__ import annotations

from tests.emulator.batch_input import Limits, Line
from tests.emulator.batches import Batches
from tests.emulator.emulator import Emulator, Rule
from tests.emulator.exchange import Received, Refused
from tests.emulator.faults import Fault
from tests.emulator.models import MODELS, Model
from tests.emulator.pace import Aligned, Bucket, Pace, Sliding
from tests.emulator.tokens import count_tokens
from tests.emulator.vectors import Vector, vector

__all__ = [
    "MODELS",
    "Aligned",
    "Batches",
    "Bucket",
    "Emulator",
    "Fault",
    "Limits",
    "Line",
    "Model",
    "Pace",
    "Received",
    "Refused",
    "Rule",
    "Sliding",
    "Vector",
    "count_tokens",
    "vector",
]
