"""Accepting: the cap, TLS, the end, and what happens when descriptors run out."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trustme
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import RawClient, check_error, eventually, held_request, request, row

from salver.gateway.acceptor import Acceptor
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute

HELLO = request("GET", "/")


# The cap.


def test_a_connection_beyond_the_cap_is_told_so(serve_routes: Serve) -> None:
    server = serve_routes(limits=Limits(connections=3, linger_s=0.2))
    within = [server.connect() for _ in range(3)]
    for client in within:
        assert client.ask(HELLO).status == 200
    for sent in (b"", HELLO, b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1_000_000):
        client = server.connect()
        client.try_send(sent)
        reply = client.read()
        assert (reply.status, reply.code) == (429, "TOO_MANY_CONNECTIONS")
        assert "3 connections" in reply.error
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["connection"] == "close"
        assert client.is_closed()
        client.close()
    assert [client.ask(HELLO).status for client in within] == [200] * 3
    within[0].close()
    eventually(lambda: len(server.gateway.lanes) == 2)
    assert server.connect().ask(HELLO).status == 200
    assert server.gateway.metrics.refusals == {("other", "TOO_MANY_CONNECTIONS"): 3}
    assert server.gateway.metrics.connections_total == 4


def test_the_cap_holds_in_a_burst(serve_routes: Serve) -> None:
    server = serve_routes(limits=Limits(connections=3))
    clients: list[RawClient] = []
    # On the loop: they are all accepted in one turn.
    server.thread.run(lambda: clients.extend(server.connect() for _ in range(20)))
    for client in clients:
        client.try_send(HELLO)
    assert sorted(client.read().status for client in clients) == [200] * 3 + [429] * 17


def test_a_flood_beyond_the_cap_is_held_to_a_few(serve_routes: Serve) -> None:
    server = serve_routes(limits=Limits(connections=1, linger_s=0.2))
    assert server.connect().ask(HELLO).status == 200
    flood = [server.connect() for _ in range(200)]
    eventually(lambda: server.gateway.metrics.refusals["other", "TOO_MANY_CONNECTIONS"] == 200)
    assert len(server.acceptor._turned_away) <= 64
    for client in flood[:20]:
        check_error(client.read())
    eventually(lambda: not server.acceptor._turned_away)
    server.settle()
    assert server.get("/").status == 200


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def encrypted(serve_model: Serve, server_side: ssl.SSLContext) -> Served:
    return serve_model(Limits(header_timeout_s=0.3, connections=5, linger_s=0.2), tls=server_side)


@pytest.fixture
def tls(encrypted: Served, client_side: ssl.SSLContext) -> Iterator[Served]:
    def wrapped() -> RawClient:
        client = encrypted.connect()
        client.socket = client_side.wrap_socket(client.socket, server_hostname="localhost")
        return client

    encrypted.connect_tls = wrapped
    yield encrypted
    encrypted.settle()


def test_requests_come_and_go_over_tls(tls: Served) -> None:
    client = tls.connect_tls()
    assert client.ask(request("POST", "/v2/models/toy/infer", json.dumps(row()).encode())).status == 200
    many = {"inputs": [{"name": "X", "shape": [200, 4], "datatype": "FP32", "data": [0.1] * 800}], "id": "x" * 200_000}
    reply = client.ask(request("POST", "/v2/models/toy/infer", json.dumps(many).encode()))
    assert len(reply.json["outputs"][1]["data"]) == 600
    client.send(request("GET", "/v2/health/live") * 10)
    assert [client.read().status for _ in range(10)] == [200] * 10
    client.send(b"FROB / HTTP/1.1\r\n\r\n")
    assert client.read().code == "BAD_HTTP"
    assert client.is_closed()
    client.close()


def test_plain_http_to_a_tls_port_does_no_harm(tls: Served) -> None:
    for _ in range(3):
        client = tls.connect()
        client.try_send(request("GET", "/v2/health/live"))
        while client._more():
            pass
        client.close()
    assert tls.connect_tls().ask(request("GET", "/v2/health/live")).status == 200


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_a_handshake_that_stalls_is_ended(tls: Served, sent: bytes) -> None:
    client = tls.connect()
    client.send(sent)
    assert client.is_closed()
    eventually(lambda: not tls.acceptor._connecting)


def test_connections_without_a_handshake_count_towards_the_cap(
    serve_routes: Serve, server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    server = serve_routes(limits=Limits(connections=2), tls=server_side)
    for _ in range(2):
        server.connect()
    eventually(lambda: len(server.gateway.lanes) == 2)
    client = server.connect()
    client.socket = client_side.wrap_socket(client.socket, server_hostname="localhost")
    assert client.read().code == "TOO_MANY_CONNECTIONS"


def test_handshakes_count_towards_the_cap_and_those_beyond_it_are_told_over_tls(tls: Served) -> None:
    clients = [tls.connect_tls() for _ in range(5)]
    for client in clients:
        client.ask(request("GET", "/v2/health/live"))
    reply = tls.connect_tls().read()
    assert reply.code == "TOO_MANY_CONNECTIONS"
    for client in clients:
        client.close()
    eventually(lambda: not tls.gateway.lanes)


def test_a_client_that_goes_over_tls_leaves_nothing(tls: Served) -> None:
    client = tls.connect_tls()
    client.send(held_request())
    eventually(lambda: tls.held.asked)
    client.close()
    eventually(lambda: tls.held.asked[0][1].cancelled())
    eventually(tls.is_quiet)


# The end.


def test_stopping_serves_who_has_connected_and_nobody_after(serve_routes: Serve) -> None:
    server = serve_routes()
    thread = server.thread
    clients = []

    def connect_and_stop():
        # On the loop: nothing can be accepted meanwhile.
        clients.extend(server.connect() for _ in range(300))
        for client in clients:
            client.send(HELLO)
        server.gateway.drain()
        return server.acceptor.stop()

    thread.run(connect_and_stop)
    thread.run(server.gateway.close_idle)
    replies = [client.read() for client in clients]
    assert {(reply.status, reply.headers["connection"]) for reply in replies} == {(200, "close")}
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    eventually(lambda: thread.run(server.gateway.close_idle) or not server.gateway.owes)


def test_stopping_while_paused_ends_the_pause(serve_routes: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve_routes()

    class Exhausted:
        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener

        def accept(self):
            raise OSError(24, "Too many open files")

        def __getattr__(self, name: str):
            return getattr(self._listener, name)

    monkeypatch.setattr(server.acceptor, "_listener", Exhausted(server.listener))
    server.connect()
    eventually(lambda: server.gateway.metrics.accept_pauses > 1)
    server.thread.run(server.acceptor.stop)
    pauses = server.gateway.metrics.accept_pauses
    later = server.gateway.now_s + 0.3
    eventually(lambda: server.gateway.now_s > later)
    assert server.gateway.metrics.accept_pauses == pauses


def test_any_error_of_accepting_pauses_and_is_logged_once(
    serve_routes: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_routes()
    real = server.acceptor._listener

    class Forbidden:
        accept = staticmethod(lambda: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))

        def __getattr__(self, name: str):
            return getattr(real, name)

    with caplog.at_level("INFO", logger="salver"):
        monkeypatch.setattr(server.acceptor, "_listener", Forbidden())
        client = server.connect()
        eventually(lambda: server.gateway.metrics.accept_pauses > 2)
        monkeypatch.undo()
        assert client.ask(HELLO).status == 200
    paused = [record for record in caplog.records if record.getMessage() == "accept_paused"]
    assert [record.fields for record in paused] == [{"problem": "EPERM"}]


EXHAUSTED_SERVER = """
import asyncio, resource, socket, sys, uvloop
from salver.clock import SYSTEM_CLOCK
from salver.gateway.acceptor import Acceptor
from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute, HttpRouteTable
from salver.security.access import ANONYMOUS
from salver.telemetry.logs import AccessSample, configure_logs
from salver.telemetry.metrics import Metrics

