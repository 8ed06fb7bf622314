"""Answers bit by bit over HTTP: events as they come, one answer for who wants one."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from tests.gateway.streaming import WORDS, check_timing_of_stream, chunked_part, events, publish_talk, spans
from tests.gateway.wire import eventually, request, row
from tests.protocol.test_generate import SIGNATURE, WRONG

from salver.clock import SYSTEM_CLOCK
from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.runtime.lazy import LazyVersion
from salver.telemetry.metrics import VersionMetrics

PATH = "/v2/models/talk"
HI = b'{"text_input":"hi"}'
ONE_ANSWER = ["queue", "hold", "compute", "batch", "placement", "total"]
ONE_OF_TWO = {"model_name": "talk", "model_version": "1.2.3", "text_output": "hi0 "}


def twice(text):
    return (f"{text}{n} " for n in range(2))


@pytest.fixture(scope="module")
def ordinary(serve_model):
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits())


@pytest.fixture(scope="module")
def impatient(serve_model):
    return serve_model(Limits(keep_alive_s=0.5, write_stall_s=0.4, linger_s=0.1))


@pytest.fixture
def talking(server):
    return publish_talk(server, twice)


def ask(path=f"{PATH}/generate_stream", body=HI, *headers):
    return request("POST", path, body, headers)


def tensor(text="hi"):
    return {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": [text]}


def test_each_part_is_an_event_and_the_connection_goes_on(server, talking):
    client = server.connect()
    for _ in range(2):
        client.send(ask())
        status, headers = client.head()
        assert (status, headers["content-type"], headers["transfer-encoding"]) == (200, "text/event-stream", "chunked")
        assert headers["cache-control"] == "no-store"
        assert "content-length" not in headers
        assert [json.loads(data)["text_output"] for data in events(client)] == ["hi0 ", "hi1 "]
    assert client.ask(request("GET", "/v2")).status == 200
    eventually(lambda: [stream.closed for stream in talking.opened] == [1, 1])


def test_an_event_has_the_members_of_the_extension(server, talking):
    client = server.connect()
    client.send(ask(body=b'{"text_input":"hi","id":"7","temperature":0.5}'))
    client.head()
    assert json.loads(events(client)[0]) == {"id": "7"} | ONE_OF_TWO
    (stream,) = talking.opened
    assert (stream.request.id, stream.request.parameters) == ("7", {"temperature": 0.5})


def test_an_event_comes_when_its_part_does(server):
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter(("first", go, "second")))
    client = server.connect()
    client.send(ask())
    client.head()
    assert b"first" in chunked_part(client)
    assert client.received == b""
    server.thread.run(go.set)
    assert b"second" in chunked_part(client)
    assert chunked_part(client) == b""


def test_a_client_of_http_1_0_reads_to_the_end(server, talking):
    for headers in ("", "Connection: keep-alive\r\n"):
        client = server.connect()
        client.send(
            b"POST %b HTTP/1.0\r\n%bContent-Length: 19\r\n\r\n%b"
            % (PATH.encode() + b"/generate_stream", headers.encode(), HI)
        )
        _, told = client.head()
        assert "transfer-encoding" not in told
        assert told["connection"] == "close"
        while client._more():
            pass
        assert client.received.count(b"data: ") == 2
        assert client.received.endswith(b"\n\n")


def test_a_client_that_will_close_is_told_of_chunks_all_the_same(server, talking):
    client = server.connect()
    client.send(ask(f"{PATH}/generate_stream", HI, "Connection: close"))
    _, told = client.head()
    assert (told["transfer-encoding"], told["connection"]) == ("chunked", "close")
    assert len(events(client)) == 2
    assert client.is_closed()


def test_requests_sent_ahead_are_answered_behind_the_stream(server, talking):
    client = server.connect()
    client.send(ask() + request("GET", "/v2/health/live"))
    client.head()
    assert len(events(client)) == 2
    assert client.read().json == {"live": True}


def test_a_stream_without_parts_is_an_answer_without_events(server):
    publish_talk(server, lambda _: iter(()))
    client = server.connect()
    client.send(ask())
    assert client.head()[0] == 200
    assert events(client) == []


def test_until_the_first_part_a_failure_has_its_status(server):
    talking = publish_talk(server, lambda _: iter((SalverError("MODEL_ERROR", "it raised"),)))
    assert server.ask(ask()).code == "MODEL_ERROR"
    talking.refusal = SalverError("QUEUE_FULL", "too many streams")
    reply = server.ask(ask())
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "QUEUE_FULL", "1")
    assert server.ask(ask("/v2/models/nothing/generate_stream")).code == "NOT_FOUND"
    eventually(lambda: [stream.closed for stream in talking.opened] == [1])


def test_a_later_failure_is_the_last_event(server):
    talking = publish_talk(server, lambda _: iter(("a", SalverError("WORKER_LOST", "the worker died"))))
    client = server.connect()
    client.send(ask())
    assert client.head()[0] == 200
    first, last = map(json.loads, events(client))
    assert first["text_output"] == "a"
    assert last == {"error": "the worker died", "code": "WORKER_LOST"}
    assert client.ask(request("GET", "/v2")).status == 200
    eventually(lambda: talking.opened[0].closed == 1)


def test_a_part_that_json_cannot_carry_is_a_failure(server):
    talking = publish_talk(server, lambda _: iter(("a", b"\xff", "c")))
    client = server.connect()
    client.send(ask())
    client.head()
    assert json.loads(events(client)[1])["code"] == "BAD_MODEL_OUTPUT"
    eventually(lambda: (talking.opened[0].given, talking.opened[0].closed) == (2, 1))


def test_a_fault_of_ours_tells_nothing_and_is_logged(server, no_faults):
    publish_talk(server, lambda _: iter(("a", RuntimeError("secret"))))
    client = server.connect()
    client.send(ask())
    client.head()
    last = json.loads(events(client)[1])
    assert last["code"] == "INTERNAL"
    assert "secret" not in last["error"]
    assert len(no_faults) == 1
    no_faults.clear()


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_ends_the_model(server, leave):
    talking = publish_talk(server, lambda _: itertools.repeat("word "))
    client = server.connect()
    client.send(ask())
    client.head()
    chunked_part(client)
    getattr(client, leave)()
    eventually(lambda: talking.opened[0].closed)


def test_a_client_that_does_not_read_pauses_the_model(server):
    talking = publish_talk(server, lambda _: itertools.repeat("x" * 10_000))
    client = server.connect(receive_bytes=4096)
    client.send(ask())
    client.head()
    (stream,) = talking.opened
    (lane,) = server.gateway.lanes
    eventually(lambda: lane._stalled_s is not None)
    given = stream.given
    for _ in range(20):
        server.thread.run(lambda: asyncio.sleep(0))
    assert stream.given == given
    while stream.given == given:
        chunked_part(client)
    client.close()
    eventually(lambda: stream.closed)


def test_a_client_that_reads_too_slowly_is_cut_off(hasty):
    talking = publish_talk(hasty, lambda _: itertools.repeat("x" * 10_000))
    client = hasty.connect(receive_bytes=4096)
    client.send(ask())
    eventually(lambda: talking.opened and talking.opened[0].closed)


def test_a_quiet_stream_is_not_idle(hasty):
    go = hasty.thread.run(asyncio.Event)
    publish_talk(hasty, lambda _: iter(("a", go, "b")))
    client = hasty.connect()
    client.send(ask())
    client.head()
    chunked_part(client)
    since_s = hasty.gateway.now_s
    eventually(lambda: hasty.gateway.now_s > since_s + 2 * hasty.gateway.limits.keep_alive_s)
    hasty.thread.run(go.set)
    assert b"b" in chunked_part(client)


def test_what_was_asked_no_longer_counts_once_the_model_has_it(server):
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter(("a", go)))
    client = server.connect()
    client.send(ask())
    client.head()
    eventually(lambda: server.gateway.inflight_bytes == 0)
    server.thread.run(go.set)
    assert chunked_part(client)
    assert chunked_part(client) == b""


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("generate_stream", "text/event-stream", 200),
        ("generate_stream", "application/json", 406),
        ("infer_stream", "application/json", 406),
        ("generate", "text/event-stream", 406),
        ("generate", "application/json, text/event-stream", 200),
    ],
)
def test_answers_have_the_type_that_is_accepted(server, talking, path, accept, status):
    body = json.dumps({"inputs": [tensor()]}).encode() if path == "infer_stream" else HI
    client = server.connect()
    client.send(ask(f"{PATH}/{path}", body, f"Accept: {accept}", "Content-Type: application/json"))
    assert client.head()[0] == status


def test_generate_answers_in_one_piece(server, talking):
    reply = server.ask(ask(f"{PATH}/versions/1.2.3/generate"))
    assert reply.json == {"model_name": "talk", "model_version": "1.2.3", "text_output": "hi0 hi1 "}
    assert server.ask(ask(f"{PATH}/versions/9/generate")).code == "NOT_FOUND"


def test_whatever_a_form_is_called_it_is_read(server, talking):
    assert server.ask(ask(f"{PATH}/generate", HI, "Content-Type: application/x-www-form-urlencoded")).status == 200


def test_versions_that_do_not_stream_answer_once(server):
    body = b'{"X":[1,2,3,0]}'
    assert server.ask(ask("/v2/models/toy/generate", body)).json["label"] == 2
    client = server.connect()
    client.send(ask("/v2/models/toy/generate_stream", body))
    client.head()
    (event,) = events(client)
    assert json.loads(event)["scores"] == [[1.0, 2.0, 3.0]]
    client.send(ask("/v2/models/toy/infer_stream", json.dumps(row()).encode()))
    client.head()
    assert [json.loads(data)["outputs"][0]["data"] for data in events(client)] == [[2]]


def test_a_client_that_leaves_a_version_that_does_not_stream_withdraws_its_request(server):
    client = server.connect()
    client.send(ask("/v2/models/held/infer_stream", json.dumps(row()).encode()))
    eventually(lambda: server.held.asked)
    client.close()
    eventually(lambda: server.held.asked[0][1].cancelled())


def test_inference_as_events(server, talking):
    body = {"id": "q", "inputs": [tensor()], "parameters": {"triton_enable_empty_final_response": True}}
    client = server.connect()
    client.send(ask(f"{PATH}/infer_stream", json.dumps(body).encode()))
    client.head()
    first, second, last = map(json.loads, events(client))
    assert first["outputs"] == [{"name": "text_output", "datatype": "BYTES", "shape": [1, 1], "data": ["hi0 "]}]
    assert second["id"] == last["id"] == "q"
    assert (last["outputs"], last["parameters"]) == ([], {"triton_final_response": True})


@pytest.mark.parametrize(("headers", "parameters"), [(("X-Salver-Timing: 1",), {}), ((), {"salver_timing": True})])
def test_a_client_that_asks_is_told_its_timing_behind_the_last_part(server, talking, headers, parameters):
    client = server.connect()

    def answers(path, body):
        client.send(ask(path, json.dumps(body | {"id": "7", "parameters": parameters}).encode(), *headers))
        client.head()
        return [json.loads(data) for data in events(client)]

    *parts, last = answers(f"{PATH}/generate_stream", json.loads(HI))
    assert parts == [{"id": "7"} | ONE_OF_TWO, {"id": "7"} | ONE_OF_TWO | {"text_output": "hi1 "}]
    check_timing_of_stream(last.pop("salver_timing"), 2)
    assert last == {"id": "7", "model_name": "talk", "model_version": "1.2.3"}

    *parts, last = answers(f"{PATH}/infer_stream", {"inputs": [tensor()]})
    assert [part.get("parameters") for part in parts] == [None, None]
    check_timing_of_stream(last["parameters"].pop("salver_timing"), 2)
    assert (last["id"], last["parameters"], last["outputs"]) == ("7", {"triton_final_response": True}, [])

    # The one answer of a version that does not stream tells it itself.
    (answer,) = answers("/v2/models/toy/generate_stream", {"X": [1, 2, 3, 0]})
    assert (answer["label"], list(spans(answer["salver_timing"]))) == (2, ONE_ANSWER)
    (answer,) = answers("/v2/models/toy/infer_stream", row())
    assert (len(answer["outputs"]), list(spans(answer["parameters"]["salver_timing"]))) == (2, ONE_ANSWER)


def test_what_a_stream_waited_for_its_version_is_told_first(server, talking):
    router = server.plane.router
    targets = dict(router.targets())
    target = targets["talk"]
    cold = LazyVersion(target.spec, target.manifest, VersionMetrics(), SYSTEM_CLOCK, lambda: None)
    server.thread.run(lambda: router.publish(targets | {"talk": target._replace(service=cold)}, {}))
    client = server.connect()
    client.send(ask(f"{PATH}/generate_stream", HI, "X-Salver-Timing: 1"))
    eventually(lambda: cold.waiting)
    server.thread.run(lambda: cold.serve(talking))
    client.head()
    told = spans(json.loads(events(client)[-1])["salver_timing"])
    assert list(told) == ["load", "first", "compute", "chunks", "placement", "total"]
    load, first = (float(told[name].removeprefix("dur=")) for name in ("load", "first"))
    assert 0 < load <= first


def test_a_stream_without_parts_tells_its_timing_too_and_a_failed_one_why_it_failed(server, talking):
    client = server.connect()
    for say, told in ((iter(()), "salver_timing"), (iter(("a", SalverError("WORKER_LOST", "it died"))), "error")):
        talking.say = lambda _, say=say: say
        client.send(ask(f"{PATH}/generate_stream", HI, "X-Salver-Timing: 1"))
        client.head()
        assert told in json.loads(events(client)[-1])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"inputs": [tensor()], "parameters": {"binary_data_output": True}}, "INVALID_PARAMETER"),
        ({"inputs": [tensor()], "outputs": [{"name": "nothing"}]}, "UNKNOWN_OUTPUT"),
        ({"inputs": []}, "MISSING_INPUT"),
        ({"inputs": [tensor(), tensor()]}, "INVALID_TENSOR"),
        ({"inputs": [tensor() | {"datatype": "FP32"}]}, "INVALID_VALUE"),
        ({"inputs": [tensor() | {"datatype": "FP128"}]}, "WRONG_DATATYPE"),
        ({"inputs": [tensor() | {"shape": [2, 1]}]}, "WRONG_SHAPE"),
        ({"inputs": [tensor() | {"shape": [-1, 1]}]}, "INVALID_TENSOR"),
        ({"inputs": [tensor()], "parameters": {"timeout": -1}}, "INVALID_PARAMETER"),
        ({}, "INVALID_JSON"),
        (b'{"inputs":[],"inputs":[]}', "DUPLICATE_KEY"),
        (b"", "INVALID_JSON"),
        (b"\xff", "INVALID_JSON"),
        pytest.param(b"[" * 100_000, "INVALID_JSON", id="deep"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_goes_on(server, talking, body, code):
    client = server.connect()
    reply = client.ask(ask(f"{PATH}/infer_stream", body if isinstance(body, bytes) else json.dumps(body).encode()))
    assert (reply.status, reply.code) == (400, code)
    assert talking.opened == []
    client.send(ask())
    client.head()
    assert len(events(client)) == 2


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
@pytest.mark.parametrize(("body", "code"), [*WRONG, ({"text_input": ["a"] * 2000}, "WRONG_SHAPE")])
def test_what_is_nothing_to_generate_from_is_refused_and_the_connection_goes_on(server, path, body, code):
    talking = publish_talk(server, twice, Signature(SIGNATURE.inputs, WORDS.outputs))
    client = server.connect()
    reply = client.ask(ask(f"{PATH}/{path}", body if isinstance(body, bytes) else json.dumps(body).encode()))
    assert (reply.status, reply.code) == (400, code)
    assert (talking.opened, talking.asked) == ([], [])
    client.send(ask())
    client.head()
    assert len(events(client)) == 2


def test_a_server_that_stops_says_that_the_stream_is_the_last(serve_model):
    server = serve_model(Limits())
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter((go, "a")))
    client = server.connect()
    client.send(ask())
    eventually(lambda: server.gateway.lanes)
    server.thread.run(server.gateway.drain)
    server.thread.run(go.set)
    assert client.head()[1]["connection"] == "close"
    assert len(events(client)) == 1
    assert client.is_closed()
