"""Routers from TOML files."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Budget, RetryPolicy, Router, Space, TieredRouter
from embedrouter.cache import DEFAULT
from embedrouter.config import load
from embedrouter.errors import ConfigError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.models import RouterSettings
from tests.command_line import start
from tests.emulator import Emulator

ONE = """
dimensions = 1024
query_tier = "low"
on_too_long = "truncate"
[budget]
per_day = "5.00"
[retry]
attempts = 2
timeout = 10
[[models]]
model = "voyage:voyage-4-large"
[[models]]
model = "voyage:voyage-4-lite"
tier = "low"
price = "0.03"
api_key_env = "TEAM_KEY"
"""

TIERED = """
query_tier = "low"
[[routers.low.models]]
model = "wordllama:l2_supercat_256"
[routers.high]
dimensions = 256
[[routers.high.models]]
model = "openai:text-embedding-3-small"
"""


MODEL = '[[models]]\nmodel = "openai:text-embedding-3-small"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_says_all_that_code_can_say(here: Path) -> None:
    """Keys are the arguments of Router and Model."""
    path = write(here / "mine.toml", ONE)
    router = Router.from_config(path)
    query = router.estimate(["a"], input_type="query")
    document = router.estimate(["a"], input_type="document")
    arguments = RouterSettings(**load(path).router())

    assert router.space == Space("voyage-4", 1024)
    assert router.models == ("voyage:voyage-4-large", "voyage:voyage-4-lite")
    assert (query.model, document.model) == ("voyage:voyage-4-lite", "voyage:voyage-4-large")
    assert query.cost == query.tokens * Decimal("0.03") / 1_000_000
    assert arguments.retry == RetryPolicy(attempts=2, timeout=10)
    assert arguments.budget == Budget(per_day="5.00")
    assert arguments.on_too_long == "truncate"


def test_the_signature_of_router_and_its_settings_agree() -> None:
    """The signature is written out for editors; nothing else keeps the two together."""
    signature = list(inspect.signature(Router, eval_str=True).parameters.values())
    declared = [
        (field.name, field.type, inspect.Parameter.empty if field.default is MISSING else field.default)
        for field in fields(RouterSettings)
    ]

    assert [(argument.name, argument.annotation, argument.default) for argument in signature] == declared


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"models": []}, "models must be a list"),
        ({"models": "openai:text-embedding-3-small"}, "models must be a list"),
        ({"tiers": ("low", "low")}, "tiers must be different names"),
        ({"on_too_long": "cut"}, "on_too_long must be 'error', 'truncate' or 'mean', not 'cut'"),
        ({"when_unavailable": "wait"}, "when_unavailable must be 'raise' or 'degrade', not 'wait'"),
        ({"cache_dtype": "int8"}, "cache_dtype must be 'float32' or 'float16', not 'int8'"),
        ({"cache_memory": -1}, "cache_memory must be a number of bytes"),
        ({"micro_batch_window": 2}, "micro_batch_window must be from 0 to 1.0 seconds, not 2"),
        ({"query_tier": "best"}, "Unknown tier 'best'"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_accepted_values(wrong: dict[str, Any], complaint: str) -> None:
    """Before anything is built."""
    with pytest.raises(ConfigError, match=complaint):
        RouterSettings(**{"models": ["openai:text-embedding-3-small"], **wrong})


def test_settings_are_the_arguments_of_a_router() -> None:
    """A copy of a router in another process is built from them."""
    settings = RouterSettings(models=["wordllama:l2_supercat_256"], cache=None, budget=Budget(per_day="1"))

    assert RouterSettings(**settings.arguments()) == settings
    assert settings.arguments()["budget"] is settings.budget


def test_a_file_is_found_in_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable, then embedrouter.toml, then pyproject.toml."""

    def naming(model: str, prefix: str = "") -> str:
        return f'[[{prefix}models]]\nmodel = "openai:{model}"\n'

    write(here / "pyproject.toml", naming("text-embedding-ada-002", "tool.embedrouter."))
    assert Router.from_config().models == ("openai:text-embedding-ada-002",)

    write(here / "embedrouter.toml", naming("text-embedding-3-small"))
    assert Router.from_config().models == ("openai:text-embedding-3-small",)

    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(write(here / "other.toml", naming("text-embedding-3-large"))))
    assert Router.from_config().models == ("openai:text-embedding-3-large",)


