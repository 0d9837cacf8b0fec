"""``embedrouter doctor`` and ``Router.check_agreement``: what is found out, and what it costs to find out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from embedrouter import Budget, Model, RetryPolicy, Router, doctor
from embedrouter.cache import CacheDatabase
from embedrouter.cache._codec import encode
from embedrouter.cache._disk import DiskCache
from embedrouter.cli import app
from embedrouter.doctor import ProbeRecords, check_cache, check_models
from embedrouter.errors import (
    BudgetExceededError,
    ConfigError,
    NoModelAvailableError,
    SpaceMismatchError,
    StalePriceWarning,
    UnavailableError,
)
from embedrouter.models import Catalogue, load_catalogue
from embedrouter.models.agreement import PROBE_TEXTS, PROBE_VERSION, SAME_MODEL_COSINE, lowest_cosine
from embedrouter.providers import address_of
from embedrouter.retrieval.index_guard import IndexGuard, users_folder
from embedrouter.router import embed_alone, wiring_of
from embedrouter.spending import Ledger
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, Entry, InputType, Space, Vectors
from tests import own_metadata
from tests.emulator import Emulator, Fault, count_tokens

SMALL = "openai:text-embedding-3-small"
KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure_openai": "AZURE_OPENAI_API_KEY",
    "cohere": "CO_API_KEY",
    "voyage": "VOYAGE_API_KEY",
}
SECRET = "sk-harbour-0123456789abcdef"
PRICE = Decimal("0.02")
"""US dollars per million tokens of text-embedding-3-small."""
TODAY = date(2026, 11, 21)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, entered, and a key."""
    for variable in KEYS.values():
        monkeypatch.setenv(variable, SECRET)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def configure(*models: str, top: str = "") -> None:
    """Write a configuration with a cache in ``kept`` that gives up after the first try."""
    tables = "".join(f"[[models]]\n{model}\n" for model in models)
    Path("embedrouter.toml").write_text(f'cache = "kept"\n{top}\n[retry]\nattempts = 1\n{tables}')


def small(emulator: Emulator, **more: object) -> str:
    return rows(model=SMALL, base_url=emulator.openai_url, **more)


def azure(emulator: Emulator, **more: object) -> str:
    return rows(
        model="azure_openai:text-embedding-3-small", base_url=emulator.azure_url, api_version="2024-10-21", **more
    )


def rows(**settings: object) -> str:
    settings = {"api_key_env": KEYS[str(settings["model"]).partition(":")[0]], **settings}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def examine(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """Return what the command prints with ``--json``."""
    done = call(*arguments, "--json")
    assert done.exit_code == code, f"{done.output}{done.exception!r}"
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["ok"] is (code == 0)
    return facts


def found(facts: dict[str, Any], check: str, subject: str | None = None) -> dict[str, Any]:
    """Return the one finding of a check."""
    matching = [item for item in facts["findings"] if item["check"] == check and subject in (None, item["subject"])]
    assert len(matching) == 1, facts["findings"]
    item: dict[str, Any] = matching[0]
    return item


def problems(facts: dict[str, Any]) -> list[str]:
    return [item["check"] for item in facts["findings"] if item["level"] == "problem"]


def contents(folder: Path) -> dict[bytes, tuple[bytes, float]]:
    return {row.key: (row.value, row.stored) for row in CacheDatabase(folder).rows()}


Versions = Callable[..., None]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Versions:
    """Say what is installed, and what this package asks for."""

    def install(requires: list[str], **found: str) -> None:
        def version(name: str) -> str:
            try:
                return {"embedrouter": "0.1.0", **found}[name]
            except KeyError:
                raise metadata.PackageNotFoundError(name) from None

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "requires", lambda name: requires)

    return install


# All is well


def test_a_healthy_router_is_found_healthy(place: Path, emulator: Emulator) -> None:
    """Nothing is wrong, and the second run compares with the first."""
    configure(small(emulator))

    first, second = examine(), examine()

    assert found(first, "answer")["facts"]["dimensions"] == 1536
    assert found(first, "price")["facts"]["price"] == "0.02"
    assert found(first, "drift, query")["facts"]["stored"] is True
    assert found(second, "drift, document")["facts"]["cosine"] == pytest.approx(1.0)
    assert found(second, "drift, query")["facts"]["stored"] is False
    assert problems(first) == problems(second) == []


def test_without_a_key_and_a_configuration_wordllama_is_examined(place: Path) -> None:
    """The command works on a machine that has nothing else."""
    facts = examine()

    assert found(facts, "answer")["subject"] == "wordllama:l2_supercat_256"
    assert facts["usage"]["cost"] == "0"
    assert facts["usage"]["requests"] == 2


def test_what_people_read_ends_with_the_verdict(place: Path, emulator: Emulator, versions: Versions) -> None:
    """One line a finding, the next step under it."""
    versions(["openai<4,>=3.0; extra == 'openai'"], openai="3.52.0")
    configure(small(emulator))

    lines = call().stdout.splitlines()

    assert lines[0] == SMALL
    assert any(line.startswith("  ok       drift, document: today's vectors are stored") for line in lines)
    assert lines[-2].startswith("The probes took 2 requests, ")
    assert lines[-1] == "All is well."


