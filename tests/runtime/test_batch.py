from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor
from salver.runtime.batch import Entry, check_outputs, join_inputs, problem_of


class _Answer:
    def done(self) -> bool:
        return False


def entry(*arrays: np.ndarray[Any, Any]) -> Entry:
    inputs = {f"x{at}": Tensor.from_numpy(f"x{at}", array) for at, array in enumerate(arrays)}
    answer: Any = _Answer()
    return Entry(Request("e", inputs, rows=len(arrays[0])), answer, 0.0, 1)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "<u4", "i8", "f2", "f4", "f8"])
def test_rows_are_joined_in_order_as_they_are(dtype) -> None:
    first, second = np.arange(6).reshape(2, 3).astype(dtype), np.arange(3).reshape(1, 3).astype(dtype)
    joined = join_inputs([entry(first), entry(second)], 3)["x0"]
    np.testing.assert_array_equal(joined, np.concatenate([first, second]))
    assert joined.dtype == first.dtype
    assert not joined.flags.writeable


def test_text_and_bytes_are_joined_in_order() -> None:
    first, second = np.array([["a"], ["ü"]], object), np.array([[b"\xff\x00"]], object)
    joined = join_inputs([entry(first), entry(second)], 3)["x0"]
    assert joined.tolist() == [[b"a"], ["ü".encode()], [b"\xff\x00"]]


@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 2), (4, 2, 0)])
@pytest.mark.parametrize("dtype", ["f4", "O"])
def test_rows_of_nothing_are_still_rows(shape, dtype) -> None:
    assert join_inputs([entry(np.zeros(shape, dtype))], 4)["x0"].shape == shape


def test_without_a_batch_dimension_the_shape_stays() -> None:
    scalar = np.array(2.5, dtype=np.float32)
    request = Request("e", {"s": Tensor.from_numpy("s", scalar), "t": Tensor.from_numpy("t", np.array("x", object))})
    joined = join_inputs([Entry(request, _Answer(), 0.0, 1)], None)  # type: ignore[arg-type]
    assert joined["s"].shape == () == joined["t"].shape
    assert joined["s"] == 2.5


@pytest.mark.parametrize("rows", [2, None])
def test_bytes_at_an_odd_address_reach_the_model_aligned(rows) -> None:
    body = memoryview(b"\x00" + np.array([[1.5], [2.5]], "<f8").tobytes())[1:]
    request = Request("e", {"x": Tensor("x", "FP64", (2, 1), body)}, rows=2)
    joined = join_inputs([Entry(request, _Answer(), 0.0, 1)], rows)["x"]  # type: ignore[arg-type]
    assert joined.flags.aligned
    assert joined.tolist() == [[1.5], [2.5]]


TEXT = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("t", "BYTES", (-1, 1)),))


@pytest.mark.parametrize(
    "array",
    [np.array([["ü"], ["b"]]), np.array([["ü"], ["b"]], object), np.array([["ü".encode()], [b"b"]], object)],
    ids=["text", "objects", "bytes"],
)
def test_text_that_a_model_answers_becomes_bytes(array) -> None:
    checked = check_outputs({"t": array}, TEXT, 2)["t"]
    assert checked.dtype == object
    assert checked.tolist() == [["ü".encode()], [b"b"]]


@pytest.mark.parametrize("element", [None, 1, 2.5, ["nested"], "\ud800"])
def test_what_is_no_text_is_refused_as_the_models_fault(element) -> None:
    array = np.empty((1, 1), object)
    array[0, 0] = element
    with pytest.raises(SalverError, match="output 't' holds no text or bytes") as raised:
        check_outputs({"t": array}, TEXT, 1)
    assert raised.value.code == "BAD_MODEL_OUTPUT"


def test_outputs_in_another_byte_order_or_layout_are_the_same_numbers() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1, 2)),))
    for array in (np.ones((2, 2), ">f4"), np.ones((2, 2), "f4", order="F"), np.ones((2, 4), "f4")[:, ::2]):
        assert check_outputs({"y": array, "unasked": None}, signature, 2).keys() == {"y"}


def test_free_output_dimensions_may_be_anything_and_fixed_ones_may_not() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1, -1, 3)),))
    check_outputs({"y": np.zeros((2, 7, 3), "f4")}, signature, 2)
    for shape in ((2, 7, 2), (3, 7, 3), (2, 3)):
        with pytest.raises(SalverError, match=r"has shape \[.*\], expected \[2, -1, 3\]"):
            check_outputs({"y": np.zeros(shape, "f4")}, signature, 2)


def test_a_problem_is_told_whatever_the_exception_is() -> None:
    class Unspeakable(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert problem_of(ValueError("no")) == "ValueError: no"
    assert problem_of(Unspeakable()) == "Unspeakable: (it does not say)"
    assert problem_of(ValueError("\ud800")) == r"ValueError: \ud800"
    assert len(problem_of(ValueError("x" * 10**6))) == 2000


def test_an_entry_fails_once() -> None:
    async def scenario() -> None:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        one = Entry(Request("e", {}), answer, 0.0, 1)
        assert one.fail(SalverError("INTERNAL", "first"))
        assert not one.fail(SalverError("INTERNAL", "second"))
        assert str(answer.exception()) == "first"

    asyncio.run(scenario())
