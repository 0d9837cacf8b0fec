"""Spaces, models and the catalogue: what may stand in one router, and what is known of each model."""

from __future__ import annotations

import pickle
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Model, Router, Space
from embedrouter.errors import ConfigError, RetirementWarning, SpaceMismatchError, StalePriceWarning
from embedrouter.models import load_catalogue, resolve
from embedrouter.providers import describe
from embedrouter.testing import FakeBackend

CARDS = load_catalogue()
NANO = Model("sentence-transformers:voyageai/voyage-4-nano", tier="low", revision="abc", trust_remote_code=True)


def space_of(*models: str | Model, dimensions: int | None = None) -> Space:
    return Router(list(models), dimensions=dimensions, cache=None).space


def fingerprint(model: Model) -> str:
    """Return what the keys of the model's cache rows are made from."""
    known = describe(model, CARDS, None)
    return resolve(model, known.card, dimensions=None, index=0, rank=0, local=known.local).fingerprint


# One router, one space


@pytest.mark.parametrize(
    ("models", "dimensions", "space"),
    [
        (["voyage:voyage-4-large", "voyage:voyage-4", "voyage:voyage-4-lite", NANO], 1024, Space("voyage-4", 1024)),
        (["voyage:voyage-4-large", "voyage:voyage-4-lite"], None, Space("voyage-4", 1024)),
        (["cohere:embed-v5.0-pro", "cohere:embed-v5.0-fast"], 768, Space("embed-v5", 768)),
        (["openai:text-embedding-3-small"], None, Space("text-embedding-3-small", 1536)),
        (["openai:text-embedding-3-large"], 256, Space("text-embedding-3-large", 256)),
        (["wordllama:l2_supercat_256"], 64, Space("wordllama/l2_supercat_256", 64)),
    ],
)
def test_models_whose_makers_say_so_share_a_space(
    models: list[str | Model], dimensions: int | None, space: Space
) -> None:
    """The two documented families, at equal dimensions, and a model with itself."""
    assert space_of(*models, dimensions=dimensions) == space


def test_azure_serves_openais_own_model_in_the_same_space() -> None:
    """Failover between them changes nothing, and one's cache serves the other."""
    azure = Model(
        "azure_openai:text-embedding-3-small", base_url="https://x.openai.azure.com", api_version="2024-10-21"
    )

    assert space_of("openai:text-embedding-3-small", azure) == Space("text-embedding-3-small", 1536)
    assert fingerprint(azure) == fingerprint(Model("openai:text-embedding-3-small"))


@pytest.mark.parametrize(
    "models",
    [
        ["openai:text-embedding-3-small", "openai:text-embedding-ada-002"],
        ["voyage:voyage-4", "voyage:voyage-3.5"],
        ["voyage:voyage-4", "voyage:voyage-code-4"],
        ["cohere:embed-v4.0", "openai:text-embedding-3-small"],
        ["cohere:embed-english-v3.0", "cohere:embed-multilingual-v3.0"],
        ["sentence-transformers:all-MiniLM-L6-v2", "wordllama:l2_supercat_256"],
    ],
)
def test_models_of_two_spaces_are_refused_when_the_router_is_built(models: list[str]) -> None:
    """Equal dimensions prove nothing: voyage-4 and voyage-3.5 both give 1,024 numbers."""
    with pytest.raises(SpaceMismatchError) as caught:
        space_of(*models)

    message = str(caught.value)
    assert all(model in message for model in models)
    assert "TieredRouter" in message


def test_one_family_at_two_dimensions_is_two_spaces() -> None:
    """voyage-4-nano gives 2,048 numbers by itself, the API 1,024: the error says to set dimensions."""
    with pytest.raises(SpaceMismatchError, match=r"Set dimensions="):
        space_of("voyage:voyage-4-large", NANO)


def test_a_users_prompts_make_another_space() -> None:
    """A prompt is part of what is embedded."""
    plain = Model("openai:e5", base_url="http://tei", space="e5", dimensions=8)
    prompted = Model("openai:e5", base_url="http://tei", space="e5", dimensions=8, prompts={"query": "query: "})

    with pytest.raises(SpaceMismatchError):
        space_of(plain, prompted)
    assert space_of(prompted, prompted).name.startswith("e5+prompts-")


