"""What a request says of its time and its urgency, over HTTP and gRPC, and what refusals say of trying again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.gateway.grpc.client import Answer, dial
from tests.gateway.grpc.client import row as grpc_row
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import Reply, eventually, request, row

from salver.gateway.contracts import read_wishes
from salver.gateway.limits import Limits
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.request import Request

DEFAULT_S = 30.0


@pytest.fixture(scope="module")
def grpc_server(serve_model: Serve) -> Served:
    return serve_model(Limits(), grpc=True)


@pytest.fixture
def grpc(grpc_server: Served) -> Iterator[Served]:
    yield grpc_server
    grpc_server.settle()


# What is read.


@pytest.mark.parametrize(
    ("parameters", "headers", "found"),
    [
        (None, {}, (30.0, 0)),
        ({}, {}, (30.0, 0)),
        ({"timeout": 1_500_000}, {}, (1.5, 0)),
        ({"timeout": 0}, {}, (30.0, 0)),
        ({"timeout": 60_000_000}, {}, (30.0, 0)),  # it can only be shortened
        ({"priority": 1}, {}, (30.0, 1)),
        ({"priority": 0}, {b"priority": b"u=2"}, (30.0, 0)),
        ({"priority": 2**32 - 1}, {}, (30.0, 2**32 - 1)),
        (None, {b"request-timeout": b"2"}, (2.0, 0)),
        (None, {b"request-timeout": b"0.25"}, (0.25, 0)),
        (None, {b"request-timeout": b"0"}, (30.0, 0)),
        (None, {b"request-timeout": b"3600"}, (30.0, 0)),
        (None, {b"x-envoy-expected-rq-timeout-ms": b"1500"}, (1.5, 0)),
        (None, {b"request-timeout": b"2", b"x-envoy-expected-rq-timeout-ms": b"1500"}, (1.5, 0)),
        ({"timeout": 1_000_000}, {b"request-timeout": b"2"}, (1.0, 0)),
        ({"timeout": 3_000_000}, {b"request-timeout": b"2"}, (2.0, 0)),
        (None, {b"priority": b"u=0"}, (30.0, 1)),
        (None, {b"priority": b"u=7"}, (30.0, 8)),
        (None, {b"priority": b"i, u=5"}, (30.0, 6)),
        (None, {b"priority": b"u=1;x=2,i"}, (30.0, 2)),
        (None, {b"priority": b"u=1,u=5"}, (30.0, 6)),  # of a key that comes twice the last counts
        ({"priority": 3}, {b"priority": b"u=5"}, (30.0, 3)),
        # RFC 9218 has what it does not define ignored.
        (None, {b"priority": b"u=8"}, (30.0, 0)),
        (None, {b"priority": b"u=-1"}, (30.0, 0)),
        (None, {b"priority": b"u=12"}, (30.0, 0)),
        (None, {b"priority": b"U=1, hu=2, u, \xff"}, (30.0, 0)),
        (None, {b"priority": b""}, (30.0, 0)),
    ],
)
def test_the_time_and_the_urgency_that_a_request_asks_for(
    parameters: dict[str, Any] | None, headers: dict[bytes, bytes], found: tuple[float, int]
) -> None:
    assert read_wishes(parameters, headers, DEFAULT_S) == pytest.approx(found)


BAD_SECONDS = [b"-1", b"+1", b"1e3", b"inf", b"nan", b"", b" 1", b"1 ", b"1,5", b"0x10", b"3600.5", b"9" * 40, b"\xb2"]
BAD_HEADERS = [(name, value) for name in (b"request-timeout",) for value in BAD_SECONDS] + [
    (b"x-envoy-expected-rq-timeout-ms", value) for value in (b"-1", b"soon", b"3600001")
]
BAD_PARAMETERS: list[dict[str, Any]] = [
    {"timeout": value} for value in (-1, 1.5, "1", True, None, 3_600_000_001, 10**400)
] + [{"priority": value} for value in (-1, 1.0, "1", True, None, 2**32, 10**400, [1])]


@pytest.mark.parametrize(("name", "value"), BAD_HEADERS)
def test_a_header_that_is_no_time_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(SalverError) as raised:
        read_wishes(None, {name: value}, DEFAULT_S)
    assert raised.value.code == "INVALID_PARAMETER"
    assert name.decode() in raised.value.message
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("parameters", BAD_PARAMETERS, ids=lambda parameters: str(parameters)[:40])
def test_a_parameter_that_is_none_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(SalverError) as raised:
        read_wishes(parameters, {}, DEFAULT_S)
    assert raised.value.code == "INVALID_PARAMETER"
    assert len(str(raised.value)) < 300


# Through the doors.


def asked(server: Served) -> Request:
    """The next request that reaches the held model."""
    eventually(lambda: server.held.asked)
    found = server.held.asked[0][0]
    server.answer_held()
    return found


def over_http(server: Served, *headers: str, **parameters: Any) -> Request:
    body = json.dumps({**row(), "parameters": parameters} if parameters else row()).encode()
    client = server.connect()
    client.send(request("POST", "/v2/models/held/infer", body, headers))
    found = asked(server)
    assert client.read().status == 200
    return found


def over_grpc(server: Served, *headers: tuple[str, str], **parameters: int) -> Request:
    sent = grpc_row(model="held")
    for name, value in parameters.items():
        sent.parameters[name].int64_param = value
    client = dial(server)
    stream_id = client.start("ModelInfer", sent, headers=headers)
    found = asked(server)
    assert client.answer(stream_id).status == 0
    return found


def within_s(found: Request) -> float:
    return found.deadline_s - found.received_s


def test_over_http_by_parameters_and_by_headers(server: Served) -> None:
    plain = over_http(server)
    assert (within_s(plain), plain.priority) == (pytest.approx(30), 0)
    by_parameters = over_http(server, timeout=2_000_000, priority=3)
    assert (within_s(by_parameters), by_parameters.priority) == (pytest.approx(2), 3)
    by_headers = over_http(server, "Request-Timeout: 1.5", "Priority: u=1, i")
    assert (within_s(by_headers), by_headers.priority) == (pytest.approx(1.5), 2)
    assert within_s(over_http(server, "X-Envoy-Expected-Rq-Timeout-Ms: 250")) == pytest.approx(0.25)


def test_over_grpc_by_parameters_by_metadata_and_by_the_deadline_of_the_call(grpc: Served) -> None:
    plain = over_grpc(grpc)
    assert (within_s(plain), plain.priority) == (pytest.approx(30), 0)
    by_parameters = over_grpc(grpc, timeout=2_000_000, priority=3)
    assert (within_s(by_parameters), by_parameters.priority) == (pytest.approx(2), 3)
    by_metadata = over_grpc(grpc, ("request-timeout", "1.5"), ("priority", "u=1"))
    assert (within_s(by_metadata), by_metadata.priority) == (pytest.approx(1.5), 2)
    assert within_s(over_grpc(grpc, ("grpc-timeout", "4S"), timeout=9_000_000)) == pytest.approx(4)
    assert within_s(over_grpc(grpc, ("grpc-timeout", "9S"), timeout=4_000_000)) == pytest.approx(4)


def test_bad_values_are_refused_over_http_and_over_grpc(server: Served, grpc: Served) -> None:
    for header in ("Request-Timeout: soon", "Request-Timeout: -1", "X-Envoy-Expected-Rq-Timeout-Ms: 1e9"):
        refused = server.infer(row(), header)
        assert (refused.status, refused.code) == (400, "INVALID_PARAMETER")
    for parameter in ({"priority": -1}, {"priority": "high"}, {"timeout": 0.5}):
        assert server.infer({**row(), "parameters": parameter}).code == "INVALID_PARAMETER"
    answer = dial(grpc).call("ModelInfer", grpc_row(), headers=[("request-timeout", "soon")])
    assert (answer.status, answer.code) == (3, "INVALID_PARAMETER")
    negative = grpc_row()
    negative.parameters["priority"].int64_param = -1
    assert dial(grpc).call("ModelInfer", negative).code == "INVALID_PARAMETER"


# Why it took as long as it did.


def test_a_header_asks_for_the_timing_and_a_setting_tells_it_unasked(
    server: Served, grpc: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timings() -> list[str]:
        return [
            server.infer(row()).headers.get("server-timing", ""),
            dial(grpc).call("ModelInfer", grpc_row()).trailers.get("server-timing", ""),
        ]

    assert timings() == ["", ""]
    assert server.infer(row(), "X-Salver-Timing: 1").headers["server-timing"].startswith("queue;dur=")
    by_metadata = dial(grpc).call("ModelInfer", grpc_row(), headers=[("x-salver-timing", "1")])
    assert by_metadata.trailers["server-timing"].startswith("queue;dur=")
    refused = dial(grpc).call("ModelInfer", grpc_row(model="nothing"), headers=[("x-salver-timing", "1")])
    assert refused.trailers["server-timing"].startswith("total;dur=")
    for each in (server, grpc):
        monkeypatch.setattr(each.gateway, "tells_timing", True)
    for told in timings():
        names = [span.partition(";")[0] for span in told.split(", ")]
        assert names == ["queue", "hold", "compute", "batch", "placement", "total"]
        assert 'placement;desc="inline"' in told


# Trying again.


def fail_held(server: Served, error: SalverError) -> None:
    eventually(lambda: server.held.asked)
    _, answer = server.held.asked.pop(0)
    server.thread.run(lambda: answer.set_exception(error))


def refused_http(server: Served, error: SalverError) -> Reply:
    client = server.connect()
    client.send(request("POST", "/v2/models/held/infer", json.dumps(row()).encode()))
    fail_held(server, error)
    return client.read()


def refused_grpc(server: Served, error: SalverError) -> Answer:
    client = dial(server)
    stream_id = client.start("ModelInfer", grpc_row(model="held"))
    fail_held(server, error)
    return client.answer(stream_id)


@pytest.mark.parametrize("code", ["QUEUE_FULL", "OVERLOADED", "NOT_READY", "WORKER_LOST"])
@pytest.mark.parametrize(
    ("retry_after_s", "seconds", "milliseconds"),
    [
        (None, "1", "1000"),
        (0.0, "1", "1"),
        (0.0123, "1", "13"),
        (1.0, "1", "1000"),
        (2.001, "3", "2001"),
        (60.0, "60", "60000"),
    ],
)
def test_a_refusal_says_when_to_try_again(
    server: Served, grpc: Served, code: str, retry_after_s: float | None, seconds: str, milliseconds: str
) -> None:
    error = SalverError(code, "not now", retry_after_s=retry_after_s)
    reply = refused_http(server, error)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (CATALOGUE[code].http, code, seconds)
    answer = refused_grpc(grpc, error)
    assert (answer.code, answer.trailers["retry-after"]) == (code, seconds)
    # gRFC A6: what a client with a retry policy waits instead of its own back-off.
    assert answer.trailers["grpc-retry-pushback-ms"] == milliseconds


@pytest.mark.parametrize("code", ["MODEL_ERROR", "DEADLINE_EXCEEDED", "POISON_INPUT"])
def test_where_trying_again_makes_no_sense_nothing_is_said_of_it(server: Served, grpc: Served, code: str) -> None:
    error = SalverError(code, "not so", retry_after_s=5.0)
    assert "retry-after" not in refused_http(server, error).headers
    assert not {"retry-after", "grpc-retry-pushback-ms"} & set(refused_grpc(grpc, error).trailers)
