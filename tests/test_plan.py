"""Checking texts and packing them into requests."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter.calls import pack, validate
from embedrouter.errors import InvalidInputError
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


def test_one_string_where_a_list_is_wanted_is_refused() -> None:
    """A string is a sequence of strings: it would be embedded, and paid, letter by letter."""
    with pytest.raises(InvalidInputError, match=r"embed\(\[text\]"):
        validate("one text")


@pytest.mark.parametrize("wrong", [7, None, 1.5])
def test_what_is_no_sequence_is_refused(wrong: object) -> None:
    """A clear error rather than a TypeError from deep inside."""
    with pytest.raises(InvalidInputError, match="list of strings"):
        validate(wrong)  # type: ignore[arg-type]


def test_the_error_lists_every_index_by_reason() -> None:
    """Whoever has a million chunks needs to know which ones to look at."""
    with pytest.raises(InvalidInputError) as caught:
        validate(["a", "", "b", None, "\ud800", "", 3])  # type: ignore[list-item]

    assert caught.value.indices == (1, 3, 4, 5, 6)
    message = str(caught.value)
    assert "empty: 1, 5" in message
    assert "NoneType: 3" in message
    assert "int: 6" in message
    assert "lone surrogate" in message


def test_a_long_list_of_indices_is_shortened_in_the_message_only() -> None:
    """The attribute is the interface, the message is for people."""
    with pytest.raises(InvalidInputError, match="and 80 more") as caught:
        validate([""] * 100)

    assert caught.value.indices == tuple(range(100))


def test_bad_input_can_be_caught_as_value_error() -> None:
    """Framework users catch ValueError."""
    with pytest.raises(ValueError, match="empty"):
        validate([""])


@pytest.mark.parametrize("text", [" ", "\n", "\x00", "<|endoftext|>", "🎉", "x" * 1_000_000, "١٢٣", "a\u0301"])
def test_unusual_but_valid_texts_pass_unchanged(text: str) -> None:
    """Text is never rewritten."""
    assert validate([text]) == [text]


def test_a_generator_is_read_once_into_a_list() -> None:
    """Chunks often come from a generator."""
    assert validate(text for text in ("a", "b")) == ["a", "b"]


def test_the_line_that_filters_empty_chunks_helps() -> None:
    """The message's advice must work."""
    chunks = ["a", "", "b"]

    assert validate([text for text in chunks if text]) == ["a", "b"]