def test_a_space_that_contradicts_the_catalogue_is_refused() -> None:
    """A declaration cannot make two models comparable whose maker does not say so."""
    with pytest.raises(ConfigError, match=r"known to be in the space 'voyage-3\.5'"):
        space_of(Model("voyage:voyage-3.5", space="voyage-4"))


def test_an_unknown_model_must_declare_its_space_and_dimensions() -> None:
    """A misspelt name must not become a new model."""
    with pytest.raises(ConfigError, match=r"Model\('openai:text-embedding-3-smal', space=…, dimensions=…\)"):
        space_of("openai:text-embedding-3-smal")
    assert space_of(Model("openai:mine", space="mine", dimensions=12)) == Space("mine", 12)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("openai:text-embedding-3-smal", "openai:text-embedding-3-small"),
        ("text-embedding-3-small", "openai:text-embedding-3-small"),
        ("voyage:voyage4-lite", "voyage:voyage-4-lite"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(wrong: str, right: str) -> None:
    """Declaring it as a new model would make a new space."""
    with pytest.raises(ConfigError, match=f"Did you mean '{right}'"):
        space_of(wrong)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("azure_openai:my-deployment", "Model('azure_openai:text-embedding-3-small', deployment='my-deployment')"),
        ("azure_openai:prod-text-embedding-3-large", "Model('azure_openai:text-embedding-3-large', deployment='prod-"),
        ("openai:openai/text-embedding-3-small", "Model('openai:text-embedding-3-small', deployment='openai/text-"),
        ("openai:azure/text-embedding-ada-002", "Model('openai:text-embedding-ada-002', deployment='azure/text-"),
    ],
)
def test_a_name_of_a_servers_own_is_to_be_declared_as_a_deployment(name: str, advice: str) -> None:
    """Declared as a space of its own, the same model would be paid for again, without a price."""
    given: Any = {"base_url": "https://x.test", "api_version": "2024-10-21"} if name.startswith("azure") else {}
    with pytest.raises(ConfigError) as caught:
        space_of(Model(name, **given))

    assert advice in str(caught.value)


@pytest.mark.parametrize(("model", "dimensions"), [("openai:text-embedding-ada-002", 256), ("voyage:voyage-4", 1000)])
def test_dimensions_a_model_does_not_offer_are_refused(model: str, dimensions: int) -> None:
    """Before the provider refuses them at run time, or ignores them."""
    with pytest.raises(ConfigError, match=f"does not offer {dimensions} dimensions"):
        space_of(model, dimensions=dimensions)


@pytest.mark.parametrize("name", ["text-embedding-3-small", "openai:", ":x", ""])
def test_a_name_without_provider_is_refused(name: str) -> None:
    """The message shows the form."""
    with pytest.raises(ConfigError, match="provider:name"):
        Model(name)


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    """And with the way to bring one's own."""
    with pytest.raises(ConfigError, match=r"openai, azure_openai, cohere, voyage.*backend="):
        space_of("nowhere:mistral-embed")


@pytest.mark.parametrize("models", [[], "openai:text-embedding-3-small", Model("openai:text-embedding-3-small")])
def test_models_must_be_a_list(models: object) -> None:
    """A lone string would be read letter by letter."""
    with pytest.raises(ConfigError, match="list of at least one model"):
        Router(models)  # type: ignore[arg-type]


# Voyage-4-nano runs code from the model hub


def test_voyage_nano_never_goes_through_the_voyage_sdk() -> None:
    """The SDK would run unpinned code from the hub for it."""
    with pytest.raises(ConfigError, match="sentence-transformers:voyageai/voyage-4-nano"):
        space_of(Model("voyage:voyage-4-nano", space="voyage-4", dimensions=1024))


