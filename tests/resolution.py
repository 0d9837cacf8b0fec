"""Resolves embedrouter beside the packages that RAG teams use: ``python -m tests.resolution``, with uv installed.

Each package is resolved alone, and with all extras of embedrouter listed after it. A package that would be held at an
older release than alone is a fault, and so are an environment of several that does not resolve, and a quick start for
which a Python would need a compiler. Nothing is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]

PACKAGES = (
    "autogen-ext[openai]",
    "chromadb",
    "crewai",
    "dspy",
    "graphrag",
    "guidance",
    "haystack-ai",
    "instructor",
    "langchain",
    "langchain-chroma",
    "langchain-cohere",
    "langchain-community",
    "langchain-google-genai",
    "langchain-huggingface",
    "langchain-openai",
    "langchain-voyageai",
    "langfuse",
    "langgraph",
    "litellm",
    "llama-index",
    "llama-index-embeddings-cohere",
    "llama-index-embeddings-openai",
    "llama-index-embeddings-voyageai",
    "llama-index-llms-cohere",
    "llama-index-llms-openai",
    "mem0ai",
    "pinecone",
    "pydantic-ai",
    "pymilvus",
    "qdrant-client",
    "ragas",
    "semantic-router",
    "unstructured",
    "weaviate-client",
)
"""Packages that people have beside embedrouter."""

TOGETHER = (
    "llama-index",
    "langchain-cohere",
    "llama-index-embeddings-cohere",
    "crewai",
    "langchain-openai",
    "ragas",
    "chromadb",
    "dspy",
    "langgraph",
)
"""Packages of one environment, with all extras of embedrouter."""

QUICK_START = {
    **dict.fromkeys(("3.11", "3.12", "3.13", "3.14"), "embedrouter[wordllama,langchain,llama-index]"),
    "3.15": "embedrouter[wordllama,llama-index]",  # orjson, which LangChain needs, has no wheel for it in November 2026
}
"""What the quick start installs, by Python."""

PYTHON = "3.11"
PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)
OURS = "embedrouter[all]"


def resolve(requirements: Sequence[str], links: str, *more: str, python: str = PYTHON) -> dict[str, str]:
    """Return the release of each package, as uv would install them.

    Args:
        links: the folder that holds the wheel of embedrouter.
        more: further options of uv.

    Raises:
        RuntimeError: the requirements contradict each other; the message is uv's.
    """
    options = ("--quiet", "--no-header", "--no-annotate", "--no-python-downloads", "--find-links", links, *more)
    command = ["uv", "pip", "compile", "-", "--python-version", python, *options]
    done = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(PIN.findall(done.stdout))


def compare(package: str, links: str) -> tuple[bool, str]:
    """Resolve a package alone and beside embedrouter; return whether its release is the same, and a line to print."""
    name = package.partition("[")[0]
    alone = resolve([package], links)[name]
    try:
        beside = resolve([package, OURS], links)[name]
    except RuntimeError as error:
        return False, f"{name} {alone}: does not resolve beside embedrouter\n{error}"
    return alone == beside, f"{name} {alone}" + (f": held at {beside}" if alone != beside else "")


def main() -> int:
    """Print a line for each package; return the number of those that are held."""
    with tempfile.TemporaryDirectory() as links, ThreadPoolExecutor(4) as pool:
        subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", links, str(ROOT)], check=True)
        held = 0
        for fine, line in pool.map(compare, PACKAGES, [links] * len(PACKAGES)):
            print(line, flush=True)
            held += not fine
        together = resolve([*TOGETHER, OURS], links)
        for python, wanted in QUICK_START.items():
            found = resolve([wanted], links, "--only-binary", ":all:", python=python)
            print(f"Python {python}, wheels only: {len(found)} packages, wordllama {found['wordllama']}")
        print("together: " + ", ".join(f"{name} {together[name]}" for name in (*TOGETHER, "embedrouter")))
    print(f"{len(PACKAGES) - held} of {len(PACKAGES)} packages have the same release beside embedrouter as alone")
    return held


if __name__ == "__main__":
    sys.exit(main())
