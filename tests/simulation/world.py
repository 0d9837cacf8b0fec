"""One history: processes with a router each, over one ledger and one cache, and callers of both forms.

It steps the tasks, performs blocking functions, stops callers, kills processes and ends event loops.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from embedrouter import EmbeddingResult
from embedrouter.cache import QueryMemory, ServedNames, VectorCache
from embedrouter.calls import Calls, Degradation, Question, Wiring
from embedrouter.calls._effects import Stopped
from embedrouter.errors import EmbedRouterError
from embedrouter.events import Events
from embedrouter.spending import Ledger, UsageTotals

from . import rules
from .choices import Choices
from .disk import FAULTS, Fault, Store
from .effects import Asker, Awaiting, Blocking, Effects
from .plan import SPACE, Ask, Caller, plan
from .provider import Defect, Provider, Request, SimulatedBackend
from .scheduler import Cancelled, Interrupt, Killed, Loop, Task, Violation, suspend

T = TypeVar("T")

BEGIN = 1_764_544_800.0
"""Seconds since 1970: 40 minutes before a month begins."""
DAY = 86_400.0
MOST_STEPS = 30_000
MOST_KILLS = 2
CLOCK = {"clock back": -90_000.0, "clock forward": 90_000.0, "clock a little back": -40.0, "next month": 3_000.0}
"""Seconds by which the machine's clock is set."""
EVENTS = ("", *4 * ("stop",), "kill", "end of loop", "loop is gone", "router is closed", "row is damaged", *CLOCK)


@dataclass(eq=False)
class Made:
    """One call that was made, and what became of it."""

    ask: Ask
    caller: Caller
    process: Process
    asker: Asker
    blocks: Loop | None
    loop: Loop | None
    loop_blocked_for: float
    result: EmbeddingResult | None = None
    error: BaseException | None = None
    ended_at: float | None = None

    @property
    def late(self) -> float:
        """Seconds after the deadline, without those that nothing could end."""
        if self.ask.timeout is None or self.ended_at is None:
            return 0.0
        excused = self.asker.excused
        if self.loop is not None and self.blocks is None:
            excused += self.loop.blocked_for - self.loop_blocked_for
        return self.ended_at - self.asker.began_at - self.ask.timeout - excused


class Process:
    """A process with one router."""

    def __init__(self, world: World, number: int, generation: int) -> None:
        plan = world.plan
        self.world, self.number, self.generation = world, number, generation
        self.name = f"process {number}" + "'" * generation
        self.dead = False
        self.loops: dict[int, Loop] = {}
        self.main: Task | None = None
        """The main thread's caller."""
        self.helping = 0
        self.slots = max(candidate.concurrency for candidate in plan.candidates)
        self.ledger = Ledger(world.own_path(self), required=plan.budget.has_caps, now=world.clock)
        cache = VectorCache(world.store if plan.cached else None, plan.dtype)
        self.wiring = Wiring(
            candidates=plan.candidates,
            backends={item.index: SimulatedBackend(item, exact=plan.exact) for item in plan.candidates},
            space=SPACE,
            default_tiers={"query": "high", "document": "high"},
            folder=Path(),
            cache=cache,
            served=ServedNames(None),
            memory=QueryMemory(plan.memory),
            ledger=self.ledger,
            budget=plan.budget,
            totals=UsageTotals(self.ledger),
            retry=plan.retry,
            on_too_long=plan.on_too_long,
            degradation=Degradation(
                over_budget=plan.budget.when_exceeded == "degrade",
                unavailable=plan.when_unavailable == "degrade",
                over_budget_of={tag: own.when_exceeded == "degrade" for tag, own in plan.budget.by_tag.items()},
            ),
            micro_batch_window=plan.window,
            clock=lambda: world.now,
            sleep=None,
            random=world.chance,
            events=Events(clock=world.clock),
            tiers=("low", "medium", "high"),
        )
        self.calls = Calls(self.wiring)

    def bury(self) -> None:
        """Close the files of a process that is dead, and let what it has in memory vanish."""
        with self.world.inside(self):
            self.ledger.close()
            self.ledger.close()  # writes to no file any more

    def loop(self, number: int) -> Loop:
        """Return the event loop of this number, a new one where it has ended."""
        if number not in self.loops or self.loops[number].ended:
            self.loops[number] = Loop(f"loop {number} of {self.name}")
        return self.loops[number]

    def helper(self, work: Coroutine[Any, Any, None]) -> Task:
        """Run work in one of the threads beside the callers' own, of which there are as many as slots."""

        async def help_() -> None:
            self.helping += 1
            try:
                await work
            finally:
                self.helping -= 1

        task = self.world.spawn("helper", help_(), self, condition=lambda: self.helping < self.slots)
        task.inner = work
        return task


