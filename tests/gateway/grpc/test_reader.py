"""Frames out of bytes: the rules that end a connection, floods, and honest clients that must not be taken for one."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.gateway.grpc import frames as f
from salver.gateway.grpc.frames import ErrorCode, Frame, Http2Error, pack_frame, pack_settings, pack_window_update
from salver.gateway.grpc.headers import Head, encode_headers
from salver.gateway.grpc.reader import FRAME_BYTES, FrameReader
from salver.gateway.limits import Limits

GREETING = f.PREFACE + pack_settings(())
BLOCK = encode_headers([(b":method", b"POST"), (b":path", b"/a/b"), (b"content-type", b"application/grpc")])
CALM = ErrorCode.ENHANCE_YOUR_CALM
PROTOCOL = ErrorCode.PROTOCOL_ERROR


class Recorder(FrameReader):
    """Keeps what was read."""

    def __init__(self) -> None:
        gateway: Any = SimpleNamespace(limits=Limits())
        super().__init__(gateway)
        self.heard: list[tuple[Any, ...]] = []
        self.written = b""
        self.updates_are_due = True

    def _take_head(self, stream_id: int, head: Head, last: bool) -> None:
        self.heard.append(("head", stream_id, head.path, last))

    def _take_data(self, stream_id: int, data: bytes, size: int, last: bool) -> None:
        self.heard.append(("data", stream_id, data, size, last))

    def _take_reset(self, stream_id: int) -> None:
        self.heard.append(("reset", stream_id))

    def _take_window(self, stream_id: int, increment: int) -> bool:
        self.heard.append(("window", stream_id, increment))
        return self.updates_are_due

    def _take_initial_window(self, size: int) -> None:
        self.heard.append(("initial", size))

    def _take_frame_bytes(self, size: int) -> None:
        self.heard.append(("frames", size))

    def _write(self, data: bytes) -> None:
        self.written += data


def reading(data: bytes = b"") -> Recorder:
    reader = Recorder()
    reader._feed(GREETING + data)
    return reader


def refused(data: bytes) -> ErrorCode:
    reader = reading()
    with pytest.raises(Http2Error) as caught:
        reader._feed(data)
    return caught.value.code


def headers(stream_id: int = 1, flags: int = f.END_HEADERS, block: bytes = BLOCK) -> bytes:
    return pack_frame(Frame.HEADERS, flags, stream_id, block)


SETTLED = [
    ("frames", 2**15),
    ("initial", 100),
    ("head", 1, b"/a/b", False),
    ("data", 1, b"hello", 5, False),
    ("data", 1, b"padded", 10, True),
    ("head", 3, b"/a/b", True),
    ("window", 0, 77),
    ("window", 3, 2**31 - 1),
    ("reset", 3),
    ("head", 5, b"/a/b", True),
]
TALK = (
    f.PREFACE
    + pack_settings([(4, 100), (5, 2**15), (1, 0), (2, 0), (3, 9), (6, 9), (99, 9)])
    + headers()
    + pack_frame(Frame.DATA, 0, 1, b"hello")
    + pack_frame(Frame.DATA, f.PADDED | f.END_STREAM, 1, b"\x03padded\0\0\0")
    + pack_frame(
        Frame.HEADERS,
        f.END_HEADERS | f.END_STREAM | f.PADDED | f.PRIORITY_FLAG,
        3,
        b"\x02" + bytes(5) + BLOCK + bytes(2),
    )
    + pack_frame(Frame.PING, 0, 0, b"12345678")
    + pack_frame(Frame.PING, f.ACK, 0, b"12345678")
    + pack_frame(Frame.SETTINGS, f.ACK, 0)
    + pack_frame(Frame.PRIORITY, 0, 9, bytes(5))
    + pack_frame(77, 255, 1, b"who knows")
    + pack_frame(Frame.GOAWAY, 0, 0, bytes(8))
    + pack_window_update(0, 77)
    + pack_window_update(3, 2**31 - 1)
    + f.pack_reset(3, ErrorCode.CANCEL)
    + headers(5, f.END_STREAM, BLOCK[:3])
    + pack_frame(Frame.CONTINUATION, 0, 5, BLOCK[3:9])
    + pack_frame(Frame.CONTINUATION, f.END_HEADERS, 5, BLOCK[9:])
)
ANSWERED = pack_frame(Frame.SETTINGS, f.ACK, 0) + pack_frame(Frame.PING, f.ACK, 0, b"12345678")


def test_a_talk_is_understood_wherever_it_is_cut() -> None:
    for at in range(len(TALK) + 1):
        reader = Recorder()
        reader._feed(TALK[:at])
        reader._feed(TALK[at:])
        assert reader.heard == SETTLED
        assert reader.written == ANSWERED


def test_a_talk_is_understood_byte_by_byte() -> None:
    reader = Recorder()
    for at in range(len(TALK)):
        reader._feed(TALK[at : at + 1])
    assert (reader.heard, reader.written) == (SETTLED, ANSWERED)


def test_the_largest_frame_is_taken_also_in_small_pieces() -> None:
    payload = bytes(range(256)) * (FRAME_BYTES // 256)
    frame = pack_frame(Frame.DATA, 0, 1, payload)
    reader = reading()
    for at in range(0, len(frame), 100):
        reader._feed(frame[at : at + 100])
    assert reader.heard == [("data", 1, payload, FRAME_BYTES, False)]
    assert refused(pack_frame(Frame.DATA, 0, 1, payload + b"x")) is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"X",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        b"PRI * HTTP/1.1",
        b"\x16\x03\x01",
        f.PREFACE + headers(),
        f.PREFACE + pack_frame(Frame.SETTINGS, f.ACK, 0),
        f.PREFACE + pack_frame(Frame.PING, 0, 0, bytes(8)),
    ],
    ids=lambda data: data[:30].hex(),
)
def test_what_begins_otherwise_is_no_connection(data: bytes) -> None:
    with pytest.raises(Http2Error) as caught:
        Recorder()._feed(data)
    assert caught.value.code is PROTOCOL


RULES = {
    "headers on stream 0": (headers(0), PROTOCOL),
    "headers on an even stream": (headers(2), PROTOCOL),
    "headers padded with more than there is": (headers(flags=f.PADDED | 4, block=b"\xff" + BLOCK), PROTOCOL),
    "headers padded without a length": (headers(flags=f.PADDED | 4, block=b""), ErrorCode.FRAME_SIZE_ERROR),
    "headers with half a priority": (headers(flags=f.PRIORITY_FLAG | 4, block=b"\0\0"), PROTOCOL),
    "data padded with more than there is": (pack_frame(0, f.PADDED, 1, b"\x04abc"), PROTOCOL),
    "data padded without a length": (pack_frame(0, f.PADDED, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    "priority of no stream": (pack_frame(2, 0, 0, bytes(5)), PROTOCOL),
    "priority of 4 bytes": (pack_frame(2, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "reset of 3 bytes": (pack_frame(3, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (pack_frame(4, 0, 1), PROTOCOL),
    "settings of 5 bytes": (pack_frame(4, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "an acknowledgement with content": (pack_frame(4, f.ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "an initial window of 2**31": (pack_settings([(4, 2**31)]), ErrorCode.FLOW_CONTROL_ERROR),
    "frames of less than 16 KiB": (pack_settings([(5, 2**14 - 1)]), PROTOCOL),
    "frames of 16 MiB": (pack_settings([(5, 2**24)]), PROTOCOL),
    "push as 2": (pack_settings([(2, 2)]), PROTOCOL),
    "a push": (pack_frame(5, 4, 1, bytes(4) + BLOCK), PROTOCOL),
    "a ping of 7 bytes": (pack_frame(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "a ping on a stream": (pack_frame(6, 0, 1, bytes(8)), PROTOCOL),
    "goaway on a stream": (pack_frame(7, 0, 1, bytes(8)), PROTOCOL),
    "a window update of 0": (pack_window_update(1, 0), PROTOCOL),
    "a window update of 3 bytes": (pack_frame(8, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "a continuation of nothing": (pack_frame(9, 4, 1, BLOCK), PROTOCOL),
    "a continuation on another stream": (headers(flags=0) + pack_frame(9, 4, 3, BLOCK), PROTOCOL),
    "data within headers": (headers(flags=0) + pack_frame(0, 0, 1, b"x"), PROTOCOL),
    "headers within headers": (headers(flags=0) + headers(3), PROTOCOL),
    "an unknown frame within headers": (headers(flags=0) + pack_frame(77, 0, 1), PROTOCOL),
    "a block that cannot be read": (headers(block=b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "a frame too large": (b"\x04\x00\x01\x00\x00\x00\x00\x00\x01", ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_the_rules_forbid_ends_the_connection(rule: str) -> None:
    data, code = RULES[rule]
    assert refused(data) is code


def test_the_reserved_bit_of_a_stream_is_ignored() -> None:
    frame = bytearray(headers())
    frame[5] |= 0x80
    assert reading(bytes(frame)).heard == [("head", 1, b"/a/b", False)]


# Header blocks without end.


def test_headers_beyond_the_limit_are_refused_before_they_are_decoded() -> None:
    # As one string in Huffman's code, or as an integer, they would take long to decode.
    for block in (b"\x00\xff" + b"\xff" * 100_000, b"\x00\x01a\xff\xff\xff\x07" + b"\x55" * 100_000):
        assert refused(headers(block=block)) is CALM


def test_blocks_in_many_pieces_are_refused() -> None:
    piece = pack_frame(Frame.CONTINUATION, 0, 1, b"")
    assert refused(headers(flags=0) + piece * 9) is CALM
    last = pack_frame(Frame.CONTINUATION, f.END_HEADERS, 1, b"")
    assert reading(headers(flags=0) + piece * 7 + last).heard == [("head", 1, b"/a/b", False)]
    big = pack_frame(Frame.CONTINUATION, 0, 1, bytes(10_000))
    assert refused(headers(flags=0) + big * 2) is CALM


# Floods.

FLOODS = {
    "pings": pack_frame(Frame.PING, 0, 0, bytes(8)),
    "pings acknowledged": pack_frame(Frame.PING, f.ACK, 0, bytes(8)),
    "settings": pack_settings([(4, 1), (4, 2)]),
    "settings acknowledged": pack_frame(Frame.SETTINGS, f.ACK, 0),
    "empty data": pack_frame(Frame.DATA, 0, 1),
    "padding alone": pack_frame(Frame.DATA, f.PADDED, 1, b"\x05" + bytes(5)),
    "priorities": pack_frame(Frame.PRIORITY, 0, 1, bytes(5)),
    "unknown frames": pack_frame(200, 0, 0, b"x"),
    "goaways": pack_frame(Frame.GOAWAY, 0, 0, bytes(8)),
    "resets": f.pack_reset(1, ErrorCode.CANCEL),
    "windows": pack_window_update(0, 1),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_frames_that_carry_nothing_come_by_the_hundred_and_not_by_the_thousand(kind: str) -> None:
    reader = reading()
    reader.updates_are_due = False
    reader._feed(FLOODS[kind] * 900)
    with pytest.raises(Http2Error) as caught:
        reader._feed(FLOODS[kind] * 200)
    assert caught.value.code is CALM


def test_rapid_resets_are_a_flood() -> None:
    data = b"".join(headers(n) + f.pack_reset(n, ErrorCode.CANCEL) for n in range(1, 2203, 2))
    assert refused(data) is CALM


def test_a_flood_that_goes_on_slowly_is_one_too() -> None:
    reader = reading()
    for _ in range(2):
        reader._feed(FLOODS["pings"] * 500)
        reader._forgive()
    reader._feed(FLOODS["pings"] * 550)
    reader._forgive()
    with pytest.raises(Http2Error):
        reader._feed(FLOODS["pings"] * 600)


def test_many_settings_in_a_frame_are_a_flood() -> None:
    assert refused(pack_settings([(4, 1)] * 65)) is CALM
    assert reading(pack_settings([(4, 1)] * 63 + [(4, 2)])).heard == [("initial", 2)]


def test_a_busy_client_is_never_taken_for_a_flood() -> None:
    """10 000 calls within one sweep, every tenth cancelled, with the pings and windows that go with them."""
    reader = reading()
    for n in range(10_000):
        stream_id = 2 * n + 1
        reader._feed(headers(stream_id) + pack_frame(0, f.END_STREAM, stream_id, b"x" * 100))
        if n % 10:
            reader._credit()
        else:
            reader._feed(f.pack_reset(stream_id, ErrorCode.CANCEL))
        reader._feed(pack_window_update(0, 100) + pack_window_update(stream_id, 100))
        if n % 7 == 0:
            reader._feed(FLOODS["pings"])
    assert len(reader.heard) == 41_000


# Anything at all.


@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 255), st.integers(0, 6), st.binary(max_size=40)), max_size=12)
)
def test_any_frames_are_read_or_refused(drawn: list[tuple[int, int, int, bytes]]) -> None:
    reader = reading()
    try:
        reader._feed(b"".join(pack_frame(*frame) for frame in drawn))
    except Http2Error as error:
        assert error.reason


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_read_or_refused_and_nothing_is_kept_but_a_part_of_a_frame(data: bytes, step: int) -> None:
    reader = reading()
    try:
        for at in range(0, len(data), step):
            reader._feed(data[at : at + step])
            assert len(reader._rest) <= len(data)
            if len(reader._rest) >= 9:
                high, low = struct.unpack_from(">HB", reader._rest)
                assert len(reader._rest) < 9 + (high << 8 | low)
    except Http2Error as error:
        assert error.reason
