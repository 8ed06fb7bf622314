"""MLflow's scoring protocol over real sockets: its shapes, its errors, its pages."""

from __future__ import annotations

import gzip
import json
import threading

import msgspec
import numpy as np
import pytest
from tests.gateway.computing import Computed, publish
from tests.gateway.scoring import SUM, publish_sums
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import _LEAK, RawClient, Reply, eventually, request, row

from salver import __version__
from salver.gateway.choosing import EndpointChoice
from salver.gateway.limits import Limits
from salver.gateway.schemas_scoring import Health, ScoringRequest, ScoringResponse
from salver.protocol.codecs.mlflow import decode_csv
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.tables import Nonfinite
from salver.routing.router import Router


class MlflowClient(RawClient):
    """Errors are what MLflow's client expects."""

    def check(self, reply: Reply) -> None:
        if reply.status == 415:
            assert reply.headers["content-type"] == "text/plain"
            assert not _LEAK.search(reply.body.decode())
        elif "status" not in reply.json:
            assert set(reply.json) == {"error_code", "message"}, reply
            assert reply.json["error_code"].isupper()
            assert not _LEAK.search(reply.json["message"]), reply
        if reply.code is not None:
            assert CATALOGUE[reply.code].http == reply.status


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish_sums(ordinary)


def ask(server: Served, data: bytes) -> Reply:
    plain = server.connect()
    client = MlflowClient(plain.socket)
    try:
        return client.ask(data)
    finally:
        client.close()


def score(server: Served, body: object, *headers: str, endpoint: str | None = "sum") -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = (f"X-Salver-Endpoint: {endpoint}",) if endpoint else ()
    return ask(server, request("POST", "/invocations", data, (*named, *headers)))


def test_one_output_is_a_list_and_several_are_records(server: Served) -> None:
    reply = score(server, {"inputs": [[1, 2, 3], [4, 5, 6]]})
    assert (reply.status, reply.json) == (200, {"predictions": [6, 15]})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-salver-version"] == "sum@1.2.3"
    reply = score(server, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}}, endpoint="both")
    assert reply.json == {
        "predictions": [{"sum": 6, "twice": [2, 4, 6]}],
        "salver_warnings": ["value 9 lies outside"],
    }


def test_what_is_answered_is_what_is_documented(server: Served) -> None:
    asked = {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}, "params": {}}
    msgspec.json.decode(json.dumps(asked).encode(), type=ScoringRequest)
    for endpoint in ("sum", "both"):
        msgspec.json.decode(score(server, asked, endpoint=endpoint).body, type=ScoringResponse)
    msgspec.json.decode(ask(server, request("GET", "/ping")).body, type=Health)


@pytest.mark.parametrize("kind", ["text/csv", "TEXT/CSV; charset=UTF-8", 'text/csv; charset="utf-8"'])
def test_csv_is_a_frame(server: Served, kind: str) -> None:
    assert score(server, b"a,b,c\n1,2,3\n", f"Content-Type: {kind}").json == {"predictions": [6]}


def test_a_large_body_is_read_beside_the_loop_and_answered_alike(server: Served) -> None:
    lines = b"a,b,c\n" + b"0.25,0.5,0.25\n" * 20_000
    reply = score(server, lines, "Content-Type: text/csv")
    assert reply.json["predictions"] == [1.0] * 20_000
    spoilt = score(server, lines + b"1,2\n", "Content-Type: text/csv")
    assert (spoilt.status, spoilt.code) == (400, "INVALID_TENSOR")


def test_content_codings_deadlines_and_timing_are_those_of_every_protocol(
    server: Served, models: dict[str, Computed]
) -> None:
    packed = gzip.compress(json.dumps({"inputs": [[1, 2, 3]]}).encode())
    reply = score(
        server, packed, "Content-Encoding: gzip", "Request-Timeout: 2.5", "Priority: u=0", "X-Salver-Timing: 1"
    )
    assert reply.json == {"predictions": [6]}
    assert "compute;dur=1.000" in reply.headers["server-timing"]
    asked = models["sum"].asked[-1]
    assert asked.deadline_s - asked.received_s == pytest.approx(2.5)
    assert asked.priority == 1


