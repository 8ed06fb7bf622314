from __future__ import annotations

import numpy as np
import pytest

from salver.client.parts import cut_request, in_parts, join_answers
from salver.client.prediction import Prediction, join_predictions
from salver.protocol.errors import SalverError


def test_parts_follow_one_another_and_cover_all_rows():
    assert in_parts(7, 3, lambda start, stop: (start, stop)) == [(0, (0, 3)), (3, (3, 6)), (6, (6, 7))]


def test_parts_are_halved_when_the_endpoint_takes_fewer_than_it_said():
    refused = []

    def ask(start, stop):
        if stop - start > 3:
            refused.append(stop - start)
            raise SalverError("TOO_MANY_ROWS", "too many")
        return stop - start

    assert in_parts(10, 8, ask) == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 2)]
    assert refused == [8, 4]


def test_what_else_is_refused_ends_it_and_so_does_a_single_row_that_is_too_much():
    asked = []

    def ask(start, stop):
        asked.append((start, stop))
        raise SalverError(code, "no")

    for code, times in (("QUEUE_FULL", 1), ("TOO_MANY_ROWS", 3)):
        asked.clear()
        with pytest.raises(SalverError) as caught:
            in_parts(4, 4, ask)
        assert (caught.value.code, len(asked)) == (code, times)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2], [3, 4], [5, 6]]])
def test_a_request_is_cut_whether_its_data_are_flat_or_nested(data):
    request = {"id": "x", "inputs": [{"name": "a", "shape": [3, 2], "datatype": "INT32", "data": data}]}
    cut = cut_request(request, 1, 3)
    assert cut["id"] == "x"
    assert cut["inputs"][0]["shape"] == [2, 2]
    assert np.ravel(cut["inputs"][0]["data"]).tolist() == [3, 4, 5, 6]


def answer(data, version="1.0.0", **parameters):
    output = {"name": "y", "datatype": "FP32", "shape": [len(data) // 2, 2], "data": data}
    return {"model_name": "e", "model_version": version, "outputs": [output], "parameters": parameters}


def test_answers_are_joined_and_warnings_say_which_rows_they_are_about():
    joined = join_answers(
        "e", [(0, answer([1, 2, 3, 4], salver_model="m", salver_warnings="one; two")), (2, answer([5, 6]))]
    )
    assert joined["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [3, 2], "data": [1, 2, 3, 4, 5, 6]}]
    assert joined["parameters"] == {"salver_model": "m", "salver_warnings": "rows 0-1: one; two"}


def test_an_answer_never_mixes_versions():
    with pytest.raises(SalverError, match=r"from version 1\.0\.0 to 2\.0\.0") as caught:
        join_answers("e", [(0, answer([1, 2])), (1, answer([1, 2], "2.0.0"))])
    assert caught.value.code == "CONFLICT"
    parts = [
        (n, Prediction({"y": np.zeros(1)}, endpoint="e", model_version=f"{n}.0.0", request_id="", warnings=()))
        for n in (1, 2)
    ]
    with pytest.raises(SalverError) as caught:
        join_predictions(parts)
    assert caught.value.code == "CONFLICT"
