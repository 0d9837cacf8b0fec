"""Packing texts into requests within the limits of a provider."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from embedrouter.calls import pack
from embedrouter.types import Limits

sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 200)), max_size=60)
limits = st.builds(
    Limits,
    texts=st.integers(1, 10),
    tokens=st.none() | st.integers(1, 120),
    size=st.none() | st.integers(1, 500),
)


@given(sizes=sizes, limits=limits)
def test_packing_keeps_every_text_once_and_in_order(sizes: list[tuple[int, int]], limits: Limits) -> None:
    """A lost or doubled text would shift vectors onto other texts."""
    requests = pack([tokens for tokens, _ in sizes], [size for _, size in sizes], limits)

    assert [index for request in requests for index in range(len(sizes))[request]] == list(range(len(sizes)))
    assert all(request.stop > request.start for request in requests)


@given(sizes=sizes, limits=limits)
def test_no_request_passes_a_limit_unless_one_text_alone_does(sizes: list[tuple[int, int]], limits: Limits) -> None:
    """Providers refuse the whole request when it is over by one token."""
    for request in pack([tokens for tokens, _ in sizes], [size for _, size in sizes], limits):
        inside = sizes[request]
        assert len(inside) <= limits.texts
        if len(inside) > 1:
            assert limits.tokens is None or sum(tokens for tokens, _ in inside) <= limits.tokens
            assert limits.size is None or sum(size for _, size in inside) <= limits.size


@given(sizes=sizes, limits=limits)
def test_packing_is_greedy(sizes: list[tuple[int, int]], limits: Limits) -> None:
    """Two neighbouring requests could not have been one: fewer requests, fewer round trips."""
    requests = pack([tokens for tokens, _ in sizes], [size for _, size in sizes], limits)
    for request, following in pairwise(requests):
        joined = sizes[request.start : following.start + 1]
        assert (
            len(joined) > limits.texts
            or (limits.tokens is not None and sum(tokens for tokens, _ in joined) > limits.tokens)
            or (limits.size is not None and sum(size for _, size in joined) > limits.size)
        )
