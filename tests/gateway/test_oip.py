"""Every page of the Open Inference Protocol on the data listener."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, request, row

from salver import __version__
from salver.gateway import schemas
from salver.gateway.limits import Limits


def test_live_and_ready_are_json(server: Served) -> None:
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"live": True, "ready": True}


def test_a_server_that_drains_or_lacks_a_required_endpoint_is_not_ready(serve_model: Serve) -> None:
    server = serve_model(Limits())
    client = server.connect()
    assert client.ask(request("GET", "/v2/health/ready")).status == 200
    eventually(lambda: server.gateway.lanes)
    server.gateway.draining = True
    reply = client.ask(request("GET", "/v2/health/ready"))
    assert (reply.status, reply.json) == (503, {"live": True, "ready": False})
    server.gateway.draining = False
    (endpoint,) = [e for name, e in server.plane.host._endpoints.items() if name == "toy"]
    pool, endpoint.pool = endpoint.pool, None
    assert server.get("/v2/health/ready").status == 503
    assert server.get("/v2/health/live").status == 200
    endpoint.pool = pool


def test_the_server_says_who_it_is_and_only_what_works(server: Served) -> None:
    told = server.get("/v2").json
    assert (told["name"], told["version"]) == ("salver", __version__)
    assert set(told["extensions"]) == {
        "classification",
        "sequence",
        "sequence(string_id)",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "model_configuration",
        "schedule_policy",
    }


def test_all_endpoints_are_listed_those_that_failed_too(server: Served) -> None:
    assert server.get("/v2/models").json == {"models": ["broken", "held", "toy"]}


@pytest.mark.parametrize("path", ["/v2/models/toy", "/v2/models/toy/versions/1.0.0", "/v2/models/toy/versions/1"])
def test_a_model_is_described(server: Served, path: str) -> None:
    assert server.get(path).json == {
        "name": "toy",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


def test_the_configuration_has_what_clients_of_triton_read(server: Served) -> None:
    told = server.get("/v2/models/toy/config").json
    assert told["name"] == "toy"
    assert told["platform"] == "onnxruntime_onnx"
    assert told["max_batch_size"] == 256
    assert told["input"] == [{"name": "X", "data_type": "TYPE_FP32", "dims": [4]}]
    assert told["output"][1] == {"name": "scores", "data_type": "TYPE_FP32", "dims": [3]}
    assert told["model_transaction_policy"] == {"decoupled": False}
    assert told["response_cache"] == {"enable": False}
    assert "max_queue_delay_microseconds" in told["dynamic_batching"]


def test_readiness_is_that_of_the_endpoint(server: Served) -> None:
    for path in ("/v2/models/toy/ready", "/v2/models/toy/versions/1.0.0/ready"):
        reply = server.get(path)
        assert (reply.status, reply.json) == (200, {"name": "toy", "ready": True})
    reply = server.get("/v2/models/broken/ready")
    assert (reply.status, reply.json) == (503, {"name": "broken", "ready": False})
    server.held.available = False
    try:
        assert server.get("/v2/models/held/ready").status == 503
    finally:
        server.held.available = True
    assert server.get("/v2/models/held/ready").json == {"name": "held", "ready": True}
    assert server.get("/v2/models/none/ready").code == "NOT_FOUND"
    assert server.get("/v2/models/toy/versions/9.9.9/ready").code == "NOT_FOUND"


@pytest.mark.parametrize("page", ["", "/config", "/stats"])
def test_pages_of_endpoints_that_are_not_there(server: Served, page: str) -> None:
    reply = server.get(f"/v2/models/none{page}")
    assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert "toy" in reply.error
    assert server.get(f"/v2/models/toy/versions/9{page}").code == "NOT_FOUND"
    assert server.get(f"/v2/models/broken{page}").code == "NOT_READY"


def test_statistics_count_what_happened(serve_model: Serve) -> None:
    server = serve_model(Limits())
    before = server.get("/v2/models/toy/stats").json["model_stats"][0]
    assert before["inference_count"] == before["execution_count"] == 0
    for rows in (1, 1, 3):
        body = {"inputs": [{"name": "X", "shape": [rows, 4], "datatype": "FP32", "data": [0] * 4 * rows}]}
        assert server.infer(body).status == 200
    assert server.infer({"inputs": []}).status == 400
    (after,) = server.get("/v2/models/toy/versions/1.0.0/stats").json["model_stats"]
    assert after["inference_count"] == 5
    assert after["execution_count"] == 3
    assert after["last_inference"] > 1_600_000_000_000
    counted = after["inference_stats"]
    assert counted["success"]["count"] == counted["compute_infer"]["count"] == counted["queue"]["count"] == 3
    assert counted["success"]["ns"] >= counted["compute_infer"]["ns"] > 0
    for side in ("compute_input", "compute_output"):
        assert counted[side]["count"] == 3
        assert counted["success"]["ns"] >= counted[side]["ns"] > 0
        assert all(batch[side]["ns"] > 0 for batch in after["batch_stats"])
    assert counted["fail"] == {"count": 0, "ns": 0}
    assert counted["cache_hit"] == counted["cache_miss"] == {"count": 0, "ns": 0}
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in after["batch_stats"]] == [
        (1, 2),
        (3, 1),
    ]
    everything = server.get("/v2/models/stats").json["model_stats"]
    assert [told["name"] for told in everything] == ["held", "toy"]


def test_trace_and_log_settings_can_be_read(server: Served) -> None:
    for path in ("/v2/trace/setting", "/v2/models/toy/trace/setting"):
        assert server.get(path).json["trace_level"] == ["OFF"]
    assert server.get("/v2/logging").json["log_error"] is True


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/toy/trace/setting", "/v2/logging"])
def test_trace_and_log_settings_cannot_be_changed(server: Served, path: str) -> None:
    reply = server.post(path, b'{"log_verbose_level": 1}')
    assert (reply.status, reply.code) == (501, "UNSUPPORTED")
    assert "read-only" in reply.error


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
def test_clients_have_no_shared_memory(server: Served, kind: str) -> None:
    replies = [server.get(f"/v2/{kind}{tail}") for tail in ("/status", "/region/r/status")]
    tails = ("/register", "/region/r/register", "/unregister", "/region/r/unregister")
    replies += [server.post(f"/v2/{kind}{tail}", b'{"key":"/k","offset":0,"byte_size":64}') for tail in tails]
    assert {(reply.status, reply.code) for reply in replies} == {(501, "UNSUPPORTED")}


@pytest.mark.parametrize(
    "path", ["/v2/repository/index", "/v2/repository/models/toy/load", "/v2/repository/models/toy/unload"]
)
def test_the_repository_is_not_on_this_listener(server: Served, path: str) -> None:
    assert server.post(path, b"{}").code == "NOT_FOUND"


def test_an_id_in_comes_out_unless_it_could_harm(server: Served) -> None:
    assert server.get("/v2", "X-Request-Id: abc 123/$").headers["x-request-id"] == "abc 123/$"
    made = set()
    for bad in ("", "a" * 129, "\x80", "caf\u00e9", "a\tb"):
        data = request("GET", "/v2").replace(b"Host:", b"X-Request-Id: " + bad.encode("latin-1") + b"\r\nHost:")
        made.add(server.ask(data).headers["x-request-id"])
    made.add(server.get("/v2").headers["x-request-id"])
    assert len(made) == 6
    assert all(len(one) < 40 and one.isascii() and one.isprintable() for one in made)
    assert server.get("/nowhere", "X-Request-Id: mine").headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v2/health/live", None, schemas.Live),
        ("/v2/health/ready", None, schemas.Ready),
        ("/v2", None, schemas.ServerMetadata),
        ("/v2/models", None, schemas.Models),
        ("/v2/models/toy", None, schemas.ModelMetadata),
        ("/v2/models/toy/ready", None, schemas.ModelReady),
        ("/v2/models/toy/config", None, schemas.ModelConfiguration),
        ("/v2/models/toy/stats", None, schemas.ModelStatistics),
        ("/v2/trace/setting", None, schemas.TraceSettings),
        ("/v2/logging", None, schemas.LogSettings),
        ("/v2/models/toy/infer", row(), schemas.InferenceResponse),
        ("/v2/models/toy/infer", {**row(), "id": "a", "outputs": [{"name": "label"}]}, schemas.InferenceResponse),
    ],
)
def test_what_is_answered_is_what_is_documented(server: Served, path: str, body: dict | None, kind: type) -> None:
    reply = server.get(path) if body is None else server.infer(body)
    assert reply.headers["content-type"] == "application/json"
    msgspec.json.decode(reply.body, type=kind)
    if body is not None:
        msgspec.json.decode(json.dumps(body), type=schemas.InferenceRequest)
