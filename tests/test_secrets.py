"""Keys and texts that occur nowhere else, pushed through the whole product and looked for everywhere they must not be.

SECURITY.md says what is promised; the last test here finds the test of each promise.
"""

from __future__ import annotations

import ast
import functools
import gc
import io
import json
import logging
import pickle
import pprint
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import rich.console
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.vectorstores import InMemoryVectorStore
from typer.testing import CliRunner

from embedrouter import Budget, Model, RetryPolicy, Router, TieredRouter
from embedrouter.cascade import Cascade
from embedrouter.cli import app
from embedrouter.config import load
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    CacheWarning,
    ConfigError,
    DegradedWarning,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
    UnavailableError,
)
from embedrouter.events import Event
from embedrouter.langchain import RouterEmbeddings, TieredRetriever, with_tier
from embedrouter.llama_index import RouterEmbedding
from embedrouter.providers._redaction import MIN_ECHO, echoes_input, mask_keys, safe_to_chain
from embedrouter.retrieval.index_guard import users_folder
from embedrouter.router import wiring_of
from embedrouter.stores import database
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.recordings import holds_key

ROOT = Path(__file__).parents[1]
ONCE = RetryPolicy(attempts=1)
KEY = "zq7Kd0nQvX41pLmTghW2"
TEXT = 'Quokka dossier, page 7:\n"Brunhilde waits at the old mill" – and Isolde pays the ferryman twice.'
WORDS = ("quokka", "dossier", "brunhilde", "old mill", "isolde", "ferryman")
"""Of ``TEXT``, none of which stands anywhere else."""

PROVIDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai": ("openai:text-embedding-3-small", "openai_url", {}),
    "azure": ("azure_openai:text-embedding-3-small", "azure_url", {"api_version": "2024-10-21"}),
    "cohere": ("cohere:embed-v4.0", "cohere_url", {}),
    "voyage": ("voyage:voyage-4-lite", "voyage_url", {}),
    "bedrock": ("bedrock:cohere.embed-v4:0", "bedrock_url", {}),
    "google": ("google_genai:gemini-embedding-001", "google_url", {}),
}
TALKATIVE = {"openai._base_client", "botocore.endpoint", "botocore.hooks"}
"""Loggers of SDKs that print request bodies at DEBUG; SECURITY.md names them."""
ANSWERS = "botocore.parsers"
"""The logger of an SDK that prints error answers at DEBUG; so does SECURITY.md name it."""


def declare(name: str, emulator: Emulator, **settings: Any) -> Model:
    model, url, more = PROVIDERS[name]
    return Model(model, **{"base_url": getattr(emulator, url), "api_key": KEY, **more, **settings})


def clean(shown: str | bytes, *, texts: bool = True) -> bool:
    """Say whether neither the key nor a word of the text is in it."""
    said = shown.decode("utf-8", "replace") if isinstance(shown, bytes) else shown
    return not holds_key(said, [KEY]) and not (texts and any(word in said.lower() for word in WORDS))


def told(error: BaseException) -> str:
    """Return all that an error says of itself: its traceback, its chain whether hidden or not, its attributes."""
    said, waiting, seen = ["".join(traceback.format_exception(error))], [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        said += [str(one), repr(one), repr(one.args)]
        if isinstance(one, EmbedRouterError):
            said.append(repr(vars(one)))
            waiting += [attempt.error for attempt in getattr(one, "attempts", ())]
        waiting += [more for more in (one.__cause__, one.__context__) if more is not None]
    return "\n".join(said)


def quotations(text: str) -> list[str]:
    """Return a text as providers quote it: whole, as JSON, as Python, cut, and in the words of pydantic."""
    return [text, json.dumps(text), repr(text), f"{text[:MIN_ECHO]}…", f"input_value={text[:25]!r}...{text[-25:]!r}"]


def saying(message: str, status: int) -> Fault:
    """Answer with a message, wherever the provider puts it."""
    error = {"message": message, "type": "x", "code": None}
    body = {"error": error, "message": message, "detail": message}
    return Fault.status(status, body=body, headers={"content-type": "application/json"})


def failure(router: Router, asynchronous: bool, texts: list[str]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - an error of any kind is looked through
        embed(router, asynchronous, texts, input_type="document")
    return caught.value


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[logging.LogRecord]]]:
    """Everything that anybody logs, at DEBUG."""
    with caplog.at_level(logging.DEBUG):
        loggers = [
            logging.getLogger(name)
            for name in ("openai", "httpx", "httpcore", "voyage", "cohere", "urllib3", "botocore", "google_genai")
        ]
        before = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        yield lambda: list(caplog.records)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# Errors and logs


