"""A provider that another package brings: the example of docs/write-a-provider.md, installed and used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import AuthenticationError, ConfigError, InputRejectedError
from tests import acme
from tests.acme import EXAMPLE, Acme
from tests.either import embed


@pytest.fixture
def address() -> Iterator[str]:
    with acme.server() as address:
        yield address


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the example's metadata found, as if it were installed."""
    for place in acme.installed(tmp_path):
        monkeypatch.syspath_prepend(str(place))
    yield
    for name in [name for name in sys.modules if name.startswith("acme_embeddings")]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_an_installed_package_brings_a_provider(
    address: str, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """Its models are declared by name, as those of the package are: batches, money, input types, keys."""
    monkeypatch.setenv("ACME_API_KEY", "acme-key")
    router = Router([Model("acme:vectors-1", base_url=address)], cache=None, ledger=":memory:")
    result = embed(router, asynchronous, [f"text {number}" for number in range(40)], input_type="document")
    query = embed(router, asynchronous, ["a"], input_type="query")
    router.close()

    assert str(result.space) == "acme-vectors-1 (4 dimensions)"
    assert sorted(len(body["texts"]) for body in Acme.received) == [1, 8, 16, 16]
    assert query.vectors.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    assert result.usage.cost > 0
    assert result.usage.tokens == sum(len(text) for body in Acme.received[:3] for text in body["texts"])


@pytest.mark.usefixtures("installed")
def test_its_errors_are_those_of_every_provider(
    address: str, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """A missing key, a wrong key, a text that is too long."""
    router = Router(
        [Model("acme:vectors-1", base_url=address)], cache=None, ledger=":memory:", retry=RetryPolicy(attempts=1)
    )
    with pytest.raises(AuthenticationError, match="ACME_API_KEY"):
        embed(router, asynchronous, ["a"], input_type="query")
    monkeypatch.setenv("ACME_API_KEY", "wrong")
    with pytest.raises(AuthenticationError, match="unknown key"):
        embed(router, asynchronous, ["a"], input_type="query")
    monkeypatch.setenv("ACME_API_KEY", "acme-key")
    with pytest.raises(InputRejectedError) as long:
        embed(router, asynchronous, ["a", "b" * 200], input_type="document")
    assert long.value.indices == (1,)
    router.close()


@pytest.mark.usefixtures("installed")
def test_a_model_that_it_does_not_know_is_declared(address: str) -> None:
    with pytest.raises(ConfigError, match="space=…, dimensions=…"):
        Router(["acme:other"])
    router = Router([Model("acme:other", base_url=address, api_key="acme-key", space="s", dimensions=4)], cache=None)
    assert len(router.embed(["a"], input_type="query")) == 1
    router.close()


@pytest.mark.usefixtures("installed")
def test_it_is_among_the_known_providers() -> None:
    with pytest.raises(ConfigError, match="acme"):
        Router(["nowhere:model"])


def test_no_package_takes_the_name_of_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and texts for OpenAI are OpenAI's, whichever packages are installed."""
    metadata = tmp_path / "thief-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thief\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[embedrouter.providers]\nopenai = thief.provider\nmistral = thief.provider\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("openai:text-embedding-3-small", "mistral:mistral-embed"):
        Router([name], cache=None, ledger=":memory:").close()  # the module does not exist: it is not looked for


@pytest.mark.slow
def test_the_example_installs(tmp_path: Path) -> None:
    """As a package, by pip, with the entry point that the page shows."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), str(EXAMPLE)]
    subprocess.run(install, check=True, timeout=300)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from embedrouter import Router\n"
        "print(Router(['acme:vectors-1'], cache=None).space)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "acme-vectors-1 (4 dimensions)\n"


def test_the_page_shows_the_example() -> None:
    page = (Path(__file__).parents[1] / "docs" / "write-a-provider.md").read_text("utf-8")
    for file in ("pyproject.toml", "acme_embeddings/provider.py"):
        assert f"```\n{(EXAMPLE / file).read_text('utf-8')}```" in page.replace("```toml", "```").replace(
            "```python", "```"
        )
