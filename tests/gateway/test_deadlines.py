"""A deadline from every protocol: while the model is busy it passes, and is told as that protocol tells errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.gateway.scoring import SUM, AnyShapeClient
from tests.gateway.servers import LoopThread, Serve, Served
from tests.gateway.test_openai import TEXTS
from tests.gateway.websocket.frames import dial as dial_websocket
from tests.gateway.wire import request

from salver.clock import SYSTEM_CLOCK
from salver.gateway.choosing import EndpointChoice
from salver.gateway.limits import Limits
from salver.gateway.platforms import vertex_routes
from salver.gateway.routes import HttpRouteTable
from salver.gateway.tfs import TfsDoor
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec
from salver.routing.router import Target
from salver.runtime.pool import Pool
from salver.testing import HeldReplica, make_manifest

FILE = Signature((TensorSpec("file", "BYTES", (-1,)),), (TensorSpec("size", "INT64", (-1,)),))
SOON = "Request-Timeout: 0.05"
JSON = "Content-Type: application/json"
ROW = json.dumps({"inputs": [{"name": "X", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}]})
FORM = '--AaB03x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc\r\n--AaB03x--\r\n'
Shape = Callable[[Any], bool]


def plain(told: Any) -> bool:
    return set(told) == {"error"} and isinstance(told["error"], str)


def of_mlflow(told: Any) -> bool:
    return set(told) == {"error_code", "message"} and told["error_code"] == "DEADLINE_EXCEEDED"


def of_torchserve(told: Any) -> bool:
    return set(told) == {"code", "type", "message"} and told["code"] == 504


def of_openai(told: Any) -> bool:
    return set(told["error"]) == {"message", "type", "param", "code"}


def of_azure(told: Any) -> bool:
    return set(told) == {"message"}


DOORS: dict[str, tuple[str, str, tuple[str, ...], Shape]] = {
    "open inference": ("/v2/models/sum/infer", ROW, (JSON,), plain),
    "open inference as events": ("/v2/models/sum/infer_stream", ROW, (JSON,), plain),
    "generate": ("/v2/models/sum/generate", '{"X":[1,2,3]}', (JSON,), plain),
    "generate as events": ("/v2/models/sum/generate_stream", '{"X":[1,2,3]}', (JSON,), plain),
    "a file": ("/v2/models/file/predict", "abc", ("Content-Type: image/png",), plain),
    "a form": ("/v2/models/file/predict", FORM, ("Content-Type: multipart/form-data; boundary=AaB03x",), plain),
    "tensorflow serving": ("/v1/models/sum:predict", '{"instances":[[1,2,3]]}', (JSON,), plain),
    "mlflow": ("/invocations", '{"inputs":[[1,2,3]]}', (JSON, "X-Salver-Endpoint: sum"), of_mlflow),
    "sagemaker": ("/models/sum/invoke", "1,2,3\n", ("Content-Type: text/csv; header=absent",), of_mlflow),
    "azure": ("/score", '{"input_data":[[1,2,3]]}', (JSON, "X-Salver-Endpoint: sum"), of_azure),
    "torchserve": ("/predictions/sum", "[1,2,3]", (JSON,), of_torchserve),
    "openai": ("/v1/embeddings", '{"model":"texts","input":"a"}', (JSON,), of_openai),
}


@pytest.fixture(scope="module")
def busy(serve_model: Serve, thread: LoopThread) -> Iterator[Served]:
    """A server whose models never return."""
    served = serve_model(Limits())
    plane: Any = served.plane

    def publish() -> list[Pool]:
        targets, pools = dict(plane.router.targets()), []
        for name, signature, kind in (("sum", SUM, "predict"), ("file", FILE, "predict"), ("texts", TEXTS, "embed")):
            spec = DeploymentSpec(name, name, "1.0.0")
            manifest = make_manifest(model=name, signature=signature, kind=kind)
            pool = Pool(spec, manifest, plane.metrics.version(name, "1.0.0"), SYSTEM_CLOCK)
            pool.add(HeldReplica(pool))
            pools.append(pool)
            targets[name] = Target(spec, manifest, pool)
        plane.router.publish(targets, {})
        return pools

    pools = thread.run(publish)
    yield served
    for pool in pools:
        thread.run(lambda pool=pool: pool.stop(SalverError("NOT_READY", "over")))


@pytest.fixture
def server(busy: Served) -> Iterator[Served]:
    yield busy
    busy.settle()


@pytest.mark.parametrize("door", DOORS)
def test_a_deadline_that_passes_is_a_504_in_the_shape_of_its_protocol(server: Served, door: str) -> None:
    path, body, headers, has_shape = DOORS[door]
    client = AnyShapeClient(server.connect().socket)
    # Two at once: one is with the model when its time is over, the other waits for it.
    for _ in range(2):
        client.send(request("POST", path, body.encode(), (*headers, SOON)))
    for _ in range(2):
        reply = client.read()
        assert (reply.status, reply.code) == (504, "DEADLINE_EXCEEDED"), reply
        assert has_shape(reply.json), reply
    assert client.ask(request("GET", "/v2/health/live")).json == {"live": True}


def test_one_from_vertex_too(serve_routes: Serve, server: Served) -> None:
    assert server.plane is not None
    router = server.plane.router
    health = next(route for route in server.gateway.routes.routes if route.template == "/ping")
    vertex = serve_routes()
    choice, door = EndpointChoice(router, "sum"), TfsDoor(router, 1000)
    routes = vertex_routes("/healthy", "/answer", choice, door, health.open.__self__)  # type: ignore[attr-defined]
    vertex.gateway.routes = HttpRouteTable(routes)
    reply = vertex.post("/answer", b'{"instances":[[1,2,3]]}', JSON, SOON)
    assert (reply.status, reply.code, plain(reply.json)) == (504, "DEADLINE_EXCEEDED", True)


def test_one_from_the_handshake_of_a_conversation(server: Served) -> None:
    socket = dial_websocket(server, SOON, path="/v2/models/sum/ws")
    socket.ask(json.loads(ROW) | {"id": "7"})
    told = socket.told()
    assert (told["code"], told["id"]) == ("DEADLINE_EXCEEDED", "7")