@pytest.mark.slow
@pytest.mark.refused
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_that_quotes_texts_and_keys_is_not_quoted(
    name: str, emulator: Emulator, asynchronous: bool, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    """Neither in our message nor in the chain behind it, which ``logger.exception`` prints as well."""
    router = Router([declare(name, emulator)], cache=None, retry=ONCE)
    log = logging.getLogger("application")
    if not asynchronous:
        router.embed(["nothing secret"], input_type="document")
        assert all(clean(logging.Formatter().format(record)) for record in logged())
    for status in (400, 401, 422, 500):
        for quotation in quotations(TEXT):
            fault = saying(f"Cannot embed {quotation} with {KEY}.", status)
            emulator.fault_for = lambda received, fault=fault: fault if TEXT in received.texts else None
            error = failure(router, asynchronous, ["harmless", TEXT] if status == 500 else [TEXT])
            log.error("it failed", exc_info=error)
            assert clean(told(error)), quotation
    router.close()

    for record in logged():
        line = logging.Formatter().format(record)
        assert record.name == ANSWERS or clean(line, texts=record.name not in TALKATIVE), record.name
    assert any(record.name == "application" for record in logged())


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_wrong_key_is_not_repeated(name: str, asynchronous: bool) -> None:
    """The key of each provider, as each of them refuses it, and as a proxy might repeat it."""
    with Emulator(keys={"another"}) as strict:
        router = Router([declare(name, strict)], cache=None, retry=ONCE)
        errors = [failure(router, asynchronous, [TEXT])]
        strict.script(saying(f"Incorrect API key provided: {KEY}. Bearer {KEY}", 401))
        errors.append(failure(router, asynchronous, [TEXT]))
        router.close()

    assert all(isinstance(error, AuthenticationError) for error in errors)
    assert all(clean(told(error)) for error in errors)


def test_keys_that_were_given_otherwise_are_not_repeated(emulator: Emulator, asynchronous: bool) -> None:
    """A header, a token: the provider may quote any of them."""

    def token() -> str:
        return KEY

    models = [
        declare("openai", emulator, api_key="none", headers={"X-Gateway-Key": KEY}),
        declare("openai", emulator, api_key="none", headers={"X-Gateway": f"Bearer {KEY}"}),
        declare("azure", emulator, api_key=None, azure_ad_token_provider=token),
    ]
    for model in models:
        router = Router([model], cache=None, retry=ONCE)
        emulator.script(saying(f"I know you: {KEY}", 403))
        assert clean(told(failure(router, asynchronous, [TEXT]))), model
        router.close()


def test_the_key_of_a_client_is_not_repeated(emulator: Emulator) -> None:
    """The user made the client; the declaration does not name its key."""
    import cohere
    import httpx
    import openai

    with httpx.Client() as http, openai.OpenAI(api_key=KEY, base_url=emulator.openai_url, max_retries=0) as client:
        other = cohere.ClientV2(api_key=KEY, base_url=emulator.cohere_url, httpx_client=http)
        for model in (Model(PROVIDERS["openai"][0], client=client), Model(PROVIDERS["cohere"][0], client=other)):
            emulator.script(saying(f"I know you: {KEY}", 403))
            error = failure(Router([model], cache=None, retry=ONCE), False, [TEXT])

            assert isinstance(error, AuthenticationError)
            assert clean(told(error)), model


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("damage", ["\u201c{}\u201d", "{}\nX-Evil: 1", "{}\x00"])
def test_a_key_that_cannot_be_sent_is_not_repeated(
    name: str, damage: str, emulator: Emulator, asynchronous: bool
) -> None:
    """HTTP libraries quote the header that they refuse; here it does not come so far."""
    router = Router([declare(name, emulator, api_key=damage.format(KEY))], cache=None, retry=ONCE)
    error = failure(router, asynchronous, [TEXT])
    router.close()

    assert isinstance(error, AuthenticationError)
    assert "Copy it again" in str(error)
    assert clean(told(error))
    assert emulator.calls == 0


def test_white_space_around_a_key_does_not_matter(emulator: Emulator, asynchronous: bool) -> None:
    """As it is read from a file."""
    router = Router([declare("openai", emulator, api_key=f" {KEY}\n")], cache=None, retry=ONCE)
    assert len(embed(router, asynchronous, ["a"], input_type="document")) == 1
    router.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_answers_that_are_none_say_nothing(name: str, emulator: Emulator, asynchronous: bool) -> None:
    """Connections that break, pages, wrong numbers, a server that is not there."""
    router = Router([declare(name, emulator)], cache=None, retry=ONCE)
    page = Fault.status(200, body=f"<p>{TEXT} {KEY}", headers={"content-type": "text/html"})
    foreign = Fault.status(200, body={"input": TEXT, "key": KEY}, headers={"content-type": "application/json"})
    for fault in (Fault.reset(), Fault.half_body(), page, foreign, Fault.wrong_count(), Fault.nan()):
        emulator.script(fault)
        assert clean(told(failure(router, asynchronous, [TEXT]))), fault
    router.close()
    gone = Router([declare(name, emulator, base_url="http://127.0.0.1:9")], cache=None, retry=ONCE)
    assert clean(told(failure(gone, asynchronous, [TEXT])))
    gone.close()
    gc.collect()


def test_wrong_input_is_not_repeated(emulator: Emulator, asynchronous: bool) -> None:
    """Positions say which text is meant."""
    router = Router([declare("openai", emulator, max_input_tokens=3)], cache=None)
    for texts in ([TEXT], [TEXT, ""], [TEXT + "\ud800"], [TEXT.encode()], TEXT):
        error = failure(router, asynchronous, texts)  # type: ignore[arg-type]
        assert isinstance(error, ValueError)
        assert clean(told(error)), texts
    router.close()


def test_the_error_of_an_embedder_of_ones_own_is_no_cause_if_it_quotes(asynchronous: bool) -> None:
    """A translated failure; what we do not translate is the user's own exception and passes as it is."""

    class Refused(Exception):
        status_code = 400

    def embedder(texts: list[str]) -> list[list[float]]:
        raise Refused(f"cannot embed {texts!r}")

    router = Router([Model.wrap(embedder, space="own", dimensions=2)], cache=None, retry=ONCE)
    error = failure(router, asynchronous, [TEXT])

    assert isinstance(error, InputRejectedError)
    assert clean(told(error))


def test_an_error_that_quotes_nothing_stays_the_cause(emulator: Emulator, asynchronous: bool) -> None:
    """The reason of the error is the library's own."""
    router = Router([declare("openai", emulator)], cache=None, retry=ONCE)
    emulator.script(saying("the model is overloaded", 503))
    error = failure(router, asynchronous, [TEXT])
    router.close()

    assert isinstance(error, NoModelAvailableError)
    assert "the model is overloaded" in str(error)
    assert type(error.attempts[0].error.__cause__).__name__ == "InternalServerError"


def test_a_change_of_model_is_told_without_the_text(
    asynchronous: bool, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    """In the log, and in the warning that a query was degraded."""
    broken = FakeBackend(outcomes=[UnavailableError("down")])
    models = [broken.model("fake:high", api_key=KEY), FakeBackend().model("fake:low", tier="low")]
    router = Router(models, cache=None, retry=ONCE, when_unavailable="degrade")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        embed(router, asynchronous, [TEXT], input_type="query")

    assert any(item.category is DegradedWarning for item in caught)
    assert any(record.name == "embedrouter.calls" for record in logged())
    assert clean("\n".join(str(item.message) for item in caught))
    assert clean("\n".join(logging.Formatter().format(record) for record in logged()))


@pytest.mark.refused
@pytest.mark.parametrize("name", ["openai"])
def test_no_event_holds_a_key_or_a_text(
    name: str, emulator: Emulator, asynchronous: bool, tmp_path: Path, logged: Callable[[], list[logging.LogRecord]]
) -> None:
    """Neither on ``on_event`` nor in the fields of the log, of answers, refusals, outages and a cache that fails."""
    seen: list[Event] = []

    def build(**settings: Any) -> Router:
        given = {"cache": tmp_path, "retry": RetryPolicy(attempts=2, initial_wait=0, max_wait=0), **settings}
        return Router([declare(name, emulator)], on_event=seen.append, **given)

    router = build(on_too_long="truncate", when_unavailable="degrade")
    embed(router, asynchronous, [TEXT, "harmless"], input_type="document")
    faults = [saying(f"Cannot embed {TEXT!r} with {KEY}.", status) for status in (400, 401, 429, 500, 503)]
    for number, fault in enumerate([*faults, Fault.lost()]):
        emulator.fault_for = lambda received, fault=fault: fault
        failure(router, asynchronous, [f"{TEXT} {number}"])
    emulator.fault_for = None
    router.close()
    poor = build(budget=Budget(total="0.000000001"))
    failure(poor, asynchronous, [f"{TEXT} poor"])
    poor.close()
    failing = build(cache=tmp_path / "file", ledger=":memory:")
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning):
        embed(failing, asynchronous, [TEXT], input_type="document")
    failing.close()
    extras = [repr(vars(record)) for record in logged() if record.name.startswith("embedrouter")]
    kinds = {type(event).__name__ for event in seen}

    assert kinds >= {"RequestFailed", "RequestRetried", "BudgetRefused", "CacheFailed", "SpendingUnconfirmed"}
    assert len(extras) == len(seen)
    assert [
        said for said in extras + [form for event in seen for form in (repr(event), str(event))] if not clean(said)
    ] == []


# What quoting is


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=MIN_ECHO, max_size=90),
    before=st.text("ab {}", max_size=30),
    cut=st.integers(0, 70),
)
def test_any_long_piece_of_a_text_is_found(text: str, before: str, cut: int) -> None:
    """In every place of a text, and between any characters."""
    flat = " ".join(text.split())
    piece = flat[cut : cut + MIN_ECHO]

    assert len(piece.strip()) < MIN_ECHO or echoes_input(f"{before}{piece}{before}", ["another", text])