def test_without_a_file_the_error_says_where_it_was_looked_for(here: Path) -> None:
    """And nothing is made up."""
    with pytest.raises(ConfigError, match=r"EMBEDROUTER_CONFIG.*embedrouter\.toml.*pyproject\.toml"):
        Router.from_config()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dimension = 3\n" + ONE, "dimension: Extra inputs are not permitted"),
        (ONE + "teir = 'low'\n", r"models\.1\.teir"),
        (ONE.replace("1024", "[1024]"), "dimensions.*should be a valid integer"),
        (ONE.replace('"5.00"', "5.00"), r'Budget\.per_day: write the amount as a string, such as "5.0"'),
        (ONE.replace('"0.03"', "0.03"), 'write the price as a string, such as price="0.03"'),
        (ONE.replace("per_day", "per_week"), r"budget\.per_week"),
        (ONE.replace('"truncate"', '"cut"'), "on_too_long"),
        (ONE + 'api_key = "sk-1"\n', r"models\.1\.api_key"),
        ("cache = false\n", "models: Field required"),
        ("models = []\n", "models"),
        ("models = \n", "not valid TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named(here: Path, text: str, complaint: str) -> None:
    """With its place in the file; a misspelt key is never ignored."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        Router.from_config(write(here / "mine.toml", text))

    assert "mine.toml" in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_the_cache_can_be_switched_off_and_placed(here: Path) -> None:
    """Relative to the file, not to the folder in which the process runs."""
    model = '[[models]]\nmodel = "openai:text-embedding-3-small"\n'

    def cache_of(setting: str) -> object:
        arguments = load(write(here / "mine.toml", f"cache = {setting}\n{model}")).router()
        return RouterSettings(**arguments).cache

    assert cache_of("false") is None
    assert cache_of('"vectors"') == here / "vectors"
    assert cache_of("true") is DEFAULT


def test_an_own_catalogue_lies_beside_the_file(here: Path) -> None:
    """Rows for models that ours does not know."""
    write(here / "house.toml", '[[models]]\nmodel = "openai:house"\nspace = "house"\ndimensions = 8\ntexts = 4\n')
    router = Router.from_config(
        write(here / "mine.toml", 'catalog = "house.toml"\n[[models]]\nmodel = "openai:house"\n')
    )

    assert router.space == Space("house", 8)


# A file that was found, and not named, may be somebody else's


FOREIGN = """
[[models]]
model = "openai:text-embedding-3-small"
base_url = "https://collector.example"
"""


def test_a_found_file_cannot_send_the_default_key_to_its_own_server(here: Path) -> None:
    """It may have come with somebody else's checkout."""
    write(here / "embedrouter.toml", FOREIGN)
    with pytest.raises(ConfigError, match=r"found by search.*api_key_env"):
        Router.from_config()

    write(here / "embedrouter.toml", FOREIGN + 'api_key_env = "OPENAI_API_KEY"\n')
    assert Router.from_config().models == ("openai:text-embedding-3-small",)


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai:text-embedding-3-small", "AWS_SECRET_ACCESS_KEY"),
        ("openai:text-embedding-3-small", "VOYAGE_API_KEY"),
        ("openai:text-embedding-3-small", "openai_api_key"),
        ("azure_openai:text-embedding-3-small", "OPENAI_API_KEY"),
        ("cohere:embed-v4.0", "HF_TOKEN"),
        ("voyage:voyage-4", "DATABASE_PASSWORD"),
        ("wordllama:l2_supercat_256", "GITHUB_TOKEN"),
    ],
)
@pytest.mark.parametrize("address", ["", 'base_url = "https://collector.example"\n'])
def test_a_found_file_names_no_variable_of_another_program(model: str, variable: str, address: str, here: Path) -> None:
    """Nor another provider's, whether its own server or the provider would get the secret."""
    content = f'[[models]]\nmodel = "{model}"\napi_key_env = "{variable}"\n{address}'
    path = write(here / "embedrouter.toml", content)
    for attempt in (Router.from_config, lambda: RouterEmbeddings.from_config(), lambda: load().router()):
        with pytest.raises(ConfigError, match="was found by search and reads the key"):
            attempt()

    assert load(path).router()["models"][0].api_key_env == variable


OUTSIDE = {
    "cache": "cache = {path}\n",
    "ledger": "ledger = {path}\n",
    "catalog": "catalog = {path}\n",
    "model": "",
}


