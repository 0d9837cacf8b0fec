"""Play histories until an invariant does not hold, and show the failing history without what it does not need."""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedrouter._process import threads
from embedrouter.spending import Ledger

from .choices import Choices, Decision, shrink
from .disk import failing_files
from .invariants import check
from .scheduler import Violation
from .world import World


@dataclass
class Found:
    """A history in which an invariant does not hold."""

    seed: str
    violation: Violation
    decisions: Sequence[Decision]
    story: str

    def __str__(self) -> str:
        decisions = "\n".join(f"  {who}: {what} {number} = {value}" for (who, what, number), value in self.decisions)
        return f"{self.violation}\nseed {self.seed}, {len(self.decisions)} decisions:\n{decisions}\n{self.story}"


@dataclass
class Played:
    """What was played."""

    histories: int = 0
    effects: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    found: Found | None = None
    last: Collection[str] = ()
    """What happened in the last history."""

    def add(self, world: World) -> None:
        """Count a history."""
        self.histories += 1
        self.effects += world.effects
        self.last = world.happened
        self.happened.update(world.happened)
        self.happened.update(request.outcome for request in world.provider.requests)
        self.happened.update(type(made.error).__name__ for made in world.made if made.error is not None)

    def __str__(self) -> str:
        told = ", ".join(f"{times} {what}" for what, times in sorted(self.happened.items()))
        return f"{self.effects} effects in {self.histories} histories, {self.seconds:.1f} s: {told}"


class Stage:
    """The folder and the replaced functions in which histories are played, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._world: World | None = None
        self._empty = folder / "empty.db"
        ledger = Ledger(self._empty, required=True)
        with ledger.transaction():
            pass
        ledger.close()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Stage]:
        memory = Path("/dev/shm")
        folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        stage, submit = cls(folder), threads.submit
        logger = logging.getLogger("embedrouter")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        thread = threading.get_ident()

        def simulated(function: Callable[..., Any], /, *arguments: Any, **settings: Any) -> Future[Any]:
            is_ours = threading.get_ident() == thread and stage._world is not None
            return (stage.world.submit if is_ours else submit)(function, *arguments, **settings)

        threads.submit = simulated  # type: ignore[method-assign]
        gc.freeze()  # what other tests left is no garbage of a history
        try:
            with failing_files(lambda path: stage.world.owner(path) if folder in path.parents else None):
                yield stage
        finally:
            threads.submit = submit  # type: ignore[method-assign]
            logger.setLevel(level)
            shutil.rmtree(folder)

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    def play(self, choices: Choices, played: Played, log: list[str] | None = None) -> Violation | None:
        """Play one history, and return what does not hold."""
        file = self._folder / "ledger.db"
        for beside in ("", "-wal", "-shm"):
            file.with_name(file.name + beside).unlink(missing_ok=True)
        shutil.copyfile(self._empty, file)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            violation = self._play(World(choices, file, log), played)
            killed = "kill" in played.last
            if killed or violation is not None:
                gc.collect()  # what it leaves is garbage, and of no other history
        unawaited = [str(item.message) for item in warned if "never awaited" in str(item.message)]
        if violation is None and unawaited and not killed:
            violation = Violation("no coroutine is left behind", unawaited[0])
        return violation

    def _play(self, world: World, played: Played) -> Violation | None:
        self._world = world
        try:
            world.play()
            check(world)
        except Violation as error:
            return Violation(error.invariant, error.story)
        finally:
            world.abandon()
            self._world = None
            played.add(world)
        return None


def search(seed: int, effects: int, *, shrinking: float = 60.0) -> Played:
    """Play histories of a seed until so many effects are performed or an invariant does not hold.

    Args:
        shrinking: seconds for which a failing history is made shorter.
    """
    began, played = time.monotonic(), Played()
    with Stage.open() as stage:
        while played.effects < effects and played.found is None:
            name = f"{seed}/{played.histories}"
            choices = Choices(name)
            if (violation := stage.play(choices, played)) is not None:
                played.found = _shortest(stage, name, choices, violation, time.monotonic() + shrinking)
    played.seconds = time.monotonic() - began
    return played


def _shortest(stage: Stage, seed: str, choices: Choices, violation: Violation, until: float) -> Found:
    def fails(decisions: Sequence[Decision]) -> bool:
        if time.monotonic() > until:
            return False
        other = stage.play(Choices(given=dict(decisions)), Played())
        return other is not None and other.invariant == violation.invariant

    decisions = shrink([*choices.taken.items()], fails)
    log: list[str] = []
    given = Choices(given=dict(decisions))
    last = stage.play(given, Played(), log)
    return Found(seed, last or violation, [*given.taken.items()], "\n".join(log))