@pytest.mark.parametrize("missing", ["revision", "trust_remote_code"])
def test_voyage_nano_needs_a_pinned_revision_and_consent(missing: str) -> None:
    """Remote code is run only when asked for, and only a pinned version of it."""
    given: dict[str, Any] = {"revision": "abc", "trust_remote_code": True}
    del given[missing]

    with pytest.raises(ConfigError, match=missing):
        space_of(Model("sentence-transformers:voyageai/voyage-4-nano", **given))


# The catalogue


def test_every_row_has_its_source_and_date() -> None:
    """A price without a date is a rumour."""
    assert len(CARDS) >= 30
    for card in CARDS.values():
        assert card.source.startswith("https://"), card.model
        assert isinstance(card.checked, date), card.model
        assert card.texts > 0
        assert card.dimensions > 0


@pytest.mark.parametrize(
    ("model", "price", "batch_price"),
    [
        ("openai:text-embedding-3-small", "0.02", "0.01"),
        ("openai:text-embedding-3-large", "0.13", "0.065"),
        ("voyage:voyage-4-large", "0.12", "0.0804"),
        ("voyage:voyage-4-lite", "0.02", "0.0134"),
        ("cohere:embed-v5.0-fast", "0.08", None),
        ("cohere:embed-v4.0", "0.12", None),
        ("voyage:voyage-3-large", "0.18", "0.1206"),
        ("google_genai:gemini-embedding-001", "0.15", "0.075"),
        ("google_genai:gemini-embedding-2", "0.20", "0.10"),
        ("google_vertexai:gemini-embedding-2", "0.20", None),
        ("google_vertexai:text-embedding-005", "0.10", None),
    ],
)
def test_prices_are_those_of_the_price_sheets(model: str, price: str, batch_price: str | None) -> None:
    """US dollars per million tokens, exact."""
    assert CARDS[model].price == Decimal(price)
    assert CARDS[model].batch_price == (None if batch_price is None else Decimal(batch_price))


def test_an_unknown_price_is_unknown_and_not_free() -> None:
    """Counting it as 0 would hide a bill."""
    assert CARDS["cohere:embed-multilingual-light-v3.0"].price is None


@pytest.mark.parametrize(
    ("model", "texts", "tokens", "input_tokens"),
    [
        ("openai:text-embedding-3-small", 2048, 300_000, 8191),
        ("cohere:embed-v4.0", 96, None, 128_000),
        ("voyage:voyage-4-large", 1000, 120_000, 32_000),
        ("voyage:voyage-4", 1000, 320_000, 32_000),
        ("voyage:voyage-4-lite", 1000, 1_000_000, 32_000),
        ("google_genai:gemini-embedding-001", 100, None, 2048),
        ("google_genai:gemini-embedding-2", 100, None, 8192),
        ("google_vertexai:gemini-embedding-001", 1, None, 2048),
        ("google_vertexai:text-embedding-005", 250, 20_000, 2048),
    ],
)
def test_limits_are_those_the_makers_document(model: str, texts: int, tokens: int | None, input_tokens: int) -> None:
    """Packing depends on them."""
    card = CARDS[model]

    assert (card.texts, card.tokens, card.input_tokens) == (texts, tokens, input_tokens)


def test_only_the_two_documented_families_share_a_space() -> None:
    """voyage-4 and embed-v5; the same model in another place is no other model."""
    spaces: dict[str, set[str]] = {}
    places: dict[str, set[str]] = {}
    for card in CARDS.values():
        own_name = card.model.rpartition("/")[2].lower()
        if not card.same_as and own_name not in places.setdefault(card.space, set()):
            places[card.space].add(own_name)
            spaces.setdefault(card.space, set()).add(card.model)

    assert {space: models for space, models in spaces.items() if len(models) > 1} == {
        "voyage-4": {
            "voyage:voyage-4-large",
            "voyage:voyage-4",
            "voyage:voyage-4-lite",
            "sentence-transformers:voyageai/voyage-4-nano",
        },
        "embed-v5": {"cohere:embed-v5.0-pro", "cohere:embed-v5.0-fast"},
    }


