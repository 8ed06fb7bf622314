"""Frames as RFC 9113 draws them."""

from __future__ import annotations

import pytest

from salver.gateway.grpc.frames import (
    ErrorCode,
    Frame,
    Http2Error,
    Setting,
    pack_frame,
    pack_goaway,
    pack_reset,
    pack_settings,
    pack_window_update,
    unpack_settings,
)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536, 2**18])
def test_a_frame_is_its_head_and_its_payload(size: int) -> None:
    frame = pack_frame(Frame.DATA, 5, 7, b"x" * size)
    assert int.from_bytes(frame[:3]) == size
    assert frame[3:9] == bytes((0, 5, 0, 0, 0, 7))
    assert frame[9:] == b"x" * size


def test_settings_come_back_as_they_went() -> None:
    frame = pack_settings([(Setting.MAX_FRAME_SIZE, 2**20), (Setting.ENABLE_PUSH, 0)])
    assert frame[:9] == bytes((0, 0, 12, 4, 0, 0, 0, 0, 0))
    assert list(unpack_settings(frame[9:])) == [(5, 2**20), (2, 0)]
    assert pack_settings([]) == bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("size", [1, 5, 7, 11])
def test_settings_of_an_odd_length_are_refused(size: int) -> None:
    with pytest.raises(Http2Error) as caught:
        list(unpack_settings(bytes(size)))
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


def test_the_small_frames() -> None:
    assert pack_window_update(3, 2**31 - 1) == bytes((0, 0, 4, 8, 0, 0, 0, 0, 3, 0x7F, 255, 255, 255))
    assert pack_reset(5, ErrorCode.CANCEL) == bytes((0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8))
    assert pack_goaway(9, ErrorCode.ENHANCE_YOUR_CALM, "é")[9:] == bytes((0, 0, 0, 9, 0, 0, 0, 11)) + "é".encode()
