"""What a terminal obeys, in names, paths and messages that others chose: shown escaped by every way out."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import pickle
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Model, RetryPolicy, Router, tag
from embedrouter._display import get_logger
from embedrouter.config import load
from embedrouter.errors import (
    CacheWarning,
    ConfigError,
    DegradedWarning,
    NoModelAvailableError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.langchain import RouterEmbeddings
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.either import embed
from tests.emulator import Emulator, Fault

EVIL = "x\x1b[2J\x1b]8;;http:evil\x1b\\link\x9b31m\x85\u202egpj\u2066\r\nok all well\x07\u2028\u200e\U000e0041[link=a]"
"""Clears a screen, makes a link, colours, goes back to the start of the line, begins lines, turns letters around."""
STYLES = re.compile(r"\r?\x1b\[[0-9;?]*[A-Za-z]")
"""Which rich prints on a terminal."""
SMALL = "text-embedding-3-small"


def obeyed(printed: str) -> str:
    """Return the characters of an output that a terminal obeys or hides, and lines that begin with others' words."""
    return "".join(letter for letter in printed if not letter.isprintable() and letter != "\n") + "".join(
        line for line in printed.splitlines() if line.startswith("ok all well")
    )


def quoted(value: object) -> str:
    """Return a value as TOML."""
    return json.dumps(value, ensure_ascii=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which everything has such a name, with a cache and a ledger in use."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "corpus").mkdir()
    for suffix, text in ((".txt", "a page about lanterns"), (".bin", "skipped"), (".md", "")):
        (folder / "corpus" / f"{EVIL}{suffix}").write_text(text)
    (folder / "corpus" / f"{EVIL}.jsonl").write_text('{"text": "a line about lanterns"}\n')
    with Emulator() as emulator, pytest.MonkeyPatch.context() as patch:
        settings: dict[str, object] = {"model": f"openai:{EVIL}", "deployment": SMALL, "space": EVIL, "tier": EVIL}
        settings |= {"dimensions": 1536, "base_url": emulator.openai_url, "api_key_env": "OPENAI_API_KEY"}
        patch.setenv("OPENAI_API_KEY", "sk-lantern")
        file = folder / "embedrouter.toml"
        file.write_text(
            f"cache = {quoted(EVIL)}\ntiers = [{quoted(EVIL)}]\n[[models]]\n"
            + "".join(f"{name} = {quoted(value)}\n" for name, value in settings.items())
        )
        with tag(EVIL), Router.from_config(file) as router:
            RouterEmbeddings(router, index=EVIL).embed_documents(["a text about lanterns"])
        emulator.script(Fault.reset())
        with (
            tag(EVIL),
            Router(**load(file).router(), retry=RetryPolicy(attempts=1)) as hasty,
            pytest.raises(NoModelAvailableError),
        ):
            hasty.embed(["a question about lanterns"], input_type="query")
        yield folder


COMMANDS: dict[str, list[str]] = {
    "estimate": ["estimate", "corpus"],
    "warm": ["warm", "corpus", "--yes"],
    "stats": ["stats", "--by", "tag"],
    "stats by model": ["stats", "--by", "model"],
    "ledger show": ["ledger", "show"],
    "ledger release": ["ledger", "release", "--older-than", "0"],
    "ledger export": ["ledger", "export"],
    "ledger export to a file": ["ledger", "export", f"{EVIL}.csv"],
    "cache info": ["cache", "info"],
    "cache verify": ["cache", "verify"],
    "cache prune": ["cache", "prune", "--older-than", "0", "--yes"],
    "cache export": ["cache", "export", f"{EVIL}.jsonl"],
    "cache forget-index": ["cache", "forget-index", EVIL, "--cache", EVIL],
    "doctor": ["doctor"],
    "batch list": ["batch", "list"],
    # what is refused
    "no such file": ["warm", f"{EVIL}-missing", "--yes"],
    "not agreed": ["warm", "corpus"],
    "no such tier": ["estimate", "corpus", "--tier", f"{EVIL}-missing"],
    "no such configuration": ["stats", "--config", f"{EVIL}-missing"],
    "no such index": ["cache", "forget-index", f"{EVIL}-missing"],
    "no such batch": ["batch", "cancel", EVIL],
    "no such model": ["estimate", "corpus", "--model", EVIL],
    "no such cache": ["cache", "verify", "--cache", f"{EVIL}-missing"],
    "no such format": ["cache", "import", f"{EVIL}.xyz"],
    "no such command": [EVIL],
    "no such option": ["stats", f"--{EVIL}"],
    "no such argument": ["stats", EVIL],
    "no such choice": ["stats", "--by", EVIL],
    "no such number": ["cache", "prune", "--older-than", EVIL],
}


NOT_REPEATED = ("batch list", "no such number", "no such batch", "no such model")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(name: str, place: Path) -> None:
    """Piped, and on a terminal."""
    for typed in (None, "n\n"):
        done = run(*COMMANDS[name], cwd=place, typed=typed, columns=300 if typed else None)
        assert obeyed(STYLES.sub("", done.stdout).replace("\r\n", "\n")) == ""
        assert obeyed(STYLES.sub("", done.stderr)) == ""
        assert "x\\x1b" in done.stdout + done.stderr or name in NOT_REPEATED


def test_json_is_escaped_and_loses_nothing(place: Path) -> None:
    """As JSON escapes."""
    done = run("stats", "--by", "tag", "--json", cwd=place)

    assert obeyed(done.stdout) == ""
    assert EVIL in json.loads(done.stdout)["rows"]
    assert json.loads(done.stdout)["ledgers"] == [str(place / EVIL / "ledger.db")]


def test_every_word_that_a_command_prints_goes_through_one_file() -> None:
    """So that no command can forget to escape."""
    for file in (Path(__file__).parents[1] / "src/embedrouter/cli").glob("*.py"):
        called = {
            ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
        }
        ways = {name for name in called if name in ("print", "typer.echo") or name.endswith("console.print")}
        assert file.name == "_console.py" or not ways, file


# Errors


def saying(message: str, status: int) -> Fault:
    body = {"error": {"message": message, "type": message, "code": message}, "message": message, "detail": message}
    return Fault.status(status, body=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "cohere:embed-v4.0", "voyage:voyage-4-lite"])
