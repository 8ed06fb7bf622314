"""Azure's scoring route and the routes that Vertex AI chooses, over real sockets."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.gateway.computing import Computed
from tests.gateway.scoring import publish_sums
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import _LEAK, RawClient, Reply, request

from salver.gateway.choosing import EndpointChoice
from salver.gateway.limits import Limits
from salver.gateway.platforms import vertex_routes
from salver.gateway.routes import HttpRouteTable
from salver.gateway.schemas_scoring import AzureRequest
from salver.gateway.tfs import TfsDoor
from salver.protocol.errors import CATALOGUE

HEALTH = "/v1/endpoints/12/deployedModels/34"
PREDICT = f"{HEALTH}:predict"


class AzureClient(RawClient):
    """Errors are what Azure's inference server says."""

    def check(self, reply: Reply) -> None:
        assert set(reply.json) == {"message"}, reply
        assert not _LEAK.search(reply.json["message"]), reply
        assert reply.code is not None
        assert CATALOGUE[reply.code].http == reply.status


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish_sums(ordinary)


def score(server: Served, body: object, *headers: str, endpoint: str = "sum") -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    client = AzureClient(server.connect().socket)
    return client.ask(request("POST", "/score", data, (f"X-Salver-Endpoint: {endpoint}", *headers)))


@pytest.mark.parametrize(
    "body",
    [
        {"input_data": {"columns": ["a", "b", "c"], "index": [0, 1], "data": [[1, 2, 3], [4, 5, 6]]}},
        {"input_data": {"data": [[1, 2, 3], [4, 5, 6]]}},
        {"input_data": [[1, 2, 3], [4, 5, 6]]},
        {"input_data": [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]},
        {"input_data": {"X": [[1, 2, 3], [4, 5, 6]]}, "params": {}},
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [4, 5, 6]]}},
        {"instances": [[1, 2, 3], [4, 5, 6]]},
    ],
)
def test_every_form_of_input_data_is_answered_with_bare_predictions(server: Served, body: dict[str, object]) -> None:
    if "input_data" in body:
        msgspec.convert(body, AzureRequest)
    reply = score(server, body)
    assert (reply.status, reply.json) == (200, [6, 15])
    assert reply.headers["x-salver-version"] == "sum@1.2.3"


def test_several_outputs_are_records_and_warnings_stand_in_a_header(server: Served) -> None:
    reply = score(server, {"input_data": [[1, 2, 3]]}, endpoint="both")
    assert reply.json == [{"sum": 6, "twice": [2, 4, 6]}]
    assert json.loads(reply.headers["x-salver-warnings"]) == ["value 9 lies outside"]


def test_the_ids_of_azure_come_back_whatever_the_answer_is(server: Served) -> None:
    told = ("x-ms-client-request-id: mine", "x-ms-request-id: theirs", "TraceId: t")
    for endpoint, status in (("sum", 200), ("broken", 500)):
        reply = score(server, {"input_data": [[1, 2, 3]]}, *told, endpoint=endpoint)
        assert reply.status == status
        assert [reply.headers[name] for name in ("x-ms-client-request-id", "x-ms-request-id", "traceid")] == [
            "mine",
            "theirs",
            "t",
        ]
    assert "x-ms-request-id" not in score(server, {"input_data": [[1, 2, 3]]}, "x-ms-request-id: " + "x" * 101).headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", (), 400, "INVALID_JSON"),
        (b"[[1,2,3]]", (), 400, "INVALID_JSON"),
        (b'{"data":[[1,2,3]]}', (), 400, "INVALID_JSON"),
        (b'{"input_data":null}', (), 400, "WRONG_DATATYPE"),
        (b'{"input_data":[]}', (), 400, "WRONG_SHAPE"),
        (b'{"input_data":{}}', (), 400, "MISSING_INPUT"),
        (b'{"input_data":[[1,2]]}', (), 400, "WRONG_SHAPE"),
        (b'{"input_data":[[1,2,"3"]]}', (), 400, "WRONG_DATATYPE"),
        (b'{"input_data":[[1,2,3]],"input_data":[[1,2,3]]}', (), 400, "DUPLICATE_KEY"),
        (b'{"input_data":[[1,2,3]],"inputs":[[1,2,3]]}', (), 400, "INVALID_JSON"),
        (b'{"input_data":{"columns":["a","b"],"data":[[1,2,3]]}}', (), 400, "INVALID_TENSOR"),
        (b'{"input_data":' + b"[" * 50_000, (), 400, "INVALID_JSON"),
        (b'{"input_data":[[1,2,1e999]]}', (), 400, "INVALID_JSON"),
        (b'{"input_data":[[1,2,3]],"params":[]}', (), 400, "INVALID_JSON"),
        (b"\xff\xff", (), 400, "INVALID_JSON"),
        (b"<xml/>", ("Content-Type: application/xml",), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b'{"input_data":[[1,2,3]]}', ("Content-Encoding: gzip",), 400, "BAD_HTTP"),
        (b'{"input_data":[[1,2,3]]}', ("Request-Timeout: soon",), 400, "INVALID_PARAMETER"),
    ],
)
def test_what_is_wrong_is_told_in_azure_s_shape_and_the_server_lives(
    server: Served, body: bytes, headers: tuple[str, ...], status: int, code: str
) -> None:
    reply = score(server, body, *headers)
    assert (reply.status, reply.code) == (status, code), reply
    assert score(server, {"input_data": [[1, 2, 3]]}).json == [6]


