"""Look up vectors in the cache.

A text is looked up under every model at or above the requested tier, best first: a better vector that is paid for beats
a cheaper vector that is not. Beginnings of longer vectors are used where the model's maker documents this shortening.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..cache import VectorCache, key_function
from ..types import Candidate, Entry, Found, Origin, OverlongPolicy
from ._call import Call, Embedded, Stage, without
from ._single_flight import SingleFlight


def policy_tag(policy: OverlongPolicy, limit: int) -> str:
    """Return the part of a cache key that marks a text over the limit."""
    return f"{policy}:{limit}"


class CacheReader:
    """Read the cached vectors of one router's models."""

    def __init__(self, cache: VectorCache, candidates: Sequence[Candidate], on_too_long: OverlongPolicy) -> None:
        self._cache = cache
        self._on_too_long: OverlongPolicy = on_too_long
        best_first = sorted(candidates, key=lambda candidate: (-candidate.rank, candidate.index))
        self._candidates = list({candidate.fingerprint: candidate for candidate in reversed(best_first)}.values())[::-1]

    async def look_up(self, call: Call, texts: Sequence[str], only: Candidate | None = None) -> dict[str, Found]:
        """Return the cached vectors of texts.

        Args:
            only: look up this model alone, of any tier; by default all models at or above the requested tier.
        """
        if self._cache.store is None or not texts:
            return {}
        candidates = [only] if only else [item for item in self._candidates if item.rank >= call.rank]
        return await call.effects.run_blocking(self._read, call, texts, candidates)

    def _read(self, call: Call, texts: Sequence[str], candidates: Sequence[Candidate]) -> dict[str, Found]:
        found: dict[str, Found] = {}
        for candidate in candidates:
            self._read_model(call, texts, found, candidate, "")
            limit = candidate.limits.input_tokens
            if limit is not None and self._on_too_long != "error":
                long = [text for text in texts if len(text.encode()) > limit]
                self._read_model(call, long, found, candidate, policy_tag(self._on_too_long, limit))
        return found

    def _read_model(
        self, call: Call, texts: Sequence[str], found: dict[str, Found], candidate: Candidate, policy: str
    ) -> None:
        """Add one model's own vectors to ``found``, then the beginnings of its longer vectors."""
        own = candidate.space.dimensions
        origin = Origin(candidate, cached=True, shortened=bool(policy))
        for length, fingerprint in ((own, candidate.fingerprint), *candidate.longer):
            missing = without(texts, found)
            if not missing:
                return
            key = key_function(
                candidate, call.input_type, fingerprint=fingerprint, dtype=self._cache.dtype, policy=policy
            )
            keys = {key(text): text for text in missing}
            entries = self._cache.read(list(keys), length, candidate.number)
            if length == own:
                found.update((keys[name], Found(vector, tokens, origin)) for name, (vector, tokens) in entries.items())
            else:
                found.update((keys[name], Found(*entry, origin)) for name, entry in _beginnings(entries, own))


def _beginnings(entries: Mapping[bytes, Entry], length: int) -> Iterator[tuple[bytes, Entry]]:
    """Yield the first numbers of vectors, scaled to length 1."""
    for name, (vector, tokens) in entries.items():
        beginning = vector[:length]
        norm = np.linalg.norm(beginning)
        if norm:
            yield name, Entry(np.asarray(beginning / norm, np.float32), tokens)


class LookUp:
    """Answer texts from the cache."""

    def __init__(self, reader: CacheReader, claims: SingleFlight[Found], following: Stage) -> None:
        self._reader, self._claims, self._following = reader, claims, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        call = replace(call, completed=self._claims.completed)
        embedded = Embedded(await self._reader.look_up(call, texts))
        call.report(embedded)
        if missing := without(texts, embedded.found):
            embedded.add(await self._following.embed(call, missing))
        return embedded
