"""Outputs that should be text and are not: the fault of the model, and of one row only."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, RequestedOutput, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite

TEXT = TensorSpec("t", "BYTES", (-1, 2))
SCORE = TensorSpec("s", "FP32", (-1, 1))
WORDS = np.array([["ü".encode(), b"a"], [b"b", b"\xff"], [b"", b"c"]], object)
SCORES = np.array([[1.0], [2.0], [np.nan]], np.float32)


def answer(start: int, stop: int | None, *, batch: BatchOutputs | None = None, **request: Any) -> Any:
    encoder = ResponseEncoder("e", "e", "1.0.0", {"t": TEXT, "s": SCORE}, Nonfinite.ERROR)
    batch = batch or BatchOutputs({"t": WORDS, "s": SCORES})
    body, _ = encoder.encode(Request("e", {}, **request), Response("e", "1.0.0", batch, start, stop))
    return json.loads(body)["outputs"]


def refusal(*rows: Any, **request: Any) -> str:
    with pytest.raises(SalverError) as raised:
        answer(*rows, **request)
    assert raised.value.http == 500, "the client is not to blame"
    return raised.value.code


ONLY_TEXT = (RequestedOutput("t"),)


def test_one_rows_bad_text_is_its_own_failure() -> None:
    batch = BatchOutputs({"t": WORDS, "s": SCORES})
    assert refusal(1, 2, batch=batch) == "BAD_MODEL_OUTPUT"
    assert answer(0, 1, batch=batch)[0]["data"] == ["ü", "a"]
    assert refusal(2, 3, batch=batch) == "NONFINITE_OUTPUT", "each refusal says what is wrong with its own row"


@pytest.mark.parametrize(("start", "stop"), [(1, 2), (0, 2), (1, 3), (0, 3)])
def test_who_has_the_row_among_others_is_refused(start: int, stop: int) -> None:
    assert refusal(start, stop, outputs=ONLY_TEXT) == "BAD_MODEL_OUTPUT"


def test_who_has_it_not_is_answered() -> None:
    for start, stop in ((0, 1), (2, 3)):
        assert answer(start, stop, outputs=ONLY_TEXT)[0]["data"][1] == WORDS[start, 1].decode()
    assert answer(0, 2, outputs=(RequestedOutput("s"),))[0]["data"] == [1.0, 2.0]


def test_without_a_batch_dimension_it_is_refused_too() -> None:
    batch = BatchOutputs({"t": WORDS[1], "s": SCORES[0]})
    assert refusal(0, None, batch=batch) == "BAD_MODEL_OUTPUT"


def test_the_refusal_names_the_output_and_says_how_to_get_the_bytes() -> None:
    with pytest.raises(SalverError, match="output 't' is not UTF-8 text") as raised:
        answer(1, 2)
    assert raised.value.remedy == "ask for binary data"
