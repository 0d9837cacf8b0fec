"""The time of day at OpenAI: it passes only when a test, or a step of a batch, lets it pass."""

from __future__ import annotations

import time


class Clock:
    """Unix time in whole seconds, as the API writes it."""

    def __init__(self) -> None:
        self.now = int(time.time())

    def forward(self, seconds: int) -> int:
        """Let `seconds` pass and return the new time."""
        self.now += seconds
        return self.now

    def forward_to(self, moment: int) -> int:
        """Let the time up to `moment` pass; there is no way back."""
        self.now = max(self.now, moment)
        return self.now