@pytest.mark.parametrize("setting", OUTSIDE)
@pytest.mark.parametrize(
    "path", ["../elsewhere", "{absolute}", "~/elsewhere", "link/elsewhere", "inside/../../elsewhere"]
)
def test_a_found_file_leads_to_no_place_outside_of_its_folder(setting: str, path: str, here: Path) -> None:
    """Neither by a path nor by a link that came with it; in a table for a tier as well."""
    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    (here / "link").symlink_to(here.parent)
    place = json.dumps(path.format(absolute=elsewhere))
    model = f"sentence-transformers:{json.loads(place)}" if setting == "model" else "openai:text-embedding-3-small"
    router = OUTSIDE[setting].format(path=place)
    write(here / "embedrouter.toml", f'{router}[[models]]\nmodel = "{model}"\n')
    with pytest.raises(ConfigError, match=r"was found by search and places .* outside of its own folder"):
        Router.from_config()
    write(here / "embedrouter.toml", f'[routers.low]\n{router}[[routers.low.models]]\nmodel = "{model}"\n')
    with pytest.raises(ConfigError, match="was found by search and places"):
        TieredRouter.from_config()

    assert list(elsewhere.iterdir()) == []
    load(here / "embedrouter.toml").tiered()  # a file that is named may


def test_a_found_file_keeps_no_accounts_on_a_server(here: Path) -> None:
    """Whose owner would have the accounts and the tags, and would decide what is left of the budget."""
    path = write(here / "embedrouter.toml", f'ledger = "redis://collector.example:6379/0"\n{MODEL}')
    with pytest.raises(ConfigError, match="was found by search and keeps"):
        Router.from_config()

    assert "ledger" in load(path).router()  # a file that is named may


def test_a_found_file_places_its_files_in_its_folder_or_in_the_users_cache(here: Path, tmp_path: Path) -> None:
    """Which are the places that it needs."""
    users = tmp_path / "user-cache" / "embedrouter"
    for cache, ledger in (("vectors", "money/ledger.db"), ("./a/../b", ":memory:"), (str(users / "one"), "ledger.db")):
        write(here / "embedrouter.toml", f'cache = "{cache}"\nledger = "{ledger}"\n' + MODEL)
        given = RouterSettings(**load().router())
        assert given.cache == (here / cache).resolve()
        assert given.ledger in (":memory:", here / ledger)


def test_a_found_address_is_told_once(here: Path, caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    """On the log, or where there is none on stderr: what goes where, before anything does."""
    address = f'base_url = "{emulator.openai_url}"\napi_key_env = "OPENAI_API_KEY"\n'
    path = write(here / "embedrouter.toml", MODEL + address)
    for _ in range(3):
        Router.from_config()
    [told] = caplog.records

    assert told.levelname == "WARNING"
    for word in (str(path), emulator.openai_url, "OPENAI_API_KEY", "EMBEDROUTER_CONFIG"):
        assert word in told.getMessage()
    assert emulator.calls == 0
    write(path, MODEL + address.replace("/v1", "/v2"))
    Router.from_config()
    write(here / "pyproject.toml", f"[[tool.embedrouter.models]]\n{MODEL.partition(chr(10))[2]}{address}")
    path.unlink()
    Router.from_config()
    assert len(caplog.records) == 3
    Router.from_config(write(here / "named.toml", MODEL + address))
    write(path, MODEL)
    Router.from_config()
    assert len(caplog.records) == 3


@pytest.mark.slow
def test_a_command_tells_a_found_address_on_stderr(here: Path, emulator: Emulator) -> None:
    """Where no log is set up; the output is as it was."""
    write(here / "embedrouter.toml", f'{MODEL}base_url = "{emulator.openai_url}"\napi_key_env = "OPENAI_API_KEY"\n')
    (here / "a.txt").write_text("a")
    done = start("estimate", "a.txt", "--json", cwd=here)
    printed, complaint = done.communicate(timeout=60)

    assert json.loads(printed)["tiers"]
    assert emulator.openai_url in complaint
    assert len(complaint.splitlines()) == 1


def test_a_named_file_may(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a file is trusting it."""
    path = write(here / "embedrouter.toml", FOREIGN)
    assert Router.from_config(path).models
    monkeypatch.setenv("EMBEDROUTER_CONFIG", str(path))
    assert Router.from_config().models


def test_a_tiered_file_gives_a_router_for_each_tier(here: Path) -> None:
    """One table per router."""
    both = TieredRouter.from_config(write(here / "tiered.toml", TIERED))

    assert both.router("low").space == Space("wordllama/l2_supercat_256", 256)
    assert both.router("high").space == Space("text-embedding-3-small", 256)


def test_each_kind_of_file_names_the_other_constructor(here: Path) -> None:
    """The mistake is easily made."""
    with pytest.raises(ConfigError, match=r"TieredRouter\.from_config"):
        Router.from_config(write(here / "tiered.toml", TIERED))
    with pytest.raises(ConfigError, match=r"Router\.from_config"):
        TieredRouter.from_config(write(here / "one.toml", ONE))
