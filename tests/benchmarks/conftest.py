"""What the benchmarks share: the table of the run, the API, the environments, and a contest to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .contest import Contest
from .environment import peers_folder
from .server import Server
from .table import Table, markdown

TABLE = pytest.StashKey[Table]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Measure in one process: contestants side by side would slow each other down."""
    return 0


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    return pytestconfig.stash.setdefault(TABLE, Table())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def peers() -> Path:
    """The peers' environment; before any test has changed where the user's cache folder is."""
    return peers_folder()


@pytest.fixture
def contest(table: Table, server: Server, peers: Path) -> Contest:
    return Contest(table, server, peers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the whole table at the end, and write the file that was asked for."""
    table = config.stash.get(TABLE, None)
    if table is not None and table.rows:
        terminalreporter.write_line("\n" + markdown(table.rows))
        table.write()