def test_every_router_of_a_tiered_configuration_is_examined(place: Path, emulator: Emulator) -> None:
    """One that cannot be built does not hide the other."""
    Path("embedrouter.toml").write_text(
        '[routers.low]\n[[routers.low.models]]\nmodel = "wordllama:l2_supercat_256"\n'
        '[routers.high]\n[[routers.high.models]]\nmodel = "openai:text-embedding-4"\n'
    )

    facts = examine(code=1)

    assert found(facts, "answer")["subject"] == "wordllama:l2_supercat_256"
    assert "text-embedding-4" in found(facts, "settings", "router high")["story"]


# What it costs


def test_probes_are_booked_under_a_tag(place: Path, emulator: Emulator) -> None:
    """The expected money is the catalogue's price times what the emulator bills."""
    configure(small(emulator))

    facts = examine()

    expected = 2 * sum(count_tokens("openai", text) for text in PROBE_TEXTS)
    account = Ledger(place / "kept/ledger.db").totals("tag")["doctor"]
    assert account.tokens == expected == emulator.billed["openai", "text-embedding-3-small"]
    assert account.cost == Decimal(facts["usage"]["cost"]) == expected * PRICE / 1_000_000


def test_the_vector_cache_is_neither_read_nor_written(place: Path, emulator: Emulator) -> None:
    """A cached probe would hide every drift; a probe in the cache would be a row that no user asked for."""
    configure(small(emulator))
    with Router.from_config("embedrouter.toml") as router:
        router.embed(PROBE_TEXTS, input_type="document")
    before, calls = contents(place / "kept"), emulator.calls

    examine()

    assert contents(place / "kept") == before
    assert emulator.calls == calls + 2


def test_a_budget_that_does_not_suffice_is_kept(place: Path, emulator: Emulator) -> None:
    """Looking whether all is well is no reason to overspend."""
    configure(small(emulator), top='[budget]\ntotal = "0.000001"')

    facts = examine(code=1)

    assert problems(facts) == ["budget"]
    assert "total=$0.000001" in found(facts, "budget")["story"]
    assert emulator.calls == 0


# Models that do not answer


def test_a_missing_key_does_not_hide_the_other_models(place: Path, emulator: Emulator) -> None:
    """The finding names the variable to set."""
    configure(small(emulator), azure(emulator, api_key_env="QUAY_KEY"))

    facts = examine("--config", "embedrouter.toml", code=1)

    assert "QUAY_KEY" in found(facts, "key", "azure_openai:text-embedding-3-small")["story"]
    assert found(facts, "answer", SMALL)["level"] == "ok"
    assert problems(facts) == ["key"]


@pytest.mark.refused
@pytest.mark.parametrize("output", [(), ("--json",)])
def test_a_refused_key_is_reported_and_never_printed(place: Path, output: tuple[str, ...]) -> None:
    """OpenAI repeats the key in its refusal."""
    with Emulator(keys={"sk-another"}) as emulator:
        configure(small(emulator))
        done = call(*output)

    assert done.exit_code == 1
    assert "HTTP 401" in done.output
    assert SECRET not in done.output
    assert SECRET[-6:] not in done.output


def test_a_key_is_in_no_file_that_is_written(place: Path, emulator: Emulator) -> None:
    """Neither the ledger nor the stored probes know it, nor the texts."""
    configure(small(emulator))
    examine()

    for file in (place / "kept").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert SECRET.encode() not in content
            assert PROBE_TEXTS[0].encode() not in content


def test_an_unreachable_server_is_reported(place: Path, emulator: Emulator) -> None:
    """The advice says where to look."""
    configure(rows(model=SMALL, base_url="http://127.0.0.1:9/v1"), azure(emulator))

    facts = examine(code=1)

    assert found(facts, "reachable", SMALL)["facts"]["error"] == "UnavailableError"
    assert "base_url" in found(facts, "reachable", SMALL)["advice"]
    assert found(facts, "answer")["subject"].startswith("azure_openai")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.wrong_dimensions(8), "vectors of 8 dimensions came, not of 1536: declare Model(…, dimensions=8)"),
        (Fault.nan(), "not finite"),
        (Fault.zeros(), "all zeros"),
    ],
)
def test_wrong_vectors_are_reported(place: Path, emulator: Emulator, fault: Fault, said: str) -> None:
    """They are never stored for comparison."""
    configure(small(emulator))
    emulator.fault_for = lambda _: fault

    facts = examine(code=1)

    assert said in found(facts, "answer")["story"]
    assert "dimensions=" in found(facts, "answer")["advice"]
    assert not (place / "kept/probes").exists()


def test_a_server_that_treats_queries_in_its_own_way_is_found_out(tmp_path: Path) -> None:
    """The cache would serve a document's vector to a query."""
    row = '[[models]]\nmodel = "fake:model"\nspace = "fake"\ndimensions = 8\ntexts = 9\nsymmetric = true\nprice = "0"\n'
    (tmp_path / "own.toml").write_text(row)
    fake = FakeBackend()
    router = Router([Model("fake:model", backend=fake)], catalog=tmp_path / "own.toml", cache=None, ledger=":memory:")

    findings = list(check_models(router, ProbeRecords(tmp_path / "p"), cards=load_catalogue(), today=TODAY))

    assert [finding.check for finding in findings if finding.level == "problem"] == ["symmetry"]


