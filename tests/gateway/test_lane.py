"""One connection: replies in order, and clients that are slow, rude, half gone or gone."""

from __future__ import annotations

import gc
import json
import socket
import zlib

import pytest
from tests.gateway.servers import Served
from tests.gateway.wire import eventually, held_request, request, row

from salver.gateway.lane import Lane

LIVE = request("GET", "/v2/health/live")


# Order.


def test_requests_sent_ahead_are_answered_in_order(server: Served) -> None:
    client = server.connect()
    client.send(b"".join(request("GET", "/v2/health/live", headers=(f"X-Request-Id: {n}",)) for n in range(30)))
    assert [client.read().headers["x-request-id"] for _ in range(30)] == [str(n) for n in range(30)]


def test_a_quick_answer_waits_for_the_slow_one_before_it(server: Served) -> None:
    client = server.connect()
    client.send(held_request(id="a") + LIVE + held_request(id="b") + LIVE)
    server.answer_held()
    assert client.read().json["id"] == "a"
    assert client.read().json == {"live": True}
    server.answer_held()
    assert client.read().json["id"] == "b"
    assert client.read().json == {"live": True}


def test_the_34th_unanswered_request_is_refused_behind_the_answers_owed(server: Served) -> None:
    client = server.connect()
    client.send(held_request(id="slow"))
    eventually(lambda: server.held.asked)
    client.send(b"".join(request("GET", "/v2", headers=(f"X-Request-Id: {n}",)) for n in range(40)))
    eventually(lambda: any(lane._refusal for lane in server.gateway.lanes))
    server.answer_held()
    assert client.read().json["id"] == "slow"
    assert [client.read().headers["x-request-id"] for _ in range(32)] == [str(n) for n in range(32)]
    reply = client.read()
    assert (reply.status, reply.code) == (400, "TOO_MANY_PIPELINED")
    assert "32" in reply.error
    assert reply.headers["x-request-id"] == "32"
    assert client.is_closed()


def test_no_more_requests_are_sent_ahead_by_answering_them_at_once(server: Served) -> None:
    """One read may hold thousands of small requests; other connections would wait for them all."""
    client = server.connect()
    client.try_send(LIVE * 3000)
    replies = [client.read() for _ in range(34)]
    assert [reply.status for reply in replies[:33]] == [200] * 33
    assert replies[33].code == "TOO_MANY_PIPELINED"
    assert client.is_closed()


def test_what_cannot_be_read_is_refused_behind_the_answers_owed(server: Served) -> None:
    client = server.connect()
    client.send(held_request() + LIVE + b"FROB / HTTP/1.1\r\n\r\n" + LIVE)
    server.answer_held()
    assert client.read().status == 200
    assert client.read().status == 200
    assert client.read().code == "BAD_HTTP"
    assert client.is_closed()


def test_nothing_behind_connection_close_is_answered(server: Served) -> None:
    client = server.connect()
    client.send(request("GET", "/v2/health/live", headers=("Connection: close",)) + LIVE)
    assert client.read().headers["connection"] == "close"
    assert client.is_closed()
    client = server.connect()
    client.send(held_request().replace(b"Host: localhost", b"Host: localhost\r\nConnection: close") + LIVE)
    server.answer_held()
    assert client.read().headers["connection"] == "close"
    assert client.is_closed()


# Versions, expectations, upgrades.


