from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.protocol.datatypes import DATATYPES, datatype_of
from salver.protocol.errors import SalverError
from salver.protocol.tensor import (
    Tensor,
    check_shape,
    pack_bytes_elements,
    unpack_bytes_elements,
)

NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BF16")]
EDGES = {
    "BOOL": [True, False],
    **{
        name: [np.iinfo(DATATYPES[name].dtype).min, np.iinfo(DATATYPES[name].dtype).max]
        for name in NUMERIC
        if "INT" in name
    },
    **{name: [np.nan, np.inf, -np.inf, -0.0, 1e-7] for name in NUMERIC if name.startswith("FP")},
}


@pytest.mark.parametrize("name", NUMERIC)
def test_every_numeric_datatype_comes_back_bit_for_bit(name: str) -> None:
    array = np.array([EDGES[name]], DATATYPES[name].dtype)
    tensor = Tensor.from_numpy("x", array)
    assert (tensor.datatype, tensor.shape, tensor.size) == (name, array.shape, array.size)
    assert tensor.numpy().tobytes() == array.tobytes()
    assert tensor.numpy().dtype == array.dtype
    assert not tensor.numpy().flags.writeable


def test_bfloat16_travels_as_its_bits() -> None:
    tensor = Tensor("x", "BF16", (2,), struct.pack("<2H", 0x3F80, 0xC000))
    assert tensor.numpy().tolist() == [0x3F80, 0xC000]


@given(st.lists(st.one_of(st.binary(), st.text()), min_size=1))
def test_byte_strings_come_back_and_text_as_utf8(elements: list[Any]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    found = Tensor.from_numpy("x", array.reshape(-1, 1)).numpy()
    assert found.shape == (len(elements), 1)
    assert found.reshape(-1).tolist() == [one.encode() if isinstance(one, str) else one for one in elements]


@given(hnp.arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_shape_comes_back(array: np.ndarray[Any, Any]) -> None:
    found = Tensor.from_numpy("x", array).numpy()
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_layout_and_byte_order_do_not_change_the_numbers() -> None:
    array = np.arange(6).reshape(2, 3)
    for same in (array.astype(">i8"), np.asfortranarray(array), np.arange(12).reshape(2, 6)[:, ::2] // 2):
        assert Tensor.from_numpy("x", same).numpy().tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "m8[s]", "f16", "V4"])
def test_types_without_a_datatype_are_refused(dtype: str) -> None:
    array = np.zeros(1, dtype)
    assert datatype_of(array) is None
    with pytest.raises(SalverError, match="cannot carry") as raised:
        Tensor.from_numpy("x", array)
    assert raised.value.code == "WRONG_DATATYPE"


@pytest.mark.parametrize("element", [None, 1, 2.5, "\ud800"])
def test_objects_that_are_no_text_are_refused(element: object) -> None:
    array = np.empty(1, object)
    array[0] = element
    with pytest.raises(SalverError, match="holds no text or bytes"):
        Tensor.from_numpy("x", array)


def test_the_names_numpy_has_for_one_type_are_one_datatype() -> None:
    assert {datatype_of(np.zeros(1, kind)) for kind in ("q", "l", "<i8", ">i8")} == {"INT64"}
    assert {datatype_of(np.array(["a"])), datatype_of(np.array([b"a"])), datatype_of(np.array([1], object))} == {
        "BYTES"
    }


@pytest.mark.parametrize(
    ("shape", "size"), [([], 1), ([0], 0), ([3, 0, 5], 0), ([2, 3, 4], 24), ([1] * 16, 1), ([100], 100)]
)
def test_the_size_of_a_possible_shape(shape: list[int], size: int) -> None:
    assert check_shape("x", shape, 100) == size


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([1] * 17, "rank 17"),
        ([-1], "dimension -1"),
        ([2, -3, 0], "dimension -3"),
        ([101], "dimension 101; it may be 0 to 100"),
        ([2, 51], "has 102 elements; at most 100"),
        ([2**62, 4], f"dimension {2**62}"),
        ([2**32, 2**32 + 1], "dimension 4294967296"),  # a product that wraps to something small in C
        ([0, 2**63], f"dimension {2**63}"),
        ([10**4000] * 16, "dimension about 2**13288"),
        ([-(10**4000)], "dimension about -2**13288"),
    ],
)
def test_impossible_shapes_are_refused_in_short_words(shape: list[int], says: str) -> None:
    with pytest.raises(SalverError) as raised:
        check_shape("x", shape, 100)
    assert raised.value.code == "INVALID_TENSOR"
    assert says in raised.value.message
    assert len(raised.value.message) < 200


GOOD = pack_bytes_elements([b"ab", b"", b"c"])


@pytest.mark.parametrize(
    ("data", "count", "says"),
    [
        (GOOD[:-1], 3, "claims 1 bytes; 0 are left"),
        (GOOD[:3], 3, "ends inside the length of element 0"),
        (GOOD + b"\x00", 3, "ends inside the length of element 3"),
        (GOOD, 2, "more than 2 elements; its shape needs 2"),
        (GOOD, 4, "holds 3 elements; its shape needs 4"),
        (b"\xff\xff\xff\xff", 1, "claims 4294967295 bytes; 0 are left"),
        (b"", 1, "holds 0 elements"),
    ],
)
def test_lies_about_the_length_of_byte_strings_are_seen(data: bytes, count: int, says: str) -> None:
    for form in (data, memoryview(data)):
        with pytest.raises(SalverError, match=f"input 'x'.*{says}|{says}") as raised:
            unpack_bytes_elements(form, count, "x")
        assert raised.value.code == "INVALID_TENSOR"


def test_a_claim_of_many_elements_allocates_none() -> None:
    with pytest.raises(SalverError):
        unpack_bytes_elements(b"\x00" * 400, 10**12, "x")