@pytest.mark.parametrize(
    ("name", "story"),
    [
        ("gemini:gemini-embedding-001", "$0.15 per million tokens, checked on"),
        ("litellm:text-embedding-3-small", "$0.02 per million tokens, checked on"),
        ("voyage:voyage-context-3", "unknown"),
    ],
)
def test_a_model_is_known_under_every_name_that_it_may_have(name: str, story: str, tmp_path: Path) -> None:
    """An alias, a gateway's name; and a name that only a backend of the user's may have."""
    price = None if story == "unknown" else "0.15" if "gemini" in name else "0.02"
    router = Router([FakeBackend().model(name, price=price)], cache=None, ledger=":memory:")
    findings = list(check_models(router, ProbeRecords(tmp_path / "p"), cards=load_catalogue(), today=TODAY))
    [found] = [finding for finding in findings if finding.check == "price"]
    assert found.story.startswith(story)


def test_vectors_that_are_not_of_length_1_are_worth_a_warning(tmp_path: Path) -> None:
    """A store that compares by inner product would rank by length."""
    numbers = np.random.default_rng(1).standard_normal((len(PROBE_TEXTS), 8)).astype(np.float32)
    fake = FakeBackend(outcomes=[Answer(numbers, 9), Answer(numbers, 9)])
    router = Router([fake.model()], cache=None, ledger=":memory:")

    findings = list(check_models(router, ProbeRecords(tmp_path / "p"), cards=Catalogue({}, {}, {}), today=TODAY))

    assert [finding.check for finding in findings if finding.level == "warning"] == ["length", "price"]


def test_a_server_that_gives_every_text_the_same_vector_is_found_out(tmp_path: Path) -> None:
    """Its vectors are finite, of the right number and length, and worth nothing."""
    numbers = np.tile(np.eye(1, 8, dtype=np.float32), (len(PROBE_TEXTS), 1))
    fakes = [FakeBackend(outcomes=[Answer(numbers, 9), Answer(numbers, 9)]) for _ in range(2)]
    models = [fake.model(name, price="0") for fake, name in zip(fakes, ("fake:a", "fake:b"), strict=True)]
    router = Router(models, cache=None, ledger=":memory:")

    findings = list(check_models(router, ProbeRecords(tmp_path / "p"), cards=Catalogue({}, {}, {}), today=TODAY))

    wrong = [finding.check for finding in findings if finding.level == "problem"]
    assert wrong == ["texts", "texts", "models of one space"]


# Drift


def test_a_provider_that_changed_the_model_is_found_out_and_can_be_accepted(place: Path) -> None:
    """An allowed name, the same dimensions, other vectors: nothing else would notice."""
    with Emulator() as honest:
        configure(azure(honest))
        examine()
    stored = (place / "kept/probes").glob("*.json")
    for file in stored:
        file.write_text(file.read_text().replace(date.today().isoformat(), "2026-01-31"))

    with Emulator(deployments={"text-embedding-3-small": "text-embedding-ada-002"}) as changed:
        configure(azure(changed, served_as=["text-embedding-ada-002"]))
        drifted = examine(code=1)
        still = examine(code=1)
        accepted = examine("--accept")
        again = examine()

    assert problems(drifted) == problems(still) == ["drift, document", "drift, query"]
    finding = found(drifted, "drift, document")
    assert finding["facts"]["since"] == "2026-01-31"
    assert "2026-01-31" in finding["story"]
    assert abs(finding["facts"]["cosine"]) < 0.5
    assert "--accept" in finding["advice"]
    assert found(accepted, "drift, query")["facts"]["stored"] is True
    assert found(again, "drift, query")["facts"]["cosine"] == pytest.approx(1.0)


def test_a_provider_that_answers_with_another_model_can_be_accepted(place: Path) -> None:
    """As any change of the vectors: after the documents were embedded again."""
    with Emulator() as honest:
        configure(azure(honest))
        examine()
    with Emulator(deployments={"text-embedding-3-small": "text-embedding-ada-002"}) as changed:
        configure(azure(changed))
        drifted = examine(code=1)
        accepted = examine("--accept")
        again = examine()

    assert problems(drifted) == ["drift"]
    finding = found(drifted, "drift")
    assert "'text-embedding-3-small' before, and now as 'text-embedding-ada-002'" in finding["story"]
    assert "served_as" in finding["advice"]
    assert "--accept" in finding["advice"]
    assert found(accepted, "drift, query")["facts"]["stored"] is True
    assert found(again, "drift, query")["facts"]["cosine"] == pytest.approx(1.0)


def test_wordllama_is_held_to_its_own_vectors(place: Path) -> None:
    """A local model changes with its files, or with the code that reads them."""
    examine()
    (file, *_) = (place.parent / "user-cache/embedrouter/probes").glob("*.json")
    content = json.loads(file.read_text())
    other = np.random.default_rng(2).standard_normal((len(PROBE_TEXTS), 256)).astype("<f4")
    records = ProbeRecords(file.parent)
    records.write(content["fingerprint"], content["input_type"], TODAY, "x", other)

    facts = examine(code=1)

    assert problems(facts) == [f"drift, {content['input_type']}"]


def test_noise_of_the_hardware_is_no_drift() -> None:
    """bfloat16 rounds to eight bits and changes the cosine in the fifth decimal."""
    vectors = np.random.default_rng(3).standard_normal((5, 1024)).astype(np.float32)
    rounded = (vectors.view(np.uint32) & 0xFFFF0000).view(np.float32)

    assert SAME_MODEL_COSINE < lowest_cosine(vectors, rounded) < 1.0
    assert lowest_cosine(vectors, vectors[:, :512]) == 0.0


