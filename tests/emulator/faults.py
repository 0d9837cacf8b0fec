"""What may go wrong, as values.

A fault says what happens to one request. It strikes at one of three moments: before the request is read (an error
status, a reset, a foreign HTML page), when the answer is written (too few vectors, wrong lengths, missing usage), or
when it is sent (cut in half, lost after it was computed and billed). `after(seconds)` makes any of them slow as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tests.emulator.exchange import Answer
from tests.emulator.vectors import Vector

Kind = Literal[
    "slow", "status", "reset", "html",
    "count", "dimensions", "nan", "zeros", "shuffled", "floats", "no_usage", "tokens",
    "lost", "half",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request. Build one with the class methods below, never directly."""

    kind: Kind
    delay: float = 0.0
    code: int = 200
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    amount: int = 0

    def after(self, seconds: float) -> Fault:
        """Return the same fault, striking `seconds` later."""
        return replace(self, delay=self.delay + seconds)

    # Before the request is read.

    @classmethod
    def status(
        cls,
        code: int,
        *,
        retry_after: str | float | None = None,
        retry_after_ms: str | float | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> Fault:
        """Answer with `code` and the provider's own words for it, or with `body` in place of them."""
        sent = dict(headers or {})
        if retry_after is not None:
            sent["retry-after"] = str(retry_after)
        if retry_after_ms is not None:
            sent["retry-after-ms"] = str(retry_after_ms)
        raw = json.dumps(dict(body)) if isinstance(body, Mapping) else body
        raw = raw.encode() if isinstance(raw, str) else raw
        return cls("status", code=code, reason=reason, headers=tuple(sent.items()), body=raw)

    @classmethod
    def rate_limited(cls, retry_after: str | float | None = None) -> Fault:
        """Answer 429, too many requests or tokens a minute: trying later can succeed."""
        return cls.status(429, retry_after=retry_after)

    @classmethod
    def insufficient_quota(cls) -> Fault:
        """Answer 429 because the account is out of money: trying later cannot succeed."""
        return cls.status(429, reason="insufficient_quota")

    @classmethod
    def request_too_large(cls) -> Fault:
        """Answer 429 because this one request is over the limit a minute: only a smaller one can succeed."""
        return cls.status(429, reason="request_too_large")

    @classmethod
    def unavailable(cls, code: int = 503) -> Fault:
        """Answer as a proxy in front of the provider does: plain text, no JSON."""
        text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        return cls.status(code, body=text, headers={"content-type": "text/plain"})

    @classmethod
    def reset(cls) -> Fault:
        """Reset the connection before anything is computed: nothing is billed."""
        return cls("reset")

    @classmethod
    def html(cls) -> Fault:
        """Answer 200 with a web page, as captive portals and wrong URLs do."""
        page = b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome</body></html>"
        return cls("html", headers=(("content-type", "text/html; charset=utf-8"),), body=page)

    # When the answer is written: computed, billed, and wrong.

    @classmethod
    def wrong_count(cls, by: int = -1) -> Fault:
        """Answer `by` vectors more or fewer than there were texts."""
        return cls("count", amount=by)

    @classmethod
    def wrong_dimensions(cls, dimensions: int = 8) -> Fault:
        """Answer vectors of another length than was asked for."""
        return cls("dimensions", amount=dimensions)

    @classmethod
    def nan(cls) -> Fault:
        """Put a NaN into the first entry of the last vector."""
        return cls("nan")

    @classmethod
    def zeros(cls) -> Fault:
        """Answer vectors of nothing but zeros."""
        return cls("zeros")

    @classmethod
    def shuffled(cls) -> Fault:
        """Write the vectors in reverse with right `index` values; for answers that carry an index (not Cohere's)."""
        return cls("shuffled")

    @classmethod
    def floats(cls) -> Fault:
        """Answer lists of numbers although base64 was asked for."""
        return cls("floats")

    @classmethod
    def no_usage(cls) -> Fault:
        """Leave the token usage out of the answer."""
        return cls("no_usage")

    @classmethod
    def reported_tokens(cls, tokens: int) -> Fault:
        """Report another number of tokens than was billed."""
        return cls("tokens", amount=tokens)

    # When the answer is sent.

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """Answer rightly, `seconds` late: computed and billed even when the client has left by then."""
        return cls("slow", delay=seconds)

    @classmethod
    def lost(cls) -> Fault:
        """Reset the connection after the answer was computed: billed, never seen."""
        return cls("lost")

    @classmethod
    def half_body(cls) -> Fault:
        """Send half of the promised bytes and close: billed, unreadable."""
        return cls("half")

    def spoil(self, answer: Answer) -> Answer:
        """Return the answer as this fault makes the provider write it; most faults leave it alone."""
        job, vectors = answer.job, answer.vectors
        if self.kind == "count":
            kept = (vectors + vectors[-1:] * max(self.amount, 0))[: max(len(vectors) + self.amount, 0)]
            return replace(answer, vectors=kept, order=tuple(range(len(kept))))
        if self.kind == "dimensions":
            return replace(answer, vectors=tuple(np.resize(vector, self.amount) for vector in vectors))
        if self.kind == "nan":
            return replace(answer, vectors=(*vectors[:-1], _with_nan(vectors[-1])))
        if self.kind == "zeros":
            return replace(answer, vectors=tuple(np.zeros_like(vector) for vector in vectors))
        if self.kind == "shuffled":
            if job.model.provider in ("cohere", "google", "vertex"):
                raise ValueError(
                    "Cohere's and Google's answers carry no index: Fault.shuffled() cannot be played there"
                )
            return replace(answer, order=answer.order[::-1])
        if self.kind == "floats":
            return replace(answer, job=replace(job, formats=("float",)))
        if self.kind in ("no_usage", "tokens"):
            return replace(answer, tokens=self.amount if self.kind == "tokens" else None)
        return answer


def _with_nan(vector: Vector) -> Vector:
    spoilt = vector.copy()
    spoilt[0] = np.nan
    return spoilt
