from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, RequestedOutput, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite
from salver.protocol.tensor import unpack_bytes_elements

IN_JSON = [name for name in DATATYPES if DATATYPES[name].json_type is not None]


class Answers:
    """One batch of a version, and what its requests are answered."""

    def __init__(
        self,
        arrays: dict[str, tuple[str, np.ndarray[Any, Any]]],
        *,
        nonfinite: Nonfinite = Nonfinite.ERROR,
        labels: tuple[str, ...] = (),
        endpoint: str = "e",
        model: str = "e",
    ) -> None:
        self.arrays = {name: array for name, (_, array) in arrays.items()}
        specs = {name: TensorSpec(name, datatype, (-1,), labels=labels) for name, (datatype, _) in arrays.items()}
        self.encoder = ResponseEncoder(endpoint, model, "1.0.0", specs, nonfinite)
        self.batch = BatchOutputs(self.arrays)
        self.model = model

    def raw(self, start: int = 0, stop: int | None = 1, *, warnings: tuple[str, ...] = (), **request: Any) -> Any:
        response = Response(self.model, "1.0.0", self.batch, start, stop, warnings)
        return self.encoder.encode(Request("e", {}, **request), response)

    def json(self, start: int = 0, stop: int | None = 1, **request: Any) -> Any:
        body, json_bytes = self.raw(start, stop, **request)
        assert json_bytes is None
        return json.loads(body)

    def binary(self, start: int = 0, stop: int | None = 1, **request: Any) -> tuple[Any, bytes]:
        body, json_bytes = self.raw(start, stop, **request)
        assert json_bytes is not None
        return json.loads(body[:json_bytes]), body[json_bytes:]


def named(*names: str, **how: Any) -> tuple[RequestedOutput, ...]:
    return tuple(RequestedOutput(name, **how) for name in names)


VALUES: dict[str, Any] = {
    "BOOL": [[True, False], [False, False], [True, True]],
    **{
        name: [[np.iinfo(DATATYPES[name].dtype).min, np.iinfo(DATATYPES[name].dtype).max], [0, 1], [2, 3]]
        for name in DATATYPES
        if "INT" in name
    },
    "FP32": [[0.1, -1e38], [1e-45, -0.0], [3.0, 16777216.0]],
    "FP64": [[0.1, -1e308], [5e-324, -0.0], [3.0, 1e22]],
    "BYTES": [[b"", "ü".encode()], [b'"],[', b"\\"], [b",", b"\x00"]],
}


def array_of(datatype: str) -> np.ndarray[Any, Any]:
    return np.array(VALUES[datatype], dtype=DATATYPES[datatype].dtype)