def test_nan_comes_and_leaves_as_python_writes_it_unless_the_deployment_says_null(server: Served) -> None:
    publish(server, nulls=(SUM, lambda inputs: {"sum": inputs["X"].sum(axis=1)}, {"nonfinite": Nonfinite.NULL}))
    body = b'{"dataframe_split":{"data":[[1,NaN,3]]}}'
    assert score(server, body).body == b'{"predictions":[NaN]}'
    assert score(server, body, endpoint="nulls").json == {"predictions": [None]}


def test_the_open_inference_protocol_is_understood_on_the_same_path(server: Served) -> None:
    usual = server.infer(row(1, 2, 3, 4)).json
    assert score(server, row(1, 2, 3, 4), endpoint="toy").json == usual
    head = json.dumps(
        {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
    ).encode()
    data = head + np.array([1, 2, 3, 4], "<f4").tobytes()
    kind = "Content-Type: application/octet-stream"
    reply = score(server, data, kind, f"Inference-Header-Content-Length: {len(head)}", endpoint="toy")
    assert reply.json == usual
    assert score(server, {"inputs": [{"name": "X", "shape": [1], "datatype": "FP32"}]}, endpoint="toy").status == 400


def test_the_endpoint_is_that_of_the_header_else_the_one_that_is_set_else_the_only_one(server: Served) -> None:
    reply = score(server, {"inputs": [[1, 2, 3]]}, endpoint=None)
    assert (reply.status, reply.code) == (400, "INVALID_PARAMETER")
    for told in ("X-Salver-Endpoint", "server.default_endpoint", "both, broken"):
        assert told in reply.json["message"]
    assert score(server, {"inputs": []}, endpoint="no/such").status == 404


def test_a_set_endpoint_answers_and_the_only_one_needs_no_name(server: Served) -> None:
    exchange = type("Asked", (), {"headers": {}})()
    router = Router()
    with pytest.raises(SalverError, match="nothing is deployed"):
        EndpointChoice(router, "").of(exchange)
    router.publish({}, {"one": None})
    assert EndpointChoice(router, "").of(exchange) == "one"
    router.publish({}, {"one": None, "two": None})
    assert EndpointChoice(router, "two").of(exchange) == "two"
    exchange.headers[b"x-salver-endpoint"] = b"one"
    assert EndpointChoice(router, "two").of(exchange) == "one"


BAD: list[tuple[object, tuple[str, ...], int, str]] = [
    (b"", (), 400, "INVALID_JSON"),
    (b"[1,2,3]", (), 400, "INVALID_JSON"),
    (b'{"inputs":[[1,2,3]]', (), 400, "INVALID_JSON"),
    (b'{"inputs":[[1,2,3]],"inputs":[[1,2,3]]}', (), 400, "DUPLICATE_KEY"),
    (b'{"instances":[{"X":[1,2,3],"X":[1,2,3]}]}', (), 400, "DUPLICATE_KEY"),
    (b'{"inputs":' + b"[" * 50_000, (), 400, "INVALID_JSON"),
    (b'{"inputs":' + b"[" * 400 + b"]" * 400 + b"}", (), 400, "WRONG_SHAPE"),
    (b'{"inputs":[[1,2,1' + b"0" * 4000 + b"]]}", (), 400, "INVALID_VALUE"),
    (b'{"inputs":[[1,2,1e999]]}', (), 400, "INVALID_JSON"),
    (b'{"inputs":[[1,2,"3"]]}', (), 400, "WRONG_DATATYPE"),
    (b'{"inputs":[[1,2,true]]}', (), 400, "WRONG_DATATYPE"),
    (b'{"inputs":[[1,2,3],[4,5]]}', (), 400, "WRONG_SHAPE"),
    (b'{"inputs":[1,2,3]}', (), 400, "WRONG_SHAPE"),
    (b'{"inputs":[]}', (), 400, "WRONG_SHAPE"),
    (b'{"inputs":null}', (), 400, "WRONG_DATATYPE"),
    (b'{"inputs":{"a":[1]}}', (), 400, "MISSING_INPUT"),
    (b'{"messages":[{"role":"user","content":"hi"}]}', (), 400, "INVALID_JSON"),
    (b'{"dataframe_split":{"columns":["a","b"],"data":[[1,2]]}}', (), 400, "MISSING_INPUT"),
    (b'{"dataframe_records":[{"a":1}]}', (), 400, "MISSING_INPUT"),
    (b'{"inputs":[[1,2,3]]}', ("Content-Type: application/x-parquet",), 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b'{"inputs":[[1,2,3]]}', ("Content-Type: application/json; format=pandas",), 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"a,b,c\n1,2,3", ("Content-Type: text/csv; charset=latin-1",), 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"a,b,c\n1,2", ("Content-Type: text/csv",), 400, "INVALID_TENSOR"),
    (b"", ("Content-Type: text/csv",), 400, "INVALID_TENSOR"),
    (b"\x00\xff", ("Content-Type: text/csv",), 400, "INVALID_VALUE"),
    (b"{}", ("Content-Type: application/octet-stream",), 400, "INVALID_JSON"),
    (b'{"inputs":[[1,2,3]]}', ("Content-Encoding: br",), 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b'{"inputs":[[1,2,3]]}', ("Content-Encoding: gzip",), 400, "BAD_HTTP"),
    (b'{"inputs":[[1,2,3]]}', ("Accept: text/html",), 406, "NOT_ACCEPTABLE"),
    (b'{"inputs":[[1,2,3]]}', ("Request-Timeout: soon",), 400, "INVALID_PARAMETER"),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), BAD)
