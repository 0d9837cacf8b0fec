"""One work, done by us, by peers, and by what the machine allows, in turns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

from tests.environments import interpreter

from .contestants import Contestant, Role, race
from .environment import ours, variables
from .server import Server
from .table import RATE, Measure, Table

Goals: TypeAlias = Mapping[Measure, float]
NONE: Goals = {}


class Contest:
    """Gathers contestants, lets them race, and writes what came out into the table.

    Goals are ratios by measure: how many times as good as that contestant we want to be.
    """

    def __init__(self, table: Table, server: Server, peers: Path) -> None:
        self._table = table
        self._server = server
        self._peers = peers
        self._contestants: list[Contestant] = []
        self._goals: list[Goals] = []

    def ours(self, work: str, **arguments: Any) -> None:
        self._join("ours", "ours", work, arguments)

    def variant(self, name: str, work: str, **arguments: Any) -> None:
        self._join("variant", name, work, arguments)

    def peer(self, name: str, work: str, *, goals: Goals = NONE, at_home: bool = False, **arguments: Any) -> None:
        """Add a peer; one that is `at_home` runs in our environment, such as the SDK that we use ourselves."""
        self._join("peer", name, work, arguments, goals, at_home=at_home)

    def limit(self, name: str, work: str, *, goals: Goals = NONE, **arguments: Any) -> None:
        self._join("limit", name, work, arguments, goals)

    def run(self, title: str, *, rounds: int = 5, warm_ups: int = 1, measures: Iterable[Measure] = (RATE,)) -> None:
        """Race, and add a row to the table for each measure."""
        with ExitStack() as stack:
            for contestant in self._contestants:
                stack.enter_context(closing(contestant))
            taken = race(self._contestants, rounds, warm_ups=warm_ups, requests=self._server.requests)
        for measure in measures:
            goals = [goals.get(measure) for goals in self._goals]
            self._table.add(title, measure, self._contestants, taken, goals)
        self._contestants, self._goals = [], []

    def _join(
        self,
        role: Role,
        name: str,
        work: str,
        arguments: dict[str, Any],
        goals: Goals = NONE,
        *,
        at_home: bool = True,
    ) -> None:
        python, environment = sys.executable if at_home else interpreter(self._peers), variables(self._peers)
        if at_home:
            environment = {**environment, **ours()}
        self._contestants.append(Contestant(role, name, python, work, arguments, environment=environment))
        self._goals.append(goals)