@pytest.mark.parametrize("content", ["{", "{}", '{"vectors": "AAAA", "day": "2026-01-31", "model": "x"}'])
def test_a_damaged_record_is_no_silent_new_beginning(place: Path, content: str) -> None:
    """Otherwise a drift would pass whenever the record is broken."""
    examine()
    for file in (place.parent / "user-cache/embedrouter/probes").glob("*.json"):
        file.write_text(content)

    facts = examine(code=1)

    assert problems(facts) == ["drift, document", "drift, query"]
    assert problems(examine("--accept")) == []
    assert problems(examine()) == []


@pytest.mark.parametrize("spoilt", [0.0, float("nan"), float("inf")])
def test_a_record_of_what_is_no_vector_is_damaged(spoilt: float, tmp_path: Path) -> None:
    """It would read as a change of the model."""
    records = ProbeRecords(tmp_path / "probes")
    records.write("fingerprint", "query", TODAY, "openai:small", np.full((2, 4), spoilt, np.float32))

    with pytest.raises(ConfigError, match="cannot be read"):
        records.read("fingerprint", "query", (2, 4))


def test_another_set_of_probe_texts_is_another_record(tmp_path: Path) -> None:
    """Vectors of other texts say nothing of drift."""
    records = ProbeRecords(tmp_path / "cache/probes")
    newer = ProbeRecords(tmp_path / "cache/probes", version=PROBE_VERSION + 1)
    vectors = np.eye(5, 8, dtype=np.float32)
    records.write("f", "query", TODAY, "m", vectors)

    assert records.read("f", "query", (5, 8)) is not None
    assert records.read("f", "document", (5, 8)) is None
    assert records.read("g", "query", (5, 8)) is None
    assert newer.read("f", "query", (5, 8)) is None
    assert [folder.stat().st_mode & 0o777 for folder in (tmp_path / "cache", tmp_path / "cache/probes")] == [0o700] * 2


# Agreement


def test_two_places_of_one_model_agree(place: Path, emulator: Emulator) -> None:
    """OpenAI and Azure; both hold to one record."""
    configure(small(emulator), azure(emulator))

    facts = examine()

    assert found(facts, "the same model")["facts"]["cosine"] == pytest.approx(1.0)
    assert len(list((place / "kept/probes").iterdir())) == 2


def test_a_place_that_disagrees_is_found_out_and_not_stored(place: Path) -> None:
    """A deployment of another model under the model's name would mix spaces at the first failover."""
    with Emulator(deployments={"text-embedding-3-small": "text-embedding-ada-002"}) as emulator:
        configure(small(emulator), azure(emulator))
        facts = examine("--accept", code=1)

    finding = found(facts, "the same model")
    assert problems(facts) == ["the same model"]
    assert finding["facts"]["places"] == [SMALL, "azure_openai:text-embedding-3-small"]
    assert "deployment" in finding["advice"]
    assert not (place / "kept/probes").exists()


def test_places_of_one_name_can_be_told_apart(place: Path, emulator: Emulator) -> None:
    """Two regions have the same name; only one of them fails here."""
    configure(azure(emulator), azure(emulator, api_key_env="QUAY_KEY"))

    facts = examine("--config", "embedrouter.toml", code=1)

    assert found(facts, "key")["subject"] == "azure_openai:text-embedding-3-small (no. 2)"


def test_a_family_is_checked_by_what_its_texts_say(place: Path, emulator: Emulator) -> None:
    """Its members never give equal vectors."""
    url = emulator.voyage_url
    configure(rows(model="voyage:voyage-4-large", base_url=url), rows(model="voyage:voyage-4-lite", base_url=url))

    facts = examine()

    found_out = found(facts, "models of one space")["facts"]
    assert found_out["nearest_other"] < 0.5 < found_out["cosine"] < SAME_MODEL_COSINE


def test_check_agreement_lets_places_pass_that_agree(emulator: Emulator) -> None:
    """Nothing is read from the cache and nothing is written to it."""
    cache = MemoryCache()
    models = [
        Model(SMALL, base_url=emulator.openai_url, api_key="x"),
        Model(
            "azure_openai:text-embedding-3-small",
            base_url=emulator.azure_url,
            api_version="2024-10-21",
            api_key="x",
        ),
    ]
    with Router(models, cache=cache, ledger=":memory:") as router:
        (item,) = router.check_agreement()

        assert item.agrees
        assert item.claim == "same model"
        assert item.cosine > 0.9999
        assert cache.rows == {}
        assert emulator.calls == 4
        assert router.usage.requests == 4


def test_check_agreement_of_a_single_model_calls_nothing(emulator: Emulator) -> None:
    """There is nothing to compare."""
    assert Router([Model(SMALL, base_url=emulator.openai_url)], cache=None, ledger=":memory:").check_agreement() == []
    assert emulator.calls == 0


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("fake:a", "fake:a"), "fake:a (no. 1) and fake:a (no. 2) do not agree: .* They claim to be the same model"),
        (("fake:a", "fake:b"), "fake:a and fake:b do not agree: .* give each space a router of its own"),
    ],
)
def test_check_agreement_refuses_vectors_that_may_not_be_mixed(names: tuple[str, str], said: str) -> None:
    """Two models that only claim to share a space."""
    one = FakeBackend(dimensions=64, space="one").model(names[0], space="shared")
    other = FakeBackend(dimensions=64, space="other").model(names[1], space="shared")
    router = Router([one, other], cache=None, ledger=":memory:")

    with pytest.raises(SpaceMismatchError, match=said.replace("(", r"\(").replace(")", r"\)")):
        router.check_agreement()


