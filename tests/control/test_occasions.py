from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.control.occasions import request_id, why_header, why_said
from salver.protocol.errors import SalverError
from salver.protocol.reasons import checked_why


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=100))
def test_a_reason_travels_as_ascii_and_arrives_as_it_was(why: str) -> None:
    assert why_header(why).isascii()
    assert why_said(why_header(why)) == why


@pytest.mark.parametrize(
    ("header", "problem"),
    [("%ff", "not UTF-8"), ("a%0Ab", "control characters"), ("%1b[2J", "control characters"), ("x" * 1001, "1001")],
)
def test_what_can_be_no_reason_is_refused(header: str, problem: str) -> None:
    with pytest.raises(SalverError, match=problem) as refused:
        why_said(header)
    assert refused.value.code == "INVALID_PARAMETER"


def test_a_reason_is_a_thousand_characters_whatever_their_bytes() -> None:
    assert checked_why(f" {'ü' * 1000} ") == "ü" * 1000


@pytest.mark.parametrize("given_id", ["", "x" * 129, "a\tb", "ü"])
def test_an_id_that_cannot_be_one_is_replaced(given_id: str) -> None:
    assert request_id(given_id) != request_id(given_id)
    assert len(request_id(given_id)) == 32


def test_an_id_is_kept() -> None:
    assert request_id("x" * 128) == "x" * 128
