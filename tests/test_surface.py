"""What importing the package gives, and what it must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import embedrouter

ROOT = Path(__file__).parents[1]
HEAVY = {
    "openai",
    "cohere",
    "voyageai",
    "boto3",
    "botocore",
    "google.genai",
    "httpx",
    "httpx2",
    "torch",
    "transformers",
    "sentence_transformers",
    "wordllama",
    "tiktoken",
    "langchain_core",
    "llama_index",
    "pydantic",
    "pandas",
    "ir_measures",
    "pytrec_eval",
    "typer",
    "rich",
}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) | {name.partition(".")[0] for name in done.stdout.split()}


def test_the_public_names_are_these() -> None:
    """Users and examples rely on them; a change here is a breaking change."""
    assert sorted(embedrouter.__all__) == [
        "Account",
        "Backend",
        "BatchJob",
        "BookedRequest",
        "Budget",
        "Cache",
        "CapLeft",
        "Comparison",
        "EmbeddingResult",
        "Estimate",
        "InputType",
        "Model",
        "ModelHealth",
        "RetryPolicy",
        "Router",
        "Space",
        "TieredRouter",
        "Usage",
        "VectorCheck",
        "acompare",
        "compare",
        "tag",
        "tier",
    ]
    assert all(hasattr(embedrouter, name) for name in embedrouter.__all__)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert embedrouter.__version__ == metadata.version("embedrouter")
    assert not hasattr(embedrouter, "version")


@pytest.mark.slow
def test_the_package_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedrouter", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"embedrouter {embedrouter.__version__}\n"


def test_importing_the_package_loads_no_sdk_no_framework_and_no_torch() -> None:
    """A service that only asks its cache should not pay seconds for torch."""
    loaded = loaded_by("import embedrouter")
    assert loaded & HEAVY == set()
    assert "embedrouter.comparison" not in loaded, "it is imported when it is used"


def test_building_routers_for_every_provider_loads_no_sdk() -> None:
    """Construction decides and opens nothing; the first request loads what it needs."""
    build = (
        "import embedrouter as e\n"
        "for name in ('openai:text-embedding-3-small', 'cohere:embed-v4.0', 'voyage:voyage-4', "
        "'google_genai:gemini-embedding-2', 'bedrock:cohere.embed-v4:0', 'wordllama:l2_supercat_256', "
        "'sentence-transformers:all-MiniLM-L6-v2'):\n"
        "    e.Router([name])\n"
        "e.Router([e.Model('azure_openai:text-embedding-3-small', base_url='https://x', api_version='2024-10-21')])"
    )

    assert loaded_by(build) & HEAVY == set()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_an_adapter_loads_its_own_framework_only(framework: str) -> None:
    """Either framework can be absent."""
    others = {"langchain": "llama_index", "llama_index": "langchain_core"}

    assert others[framework] not in loaded_by(f"import embedrouter.{framework}")


def test_layers_import_only_what_is_below_them() -> None:
    """The contracts are in pyproject.toml; this is what keeps them true."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_what_it_is_for() -> None:
    """The module docstrings carry the design."""
    for path in (ROOT / "src/embedrouter").rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
