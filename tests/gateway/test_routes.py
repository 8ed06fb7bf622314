"""Targets, verbs and the one table that decides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateway.servers import Served
from tests.gateway.wire import request

from salver.gateway.routes import HttpRoute, HttpRouteTable, WrongVerbError
from salver.protocol.errors import SalverError


def table() -> HttpRouteTable:
    return HttpRouteTable(
        [
            HttpRoute("GET", "/a/fixed", None, print, ""),
            HttpRoute("GET", "/a/{name}", None, print, ""),
            HttpRoute("POST", "/a/{name}", None, print, ""),
        ]
    )


def test_a_target_leads_to_the_first_route_that_fits() -> None:
    assert table().resolve(b"GET", b"/a/fixed").route.template == "/a/fixed"
    route, params = table().resolve(b"GET", b"/a/b%20c?query=/x")
    assert (route.template, params) == ("/a/{name}", {"name": "b c"})


@pytest.mark.parametrize(
    "segment", [b"%2f", b"a%2Fb", b"%5c", b"%00", b"%25", b"%2541", b"..", b"%2e%2e", b".", b"%ff", b"a%"]
)
def test_a_segment_is_decoded_once_and_what_could_lead_elsewhere_names_nothing(segment: bytes) -> None:
    assert table().resolve(b"GET", b"/a/%41").params == {"name": "A"}
    with pytest.raises(SalverError, match="names nothing"):
        table().resolve(b"GET", b"/a/" + segment)


def test_few_targets_are_remembered_however_many_come() -> None:
    routes = table()
    for n in range(3000):
        routes.resolve(b"GET", b"/a/%d" % n)
    assert 0 < len(routes._remembered) <= 1024
    with pytest.raises(SalverError):
        routes.resolve(b"GET", b"/b")
    assert (b"GET", b"/b") not in routes._remembered


def test_the_wrong_verb_names_the_right_ones() -> None:
    with pytest.raises(WrongVerbError) as raised:
        table().resolve(b"DELETE", b"/a/fixed")
    assert raised.value.verbs == "GET, HEAD, POST"


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/toy",
        "/v2/models/t%6fy",
        "/v2/models/toy?x=%2f",
        "http://example.org/v2/models/toy",
        "HTTP://a:1/v2/models/toy?q",
    ],
)
def test_one_thing_may_be_named_in_several_ways(server: Served, target: str) -> None:
    assert server.get(target).json["name"] == "toy"


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/%2e%2e",
        "/v2/models/..",
        "/v2/models/.",
        "/v2/models/toy%2finfer",
        "/v2/models/toy%2Finfer",
        "/v2/models/toy%5cinfer",
        "/v2/models/toy%00",
        "/v2/models/%252f",
        "/v2/models/t%256fy",
        "/v2/models/%ff",
        "/v2/models/%c0%ae",
        "/v2/models/toy%",
        "/v2/models/toy%2",
        "/v2/models/",
        "/v2/models/toy/",
        "//v2/models/toy",
        "/v2//models/toy",
        "/v2/../v2/models/toy",
        "/v2/models/toy/infer/../../toy",
        "/v2/%6dodels/toy",
        "/V2/models/toy",
        "/v2/models/toy#fragment",
        "/v2/models/toy;param",
        "/v2/models/TOY",
        "ftp://example.org/v2/models/toy",
        "/favicon.ico",
        "/v2/models/toy/versions/%2e%2e/config",
    ],
)
def test_what_names_nothing_is_not_found(server: Served, target: str) -> None:
    client = server.connect()
    reply = client.ask(request("GET", target))
    assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert client.ask(request("GET", "/v2/health/live")).status == 200


@pytest.mark.parametrize("target", ["/", "http://example.org", "http://example.org?/v2/models/toy"])
def test_a_target_without_a_path_is_the_root(server: Served, target: str) -> None:
    assert server.get(target).json == {"status": "alive"}


def test_a_target_of_4000_letters_is_shown_shortened(server: Served) -> None:
    assert len(server.get("/" + "a" * 4000).error) < 400
    assert len(server.get("/v2/models/" + "a" * 4000).error) < 400


@pytest.mark.parametrize(
    ("verb", "target", "allowed"),
    [
        ("GET", "/v2/models/toy/infer", "POST"),
        ("HEAD", "/v2/models/toy/infer", "POST"),
        ("DELETE", "/v2/models/toy", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("PUT", "/v2/logging", "GET, HEAD, POST"),
        ("PATCH", "/v2", "GET, HEAD"),
        ("TRACE", "/v2", "GET, HEAD"),
        ("OPTIONS", "/v2/models/toy/infer", "POST"),
        ("OPTIONS", "*", "DELETE, GET, HEAD, POST, PUT"),
        ("GET", "*", "DELETE, GET, HEAD, POST, PUT"),
        ("M-SEARCH", "/v2", "GET, HEAD"),
    ],
)
def test_a_verb_that_does_not_fit_is_told_which_do(server: Served, verb: str, target: str, allowed: str) -> None:
    client = server.connect()
    client.send(request(verb, target))
    reply = client.read(to_head=verb == "HEAD")
    assert (reply.status, reply.code) == (405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == allowed
    if verb != "HEAD":
        assert allowed in reply.error
    assert client.ask(request("GET", "/v2/health/live")).status == 200


def test_a_parameter_ends_at_a_colon_and_a_template_may_fit_in_any_case() -> None:
    routes = HttpRouteTable(
        [
            HttpRoute("GET", "/a/{name}", None, print, ""),
            HttpRoute("POST", "/a/{name}:act", None, print, "", any_case=True),
        ]
    )
    assert routes.resolve(b"POST", b"/A/Bc:ACT").params == {"name": "Bc"}
    with pytest.raises(WrongVerbError):
        routes.resolve(b"GET", b"/a/b:act")
    for target in (b"/A/b", b"/a/b:other", b"/a/b:act:act"):
        with pytest.raises(SalverError, match="there is no"):
            routes.resolve(b"GET", target)


def test_what_stands_in_a_template_is_taken_literally() -> None:
    routes = HttpRouteTable(
        [HttpRoute("GET", "/openapi.json", None, print, ""), HttpRoute("GET", "/v(1)", None, print, "")]
    )
    for target in (b"/openapi.json", b"/v(1)"):
        assert routes.resolve(b"GET", target).route.template.encode() == target
    for target in (b"/openapi-json", b"/v1"):
        with pytest.raises(SalverError):
            routes.resolve(b"GET", target)


def told(server: Served, verb: str, target: str, *headers: str) -> tuple[int, str, dict[str, Any]]:
    """Status, code and body of a refusal in any shape."""
    client = server.connect()
    client.send(request(verb, target, headers=headers))
    status, head = client.head()
    while len(client.received) < int(head["content-length"]):
        assert client._more()
    client.close()
    return status, head["x-salver-error"], json.loads(client.received)


@pytest.mark.parametrize(
    ("verb", "target", "members"),
    [
        ("GET", "/v1/embeddings", {"error": {"message", "type", "param", "code"}}),
        ("GET", "/invocations", {"error_code": None, "message": None}),
        ("GET", "/score", {"message": None}),
        ("GET", "/predictions/toy", {"code": None, "type": None, "message": None}),
        ("POST", "/v1/models/toy", {"error": None}),
    ],
)
def test_the_wrong_verb_is_refused_in_the_shape_of_its_path(
    server: Served, verb: str, target: str, members: dict[str, set[str] | None]
) -> None:
    status, code, body = told(server, verb, target)
    assert (status, code) == (405, "METHOD_NOT_ALLOWED")
    assert {name: set(value) if isinstance(value, dict) else None for name, value in body.items()} == members


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/modelsx", "/openai/v1/chat/completions"),
        *("/openai/", "/chat/completions", "/embeddings", "/responses"),
    ],
)
def test_what_openais_clients_find_nowhere_is_refused_in_words_that_they_print(server: Served, path: str) -> None:
    status, code, body = told(server, "POST", path)
    assert (status, code) == (404, "NOT_FOUND")
    error = body["error"]
    assert f"there is no {path}; of OpenAI's interface /v1/embeddings and /v1/models are here" in error["message"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "unknown_url")
    assert ("base URL ends in /v1" in error["message"]) == (not path.startswith(("/v1/", "/openai/")))


def test_who_looks_for_the_repository_is_told_where_it_is(server: Served) -> None:
    status, _, body = told(server, "POST", "/v2/repository/index")
    assert status == 404
    assert "it is on the control listener, and moves here with server.repository_on_data = true" in body["error"]


@pytest.mark.parametrize("path", ["/v1/models/toy/nothing", "/v1/models/toy:act", "/v2/nothing", "/embeddings/x"])
def test_other_unknown_paths_are_refused_in_plain_words(server: Served, path: str) -> None:
    assert told(server, "POST", path) == (
        404,
        "NOT_FOUND",
        {"error": f"there is no {path}; see /docs for what there is"},
    )
