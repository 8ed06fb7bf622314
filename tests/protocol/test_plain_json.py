"""JSON of no fixed shape: read strictly, and quickly where nothing is wrong."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.codecs.plain_json import decode_object, decode_value
from salver.protocol.errors import SalverError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_writes_is_read(value: object) -> None:
    assert decode_value(json.dumps(value).encode()) == value
    assert decode_value(json.dumps(value).encode(), tokens=True) == value


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":[1,[2,{"b":1,"b":2}]]}',
        b'[1,{"b":1,"b":2}]',
        b'{"a":{"b":1,"c":":","b":2}}',
        b'{"\\u0061":1,"a":1}',
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(body: bytes, *, tokens: bool) -> None:
    with pytest.raises(SalverError) as refused:
        decode_value(body, tokens=tokens)
    assert refused.value.code == "DUPLICATE_KEY"


def test_colons_in_texts_are_no_members() -> None:
    assert decode_value(b'{"a::":"b:c"}') == {"a::": "b:c"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b'"\xff"',
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"1e400",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"nan",
        b"NaNs",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    for tokens in (False, True):
        with pytest.raises(SalverError) as refused:
            decode_value(body, tokens=tokens)
        assert refused.value.code == "INVALID_JSON"


def test_tokens_of_numbers_that_json_lacks_are_read_where_the_protocol_has_them() -> None:
    body = b'{"a":[NaN,Infinity,-Infinity,2.5]}'
    with pytest.raises(SalverError):
        decode_value(body)
    numbers = decode_value(body, tokens=True)["a"]
    assert math.isnan(numbers[0])
    assert numbers[1:] == [math.inf, -math.inf, 2.5]
    for spoilt in (
        b'[NaN,{"a":1,"a":2}]',
        b"[NaN," + b"[" * 100_000,
        b"[NaN,]",
        b"[NaN,1e999]",
        b"[NaN,1" + b"0" * 400 + b"]",
    ):
        with pytest.raises(SalverError):
            decode_value(spoilt, tokens=True)


def test_an_object_is_asked_for_where_one_is_due() -> None:
    assert decode_object(b'{"a":null}') == {"a": None}
    for body in (b"[]", b"1", b"null", b'"{}"'):
        with pytest.raises(SalverError, match="no object"):
            decode_object(body)