async def main():
    configure_logs("server")
    metrics = Metrics()
    pauses = HttpRoute("GET", "/", None, lambda exchange: exchange.reply_json(metrics.accept_pauses), "")
    gateway = Gateway(
        HttpRouteTable([pauses]), Limits(), metrics, SYSTEM_CLOCK, authenticate=lambda _, __: ANONYMOUS,
        open_to_anyone=True, id_prefix="x", access=AccessSample(0),
    )
    Acceptor(socket.socket(fileno=int(sys.argv[1])), gateway).start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


@pytest.fixture
def exhausted() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server process that may have forty descriptors; its first one is a connection that works."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", EXHAUSTED_SERVER, str(listener.fileno())],
            pass_fds=(listener.fileno(),),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path.home(),
        )
    assert process.stdout.read(5) == b"ready"
    yield process, port
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_without_descriptors_accepting_pauses_and_then_goes_on(exhausted: tuple) -> None:
    process, port = exhausted
    clients = [RawClient(socket.create_connection(("127.0.0.1", port))) for _ in range(80)]
    first, waiting = clients[0], clients[-1]
    waiting.send(HELLO)
    eventually(lambda: first.ask(HELLO).json > 0)
    watched = psutil.Process(process.pid)
    before, used_s, began_s = first.ask(HELLO).json, sum(watched.cpu_times()[:2]), time.monotonic()
    # Six pauses are half a second at the least, in which it answers the first client and does nothing else.
    answered = 0

    def paused_six_times() -> bool:
        nonlocal answered
        answered += 1
        return first.ask(HELLO).json >= before + 6

    eventually(paused_six_times)
    used_s = sum(watched.cpu_times()[:2]) - used_s
    assert time.monotonic() - began_s > 0.5
    assert used_s < 0.2 + answered * 0.0005
    for client in clients[1:60]:
        client.close()
    assert waiting.read().status == 200
    assert first.ask(HELLO).status == 200
    for client in clients:
        client.close()
    process.kill()
    logged = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert {(line["event"], line["problem"]) for line in logged} == {("accept_paused", "EMFILE")}
    assert len(logged) < 6, "one for each time it begins, not for each pause"


def test_an_acceptor_takes_many_at_a_time(serve_routes: Serve) -> None:
    server = serve_routes(HttpRoute("GET", "/x", None, lambda exchange: exchange.reply_json(1), ""))
    clients = [server.connect() for _ in range(400)]
    assert isinstance(server.acceptor, Acceptor)
    for client in clients:
        client.send(HELLO)
    assert {client.read().status for client in clients} == {200}
