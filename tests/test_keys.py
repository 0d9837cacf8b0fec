"""Cache keys: complete, and never the same for two different vectors."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from embedrouter.cache._keys import KEY_BYTES, key_function
from embedrouter.types import Candidate, InputType, Limits, Space

CANDIDATE = Candidate(
    index=0,
    name="x:model",
    tier="high",
    rank=2,
    space=Space("model", 4),
    fingerprint="model 4",
    symmetric=False,
    price=Decimal(0),
    limits=Limits(texts=10),
    concurrency=1,
    timeout=30,
)
parts = st.tuples(
    st.text(max_size=8),
    st.sampled_from(["document", "query"]),
    st.text(max_size=4),
    st.text(max_size=4),
    st.text(max_size=8),
)


def key(fingerprint: str, input_type: InputType, dtype: str, policy: str, text: str) -> bytes:
    return key_function(replace(CANDIDATE, fingerprint=fingerprint), input_type, dtype=dtype, policy=policy)(text)


@given(one=parts, other=parts)
def test_different_parts_never_share_a_key(
    one: tuple[str, InputType, str, str, str], other: tuple[str, InputType, str, str, str]
) -> None:
    """Moving a character from one part to its neighbour must change the key."""
    assert (key(*one) == key(*other)) == (one == other)


def test_keys_have_more_than_128_bits() -> None:
    """Two texts must not meet by accident, nor on purpose."""
    assert len(key("f", "query", "float32", "", "t")) == KEY_BYTES >= 16


def test_a_symmetric_model_shares_one_key_between_documents_and_queries() -> None:
    """Its vectors are the same, so one payment serves both."""
    symmetric = replace(CANDIDATE, symmetric=True)

    assert key_function(symmetric, "document")("t") == key_function(symmetric, "query")("t")
    assert key_function(CANDIDATE, "document")("t") != key_function(CANDIDATE, "query")("t")


def test_neither_place_nor_price_of_a_model_is_in_its_keys() -> None:
    """The same model from Azure, or with a new API key, must find what was paid for."""
    elsewhere = replace(CANDIDATE, name="azure:other", index=3, price=Decimal(9), timeout=1, tier="low", rank=0)

    assert key_function(elsewhere, "document")("t") == key_function(CANDIDATE, "document")("t")


def test_case_and_white_space_of_a_text_count() -> None:
    """Text is never rewritten, so "US" and "us" are two texts."""
    keys = {key_function(CANDIDATE, "query")(text) for text in ("US", "us", "us ", " us", "us\n")}

    assert len(keys) == 5
