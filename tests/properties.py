"""How many examples property tests try, and which.

Some by default, all where ``HYPOTHESIS_PROFILE=thorough``, as in ``.ci/run``. There ``HYPOTHESIS_DERANDOMIZE=1`` tries
the same in every run, so that a change is refused for what it changes; elsewhere each run draws new ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["examples"]

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
DERANDOMIZE = os.environ.get("HYPOTHESIS_DERANDOMIZE") == "1"
FEWER = 8


def examples(number: int) -> settings:
    """Return settings for so many examples, without a deadline for one: machines may be busy."""
    tried = number if THOROUGH else max(10, number // FEWER)
    return settings(max_examples=tried, deadline=None, derandomize=DERANDOMIZE)


settings.register_profile("embedrouter", examples(100))
settings.load_profile("embedrouter")