def test_http_1_0_closes_unless_asked_not_to(server: Served) -> None:
    client = server.connect()
    reply = client.ask(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert client.is_closed()
    client = server.connect()
    for _ in range(2):
        reply = client.ask(b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (reply.status, reply.headers["connection"]) == (200, "keep-alive")


def test_http_1_1_stays_open_and_says_nothing_of_it(server: Served) -> None:
    client = server.connect()
    for _ in range(2):
        assert "connection" not in client.ask(LIVE).headers


def test_a_client_that_expects_100_continue_is_told_to_go_on(server: Served) -> None:
    body = json.dumps(row()).encode()
    client = server.connect()
    client.send(
        b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert client.head() == (100, {})
    assert client.ask(body).status == 200


def test_a_client_of_http_1_0_is_never_told_to_go_on(server: Served) -> None:
    client = server.connect()
    client.send(b"POST /v2/models/toy/infer HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
    assert client.head()[0] == 400


def test_a_body_that_is_too_large_is_not_invited(server: Served) -> None:
    client = server.connect()
    client.send(request("POST", "/v2", headers=("Expect: 100-continue", "Content-Length: 99999999")))
    assert client.head()[0] == 413


REFUSED_AT_THE_HEAD = [
    ("POST", "/v2/nothing", "Accept: */*", 404),
    ("PUT", "/v2/models/toy/infer", "Accept: */*", 405),
    ("POST", "/v2/models/toy/infer", "Authorization: Bearer wrong", 401),
    ("POST", "/v2/models/toy/infer", "X-Salver-Api-Version: 7", 400),
]


@pytest.mark.parametrize(("method", "path", "header", "status"), REFUSED_AT_THE_HEAD)
def test_a_large_body_is_not_heard_out_where_its_head_is_refused(
    server: Served, method: str, path: str, header: str, status: int
) -> None:
    client = server.connect()
    client.send(request(method, path, headers=("Content-Length: 4000000", header)) + b"x" * 600_000)
    reply = client.read()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert (reply.headers.get("allow") == "POST") == (status == 405)
    eventually(lambda: server.gateway.inflight_bytes == 0)


@pytest.mark.parametrize(("method", "path", "header", "status"), REFUSED_AT_THE_HEAD)
def test_a_body_is_not_invited_to_a_request_that_its_head_refuses(
    server: Served, method: str, path: str, header: str, status: int
) -> None:
    client = server.connect()
    client.send(request(method, path, headers=("Expect: 100-continue", "Content-Length: 1000000", header)))
    reply = client.read()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert (reply.headers.get("allow") == "POST") == (status == 405)
    assert client.is_closed()


def test_head_is_get_without_the_body(server: Served) -> None:
    client = server.connect()
    whole = client.ask(request("GET", "/v2"))
    client.send(request("HEAD", "/v2") + LIVE)
    reply = client.read(to_head=True)
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(whole.body)))
    assert client.read().json == {"live": True}
    client.send(request("HEAD", "/nowhere") + LIVE)
    assert client.read(to_head=True).status == 404
    assert client.read().json == {"live": True}
    client.send(request("HEAD", "/v2", headers=("Content-Length: 99999999",)))
    assert client.read(to_head=True).status == 413
    assert client.is_closed()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.3"])
def test_an_offer_of_another_protocol_is_ignored(server: Served, protocol: str) -> None:
    headers = (
        f"Upgrade: {protocol}",
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk",
    )
    body = json.dumps(row()).encode()
    posted = request("POST", "/v2/models/toy/infer", body, (*headers, "X-Request-Id: mine"))
    data = request("GET", "/v2/health/live", headers=headers) + posted + posted + LIVE
    for step in (len(data), 1):
        client = server.connect()
        for at in range(0, len(data), step):
            client.send(data[at : at + step])
        assert client.read().json == {"live": True}
        for _ in range(2):
            reply = client.read()
            assert (reply.status, reply.headers["x-request-id"]) == (200, "mine")
            assert "connection" not in reply.headers
        assert client.read().json == {"live": True}
    client = server.connect()
    client.send(request("GET", "/v2/health/live", headers=("Upgrade: h2c", "Connection: Upgrade, close")) + LIVE)
    assert client.read().headers["connection"] == "close"
    assert client.is_closed()


def test_who_offers_and_expects_is_invited_once(server: Served) -> None:
    body = json.dumps(row()).encode()
    head = ("Upgrade: x", "Connection: Upgrade", "Expect: 100-continue", f"Content-Length: {len(body)}")
    client = server.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=head))
    assert client.head()[0] == 100
    client.send(body)
    assert client.head()[0] == 200


def test_an_offer_does_not_hide_a_body_that_is_too_large(server: Served) -> None:
    headers = ("Upgrade: h2c", "Connection: Upgrade", "Content-Length: 99999999")
    assert server.ask(request("POST", "/v2", headers=headers)).code == "BODY_TOO_LARGE"
    headers = ("Upgrade: h2c", "Connection: Upgrade", "Transfer-Encoding: chunked")
    client = server.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=headers) + b"2\r\n{}\r\n+0\r\n\r\n" + LIVE)
    assert client.read().code == "BAD_HTTP"
    assert client.is_closed()


