"""gRPC calls on real sockets: one answer each, under limits, and nothing held afterwards."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from tests.gateway.grpc.client import (
    OIP,
    Http2Client,
    cancelled,
    data_frames,
    dial,
    framed,
    row,
    waiting,
)
from tests.gateway.servers import Served
from tests.gateway.wire import eventually

from salver.gateway.grpc import frames as f
from salver.gateway.grpc import infer as infer_module
from salver.gateway.grpc.frames import ErrorCode, pack_frame

BODY_BYTES = 64 * 2**20


def scores(answer: Any) -> list[float]:
    import numpy as np

    return np.frombuffer(answer.infer.raw_output_contents[1], np.float32).tolist()


# Right answers.


def test_a_call_is_answered(client: Http2Client) -> None:
    answer = client.call("ModelInfer", row(1, 2, 3, 4, id="mine"))
    assert (answer.infer.id, answer.infer.model_name, answer.infer.model_version) == ("mine", "toy", "1.0.0")
    assert scores(answer) == [5, 6, 7]
    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.reset is None


def test_the_server_says_what_it_takes(client: Http2Client) -> None:
    client.call("ServerLive")
    assert client.settings == {3: 40, 4: 2**20, 5: 2**18, 6: 16384}
    assert client.windows[0] == 2**24


def test_each_of_many_calls_gets_its_own_answer(server: Served) -> None:
    clients = [dial(server) for _ in range(5)]
    started = [(client, n, client.start("ModelInfer", row(n, 0, 0, 1))) for client in clients for n in range(30)]
    for client, n, stream_id in started:
        assert scores(client.answer(stream_id)) == [n + 1, 1, 1]


def test_a_message_may_come_in_many_frames_padded_and_with_trailers(client: Http2Client) -> None:
    client.send(client.head(OIP + "ModelInfer"))
    for byte in framed(row(1, 2, 3, 4)):
        client.send(pack_frame(0, f.PADDED, 1, bytes((7, byte)) + bytes(7)))
    client.send(pack_frame(1, f.END_HEADERS | f.END_STREAM, 1, client.encoder.encode([("x-trailer", "1")])))
    assert scores(client.answer(1)) == [5, 6, 7]


def test_a_message_larger_than_the_windows_comes_through(server: Served, client: Http2Client) -> None:
    client.call("ServerLive")
    rows = 200_000
    body = framed(row(1, 2, 3, 0, rows=rows))
    client.send(client.head(OIP + "ModelInfer"))
    stream_id = client.next_id - 2
    granted = 2**20
    at = 0
    while at < len(body):
        part = body[at : at + min(granted - at, client.windows[0] - at, 2**16)]
        if not part:
            assert client.frame() is not None
            granted = 2**20 + client.windows.get(stream_id, 0)
            continue
        at += len(part)
        client.send(pack_frame(0, f.END_STREAM if at == len(body) else 0, stream_id, part))
    answer = client.answer(stream_id)
    assert (answer.status, answer.code) == (3, "TOO_MANY_ROWS")
    assert client.windows[0] - 2**24 <= len(body) + 100


@pytest.mark.parametrize("at", range(1, 6))
def test_a_message_cut_in_its_head_is_read_all_the_same(client: Http2Client, at: int) -> None:
    body = framed(row(1, 2, 3, 4))
    client.send(client.head(OIP + "ModelInfer") + data_frames(1, body[:at], last=False))
    client.send(data_frames(1, body[at:]))
    assert scores(client.answer(1)) == [5, 6, 7]


def test_request_ids_go_in_and_out(client: Http2Client) -> None:
    given = client.call("ServerLive", headers=[("x-request-id", "mine")])
    assert given.headers["x-request-id"] == "mine"
    made = [client.call("ServerLive").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    refused = client.call("ModelInfer", row(model="nothing"), headers=[("x-request-id", "x" * 129)])
    assert refused.headers["x-request-id"] not in ("", "x" * 129)


def test_a_version_of_the_interface_is_asked_for_in_metadata(client: Http2Client) -> None:
    assert client.call("ServerLive", headers=[("x-salver-api-version", "1")]).status == 0
    refused = client.call("ServerLive", headers=[("x-salver-api-version", "2")])
    assert (refused.status, refused.headers["x-salver-error"]) == (3, "INVALID_PARAMETER")


def test_the_time_it_took_is_told_to_those_who_ask(client: Http2Client) -> None:
    request = row()
    request.parameters["salver_timing"].bool_param = True
    assert client.call("ModelInfer", request).trailers["server-timing"].startswith("queue;dur=")


# Wrong calls.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "before its message"),
        (b"\0\0\0", "before its message"),
        (framed(row())[:-1], "middle of its message"),
        (framed(row()) + b"x", "more than one message"),
        (framed(row()) * 2, "more than one message"),
        (framed(b"\xff\xff"), "no ModelInferRequest"),
    ],
)
def test_a_call_has_one_whole_message(client: Http2Client, body: bytes, words: str) -> None:
    client.send(client.head(OIP + "ModelInfer") + data_frames(1, body))
    answer = client.answer(1)
    assert answer.status == 3
    assert words in answer.trailers["grpc-message"]
    assert client.call("ModelInfer", row()).status == 0


def test_what_is_no_grpc_is_told_by_http(client: Http2Client) -> None:
    client.send(client.head("/v2", ("content-type", "application/json"), plain=True))
    answer = client.answer(1)
    assert (answer.headers, answer.trailers) == ({":status": "415"}, {})
    client.send(client.head("/v2", last=True, plain=True, method="GET"))
    assert client.answer(3).headers == {":status": "415"}
    assert client.call("ModelInfer", row()).status == 0


@pytest.mark.parametrize("end", [True, False])
def test_an_unknown_method_is_refused_before_its_message(client: Http2Client, end: bool) -> None:
    client.start("/inference.GRPCInferenceService/SystemSharedMemoryStatus", end=end)
    answer = client.answer(1)
    assert (answer.status, answer.code) == (12, "METHOD_NOT_ALLOWED")
    assert "SystemSharedMemoryStatus" in answer.trailers["grpc-message"]
    assert client.call("ServerLive").status == 0


def test_errors_have_a_status_a_code_and_a_message_in_ascii(client: Http2Client) -> None:
    answer = client.call("ModelInfer", row(model="nöthing%\n"))
    assert (answer.status, answer.code) == (5, "NOT_FOUND")
    assert answer.trailers["grpc-message"].isascii()
    assert "n%C3%B6thing%25" in answer.trailers["grpc-message"]
    assert len(client.call("ModelInfer", row(model="é" * 9000)).trailers["grpc-message"]) < 16000


@pytest.mark.parametrize("text", ["1", "x", "1S,2S"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_timeout_that_is_none_is_refused(client: Http2Client, text: str, method: str) -> None:
    answer = client.call(method, row(), headers=[("grpc-timeout", text)])
    assert (answer.status, answer.code) == (3, "INVALID_PARAMETER")


def test_a_message_beyond_the_limit_is_refused_at_its_beginning(server: Served, client: Http2Client) -> None:
    client.send(client.head(OIP + "ModelInfer"))
    client.send(pack_frame(0, 0, 1, b"\0" + (BODY_BYTES + 1).to_bytes(4)))
    answer = client.answer(1)
    assert (answer.status, answer.code) == (8, "BODY_TOO_LARGE")
    # Whatever was on its way is ignored.
    client.send(pack_frame(0, 0, 1, b"x" * 1000))
    client.send(client.head(OIP + "ModelInfer"))
    client.send(pack_frame(0, 0, 3, b"\0" + BODY_BYTES.to_bytes(4)))
    assert client.call("ServerLive").status == 0
    assert not client.answers[3].ended


# Compression.


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("rows", [1, 64])
def test_compressed_messages_are_understood(client: Http2Client, coding: str, rows: int) -> None:
    body = row(1, 2, 3, 4, rows=rows).SerializeToString()
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding](body)
    client.send(client.head(OIP + "ModelInfer", ("grpc-encoding", coding)))
    client.send(data_frames(1, framed(packed, compressed=1)))
    assert scores(client.answer(1))[:3] == [5, 6, 7]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize(("flag", "headers"), [(1, ()), (2, ()), (7, (("grpc-encoding", "gzip"),)), (255, ())])
def test_a_message_that_says_of_no_known_compression_is_refused(
    client: Http2Client, method: str, flag: int, headers: tuple[tuple[str, str], ...]
) -> None:
    client.send(client.head(OIP + method, *headers))
    client.send(data_frames(1, framed(row(), compressed=flag)))
    answer = client.answer(1)
    assert answer.code == "BAD_MESSAGE" or b"begins with" in answer.data or b"no grpc-encoding" in answer.data


@pytest.mark.parametrize("typed", [True, False])
def test_large_messages_are_read_and_answered_beside_the_event_loop(
    client: Http2Client, monkeypatch: pytest.MonkeyPatch, typed: bool
) -> None:
    asked = row(1, 2, 3, 4, rows=9)
    if typed:
        del asked.raw_input_contents[:]
        asked.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4] * 9)
    once, streamed = client.call("ModelInfer", asked), client.call("ModelStreamInfer", asked)
    written: list[Any] = []
    offloaded = infer_module.write_aside
    monkeypatch.setattr(infer_module, "write_aside", lambda *given: written.append(given) or offloaded(*given))
    monkeypatch.setattr(infer_module, "WRITE_ASIDE_ELEMENTS", 8)
    monkeypatch.setattr(infer_module, "_DECODE_ASIDE_BYTES", 8)
    assert client.call("ModelInfer", asked).data == once.data
    assert client.call("ModelStreamInfer", asked).data == streamed.data
    assert len(written) == typed
    wrong = row(1, 2, 3, 4, rows=9)
    wrong.inputs[0].datatype = "FP33"
    assert client.call("ModelInfer", wrong).code == "WRONG_DATATYPE"


def test_large_compressed_messages_are_understood_and_counted(server: Served, client: Http2Client) -> None:
    import numpy as np

    request = row(model="held")
    request.inputs[0].shape[0] = 20_000
    request.raw_input_contents[0] = np.random.default_rng(1).integers(0, 9, (20_000, 4)).astype(np.float32).tobytes()
    packed = gzip.compress(request.SerializeToString(), 1)
    assert len(packed) > 2**14
    client.send(
        client.head(OIP + "ModelInfer", ("grpc-encoding", "gzip")) + data_frames(1, framed(packed, compressed=1))
    )
    waiting(server, 1)
    assert server.gateway.inflight_bytes == len(request.SerializeToString())
    server.answer_held()
    assert client.answer(1).status == 0
    assert server.gateway.inflight_bytes == 0


@pytest.mark.parametrize(
    ("coding", "packed", "status", "code"),
    [
        ("gzip", gzip.compress(bytes(200 * 2**20), 9), 8, "BODY_TOO_LARGE"),
        ("gzip", gzip.compress(bytes(2 * 2**20), 9), 8, "BODY_TOO_LARGE"),
        ("gzip", b"x" * 100, 3, "BAD_HTTP"),
        ("deflate", zlib.compress(b"abc")[:-1], 3, "BAD_HTTP"),
        ("gzip", gzip.compress(b"") + b"x", 3, "BAD_HTTP"),
        ("br", b"x", 12, "UNSUPPORTED"),
    ],
    ids=["bomb", "small bomb", "noise", "cut", "more", "unknown"],
)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_what_cannot_be_decompressed_is_refused(
    client: Http2Client, method: str, coding: str, packed: bytes, status: int, code: str
) -> None:
    client.send(client.head(OIP + method, ("grpc-encoding", coding)) + data_frames(1, framed(packed, compressed=1)))
    answer = client.answer(1)
    assert (answer.status, answer.code) == (status, code)
    assert client.call("ServerLive").status == 0


# Cancelling, deadlines.


def test_a_cancelled_call_does_not_start_and_gives_back_its_bytes(server: Served, client: Http2Client) -> None:
    stream_id = client.start("ModelInfer", row(model="held"))
    waiting(server, 1)
    assert server.gateway.inflight_bytes > 0
    client.cancel(stream_id)
    cancelled(server, 1)
    assert server.gateway.inflight_bytes == 0
    assert client.call("ServerLive").status == 0
    assert not client.answers[stream_id].ended


def test_a_call_cancelled_before_its_message_is_whole_never_begins(server: Served, client: Http2Client) -> None:
    client.send(client.head(OIP + "ModelInfer") + pack_frame(0, 0, 1, framed(row(model="held"))[:-3]))
    client.cancel(1)
    client.send(pack_frame(0, f.END_STREAM, 1, framed(row(model="held"))[-3:]))
    assert client.call("ServerLive").status == 0
    assert (server.held.asked, server.gateway.inflight_bytes) == ([], 0)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_what_was_asked_for_a_client_that_has_gone_is_cancelled(server: Served, method: str) -> None:
    gone = dial(server)
    for _ in range(5):
        gone.start(method, row(model="held"), end=False) if "S" in method[5:] else gone.start(method, row(model="held"))
    waiting(server, 5)
    gone.raw.reset()
    cancelled(server, 5)
    eventually(server.is_quiet)


def test_a_deadline_holds_in_the_queue(server: Served, client: Http2Client) -> None:
    client.start("ModelInfer", row(model="held"), headers=[("grpc-timeout", "50m")])
    waiting(server, 1)
    request, _ = server.held.asked[0]
    assert request.deadline_s - request.received_s == pytest.approx(0.05)
    late = client.call("ModelInfer", row(), headers=[("grpc-timeout", "0n")])
    assert (late.status, late.code) == (4, "DEADLINE_EXCEEDED")


# How many and how much.


def test_calls_beyond_the_most_streams_are_refused_and_may_be_tried_again(server: Served, client: Http2Client) -> None:
    held = [client.start("ModelInfer", row(model="held")) for _ in range(40)]
    waiting(server, 40)
    assert client.answer(client.start("ModelInfer", row())).reset == ErrorCode.REFUSED_STREAM
    for stream_id in held[:3]:
        client.cancel(stream_id)
    cancelled(server, 3)
    assert client.call("ModelInfer", row()).status == 0
    server.answer_held(40)
    assert all(client.answer(stream_id).status == 0 for stream_id in held[3:])
    assert server.gateway.inflight_bytes == 0


def test_bytes_in_flight_are_bounded(server: Served) -> None:
    client = dial(server)
    started = []
    for _ in range(4):
        client.send(client.head(OIP + "ModelInfer"))
        started.append(client.next_id - 2)
    client.call("ServerLive")
    part = bytes(2**16)
    sent = dict.fromkeys(started, 0)
    client.send(b"".join(pack_frame(0, 0, i, b"\0" + (BODY_BYTES - 9).to_bytes(4)) for i in started))
    # All that the windows allow, until one of the calls is refused.
    while not (over := [i for i in started if client.answers[i].ended]):
        for stream_id in started:
            window = 2**20 + client.windows.get(stream_id, 0) - 5 - sent[stream_id]
            room = client.windows[0] - 20 - 100 - sum(sent.values())
            if min(window, room) >= len(part) and sent[stream_id] < BODY_BYTES - 2**17:
                sent[stream_id] += len(part)
                client.send(pack_frame(0, 0, stream_id, part))
        client.send(pack_frame(f.Frame.PING, 0, 0, bytes(8)))
        pings = len(client.pings)
        while len(client.pings) == pings:
            assert client.frame() is not None, client.goaways
    assert (client.answers[over[0]].status, client.answers[over[0]].code) == (8, "QUEUE_FULL")
    for stream_id in started:
        client.cancel(stream_id)
    assert client.call("ModelInfer", row()).status == 0
    assert server.gateway.inflight_bytes == 0


def test_data_beyond_a_window_ends_the_connection(server: Served) -> None:
    client = dial(server)
    message = framed(row(model="held"))
    # More messages than are under way at a time: what follows is not taken, and the window not widened.
    client.start("ModelStreamInfer", *[row(model="held")] * 40, end=False)
    waiting(server, 32)
    fitting = (2**20 - 40 * len(message)) // len(message)
    client.send(data_frames(1, message * fitting, last=False))
    assert client.call("ServerLive").status == 0
    assert server.gateway.inflight_bytes <= 2**20
    client.raw.try_send(data_frames(1, message * 40, last=False))
    assert client.goaway()[1] == ErrorCode.FLOW_CONTROL_ERROR
    cancelled(server, 32)