def test_who_sends_nothing_known_is_told_azure_s_own_form_too(server: Served) -> None:
    for body in (b"[[1,2,3]]", b'{"data":[[1,2,3]]}'):
        told = score(server, body).json["message"]
        assert "dataframe_split, dataframe_records, instances, inputs; or Azure's input_data" in told


def test_an_endpoint_that_is_not_there_is_told_in_azure_s_shape_too(server: Served) -> None:
    assert score(server, {"input_data": [[1, 2, 3]]}, endpoint="nothing").code == "NOT_FOUND"


def test_the_interface_is_described_where_azure_looks(server: Served) -> None:
    assert "/score" in server.get("/swagger.json?version=3").json["paths"]


# Vertex AI.


@pytest.fixture
def vertex(serve_routes: Serve, ordinary: Served, models: dict[str, Computed]) -> Served:
    assert ordinary.plane is not None
    router = ordinary.plane.router
    scored = next(route for route in ordinary.gateway.routes.routes if route.template == "/ping")
    choice = EndpointChoice(router, "sum")
    served = serve_routes()
    door = TfsDoor(router, 1000)
    routes = vertex_routes(HEALTH, PREDICT, choice, door, scored.open.__self__)
    served.gateway.routes = HttpRouteTable(routes)
    return served


def test_the_routes_that_vertex_chooses_answer(vertex: Served) -> None:
    assert vertex.get(HEALTH).json == {"status": "Healthy"}
    body = json.dumps({"instances": [[1, 2, 3], [4, 5, 6]], "parameters": {"ignored": 1}}).encode()
    reply = vertex.post(PREDICT, body, "Content-Type: application/json")
    assert (reply.status, reply.json) == (200, {"predictions": [6, 15]})
    assert vertex.post(PREDICT, b'{"instances":[{"X":[1,2,3]}]}').json == {"predictions": [6]}


@pytest.mark.parametrize("path", [HEALTH.replace("12", "13"), PREDICT + "x", PREDICT.replace(":", "/"), HEALTH + "/"])
def test_no_other_path_is_taken_for_them(vertex: Served, path: str) -> None:
    assert vertex.get(path).status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"instances":1}',
        b'{"instances":[]}',
        b'{"instances":[[1,2]]}',
        b'{"instances":[[1,2,"x"]]}',
    ],
)
def test_a_bad_body_for_vertex_is_an_error_in_its_own_shape(vertex: Served, body: bytes) -> None:
    reply = vertex.post(PREDICT, body)
    assert reply.status == 400
    assert set(reply.json) == {"error"}


def test_without_routes_in_the_environment_there_are_none() -> None:
    assert vertex_routes("", "", None, None, None) == []