class Cousin(FakeBackend):
    """A model whose vectors are near to those of another, with so much noise."""

    def __init__(self, noise: float) -> None:
        super().__init__(dimensions=256)
        self.noise = noise

    def vector(self, text: str, input_type: InputType) -> Vectors:
        noise = FakeBackend(dimensions=self.dimensions, space="noise").vector(text, input_type)
        mixed = super().vector(text, input_type) + np.float32(self.noise) * noise
        return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def test_models_of_a_family_may_differ() -> None:
    """What counts is which text a vector is near to, not that the vectors are equal."""
    models = [Cousin(0).model("fake:a", tier="high"), Cousin(0.4).model("fake:b", tier="low")]

    (item,) = Router(models, cache=None, ledger=":memory:").check_agreement()

    assert item.claim == "same space"
    assert 0.85 < item.cosine < 0.97


def test_places_of_one_model_may_not_differ_as_by_a_prompt() -> None:
    """Two words in front of the text leave a cosine of 0.99: near enough to look right, too far to be the same."""
    router = Router([Cousin(0).model(), Cousin(0.13).model()], cache=None, ledger=":memory:")

    with pytest.raises(SpaceMismatchError, match=r"cosine of the same text at least 0\.99"):
        router.check_agreement()


def test_check_agreement_compares_who_answers_and_then_says_who_did_not() -> None:
    """A place that is down is no reason to overlook two that disagree; nor is silence agreement."""
    down = FakeBackend(outcomes=[UnavailableError("down", retryable=False)] * 9)
    up = [FakeBackend(space="fake") for _ in range(2)]
    router = Router([fake.model() for fake in (down, *up)], cache=None, ledger=":memory:", retry=NO_WAITING)

    with pytest.raises(NoModelAvailableError, match="down"):
        router.check_agreement()
    assert [len(fake.calls) for fake in up] == [2, 2]

    other = FakeBackend(space="other").model(space="fake")
    with pytest.raises(SpaceMismatchError):
        Router([down.model(), up[0].model(), other], cache=None, ledger=":memory:", retry=NO_WAITING).check_agreement()


def test_embedding_with_one_model_keeps_to_budget_and_model() -> None:
    """No failover, and no way around the caps."""
    cheap, dear = FakeBackend(), FakeBackend()
    models = [cheap.model("fake:cheap", price="0"), dear.model("fake:dear", price="1", tier="low")]
    router = Router(
        models, cache=None, ledger=":memory:", budget=Budget(total="0.000002"), retry=RetryPolicy(attempts=1)
    )

    assert embed_alone(router, 1, ["text"], "query").models == ("fake:dear",)
    with pytest.raises(BudgetExceededError):
        embed_alone(router, 1, ["two words"], "query")
    assert [len(cheap.calls), len(dear.calls)] == [0, 1]
    assert router.usage.cost == Decimal("0.000001")


# Prices and tokens


def test_an_unknown_price_is_wrong_where_a_budget_is_set(place: Path, emulator: Emulator) -> None:
    """The model would never be called; without a budget the spending would be unknown."""
    model = rows(model="cohere:embed-multilingual-light-v3.0", base_url=emulator.cohere_url)
    configure(model)
    without = examine()
    configure(model, top='[budget]\nper_day = "1"')
    with_one = examine(code=1)

    assert found(without, "price")["level"] == "warning"
    assert without["usage"]["unpriced_tokens"] > 0
    assert problems(with_one) == ["budget", "price"]
    assert "price=" in found(with_one, "price")["advice"]


