"""Who may turn a connection into a conversation."""

from __future__ import annotations

import json

import pytest
from tests.gateway.streaming import publish_talk
from tests.gateway.websocket.frames import KEY, PATH, TEXT, Socket, dial, frame, handshake
from tests.gateway.wire import eventually, held_request, request

from salver.clock import SYSTEM_CLOCK
from salver.gateway.limits import Limits
from salver.gateway.websocket.handshake import lift_token
from salver.protocol.errors import SalverError
from salver.security.access import Role
from salver.security.tokens import mint_token


@pytest.fixture(autouse=True)
def talking(request):
    if "server" in request.fixturenames:
        publish_talk(request.getfixturevalue("server"), lambda text: iter((text,)))


def test_a_handshake_is_answered_with_its_proof_and_an_id(server):
    headers = dial(server, "X-Request-Id: mine").headers
    assert headers["upgrade"] == "websocket"
    assert headers["x-request-id"] == "mine"
    assert "sec-websocket-protocol" not in headers


def test_a_version_may_be_named(server):
    dial(server, path="/v2/models/talk/versions/1.2.3/ws")
    dial(server, path="/v2/models/talk/versions/4/ws")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request("GET", PATH), "BAD_HTTP"),
        (handshake(version="8"), "BAD_HTTP"),
        (handshake(key="short"), "BAD_HTTP"),
        (handshake(key="?" * 24), "BAD_HTTP"),
        (handshake().replace(b"Upgrade: WebSocket", b"Upgrade: h2c"), "BAD_HTTP"),
        (handshake("/v2/models/nothing/ws"), "NOT_FOUND"),
        (handshake("/v2/models/talk/versions/9/ws"), "NOT_FOUND"),
        (handshake(PATH, "Content-Length: 3") + b"abc", "BAD_HTTP"),
        (handshake(PATH, "Transfer-Encoding: chunked") + b"0\r\n\r\n", "BAD_HTTP"),
        (handshake() + frame("early"), "BAD_HTTP"),
        (handshake(PATH, "Origin: https://evil.example"), "REFUSED_BY_POLICY"),
        (handshake(PATH, "Sec-WebSocket-Protocol: bearer.a, bearer.b"), "BAD_HTTP"),
        (handshake(PATH, "Sec-WebSocket-Protocol: bearer.a", "Authorization: Bearer b"), "BAD_HTTP"),
        (handshake(PATH, "Sec-WebSocket-Protocol: salver, bearer.wrong"), "UNAUTHENTICATED"),
    ],
)
def test_what_is_no_handshake_is_refused_in_http(server, data, code):
    assert server.ask(data).code == code


def test_other_routes_ignore_the_offer_as_ever(server):
    client = server.connect()
    client.send(handshake("/v2/health/live"))
    assert client.read().json == {"live": True}
    assert client.ask(request("GET", "/v2")).status == 200


def test_a_handshake_waits_for_the_answers_before_it(server):
    client = server.connect()
    client.send(held_request() + handshake())
    eventually(lambda: server.held.asked)
    server.answer_held()
    assert client.read().status == 200
    assert client.head()[0] == 101


@pytest.mark.parametrize(
    ("origin", "host", "let_in"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("http://127.0.0.1", "127.0.0.1", True),
        ("http://192.0.2.7:8080", "192.0.2.7:8080", True),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://localhost", "localhost:8080", False),
        ("null", "localhost", False),
        ("https://evil.example", "localhost", False),
        ("http://localhost.evil.example", "localhost", False),
        ("http://localhost:8080@evil.example", "localhost:8080", False),
        # A name that its owner has made lead to this machine.
        ("http://evil.example:8080", "evil.example:8080", False),
        ("https://app.example.com", "localhost", True),
    ],
)
def test_pages_of_other_sites_are_kept_out(server, origin, host, let_in):
    door = next(route for route in server.gateway.routes.routes if route.template.endswith("}/ws")).open.__self__
    door._origins = frozenset({"https://app.example.com"})
    client = server.connect()
    client.send(handshake(PATH, f"Origin: {origin}", host=host))
    assert client.head()[0] == (101 if let_in else 403)


@pytest.fixture(scope="module")
def asking(serve_model):
    """A server that asks for tokens, and one that it takes."""
    made = mint_token("tests", Role.PREDICTOR, "default", pepper=b"p" * 32, clock=SYSTEM_CLOCK)
    return serve_model(Limits(), tokens=(made.record,)), made.token


@pytest.fixture
def guarded(asking):
    publish_talk(asking[0], lambda text: iter((text,)))
    yield asking[0]
    asking[0].settle()


@pytest.fixture
def token(asking):
    return asking[1]


def test_without_a_token_nobody_comes_in_where_one_is_asked_for(guarded):
    assert guarded.ask(handshake()).code == "UNAUTHENTICATED"


def test_a_token_comes_in_a_header_or_as_a_subprotocol(guarded, token):
    dial(guarded, f"Authorization: Bearer {token}")
    headers = dial(guarded, f"Sec-WebSocket-Protocol: salver, bearer.{token}").headers
    # The name, and never the token.
    assert headers["sec-websocket-protocol"] == "salver"


def test_with_a_token_the_name_of_the_server_may_be_any(guarded, token):
    client = guarded.connect()
    # The scheme is not looked at: a proxy may end TLS.
    client.send(handshake(PATH, "Origin: https://api.example", f"Authorization: Bearer {token}", host="api.example"))
    assert client.head()[0] == 101


def test_a_token_that_is_revoked_ends_the_conversation(guarded, token, monkeypatch):
    socket = dial(guarded, f"Authorization: Bearer {token}")
    monkeypatch.setattr(guarded.gateway, "authenticate", lambda *_: None)
    socket.ask({"inputs": []})
    assert socket.told()["code"] == "UNAUTHENTICATED"
    assert socket.closed() == (1008, "UNAUTHENTICATED")


def test_a_token_is_lifted_out_of_the_subprotocols():
    headers = {b"sec-websocket-protocol": b"salver,bearer.abc"}
    lift_token(headers)
    assert headers[b"authorization"] == b"Bearer abc"
    for wrong in ({b"sec-websocket-protocol": b"bearer.a, bearer.b"}, headers):
        with pytest.raises(SalverError, match="more than one token"):
            lift_token(wrong)


def test_a_conversation_can_begin_behind_requests(server):
    socket = Socket(server.connect(), before=request("GET", "/v2/health/live"))
    socket.send(frame(json.dumps({})))
    got = socket.frame()
    assert got is not None
    assert got.opcode == TEXT


def test_the_key_is_what_proves(server):
    client = server.connect()
    client.send(handshake(key="AAAAAAAAAAAAAAAAAAAAAA=="))
    assert client.head()[1]["sec-websocket-accept"] != dial(server).headers["sec-websocket-accept"]
    assert KEY != "AAAAAAAAAAAAAAAAAAAAAA=="