def test_an_offer_does_not_hide_why_what_follows_it_is_refused(server: Served) -> None:
    offer = request("GET", "/v2/health/live", headers=("Upgrade: h2c", "Connection: Upgrade"))
    for behind, code in (
        (request("GET", "/v2", headers=("Authorization: a", "Authorization: b")), "BAD_HTTP"),
        (request("POST", "/v2", headers=("Content-Length: 99999999",)), "BODY_TOO_LARGE"),
    ):
        client = server.connect()
        client.send(offer + behind)
        assert client.read().json == {"live": True}
        assert client.read().code == code
        assert client.is_closed()


def test_connect_is_refused_and_what_follows_is_not_read(server: Served) -> None:
    client = server.connect()
    client.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + LIVE)
    reply = client.read()
    assert (reply.status, reply.headers["connection"]) == (404, "close")
    assert client.is_closed()
    client = server.connect()
    client.send(held_request() + b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + LIVE)
    server.answer_held()
    assert client.read().status == 200
    assert client.read().status == 404
    assert client.is_closed()


# Departures.


def test_queued_work_of_a_client_that_resets_is_cancelled(server: Served) -> None:
    client = server.connect()
    client.send(held_request() + held_request())
    eventually(lambda: server.held.asked)
    assert server.gateway.inflight_bytes > 0
    client.reset()
    eventually(lambda: server.held.asked[0][1].cancelled())
    assert len(server.held.asked) == 1
    eventually(server.is_quiet)


@pytest.mark.parametrize("sent", [1, 2])
def test_queued_work_of_a_client_that_closes_is_cancelled(server: Served, sent: int) -> None:
    for _ in range(2):  # the second time with a head that is known
        client = server.connect()
        client.send(held_request() * sent)
        eventually(lambda: server.held.asked)
        client.close()
        eventually(lambda: server.held.asked[0][1].cancelled())
        eventually(server.is_quiet)
        assert len(server.held.asked) == 1
        server.held.asked.clear()


def test_a_client_that_only_stops_sending_is_answered(server: Served) -> None:
    client = server.connect()
    client.send(held_request(id="a") + held_request(id="b") + b"POST /v2 HTTP/1.1\r\nContent-Le")
    eventually(lambda: server.held.asked)
    client.socket.shutdown(socket.SHUT_WR)
    eventually(lambda: all(lane._half_closed for lane in server.gateway.lanes))
    server.answer_held(2)
    assert client.read().json["id"] == "a"
    reply = client.read()
    assert (reply.json["id"], reply.headers["connection"]) == ("b", "close")
    assert client.is_closed()
    eventually(server.is_quiet)


@pytest.mark.parametrize("headers", [b"", b"Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_that_stops_sending_gets_its_answer_and_nothing_else(
    server: Served, headers: bytes
) -> None:
    for _ in range(2):  # the second time with a head that is known
        client = server.connect()
        client.send(held_request().replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n" + headers))
        client.socket.shutdown(socket.SHUT_WR)
        eventually(lambda: any(lane._half_closed for lane in server.gateway.lanes))
        server.answer_held()
        assert client.head()[0] == 200
        client.close()
        eventually(server.is_quiet)


def test_a_client_that_stops_sending_inside_a_request_is_let_go(server: Served) -> None:
    client = server.connect()
    client.send(request("POST", "/v2", headers=("Content-Length: 100",)) + b"abc")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()
    eventually(server.is_quiet)


def test_a_connection_that_is_gone_is_freed_without_collecting_garbage(server: Served) -> None:
    def lanes() -> int:
        return sum(isinstance(thing, Lane) for thing in gc.get_objects())

    server.infer(row())
    eventually(server.is_quiet)
    gc.collect()
    before = lanes()
    gc.disable()
    try:
        for _ in range(20):
            client = server.connect()
            client.send(request("POST", "/v2/models/toy/infer", json.dumps(row()).encode()) + LIVE + b"GET /half")
            assert [client.read().status for _ in range(2)] == [200, 200]
            client.close()
        eventually(lambda: not server.gateway.lanes)
        eventually(lambda: lanes() <= before)
    finally:
        gc.enable()


def test_a_client_that_goes_while_its_body_is_decompressed_leaves_nothing(server: Served) -> None:
    packed = zlib.compress(json.dumps({**row(), "id": "x" * 500_000}).encode(), 0)
    for _ in range(20):
        client = server.connect()
        client.send(request("POST", "/v2/models/held/infer", packed, ("Content-Encoding: deflate",)))
        client.reset()
    eventually(server.is_quiet)
