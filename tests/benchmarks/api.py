"""OpenAI's embeddings endpoint as a benchmark wants it: the answers are prepared, only the latency passes.

    python -m tests.benchmarks.api     prints its port, and ends with its standard input

The latency in milliseconds is the first part of the path (`/200/v1/embeddings`), and preparing an answer is part of it.
`GET /requests` tells how many requests there were. The answers are those of the tests' emulator in shape, base64 or
numbers as asked for; a vector depends on its place in the request only.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import sys

import numpy as np

DIMENSIONS = 1536
DIFFERENT = 64
"""Vectors; they repeat after so many."""
TOKENS = 10
"""Billed for each text."""

HEADERS = (
    "content-type: application/json\r\n"
    "openai-model: text-embedding-3-small\r\n"
    "x-ratelimit-limit-requests: 10000\r\n"
    "x-ratelimit-limit-tokens: 10000000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\n"
    "x-ratelimit-remaining-tokens: 9990000\r\n"
    "x-ratelimit-reset-requests: 6ms\r\n"
    "x-ratelimit-reset-tokens: 0s\r\n"
)


class Api:
    """Answers every request after its latency, and counts them."""

    def __init__(self) -> None:
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                content = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(await self.respond(lines[0].split(" ")[1], content))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def respond(self, path: str, content: bytes) -> bytes:
        if path == "/requests":
            return framed(b"%d" % self.requests)
        self.requests += 1
        loop = asyncio.get_running_loop()
        due = loop.time() + int(path.split("/")[1]) / 1000
        fields = json.loads(content)
        asked = fields["input"]
        number = len(asked) if isinstance(asked, list) else 1
        response = body(number, fields.get("encoding_format") == "base64")
        await asyncio.sleep(due - loop.time())
        return response


def framed(content: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{HEADERS}content-length: {len(content)}\r\n\r\n".encode() + content


@functools.lru_cache(maxsize=64)
def body(number: int, encoded: bool) -> bytes:
    """Return the whole response for so many texts."""
    numbers = embeddings(encoded)
    rows = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{numbers[index % DIFFERENT]}}}' for index in range(number)
    )
    usage = f'{{"prompt_tokens":{number * TOKENS},"total_tokens":{number * TOKENS}}}'
    text = f'{{"object":"list","data":[{rows}],"model":"text-embedding-3-small","usage":{usage}}}'
    return framed(text.encode())


@functools.cache
def embeddings(encoded: bool) -> list[str]:
    """Return the vectors as they stand in JSON."""
    matrix = np.random.default_rng(7).standard_normal((DIFFERENT, DIMENSIONS)).astype("<f4")
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    if encoded:
        return [f'"{base64.b64encode(row.tobytes()).decode()}"' for row in matrix]
    return [json.dumps(row.tolist()) for row in matrix]


async def main() -> None:
    api = Api()
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0, backlog=1024, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
