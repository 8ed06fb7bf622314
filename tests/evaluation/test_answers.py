"""Rows that a version refuses are found one by one, and the others keep their answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import made_subject

from salver.evaluation.subject.answers import ask_each
from salver.protocol.errors import SalverError


def refusing(code: str, bad: set[float]):
    def model(rows):
        if bad & set(rows.column("x").tolist()):
            raise SalverError(code, "no")
        return np.clip(rows.numbers("x") / 100, 0, 1)

    return model


@settings(max_examples=40, deadline=None)
@given(bad=st.sets(st.integers(0, 49)))
def test_exactly_the_bad_rows_are_refused_and_the_others_answered(bad: set[int]) -> None:
    allowed = made_subject(
        {"x": np.array([60.0, 70.0])}, [0, 1], refusing("MODEL_ERROR", {float(each) for each in bad})
    )
    rows = allowed.rows.take(np.zeros(50, dtype=int)).replaced(x=np.arange(50.0))
    found = ask_each(allowed, rows)
    assert set(np.flatnonzero(found.refused)) == bad
    assert found.predictions.labels is not None
    assert found.predictions.probabilities is not None
    assert set(np.flatnonzero(found.predictions.labels == -1)) == bad
    good = ~found.refused
    np.testing.assert_allclose(found.predictions.probabilities[good, 1], np.arange(50)[good] / 100)


def test_a_fault_that_is_none_of_the_row_is_raised() -> None:
    down = made_subject({"x": np.array([1.0, 2.0])}, [0, 1], refusing("WORKER_LOST", {50.0}))
    with pytest.raises(SalverError) as raised:
        ask_each(down, down.rows.replaced(x=np.array([50.0, 1.0])))
    assert raised.value.code == "WORKER_LOST"
