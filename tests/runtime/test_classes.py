from __future__ import annotations

import numpy as np
import pytest

from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor
from salver.runtime.classes import Classes
from salver.testing import FREE_WIDTH, SIGNATURE, make_manifest, make_request


def test_requests_of_one_shape_share_a_class() -> None:
    classes = Classes(make_manifest(signature=FREE_WIDTH))
    assert not classes.uniform
    narrow, wide = make_request([[1, 2]]), make_request([[1, 2, 3]])
    assert classes.of(narrow)[0] == classes.of(make_request([[5, 6], [7, 8]]))[0] != classes.of(wide)[0]


def test_a_signature_of_fixed_shapes_has_one_class_and_an_optional_input_makes_two() -> None:
    assert Classes(make_manifest()).uniform
    optional = Signature((TensorSpec("x", "FP32", (-1, 2), optional=True),), SIGNATURE.outputs)
    classes = Classes(make_manifest(signature=optional))
    assert not classes.uniform
    assert classes.of(make_request([[1, 2]]))[0] != classes.of(Request("arithmetic", {}))[0]


def test_cost_is_the_size_of_the_named_input_or_the_rows() -> None:
    classes = Classes(make_manifest(cost="x"))
    assert classes.costed
    assert classes.cost(make_request([[1, 2], [3, 4]])) == 4
    request = make_request([[1, 2]])
    request.inputs.clear()
    assert classes.cost(request) == 1


PADDED = Signature((TensorSpec("x", "FP32", (-1, -1), pad=0.0),), SIGNATURE.outputs)


def test_with_a_pad_any_two_lengths_share_a_class() -> None:
    classes = Classes(make_manifest(signature=PADDED))
    assert classes.uniform
    assert classes.pads == {"x": 0.0}
    assert classes.of(make_request([[1, 2]]))[0] == classes.of(make_request([[1, 2, 3]]))[0]


def test_with_a_length_only_similar_ones_do_and_the_padded_length_is_the_cost() -> None:
    classes = Classes(make_manifest(signature=PADDED, length="x"))
    found = {width: classes.of(make_request(np.zeros((2, width)))) for width in (3, 16, 17, 24, 25, 100)}
    assert found[3] == found[16] != found[17] == found[24] != found[25]
    assert [cost for _, cost in found.values()] == [32, 32, 48, 48, 64, 256]


@pytest.mark.parametrize(("texts", "cost"), [(["ab"], 16), (["a" * 20], 24), (["a", "b" * 40, "c"], 3 * 48)])
def test_the_length_of_text_is_that_of_its_longest_row(texts: list[str], cost: int) -> None:
    signature = Signature((TensorSpec("text", "BYTES", (-1,)),), SIGNATURE.outputs)
    classes = Classes(make_manifest(signature=signature, length="text"))
    tensor = Tensor.from_numpy("text", np.array(texts, dtype=object))
    assert classes.of(Request("m", {"text": tensor}, rows=len(texts)))[1] == cost
