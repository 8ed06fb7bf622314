from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.request import RequestedOutput
from salver.protocol.signature import Signature, SignatureCheck, TensorSpec
from salver.protocol.tensor import Tensor

OUT = (TensorSpec("y", "FP32", (-1,)),)
TWO = Signature(
    (
        TensorSpec("a", "FP32", (-1, 3)),
        TensorSpec("b", "INT64", (-1, -1, 2)),
        TensorSpec("c", "BYTES", (-1,), optional=True),
    ),
    OUT,
)
WHOLE = Signature((TensorSpec("a", "FP32", (2, -1)),), (TensorSpec("y", "FP32", (1,)),))


def tensors(**shapes: tuple[Any, ...]) -> dict[str, Tensor]:
    return {name: Tensor(name, datatype, tuple(shape), b"") for name, (datatype, *shape) in shapes.items()}


def rows(signature: Signature, **shapes: tuple[Any, ...]) -> int:
    return SignatureCheck(signature).rows(tensors(**shapes))


def test_rows_are_the_common_first_dimension() -> None:
    assert rows(TWO, a=("FP32", 4, 3), b=("INT64", 4, 9, 2)) == 4
    assert rows(TWO, b=("INT64", 1, 0, 2), a=("FP32", 1, 3), c=("BYTES", 1)) == 1


def test_without_a_batch_dimension_a_request_is_one_row() -> None:
    assert not WHOLE.batched
    assert rows(WHOLE, a=("FP32", 2, 7)) == 1
    assert rows(WHOLE, a=("FP32", 2, 0)) == 1


@pytest.mark.parametrize(
    ("signature", "shapes", "code", "says"),
    [
        (TWO, {"a": ("FP32", 1, 3)}, "MISSING_INPUT", "input 'b' is missing; send 'a', 'b'"),
        (TWO, {}, "MISSING_INPUT", "input 'a' is missing"),
        (TWO, {"a": ("FP32", 1, 3), "z": ("FP32", 1)}, "UNKNOWN_INPUT", "no input 'z'; its inputs are 'a', 'b', 'c'"),
        (TWO, {"a": ("FP64", 1, 3)}, "WRONG_DATATYPE", "has datatype FP64; the model takes FP32"),
        (TWO, {"a": ("FP32", 1, 4)}, "WRONG_SHAPE", "shape [1, 4]; the model takes [-1, 3]"),
        (TWO, {"a": ("FP32", 3)}, "WRONG_SHAPE", "shape [3]"),
        (TWO, {"a": ("FP32",)}, "WRONG_SHAPE", "shape []"),
        (TWO, {"a": ("FP32", 1, 1, 3)}, "WRONG_SHAPE", "shape [1, 1, 3]"),
        (
            TWO,
            {"a": ("FP32", 2, 3), "b": ("INT64", 3, 1, 2)},
            "WRONG_SHAPE",
            "'b' has 3 rows where another input has 2",
        ),
        (TWO, {"a": ("FP32", 0, 3), "b": ("INT64", 0, 1, 2)}, "WRONG_SHAPE", "0 rows"),
        (WHOLE, {"a": ("FP32", 3, 7)}, "WRONG_SHAPE", "shape [3, 7]; the model takes [2, -1]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_both_sides(signature, shapes, code, says) -> None:
    with pytest.raises(SalverError) as raised:
        rows(signature, **shapes)
    assert raised.value.code == code
    assert says in str(raised.value)


def test_a_request_with_no_input_at_all_has_no_rows() -> None:
    optional = Signature((TensorSpec("a", "FP32", (-1,), optional=True),), OUT)
    with pytest.raises(SalverError, match="0 rows"):
        rows(optional)


def test_rows_of_one_number_fit_a_signature_of_rank_one() -> None:
    assert rows(Signature((TensorSpec("a", "FP32", (-1,)),), OUT), a=("FP32", 5)) == 5


def test_an_unbatched_scalar_fits() -> None:
    scalar = Signature((TensorSpec("a", "FP32", ()),), (TensorSpec("y", "FP32", ()),))
    assert SignatureCheck(scalar).rows({"a": Tensor.from_numpy("a", np.array(1.0, np.float32))}) == 1


def test_an_unknown_output_is_refused_with_the_known_ones() -> None:
    outputs = (TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "INT64", (-1,)))
    check = SignatureCheck(Signature((TensorSpec("x", "FP32", (-1,)),), outputs))
    with pytest.raises(SalverError, match="no output 'z'; its outputs are 'a', 'b'") as raised:
        check.require_outputs((RequestedOutput("a"), RequestedOutput("z")))
    assert raised.value.code == "UNKNOWN_OUTPUT"
