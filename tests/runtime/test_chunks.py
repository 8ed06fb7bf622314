"""Parts of an answer: joined, and handed through steps."""

from __future__ import annotations

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime import chunks as chunks_module
from salver.runtime.chunks import JoinedChunks, mapped

TEXTS = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("text", "BYTES", (-1, 2)),))


def texts(*rows):
    array = np.empty((len(rows), len(rows[0])), dtype=object)
    array[:] = rows
    return {"text": array}


def test_texts_are_joined_element_by_element():
    joined = JoinedChunks(TEXTS)
    joined.add(texts([b"a", b"b"], [b"c", b"d"]))
    joined.add(texts([b"1", b""], [b"3", b"4"]))
    assert joined.outputs(2)["text"].tolist() == [[b"a1", b"b"], [b"c3", b"d4"]]


def test_without_any_chunk_texts_are_empty():
    assert JoinedChunks(TEXTS).outputs(3)["text"].tolist() == [[b"", b""]] * 3
    alone = Signature(TEXTS.inputs, (TensorSpec("text", "BYTES", (2,)),))
    assert JoinedChunks(alone).outputs(1)["text"].tolist() == [b"", b""]


@pytest.mark.parametrize("output", [TensorSpec("y", "FP32", (-1, 1)), TensorSpec("texts", "BYTES", (-1, -1))])
def test_without_any_chunk_nothing_else_can_be_answered(output):
    with pytest.raises(SalverError, match="before its first chunk"):
        JoinedChunks(Signature(TEXTS.inputs, (*TEXTS.outputs, output))).outputs(1)


def test_texts_whose_shape_changes_cannot_be_joined():
    joined = JoinedChunks(TEXTS)
    joined.add(texts([b"a", b"b"]))
    with pytest.raises(SalverError, match=r"shape \[2, 2\] in one chunk and \[1, 2\] in another"):
        joined.add(texts([b"a", b"b"], [b"c", b"d"]))


def test_an_answer_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(chunks_module, "_MOST_JOINED_BYTES", 10)
    joined = JoinedChunks(TEXTS)
    joined.add(texts([b"12345", b"12345"]))
    with pytest.raises(SalverError, match="more than 10 bytes"):
        joined.add(texts([b"", b"1"]))


def test_closing_what_is_mapped_closes_what_it_comes_from():
    closed = []

    def numbers():
        try:
            yield from ({"x": n} for n in range(10))
        finally:
            closed.append(True)

    doubled = mapped(numbers(), lambda chunk: {"x": 2 * chunk["x"]})
    assert [next(doubled)["x"] for _ in range(3)] == [0, 2, 4]
    doubled.close()
    assert closed == [True]


def test_what_cannot_be_closed_is_not():
    doubled = mapped(iter([{"x": 1}, {"x": 2}]), lambda chunk: chunk)
    next(doubled)
    doubled.close()
