"""Count tokens, and refuse, truncate or split texts over the model's limit.

A text over the limit is replaced by its beginning (``"truncate"``) or its parts (``"mean"``), which are ordinary texts
with separate cache entries. Where the count is an estimate, the provider decides which texts are too long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..cache import VectorCache, key_function
from ..errors import InputRejectedError
from ..models import Backend, own_counts, split_text
from ..types import Candidate, Entry, Found, InputType, Origin, OverlongPolicy, TokenCounts
from ._afford import Afford
from ._call import Call, Embedded, SizedText, TextsRejected, TextsTooLong, input_limit, without
from ._learned import Learned
from ._look_up import CacheReader, policy_tag

NOISE = 1e-6
"""Length of a mean, relative to its parts, that is within the error of float32 numbers."""


@dataclass(slots=True)
class Sized:
    """Texts to be sent, with their tokens."""

    texts: list[SizedText]
    exact: bool = True
    """Whether the model's own tokenizer counted."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The parts of each text over the limit."""
    found: dict[str, Found] = field(default_factory=dict)
    """The cached parts."""


class Size:
    """Count the tokens of texts, and split texts over the limit.

    Args:
        cache: stores the vectors of shortened texts.
    """

    def __init__(
        self,
        backends: Mapping[int, Backend],
        cache: VectorCache,
        reader: CacheReader,
        on_too_long: OverlongPolicy,
        learned: Learned,
        following: Afford,
    ) -> None:
        self._backends, self._cache, self._reader = backends, cache, reader
        self._on_too_long: OverlongPolicy = on_too_long
        self._learned, self._following = learned, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        if call.unlimited:
            sized = Sized([SizedText(text, len(text)) for text in texts])
        else:
            sized = await self.measure(call, texts)
            call = replace(call, exact=sized.exact)
        parts, embedded = sized.parts, Embedded(sized.found)
        may_shorten = self._on_too_long != "error"
        embedded.add(await self._following.embed(call, sized.texts, may_shorten=may_shorten))
        if too_long := embedded.too_long:  # by the provider's count, which exceeds the estimate
            embedded.too_long = []
            call = replace(call, candidates=[self._learned.apply(candidate) for candidate in call.candidates])
            if call.first.limits.input_tokens is None:
                raise TextsRejected(_unknown_limit(too_long, call.first), others_embedded=bool(embedded.charges))
            cut = await self._cut(call, too_long)
            parts |= cut.parts
            embedded.found |= cut.found
            embedded.add(await self._following.embed(call, cut.texts, may_shorten=False))
        if embedded.rejected:
            raise TextsRejected(_of_wholes(embedded.rejected, parts), others_embedded=bool(embedded.found))
        if parts:
            await self._join_parts(call, parts, embedded.found)
        return embedded

    async def measure(self, call: Call, texts: Sequence[str]) -> Sized:
        """Return the texts to be sent, with their tokens.

        Raises:
            TextsTooLong: texts are over the limit by an exact count, and the policy is to refuse such texts.
        """
        limit = input_limit(call.first)
        counts = await self._count(call, texts)
        sized = Sized(list(map(SizedText, texts, counts.tokens)), counts.exact)
        long = [item.text for item in sized.texts if item.tokens > limit]
        if not long or not (counts.exact or call.first.cuts):  # the provider decides about texts that may be too long
            return sized
        if self._on_too_long == "error":
            raise TextsTooLong(long, limit, call.first.name)
        cut = await self._cut(call, long)
        short = {item.text: item for item in sized.texts if item.tokens <= limit}
        pieces = [item for item in cut.texts if item.text not in short]
        return Sized([*short.values(), *pieces], counts.exact, cut.parts, cut.found)

    async def _count(self, call: Call, texts: Sequence[str]) -> TokenCounts:
        return await call.effects.run_blocking(_count, self._backends[call.first.index], texts, call.input_type)

    async def _cut(self, call: Call, texts: Sequence[str]) -> Sized:
        """Split texts over the limit; look up their parts in the cache, and count the tokens of missing parts."""
        limit = input_limit(call.first)
        backend = self._backends[call.first.index]
        parts = await call.effects.run_blocking(_split, backend, texts, call.input_type, limit, self._on_too_long)
        distinct = list(dict.fromkeys(part for pieces in parts.values() for part in pieces))
        found = await self._reader.look_up(call, distinct)
        missing = without(distinct, found)
        counts = await self._count(call, missing)
        sized = [SizedText(text, tokens, is_piece=True) for text, tokens in zip(missing, counts.tokens, strict=True)]
        return Sized(sized, counts.exact, parts, found)

    async def _join_parts(self, call: Call, parts: Mapping[str, Sequence[str]], found: dict[str, Found]) -> None:
        """Add the vectors of split texts to ``found`` and to the cache, last first: parts may be split later.

        Raises:
            TextsRejected: the vectors of a text's parts cancel each other out; the other texts are in the cache.
        """
        entries: dict[bytes, Entry] = {}
        without_mean: dict[str, InputRejectedError] = {}
        policy = policy_tag(self._on_too_long, input_limit(call.first))
        for text, pieces in reversed(list(parts.items())):
            known = [found[piece] for piece in pieces if piece not in without_mean]
            whole = _mean(known, [*map(len, pieces)], self._cache.dtype) if len(known) == len(pieces) else None
            if whole is None:
                without_mean[text] = _cancelled(call.first)
                continue
            key = key_function(whole.origin.candidate, call.input_type, dtype=self._cache.dtype, policy=policy)
            entries[key(text)] = Entry(whole.vector, whole.tokens)
            found[text] = whole
        if self._cache.store is not None:
            await call.effects.run_blocking(self._cache.write, entries)
        if without_mean:
            pieces_of_all = {piece for pieces in parts.values() for piece in pieces}
            raise TextsRejected(without_mean, others_embedded=bool(found.keys() - pieces_of_all))