@pytest.mark.parametrize("quotation", quotations(TEXT))
def test_a_text_is_found_in_every_form(quotation: str) -> None:
    """As JSON and Python write it, cut short."""
    assert echoes_input(f"the input {quotation} is refused", ["another", TEXT])


@pytest.mark.parametrize(
    ("words", "texts", "found"),
    [
        ("no such model 'cat'", ["cat"], True),
        ("no such category", ["cat"], False),
        ("the maximum context length is 8192 tokens", ["a length of text", TEXT], False),
        ("", [TEXT], False),
        ("anything", [], False),
        ("anything", [""], False),
    ],
)
def test_what_is_no_quotation_may_be_shown(words: str, texts: list[str], found: bool) -> None:
    """A short text has to stand in quotation marks."""
    assert echoes_input(words, texts) is found


def test_a_placeholder_is_no_key() -> None:
    """Servers on one's own machine get ``none``; a word of a message is not hidden for that."""
    assert mask_keys(f"none of {KEY}", ["none", KEY]) == "none of …"
    assert safe_to_chain(ValueError("none of them"), [TEXT], ["none"])
    assert not safe_to_chain(ValueError(KEY), [TEXT], ["none", KEY])
    assert not safe_to_chain(ValueError("x" * 5_000), [])


# What wrong settings are told without


