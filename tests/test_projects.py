"""A ledger for each project: what is spent outside of all ``with tag(…)`` blocks is booked under the project's name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

import embedrouter
from embedrouter import Router
from embedrouter.errors import ConfigError
from embedrouter.spending import project_tag
from embedrouter.spending._project import found
from embedrouter.testing import FakeBackend
from tests.either import embed


@pytest.fixture(autouse=True)
def _no_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMBEDROUTER_TAG")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    found.clear()


Make = Callable[[Path], object]


def declared(text: str) -> Make:
    def make(folder: Path) -> None:
        (folder / "pyproject.toml").write_text(text)

    return make


def repository(folder: Path) -> None:
    (folder / ".git").mkdir()


def both(folder: Path) -> None:
    declared('[project]\nname = "shop"')(folder)
    repository(folder)


CASES: dict[str, tuple[dict[str, Make], str]] = {
    "nothing": ({}, ""),
    "a declared project": ({"": declared('[project]\nname = "shop-search"')}, "shop-search"),
    "a repository": ({"": repository}, "work"),
    "a worktree or a submodule": ({"": lambda folder: (folder / ".git").write_text("gitdir: x")}, "work"),
    "both": ({"": both}, "shop"),
    "settings of tools alone": ({"": declared("[tool.ruff]"), "..": repository}, "above"),
    "a project in a repository": ({"": declared('[project]\nname = "part"'), "..": repository}, "part"),
    "another project around the repository": ({"": repository, "..": declared('[project]\nname = "other"')}, "work"),
    "no TOML": ({"": declared("[project\nname="), "..": repository}, "above"),
    "no UTF-8": ({"": lambda folder: (folder / "pyproject.toml").write_bytes(b"\xff\xfe"), "..": repository}, "above"),
    "a folder of that name": ({"": lambda folder: (folder / "pyproject.toml").mkdir(), "..": repository}, "above"),
    "no name": ({"": declared("[project]\nname = 7"), "..": repository}, "above"),
    "an empty name": ({"": declared("[project]\nname = ' '"), "..": repository}, "above"),
    "no table": ({"": declared("project = 3"), "..": repository}, "above"),
    "deep": ({"": declared("x = " + "[" * 20_000), "..": repository}, "above"),
    "a pipe": ({"": lambda folder: os.mkfifo(folder / "pyproject.toml"), "..": repository}, "above"),
    "a name for terminals": ({"": declared('[project]\nname = "a\\u001b[2Jb\\u202e"')}, "a\\x1b[2Jb\\u202e"),
    "a long name": ({"": declared(f'[project]\nname = "{"x" * 500}"')}, "x" * 80),
}


@pytest.mark.parametrize("case", CASES)
def test_the_project_of_a_folder(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can fail the building of a router."""
    files, name = CASES[case]
    folder = tmp_path / "above" / "work"
    (folder / "src" / "deep").mkdir(parents=True)
    for place, make in files.items():
        make(folder / place)
    names = []
    for here in (folder, folder / "src" / "deep"):
        monkeypatch.chdir(here)
        names.append(project_tag())

    assert names == [name, name]


def test_a_folder_that_is_no_text_has_a_name_that_can_be_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9\n")
    folder.mkdir()
    repository(folder)
    monkeypatch.chdir(folder)
    with Router([FakeBackend().model(price="1")], cache=None, ledger=tmp_path / "l.db") as router:
        router.embed(["one"], input_type="document")

        assert list(router.ledger.totals("tag")) == ["caf\\udce9\\n"]


def test_neither_the_home_directory_nor_what_is_above_it_is_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many people keep their settings in a repository there."""
    both(tmp_path / "home")
    both(tmp_path)
    (tmp_path / "home" / "notes").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    names = []
    for here in (tmp_path / "home", tmp_path / "home" / "notes", tmp_path / "link", Path("/")):
        monkeypatch.chdir(here)
        names.append(project_tag())

    assert names == [""] * 4


def test_a_working_directory_that_was_removed_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert project_tag() == ""


@pytest.mark.parametrize(("value", "name"), [("jobs", "jobs"), ("", ""), (" ", ""), (os.fsdecode(b"\xff"), "\\udcff")])
def test_a_variable_names_the_tag_or_none(
    value: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDROUTER_TAG", value)

    assert project_tag() == name


def test_a_router_books_under_its_project_unless_a_block_names_a_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """The project is that of the moment at which the router was built."""
    both(tmp_path)
    monkeypatch.chdir(tmp_path)
    router = Router([FakeBackend().model(price="1")], cache=tmp_path / "cache")
    monkeypatch.chdir("/")
    embed(router, asynchronous, ["one"], input_type="document")
    embed(router, asynchronous, ["one"], input_type="document")
    with embedrouter.tag("ingest"):
        embed(router, asynchronous, ["two"], input_type="document")
    totals = router.ledger.totals("tag")
    router.close()

    assert {name: (account.requests, account.saved_texts) for name, account in totals.items()} == {
        "ingest": (1, 0),
        "shop": (1, 1),
    }


async def test_a_call_reads_no_file_for_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read when the router was built, which may be on an event loop."""
    both(tmp_path)
    monkeypatch.chdir(tmp_path)
    router = Router([FakeBackend().model(price="1")], cache=None, ledger=":memory:")
    (tmp_path / "pyproject.toml").unlink()
    await router.aembed(["one"], input_type="document")

    assert list(router.ledger.totals("tag")) == ["shop"]
    await router.aclose()


def test_a_further_router_that_is_built_on_an_event_loop_looks_at_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some programs build a router for each request."""
    both(tmp_path)
    monkeypatch.chdir(tmp_path)

    def build() -> Router:
        return Router([FakeBackend().model(price="1")], cache=None, ledger=":memory:")

    async def build_on_loop() -> Router:
        with blockbuster_ctx():
            return build()

    build().close()
    router = asyncio.run(build_on_loop())
    router.embed(["one"], input_type="document")

    assert list(router.ledger.totals("tag")) == ["shop"]
    router.close()


def test_a_tag_of_no_characters_can_be_booked(tmp_path: Path) -> None:
    """As it comes from the name of a file that is not UTF-8."""
    with Router([FakeBackend().model(price="1")], cache=None, ledger=tmp_path / "l.db") as router:
        with embedrouter.tag("a\udcffb"):
            router.embed(["one"], input_type="document")

        assert list(router.ledger.totals("tag")) == ["a\\udcffb"]
    with pytest.raises(ConfigError):
        embedrouter.tag("")