def _count(backend: Backend, texts: Sequence[str], input_type: InputType) -> TokenCounts:
    return own_counts(backend.count(list(texts), input_type))


def _split(
    backend: Backend, texts: Sequence[str], input_type: InputType, limit: int, policy: OverlongPolicy
) -> dict[str, list[str]]:
    def count(text: str) -> int:
        return backend.count([text], input_type).tokens[0]

    return {text: split_text(text, limit, policy, count) for text in texts}


def _unknown_limit(texts: Sequence[str], candidate: Candidate) -> dict[str, InputRejectedError]:
    story = (
        f"{candidate.name} refuses texts that are too long, and its limit is unknown: set Model(…, max_input_tokens=…)"
    )
    return dict.fromkeys(texts, InputRejectedError(story, model=candidate.name, too_long=True))


def _of_wholes(
    reasons: Mapping[str, InputRejectedError], parts: Mapping[str, Sequence[str]]
) -> dict[str, InputRejectedError]:
    """Add the reasons of whole texts to the reasons of their parts."""
    named = dict(reasons)
    for text, pieces in reversed(list(parts.items())):
        if rejected := [named[piece] for piece in pieces if piece in named]:
            named[text] = rejected[0]
    return named


def _cancelled(candidate: Candidate) -> InputRejectedError:
    story = (
        "the vectors of the text's parts cancel each other out, so their mean is no vector. Split the text, or build "
        "the router with on_too_long='truncate'"
    )
    return InputRejectedError(story, model=candidate.name)


def _mean(found: Sequence[Found], weights: Sequence[int], dtype: str) -> Found | None:
    """Average the parts' vectors, scale the mean to length 1 and round it to ``dtype``; keep the vector of one part.

    Returns:
        ``None`` where the parts cancel each other out: the mean is zero, or no more than the error of its numbers.
    """
    vector = found[0].vector
    if len(found) > 1:
        parts = np.array([item.vector for item in found], np.float64)
        mean = np.average(parts, axis=0, weights=weights)
        length = np.linalg.norm(mean)
        if length <= NOISE * np.linalg.norm(parts, axis=1).max():
            return None
        vector = (mean / length).astype(np.float32).astype(dtype).astype(np.float32)
    origin = Origin(
        candidate=min((item.origin.candidate for item in found), key=lambda candidate: candidate.rank),
        cached=all(item.origin.cached for item in found),
        shortened=True,
    )
    return Found(vector, sum(item.tokens for item in found), origin)
