"""Time on one connection: slow senders, slow readers, and the end of the server."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, held_request, request, row

from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute

LARGE = 8_000_000
LIVE = request("GET", "/v2/health/live")


# Pace.


def test_slow_headers_are_refused(hasty: Served) -> None:
    client = hasty.connect()
    client.send(b"GET /v2/health/live HTTP/1.1\r\nHost")
    reply = client.read()
    assert (reply.status, reply.code) == (408, "REQUEST_TIMEOUT")
    assert "0.3 s" in reply.error
    assert client.is_closed()


def test_headers_in_single_bytes_are_refused_all_the_same(hasty: Served) -> None:
    client = hasty.connect()
    client.socket.settimeout(0.02)
    data = iter(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1000)

    def refused() -> bool:
        client.try_send(bytes([next(data)]))
        try:
            return client._more()
        except TimeoutError:
            return False

    eventually(refused)
    assert client.read().status == 408


def test_a_slow_body_is_refused(hasty: Served) -> None:
    client = hasty.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=("Content-Length: 1000",)) + b"{")
    reply = client.read()
    assert (reply.status, reply.code) == (408, "REQUEST_TIMEOUT")
    assert "20000 bytes a second" in reply.error
    assert client.is_closed()


def test_a_body_that_began_fast_may_not_become_slow(hasty: Served) -> None:
    client = hasty.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=("Content-Length: 9000000",)) + b" ")
    eventually(lambda: any(lane._paced for lane in hasty.gateway.lanes))
    client.send(b" " * 8_000_000)
    assert client.read().status == 408


def test_slow_chunks_are_refused(hasty: Served) -> None:
    client = hasty.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=("Transfer-Encoding: chunked",)) + b"1;")
    assert client.read().status == 408


def test_a_body_that_comes_fast_enough_may_take_its_time(hasty: Served) -> None:
    body = json.dumps({**row(), "id": "x" * 400_000}).encode()
    client = hasty.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=(f"Content-Length: {len(body)}",)))
    at = 0

    def sent() -> bool:
        nonlocal at
        client.send(body[at : at + 3000])
        at += 3000
        return at >= len(body)

    eventually(sent)
    assert client.read().status == 200


def test_an_idle_connection_is_closed_without_a_word(hasty: Served) -> None:
    client = hasty.connect()
    assert client.ask(LIVE).status == 200
    assert client.is_closed()
    assert hasty.connect().is_closed()


def test_waiting_for_a_slow_answer_is_not_idling(hasty: Served) -> None:
    client = hasty.connect()
    client.send(held_request())
    other = hasty.connect()  # closed after the idle time: until then the first one waits
    assert other.is_closed()
    assert hasty.connect().is_closed()
    hasty.answer_held()
    assert client.read().status == 200
    assert client.ask(LIVE).status == 200


def serve_loud(serve_routes: Serve, limits: Limits) -> Served:
    held: list[Any] = []
    server = serve_routes(
        HttpRoute("GET", "/large", None, lambda exchange: exchange.reply(b"x" * LARGE), "Large"),
        HttpRoute("GET", "/held", None, held.append, "Held"),
        limits=limits,
    )
    server.pending = held
    return server


@pytest.fixture
def loud(serve_routes: Serve) -> Served:
    """A server whose replies are larger than what the kernel takes off its hands."""
    return serve_loud(serve_routes, Limits(write_stall_s=0.4, linger_s=0.1))


@pytest.fixture
def patient(serve_routes: Serve) -> Served:
    """The same, for clients that do read in the end: however slowly on a busy machine."""
    return serve_loud(serve_routes, Limits())


def stalled(server: Served) -> Any:
    return next((lane for lane in server.gateway.lanes if lane._stalled_s is not None), None)


def test_writing_pauses_while_a_client_does_not_read_and_goes_on_when_it_does(patient: Served) -> None:
    client = patient.connect(receive_bytes=4096)
    client.send(request("GET", "/large") * 2 + request("GET", "/"))
    lane = eventually(lambda: stalled(patient))
    # The next request waits: its answer would only be held in memory.
    eventually(lambda: len(lane._waiting) == 2)
    assert lane._transport.get_write_buffer_size() < LARGE
    assert len(client.read().body) == LARGE
    assert len(client.read().body) == LARGE
    assert client.read().json == {"status": "alive"}


def test_a_request_that_waited_waits_on_while_the_answer_before_it_is_not_read(patient: Served) -> None:
    client = patient.connect(receive_bytes=4096)
    client.send(request("GET", "/held") + request("GET", "/"))
    eventually(lambda: patient.pending)
    patient.thread.run(lambda: patient.pending.pop().reply(b"x" * LARGE))
    lane = stalled(patient)
    assert len(lane._waiting) == 1
    assert len(client.read().body) == LARGE
    assert client.read().json == {"status": "alive"}


def test_the_rest_of_a_last_reply_may_take_as_long_as_a_stall(loud: Served) -> None:
    """Too little for a pause of writing, too much for the network to take."""
    readers = [loud.connect(receive_bytes=4096) for _ in range(2)]
    for client in readers:
        client.send(request("GET", "/held", headers=("Connection: close",)) + b"more")
    eventually(lambda: len(loud.pending) == 2)

    def answer() -> None:
        for exchange in loud.pending:
            exchange.lane._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            exchange.reply(b"x" * 60_000)
        loud.pending.clear()

    loud.thread.run(answer)
    lanes = list(loud.gateway.lanes)
    assert all(lane.phase.name == "CLOSING" and lane._transport.get_write_buffer_size() for lane in lanes)
    assert not stalled(loud)
    until_s = loud.gateway.now_s + 0.2  # twice the pause for closing, half a stall
    eventually(lambda: loud.gateway.now_s > until_s)
    assert len(readers[0].read().body) == 60_000
    eventually(loud.is_quiet)
    with pytest.raises(AssertionError, match="inside a reply"):
        readers[1].read()


def test_requests_sent_while_a_client_does_not_read_stay_in_the_network(loud: Served) -> None:
    client = loud.connect(receive_bytes=4096)
    client.send(request("GET", "/large"))
    lane = eventually(lambda: stalled(loud))
    client.send(request("GET", "/") * 5)
    assert not lane._waiting
    assert client.read().status == 200
    assert [client.read().status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
def test_a_client_that_never_reads_is_cut_off(loud: Served, headers: tuple[str, ...]) -> None:
    client = loud.connect(receive_bytes=4096)
    client.send(request("GET", "/large", headers=headers))
    eventually(lambda: stalled(loud))
    eventually(loud.is_quiet)
    with pytest.raises(AssertionError, match="inside a reply"):
        client.read()


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
def test_a_reply_reaches_a_client_that_reads_slowly(loud: Served, headers: tuple[str, ...]) -> None:
    """It takes longer than a stall may, and than the pause for closing; yet there is progress."""
    client = loud.connect(receive_bytes=4096)
    client.send(request("GET", "/large", headers=headers) + b"G")
    eventually(lambda: stalled(loud))
    length = int(client.head()[1]["content-length"])
    began_s = loud.gateway.now_s
    while len(client.received) < length:
        at, seen_s = len(client.received), loud.gateway.now_s
        while len(client.received) < min(length, at + LARGE // 32):
            assert client._more()
        eventually(lambda seen_s=seen_s: loud.gateway.now_s > seen_s + 0.02)
    assert loud.gateway.now_s - began_s > 0.6
    assert len(client.received) == length


def test_more_of_a_refused_request_is_thrown_away_so_that_the_client_sees_why(server: Served) -> None:
    client = server.connect()
    client.send(request("POST", "/v2/models/toy/infer", headers=("Content-Length: 99999999",)))
    eventually(lambda: any(lane.phase.name == "CLOSING" for lane in server.gateway.lanes))
    client.try_send(b" " * 1_000_000)
    assert client.read().code == "BODY_TOO_LARGE"


def test_more_of_a_refused_request_is_thrown_away_for_a_moment_only(hasty: Served) -> None:
    client = hasty.connect()
    client.send(b"FROB / HTTP/1.1\r\n\r\n")
    client.read()
    eventually(hasty.is_quiet)


# The end.


@pytest.fixture
def ending(serve_routes: Serve) -> Served:
    """A server to be drained, with a route that answers when the test says so."""
    held = []
    server = serve_routes(
        HttpRoute("GET", "/held", None, held.append, "Held"),
        HttpRoute("GET", "/large", None, lambda exchange: exchange.reply(b"x" * 8_000_000), "Large"),
        limits=Limits(linger_s=0.1, header_timeout_s=5.0),
    )
    server.pending = held
    return server


def drain(server: Served) -> None:
    server.thread.run(server.gateway.drain)


def close_idle(server: Served) -> bool:
    server.thread.run(server.gateway.close_idle)
    return server.gateway.owes == 0


def test_draining_answers_what_was_sent_ahead_and_closes_behind_it(ending: Served) -> None:
    client = ending.connect()
    client.send(request("GET", "/held") + request("GET", "/") * 3)
    eventually(lambda: ending.pending)
    drain(ending)
    assert not close_idle(ending)
    ending.thread.run(lambda: ending.pending[0].reply_json("late"))
    assert "connection" not in client.read().headers
    assert ["connection" in client.read().headers for _ in range(3)] == [False, False, True]
    assert client.is_closed()
    eventually(lambda: close_idle(ending))


def test_draining_gives_a_quiet_connection_a_last_chance(ending: Served) -> None:
    quiet, eager = ending.connect(), ending.connect()
    assert quiet.ask(request("GET", "/")).status == 200
    eventually(lambda: len(ending.gateway.lanes) == 2)
    drain(ending)
    ending.thread.run(lambda: [ending.gateway.close_idle() for _ in range(3)])
    reply = eager.ask(request("GET", "/"))
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    eventually(lambda: close_idle(ending))
    assert quiet.is_closed()


def test_draining_waits_for_a_request_on_its_way_in(ending: Served) -> None:
    client = ending.connect()
    client.send(request("GET", "/")[:-2])
    eventually(lambda: ending.gateway.lanes)
    drain(ending)
    for _ in range(30):
        assert not close_idle(ending)
    client.send(b"\r\n")
    assert client.read().headers["connection"] == "close"
    eventually(lambda: close_idle(ending))


def test_draining_waits_for_a_reply_to_be_read(ending: Served) -> None:
    client = ending.connect(receive_bytes=4096)
    client.send(request("GET", "/large"))
    eventually(lambda: any(lane._stalled_s is not None for lane in ending.gateway.lanes))
    drain(ending)
    for _ in range(30):
        assert not close_idle(ending)
    assert len(client.read().body) == LARGE
    eventually(lambda: close_idle(ending))


def test_a_reply_after_the_client_has_gone_goes_nowhere(ending: Served) -> None:
    client = ending.connect()
    client.send(request("GET", "/held"))
    eventually(lambda: ending.pending)
    client.reset()
    eventually(ending.is_quiet)
    ending.thread.run(lambda: ending.pending[0].reply_json("late"))
    assert ending.get("/").status == 200


def test_a_second_reply_goes_nowhere(ending: Served) -> None:
    client = ending.connect()
    client.send(request("GET", "/held"))
    eventually(lambda: ending.pending)
    ending.thread.run(lambda: [ending.pending[0].reply_json(n) for n in range(2)])
    assert client.read().json == 0
    assert client.ask(request("GET", "/")).json == {"status": "alive"}
