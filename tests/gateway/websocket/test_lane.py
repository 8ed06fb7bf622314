"""Frames in and out: whatever is sent, the server reads it strictly, within bounds, and lives."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.streaming import publish_talk
from tests.gateway.websocket.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, dial, frame
from tests.gateway.wire import eventually

from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.gateway.websocket import lane as lane_module
from salver.gateway.websocket.lane import WebSocketLane

ASKED = json.dumps({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["hi"]}]})


@pytest.fixture(autouse=True)
def talking(request):
    name = "hasty" if "hasty" in request.fixturenames else "server"
    return publish_talk(request.getfixturevalue(name), lambda text: iter((text,)))


@pytest.fixture
def socket(server):
    return dial(server)


def answer(socket):
    first, last = socket.told(), socket.told()
    assert last["parameters"] == {"triton_final_response": True}
    return first["outputs"][0]["data"]


def test_a_message_in_one_frame(socket):
    socket.send(frame(ASKED))
    assert answer(socket) == ["hi"]


def test_a_message_in_many_frames_with_a_ping_between(socket):
    socket.send(frame(ASKED[:10], fin=False), frame(b"?", PING), frame(ASKED[10:20], 0, fin=False))
    assert socket.frame() == Frame(PONG, b"?")
    socket.send(frame(ASKED[20:], 0))
    assert answer(socket) == ["hi"]


def test_a_message_a_byte_at_a_time(socket):
    for at in range(len(data := frame(ASKED))):
        socket.send(data[at : at + 1])
    assert answer(socket) == ["hi"]


def test_text_may_be_cut_within_a_character(socket):
    body = json.dumps(json.loads(ASKED.replace("hi", "é")), ensure_ascii=False).encode()
    at = body.index("é".encode()) + 1
    socket.send(frame(body[:at], fin=False), frame(body[at:], 0))
    assert answer(socket) == ["é"]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(ASKED, mask=False)], 1002),
        ([frame(ASKED, rsv=1)], 1002),
        ([frame(ASKED, rsv=4)], 1002),
        ([frame(b"", 3)], 1002),
        ([frame(b"", 11)], 1002),
        ([frame(ASKED, 0)], 1002),
        ([frame("a", fin=False), frame("b")], 1002),
        ([frame(b"", PING, fin=False)], 1002),
        ([frame(b"x" * 126, PING)], 1002),
        ([frame(b"x" * 200, CLOSE)], 1002),
        ([frame(b"x", CLOSE)], 1002),
        ([frame(struct.pack(">H", 1005), CLOSE)], 1002),
        ([frame(struct.pack(">H", 999), CLOSE)], 1002),
        ([frame(struct.pack(">H", 1000) + b"\xff", CLOSE)], 1007),
        ([frame(b"\xff\xfe")], 1007),
        ([b"\x81\xff" + struct.pack(">Q", 2**63 + 1)], 1002),
        ([b"\x81\xfe\x00\x05" + b"0000"], 1002),
        ([b"GET / HTTP/1.1\r\n\r\n"], 1002),
    ],
)
def test_what_is_no_frame_ends_the_connection(server, socket, frames, code):
    socket.send(*frames)
    assert socket.closed()[0] == code
    # And no other.
    other = dial(server)
    other.send(frame(ASKED))
    assert answer(other) == ["hi"]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_client_that_closes_gets_its_code_back(socket, code):
    socket.send(frame(struct.pack(">H", code) + b"bye", CLOSE))
    assert socket.closed() == (code, "bye")


def test_a_client_that_closes_without_a_word_gets_none(socket):
    socket.send(frame(b"", CLOSE))
    assert socket.closed() == (1005, "")


def test_what_comes_behind_the_last_word_is_ignored(server, socket, talking):
    socket.send(frame(b"", CLOSE), frame(ASKED), b"\xff" * 1000)
    assert socket.closed() == (1005, "")
    assert talking.opened == []


def test_a_message_that_is_too_large_ends_the_connection_before_it_is_whole(server, socket):
    most = server.gateway.limits.body_bytes
    # As announced it is much larger; no more than may come is waited for.
    socket.send(b"\x82\xff" + struct.pack(">Q", 2**40) + b"\0\0\0\0")
    socket.raw.try_send(bytes(most + 1))
    assert socket.closed()[0] == 1009
    assert server.gateway.inflight_bytes == 0


def test_so_does_one_in_parts_that_are_too_many(socket):
    socket.send(frame("", fin=False))
    socket.raw.try_send(frame("", 0, fin=False) * 5000)
    assert socket.closed()[0] == 1008


def test_so_do_pings_without_end(socket):
    socket.raw.try_send(frame(b"", PING) * 1000)
    while (got := socket.frame()) is not None and got.opcode == PONG:
        pass
    assert got is not None
    assert (got.opcode, got.payload[:2]) == (CLOSE, struct.pack(">H", 1008))


def test_more_messages_ahead_than_may_be_end_the_connection(server, talking):
    go = server.thread.run(asyncio.Event)
    talking.say = lambda _: iter((go, "a"))
    socket = dial(server)
    socket.raw.try_send(frame(ASKED) * 100)
    assert socket.closed()[0] == 1008
    eventually(lambda: server.gateway.inflight_bytes == 0)
    eventually(lambda: all(stream.closed for stream in talking.opened))
    assert len(talking.opened) == server.gateway.limits.pipelined + 1


def test_more_bytes_than_may_be_in_flight_end_the_connection(server, socket):
    server.gateway.inflight_bytes += server.gateway.limits.inflight_bytes
    try:
        socket.send(frame(ASKED))
        assert socket.closed()[0] == 1013
    finally:
        server.gateway.inflight_bytes -= server.gateway.limits.inflight_bytes


def test_a_message_that_comes_too_slowly_ends_the_connection(hasty):
    socket = dial(hasty)
    socket.send(frame(ASKED)[:10])
    assert socket.closed()[0] == 1008


def test_a_message_that_began_fast_may_not_become_silent(hasty):
    socket = dial(hasty)
    socket.send(frame("x" * 500_000, fin=False))
    eventually(lambda: hasty.gateway.inflight_bytes >= 500_000)
    while (got := socket.frame()) is not None and got.opcode == PING:
        # Not the silence of the client is what ends it.
        socket.send(frame(b"", PONG))
    assert got is not None
    assert (got.opcode, struct.unpack_from(">H", got.payload)[0]) == (CLOSE, 1008)
    assert hasty.gateway.inflight_bytes == 0


def test_a_silent_client_is_asked_and_stays_if_it_answers(hasty):
    socket = dial(hasty)
    for _ in range(10):
        assert socket.frame() == Frame(PING, b"")
        socket.send(frame(b"", PONG))
    socket.send(frame(ASKED))
    assert answer(socket) == ["hi"]


def test_one_that_does_not_answer_is_gone(hasty):
    socket = dial(hasty)
    while (got := socket.frame()) is not None:
        assert got == Frame(PING, b"")
    eventually(lambda: not hasty.gateway.lanes)


def test_one_that_does_not_say_its_last_word_is_gone_all_the_same(hasty):
    socket = dial(hasty)
    socket.send(frame(ASKED, mask=False))
    got = socket.frame()
    assert got is not None
    assert got.opcode == CLOSE
    assert socket.frame() is None


def test_a_client_that_does_not_read_pauses_the_model_and_is_cut_off(hasty, talking):
    talking.say = lambda _: itertools.repeat("x" * 10_000)
    socket = dial(hasty, receive_bytes=4096)
    socket.send(frame(ASKED))
    eventually(lambda: talking.opened and talking.opened[0].closed)
    eventually(lambda: not hasty.gateway.lanes)


def test_one_that_reads_again_goes_on(server, talking):
    talking.say = lambda _: itertools.repeat("x" * 10_000)
    socket = dial(server, receive_bytes=4096)
    socket.send(frame(ASKED))
    (lane,) = server.gateway.lanes
    eventually(lambda: lane._stalled_s is not None)
    (stream,) = talking.opened
    given = stream.given
    while stream.given == given:
        socket.told()


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_ends_the_model(server, talking, leave):
    talking.say = lambda _: itertools.repeat("word")
    socket = dial(server)
    socket.send(frame(ASKED))
    socket.told()
    getattr(socket.raw, leave)()
    eventually(lambda: talking.opened[0].closed)


def test_a_server_that_stops_says_so_when_nothing_is_owed(serve_model):
    server = serve_model(Limits())
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter((go, "a")))
    busy, quiet = dial(server), dial(server)
    busy.send(frame(ASKED))
    eventually(lambda: any(not lane.talk.is_quiet for lane in server.gateway.lanes))
    server.thread.run(server.gateway.drain)
    assert quiet.closed() == (1001, "the server stops")
    server.thread.run(go.set)
    assert answer(busy) == ["a"]
    assert busy.closed()[0] == 1001
    eventually(lambda: not server.gateway.lanes)


class Muted:
    """A transport that goes nowhere."""

    def __init__(self):
        self.written = b""

    def write(self, data):
        self.written += data

    def can_write_eof(self):
        return False

    def close(self):
        pass


class Deaf:
    """A conversation that takes messages and counts them as answered."""

    is_quiet = True

    def __init__(self, gateway):
        self.gateway = gateway
        self.taken = []

    def take(self, data, *, binary):
        self.gateway.inflight_bytes -= len(data)
        self.taken.append((data, binary))

    def abandon(self):
        pass


def lane_of_its_own(server):
    lane = WebSocketLane(server.gateway)
    lane.talk = Deaf(server.gateway)
    lane._transport = Muted()
    return lane


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                frame,
                st.binary(max_size=200),
                st.integers(0, 15),
                fin=st.booleans(),
                mask=st.booleans(),
                rsv=st.sampled_from([0, 0, 0, 1]),
            ),
        ),
        max_size=12,
    ),
    st.integers(1, 50),
)
def test_no_bytes_make_a_fault_or_leave_bytes_counted(ordinary, parts, step):
    gateway: Gateway = ordinary.gateway
    before, lane = gateway.inflight_bytes, lane_of_its_own(ordinary)
    data = b"".join(parts)
    for at in range(0, len(data), step):
        lane.data_received(data[at : at + step])
    lane.connection_lost(None)
    assert gateway.inflight_bytes == before


def test_binary_and_text_are_told_apart(server):
    lane = lane_of_its_own(server)
    lane.data_received(frame(b"\0\1", BINARY) + frame("a", TEXT))
    assert lane.talk.taken == [(b"\0\1", True), (b"a", False)]


def test_the_bound_on_tiny_parts_spares_large_messages_in_many_parts(server, monkeypatch):
    monkeypatch.setattr(lane_module, "_MOST_FRAMES", 10)
    lane = lane_of_its_own(server)
    lane.data_received(frame("x" * 150, fin=False) + frame("x" * 150, 0, fin=False) * 20 + frame("x", 0))
    assert len(lane.talk.taken) == 1