def wrong_settings(key: str, folder: Path) -> list[Callable[[], object]]:
    """Return calls that put a key where it does not belong."""
    own = FakeBackend()
    small = "openai:text-embedding-3-small"
    router = Router([own.model()], cache=None)
    tiered = TieredRouter({"low": router})
    embeddings, embedding = RouterEmbeddings(router), RouterEmbedding(router=router)
    config, catalogue = folder / "one.toml", folder / "catalogue.toml"
    config.write_text(f'[[models]]\nmodel = "{small}"\n"{key}" = 1\n')
    catalogue.write_text(f'[[models]]\nmodel = "{small}"\n"{key}" = 1\n')
    twice = folder / "twice.toml"
    twice.write_text(f'["{key}"]\n["{key}"]\n' if " " not in key else f'a = "{key}')
    made: Any = RouterEmbedding
    return [
        lambda: made(router=router, api_key=key),
        lambda: made(router=router, embed_batch_size=key),
        lambda: made(router=router, embeddings_cache=key),
        lambda: made(router=key),
        lambda: made(router=router, query_tier=key),
        lambda: made.from_config(config, api_key=key),
        lambda: setattr(embedding, "embed_batch_size", key),
        lambda: setattr(embedding, "api_key", key),
        lambda: RouterEmbeddings(router, api_key=key),
        lambda: RouterEmbeddings(key),
        lambda: RouterEmbeddings(router, document_tier=key),
        lambda: embeddings.with_tier(key),
        lambda: TieredRetriever({"low": InMemoryVectorStore(embeddings)}, k=key),  # type: ignore[arg-type]
        lambda: TieredRetriever({"low": InMemoryVectorStore(embeddings)}, router=tiered, query_tier=key),
        lambda: tiered.router(key),
        lambda: Model(key),
        lambda: Model(small, key),  # type: ignore[call-arg]
        lambda: Model(small, key=key),  # type: ignore[call-arg]
        lambda: Model(small, dimensions=key),  # type: ignore[arg-type]
        lambda: Model(small, price=key),
        lambda: Model(small, encoding_format=key),  # type: ignore[arg-type]
        lambda: Model(small, served_as=key),
        lambda: Model(small, headers=key),  # type: ignore[arg-type]
        lambda: Model(small, headers={key: "a\n"}),
        lambda: Model(small, prompts={key: "a"}),
        lambda: Model(small, extra_body={"input": key}),
        lambda: Model(small, timeout=key),  # type: ignore[arg-type]
        lambda: Router([Model(small, space=key)], cache=None),
        lambda: Router([Model(small, tier=key)], cache=None),
        lambda: Router([Model(small, api_key_env=key)], cache=None).embed(["a"], input_type="query"),
        lambda: Router([Model(f"{key}:x", space="s", dimensions=8)], cache=None),
        lambda: Router([Model(f"openai:{key}")], cache=None),
        lambda: Router(key),
        lambda: Router([key], cache=None),
        lambda: Router([small], dimensions=key, cache=None),  # type: ignore[arg-type]
        lambda: Router([small], tiers=key, cache=None),
        lambda: Router([small], tiers=[key, key], cache=None),
        lambda: Router([small], on_too_long=key, cache=None),  # type: ignore[arg-type]
        lambda: Router([small], cache_dtype=key, cache=None),  # type: ignore[arg-type]
        lambda: Router([small], cache_memory=key, cache=None),  # type: ignore[arg-type]
        lambda: Router([small], micro_batch_window=key, cache=None),  # type: ignore[arg-type]
        lambda: Router([small], query_tier=key, cache=None),
        lambda: Router([small], api_key=key),  # type: ignore[call-arg]
        lambda: Router([small], catalog=catalogue, cache=None),
        lambda: Router([small], catalog=twice, cache=None),
        lambda: Router.preset(key),
        lambda: Router.preset("openai-small", revision=key),
        lambda: Router.from_config(config),
        lambda: Router.from_config(twice),
        lambda: router.embed(["a"], input_type=key),  # type: ignore[arg-type]
        lambda: router.embed(["a"], input_type="query", tier=key),
        lambda: router.embed(["a"], input_type="query", timeout=key),  # type: ignore[arg-type]
        lambda: list(router.embed_iter(["a"], input_type="query", chunk_size=key)),  # type: ignore[arg-type]
        lambda: Budget(total=key),
        lambda: Budget(per_day=key.encode()),  # type: ignore[arg-type]
        lambda: Budget(when_exceeded=key),  # type: ignore[arg-type]
        lambda: Budget(key=key),  # type: ignore[call-arg]
        lambda: RetryPolicy(attempts=key),  # type: ignore[arg-type]
        lambda: Cascade(share=key),  # type: ignore[arg-type]
        lambda: Cascade(0.3, cheap=key, good=key),
        lambda: Cascade(0.3, gaps=[key]),  # type: ignore[list-item]
    ]