def test_a_users_file_replaces_and_adds_rows(tmp_path: Path) -> None:
    """Prices change faster than releases."""
    own = tmp_path / "models.toml"
    own.write_text(
        """
        [[models]]
        model = "openai:text-embedding-3-small"
        space = "text-embedding-3-small"
        dimensions = 1536
        allowed = "any"
        texts = 100
        price = "0.01"
        [[models]]
        model = "openai:house-model"
        space = "house-model"
        dimensions = 64
        texts = 32
        """
    )
    router = Router(["openai:text-embedding-3-small"], dimensions=99, catalog=own, cache=None)

    estimate = router.estimate(map(str, range(101)), input_type="document")
    assert estimate.cost == estimate.tokens * Decimal("0.01") / 1_000_000
    assert estimate.requests == 2
    assert Router(["openai:house-model"], catalog=own, cache=None).space == Space("house-model", 64)
    assert load_catalogue(own).keys() > CARDS.keys()


def test_prices_read_more_than_a_year_ago_are_warned_of(tmp_path: Path) -> None:
    """Unless the user says what the price is."""
    own = tmp_path / "models.toml"
    own.write_text(
        '[[models]]\nmodel = "openai:old"\nspace = "old"\ndimensions = 8\ntexts = 4\nprice = "0.1"\n'
        'source = "https://example.org"\nchecked = 2020-01-02\n'
    )
    with pytest.warns(StalePriceWarning, match=r"read on 2020-01-02.*https://example\.org"):
        Router(["openai:old"], catalog=own, cache=None)
    Router([Model("openai:old", price="0.2")], catalog=own, cache=None)


@pytest.mark.parametrize(("days", "warned"), [(91, False), (90, True), (1, True), (0, True), (-400, True)])
def test_the_retirement_of_a_model_is_warned_of_in_time(tmp_path: Path, days: int, warned: bool) -> None:
    """Within 90 days before the day, and ever after."""
    retired = datetime.now(UTC).date() + timedelta(days=days)
    own = tmp_path / "own.toml"
    own.write_text(
        '[[models]]\nmodel = "openai:leaving"\nspace = "leaving"\ndimensions = 8\ntexts = 4\nprice = "0.1"\n'
        f'source = "https://example.org"\nretired = {retired}\n'
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Router(["openai:leaving"], catalog=own, cache=None)

    assert [item.category for item in caught] == [RetirementWarning] * warned
    assert all(f"{retired}" in str(item.message) and item.filename == __file__ for item in caught)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("cohere:embed-v4.0", (None, 2000, None)),
        ("cohere:embed-english-v3.0", (None, 2000, None)),
        ("voyage:voyage-4-large", (2000, None, 3_000_000)),
        ("voyage:voyage-4", (2000, None, 8_000_000)),
        ("voyage:voyage-4-lite", (2000, None, 16_000_000)),
        ("openai:text-embedding-3-small", (None, None, None)),
    ],
)
def test_limits_per_minute_are_the_makers_where_the_user_declares_none(
    name: str, limits: tuple[int | None, int | None, int | None]
) -> None:
    """Each by itself: a declared number replaces one of the catalogue's."""

    def limits_of(**declared: int) -> tuple[int | None, int | None, int | None]:
        model = Model(name, **declared)  # type: ignore[arg-type]
        known = describe(model, CARDS, None)
        found = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False)
        return found.requests_per_minute, found.texts_per_minute, found.tokens_per_minute

    assert limits_of() == limits
    assert limits_of(requests_per_minute=7) == (7, *limits[1:])
    assert limits_of(texts_per_minute=7) == (limits[0], 7, limits[2])
    assert limits_of(tokens_per_minute=7) == (*limits[:2], 7)


def test_a_price_finer_than_the_ledger_books_is_refused() -> None:
    """Sums are exact, so prices have at most six decimals."""
    assert Model("openai:x", price="0.000001")
    with pytest.raises(ConfigError, match="more than 6 decimals"):
        Model("openai:x", price="0.0000001")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('model = "x"', "provider:name"),
        ('model = "a:b"', "column 'space' is missing"),
        ('model = "a:b"\nspace = "s"\ndimensions = 1\ntexts = 1\nprise = "1"', "unknown column 'prise'"),
        ('model = "a:b"\nspace = "s"\ndimensions = 1\ntexts = 1\nprice = 0.02', "as a string"),
        ('model = "a:b"\nspace = "s"\ndimensions = 1\ntexts = 1\nprice = "100"', "not plausible"),
        ("model = ", "not valid TOML"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, complaint: str) -> None:
    """One typing error must not cost an afternoon, nor a thousandfold price."""
    own = tmp_path / "models.toml"
    own.write_text(f"[[models]]\n{row}\n")

    with pytest.raises(ConfigError, match=complaint):
        load_catalogue(own)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is what was mistyped."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_catalogue(tmp_path / "nowhere.toml")


