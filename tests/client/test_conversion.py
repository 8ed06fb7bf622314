from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from salver.protocol.conversion import fit_datatype
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError

NUMBERS = [name for name, kind in DATATYPES.items() if kind.dtype.kind in "iuf" and name != "BF16"]


def refused(value, datatype: str) -> SalverError:
    with pytest.raises(SalverError) as caught:
        fit_datatype("x", value, datatype)
    return caught.value


@pytest.mark.parametrize("datatype", NUMBERS)
def test_small_numbers_become_every_numeric_datatype(datatype):
    for source in (np.array([0, 1, 100], np.int64), np.array([0.0, 1.0, 100.0]), [0, 1, 100], np.uint8([0, 1, 100])):
        fitted = fit_datatype("x", source, datatype)
        assert fitted.dtype == DATATYPES[datatype].dtype
        assert fitted.tolist() == [0, 1, 100]


def test_an_array_of_the_declared_type_is_passed_on_without_a_copy():
    array = np.zeros((2, 3), np.float32)
    assert fit_datatype("x", array, "FP32") is array


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([0.1]), "FP32"),
        (np.array([1e300]), "FP32"),
        (np.array([70000.0], np.float32), "FP16"),
        (np.array([2**24 + 1]), "FP32"),
        (np.array([2**53 + 1]), "FP64"),
        (np.array([2**63 - 1]), "FP64"),
        (np.array([2**64 - 1], np.uint64), "FP64"),
        (np.array([2**63], np.uint64), "INT64"),
        (np.array([-1]), "UINT64"),
        (np.array([-1], np.int8), "UINT8"),
        (np.array([256]), "UINT8"),
        (np.array([0.5]), "INT32"),
        (np.array([np.nan]), "INT32"),
        (np.array([np.inf]), "INT64"),
        (np.array([2.0**63]), "INT64"),
        (np.array([2.0**64]), "UINT64"),
        ([0.5], "INT8"),
        ([128], "INT8"),
        ([float("nan")], "INT8"),
        ([10**400], "FP64"),
        ([1e39], "FP32"),
        (np.array([1.001], np.float32), "BF16"),
    ],
)
def test_a_value_that_would_change_is_refused(value, datatype):
    error = refused(value, datatype)
    assert error.code == "INVALID_VALUE"
    assert "'x'" in error.message


def test_the_refusal_names_the_value_and_how_to_convert_on_purpose():
    error = refused(np.array([[1.0, 0.1]]), "FP32")
    assert "0.1" in error.message
    assert error.remedy == "if the loss is meant, say so: array.astype(numpy.float32)"


@pytest.mark.parametrize(("value", "words"), [(np.nan, "a missing value"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_no_cast_is_offered_for_what_integers_cannot_say(value, words):
    with pytest.raises(SalverError) as caught:
        fit_datatype("age", np.array([1.0, value]), "INT64")
    assert words in caught.value.remedy
    assert "astype" not in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([True]), "FP32"),
        ([True, 2], "INT64"),
        ([1.0, False], "FP64"),
        (["1"], "FP32"),
        (np.array(["1"]), "INT8"),
        (np.array([1]), "BYTES"),
        ([1], "BYTES"),
        ([1, 0], "BOOL"),
        (np.array([1, 0]), "BOOL"),
        (np.array([1j]), "FP64"),
        (np.array(["2020-01-01"], "M8[D]"), "INT64"),
        ([None], "FP32"),
        (np.array([1]), "BF16"),
        ([1], "COMPLEX"),
    ],
)
def test_one_kind_of_value_never_becomes_another(value, datatype):
    assert refused(value, datatype).code == "WRONG_DATATYPE"


@pytest.mark.parametrize("ragged", [[[1.0], [1.0, 2.0]], [[1.0], 2.0], [[[1.0]], [[1.0], [2.0]]]])
def test_ragged_lists_are_refused(ragged):
    assert refused(ragged, "FP32").code == "WRONG_SHAPE"


def test_decimals_in_lists_are_rounded_to_the_nearest_as_in_json():
    assert fit_datatype("x", [[0.1, 0.2]], "FP32").tolist() == np.float32([[0.1, 0.2]]).tolist()


def test_text_and_booleans_keep_what_they_are():
    assert fit_datatype("x", ["a", b"b"], "BYTES").tolist() == ["a", b"b"]
    assert fit_datatype("x", np.array(["é"]), "BYTES").tolist() == ["é"]
    assert fit_datatype("x", [[True], [False]], "BOOL").tolist() == [[True], [False]]


def test_not_a_number_survives_between_floating_types():
    assert np.isnan(fit_datatype("x", np.array([np.nan, np.inf]), "FP32")[0])


def test_bf16_is_the_upper_half_of_the_bits_or_the_bits_themselves():
    assert fit_datatype("x", [1.0, -2.0], "BF16").tolist() == [0x3F80, 0xC000]
    bits = np.array([0x3F80], np.uint16)
    assert fit_datatype("x", bits, "BF16") is bits


def test_other_byte_orders_are_the_same_values():
    assert fit_datatype("x", np.array([1.5], ">f4"), "FP32").tolist() == [1.5]


@example(2**53 + 1, "FP64")
@example(2**63 - 1, "FP64")
@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from(NUMBERS))
def test_an_integer_arrives_exactly_or_not_at_all(value, datatype):
    array = np.array([value], np.int64 if value < 2**63 else np.uint64)
    try:
        fitted = fit_datatype("x", array, datatype)
    except SalverError:
        with np.errstate(all="ignore"):
            converted = array.astype(DATATYPES[datatype].dtype)[0]
        assert not np.isfinite(converted) or int(converted) != value
    else:
        assert int(fitted[0]) == value


@given(st.floats(), st.sampled_from(NUMBERS))
def test_a_float_arrives_exactly_or_not_at_all(value, datatype):
    try:
        fitted = fit_datatype("x", np.array([value]), datatype)
    except SalverError:
        with np.errstate(all="ignore"):
            back = float(np.array([value]).astype(DATATYPES[datatype].dtype)[0])
        kind = DATATYPES[datatype].dtype.kind
        assert back != value or (kind in "iu" and abs(value) >= 2**63)
    else:
        assert fitted[0] == value or (np.isnan(value) and np.isnan(fitted[0]))