@pytest.mark.parametrize("key", [KEY, "sk-proj-abc", "pa-ssword", "correct horse battery staple"])
def test_a_key_in_the_place_of_another_setting_is_not_repeated(key: str, tmp_path: Path) -> None:
    """Neither by us nor by pydantic; what is refused is named, and what is accepted."""
    for number, attempt in enumerate(wrong_settings(key, tmp_path)):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - pydantic's and Python's own, too
            attempt()
        told_of = "".join(traceback.format_exception_only(caught.value)) + str(caught.value.__cause__)
        assert key not in told_of, (number, told_of)
        assert key[:12] not in told_of, (number, told_of)


@pytest.mark.parametrize("key", [KEY, "sk-proj-abc"])
@pytest.mark.parametrize(
    "command",
    [
        "estimate . --model {}",
        "estimate . --tier {} --model fake:x",
        "estimate . --tier {}",
        "stats --by {}",
        "stats --by={}",
        "stats --{}",
        "stats {}",
        "{}",
        "cache prune --older-than {}",
        "batch cancel {}",
        "models {}",
        "warm corpus.jsonl --field {} --yes",
    ],
)
def test_a_key_in_the_place_of_an_option_is_not_repeated(command: str, key: str, tmp_path: Path) -> None:
    """What a command complains of goes to the log of a build."""
    (tmp_path / "corpus.jsonl").write_text('{"text": "a"}\n')
    done = run(*command.format(key).split(), cwd=tmp_path)

    assert done.returncode
    assert key not in done.stdout + done.stderr


def test_names_that_are_none_of_keys_are_still_repeated() -> None:
    """A typing error is found sooner when it is shown."""
    for name in (
        "text-embedding-3-smal",
        "BAAI/bge-small-en-v1.5",
        "l2_supercat_256",
        "intfloat/multilingual-e5-large",
    ):
        with pytest.raises(ConfigError, match=re.escape(repr(name))):
            Model(name)
    with pytest.raises(ConfigError, match="Unknown tier 'medium-high'"):
        Router(["openai:text-embedding-3-small"], query_tier="medium-high")


# What objects show of themselves


def token_of_a_module() -> str:
    return KEY


