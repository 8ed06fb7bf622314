from __future__ import annotations

import msgspec
import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.frames import (
    PREFIX,
    ArrayEntry,
    ArrayHeader,
    FrameKind,
    describe_arrays,
    pack_frame,
    read_arrays,
)

ARRAYS = {
    "odd": np.array([True, False, True]),
    "doubles": np.array([[1.5, np.nan], [np.inf, -0.0]]),
    "text": np.array(["ü", "b"]),
    "bytes": np.array([[b"\xff"], [b""]], object),
    "nothing": np.zeros((2, 0), np.float32),
    "scalar": np.array(7, np.int16),
    "foreign": np.array([1, 2], ">i4"),
}


def test_arrays_come_back_as_they_were() -> None:
    entries, parts = describe_arrays(ARRAYS)
    header = msgspec.msgpack.decode(msgspec.msgpack.encode(ArrayHeader(7, entries)), type=ArrayHeader)
    found = read_arrays(header.arrays, b"".join(parts))
    assert found.keys() == ARRAYS.keys()
    for name in ("odd", "doubles", "nothing", "scalar", "foreign"):
        np.testing.assert_array_equal(found[name], ARRAYS[name])
        assert found[name].dtype == ARRAYS[name].dtype
    assert found["text"].tolist() == ["ü".encode(), b"b"]
    assert found["bytes"].tolist() == [[b"\xff"], [b""]]


def test_arrays_behind_odd_lengths_are_aligned_and_read_only() -> None:
    entries, parts = describe_arrays(ARRAYS)
    found = read_arrays(entries, b"".join(parts))
    for name in ("odd", "doubles", "foreign"):
        assert found[name].flags.aligned
        assert not found[name].flags.writeable


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [np.zeros(1)],
        {"y": [1.0]},
        {"y": None},
        {1: np.zeros(1)},
        {"y": np.zeros(1, complex)},
        {"y": np.zeros(1, "M8[s]")},
        {"y": np.array([None])},
        {"y": np.array(["\ud800"], object)},
    ],
)
def test_what_is_no_arrays_by_name_is_refused(answer) -> None:
    with pytest.raises((TypeError, ValueError)):
        describe_arrays(answer)


@pytest.mark.parametrize(
    "entry",
    [
        ArrayEntry("y", "<f4", (3,), 8),
        ArrayEntry("y", "<f4", (2,), 7),
        ArrayEntry("y", "<f4", (2,), 800),
        ArrayEntry("y", "O", (1,), 8),
        ArrayEntry("y", "nonsense", (1,), 8),
        ArrayEntry("y", "|O", (2,), 8),
    ],
)
def test_descriptions_that_contradict_the_bytes_are_refused(entry: ArrayEntry) -> None:
    with pytest.raises((ValueError, TypeError, SalverError)):
        read_arrays((entry,), b"\x01\x00\x00\x00\xff\x00\x00\x00")


def test_a_frame_begins_with_its_kind_and_lengths() -> None:
    frame = pack_frame(FrameKind.RUN, {"a": 1}, body_bytes=5)
    kind, header_bytes, body_bytes = PREFIX.unpack_from(frame)
    assert (FrameKind(kind), body_bytes) == (FrameKind.RUN, 5)
    assert msgspec.msgpack.decode(frame[PREFIX.size :]) == {"a": 1}
    assert len(frame) == PREFIX.size + header_bytes