class World:
    """Plays one history."""

    def __init__(self, choices: Choices, ledger: Path, log: list[str] | None = None) -> None:
        self.choices, self._ledger, self._log = choices, ledger, log
        self._owners: list[Process] = []
        self.plan = plan(choices)
        if log is not None:
            log += self.plan.told()
        self.odds = {
            "next": choices.odds(0.0, 0.2, 0.6),
            "event": choices.odds(0.0, 0.01, 0.04),
            "fault": choices.odds(0.0, 0.02, 0.1, 0.4),
            "slow": choices.odds(0.0, 0.0, 0.02),
            "answer": choices.odds(0.0, 0.1, 0.3, 0.7),
            "seconds": choices.odds(0.0, 0.5),
        }
        self.now = 0.0
        self._offset = BEGIN
        """Seconds since 1970 at the beginning, as the machine's clock says."""
        self.effects = 0
        self._steps = 0
        self._loops_end = False
        """Whether an event loop has begun to end."""
        self.tasks: list[Task] = []
        self._violation: Violation | None = None
        self.current = _outside("world")
        self._latest_day = 0.0
        self.days = 0
        """Days on which money was set aside, without those to which the machine's clock went back."""
        self.calm = False
        """Whether everything works from now on."""
        self.fault: Fault | None = None
        self.store = Store(self)
        self.provider = Provider(self, self.plan)
        self.made: list[Made] = []
        self.happened: set[str] = set()
        """Events and faults."""
        self.orphans = 0
        """Reservations of which no process has the number."""
        self.processes = [Process(self, number, 0) for number in range(self.plan.processes)]
        self.dead: list[Process] = []
        self.slack = 0
        """Tasks of killed processes, each of which may have reserved money and not used it."""

    def play(self) -> None:
        """Let all callers make their calls, and run everything to its end."""
        for caller in self.plan.callers:
            self.begin(caller)
        self.run()

    def abandon(self) -> None:
        """Close what is left, which is nothing where all went well."""
        self.fault = None
        for process in [*self.processes, *self.dead]:
            process.dead = True
        for task in self.tasks[:]:
            with suppress(RuntimeError):
                self._drop(task)
        for process in self.processes:
            process.bury()

    # Services for tasks and processes

    def own_path(self, process: Process) -> Path:
        """Return a path of the ledger's file by which ``owner`` finds the process again."""
        self._owners.append(process)
        folder = self._ledger.parent / str(len(self._owners))
        folder.mkdir(exist_ok=True)
        return folder / ".." / self._ledger.name

    def owner(self, path: Path) -> Process:
        return self._owners[int(path.parts[-3]) - 1]

    @contextmanager
    def inside(self, process: Process) -> Iterator[None]:
        """Run the code of a process outside of its tasks."""
        before, self.current = self.current, _outside("outside", process)
        try:
            yield
        finally:
            self.current = before

    def set_clock(self, seconds: float) -> None:
        self._offset = seconds - self.now

    def clock(self) -> float:
        """Return the time of the machine's clock."""
        return self._offset + self.now

    def violation(self, invariant: str, story: str) -> Violation:
        """Return an error for a task to raise, which ends the history, also where the task's code catches the error."""
        self._violation = self._violation or Violation(invariant, story)
        return self._violation

    def check_request(self, request: Request, effects: Effects, timeout: float) -> None:
        rules.check_request(self, request, effects, timeout)

    def chance(self) -> float:
        return self.choices.pick(self.current.name, "chance", 0.5, (1.0, 0.5, 0.0))

    def count(self, process: Process) -> None:
        """Count an effect. A dead process performs none."""
        if process.dead:
            raise Killed
        self.effects += 1

    def tell(self, what: str) -> None:
        if self._log is not None:
            self._log.append(f"{self.now:9.3f}  {self.current.name}: {what}")

    def asker(self, what: str, rank: int) -> Asker:
        return Asker(f"{what} of {self.current.name}", rank, self.effects, self.now)

    def spawn(
        self,
        what: str,
        coroutine: Coroutine[Any, Any, Any],
        process: Process,
        loop: Loop | None = None,
        condition: Callable[[], bool] | None = None,
    ) -> Task:
        """Begin a task of the current one."""
        parent = self.current
        parent.children += 1
        task = Task(f"{parent.name}/{what} {parent.children}", coroutine, process, loop, condition)
        self.tasks.append(task)
        return task

    def blocking_seconds(self, told: str) -> float:
        """Decide how long a blocking function takes."""
        return 0.0 if self.calm else self.choices.pick(self.current.name, "slow", self.odds["slow"], (0.0, 3.0, 40.0))

    def perform(self, process: Process, function: Callable[[], T], told: str) -> T:
        """Run a blocking function of a process, during which its files may fail."""
        if process.dead:
            raise Killed
        name = "" if self.calm else self.choices.pick(self.current.name, "fault", self.odds["fault"], FAULTS)
        if name.startswith("killed") and len(self.dead) >= MOST_KILLS:
            name = ""
        self.fault = fault = Fault(process, name)
        if told == "reserve" and (day := self.clock() // DAY) > self._latest_day:
            self.days, self._latest_day = self.days + 1, day
        try:
            return function()
        finally:
            self.fault = None
            if fault.happened:
                self.happened.add(name)
                self.orphans += name == "commit unknown"
            if self._log is not None:
                self.tell(told + (f": {name}" if fault.happened else ""))

    def submit(self, function: Callable[..., Any], /, *args: Any, **settings: Any) -> Future[Any]:
        """Stand in for the pool of threads."""
        process = self.current.process
        assert process is not None

        async def job() -> None:
            self.perform(process, lambda: function(*args, **settings), "flush")

        self.spawn("job", job(), process)
        return Future()

    # Steps

    def run(self) -> None:
        """Step the tasks until none is left."""
        task = self.current
        while True:
            self.tasks = [item for item in self.tasks if not item.done]
            if not self.tasks:
                return
            ready = [item for item in self.tasks if item.is_ready(self.now)]
            if not ready:
                self._wait()
                continue
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise Violation("every call ends", f"{self._steps} steps: {self._waiting()}")
            if task in ready:
                ready.remove(task)
                ready.insert(0, task)
            task = ready[0]
            if len(ready) > 1 and not self.calm:
                task = self.choices.pick(self.current.name, "next", self.odds["next"], ready)
            self.current = task
            try:
                task.step()
            except Killed:
                assert task.process is not None
                self.kill(task.process)
                continue
            if self._violation is not None:
                raise self._violation
            if task.done:
                self._lost(task)
            elif not self.calm and task.process is not None:
                self._event(task, task.process)
            if self._loops_end:
                self._end_loops()

    def _wait(self) -> None:
        times = [
            task.until
            for task in self.tasks
            if task.until is not None and (task.loop is None or task.loop.blocked_by in (None, task))
        ]
        if not times:
            raise Violation("every call ends", f"nothing can go on: {self._waiting()}")
        self.now = max(self.now, min(times))

    def _waiting(self) -> str:
        return ", ".join(task.name for task in self.tasks)

    def _lost(self, task: Task) -> None:
        """Find a background task that ends with an error of which nothing is known."""
        expected = (EmbedRouterError, Defect, Stopped, Cancelled, Interrupt)
        if task.error is not None and not isinstance(task.error, expected):
            raise Violation("errors are ours", f"{task.name} ended with {task.error!r}") from task.error

    # Callers

    def begin(self, caller: Caller, name: str = "") -> None:
        task = _outside(name or caller.name)
        task.caller, task.coroutine = caller, self._call(caller, task)
        self.tasks.append(task)

    async def _call(self, caller: Caller, task: Task) -> None:
        await suspend(self.now + caller.at)
        process = task.process = self.processes[caller.where]
        if caller.form in ("task", "blocking"):
            task.loop = process.loop(caller.loop)
            await suspend()
        if caller.form == "main":
            await suspend(None, lambda: process.main is None)
            process.main, task.main = task, True
        try:
            for ask in caller.asks:
                await self._make(ask, caller, process, task)
        finally:
            if process.main is task:
                process.main = None

    async def _make(self, ask: Ask, caller: Caller, process: Process, task: Task) -> None:
        """Make one call."""
        asker = Asker(task.name, ask.rank, self.effects, self.now)
        blocks = task.loop if caller.form == "blocking" else None
        loop = task.loop
        made = Made(ask, caller, process, asker, blocks, loop, loop.blocked_for if loop else 0.0)
        self.made.append(made)
        deadline = None if ask.timeout is None else self.now + ask.timeout
        question = Question(
            texts=ask.texts,
            input_type=ask.input_type,
            rank=ask.rank,
            tag=ask.tag,
            deadline=deadline,
            timeout=ask.timeout,
        )
        effects = (
            Blocking(process, asker, blocks) if loop is None or blocks is not None else Awaiting(process, asker, loop)
        )
        self.tell(
            f"asks for {list(ask.texts)} as {ask.input_type}, rank {ask.rank}, timeout {ask.timeout} ({caller.form})"
        )
        if blocks is not None:
            blocks.blocked_by = task
        try:
            made.result = await process.calls.embed(effects, question)
            self.tell("has its vectors")
        except (EmbedRouterError, Defect) as error:
            made.error = error
            self.tell(f"meets {type(error).__name__}")
        except BaseException as error:
            made.error, asker.interrupted = error, isinstance(error, Interrupt)
            self.tell(f"ends with {type(error).__name__}")
            raise
        finally:
            made.ended_at = self.now
            if blocks is not None:
                blocks.blocked_by = None
                blocks.blocked_for += self.now - asker.began_at

    # Events

    def _event(self, task: Task, process: Process) -> None:
        """Decide whether something happens while the task is suspended."""
        event = self.choices.pick(task.name, "event", self.odds["event"], EVENTS)
        if not event:
            return
        if event in CLOCK:
            self._offset += CLOCK[event]
            self.tell(f"meanwhile: {event}")
            self.happened.add(event)
        elif event == "kill":
            if len(self.dead) < MOST_KILLS:
                self.kill(process)
        elif event == "router is closed":
            self.tell(f"meanwhile: {event}")
            with self.inside(process):
                process.wiring.close()
        elif event == "row is damaged":
            if self.store.rows:
                self.tell(f"meanwhile: {event}")
                self.store.damage(self.choices.pick(task.name, "row", 0.7, [*self.store.rows]))
        elif event == "stop":
            self._stop(task, process)
        elif loops := [loop for loop in process.loops.values() if not loop.ended and loop.blocked_by is None]:
            self.happened.add(event)
            loop = self.choices.pick(task.name, "loop", 0.5, loops)
            self.tell(f"meanwhile: {event}, {loop.name}")
            self._end_loop(loop, gone=event == "loop is gone")

    def _stop(self, task: Task, process: Process) -> None:
        """Stop a caller: cancel its task, or interrupt the main thread."""
        callers = [item for item in self.tasks if item.process is process and item.may_be_stopped]
        if callers:
            victim = self.choices.pick(task.name, "whom", 0.7, callers)
            self.tell(f"meanwhile: {victim.name} is stopped")
            self.happened.add("stop")
            victim.throw(Interrupt() if victim.main else Cancelled())

    def _end_loop(self, loop: Loop, *, gone: bool) -> None:
        """Cancel the tasks of a loop, as ``asyncio.run`` does; or forget them, as a loop that is closed does."""
        loop.ended = self._loops_end = True
        loop.ending = [] if gone else [task for task in self.tasks if task.loop is loop]
        for task in loop.ending:
            task.throw(Cancelled())

    def _end_loops(self) -> None:
        """Drop what is left of the loops whose cancelled tasks have ended."""
        for process in self.processes:
            for loop in process.loops.values():
                if loop.ending is not None and all(task.done for task in loop.ending):
                    loop.ending = None
                    for task in [item for item in self.tasks if item.loop is loop]:
                        try:
                            self._drop(task)
                        except RuntimeError as error:
                            raise Violation("nothing is left behind", f"{task.name} goes on: {error}") from error

    def _drop(self, task: Task) -> None:
        """Close a task that is never stepped again."""
        before, self.current = self.current, task
        try:
            task.close()
        finally:
            self.current = before

    def kill(self, process: Process) -> None:
        """End a process at once, and begin another one, whose callers begin again."""
        process.dead = True
        self.dead.append(process)
        self.happened.add("kill")
        self.tell(f"meanwhile: {process.name} is killed")
        tasks = [item for item in self.tasks if item.process is process]
        self.slack += len(tasks)
        for task in tasks:
            with suppress(RuntimeError):  # the code would go on
                self._drop(task)
        process.bury()
        self.processes[process.number] = Process(self, process.number, process.generation + 1)
        for task in tasks:
            if task.caller is not None:
                self.begin(task.caller, task.name + "'")


def _outside(name: str, process: Process | None = None) -> Task:
    """Return a task that has not begun and runs nothing yet."""
    coroutine = _nothing()
    coroutine.close()
    return Task(name, coroutine, process)


async def _nothing() -> None:
    pass
