"""The simulation finds nothing in the package, and finds what is planted in a copy of the package.

``EMBEDROUTER_SIMULATION_SEED`` plays other histories, ``EMBEDROUTER_SIMULATION_EFFECTS`` more or fewer of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulation import search

SEED = int(os.environ.get("EMBEDROUTER_SIMULATION_SEED", "20261129"))
EFFECTS = int(os.environ.get("EMBEDROUTER_SIMULATION_EFFECTS", "1_000_000"))
FEW = 6_000
"""Effects in the fast test: about two seconds."""
ENOUGH = 200_000
"""Effects within which a planted bug is found; most are within a few thousand."""
ROOT = Path(__file__).parents[1]


PARTS = [pytest.param(EFFECTS // 4, SEED + part, marks=pytest.mark.slow) for part in range(4)]
"""The slow test plays four seeds, which the processes share: one alone would run for minutes after all other tests."""


@pytest.mark.parametrize(("effects", "seed"), [(FEW, SEED), *PARTS])
def test_no_invariant_is_violated(effects: int, seed: int) -> None:
    """A failure shows the seed, and the history without what it does not need."""
    played = search(seed, effects)
    print(f"EMBEDROUTER_SIMULATION_SEED={seed}: {played}")

    assert played.found is None, str(played.found)


def test_a_seed_plays_the_same_histories_again() -> None:
    first, second = search(SEED, 1_000), search(SEED, 1_000)

    assert (first.effects, first.histories, first.happened) == (second.effects, second.histories, second.happened)


# Bugs that are planted


@dataclass(frozen=True)
class Bug:
    """A change of one place in the source, and the invariants of which one must be found violated."""

    file: str
    old: str
    new: str
    violates: tuple[str, ...]


LEFT, VECTOR, PAID, KEPT, BOOKED, CAP, DEADLINE, FORGOTTEN, RESERVED, ORIGIN, LISTED, LISTED_OF_TAG, NEEDED = (
    "nothing is left behind",
    "a vector is its text's",
    "nothing is paid twice",
    "paid answers are kept",
    "what is billed is booked",
    "the cap holds",
    "every call ends by its deadline",
    "nothing billed is forgotten",
    "no reservation is left",
    "a vector says where it is from",
    "the caps count what is listed",
    "the caps of a tag count what is listed",
    "a request is for a call",
)

BUGS = {
    "a claim is not released after an error": Bug(
        "calls/_share.py",
        "            if release:\n",
        "            if release and found:\n",
        (LEFT, DEADLINE, "every call ends"),
    ),
    "a text is not looked up again after other claims were resolved": Bug(
        "calls/_share.py",
        "if self._claims.completed != call.completed:",
        "if False:",
        (PAID,),
    ),
    "a slot leaks where a call is stopped": Bug(
        "calls/_attempt.py",
        "        finally:\n            self._limits[candidate.index].release(admission)\n",
        "        except Exception:\n            self._limits[candidate.index].release(admission)\n            raise\n",
        (LEFT, "every call ends"),
    ),
    "the rows of an answer come in another order": Bug(
        "calls/_attempt.py",
        "zip(texts, outcome.vectors, parts, strict=True)",
        "zip(texts, outcome.vectors[::-1], parts, strict=True)",
        (VECTOR,),
    ),
    "a late answer is discarded": Bug(
        "calls/_attempt.py",
        "                if isinstance(outcome, Answer) and outcome.implausible is not None:\n",
        "                if call.deadline is not None and self._clock() > call.deadline:\n"
        "                    outcome = _used_up(candidate)\n"
        "                if isinstance(outcome, Answer) and outcome.implausible is not None:\n",
        (KEPT, BOOKED, FORGOTTEN),
    ),
    "a request that was stopped in flight is given back": Bug(
        "calls/_attempt.py",
        "await call.effects.run_blocking(self._end, reserved[0], perhaps_billed)",
        "await call.effects.run_blocking(self._end, reserved[0], False)",
        (FORGOTTEN, BOOKED, CAP),
    ),
    "a request that was not answered is given back": Bug(
        "calls/_attempt.py",
        "await call.effects.run_blocking(self._end, reservation, unconfirmed)",
        "await call.effects.run_blocking(self._end, reservation, False)",
        (FORGOTTEN, BOOKED, CAP),
    ),
    "vectors are stored after they are booked": Bug(
        "calls/_attempt.py",
        "        other: EmbedRouterError | None = None\n        try:\n"
        "            other = self._other_model(candidate, answer.model)\n",
        "        other: EmbedRouterError | None = None\n"
        "        self._ledger.settle(reservation, tokens, cost(tokens, candidate.price), answer.implausible)\n"
        "        try:\n            other = self._other_model(candidate, answer.model)\n",
        (BOOKED,),
    ),
    "an answer without usage is booked as nothing": Bug(
        "calls/_attempt.py",
        "tokens = spending.tokens if outcome.tokens is None else outcome.tokens",
        "tokens = outcome.tokens or 0",
        (BOOKED,),
    ),
    "a call that was stopped makes another request": Bug(
        "calls/_attempt.py",
        "            call.effects.check()\n            timeout = min(timeout, call",
        "            timeout = min(timeout, call",
        ("no request after a stop",),
    ),
    "a wait before a retry may pass the deadline": Bug(
        "calls/_retries.py",
        "wait >= min(left, call.seconds_left(now))",
        "wait >= left",
        (DEADLINE,),
    ),
    "an attempt may take longer than its call": Bug(
        "calls/_attempt.py",
        "timeout = min(timeout, call.seconds_left(self._clock()))",
        "timeout = candidate.timeout",
        (DEADLINE,),
    ),
    "a budget does not count reservations": Bug(
        "spending/_bookings.py",
        '"tag_days WHERE tag = :tag AND" if tag else "days WHERE"',
        '"tag_days WHERE tag = :tag AND" if tag else "totals WHERE"',
        (CAP, LISTED),
    ),
    "the cap of a tag is not checked before a request": Bug(
        "spending/_bookings.py",
        "amount, now, tag=spending.tag, whole_call=False)",
        'amount, now, tag="", whole_call=False)',
        (CAP,),
    ),
    "the cap of a tag goes on counting what was given back": Bug(
        "spending/_bookings.py",
        "        if units and place.tag:\n",
        "        if units > 0 and place.tag:\n",
        (LISTED_OF_TAG,),
    ),
    "a reservation is settled twice": Bug(
        "spending/_bookings.py",
        "            \" WHERE id = ? AND state != 'settled'\",\n",
        '            " WHERE id = ?",\n',
        (BOOKED, CAP, FORGOTTEN, LISTED),
    ),
    "a window moves back with the clock": Bug(
        "spending/_bookings.py",
        'return max(latest or "", utc_day(now))',
        "return utc_day(now)",
        (CAP,),
    ),
    "a reservation that waits in memory forgets its number": Bug(
        "spending/_keeping.py",
        "self._keep(later or booking)",
        "self._keep(booking)",
        (RESERVED, BOOKED, FORGOTTEN),
    ),
    "a text's key does not say the input type": Bug(
        "cache/_keys.py",
        'asymmetry = "" if candidate.symmetric else input_type',
        'asymmetry = ""',
        (VECTOR,),
    ),
    "calls of two tiers are sent together": Bug(
        "calls/_micro_batch.py",
        "return (group, call.rank, call.input_type, call.tag, context)",
        "return (group, call.input_type, call.tag, context)",
        ("a lower tier is allowed", LEFT, NEEDED),
    ),
    "calls of two input types are sent together": Bug(
        "calls/_micro_batch.py",
        "return (group, call.rank, call.input_type, call.tag, context)",
        "return (group, call.rank, call.tag, context)",
        (VECTOR, ORIGIN, LEFT, NEEDED),
    ),
    "a micro-batch is not ended after an error": Bug(
        "calls/_micro_batch.py",
        "            if members is not None or not batch.sealed:\n                self._batcher.end(batch)\n",
        "            pass\n",
        (LEFT, DEADLINE, "every call ends"),
    ),
    "a call that was sent alone stays in flight after an error": Bug(
        "calls/_micro_batch.py",
        "            finally:\n                left = self._batcher.leave(kind)\n",
        "            except ZeroDivisionError:\n                raise\n            left = self._batcher.leave(kind)\n",
        (LEFT,),
    ),
    "a lower tier's vector answers from memory for the higher": Bug(
        "cache/_memory.py",
        "if found is None or found.origin.candidate.rank < rank:",
        "if found is None:",
        ("a lower tier is allowed",),
    ),
    "another text is named as refused": Bug(
        "calls/_isolate.py",
        "at_fault = {part[index].text for index in failure.indices}",
        "at_fault = {part[index - 1].text for index in failure.indices}",
        ("the text that is refused is named",),
    ),
    "texts beside a refused one are forgotten": Bug(
        "calls/_isolate.py",
        "rest = [item for item in part if item.text not in at_fault]",
        "rest = [item for item in part[1:] if item.text not in at_fault]",
        (KEPT, "errors are ours"),
    ),
    "a cap goes on counting what was given back": Bug(
        "spending/_bookings.py",
        "        self._count(place, -set_aside, -free)\n        told",
        "        told",
        (LISTED,),
    ),
    "there is a slot too many": Bug(
        "limits/_model_limits.py",
        "free = self._concurrency - len(counted)",
        "free = self._concurrency + 1 - len(counted)",
        ("no more requests than slots",),
    ),
    "requests in flight do not count against the limit of the rate": Bug(
        "limits/_rate_limiter.py",
        "return self.limit - self._past_amount - self.in_flight",
        "return self.limit - self._past_amount",
        ("the limit of the rate is kept",),
    ),
    "a slot that is assigned to a caller that left is lost": Bug(
        "limits/_model_limits.py",
        "            self._given.remove(slot)\n            self._give_slots()\n",
        "            pass\n",
        (LEFT, "every call ends"),
    ),
}


def test_there_is_one_place_for_each_bug() -> None:
    """A bug whose line was changed is planted again."""
    source = {bug.file: (ROOT / "src" / "embedrouter" / bug.file).read_text("utf-8") for bug in BUGS.values()}

    assert [name for name, bug in BUGS.items() if source[bug.file].count(bug.old) != 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    """Each is planted in a copy of the package."""
    bug, copy = BUGS[name], tmp_path / "embedrouter"
    shutil.copytree(ROOT / "src" / "embedrouter", copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = (copy / bug.file).read_text("utf-8")
    (copy / bug.file).write_text(source.replace(bug.old, bug.new), "utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(SEED), "--effects", str(ENOUGH), "--shrink", "0"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(ran.stdout, ran.stderr)
    played, _, found = ran.stdout.partition("\n")

    assert ran.returncode == 1, f"not found: {played}"
    assert found.startswith(bug.violates), "another invariant was violated"
