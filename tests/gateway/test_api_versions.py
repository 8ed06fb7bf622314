"""Versions of the interface over real sockets: asked for by header and by path, and what is told of routes that go."""

from __future__ import annotations

import base64
import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.test_mlflow import ask
from tests.gateway.wire import request, row

from salver.gateway.events import EventReply
from salver.gateway.routes import HttpRoute
from salver.gateway.websocket.door import WebSocketDoor
from salver.protocol.api_versions import Deprecation
from salver.protocol.errors import SalverError
from salver.protocol.openapi import describe_routes, documentation_page
from salver.security.access import Operation

KEY = base64.b64encode(b"k" * 16).decode()
GONE = Deprecation(dt.date(2027, 1, 1), dt.date(2027, 12, 31), "/new/{name}")


def test_a_version_that_is_answered_changes_nothing(server: Served) -> None:
    assert server.infer(row(), "X-Salver-Api-Version: 1").body == server.infer(row()).body


def test_another_version_is_refused_before_anything_is_done(server: Served) -> None:
    reply = server.infer(row(), "X-Salver-Api-Version: 2")
    assert (reply.status, reply.code) == (400, "INVALID_PARAMETER")
    assert "'2'; this server answers 1" in reply.error


def test_the_refusal_has_the_shape_of_the_protocol_that_was_asked(server: Served) -> None:
    body, told = b'{"inputs":[[1,2,3,4]]}', ("X-Salver-Endpoint: toy", "X-Salver-Api-Version: 7")
    reply = ask(server, request("POST", "/invocations", body, told))
    assert (reply.status, set(reply.json)) == (400, {"error_code", "message"})


@pytest.mark.parametrize("path", ["/v3/models/toy/infer", "/v3", "/v0/models"])
def test_an_unknown_version_in_a_path_is_told_as_such(server: Served, path: str) -> None:
    reply = server.get(path)
    assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert "there is no version v" in reply.error
    assert "/v1, /v2" in reply.error


@pytest.mark.parametrize("path", ["/v2/nothing", "/vision", "/v2x"])
def test_an_unknown_path_of_a_known_version_is_not_blamed_on_the_version(server: Served, path: str) -> None:
    assert "there is no version" not in server.get(path).error


@pytest.fixture
def going(serve_routes: Serve) -> Served:
    def fail(_: object) -> None:
        raise SalverError("MODEL_ERROR", "no")

    answer = lambda exchange: exchange.reply_json({"ok": True})  # noqa: E731 - a route's door
    return serve_routes(
        HttpRoute("GET", "/old/{name}", None, answer, "Old", deprecated=GONE),
        HttpRoute("GET", "/failing/{name}", None, fail, "Old", deprecated=GONE),
        HttpRoute("GET", "/new/{name}", None, answer, "New"),
    )


def test_the_answers_of_a_route_that_will_go_say_so_also_when_they_are_errors(going: Served) -> None:
    for path, status in (("/old/a%20b", 200), ("/failing/a%20b", 500)):
        reply = going.get(path)
        assert reply.status == status
        assert reply.headers["deprecation"] == "@1798761600"
        assert reply.headers["sunset"] == "Fri, 31 Dec 2027 00:00:00 GMT"
        assert '</new/a%20b>; rel="successor-version"' in reply.headers["link"]
    for path in ("/new/x", "/"):
        assert not {"deprecation", "sunset", "link"} & going.get(path).headers.keys()


def test_an_answer_bit_by_bit_and_a_conversation_say_so_too(serve_routes: Serve) -> None:
    somebody: Any = SimpleNamespace(contract_of=lambda _: None)
    upgrading = WebSocketDoor(somebody, 100, "").open
    going = serve_routes(
        HttpRoute("GET", "/events/{name}", None, lambda asked: EventReply(asked).end(b"{}"), "Old", deprecated=GONE),
        HttpRoute("GET", "/socket/{name}", None, upgrading, "Old", deprecated=GONE, upgrades=True),
    )
    offer = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    for path, status, headers in (("/events/x", 200, ()), ("/socket/x", 101, offer)):
        client = going.connect()
        client.send(request("GET", path, headers=headers))
        answered, told = client.head()
        assert (answered, told.get("deprecation")) == (status, "@1798761600")
        assert '</new/x>; rel="successor-version"' in told["link"]
        client.close()


def test_one_connection_may_ask_old_and_new_in_turn(going: Served) -> None:
    client = going.connect()
    for name in ("old", "new", "old", "new"):
        reply = client.ask(request("GET", f"/{name}/x"))
        assert ("deprecation" in reply.headers) == (name == "old")


def test_openapi_and_the_page_mark_what_will_go() -> None:
    route = HttpRoute("GET", "/old/{name}", Operation.PREDICT, print, "Old", deprecated=GONE)
    other = HttpRoute("GET", "/new/{name}", Operation.PREDICT, print, "New")
    described = describe_routes("t", "1", [route, other])["paths"]
    assert described["/old/{name}"]["get"]["deprecated"] is True
    assert described["/old/{name}"]["get"]["x-salver-sunset"] == "2027-12-31"
    assert described["/old/{name}"]["get"]["x-salver-instead"] == "/new/{name}"
    assert "deprecated" not in described["/new/{name}"]["get"]
    page = documentation_page("t", "1", [route, other]).decode()
    assert page.count("Deprecated: goes after 2027-12-31") == 1
    assert 'id="api-versions"' in page
