"""Checking the texts of a call before anything is sent."""

from __future__ import annotations

import pytest

from embedrouter.calls import chunks, format_positions, validate
from embedrouter.errors import InvalidInputError


def test_one_string_where_a_list_is_wanted_is_refused() -> None:
    """A string is a sequence of strings: it would be embedded, and paid, letter by letter."""
    with pytest.raises(InvalidInputError, match=r"embed\(\[text\]"):
        validate("one text")


@pytest.mark.parametrize("wrong", [7, None, 1.5])
def test_an_input_that_is_no_list_is_refused(wrong: object) -> None:
    """A clear error rather than a TypeError from deep inside."""
    with pytest.raises(InvalidInputError, match="list of strings"):
        validate(wrong)  # type: ignore[arg-type]


def test_the_error_lists_every_index_by_reason() -> None:
    """Among a million chunks the user needs to know which ones to look at."""
    with pytest.raises(InvalidInputError) as caught:
        validate(["a", "", "b", None, "\ud800", "", 3])  # type: ignore[list-item]

    assert caught.value.indices == (1, 3, 4, 5, 6)
    message = str(caught.value)
    assert "empty: 1, 5" in message
    assert "missing (None): 3" in message
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

    assert validate([text for text in chunks if text.strip()]) == ["a", "b"]


def test_texts_are_cut_into_lists_that_are_made_one_at_a_time() -> None:
    """The input may be longer than memory."""
    texts = iter("abcde")
    parts = chunks(texts, 2)
    assert next(parts) == ["a", "b"]
    assert next(texts) == "c"

    assert [*parts] == [["d", "e"]]


def test_positions_in_messages_are_cut_after_twenty() -> None:
    """A message stays readable."""
    assert format_positions([3, 5]) == "3, 5"
    assert format_positions(range(23)).endswith("18, 19 and 3 more")
