"""gRPC connections that break the rules, read slowly or do nothing: told why, cut off, and nothing held for them."""

from __future__ import annotations

import struct
import time

import pytest
from tests.gateway.grpc.client import OIP, Http2Client, cancelled, data_frames, dial, framed, row, waiting
from tests.gateway.servers import Served
from tests.gateway.wire import eventually

from salver.gateway.grpc import frames as f
from salver.gateway.grpc.frames import ErrorCode, pack_frame
from salver.gateway.grpc.reader import FrameReader


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (pack_frame(0, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (pack_frame(0, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (f.pack_reset(7, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
        (f.pack_reset(0, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
        (f.pack_window_update(7, 1), ErrorCode.PROTOCOL_ERROR),
        (f.pack_window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (pack_frame(6, 0, 0, bytes(8)) * 3000, ErrorCode.ENHANCE_YOUR_CALM),
        (f.pack_settings([(4, 1)]) * 3000, ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_a_client_that_breaks_the_rules_is_told_and_cut_off(server: Served, frames: bytes, code: ErrorCode) -> None:
    client = dial(server)
    client.raw.try_send(frames)
    last, told, reason = client.goaway()
    assert (last, told) == (0, code)
    assert reason
    assert client.is_closed()
    assert dial(server).call("ModelInfer", row()).status == 0


def test_frames_behind_the_end_of_a_call_end_the_connection(server: Served) -> None:
    for late in (
        pack_frame(0, 0, 1, b"x"),
        pack_frame(1, f.END_HEADERS | f.END_STREAM, 1, b""),
    ):
        client = dial(server)
        client.start("ModelInfer", row(model="held"))
        client.send(late)
        assert client.goaway()[1] in (ErrorCode.STREAM_CLOSED, ErrorCode.PROTOCOL_ERROR)
        cancelled(server, 1)
        server.held.asked.clear()


def test_trailers_with_a_path_end_the_connection(client: Http2Client) -> None:
    client.send(client.head(OIP + "ModelInfer"))
    client.next_id = 1
    client.send(client.head(OIP + "ModelInfer", last=True))
    assert client.goaway()[1] == ErrorCode.PROTOCOL_ERROR


def test_rapid_resets_are_told_to_calm_down_and_leave_nothing(server: Served) -> None:
    client = dial(server)
    message = framed(row(model="held"))
    flood = b""
    for stream_id in range(1, 6001, 2):
        flood += client.head(OIP + "ModelInfer") + data_frames(stream_id, message)
        flood += f.pack_reset(stream_id, ErrorCode.CANCEL)
    client.raw.try_send(flood)
    assert client.goaway()[1] == ErrorCode.ENHANCE_YOUR_CALM
    assert client.is_closed()
    eventually(server.is_quiet)
    eventually(lambda: all(answer.cancelled() for _, answer in server.held.asked))


@pytest.mark.parametrize(
    "flood",
    [
        f.pack_settings([(4, 0)] * 64) * 1100,
        f.pack_window_update(0, 1) * 20_000,
        f.pack_window_update(1, 1) * 20_000,
    ],
    ids=["64 windows a frame", "windows of the connection", "windows of a call"],
)
def test_windows_that_let_nothing_go_are_a_flood_and_cost_little(
    server: Served, flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here a sweep comes 25 times as often as elsewhere.
    monkeypatch.setattr(FrameReader, "_forgive", lambda _: None)
    client = dial(server, settings=[(4, 0)])
    for _ in range(30):
        client.start("ModelInfer", row(model="held"))
    waiting(server, 30)
    server.answer_held(30)
    (lane,) = server.gateway.lanes
    eventually(lambda: len(lane._starved) == 30)
    begun_s = server.thread.run(time.thread_time)
    client.raw.try_send(flood)
    assert client.goaway()[1] == ErrorCode.ENHANCE_YOUR_CALM
    assert client.is_closed()
    # A bound against what looks at each call each time.
    assert server.thread.run(time.thread_time) - begun_s < 2.0
    eventually(server.is_quiet)


def test_a_client_that_grants_a_window_for_each_frame_is_no_flood(server: Served) -> None:
    client = Http2Client(server.connect(), settings=[(4, 16)], window=0)
    server.held.width = 5000
    stream_id = client.start("ModelInfer", row(model="held"))
    server.answer_held()
    frames = 0
    while not client.answers[stream_id].ended:
        got = client.frame()
        assert got is not None
        if got.kind == 0 and got.payload:
            frames += 1
            client.send(f.pack_window_update(stream_id, 16) + f.pack_window_update(0, 16))
    assert frames == 1253
    assert len(client.answers[stream_id].infer.raw_output_contents[0]) == 20_000


def test_an_answer_that_no_window_takes_is_given_up(hasty: Served) -> None:
    client = dial(hasty, settings=[(4, 10)])
    stream_id = client.start("ModelInfer", row(model="held"))
    stream = client.start("ModelStreamInfer", row(), row(), end=False)
    waiting(hasty, 1)
    hasty.answer_held()
    assert client.answer(stream_id).reset == ErrorCode.CANCEL
    assert client.answer(stream).reset == ErrorCode.CANCEL
    assert len(client.answers[stream_id].data) == 10
    (lane,) = hasty.gateway.lanes
    assert (lane._calls, lane._blocked, lane._starved) == ({}, {}, {})
    client.send(f.pack_window_update(stream_id, 1000) + pack_frame(6, 0, 0, bytes(8)))
    eventually(lambda: client.frame() and client.pings)
    assert hasty.gateway.inflight_bytes == 0


def test_calls_under_way_on_a_connection_that_breaks_are_cancelled(server: Served, client: Http2Client) -> None:
    client.start("ModelInfer", row(model="held"))
    client.start("ModelStreamInfer", row(model="held"), end=False)
    waiting(server, 2)
    client.send(pack_frame(6, 0, 1, bytes(8)))
    cancelled(server, 2)
    assert client.is_closed()
    assert server.gateway.inflight_bytes == 0


def test_http_1_on_this_port_is_told_and_closed(server: Served) -> None:
    raw = server.connect()
    raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    eventually(lambda: not raw._more())
    assert b"preface" in raw.received


# Answers out.


def test_a_client_with_small_windows_gets_everything_piece_by_piece(server: Served) -> None:
    server.held.width = 5000
    client = Http2Client(server.connect(), settings=[(4, 1000)], window=0)
    stream_id = client.start("ModelInfer", row(model="held"))
    server.answer_held()
    answer = client.answers[stream_id]
    while not answer.ended:
        got = client.frame()
        if got is not None and got.kind == 0:
            client.send(f.pack_window_update(stream_id, len(got.payload)) + f.pack_window_update(0, len(got.payload)))
    assert len(answer.infer.raw_output_contents[0]) == 20_000


def test_an_initial_window_changed_under_way_counts_for_open_calls(server: Served) -> None:
    server.held.width = 1000
    client = Http2Client(server.connect(), settings=[(4, 100)])
    stream_id = client.start("ModelInfer", row(model="held"))
    server.answer_held()
    answer = client.answers[stream_id]
    eventually(lambda: client.frame() and len(answer.data) == 100)
    client.send(f.pack_settings([(4, 0)]))
    client.send(f.pack_window_update(stream_id, 99))
    client.send(pack_frame(6, 0, 0, bytes(8)))
    eventually(lambda: client.frame() and client.pings)
    assert len(answer.data) == 100
    client.send(f.pack_settings([(4, 201)]))
    eventually(lambda: client.frame() and len(answer.data) == 300)
    client.send(f.pack_settings([(4, 2**31 - 1)]))
    eventually(lambda: client.goaways or answer.ended or client.frame() is None)


def test_a_window_grown_beyond_31_bits_by_settings_ends_the_connection(server: Served, client: Http2Client) -> None:
    stream_id = client.start("ModelInfer", row(model="held"))
    client.send(f.pack_window_update(stream_id, 2**30) + f.pack_settings([(4, 2**31 - 1)]))
    assert client.goaway()[1] == ErrorCode.FLOW_CONTROL_ERROR


def test_a_client_that_never_reads_is_paused_and_cut_off(hasty: Served) -> None:
    hasty.held.width = 500_000
    deaf = Http2Client(hasty.connect(receive_bytes=4096))
    for _ in range(8):
        deaf.start("ModelInfer", row(model="held"))
    hasty.answer_held(8)
    (lane,) = hasty.gateway.lanes
    eventually(lambda: lane._stalled_s is not None)
    assert len(lane._out) <= 1
    eventually(lambda: not hasty.gateway.lanes)
    assert hasty.gateway.inflight_bytes == 0


# Time.


def test_a_connection_without_a_call_is_closed(hasty: Served) -> None:
    client = dial(hasty)
    assert client.call("ServerLive").status == 0
    assert client.goaway()[1] == ErrorCode.NO_ERROR
    assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", f.PREFACE[:10], f.PREFACE])
def test_a_connection_that_does_not_begin_is_closed(hasty: Served, sent: bytes) -> None:
    raw = hasty.connect()
    raw.send(sent)
    eventually(lambda: not raw._more())


def test_a_message_that_comes_too_slowly_is_refused(hasty: Served) -> None:
    client = dial(hasty)
    client.send(client.head(OIP + "ModelInfer") + pack_frame(0, 0, 1, framed(row())[:8]))
    answer = client.answer(1)
    assert (answer.status, answer.code) == (4, "REQUEST_TIMEOUT")
    client.send(client.head(OIP + "ModelInfer"))
    assert client.answer(3).code == "REQUEST_TIMEOUT"
    assert hasty.gateway.inflight_bytes == 0


def test_a_message_that_began_fast_may_not_become_silent(hasty: Served) -> None:
    client = dial(hasty)
    client.send(client.head(OIP + "ModelInfer"))
    client.send(data_frames(1, struct.pack(">BI", 0, 2 * 2**20) + bytes(2**19), last=False))
    eventually(lambda: hasty.gateway.inflight_bytes > 2**19)
    assert client.answer(1).code == "REQUEST_TIMEOUT"
    assert hasty.gateway.inflight_bytes == 0


def test_a_call_that_computes_keeps_its_connection(hasty: Served) -> None:
    client = dial(hasty)
    stream_id = client.start("ModelInfer", row(model="held"))
    eventually(lambda: hasty.gateway.lanes)
    (lane,) = hasty.gateway.lanes
    begun_s = hasty.gateway.now_s
    eventually(lambda: hasty.gateway.now_s > begun_s + 1.0)
    assert lane in hasty.gateway.lanes
    hasty.answer_held()
    assert client.answer(stream_id).status == 0