def test_what_is_wrong_is_told_in_mlflow_s_shape_and_the_server_lives(
    server: Served, body: bytes, headers: tuple[str, ...], status: int, code: str
) -> None:
    reply = score(server, body, *headers)
    assert (reply.status, reply.code) == (status, code), reply
    assert score(server, {"inputs": [[1, 2, 3]]}).json == {"predictions": [6]}


def test_a_body_beyond_the_limit_and_a_model_that_fails_have_mlflow_s_names(server: Served) -> None:
    failed = score(server, {"inputs": [[1, 2, 3]]}, endpoint="broken")
    assert (failed.status, failed.json["error_code"]) == (500, "INTERNAL_ERROR")
    assert score(server, {"inputs": [[1, 2, 3]]}, endpoint="nothing").json["error_code"] == "ENDPOINT_NOT_FOUND"
    bomb = gzip.compress(b'{"inputs":[' + b" " * 2**21 + b"]}")
    large = score(server, bomb, "Content-Encoding: gzip")
    assert (large.status, large.json["error_code"]) == (413, "RESOURCE_EXHAUSTED")


def test_only_large_bodies_are_read_beside_the_loop(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[int] = []

    def noted(*given: object) -> object:
        readers.append(threading.get_ident())
        return decode_csv(*given)

    monkeypatch.setattr("salver.gateway.mlflow.decode_csv", noted)
    for rows in (1, 30_000):
        assert score(server, b"a,b,c\n" + b"1,2,3\n" * rows, "Content-Type: text/csv").status == 200
    loop = server.thread.run(threading.get_ident)
    assert [reader == loop for reader in readers] == [True, False]


def test_nothing_runs_for_a_client_that_left_while_its_body_was_read(
    server: Served, models: dict[str, Computed], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def held(*given: object) -> object:
        reading.set()
        assert go_on.wait(10)
        return decode_csv(*given)

    monkeypatch.setattr("salver.gateway.mlflow.decode_csv", held)
    client = server.connect()
    lines = b"a,b,c\n" + b"1,2,3\n" * 30_000
    client.send(request("POST", "/invocations", lines, ("X-Salver-Endpoint: sum", "Content-Type: text/csv")))
    assert reading.wait(10)
    before = len(models["sum"].asked)
    client.reset()
    eventually(lambda: not server.gateway.lanes)
    go_on.set()
    monkeypatch.undo()
    assert score(server, lines, "Content-Type: text/csv").status == 200
    assert len(models["sum"].asked) == before + 1


def test_the_pages_of_mlflow_and_sagemaker_tell_health_and_version(server: Served) -> None:
    for path in ("/ping", "/health"):
        reply = ask(server, request("GET", path))
        assert (reply.status, reply.json) == (200, {"status": "Healthy"})
    assert ask(server, request("GET", "/version")).body == __version__.encode()
    server.gateway.drain()
    try:
        unwell = ask(server, request("GET", "/ping"))
        assert (unwell.status, unwell.json) == (503, {"status": "Unhealthy"})
    finally:
        server.gateway.draining = False
