"""Metrics, OpenAPI and the page for people."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, held_request, request, row

from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError


def samples(server: Served) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(reply.body.decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


UNDESCRIBED = ("/metrics", "/version", "/openapi.json", "/docs", "/v2/docs", "/v2/docs/dataplane.json", "/swagger.json")


def test_metrics_count_what_happened(serve_model: Serve) -> None:
    server = serve_model(Limits())
    for _ in range(3):
        assert server.infer(row()).status == 200
    assert server.infer({"inputs": []}).code == "MISSING_INPUT"
    assert server.infer(b"{").code == "INVALID_JSON"
    found = samples(server)
    assert found["salver_requests_total", "toy", "1.0.0"] == 3
    assert found["salver_rows_total", "toy", "1.0.0"] == 3
    assert found["salver_request_seconds_count", "toy", "1.0.0"] == 3
    assert found["salver_batch_rows_sum", "toy", "1.0.0"] == 3
    assert found["salver_refusals_total", "MISSING_INPUT", "toy"] == 1
    assert found["salver_refusals_total", "INVALID_JSON", "toy"] == 1
    assert found["salver_available", "toy", "1.0.0"] == 1
    assert found["salver_connections_opened_total",] == 6


def test_a_refusal_is_counted_once(serve_model: Serve) -> None:
    server = serve_model(Limits())
    refusals = server.gateway.metrics.refusals
    server.ask(b"FROB / HTTP/1.1\r\n\r\n")
    assert refusals == {("other", "BAD_HTTP"): 1}
    client = server.connect()
    client.send(request("GET", "/v2") + b"GET / HTTP/1.1\r\n\r\n")
    client.read()
    client.read()
    assert refusals == {("other", "BAD_HTTP"): 2}


def test_a_request_that_failed_behind_the_door_is_no_refusal(server: Served) -> None:
    before = sum(server.gateway.metrics.refusals.values())
    client = server.connect()
    client.send(held_request())
    eventually(lambda: server.held.asked)
    error = SalverError("MODEL_ERROR", "held@1.0.0 raised an exception on this request")
    server.thread.run(lambda: server.held.asked.pop()[1].set_exception(error))
    assert client.read().code == "MODEL_ERROR"
    assert sum(server.gateway.metrics.refusals.values()) == before


def test_names_that_clients_invent_become_no_labels(server: Served) -> None:
    for n in range(20):
        assert server.infer(row(), model=f"invented-{n}").status == 404
        assert server.get(f"/v2/models/invented-{n}/config").status == 404
    found = samples(server)
    assert found["salver_refusals_total", "NOT_FOUND", "other"] >= 40
    assert not [key for key in found if any("invented" in part for part in key)]


def test_openapi_covers_the_route_table_and_nothing_else(server: Served) -> None:
    described = server.get("/openapi.json").json
    listed = {(verb.upper(), path) for path, verbs in described["paths"].items() for verb in verbs}
    assert listed == {(route.method, route.template) for route in server.gateway.routes.routes}
    names = [operation["operationId"] for verbs in described["paths"].values() for operation in verbs.values()]
    assert len(set(names)) == len(names)


def test_openapi_tells_the_shape_of_an_inference(server: Served) -> None:
    described = server.get("/openapi.json").json
    schemas = described["components"]["schemas"]
    for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
        operation = described["paths"][path]["post"]
        wanted = operation["requestBody"]["content"]["application/json"]["schema"]
        assert wanted == {"$ref": "#/components/schemas/InferenceRequest"}
        answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answered == {"$ref": "#/components/schemas/InferenceResponse"}
        assert {parameter["name"] for parameter in operation["parameters"]} == set(re.findall(r"{(\w+)}", path))
        assert operation["security"] == [{"token": []}]
    assert schemas["InferenceRequest"]["required"] == ["inputs"]
    assert set(schemas["RequestInput"]["required"]) == {"name", "shape", "datatype"}
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', server.get("/openapi.json").body.decode()))
    assert referred <= set(schemas)


def test_every_page_that_answers_json_tells_its_shape(server: Served) -> None:
    for path, verbs in server.get("/openapi.json").json["paths"].items():
        if (
            "get" in verbs
            and "sharedmemory" not in path
            and not path.endswith("/ws")
            and "/labels/" not in path
            and path not in UNDESCRIBED
        ):
            assert "content" in verbs["get"]["responses"]["200"], path


def test_the_page_for_people_lists_every_route(server: Served) -> None:
    reply = server.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = reply.body.decode()
    assert all(route.template in page for route in server.gateway.routes.routes)
    assert "<script" not in page
