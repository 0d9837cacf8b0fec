"""The promise, over any sequence of operations: a vector is always the one of its text, input type and space.

Each fake model's vector names its space, its dimensions, its input type and its text, so a vector that came from
anywhere else is recognised, in any shape.
"""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embedrouter import Budget, Router, TieredRouter, tier
from embedrouter.errors import (
    BackendError,
    BudgetExceededError,
    DegradedWarning,
    EmbedRouterError,
    NoModelAvailableError,
    RateLimitedError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.properties import examples

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dd", "eee"]), min_size=1, max_size=4)
INPUT_TYPES: st.SearchStrategy[InputType] = st.sampled_from(["document", "query"])
TIERS = st.sampled_from([None, "low", "medium", "high"])
SPACES = ("one", "two")


class Routers(RuleBasedStateMachine):
    """Two spaces of equal dimensions, three models each, one cache for all, and everything that can go wrong."""

    @initialize(
        degrade=st.booleans(),
        budget=st.sampled_from([None, "0.00002", "0.0002"]),
        policy=st.sampled_from(["raise", "degrade"]),
    )
    def build(self, degrade: bool, budget: str | None, policy: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.cache = MemoryCache()
        self.fakes = {(space, name): FakeBackend(space=space) for space in SPACES for name in ("low", "medium", "high")}
        self.options = {
            "when_unavailable": "degrade" if degrade else "raise",
            "budget": Budget(total=budget, when_exceeded=policy),  # type: ignore[arg-type]
            "ledger": Path(self.folder.name) / "ledger.db",
        }
        self.routers = {space: self.router(space) for space in SPACES}
        self.tiered = TieredRouter({"low": self.routers["one"], "high": self.routers["two"]})

    def router(self, space: str) -> Router:
        prices = {"low": "1", "medium": "2", "high": "4"}
        models = [
            self.fakes[space, name].model(f"fake:{space}-{name}", tier=name, price=price, batch_size=2)
            for name, price in prices.items()
        ]
        return Router(models, cache=self.cache, retry=NO_WAITING, **self.options)  # type: ignore[arg-type]

    @rule(space=st.sampled_from(SPACES), name=st.sampled_from(["low", "medium", "high"]), fault=st.integers(0, 4))
    def something_fails(self, space: str, name: str, fault: int) -> None:
        outcomes: list[list[BackendError | Answer | None]] = [
            [UnavailableError("down", retryable=False)],
            [RateLimitedError("slow")] * 5,
            [UnavailableError("down")] * 2,
            [Answer(np.full((2, 8), np.nan, np.float32), 2)],
            [Answer(np.ones((1, 6), np.float32), 1)],
        ]
        self.fakes[space, name].outcomes[:] = outcomes[fault]

    @rule()
    def everything_works_again(self) -> None:
        for fake in self.fakes.values():
            fake.outcomes.clear()

    @rule(space=st.sampled_from(SPACES))
    def a_router_is_built_anew(self, space: str) -> None:
        self.routers[space] = self.router(space)

    @rule(key=st.randoms(use_true_random=False))
    def a_row_is_damaged(self, key: object) -> None:
        if self.cache.rows:
            name = sorted(self.cache.rows)[0]
            self.cache.rows[name] = self.cache.rows[name][::-1]

    @rule(
        space=st.sampled_from(SPACES),
        texts=TEXTS,
        input_type=INPUT_TYPES,
        wanted=TIERS,
        around=TIERS,
        asynchronous=st.booleans(),
    )
    def one_router_is_asked(
        self,
        space: str,
        texts: Sequence[str],
        input_type: InputType,
        wanted: str | None,
        around: str | None,
        asynchronous: bool,
    ) -> None:
        self.ask(self.routers[space], texts, input_type, wanted, around, asynchronous, space)

    @rule(texts=TEXTS, input_type=INPUT_TYPES, wanted=TIERS, asynchronous=st.booleans())
    def the_tiered_router_is_asked(
        self, texts: Sequence[str], input_type: InputType, wanted: str | None, asynchronous: bool
    ) -> None:
        space = "one" if wanted == "low" else "two"
        self.ask(self.tiered, texts, input_type, wanted, None, asynchronous, space)

    def ask(
        self,
        router: Router | TieredRouter,
        texts: Sequence[str],
        input_type: InputType,
        wanted: str | None,
        around: str | None,
        asynchronous: bool,
        space: str,
    ) -> None:
        with warnings.catch_warnings(), tier(around or wanted or "high"):
            warnings.simplefilter("ignore", DegradedWarning)
            try:
                if asynchronous:
                    result = asyncio.run(router.aembed(texts, input_type=input_type, tier=wanted))
                else:
                    result = router.embed(texts, input_type=input_type, tier=wanted)
            except (NoModelAvailableError, BudgetExceededError):
                return
            except EmbedRouterError as error:
                raise AssertionError(f"unexpected {error!r}") from error
        assert result.space.name == space
        for row, text, model, degraded in zip(result.vectors, texts, result.models, result.degraded, strict=True):
            fake = self.fakes[space, "high"]
            assert np.array_equal(row, fake.vector(text, input_type)), "a vector of another space, text or input type"
            assert model.startswith(f"fake:{space}-")
            assert not (degraded and input_type == "document")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for router in self.routers.values():
                router.close()
            self.folder.cleanup()

    @invariant()
    def mixing_cannot_be_configured(self) -> None:
        if hasattr(self, "fakes"):
            models = [self.fakes[space, "low"].model(f"fake:{space}") for space in SPACES]
            try:
                Router(models, cache=None)
            except SpaceMismatchError:
                return
            raise AssertionError("two spaces in one router")


TestSpacesNeverMix = Routers.TestCase
TestSpacesNeverMix.settings = settings(examples(60), stateful_step_count=25)