@pytest.mark.parametrize("datatype", IN_JSON)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)])
def test_json_holds_exactly_the_numbers_of_the_requests_rows(datatype: str, start: int, stop: int) -> None:
    array = array_of(datatype)
    (output,) = Answers({"y": (datatype, array)}).json(start, stop)["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype, [stop - start, 2])
    found: Any = output["data"]
    if datatype == "BYTES":
        found = [element.encode() for element in found]
    assert np.array(found, dtype=array.dtype).tolist() == array[start:stop].reshape(-1).tolist()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_binary_holds_exactly_the_bits(datatype: str) -> None:
    array = np.arange(6, dtype="<u2").reshape(3, 2).view("<f2") if datatype == "FP16" else None
    array = np.arange(6, dtype="<u2").reshape(3, 2) if datatype == "BF16" else array
    array = array_of(datatype) if array is None else array
    answers = Answers({"y": (datatype, array)})
    head, tail = answers.binary(1, 3, parameters={"binary_data_output": True})
    (output,) = head["outputs"]
    assert output["parameters"] == {"binary_data_size": len(tail)}
    assert "data" not in output
    if datatype == "BYTES":
        assert unpack_bytes_elements(tail, 4, "y") == array[1:].reshape(-1).tolist()
    else:
        assert tail == array[1:].tobytes()


def test_binary_bits_of_nan_pass() -> None:
    array = np.array([[np.nan, np.inf]], np.float32)
    assert Answers({"y": ("FP32", array)}).binary(outputs=named("y", binary=True))[1] == array.tobytes()


@given(hnp.arrays(st.sampled_from(["<f4", "<f8"]), st.tuples(st.integers(1, 5), st.integers(0, 3))), st.data())
def test_any_rows_of_any_batch_are_its_own(array: np.ndarray[Any, Any], data: Any) -> None:
    start = data.draw(st.integers(0, len(array) - 1))
    stop = data.draw(st.integers(start + 1, len(array)))
    datatype = "FP32" if array.itemsize == 4 else "FP64"
    answers = Answers({"y": (datatype, array)}, nonfinite=Nonfinite.PASS)
    found = np.array(answers.json(start, stop)["outputs"][0]["data"], array.dtype).reshape(stop - start, -1)
    np.testing.assert_array_equal(found, array[start:stop])


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3), (2, 3, 2), (2, 0), (2, 0, 4), (2, 1, 1)])
@pytest.mark.parametrize("datatype", ["FP32", "INT8", "BOOL", "BYTES"])
def test_outputs_of_every_shape(shape: tuple[int, ...], datatype: str) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(DATATYPES[datatype].dtype)
    if datatype == "BYTES":
        array = np.array([b"%d" % one for one in range(array.size)], object).reshape(shape)
    answers = Answers({"y": (datatype, array)})
    for start, stop in ((0, 1), (1, 2), (0, 2)):
        (output,) = answers.json(start, stop)["outputs"]
        assert output["shape"] == [stop - start, *shape[1:]]
        assert len(output["data"]) == array[start:stop].size


@pytest.mark.parametrize(
    "array", [np.array(2.5, np.float32), np.ones((2, 2), np.float32), np.zeros((0, 3), np.float32)]
)
def test_without_a_batch_dimension_the_whole_array_is_the_answer(array: np.ndarray[Any, Any]) -> None:
    answers = Answers({"y": ("FP32", array)})
    (output,) = answers.json(0, None)["outputs"]
    assert output["shape"] == list(array.shape)
    assert output["data"] == array.reshape(-1).tolist()


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_json_cannot_carry_says_how_to_get_it(datatype: str) -> None:
    answers = Answers({"y": (datatype, np.zeros((1, 2), "<u2"))})
    with pytest.raises(SalverError, match="ask for binary data") as raised:
        answers.raw()
    assert raised.value.code == "WRONG_DATATYPE"


def test_bytes_that_are_no_text_say_how_to_get_them() -> None:
    answers = Answers({"y": ("BYTES", np.array([[b"\xff"]], object))})
    with pytest.raises(SalverError, match="not UTF-8 text"):
        answers.raw()
    assert answers.binary(outputs=named("y", binary=True))[1] == b"\x01\0\0\0\xff"


# NaN.


MIXED = np.array([[1.0, 2.0], [np.nan, 3.0], [4.0, -np.inf], [5.0, 6.0]], np.float32)


@pytest.mark.parametrize("policy", Nonfinite)
def test_a_batch_mates_nan_never_affects_a_finite_answer(policy: Nonfinite) -> None:
    answers = Answers({"y": ("FP32", MIXED)}, nonfinite=policy)
    for row in (0, 3):
        assert answers.json(row, row + 1)["outputs"][0]["data"] == MIXED[row].tolist()


@pytest.mark.parametrize(("start", "stop"), [(1, 2), (2, 3), (0, 2), (0, 4)])
def test_by_default_nan_is_an_error_of_its_own_request(start: int, stop: int) -> None:
    answers = Answers({"y": ("FP32", MIXED), "z": ("FP32", np.ones((4, 1), np.float32))})
    with pytest.raises(SalverError, match="NaN or infinity") as raised:
        answers.raw(start, stop)
    assert raised.value.code == "NONFINITE_OUTPUT"
    assert answers.json(start, stop, outputs=named("z"))["outputs"][0]["data"] == [1.0] * (stop - start)