def test_the_words_of_a_provider_are_escaped(name: str, status: int, emulator: Emulator, asynchronous: bool) -> None:
    """In the message, in the list of attempts and in the traceback with the SDK's own error."""
    emulator.script(*[saying(EVIL, status)] * 2)
    url = getattr(emulator, f"{name.partition(':')[0]}_url")
    router = Router(
        [Model(name, base_url=url, api_key="sk-lantern", max_concurrency=1)], cache=None, retry=RetryPolicy(attempts=1)
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert "x" in str(caught.value)
    assert obeyed(str(caught.value)) == ""
    assert obeyed("".join(traceback.format_exception(caught.value))) == ""


def test_the_page_of_a_gateway_is_no_cause_of_an_error(emulator: Emulator, asynchronous: bool) -> None:
    """An SDK's error repeats a body that is no JSON as it is."""
    emulator.script(*[Fault.status(502, body=EVIL.encode(), headers={"content-type": "text/plain"})] * 2)
    router = Router(
        [Model(f"openai:{SMALL}", base_url=emulator.openai_url, api_key="sk-lantern")],
        cache=None,
        retry=RetryPolicy(attempts=1),
    )
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert obeyed("".join(traceback.format_exception(caught.value.attempts[0].error))) == ""


def failing(text: str) -> list[Callable[[], object]]:
    """Return calls that are refused, each with a message that names a setting."""
    own = FakeBackend()
    return [
        lambda: Model(text.replace(":", "")),
        lambda: Router([own.model(tier=text)], cache=None),
        lambda: Router([own.model()], cache=None, query_tier=text),
        lambda: Router.preset(text),
        lambda: Router.from_config(text),
        lambda: Router([Model(f"{text}:x", space="s", dimensions=8)], cache=None),
        lambda: Router([own.model(f"fake:{text}"), own.model(f"fake:{text}b", space=text)], cache=None),
        lambda: Router([own.model()], cache=None).embed(["a"], input_type="query", tier=text),
        lambda: Router([Model(f"sentence-transformers:./{text}")], cache=None),
        lambda: Router([own.model()], catalog=text),
        lambda: Model(f"openai:{text}", dimensions=-1),
    ]


@pytest.mark.parametrize("number", range(len(failing(""))))
def test_a_setting_is_escaped_in_the_error_that_names_it(number: int, tmp_path: Path) -> None:
    """Names come from files of others."""
    with pytest.raises(ConfigError) as caught:
        failing(EVIL)[number]()
    copy = pickle.loads(pickle.dumps(caught.value))

    assert obeyed(str(caught.value)) == obeyed(str(copy)) == ""
    assert "\n" not in str(caught.value)


def test_an_index_and_a_served_name_are_escaped(tmp_path: Path) -> None:
    """The former is chosen by who fills a store, the latter by a server."""
    one, other = FakeBackend(), FakeBackend(space="other")
    RouterEmbeddings(Router([one.model()], cache=tmp_path), index=EVIL).embed_documents(["a"])
    with pytest.raises(SpaceMismatchError) as caught:
        RouterEmbeddings(Router([other.model(space=EVIL)], cache=tmp_path), index=EVIL)

    assert obeyed(str(caught.value)) == ""
    assert obeyed(repr(Router([other.model(f"fake:{EVIL}", space=EVIL)], cache=None))) == ""


def test_the_lines_of_a_list_of_attempts_stay_lines() -> None:
    """They are ours; those in what a provider says are not."""
    own = FakeBackend(outcomes=[UnavailableError(EVIL), UnavailableError("second")])
    router = Router([own.model()], cache=None, retry=RetryPolicy(attempts=2, initial_wait=0))
    with pytest.raises(NoModelAvailableError) as caught:
        router.embed(["a"], input_type="query")
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert [line[:5] for line in str(error).split("\n")[1:]] == ["  1. ", "  2. "]
        assert obeyed(str(error)) == ""


# The log, and warnings


def test_a_log_line_is_one_line(caplog: pytest.LogCaptureFixture, tmp_path: Path, asynchronous: bool) -> None:
    """A name in it begins no other, which would look like the program's own."""
    broken = tmp_path / EVIL.replace("/", "")
    broken.mkdir()
    (broken / "cache.db").write_bytes(b"no database" * 100)
    models = [
        FakeBackend(outcomes=[UnavailableError("down")] * 9).model(f"fake:{EVIL}1"),
        FakeBackend().model(f"fake:{EVIL}2"),
    ]
    router = Router(models, cache=broken, retry=RetryPolicy(attempts=1))
    with caplog.at_level(logging.DEBUG), pytest.warns(CacheWarning) as warned:
        embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert len(caplog.records) >= 2
    for record in caplog.records:
        line = logging.Formatter().format(record)
        assert obeyed(line) == ""
        assert "\n" not in line
    for warning in warned:
        assert obeyed(str(warning.message)) == ""


def test_a_traceback_in_the_log_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Its lines are Python's, what the error says is not."""

    class Odd(FakeBackend):
        async def aembed(self, *_: Any, **__: Any) -> Any:
            raise ValueError(EVIL)

    async def both() -> list[Any]:
        router = Router([Odd().model()], cache=None)
        calls = [router.aembed([text], input_type="query") for text in "ab"]
        return await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(both())
    get_logger("embedrouter.calls").error("told", exc_info=ValueError(EVIL))

    assert obeyed(caplog.text) == ""


@pytest.mark.parametrize("arguments", [(EVIL,), (Path(EVIL),), (ValueError(EVIL),), ({"one": EVIL},)])
def test_the_arguments_of_a_log_line_are_escaped(arguments: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    """Of whichever type, and by name; numbers stay numbers, and the line's own words stay what programs search for."""
    logger = get_logger("embedrouter.parts")
    assert get_logger("embedrouter.parts").filters == logger.filters
    logger.warning("%(one)s" if isinstance(arguments[0], dict) else "%s", *arguments)
    logger.warning("%s has %d of %.1f", EVIL, 3, 4.5)

    assert obeyed(caplog.text) == ""
    assert caplog.records[1].getMessage().endswith("has 3 of 4.5")
    assert caplog.records[1].msg == "%s has %d of %.1f"


def test_a_warning_is_escaped(tmp_path: Path) -> None:
    """Python prints it on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(EVIL, DegradedWarning, stacklevel=1)

    assert obeyed(warnings.formatwarning(str(caught[0].message), DegradedWarning, "f", 1, "")) == ""
