"""Versions outside the supported ranges: whoever has one is told which, and the command that mends it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from embedrouter import Model, Router
from embedrouter.errors import ConfigError
from embedrouter.providers.versions import outside, requirements
from tests import own_metadata
from tests.either import embed


@pytest.fixture(autouse=True)
def _metadata_of_this_source(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those that were installed may be of another day."""
    monkeypatch.setattr(metadata, "requires", lambda name: own_metadata.requires())
    outside.cache_clear()
    yield
    outside.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Say what is installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    ("model", "package", "version"),
    [
        ("openai:text-embedding-3-small", "openai", "0.28.1"),
        ("openai:text-embedding-3-small", "openai", "1.66.0"),
        ("openai:text-embedding-3-small", "openai", "4.0.0"),
        ("cohere:embed-v4.0", "cohere", "5.5.8"),
        ("voyage:voyage-4", "httpx", "0.26.0"),
        ("google_genai:gemini-embedding-001", "google-genai", "1.0.0"),
        ("wordllama:l2_supercat_256", "wordllama", "0.5.0"),
    ],
)
def test_a_version_outside_the_range_is_told_at_the_first_request(
    model: str, package: str, version: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command, instead of a ``TypeError``."""
    install(monkeypatch, **{package: version})
    key = None if model.startswith("wordllama") else "k"
    with Router([Model(model, api_key=key)], cache=None) as router, pytest.raises(ConfigError) as caught:
        embed(router, asynchronous, ["a text"], input_type="query")

    [needed] = {item.specifier for _, item in requirements() if item.name == package}
    assert str(caught.value) == (
        f"{model} needs {package}{needed}, and {package} {version} is installed. Run: pip install '{package}{needed}'"
    )


@pytest.mark.parametrize(
    ("module", "name", "package", "version"),
    [
        ("embedrouter.langchain", "RouterEmbeddings", "langchain-core", "0.2.43"),
        ("embedrouter.langchain", "with_tier", "langchain-core", "2.0.0"),
        ("embedrouter.llama_index", "RouterEmbedding", "llama-index-core", "0.10.68"),
    ],
)
def test_an_adapter_tells_it_before_it_imports_the_framework(
    module: str, name: str, package: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import from a version that is too old would fail with a name that says nothing."""
    install(monkeypatch, **{package: version})
    monkeypatch.delitem(sys.modules, module, raising=False)

    with pytest.raises(
        ConfigError, match=rf"^{module} needs {package}.*, and {package} {version} is installed\. Run: "
    ):
        getattr(importlib.import_module(module), name)


def test_a_version_of_another_extra_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there for another program."""
    install(monkeypatch, openai="0.28.1", safetensors="0.5.0", tokenizers="0.22.0")
    with Router(["wordllama:l2_supercat_256"], cache=None) as router:
        assert router.embed(["a text"], input_type="query").vectors.shape == (1, 256)


def test_without_metadata_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source tree that was never installed says nothing of versions."""

    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)

    assert outside("openai") == ()


def test_requirements_are_those_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may be wanted in other versions under another Python, or not at all."""
    lines = [
        'one<2; python_version < "3" and extra == "x"',
        'one>=2; python_version >= "3" and extra == "x"',
        'other; (python_version < "3" or sys_platform == "none") and extra == "x"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)

    assert [(extra, str(item.specifier)) for extra, item in requirements()] == [("x", ">=2")]


@pytest.mark.parametrize(("python", "bounds"), [("3.11", "<0.5,>=0.2.2.post0"), ("3.14", "==0.2.2.post0")])
def test_one_wordllama_is_wanted_under_each_python(python: str, bounds: str) -> None:
    """From Python 3.14 on only one release has a wheel."""
    lines = map(Requirement, own_metadata.requires())
    environment = {"python_version": python, "extra": "wordllama"}
    found = [item for item in lines if item.name == "wordllama" and item.marker and item.marker.evaluate(environment)]

    assert [str(item.specifier) for item in found] == [bounds]