def declarations(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Return models that know the key in every way there is."""
    for variable in (
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "CO_API_KEY",
        "VOYAGE_API_KEY",
        "GOOGLE_API_KEY",
        "AWS_BEARER_TOKEN_BEDROCK",
        "TEAM_KEY",
    ):
        monkeypatch.setenv(variable, KEY)
    import openai

    small: dict[str, Any] = {"base_url": emulator.openai_url}
    return [
        *(declare(name, emulator) for name in PROVIDERS),
        *(declare(name, emulator, api_key=None) for name in PROVIDERS),
        Model("openai:text-embedding-3-small", api_key_env="TEAM_KEY", **small),
        Model("openai:text-embedding-3-small", headers={"Authorization": f"Bearer {KEY}", "X-Pass": KEY}, **small),
        Model("openai:text-embedding-3-small", headers={"X-Gateway": f"Basic {KEY}"}, **small),
        Model("openai:text-embedding-3-small", client=openai.OpenAI(api_key=KEY, **small)),
        declare("azure", emulator, api_key=None, azure_ad_token_provider=functools.partial(str, KEY)),
        declare("azure", emulator, api_key=None, azure_ad_token_provider=lambda: KEY),
        declare("azure", emulator, api_key=None, azure_ad_token_provider=token_of_a_module),
    ]


def forms(thing: object) -> list[str]:
    """Return what people print."""
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(rich.pretty.Pretty(thing))
    return [repr(thing), str(thing), f"{thing}", pprint.pformat(thing), console.file.getvalue()]  # type: ignore[attr-defined]


def test_nothing_shows_a_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models, routers, results, adapters and what frameworks make of them, before a call and after it."""
    for number, model in enumerate(declarations(emulator, monkeypatch)):
        router = Router([model], cache=tmp_path / str(number), budget=Budget(total="1"))
        if number in (0, 5, 10):
            shown: list[Any] = [router.embed([TEXT], input_type="document"), router.health(), router.usage]
        else:
            shown = []
        tiered = TieredRouter({"high": router})
        langchain, llama_index = RouterEmbeddings(router, index="handbook"), RouterEmbedding(router=router)
        retriever = TieredRetriever({"high": InMemoryVectorStore(langchain)}, router=tiered)
        shown += [model, router, tiered, langchain, llama_index, retriever, router.ledger, wiring_of(router).candidates]
        shown += [router.estimate([TEXT], input_type="document"), router.batches(), with_tier(retriever, "high")]
        said = [form for thing in shown for form in forms(thing)]
        said += [json.dumps(llama_index.to_dict()), llama_index.to_json(), json.dumps(llama_index.to_payload())]
        said += [str(llama_index.model_dump()), llama_index.model_dump_json()]
        said += [dumps(thing) for thing in (langchain, retriever, with_tier(retriever, "high"))]
        router.close()
        if model.client is not None:
            model.client.close()

        assert [form for form in said if not clean(form)] == [], model


def test_no_key_travels_in_a_pickle(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And everything pickles: a function of a module travels by its name, another is left behind."""
    for model in declarations(emulator, monkeypatch):
        router = Router([model], cache=None)
        for thing in (model, router, RouterEmbeddings(router), RouterEmbedding(router=router)):
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                content = pickle.dumps(thing, protocol)
                assert clean(content), model
            pickle.loads(content)
        if model.client is not None:
            model.client.close()
    assert pickle.loads(pickle.dumps(model)).azure_ad_token_provider is token_of_a_module


def test_errors_travel_without_a_key(emulator: Emulator) -> None:
    """Process pools send them home."""
    emulator.script(saying(f"{KEY} cannot embed {TEXT}", 400))
    error = failure(Router([declare("openai", emulator)], cache=None, retry=ONCE), False, [TEXT])
    gc.collect()

    assert clean(pickle.dumps(error))
    assert isinstance(pickle.loads(pickle.dumps(error)), BackendError)


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{KEY}@gateway.example/v1",
        f"https://{KEY}@gateway.example/v1",
        f"https://gateway.example/v1?key={KEY}",
        f"https://gateway.example/v1#{KEY}",
        f"https://[{KEY}/v1",
    ],
)
def test_an_address_with_a_secret_is_refused(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is printed and logged by everybody on the way: so it has to be clean, and the refusal does not repeat it."""
    file = tmp_path / "embedrouter.toml"
    file.write_text(f'[[models]]\nmodel = "openai:text-embedding-3-small"\nbase_url = "{address}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", address)
    tries: list[Callable[[], object]] = [
        lambda: Model("openai:text-embedding-3-small", base_url=address),
        lambda: Router([Model("azure_openai:text-embedding-3-small", api_version="2024-10-21")], cache=None),
        lambda: Router.from_config(file),
        lambda: Router.from_config(),
    ]
    for attempt in tries:
        with pytest.raises(ConfigError, match="without user, password") as caught:
            attempt()
        assert clean(told(caught.value))


def test_a_header_that_cannot_be_sent_is_not_repeated() -> None:
    """Named, so that it can be found."""
    with pytest.raises(ConfigError, match="X-Gateway") as caught:
        Model("openai:text-embedding-3-small", headers={"X-Gateway": f"{KEY}\n"})

    assert clean(told(caught.value))


@pytest.mark.parametrize(
    "line", [f'api_key = "{KEY}"', f'headers = "{KEY}"', f'price = ["{KEY}"]', f'client = "{KEY}"', f'"{KEY}']
)
def test_a_key_in_a_configuration_file_is_not_repeated(line: str, tmp_path: Path) -> None:
    """It does not belong there, and the refusal goes to a log."""
    file = tmp_path / "mine.toml"
    file.write_text(f'[[models]]\nmodel = "openai:text-embedding-3-small"\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        Router.from_config(file)
    with suppress(ConfigError):  # it is no TOML
        assert clean(repr(load(file)))

    assert clean(told(caught.value))


def test_a_cache_address_with_a_password_is_not_repeated() -> None:
    """Redis addresses hold one: where the server is gone, where the address is wrong, and in what shows a router."""
    router = Router(["openai:text-embedding-3-small"], cache=f"redis://:{KEY}@127.0.0.1:1/0")
    with pytest.warns(CacheWarning) as warned:
        router.estimate(["a"], input_type="query")
    with pytest.raises(ConfigError) as caught:
        Router(["openai:text-embedding-3-small"], cache=f"redis://host:{KEY}/0").estimate(["a"], input_type="query")

    assert clean(str(warned[0].message))
    assert clean(told(caught.value))
    assert clean(repr(router.cache.stores) + router.cache.place)


def test_a_store_address_with_a_password_among_its_options_is_not_repeated() -> None:
    """PostgreSQL takes user and password there, too; what else an address says, such as a socket, finds the store."""
    with database(f"postgresql://host/pages?user=me&password={KEY}&host=/run/socket") as place:
        assert place.place == "'postgresql://host/pages?host=/run/socket'"


class Tracer(BaseCallbackHandler):
    """Keeps what a tracing service is sent."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_retriever_start(self, serialized: Any, query: str, **more: Any) -> None:
        self.seen.append(json.dumps([serialized, more], default=repr))

    def on_chain_start(self, serialized: Any, inputs: Any, **more: Any) -> None:
        self.seen.append(json.dumps([serialized, more], default=repr))

    def on_retriever_end(self, documents: Any, **more: Any) -> None:
        self.seen.append(repr([documents, more]))


def test_a_trace_holds_no_key(emulator: Emulator) -> None:
    """What a service such as LangSmith gets. Questions and documents in it are the framework's own doing."""
    router = Router([declare("openai", emulator)], cache=None)
    store = InMemoryVectorStore(RouterEmbeddings(router))
    store.add_texts(["holidays"])
    tracer = Tracer()
    retriever = TieredRetriever({"high": store}, router=TieredRouter({"high": router}))
    for one in (store.as_retriever(), retriever, with_tier(retriever, "high")):
        one.invoke("sick leave", {"callbacks": [tracer]})
    router.close()

    assert len(tracer.seen) >= 6
    assert all(clean(event) for event in tracer.seen)


# What lies on disk, and what the command line prints


def stored(folder: Path) -> dict[str, bytes]:
    return {str(file): str(file).encode() + file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.refused
def test_nothing_on_disk_and_on_screen_holds_a_key_or_a_text(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After calls that succeed and fail, batches, doctor, warm and an export; while all is open, and closed."""
    kept, corpus = tmp_path / "kept", tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"{TEXT} {number}"}) + "\n" for number in range(3)))
    monkeypatch.setenv("TEAM_KEY", KEY)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    config = tmp_path / "mine.toml"
    config.write_text(
        f'cache = "kept"\n[retry]\nattempts = 1\n[[models]]\nmodel = "openai:text-embedding-3-small"\n'
        f'base_url = "{emulator.openai_url}"\napi_key_env = "TEAM_KEY"\n'
    )
    router = Router.from_config(config)
    adapter = RouterEmbeddings(router, index="handbook")
    adapter.embed_documents([TEXT])
    adapter.embed_query(TEXT)
    for fault in (saying(f"{TEXT} {KEY}", 400), Fault.lost(), saying(f"{TEXT} {KEY}", 500)):
        emulator.script(fault)
        failure(router, False, [f"{TEXT} again"])
    emulator.batches.automatic = True
    emulator.batches.fail_lines(lambda line: True, 400)
    job = router.submit_batch([f"{TEXT} in a batch"])
    status = job.wait(every=0.01)
    assert len(status.failures) == 1
    assert clean(repr((job, job.records, status)))
    while_open = stored(kept)
    router.close()

    options = ["--config", str(config)]
    commands = [
        ["estimate", str(corpus), *options],
        ["warm", str(corpus), *options, "--yes"],
        ["warm", str(corpus), *options, "--yes", "--tag", "nightly"],
        ["doctor", *options],
        ["doctor", *options, "--json"],
        ["stats", *options],
        ["batch", "list", *options],
        ["cache", "info", *options],
        ["cache", "export", str(kept / "export.jsonl"), *options],
    ]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert clean(done.output), command
    corpus.write_text(json.dumps({"text": f"{TEXT} refused"}) + "\n")
    emulator.script(saying(f"{TEXT} {KEY}", 422))
    refused = CliRunner().invoke(app, ["warm", str(corpus), *options, "--yes"])

    assert isinstance(refused.exception, EmbedRouterError)
    assert clean(told(refused.exception) + refused.output)
    names = {Path(name).relative_to(kept).parts[0] for name in stored(kept)}
    assert {"cache.db", "ledger.db", "probes", "export.jsonl"} <= names
    assert list(users_folder().iterdir())  # under tmp_path, too
    for name, content in (while_open | stored(kept)).items():
        assert clean(content), name
    corpus.unlink()
    assert all(clean(content) for content in stored(tmp_path).values())
    assert clean("".join(capfd.readouterr()))


@pytest.mark.parametrize("place", ["/files", "/batches"])
def test_a_batch_that_is_refused_is_not_quoted(place: str, emulator: Emulator, tmp_path: Path) -> None:
    """Neither while it is submitted nor in the chain behind the error."""
    quoting = saying(f"{KEY} cannot embed {TEXT if place == '/files' else 'this'}", 400)
    emulator.fault_for = lambda received: quoting if received.path.endswith(place) else None
    router = Router([declare("openai", emulator)], cache=tmp_path, retry=ONCE)
    with pytest.raises(BackendError) as caught:
        router.submit_batch([TEXT])
    router.close()

    assert clean(told(caught.value))
    assert all(clean(content) for content in stored(tmp_path).values())


def test_an_unforeseen_error_prints_no_variables() -> None:
    """typer's tracebacks would show those of every function on the way, keys and texts among them."""
    assert app.pretty_exceptions_enable is False


@pytest.mark.slow
def test_the_package_starts_no_other_program() -> None:
    """So none gets a key from it. The workers of ``warm --workers`` are Python processes that run this package."""
    for file in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            )
        }

        known = {  # what reads plain data, see test_check_stores; what starts the workers
            "_faiss_pickle.py": {"pickle"},
            "_processes.py": {"multiprocessing"},
        }.get(file.name, set())
        assert not imported & {"subprocess", "multiprocessing", "pickle", "shelve", "marshal", "dill"} - known, file


def test_the_projects_cassettes_hold_no_credentials() -> None:
    """Neither a header that carries one nor anything that looks like one."""
    files = sorted((ROOT / "cassettes").glob("*.yaml"))

    assert files
    for file in files:
        content = file.read_text("utf-8")
        assert not re.search(r"^\s*(authorization|api-key|x-api-key|cookie|set-cookie)\s*:", content, re.I | re.M), file
        assert not re.search(r"\b(sk|pa|al)-(?!\*)[A-Za-z0-9_-]{12,}", content), file


# What somebody else's files may do


@pytest.mark.parametrize("revision", [None, "main", "v1.0"])
def test_code_from_a_hub_runs_only_from_a_pinned_commit(revision: str | None) -> None:
    """A branch and a tag can be moved to other code after it was read."""
    with pytest.raises(ConfigError, match="runs Python code"):
        Router([Model("sentence-transformers:somebody/model", revision=revision, trust_remote_code=True)], cache=None)


def test_a_found_file_cannot_let_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have come with somebody else's checkout."""
    monkeypatch.chdir(tmp_path)
    row = 'model = "sentence-transformers:evil/model"\nrevision = "0123abcd"\ntrust_remote_code = true\n'
    Path("embedrouter.toml").write_text(f"[[models]]\n{row}")
    with pytest.raises(ConfigError, match="found by search and lets"):
        Router.from_config()


# The document


def test_every_promise_is_executed() -> None:
    """SECURITY.md names the test of each, and the README names SECURITY.md."""
    content = (ROOT / "SECURITY.md").read_text("utf-8")
    promised = content.partition("## What is not promised")[0]
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", content)

    assert len(named) >= 20
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text("utf-8"), re.M), (file, name)
    for promise in re.findall(r"^- .*?(?=^- |^$|^#)", promised, re.M | re.S):
        assert "test_" in promise, promise
    assert "/blob/main/SECURITY.md)" in (ROOT / "README.md").read_text("utf-8")