# Declarations


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"price": 0.02}, "as a string"),
        ({"price": "cheap"}, "not a price"),
        ({"price": "-1"}, "not plausible"),
        ({"dimensions": 0}, "dimensions must be positive"),
        ({"timeout": -1.0}, "timeout must be positive"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"prompts": {"passage": "x"}}, "prompts are for"),
    ],
)
def test_a_wrong_setting_is_refused_when_it_is_declared(setting: dict[str, object], complaint: str) -> None:
    """Not at the first request."""
    with pytest.raises(ConfigError, match=complaint):
        Model("openai:text-embedding-3-small", **setting)  # type: ignore[arg-type]


def test_a_model_of_an_unknown_tier_is_refused() -> None:
    """The message lists the tiers, lowest first."""
    with pytest.raises(ValueError, match="low, medium, high"):
        space_of(Model("voyage:voyage-4", tier="best"))


def test_secrets_stay_out_of_repr_and_pickle() -> None:
    """Both end up in logs and on disks."""
    model = Model(
        "openai:text-embedding-3-small",
        api_key="sk-secret",
        headers={"Authorization": "Bearer sk-secret", "X-Team": "search"},
        client=object(),
    )

    assert "secret" not in repr(model)
    assert b"secret" not in pickle.dumps(model)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.name == model.name
    assert copy.headers == {"X-Team": "search"}
    assert copy.api_key is None


def test_a_router_travels_without_its_keys() -> None:
    """LlamaIndex pickles embedders into worker processes."""
    models = [Model("voyage:voyage-4-large", api_key="sk-secret"), Model("voyage:voyage-4-lite", tier="low")]
    router = Router(models, cache=None, query_tier="low")
    data = pickle.dumps(router)

    assert b"secret" not in data
    copy = pickle.loads(data)
    assert copy.space == router.space
    assert copy.estimate(["a"], input_type="query").model == "voyage:voyage-4-lite"
    assert "secret" not in repr(router)


def test_an_own_backend_needs_no_provider() -> None:
    """Any code can stand behind a model, with a declared space."""
    fake = FakeBackend(dimensions=4, space="house")

    assert space_of(fake.model("house:one")) == Space("house", 4)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"truncate": "END"}, {"truncate": "NONE"}, False),
        ({"task": "retrieval.passage"}, None, False),
        ({"user": "me"}, None, True),
        ({"provider": {"order": ["a"]}}, {"provider": {"order": ["b"]}}, True),
        ({"document": {"task": "a"}, "query": {"task": "b"}}, {"document": {"task": "a"}}, False),
        ({"document": {"t": "a"}, "query": {"t": "b"}}, {"query": {"t": "b"}, "document": {"t": "a"}}, True),
    ],
    ids=range(6),
)
def test_further_fields_of_a_request_are_part_of_the_space(one: Any, other: Any, same: bool) -> None:
    """Unless they are for accounting and routing."""
    models = [Model("openai:text-embedding-3-small", extra_body=body, api_key="k") for body in (one, other)]
    if same:
        Router(models, cache=None)
    else:
        with pytest.raises(SpaceMismatchError):
            Router(models, cache=None)


@pytest.mark.parametrize("body", [{"model": "x"}, {"input": []}, {"document": {"input": 1}}])
def test_further_fields_leave_model_and_texts_alone(body: Any) -> None:
    """There is a setting for the one, and the other is the texts."""
    with pytest.raises(ConfigError, match="deployment="):
        Model("openai:text-embedding-3-small", extra_body=body)
