"""Who may come in, and how a server goes: caps, tokens, TLS, draining."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from tests.gateway.grpc.client import CHECK_PATH, OIP, Http2Client, data_frames, dial, framed, row
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import RawClient, eventually

from salver.gateway.grpc import frames as f
from salver.gateway.grpc.frames import ErrorCode, pack_frame
from salver.gateway.limits import Limits

LAST = 2**31 - 1


def drain(server: Served) -> None:
    """What the end of a server does, as far as it concerns connections."""
    server.gateway.drain()

    def go_on() -> None:
        server.gateway.close_idle()
        if server.gateway.lanes:
            server.thread.loop.call_later(0.01, go_on)

    server.thread.run(go_on)


@pytest.fixture
def ending(serve_model: Serve) -> Served:
    return serve_model(Limits(), grpc=True)


def test_an_idle_connection_is_told_and_closed(ending: Served) -> None:
    client = dial(ending)
    client.call("ServerLive")
    drain(ending)
    assert client.goaway()[:2] == (LAST, ErrorCode.NO_ERROR)
    assert client.is_closed()
    assert client.goaways[-1][:2] == (1, ErrorCode.NO_ERROR)


def test_calls_under_way_and_on_their_way_are_answered(ending: Served) -> None:
    client = dial(ending)
    begun = client.start("ModelInfer", row(model="held"))
    client.send(client.head(OIP + "ModelInfer"))
    half = client.next_id - 2
    eventually(lambda: ending.held.asked)
    drain(ending)
    client.goaway()
    # A call that the client sent before it heard of it.
    late = client.start("ModelInfer", row(1, 2, 3, 4))
    assert client.answer(late).infer
    client.send(data_frames(half, framed(row())))
    assert client.answer(half).infer
    # Longer than a quiet connection would be kept.
    drained_s = ending.gateway.clock.monotonic_s()
    eventually(lambda: ending.gateway.clock.monotonic_s() > drained_s + 0.4)
    ending.answer_held()
    assert client.answer(begun).status == 0
    assert client.is_closed()
    assert client.goaways[-1][0] == late


def test_quiet_streams_are_ended_and_busy_ones_answered(ending: Served) -> None:
    client = dial(ending)
    quiet = client.start("ModelStreamInfer", row(), end=False)
    client.message(quiet, 1)
    busy = client.start("ModelStreamInfer", row(model="held"), end=False)
    watch = client.start(CHECK_PATH + "Watch", b"", end=True)
    eventually(lambda: ending.held.asked)
    drain(ending)
    client.goaway()
    ending.answer_held()
    client.message(busy, 1)
    for stream_id in (quiet, busy):
        assert (client.answer(stream_id).status, client.answer(stream_id).code) == (14, "NOT_READY")
    assert client.answer(watch).status in (0, 14)
    assert client.is_closed()


# The cap.


def test_connections_beyond_the_cap_are_told_to_calm_down(serve_model: Serve) -> None:
    server = serve_model(Limits(connections=2, linger_s=0.2), grpc=True)
    clients = [dial(server) for _ in range(2)]
    assert all(client.call("ServerLive").status == 0 for client in clients)
    late = dial(server)
    last, code, reason = late.goaway()
    assert (last, code) == (0, ErrorCode.ENHANCE_YOUR_CALM)
    assert b"2 connections" in reason
    assert late.is_closed()
    assert clients[0].call("ServerLive").status == 0


# Tokens.


@pytest.fixture
def guarded(ending: Served) -> Iterator[Served]:
    from salver.security.access import Principal, PrincipalKind, Role

    people = {
        "p": Principal("p", Role.PREDICTOR, "default", PrincipalKind.TOKEN),
    }
    ending.gateway._free = {None}
    ending.gateway.authenticate = lambda token, _: people.get(token)
    return ending


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([], 16, "UNAUTHENTICATED"),
        ([("authorization", "Bearer wrong")], 16, "UNAUTHENTICATED"),
        ([("authorization", "Basic p")], 16, "UNAUTHENTICATED"),
        ([("authorization", "Bearer p"), ("authorization", "Bearer p")], 16, "UNAUTHENTICATED"),
        ([("authorization", "bearer p")], 0, None),
    ],
)
def test_methods_ask_for_a_token(guarded: Served, headers: Any, status: int, code: str | None) -> None:
    client = dial(guarded)
    for method in ("ModelInfer", "ModelStreamInfer"):
        answer = client.call(method, row(), headers=headers)
        assert (answer.status, answer.code) == (status, code)
    assert client.call("ServerLive").status == 0
    assert client.call(CHECK_PATH + "Check").status == 0


@pytest.mark.parametrize(
    ("header", "code"),
    [(("authorization", "Bearer wrong"), "UNAUTHENTICATED"), (("x-salver-api-version", "99"), "INVALID_PARAMETER")],
)
def test_a_call_that_may_not_be_asked_is_refused_before_its_message_comes(
    guarded: Served, header: tuple[str, str], code: str
) -> None:
    client = dial(guarded)
    client.send(client.head(OIP + "ModelInfer", header))
    client.send(data_frames(1, struct.pack(">BI", 0, 2**20) + bytes(1000), last=False))
    assert client.answer(1).code == code
    eventually(lambda: guarded.gateway.inflight_bytes == 0)
    assert client.call("ModelInfer", row(), headers=[("authorization", "Bearer p")]).status == 0


def test_nobody_without_a_token_makes_the_server_decompress(guarded: Served) -> None:
    client = dial(guarded)
    client.send(client.head(OIP + "ModelInfer", ("grpc-encoding", "gzip")))
    client.send(data_frames(1, framed(b"no gzip at all", compressed=1)))
    assert client.answer(1).code == "UNAUTHENTICATED"


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def encrypted(serve_model: Serve, authority: trustme.CA) -> Served:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert("localhost").configure_cert(context)
    return serve_model(Limits(header_timeout_s=0.5), tls=context, grpc=True)


def over_tls(server: Served, authority: trustme.CA) -> RawClient:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    raw = server.connect()
    raw.socket = context.wrap_socket(raw.socket, server_hostname="localhost")
    assert raw.socket.selected_alpn_protocol() == "h2"
    return raw


def test_calls_come_and_go_over_tls(encrypted: Served, authority: trustme.CA) -> None:
    client = Http2Client(over_tls(encrypted, authority))
    assert client.call("ModelInfer", row(1, 2, 3, 4)).infer
    encrypted.held.width = 300_000
    stream_id = client.start("ModelInfer", row(model="held"))
    encrypted.answer_held()
    assert len(client.answer(stream_id).infer.raw_output_contents[0]) == 1_200_000
    client.send(pack_frame(6, 0, 1, bytes(8)))
    assert client.goaway()[1] == ErrorCode.PROTOCOL_ERROR
    encrypted.settle()


def test_a_flood_over_tls_is_cut_off(encrypted: Served, authority: trustme.CA) -> None:
    client = Http2Client(over_tls(encrypted, authority))
    client.raw.try_send(f.pack_frame(6, 0, 0, bytes(8)) * 3000)
    assert client.goaway()[1] == ErrorCode.ENHANCE_YOUR_CALM
    encrypted.settle()
