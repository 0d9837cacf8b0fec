"""What must hold when a history is over.

- A vector is its text's, of the model that the result names, in the tier that was asked for or marked as degraded.
- A paid answer is in the cache, or its row could not be stored; what may have been billed is counted; the caps hold.
- A call ends by its deadline, with an error of ours if with any.
- Nothing is left behind: after a pause each kind of call is answered at once, with all its slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from embedrouter import Budget
from embedrouter.cache import VectorCache
from embedrouter.errors import BudgetExceededError, EmbedRouterError, InputRejectedError
from embedrouter.models import split_text
from embedrouter.spending import UNIT
from embedrouter.types import Candidate, InputType, Vectors

from .plan import POOL, Ask, Caller, Form
from .provider import WRONG, Defect, Request, vector
from .scheduler import Cancelled, Interrupt, Violation
from .world import Made, Process, World

FAR = 4_000_000_000.0
"""Seconds since 1970, when every reservation is past its time."""
SHORT = POOL[:6]
PAUSE = 10_000.0
"""Seconds after which no circuit is open and no limit of a rate counts."""


def check(world: World) -> None:
    """Raise ``Violation`` where an invariant does not hold."""
    for made in world.made:
        _check_end(world, made)
        if made.result is not None:
            _check_vectors(world, made)
    _check_origins(world)
    _check_rows(world)
    _write(world)
    _check_accounts(world)
    _check_nothing_left(world)


def _check_end(world: World, made: Made) -> None:
    error, story = made.error, f"{made.asker.name} for {made.ask}"
    if made.process.dead and (made.ended_at is None or not isinstance(error, Exception)):
        return
    if made.ended_at is None:
        raise Violation("every call ends", story)
    if made.late > 1e-9:
        raise Violation("every call ends by its deadline", f"{made.late:g} s late: {story}")
    if error is None or isinstance(error, EmbedRouterError):
        if isinstance(error, InputRejectedError):
            _check_rejected(world, made, error)
    elif isinstance(error, Defect):
        if not world.provider.happened("defect"):
            raise Violation("errors are ours", story)
    elif isinstance(error, Cancelled | Interrupt | GeneratorExit):
        if not world.happened & {"stop", "kill", "end of loop", "loop is gone"}:
            raise Violation("a call ends as it should", f"nothing stopped {story}, and it ended with {error!r}")
    else:
        raise Violation("errors are ours", f"{error!r} came out of {story}") from error


def _check_rejected(world: World, made: Made, error: InputRejectedError) -> None:
    """A text is named only where the provider refuses it, and the others are embedded where the error says so."""
    plan = world.plan
    if "were embedded" in str(error) and plan.cached and not world.provider.happened("another name"):
        kept = world.store.rows.keys() | world.store.not_kept
        others = {text for place, text in enumerate(made.ask.texts) if place not in error.indices} & set(SHORT)
        for text in others - _asked_elsewhere(world, made):
            if kept.isdisjoint(plan.key(candidate, made.ask.input_type, text) for candidate in plan.candidates):
                raise Violation(
                    "paid answers are kept", f"{text!r} of {made.asker.name}, beside a text that is refused"
                )
    if any(world.provider.happened(outcome) for outcome in ("400", *WRONG)):
        return
    longest = min((item.limits.input_tokens or 99 for item in plan.candidates), default=99)
    for index in error.indices:
        text = made.ask.texts[index]
        if text != plan.poison and len(text) <= longest and not plan.most_texts:
            raise Violation("the text that is refused is named", f"{text!r} was not refused: {made.asker.name}")


def _asked_elsewhere(world: World, made: Made) -> set[str]:
    """Return the texts that other calls of the process were embedding at the same time."""
    return {
        text
        for other in world.made
        if other.process is made.process and other is not made and (other.ended_at or 0) >= made.asker.began_at
        for text in other.ask.texts
    }


def _check_vectors(world: World, made: Made) -> None:
    result, ask, plan = made.result, made.ask, world.plan
    assert result is not None
    by_name = {candidate.name: candidate for candidate in plan.candidates}
    if len(result) != len(ask.texts):
        raise Violation("a vector is its text's", f"{len(result)} vectors for {ask}")
    for text, name, degraded, shortened, row in zip(
        ask.texts, result.models, result.degraded, result.shortened, result.vectors, strict=True
    ):
        candidate = by_name[name]
        if not _is_right(world, candidate, ask.input_type, text, row, shortened=shortened):
            raise Violation("a vector is its text's", f"{text!r} of {made.asker.name} got {row} of {name}")
        if degraded != (candidate.rank < ask.rank):
            raise Violation("a lower tier is marked", f"{text!r} of {made.asker.name} got {name}")
        budgets = (plan.budget, *plan.budget.by_tag.values())
        allowed = "degrade" in (plan.when_unavailable, *(budget.when_exceeded for budget in budgets))
        if degraded and (ask.input_type == "document" or not allowed):
            raise Violation("a lower tier is allowed", f"{text!r} of {made.asker.name} got {name}")


def _check_origins(world: World) -> None:
    """A text is new in no more calls of a process than sound answers came for the text."""
    new: Counter[tuple[object, ...]] = Counter()
    for made in world.made:
        if (result := made.result) is not None:
            rows = zip(made.ask.texts, result.models, result.cached, result.shortened, strict=True)
            kind = made.process, made.ask.input_type
            new.update({(*kind, model, text) for text, model, cached, short in rows if not cached and not short})
    sent: Counter[tuple[object, ...]] = Counter(
        (request.process, request.input_type, request.candidate.name, text)
        for request in world.provider.requests
        for text in request.good
    )
    if wrong := new - sent:
        (_, *what), times = wrong.most_common(1)[0]
        raise Violation("a vector says where it is from", f"{what} is new in {times} calls too many")


def _is_right(
    world: World, candidate: Candidate, input_type: InputType, text: str, row: Vectors, *, shortened: bool
) -> bool:
    if not shortened:
        return np.array_equal(row, vector(candidate, input_type, text, world.plan.dtype))
    weight = 1 if world.plan.exact else 2
    for limit in {item.limits.input_tokens for item in world.plan.candidates} - {None}:
        assert limit is not None
        parts = split_text(text, limit, world.plan.on_too_long, lambda part: weight * len(part))
        vectors = [vector(candidate, input_type, part, world.plan.dtype) for part in parts]
        mean = np.average(vectors, axis=0, weights=[len(part) for part in parts])
        expected = vectors[0] if len(parts) == 1 else mean / np.linalg.norm(mean)
        if np.allclose(row, expected, rtol=2e-3):
            return True
    return len(world.plan.candidates) > 1  # parts may be of several models


def _check_rows(world: World) -> None:
    """Each row is the vector of the text that its key is made of."""
    plan, store = world.plan, world.store
    stored = VectorCache(store, plan.dtype)
    for candidate in plan.candidates:
        for input_type in ("document", "query"):
            keys = {plan.key(candidate, input_type, text): text for text in POOL}
            for key, entry in stored.read([*keys], candidate.space.dimensions).items():
                if not np.array_equal(entry.vector, vector(candidate, input_type, keys[key], plan.dtype)):
                    raise Violation("a vector is its text's", f"{keys[key]!r} of {candidate.name} is stored wrong")


def _write(world: World) -> None:
    """Let living processes write what waits in memory, without faults."""
    world.calm = True
    for process in world.processes:
        with world.inside(process):
            process.ledger.flush()


def _check_accounts(world: World) -> None:
    plan, requests = world.plan, world.provider.requests
    process, reached = world.processes[0], world.days
    world.set_clock(FAR)
    with world.inside(process):
        accounts, unconfirmed = process.ledger.totals("model"), process.ledger.unconfirmed()
        days = process.ledger.totals("day")
        by_tag = process.ledger.accounts("tag", "day")
    forgets = world.dead and not plan.budget.has_caps and world.happened & {"locked", "full", "commit unknown"}
    for candidate in plan.candidates:
        of_model = [request for request in requests if request.candidate.index == candidate.index]
        answered = [request for request in of_model if request.state == "answered"]
        lost = sum(request.state == "lost" for request in of_model)
        account = accounts.get(candidate.name)
        settled, tokens = (account.requests, account.tokens) if account else (0, 0)
        waiting = sum(item.model == candidate.name for item in unconfirmed)
        story = f"{candidate.name}: {len(answered)} answers and {lost} lost, {settled} booked and {waiting} unconfirmed"
        unkept = [request for request in answered if not _is_kept(world, request)]
        for request in unkept:
            if not request.process.dead:
                raise Violation("paid answers are kept", f"{request.texts} of {request.asker.name}; {story}")
        if not world.dead and tokens != (told := sum(request.told for request in answered)):
            raise Violation("what is billed is booked", f"{tokens} tokens, not {told}; {story}")
        if settled > len(answered) - len(unkept) or (not world.dead and settled < len(answered)):
            raise Violation("what is billed is booked", story)
        if not forgets and settled + waiting < len(answered) + lost:
            raise Violation("nothing billed is forgotten", story)
        most = len(answered) + lost + world.orphans + world.slack
        if settled + waiting > most and "loop is gone" not in world.happened:
            raise Violation("no reservation is left", story)
    counted = sum((account.cost + account.unconfirmed for account in days.values()), Decimal(0))
    with world.inside(process):
        enough, less = Budget(total=counted + UNIT), Budget(total=counted)
        if process.ledger.refusal(enough, UNIT) is not None or process.ledger.refusal(less, UNIT) is None:
            raise Violation("the caps count what is listed", f"not {counted} dollars")
    if not forgets and counted < world.provider.billed():
        raise Violation("nothing billed is forgotten", f"{world.provider.billed()} dollars, {counted} counted")
    world.days = reached
    _check_caps(world, plan.budget, {day: account.cost + account.unconfirmed for day, account in days.items()})
    under_tag = {day: item.cost + item.unconfirmed for (tag, day), item in by_tag.items() if tag == "tag"}
    if own := plan.budget.by_tag.get("tag"):
        _check_caps(world, own, under_tag)
    of_tag = sum(under_tag.values(), Decimal(0))
    with world.inside(process):
        enough, less = (Budget(tags={"tag": Budget(total=cap)}) for cap in (of_tag + UNIT, of_tag))
        if process.ledger.refusal(enough, UNIT, "tag") or not process.ledger.refusal(less, UNIT, "tag"):
            raise Violation("the caps of a tag count what is listed", f"not {of_tag} dollars")
    for process in world.processes:
        _check_usage(world, process)


def _check_usage(world: World, process: Process) -> None:
    """What the router and its calls say was billed is what was billed, and no more where calls failed."""
    answered = [item for item in world.provider.requests if item.process is process and item.state == "answered"]
    told = len(answered), sum(item.told for item in answered)
    calls = [made for made in world.made if made.process is process]
    usages = [made.result.usage for made in calls if made.result is not None]
    of_calls = sum(usage.requests for usage in usages), sum(usage.tokens for usage in usages)
    total = process.wiring.totals.usage
    of_router = total.requests, total.tokens
    excused = world.happened & {"stop", "end of loop", "loop is gone"} or world.provider.happened("defect")
    all_well = len(usages) == len(calls) and not excused
    if of_calls > told or of_router > told or (all_well and not of_calls == of_router == told):
        raise Violation("usage is what was billed", f"{of_calls} and {of_router}, not {told}: {process.name}")


def _is_kept(world: World, request: Request) -> bool:
    """Whether the vectors of an answer are in the cache, or could not be stored, or were refused."""
    requests = world.provider.requests
    if not world.plan.cached or any(
        item.process is request.process and item.outcome == "another name" for item in requests
    ):
        return True
    keys = {world.plan.key(request.candidate, request.input_type, text) for text in request.good}
    return keys <= world.store.rows.keys() | world.store.not_kept


def _check_caps(world: World, budget: Budget, days: dict[str, Decimal]) -> None:
    months: dict[str, Decimal] = {}
    for day, amount in days.items():
        months[day[:7]] = months.get(day[:7], Decimal(0)) + amount
    total = {"": sum(days.values(), Decimal(0))}
    for cap, windows in ((budget.total, total), (budget.per_day, days), (budget.per_month, months)):
        for window, amount in windows.items():
            if cap is not None and amount > Decimal(cap):
                raise Violation("the cap holds", f"{amount} of {cap} dollars are counted {window}")
    if budget.per_day is not None and (spent := total[""]) > world.days * Decimal(budget.per_day):
        raise Violation("the cap holds", f"{spent} dollars are counted in {world.days} days of {budget.per_day}")


# Nothing is left behind


def _check_nothing_left(world: World) -> None:
    """Ask again, after a pause, in a world where everything works: for each kind of call, then for each slot."""
    ranks = sorted({item.rank for item in world.plan.candidates})
    for process in world.processes:
        kinds: set[tuple[Form, int, int, InputType, str]] = {
            (made.caller.form, made.caller.loop, made.ask.rank, made.ask.input_type, made.ask.tag)
            for made in world.made
            if made.process.number == process.number and made.asker.name != "probe"
        }
        world.provider.seconds = 0.0
        for rank in ranks:  # one request at a time may go out where a circuit was open, and after HTTP 429
            _ask(world, process, [_caller(process, "thread", 0, Ask(("p",), rank, "document", "", None))])
        callers = [
            _caller(process, "thread" if form == "main" else form, loop, Ask(SHORT, rank, input_type, tag, None))
            for form, loop, rank, input_type, tag in sorted(kinds)
        ]
        took, _ = _ask(world, process, callers)
        if took > 0 and not _has_rates(world):
            raise Violation("nothing is left behind", f"calls took {took:g} s after everything was over")
        world.provider.seconds = 1.0
        for rank in ranks:
            able = [item for item in world.plan.candidates if item.rank >= rank]
            first = min(able, key=lambda item: (item.price is None, item.price or 0, item.index))
            asks = [Ask((f"p {slot}",), rank, "document", f"probe {slot}", None) for slot in range(first.concurrency)]
            took, models = _ask(world, process, [_caller(process, "thread", 0, ask) for ask in asks])
            if took > 1.0 and models == {first.name} and not _has_rates(world):
                story = f"{len(asks)} requests of {first.name} at once took {took:g} s after everything was over"
                raise Violation("nothing is left behind", story)


def _caller(process: Process, form: Form, loop: int, ask: Ask) -> Caller:
    return Caller("probe", process.number, form, loop, 0.0, (ask,))


def _has_rates(world: World) -> bool:
    return any(item.requests_per_minute or item.tokens_per_minute for item in world.plan.candidates) or any(
        request.outcome == "limits" for request in world.provider.requests
    )


def _ask(world: World, process: Process, callers: Sequence[Caller]) -> tuple[float, set[str]]:
    """Make calls at once, without anything in the cache; return the seconds and the models that they take."""
    world.store.clear()
    process.wiring.memory.clear()
    world.now += PAUSE
    began, before, requests = world.now, len(world.made), len(world.provider.requests)
    for caller in callers:
        world.begin(caller)
    world.run()
    for made in world.made[before:]:
        if made.result is not None:
            _check_vectors(world, made)
        elif not isinstance(made.error, BudgetExceededError):
            raise Violation("nothing is left behind", f"{made.error!r} after everything was over: {made.ask}")
    return world.now - began, {request.candidate.name for request in world.provider.requests[requests:]}