def test_null_and_pass_write_what_they_say() -> None:
    null = Answers({"y": ("FP32", MIXED)}, nonfinite=Nonfinite.NULL)
    assert null.json(1, 3)["outputs"][0]["data"] == [None, 3.0, 4.0, None]
    passed, _ = Answers({"y": ("FP32", MIXED)}, nonfinite=Nonfinite.PASS).raw(1, 3)
    assert b'"data":[NaN,3.0,4.0,-Infinity]' in passed


@pytest.mark.parametrize("policy", Nonfinite)
def test_without_a_batch_dimension_nan_follows_the_policy_too(policy: Nonfinite) -> None:
    answers = Answers({"y": ("FP64", np.array([1.0, np.nan]))}, nonfinite=policy)
    if policy is Nonfinite.ERROR:
        with pytest.raises(SalverError):
            answers.raw(0, None)
    else:
        assert answers.raw(0, None)[0].endswith(b"[1.0,null]}]}" if policy is Nonfinite.NULL else b"[1.0,NaN]}]}")


# Which outputs, and how.


TWO = {"a": ("FP32", np.array([[1.0], [2.0]], np.float32)), "b": ("INT64", np.array([[3], [4]]))}


def test_only_requested_outputs_come_in_the_order_asked() -> None:
    answers = Answers(TWO)
    assert [one["name"] for one in answers.json()["outputs"]] == ["a", "b"]
    assert [one["name"] for one in answers.json(outputs=named("b", "a"))["outputs"]] == ["b", "a"]
    assert [one["name"] for one in answers.json(outputs=named("b"))["outputs"]] == ["b"]


def test_binary_and_json_mix_and_the_output_decides_over_the_request() -> None:
    answers = Answers(TWO)
    wanted = (RequestedOutput("a", binary=True), RequestedOutput("b"))
    head, tail = answers.binary(1, 2, outputs=wanted)
    assert head["outputs"][1]["data"] == [4]
    assert tail == struct.pack("<f", 2)
    wanted = (RequestedOutput("a", binary=False), RequestedOutput("b"))
    head, tail = answers.binary(1, 2, outputs=wanted, parameters={"binary_data_output": True})
    assert head["outputs"][0]["data"] == [2.0]
    assert tail == struct.pack("<q", 4)
    assert answers.raw(outputs=named("a", binary=False), parameters={"binary_data_output": True})[1] is None


def test_binary_tensors_follow_in_the_order_of_the_outputs() -> None:
    head, tail = Answers(TWO).binary(0, 2, outputs=named("b", "a", binary=True))
    assert [one["parameters"]["binary_data_size"] for one in head["outputs"]] == [16, 8]
    assert tail == struct.pack("<2q2f", 3, 4, 1, 2)


# Classification.


def classes(answers: Answers, k: int, stop: int = 1) -> tuple[list[int], list[str]]:
    (output,) = answers.json(0, stop, outputs=named("y", classification=k))["outputs"]
    assert output["datatype"] == "BYTES"
    return output["shape"], output["data"]


def test_the_largest_classes_come_with_index_and_label() -> None:
    answers = Answers({"y": ("FP32", np.array([[0.25, 0.5, 0.125]], np.float32))}, labels=("cat", "dög", "a:b"))
    assert classes(answers, 2) == ([1, 2], ["0.500000:1:dög", "0.250000:0:cat"])
    assert classes(answers, 99) == ([1, 3], ["0.500000:1:dög", "0.250000:0:cat", "0.125000:2:a:b"])


def test_equal_scores_come_in_the_order_of_their_index() -> None:
    for array in (np.array([[1, 2, 2, 1]], np.uint8), np.array([[1, 2, 2, 1]], np.float32)):
        answers = Answers({"y": ("UINT8" if array.dtype == np.uint8 else "FP32", array)})
        assert [one.split(":")[1] for one in classes(answers, 4)[1]] == ["1", "2", "0", "3"]


