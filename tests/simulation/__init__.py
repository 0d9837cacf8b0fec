"""Deterministic simulation: the stages of a call under a schedule of failures, in virtual time, from one seed.

Routers of several processes share a ledger and a cache, and are called in both forms. One scheduler steps them all: at
each effect it decides who goes on, what the provider answers, whether a file fails, whether a caller is stopped or a
process killed, and what the machine's clock says. The stages, the ledger and the cache are the real ones.

    python -m tests.simulation --seed 7 --effects 1000000

plays so many effects, in histories of some hundred each, and prints the first one in which an invariant does not hold,
without the decisions that it does not need. ``EMBEDROUTER_SIMULATION_SEED`` and ``EMBEDROUTER_SIMULATION_EFFECTS`` set
the same for the tests.

``choices`` are the decisions, ``scheduler`` and ``effects`` the two forms of a call, ``disk`` and ``provider`` what may
fail, ``world`` a history, ``invariants`` what must hold.
"""

from ._search import Found, Played, search

__all__ = ["Found", "Played", "search"]
