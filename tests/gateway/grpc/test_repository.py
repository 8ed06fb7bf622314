"""Load and unload over gRPC: handed to the controller in its own words, its answer handed back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.gateway.grpc.client import OIP, Answer, Http2Client, dial
from tests.gateway.servers import Served

from salver.gateway.grpc.repository import repository_methods
from salver.gateway.repository import ControlAnswer
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.security.access import Principal, PrincipalKind, Role

INDEX, INDEXED = message("inference.RepositoryIndexRequest"), message("inference.RepositoryIndexResponse")
LOAD, UNLOAD = message("inference.RepositoryModelLoadRequest"), message("inference.RepositoryModelUnloadRequest")
OPERATOR = [("authorization", "Bearer o")]


class Controller:
    """Answers what the test says, and keeps what came."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any, bytes | None]] = []
        self.answer = ControlAnswer(200, {}, b"")

    async def __call__(self, path: str, body: bytes, asking: Any) -> ControlAnswer:
        self.heard.append((path, json.loads(body), asking.headers.get(b"authorization")))
        if self.answer.status == 0:
            raise SalverError("CONTROL_UNAVAILABLE", "the controller does not answer")
        return self.answer


@pytest.fixture
def controller(server: Served) -> Iterator[Controller]:
    made = Controller()
    methods = server.acceptor._lane.keywords["methods"]
    added = {method.template.encode(): method for method in repository_methods(made)}
    refused = {path: methods[path] for path in added}
    methods |= added
    people = {
        "o": Principal("o", Role.OPERATOR, "default", PrincipalKind.TOKEN),
        "p": Principal("p", Role.PREDICTOR, "default", PrincipalKind.TOKEN),
    }
    before, server.gateway.authenticate = server.gateway.authenticate, lambda token, _: people.get(token)
    yield made
    server.gateway.authenticate = before
    methods |= refused


def ask(server: Served, method: str, request: Any, headers: Any = OPERATOR) -> Answer:
    return dial(server).call(method, request, headers=headers)


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"])
def test_where_it_is_not_the_refusal_says_where_it_is(server: Served, method: str) -> None:
    answer = ask(server, method, b"", headers=())
    assert (answer.status, answer.code) == (12, "UNSUPPORTED")
    assert "control listener" in answer.trailers["grpc-message"]


def test_the_index_is_asked_for_and_told(server: Served, controller: Controller) -> None:
    rows = [{"name": "a", "version": "1.0.0", "state": "READY", "reason": "", "more": 1}, {"name": "b"}]
    controller.answer = ControlAnswer(200, {}, json.dumps(rows).encode())
    (body,) = ask(server, "RepositoryIndex", INDEX(ready=True)).messages
    told = INDEXED.FromString(body).models
    assert [(row.name, row.version, row.state) for row in told] == [("a", "1.0.0", "READY"), ("b", "", "")]
    ask(server, "RepositoryIndex", INDEX())
    assert controller.heard == [
        ("/v2/repository/index", {"ready": True}, b"Bearer o"),
        ("/v2/repository/index", {}, b"Bearer o"),
    ]


def test_load_and_unload_name_what_they_are_for(server: Served, controller: Controller) -> None:
    load = LOAD(model_name="a/../b c")
    load.parameters["config"].string_param = "{}"
    load.parameters["file:1/m.onnx"].bytes_param = b"secret"
    assert ask(server, "RepositoryModelLoad", load).messages == [b""]
    assert ask(server, "RepositoryModelUnload", UNLOAD(model_name="m")).messages == [b""]
    assert controller.heard == [
        (
            "/v2/repository/models/a%2F..%2Fb%20c/load",
            {"parameters": {"config": "{}", "file:1/m.onnx": ""}},
            b"Bearer o",
        ),
        ("/v2/repository/models/m/unload", {}, b"Bearer o"),
    ]


def test_what_the_controller_refuses_is_refused(server: Served, controller: Controller) -> None:
    controller.answer = ControlAnswer(404, {"x-salver-error": "NOT_FOUND"}, b'{"error":"there is no model m"}')
    answer = ask(server, "RepositoryModelLoad", LOAD(model_name="m"))
    assert (answer.status, answer.code) == (5, "NOT_FOUND")
    assert answer.trailers["grpc-message"] == "there is no model m"
    controller.answer = ControlAnswer(500, {}, b"[]")
    assert ask(server, "RepositoryModelLoad", LOAD(model_name="m")).code == "INTERNAL"
    controller.answer = ControlAnswer(0, {}, b"")
    assert ask(server, "RepositoryModelLoad", LOAD(model_name="m")).status == 14
    assert ask(server, "RepositoryModelLoad", LOAD()).code == "INVALID_NAME"
    assert ask(server, "RepositoryModelLoad", b"\xff").code == "BAD_MESSAGE"


@pytest.mark.parametrize(("headers", "status"), [([], 16), ([("authorization", "Bearer p")], 7)])
def test_who_may_not_is_refused(server: Served, controller: Controller, headers: Any, status: int) -> None:
    assert ask(server, "RepositoryModelLoad", LOAD(model_name="m"), headers).status == status
    assert controller.heard == []


def test_without_a_controller_there_are_no_such_methods(client: Http2Client) -> None:
    client.start(OIP + "RepositoryIndex", INDEX())
    assert client.answer(1).status == 12
