"""Frames to a client: never more than its windows, each call in turn, everything in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.gateway.grpc.frames import END_STREAM, Frame, Http2Error
from salver.gateway.grpc.sender import FrameSender


class Transport:
    """Keeps what is written, as frames."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.writes = 0
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.writes += 1
        while data:
            size = int.from_bytes(data[:3])
            self.frames.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]))
            data = data[9 + size :]
        self.on_write()


class Sender(FrameSender):
    """A sender whose calls are made by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.sink = Transport()
        self._transport = self.sink
        self.calls: dict[int, Any] = {}
        self.ended: list[int] = []

    def call(self, stream_id: int) -> Any:
        call = SimpleNamespace(stream_id=stream_id, begun=False, send_window=self.initial_send_window)
        call.unsent = call.ending = None
        call.sent_bytes = 0
        call.drains = 0
        call.head_block = lambda: b"head"
        call.drained = lambda: setattr(call, "drains", call.drains + 1)
        self.calls[stream_id] = call
        return call

    def _find(self, stream_id: int) -> Any:
        return self.calls.get(stream_id)

    def _ended(self, call: Any) -> None:
        self.ended.append(call.stream_id)

    # What the test looks at.

    def data(self, stream_id: int) -> bytes:
        self._flush()
        return b"".join(part for kind, _, stream, part in self.sink.frames if (kind, stream) == (0, stream_id))

    def order(self) -> list[int]:
        self._flush()
        return [stream for kind, _, stream, _ in self.sink.frames if kind == Frame.DATA]

    def kinds(self, stream_id: int) -> list[int]:
        self._flush()
        return [kind for kind, _, stream, _ in self.sink.frames if stream == stream_id]


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@on_loop
async def test_what_fits_goes_at_once_and_in_one_write() -> None:
    sender = Sender()
    sender.send(sender.call(1), b"hello", b"end")
    sender.send(sender.call(3), b"world", b"end")
    assert sender.sink.frames == []
    await asyncio.sleep(0)
    assert sender.sink.writes == 1
    assert sender.sink.frames[:3] == [(1, 4, 1, b"head"), (0, 0, 1, b"hello"), (1, 5, 1, b"end")]
    assert sender.ended == [1, 3]


@on_loop
async def test_a_stream_window_holds_its_call_alone() -> None:
    sender = Sender()
    sender._send_window = 10**6
    slow, fast = sender.call(1), sender.call(3)
    slow.send_window = 10
    sender.send(slow, b"x" * 25, b"end")
    sender.send(fast, b"y" * 25, b"end")
    assert (len(sender.data(1)), len(sender.data(3)), sender.ended) == (10, 25, [3])
    sender._take_window(1, 14)
    assert (len(sender.data(1)), sender.ended) == (24, [3])
    sender._take_window(1, 1)
    assert (len(sender.data(1)), sender.ended, slow.send_window) == (25, [3, 1], 0)
    assert sender.sink.frames[-1] == (1, 5, 1, b"end")


@on_loop
async def test_the_connection_window_holds_all() -> None:
    sender = Sender()
    sender._send_window = 30
    for stream_id in (1, 3):
        sender.send(sender.call(stream_id), b"x" * 20, b"end")
    assert (len(sender.data(1)), len(sender.data(3))) == (20, 10)
    sender.send(sender.call(5), b"", b"end")
    assert sender.kinds(5) == [1]
    sender._take_window(0, 9)
    assert sender.ended == [1]
    sender._take_window(0, 100)
    assert sorted(sender.ended) == [1, 3, 5]


@on_loop
async def test_no_frame_is_longer_than_the_client_takes() -> None:
    sender = Sender()
    sender._send_window = 2**30
    call = sender.call(1)
    call.send_window = 2**30
    sender.send(call, b"x" * 40_000, b"end")
    sizes = [len(part) for kind, _, _, part in sender.sink.frames if kind == 0]
    assert sizes == [16384, 16384, 7232]
    sender._take_frame_bytes(2**24 - 1)
    wide = sender.call(3)
    wide.send_window = 2**30
    sender.send(wide, b"x" * 2**20, b"end")
    assert max(len(part) for kind, _, _, part in sender.sink.frames if kind == 0) <= 2**20
    assert len(sender.data(3)) == 2**20


@on_loop
async def test_calls_take_turns() -> None:
    sender = Sender()
    sender._send_window = 0
    for stream_id in (1, 3, 5):
        call = sender.call(stream_id)
        call.send_window = 2**20
        sender.send(call, b"x" * 40_000, b"end")
    sender._take_window(0, 2**20)
    assert sender.order() == [1, 3, 5] * 3


@on_loop
async def test_an_error_overtakes_what_is_held() -> None:
    sender = Sender()
    call = sender.call(1)
    call.send_window = 3
    sender.send(call, b"x" * 10, None)
    sender.end(call, b"refused")
    assert sender._blocked == {}
    sender._take_window(1, 100)
    assert sender.data(1) == b"xxx"
    assert sender.sink.frames[-1] == (1, 5, 1, b"refused")


@on_loop
async def test_a_part_of_a_stream_tells_when_it_is_out() -> None:
    sender = Sender()
    call = sender.call(1)
    call.send_window = 5
    sender.send(call, b"x" * 8, None)
    assert (call.drains, call.unsent is None) == (0, False)
    sender._take_window(1, 3)
    assert (call.drains, call.unsent) == (1, None)
    assert sender.ended == []


@on_loop
async def test_a_client_that_does_not_read_stops_the_sending() -> None:
    sender = Sender()
    sender._send_window = 2**30
    sender.sink.on_write = lambda: setattr(sender, "_stalled_s", 1.0)
    call = sender.call(1)
    call.send_window = 2**30
    sender.send(call, b"x" * 10**6, b"end")
    assert len(sender.data(1)) <= 16384 * 2
    assert sender.ended == []
    sender.sink.on_write = lambda: None
    sender._stalled_s = None
    sender._pump()
    assert (len(sender.data(1)), sender.ended) == (10**6, [1])


@on_loop
async def test_windows_may_not_grow_beyond_31_bits() -> None:
    sender = Sender()
    sender._take_window(0, 2**31 - 1 - 65535)
    with pytest.raises(Http2Error):
        sender._take_window(0, 1)
    call = sender.call(1)
    sender._take_window(1, 2**31 - 1 - call.send_window)
    with pytest.raises(Http2Error):
        sender._take_window(1, 1)
    sender._take_window(99, 5)


@on_loop
async def test_as_many_windows_are_due_as_data_was_sent() -> None:
    sender = Sender()
    assert not sender._take_window(0, 1)
    sender.send(sender.call(1), b"hello", b"end")
    assert [sender._take_window(stream_id, 5) for stream_id in (1, 0, 0)] == [True, True, False]
    sender.send(sender.call(3), b"x" * 70_000, b"end")
    assert [sender._take_window(3, 1) for _ in range(20)].count(False) == 0


@on_loop
async def test_a_call_without_a_window_is_looked_at_once() -> None:
    sender = Sender()
    sender.initial_send_window = 0
    for stream_id in range(1, 200, 2):
        sender.send(sender.call(stream_id), b"x", b"end")
    assert (len(sender._blocked), len(sender._starved)) == (0, 100)
    sender._take_window(0, 1)
    assert sender.order() == []
    sender._take_window(7, 1)
    assert (sender.order(), sender.ended, len(sender._starved)) == ([7], [7], 99)
    sender.end(sender.calls[9], b"refused")
    assert 9 not in sender._starved


STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 300)),
    st.tuples(st.just("connection"), st.integers(1, 400)),
    st.tuples(st.just("stream"), st.integers(1, 200)),
    st.tuples(st.just("initial"), st.integers(0, 300)),
    st.tuples(st.just("stall"), st.just(0)),
    st.tuples(st.just("resume"), st.just(0)),
)


@given(st.lists(STEP, max_size=40))
def test_whatever_the_client_says_nothing_goes_beyond_its_windows(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, int]]) -> None:
    sender = Sender()
    sender._send_window = connection = 100
    sender.initial_send_window = initial = 50
    allowed: dict[int, int] = {}
    sizes: dict[int, int] = {}
    sent: dict[int, int] = {}
    for kind, number in steps:
        if kind == "send":
            stream_id = 2 * len(allowed) + 1
            allowed[stream_id], sizes[stream_id] = initial, number + 5
            sender.send(sender.call(stream_id), bytes(number + 5), b"end")
        elif kind == "connection":
            connection += number
            sender._take_window(0, number)
        elif kind == "stream" and allowed:
            stream_id = min(allowed, key=lambda each: allowed[each])
            allowed[stream_id] += number
            sender._take_window(stream_id, number)
        elif kind == "initial":
            for stream_id, call in sender.calls.items():
                allowed[stream_id] += number - initial
                call.send_window += number - initial
                sender._feed_starved(call)
            sender.initial_send_window = initial = number
            sender._pump()
        elif kind in ("stall", "resume"):
            sender._stalled_s = 1.0 if kind == "stall" else None
            sender._pump()
        before, sent = sent, {stream_id: len(sender.data(stream_id)) for stream_id in allowed}
        assert all(sent[i] <= allowed[i] for i in sent if sent[i] > before.get(i, 0))
        # A window that shrinks may leave a stream beyond it, but lets it send nothing more.
        assert all(call.send_window == allowed[i] - sent[i] for i, call in sender.calls.items())
        assert sum(sent.values()) + sender._send_window == connection
        assert sender._send_window >= 0
    sender._stalled_s = None
    sender._take_window(0, 10**6)
    for stream_id in allowed:
        sender._take_window(stream_id, 10**5)
        assert len(sender.data(stream_id)) == sizes[stream_id]
    assert sorted(sender.ended) == sorted(allowed)
    for stream_id in allowed:
        ends = [flags & END_STREAM for kind, flags, stream, _ in sender.sink.frames if stream == stream_id]
        assert ends.count(1) == 1
        assert ends[-1] == 1
