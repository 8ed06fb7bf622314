"""Messages and their answers, with a client that people use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct

import numpy as np
import pytest
from tests.gateway.streaming import check_timing_of_stream, publish_talk, spans
from tests.gateway.websocket.frames import dial, frame
from tests.gateway.wire import eventually, row
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from salver.protocol.errors import SalverError


@pytest.fixture
def talking(server):
    return publish_talk(server, lambda text: (f"{text}{n}" for n in range(2)))


@pytest.fixture
def talk_to(server):
    with contextlib.ExitStack() as opened:
        yield lambda model, **more: opened.enter_context(
            connect(f"ws://127.0.0.1:{server.port}/v2/models/{model}/ws", **more)
        )


def asked(text="hi", **more):
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    return json.dumps({"inputs": [tensor]} | more)


def told(socket):
    return json.loads(socket.recv(timeout=10))


def test_a_version_that_does_not_stream_answers_each_message_once(talk_to):
    socket = talk_to("toy")
    for name in ("a", "b"):
        socket.send(json.dumps(row(3, 2, 1, 0) | {"id": name}))
    assert [told(socket)["id"] for _ in range(2)] == ["a", "b"]
    socket.send(json.dumps(row(3, 2, 1, 0)))
    assert told(socket)["outputs"][1]["data"] == [3.0, 2.0, 1.0]


def test_one_that_streams_answers_several_times_and_says_which_was_the_last(talk_to, talking):
    socket = talk_to("talk")
    socket.send(asked(id="7"))
    got = [told(socket) for _ in range(3)]
    assert [each["outputs"][0]["data"][0] for each in got[:2]] == ["hi0", "hi1"]
    assert got[2] == {
        "model_name": "talk",
        "model_version": "1.2.3",
        "id": "7",
        "parameters": {"triton_final_response": True},
        "outputs": [],
    }


@pytest.mark.parametrize("by", ["header", "parameter"])
def test_a_client_that_asks_is_told_its_timing_with_the_last_answer(talk_to, talking, by):
    more = {"additional_headers": {"X-Salver-Timing": "1"}} if by == "header" else {}
    wish = {"parameters": {"salver_timing": True}} if by == "parameter" else {}
    streaming, other = talk_to("talk", **more), talk_to("toy", **more)
    streaming.send(asked(**wish))
    first, second, last = (told(streaming) for _ in range(3))
    assert "parameters" not in first | second
    assert last["parameters"].pop("triton_final_response")
    check_timing_of_stream(last["parameters"]["salver_timing"], 2)
    other.send(json.dumps(row() | wish))
    answer = told(other)
    found = spans(answer["parameters"]["salver_timing"])
    assert list(found) == ["queue", "hold", "compute", "batch", "placement", "total"]
    assert len(answer["outputs"]) == 2


def test_answers_come_in_the_order_of_the_messages(server, talk_to):
    socket = talk_to("held")
    for name in ("a", "b"):
        socket.send(json.dumps(row() | {"id": name}))
    eventually(lambda: len(server.held.asked) == 2)
    server.thread.run(lambda: server.held.asked.reverse())
    server.answer_held(2)
    assert [told(socket)["id"] for _ in range(2)] == ["a", "b"]


def test_tensors_in_binary_both_ways(talk_to):
    socket = talk_to("toy")
    head = json.dumps(
        {
            "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        }
    ).encode()
    socket.send(struct.pack("<I", len(head)) + head + np.array([1, 2, 3, 0], np.float32).tobytes())
    answer = socket.recv(timeout=10)
    (size,) = struct.unpack_from("<I", answer)
    assert json.loads(answer[4 : 4 + size])["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(answer[4 + size :], np.float32).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "INVALID_JSON"),
        ("nonsense", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        ("{}", "INVALID_JSON"),
        pytest.param("[" * 100_000, "INVALID_JSON", id="deep"),
        (b"", "INVALID_TENSOR"),
        (b"\1\0\0", "INVALID_TENSOR"),
        (struct.pack("<I", 2**32 - 1) + b"{}", "INVALID_TENSOR"),
        (struct.pack("<I", 0), "INVALID_JSON"),
        (struct.pack("<I", 2) + b"{}rest", "INVALID_JSON"),
        (asked()[:-1] + ',"inputs":[]}', "DUPLICATE_KEY"),
        (asked().replace("text_input", "other"), "UNKNOWN_INPUT"),
        (asked().replace("BYTES", "FP32"), "INVALID_VALUE"),
        (asked(parameters={"timeout": -1}), "INVALID_PARAMETER"),
    ],
)
def test_a_message_that_is_no_request_is_an_error_and_the_conversation_goes_on(talk_to, talking, message, code):
    socket = talk_to("talk")
    socket.send(message)
    error = told(socket)
    assert error["code"] == code
    assert set(error) <= {"error", "code", "id"}
    socket.send(asked())
    assert told(socket)["outputs"][0]["data"] == ["hi0"]


def test_an_error_has_the_id_of_its_request(talk_to, talking):
    socket = talk_to("talk")
    socket.send(asked(id="q").replace("text_input", "other"))
    assert told(socket)["id"] == "q"


def test_a_model_that_fails_in_the_middle_is_an_error_behind_what_came(talk_to, talking):
    talking.say = lambda _: iter(("a", SalverError("WORKER_LOST", "the worker died")))
    socket = talk_to("talk")
    socket.send(asked(id="q"))
    assert told(socket)["outputs"][0]["data"] == ["a"]
    assert told(socket) == {"error": "the worker died", "code": "WORKER_LOST", "id": "q"}


def test_what_json_cannot_carry_is_an_error(server, talk_to, talking):
    talking.say = lambda _: iter(("a", b"\xff", "c"))
    socket = talk_to("talk")
    socket.send(asked())
    assert told(socket)["outputs"][0]["data"] == ["a"]
    assert told(socket)["code"] == "BAD_MODEL_OUTPUT"
    socket.send("{}")
    assert told(socket)["code"] == "INVALID_JSON"
    eventually(lambda: talking.opened[0].closed)


def test_a_fault_of_ours_tells_nothing(talk_to, talking, no_faults):
    talking.say = lambda _: iter((RuntimeError("secret"),))
    socket = talk_to("talk")
    socket.send(asked())
    error = told(socket)
    assert error["code"] == "INTERNAL"
    assert "secret" not in error["error"]
    assert no_faults
    no_faults.clear()


def test_refusals_are_counted(server, talk_to, talking):
    counted = server.gateway.metrics.refusals
    before = counted["talk", "INVALID_JSON"]
    socket = talk_to("talk")
    socket.send("{}")
    told(socket)
    assert counted["talk", "INVALID_JSON"] == before + 1


def test_the_headers_of_the_handshake_speak_for_each_message(server, talk_to):
    socket = talk_to("held", additional_headers={"Request-Timeout": "5"})
    socket.send(json.dumps(row()))
    eventually(lambda: server.held.asked)
    request = server.held.asked[0][0]
    assert request.deadline_s - request.received_s == pytest.approx(5.0)
    first = request.trace
    socket.send(json.dumps(row()))
    eventually(lambda: len(server.held.asked) == 2)
    assert (first + b"|" + server.held.asked[1][0].trace).replace(b"-1|", b"|").endswith(b"-2")


def test_an_endpoint_that_is_taken_away_is_an_error(server, talk_to, talking):
    socket = talk_to("talk")
    router = server.plane.router
    targets = dict(router.targets())
    del targets["talk"]
    server.thread.run(lambda: router.publish(targets, {}))
    socket.send(asked(id="x"))
    assert told(socket)["code"] == "NOT_FOUND"


def test_a_client_that_leaves_withdraws_what_it_asked(server, talk_to):
    socket = talk_to("held")
    socket.send(json.dumps(row()))
    eventually(lambda: server.held.asked)
    socket.close()
    eventually(lambda: server.held.asked[0][1].cancelled())
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)
    eventually(lambda: server.gateway.inflight_bytes == 0)


def test_bytes_count_as_in_flight_until_they_are_answered(server, talking):
    go = server.thread.run(asyncio.Event)
    talking.say = lambda _: iter((go, "a"))
    socket = dial(server)
    body = asked()
    socket.send(frame(body))
    eventually(lambda: server.gateway.inflight_bytes == len(body))
    server.thread.run(go.set)
    socket.told()
    eventually(lambda: server.gateway.inflight_bytes == 0)