def test_the_address_is_shown_with_the_variable_that_it_comes_from(
    place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a gateway or the vendor gets the texts is the first question in a company."""
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, emulator.openai_url)
            configure(rows(model=SMALL))
            address = found(examine(), "address")
        assert address["story"] == f"{emulator.openai_url}, from {variable}"
    configure(small(emulator))
    assert found(examine(), "address")["story"] == emulator.openai_url


def test_the_address_of_a_users_own_client_is_shown_without_its_password() -> None:
    """Ours have none; a client's may."""
    import httpx
    import openai

    for client in (
        openai.OpenAI(api_key="k", base_url="https://user:hidden-word@gateway.test/v1?key=hidden-word"),
        openai.OpenAI(api_key="k", base_url="https://user:hidden-word@gateway.test/v1"),
    ):
        router = Router([Model(SMALL, client=client)], cache=None, ledger=":memory:")
        assert str(address_of(wiring_of(router).backends[0])) == "https://gateway.test/v1/"
    own = httpx.Client(base_url="https://user:hidden-word@gateway.test/v1")
    router = Router([Model("voyage:voyage-4", client=own, api_key="k")], cache=None, ledger=":memory:")
    assert str(address_of(wiring_of(router).backends[0])) == "https://gateway.test/v1/"
    own.close()


VERTEX = "google_vertexai:text-embedding-005"
"""Google stops serving it on 2027-04-01, and names no successor."""


def ending(name: str, retired: date, *, space: str = "", successor: str = "") -> str:
    """Return a row of a catalogue whose model has a last day."""
    return (
        f'[[models]]\nmodel = "{name}"\nspace = "{space or name.partition(":")[2]}"\ndimensions = 1536\ntexts = 9\n'
        f'price = "0.02"\nsource = "https://example.com"\nretired = {retired}\nsuccessor = "{successor}"\n'
    )


def retirements(
    *uses: str, today: date, rows: str = "", indexes: Mapping[str, Space] | None = None
) -> dict[str, doctor.Finding]:
    """Return what the check finds on a day, by the model."""
    cards = load_catalogue().with_rows(rows, "rows")
    named = {name: ["this configuration"] for name in uses}
    return {item.subject: item for item in doctor.check_retirement(named, indexes or {}, cards, today)}


@pytest.mark.parametrize(("days", "words"), [(30, "is retired on"), (179, "is retired on"), (-1, "was retired on")])
def test_a_model_that_is_soon_retired_is_a_warning(place: Path, emulator: Emulator, days: int, words: str) -> None:
    """The documents must be embedded again before the day."""
    retired = datetime.now(UTC).date() + timedelta(days=days)
    Path("own.toml").write_text(ending(SMALL, retired, space="own"))
    configure(small(emulator), top='catalog = "own.toml"')

    warned = found(examine(), "retirement")

    assert (warned["level"], warned["subject"]) == ("warning", SMALL)
    assert f"{words} {retired}" in warned["story"]
    assert warned["facts"]["uses"] == ["this configuration"]


def test_retirement_is_told_half_a_year_before_the_day_and_ever_after() -> None:
    """Six months are time to compare, to embed again, and to change programs."""
    last = date(2027, 4, 1)

    assert retirements(VERTEX, today=last - timedelta(days=181)) == {}
    for days in (180, 1):
        (warned,) = retirements(VERTEX, today=last - timedelta(days=days)).values()
        assert f"the model is retired on 2027-04-01, in {days} days; in use: this configuration" in warned.story
        assert f"embedrouter compare CORPUS --model {VERTEX} --model MODEL, then: embedrouter migrate" in warned.advice
    (warned,) = retirements(VERTEX, today=last).values()
    assert warned.story.startswith("the model was retired on 2027-04-01; in use")
    assert "--model google" not in warned.advice  # which answers no more
    assert "then run: embedrouter migrate INDEX --to MODEL. See https://docs.cloud.google.com/" in warned.advice


def test_the_lines_to_run_name_the_successor() -> None:
    """What the maker recommends is what is compared, and what the index is moved to."""
    (warned,) = retirements("voyage:voyage-3.5-lite", today=date(2027, 8, 1)).values()

    assert warned.facts["successor"] == "voyage:voyage-4-lite"
    assert "embedrouter compare CORPUS --model voyage:voyage-3.5-lite --model voyage:voyage-4-lite" in warned.advice
    assert "embedrouter migrate INDEX --to voyage:voyage-4-lite." in warned.advice


def test_where_another_model_has_the_same_space_nothing_has_to_be_embedded_again() -> None:
    """Azure ends its deployment of a model that OpenAI goes on serving."""
    (warned,) = retirements("azure_openai:text-embedding-3-large", today=date(2028, 2, 1)).values()

    assert "Write openai:text-embedding-3-large in its place: its vectors are comparable" in warned.advice
    assert "migrate" not in warned.advice


def test_an_index_is_told_of_where_no_model_of_its_space_is_left() -> None:
    """Beside the model in use, or alone; an index that another model can search is not in danger."""
    indexes = {
        "handbook": Space("text-embedding-005", 768),
        "letters": Space("text-embedding-005+prompts-1a2b3c4d", 768),
        "photos": Space("text-multilingual-embedding-002", 768),
        "mails": Space("text-embedding-3-small", 1536),
        "own": Space("a model of nobody's", 7),
    }

    warned = retirements(VERTEX, today=date(2027, 1, 1), indexes=indexes)

    assert list(warned) == [VERTEX, "google_vertexai:text-multilingual-embedding-002"]
    uses = [item.facts["uses"] for item in warned.values()]
    assert uses == [["this configuration", "the index 'handbook'", "the index 'letters'"], ["the index 'photos'"]]
    assert retirements(today=date(2028, 3, 1), indexes={"mails": indexes["mails"]}) == {}


def test_a_model_that_no_router_can_use_any_more_is_told_with_the_reason() -> None:
    """Programs of this project may have used it last week."""
    (warned,) = retirements("cohere:embed-english-v2.0", today=date(2026, 11, 30)).values()

    assert "Cohere retired it on 2026-04-04" in warned.story
    assert "embedrouter migrate INDEX --to MODEL" in warned.advice


def test_models_of_the_project_s_last_requests_and_of_indexes_are_in_use(
    place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script beside the configuration, another project, and a store that was filled long ago."""
    soon = datetime.now(UTC).date() + timedelta(days=100)
    other, third = "openai:text-embedding-ada-002", "azure_openai:text-embedding-ada-002"
    rows = ending(other, soon, successor=SMALL) + ending(third, soon, space="third")
    Path("own.toml").write_text(rows)
    configure(small(emulator), top='catalog = "own.toml"\nledger = "kept/ledger.db"')
    for project, name in (("harbour", other), ("elsewhere", third)):
        monkeypatch.setenv("EMBEDROUTER_TAG", project)
        url = emulator.openai_url if name == other else emulator.azure_url
        version = None if name == other else "2024-10-21"
        model = Model(name, api_key=SECRET, base_url=url, api_version=version)
        with Router([model], cache=None, ledger="kept/ledger.db") as router:
            router.embed(["a"], input_type="document")
    IndexGuard(users_folder(), "handbook", Space("text-embedding-ada-002", 1536)).record()
    monkeypatch.setenv("EMBEDROUTER_TAG", "harbour")

    warned = found(examine(), "retirement")

    assert warned["subject"] == other
    assert warned["facts"]["uses"] == ["requests of harbour in the last 30 days", "the index 'handbook'"]
    assert f"--model {other} --model {SMALL}, then: embedrouter migrate INDEX --to {SMALL}" in warned["advice"]


def test_every_successor_is_a_model_of_the_catalogue_that_lasts_longer() -> None:
    """A line that is to be copied must work."""
    cards = load_catalogue()
    pairs = [(card, cards[card.successor]) for card in cards.values() if card.successor]

    assert len(pairs) >= 6
    for card, successor in pairs:
        assert card.retired is not None
        assert successor.retired is None or successor.retired > card.retired


def test_an_old_price_is_a_warning_with_its_source(place: Path, emulator: Emulator) -> None:
    """The constructor's own warning does not end the examination."""
    Path("own.toml").write_text(
        '[[models]]\nmodel = "openai:text-embedding-3-small"\nspace = "text-embedding-3-small"\ndimensions = 1536\n'
        'texts = 9\nprice = "0.02"\nsource = "https://example.com/prices"\nchecked = 2020-01-01\n'
    )
    configure(small(emulator), top='catalog = "own.toml"')
    with pytest.warns(StalePriceWarning):
        Router.from_config("embedrouter.toml")

    price = found(examine(), "price")

    assert price["level"] == "warning"
    assert "2020-01-01" in price["story"]
    assert "https://example.com/prices" in price["advice"]


def test_a_price_of_ones_own_is_taken_for_granted(place: Path, emulator: Emulator) -> None:
    """It has no date."""
    configure(small(emulator, price="0.5"))

    assert found(examine(), "price")["story"] == "$0.50 per million tokens, as declared"


def test_counting_without_the_vocabulary_is_said(place: Path, emulator: Emulator) -> None:
    """Estimates are then too high, and look it."""
    Path("own.toml").write_text(
        '[[models]]\nmodel = "openai:text-embedding-3-small"\nspace = "text-embedding-3-small"\ndimensions = 1536\n'
        'texts = 9\nprice = "0.02"\ntokenizer = "o200k_base"\n'
    )
    configure(small(emulator))
    exact = found(examine(), "tokens")
    configure(small(emulator), top='catalog = "own.toml"')
    estimated = found(examine(), "tokens")

    assert exact["level"] == "ok"
    assert estimated["level"] == "warning"
    assert "o200k_base" in estimated["story"]


# Cache and ledger


def fill(folder: Path) -> None:
    """Put three rows into a cache folder, the last with a flipped bit."""
    values = {n.to_bytes(20, "big"): encode(Entry(np.ones(8, np.float32), n)) for n in range(3)}
    values[(2).to_bytes(20, "big")] = values[(2).to_bytes(20, "big")][:-1] + b"\xff"
    cache = DiskCache(folder)
    cache.put_many(values)
    cache.close()


def test_damaged_rows_are_counted_and_left_alone(place: Path) -> None:
    """Removing them is another command, which is named."""
    fill(place / "kept")
    before = contents(place / "kept")

    facts = examine("--cache", "kept", code=1)

    assert found(facts, "rows")["facts"].items() >= {"rows": 3, "checked": 3, "damaged": 1}.items()
    assert f"embedrouter cache verify --remove --cache {place / 'kept'}" in found(facts, "rows")["advice"]
    assert contents(place / "kept") == before


def test_of_a_large_cache_some_rows_are_read(place: Path) -> None:
    """The whole takes minutes; the report says what was looked at."""
    fill(place / "kept")

    (rows_found,) = [finding for finding in check_cache(place / "kept", max_rows=2) if finding.check == "rows"]

    assert rows_found.facts.items() >= {"rows": 3, "checked": 2, "damaged": 0}.items()
    assert rows_found.facts["bytes_on_disk"] == sum(file.stat().st_size for file in (place / "kept").glob("cache.db*"))
    assert "the first 2" in rows_found.story


def test_a_database_that_is_none_is_reported(place: Path) -> None:
    """And nothing else is hidden by it."""
    (place / "kept").mkdir(mode=0o700)
    (place / "kept/cache.db").write_bytes(b"not a database, in spite of its name" * 99)

    facts = examine("--cache", "kept", code=1)

    assert problems(facts) == ["rows"]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_cache_that_others_may_read_is_a_warning(place: Path) -> None:
    """Texts can be guessed from their vectors."""
    (place / "kept").mkdir()
    (place / "kept").chmod(0o755)

    mode = found(examine("--cache", "kept"), "mode")

    assert mode["level"] == "warning"
    assert mode["advice"] == f"Run: chmod 700 {place / 'kept'}"


def test_a_folder_that_cannot_be_written_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root these tests may write everywhere, so the answer of the system is changed."""
    monkeypatch.setattr("os.access", lambda *_, **__: False)

    assert problems(examine("--cache", "kept", code=1)) == ["folder"]


def test_a_file_in_place_of_the_cache_is_reported(place: Path) -> None:
    """No router can be built with it."""
    Path("kept").write_text("a file")

    facts = examine("--cache", "kept", code=1)

    assert problems(facts) == ["settings"]


@pytest.mark.parametrize(("free", "level", "code"), [(10**10, "ok", 0), (10**8, "warning", 0), (10**6, "problem", 1)])
def test_little_room_on_the_disk_is_reported(
    place: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str, code: int
) -> None:
    """Vectors that cannot be kept are paid for again."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))

    assert found(examine(code=code), "disk")["level"] == level


def test_a_router_without_a_cache_is_a_warning(place: Path, emulator: Emulator) -> None:
    """It works, and pays for everything every time; its records lie in the user's data folder."""
    Path("embedrouter.toml").write_text(f"cache = false\n[[models]]\n{small(emulator)}")

    assert found(examine(), "folder")["level"] == "warning"
    assert list((place.parent / "user-data/embedrouter/probes").glob("*.json"))


def test_requests_that_never_came_back_are_a_warning(place: Path, emulator: Emulator) -> None:
    """They count towards budgets, although they were perhaps not billed."""
    configure(small(emulator))
    emulator.script(Fault.lost())
    with Router.from_config("embedrouter.toml") as router, pytest.raises(NoModelAvailableError):
        router.embed(["lost on the way"], input_type="document")

    lost = found(examine(), "unconfirmed")

    assert lost["level"] == "warning"
    assert lost["facts"]["requests"] == 1
    assert Decimal(lost["facts"]["amount"]) == count_tokens("openai", "lost on the way") * PRICE / 1_000_000
    assert "embedrouter stats" in lost["advice"]


@pytest.mark.parametrize("top", ["", '[budget]\nper_day = "1"'])
def test_a_ledger_that_cannot_be_read_is_reported(place: Path, emulator: Emulator, top: str) -> None:
    """With a budget no model is called; without one spending would be forgotten."""
    (place / "kept").mkdir(mode=0o700)
    (place / "kept/ledger.db").write_bytes(b"not a database, in spite of its name" * 99)
    configure(small(emulator), top=top)

    facts = examine(code=1)

    assert found(facts, "file", "ledger")["level"] == "problem"
    assert emulator.calls == (0 if top else 2)


def test_accounts_in_memory_are_a_warning(place: Path, emulator: Emulator) -> None:
    """A budget begins anew with each process."""
    configure(small(emulator), top='ledger = ":memory:"')

    assert found(examine(), "file", "ledger")["level"] == "warning"


# Installation


@pytest.mark.parametrize(
    ("requirement", "version", "fits"),
    [
        ("openai<4,>=3.0; extra == 'openai'", "3.52.0", True),
        ("openai<4,>=3.0; extra == 'openai'", "2.9.1", False),
        ("openai<4,>=3.0; extra == 'openai'", "4.0.0", False),
        ("openai<4,>=3.0; extra == 'openai'", "3.0rc1", True),
        ("openai (>=3.0,<4) ; extra == 'openai'", "3.1", True),
        ("openai==0.4.0.post1; extra == 'openai'", "0.4.0.post1", True),
        ("openai==0.4.0.post1; extra == 'openai'", "0.4.0", False),
        ("openai==5.6.3", "5.6.3", True),
        ("openai==5.6.3", "5.6.4", False),
        ("openai>=2.0", "2", True),
        ("openai[datalib]!=2.1,>=2; python_version >= '3.11' and extra == 'openai'", "2.1.0", False),
    ],
)
def test_versions_are_held_against_the_bounds(versions: Versions, requirement: str, version: str, fits: bool) -> None:
    """As pip would, for the forms that this package's metadata has."""
    versions([requirement], openai=version)

    first, *wrong = doctor.installed({"openai"})

    assert first.level == "ok"
    assert [finding.level for finding in wrong] == ([] if fits else ["problem"])


def test_a_wrong_version_of_what_is_not_used_is_a_warning(versions: Versions) -> None:
    """It may be there for something else; what is missing was not asked for."""
    lines = ["cohere<8,>=7.0; extra == 'cohere'", "voyageai>=0.4; extra == 'voyage'", "pytest>=99; extra == 'dev'"]
    versions([*lines, "embedrouter[openai]; extra == 'all'"], cohere="5.1", pytest="8.4")

    (_, unused), (_, used) = doctor.installed({"openai"}), doctor.installed({"cohere"})

    assert (unused.level, used.level) == ("warning", "problem")
    assert used.advice == "Run: pip install 'embedrouter[cohere]==0.1.0'"


def test_this_projects_own_metadata_can_be_read(versions: Versions) -> None:
    """Every requirement in pyproject.toml is understood."""
    names = {"numpy", "openai", "cohere", "httpx", "wordllama", "langchain-core", "llama-index-core", "tiktoken"}
    real = {name: metadata.version(name) for name in names}
    versions(own_metadata.requires(), **real)

    (finding,) = doctor.installed({"openai", "cohere", "voyage", "wordllama"})

    assert finding.facts["packages"] == dict(sorted(real.items()))


def test_every_finding_that_is_not_well_says_what_to_do(place: Path, emulator: Emulator) -> None:
    """Here most of what can be wrong is wrong at once."""
    (place / "kept").mkdir()
    (place / "kept").chmod(0o755)
    (place / "kept/cache.db").write_bytes(b"no")
    (place / "kept/ledger.db").write_bytes(b"no")
    configure(
        small(emulator), azure(emulator, api_key_env="QUAY_KEY"), rows(model=SMALL, base_url="http://127.0.0.1:9")
    )

    facts = examine("--config", "embedrouter.toml", code=1)

    for finding in facts["findings"]:
        assert bool(finding["advice"]) == (finding["level"] != "ok"), finding