def test_integers_are_compared_exactly() -> None:
    high = np.array([[2**63 - 2, 2**63 - 1, -(2**63)]], np.int64)
    assert classes(Answers({"y": ("INT64", high)}), 3)[1] == [f"{2**63 - 1}:1", f"{2**63 - 2}:0", f"{-(2**63)}:2"]
    unsigned = np.array([[2**64 - 2, 2**64 - 1, 0]], np.uint64)
    assert classes(Answers({"y": ("UINT64", unsigned)}), 2)[1] == [f"{2**64 - 1}:1", f"{2**64 - 2}:0"]


def test_booleans_and_half_floats_have_an_order_too() -> None:
    assert classes(Answers({"y": ("BOOL", np.array([[False, True]]))}), 1)[1] == ["True:1"]
    assert classes(Answers({"y": ("FP16", np.array([[-2, 1]], np.float16))}), 2)[1] == ["1.000000:1", "-2.000000:0"]
    bits = np.array([[0xC000, 0x3F80]], np.uint16)  # -2 and 1
    assert classes(Answers({"y": ("BF16", bits)}), 2)[1] == ["1.000000:1", "-2.000000:0"]


def test_labels_that_are_missing_are_left_out() -> None:
    answers = Answers({"y": ("FP32", np.array([[1, 2]], np.float32))}, labels=("only",))
    assert classes(answers, 2)[1] == ["2.000000:1", "1.000000:0:only"]


def test_each_row_is_classified_on_its_own() -> None:
    scores = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
    assert classes(Answers({"y": ("FP32", scores)}), 1, stop=2) == ([2, 1], ["3.000000:2", "3.000000:0"])


def test_classes_come_in_binary_too() -> None:
    answers = Answers({"y": ("FP32", np.array([[1, 2]], np.float32))})
    head, tail = answers.binary(outputs=named("y", classification=1, binary=True))
    assert head["outputs"][0]["datatype"] == "BYTES"
    assert unpack_bytes_elements(tail, 1, "y") == [b"2.000000:1"]


def test_scores_that_are_no_numbers_have_no_classes() -> None:
    with pytest.raises(SalverError, match="no scores"):
        classes(Answers({"y": ("BYTES", np.array([[b"a"]], object))}), 1)
    with pytest.raises(SalverError, match="NaN"):
        classes(Answers({"y": ("FP32", np.array([[np.nan, 1]], np.float32))}), 1)
    answers = Answers({"y": ("FP32", np.array([[np.nan, 1]], np.float32))}, nonfinite=Nonfinite.NULL)
    assert classes(answers, 2)[1] == ["1.000000:1", "nan:0"]


# The head.


@pytest.mark.parametrize("text", ['a"b', "ü", "\\", "\n", "", "{}", "%d", "</script>", "x" * 1000])
def test_ids_come_back_as_they_were(text: str) -> None:
    found = Answers(TWO).json(id=text)
    assert (found["id"], found["model_name"], found["model_version"]) == (text, "e", "1.0.0")
    assert "id" not in Answers(TWO).json()


@pytest.mark.parametrize("name", ['a"b', "ü", "100%", "%d", "%b%s%%", "a,b", "],["])
def test_names_of_outputs_may_be_anything_printable(name: str) -> None:
    answers = Answers({name: ("FP32", np.array([[1.0], [2.0]], np.float32))})
    for start, stop in ((0, 1), (1, 2), (0, 2)):
        (output,) = answers.json(start, stop)["outputs"]
        assert output["name"] == name
        assert output["data"] == [1.0, 2.0][start:stop]


def test_the_models_name_is_told_where_it_differs_and_warnings_too() -> None:
    assert "parameters" not in Answers(TWO).json()
    found = Answers(TWO, model="other").json(warnings=("one; yet one", 'two "quoted"\nlines'))
    assert found["parameters"] == {"salver_model": "other", "salver_warnings": 'one; yet one\ntwo "quoted" lines'}
    assert found["model_name"] == "e"


def test_an_answer_is_the_same_whoever_asked_first() -> None:
    for order in ([(0, 1), (0, 2)], [(0, 2), (0, 1)]):
        answers = Answers(TWO)
        found = {rows: answers.raw(*rows)[0] for rows in order}
        assert found == {(0, 1): Answers(TWO).raw(0, 1)[0], (0, 2): Answers(TWO).raw(0, 2)[0]}
