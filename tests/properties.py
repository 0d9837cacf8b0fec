"""How many examples property tests try: some by default, all where ``HYPOTHESIS_PROFILE=thorough``, as in .ci/run."""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["examples"]

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
FEWER = 4


def examples(number: int) -> settings:
    """Return settings for so many examples, without a deadline for one: machines may be busy."""
    return settings(max_examples=number if THOROUGH else max(10, number // FEWER), deadline=None)


settings.register_profile("embedrouter", examples(100))
settings.load_profile("embedrouter")
