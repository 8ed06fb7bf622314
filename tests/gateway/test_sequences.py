from __future__ import annotations

import pytest

from salver.gateway.sequences import read_sequence
from salver.protocol.errors import SalverError
from salver.protocol.request import SequenceStep


@pytest.mark.parametrize(
    ("parameters", "headers", "step"),
    [
        ({"sequence_id": 7}, {}, SequenceStep(7)),
        ({"sequence_id": 2**64 - 1, "sequence_start": True}, {}, SequenceStep(2**64 - 1, start=True)),
        ({"sequence_id": "7", "sequence_end": True, "sequence_start": False}, {}, SequenceStep("7", end=True)),
        ({"sequence_id": "é" * 256}, {}, SequenceStep("é" * 256)),
        ({"sequence_start": True, "sequence_end": True}, {}, SequenceStep(None, start=True, end=True)),
        ({"sequence_id": 0, "sequence_start": True, "sequence_end": True}, {}, SequenceStep(None, True, True)),
        (None, {b"x-salver-sequence-id": b"7"}, SequenceStep("7")),
        (
            {"timeout": 1},
            {b"x-salver-sequence-id": b"a", b"x-salver-sequence-start": b"True", b"x-salver-sequence-end": b"false"},
            SequenceStep("a", start=True),
        ),
        ({"sequence_id": 7, "sequence_start": True}, {b"x-salver-sequence-id": b"a"}, SequenceStep(7, start=True)),
    ],
)
def test_a_step_is_read_from_parameters_or_headers(parameters, headers, step) -> None:
    assert read_sequence(parameters, headers) == step


@pytest.mark.parametrize(
    ("parameters", "headers", "problem"),
    [
        (None, {}, "the request names none; give the parameter sequence_id"),
        ({"sequence_id": 0}, {}, "the request names none"),
        ({"sequence_id": "", "sequence_start": True}, {}, "the request names none"),
        ({"sequence_end": True}, {}, "the request names none"),
        ({"sequence_id": -1}, {}, "sequence_id is -1; give a whole number from 1"),
        ({"sequence_id": 2**64}, {}, "sequence_id is a very large number; give a whole number from 1"),
        ({"sequence_id": 10**5000}, {}, "sequence_id is a very large number"),
        ({"sequence_id": True}, {}, "sequence_id is True; give a whole number or a text"),
        ({"sequence_id": 1.5}, {}, r"sequence_id is 1\.5; give a whole number or a text"),
        ({"sequence_id": "a" * 257}, {}, "give at most 256 characters"),
        ({"sequence_id": 1, "sequence_start": 1}, {}, "sequence_start is 1; give true or false"),
        ({"sequence_id": 1, "sequence_end": "true"}, {}, "sequence_end is 'true'; give true or false"),
        (None, {b"x-salver-sequence-id": b"a", b"x-salver-sequence-start": b"1"}, "sequence_start is b'1'"),
    ],
)
def test_what_is_no_step_is_refused(parameters, headers, problem) -> None:
    with pytest.raises(SalverError, match=problem) as caught:
        read_sequence(parameters, headers)
    assert caught.value.code == "INVALID_PARAMETER"
