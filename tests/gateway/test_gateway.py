"""Who may, and what all connections share."""

from __future__ import annotations

import email.utils
from typing import Any

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, held_request, request, row

from salver.clock import SYSTEM_CLOCK
from salver.gateway.lane import Lane
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute
from salver.security.access import Role
from salver.security.tokens import MintedToken, mint_token
from salver.telemetry.logs import AccessSample


def minted(role: Role) -> MintedToken:
    return mint_token(f"a-{role}", role, "default", pepper=b"p" * 32, clock=SYSTEM_CLOCK)


PREDICTOR, APPROVER = minted(Role.PREDICTOR), minted(Role.APPROVER)


@pytest.fixture(scope="module")
def guarded(serve_model: Serve) -> Served:
    return serve_model(Limits(), tokens=(PREDICTOR.record, APPROVER.record))


def test_a_guarded_server_asks_for_a_token(guarded: Served) -> None:
    for reply in (guarded.get("/v2"), guarded.infer(row()), guarded.get("/metrics"), guarded.get("/docs")):
        assert (reply.status, reply.code) == (401, "UNAUTHENTICATED")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_token_and_forgives_a_wrong_one(guarded: Served) -> None:
    assert guarded.get("/v2/health/live").status == 200
    assert guarded.get("/v2/health/ready", "Authorization: Bearer stale").status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_right_token_opens(guarded: Served, scheme: str) -> None:
    assert guarded.infer(row(), f"Authorization: {scheme} {PREDICTOR.token}").status == 200
    assert guarded.get("/metrics", f"Authorization: {scheme} {PREDICTOR.token}").status == 200


@pytest.mark.parametrize(
    "credentials",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {PREDICTOR.token[:-1]}",
        f"Bearer {PREDICTOR.token}x",
        f"Bearer {PREDICTOR.token}, Bearer {PREDICTOR.token}",
        f"Basic {PREDICTOR.token}",
        PREDICTOR.token,
        "Bearer \u00e9",
        "Bearer " + "a" * 10_000,
    ],
    ids=map(str, range(10)),  # not the token, which differs from run to run
)
def test_a_wrong_token_does_not(guarded: Served, credentials: str) -> None:
    data = request("GET", "/v2").replace(b"Host:", f"Authorization: {credentials}\r\nHost:".encode("latin-1"))
    reply = guarded.ask(data)
    assert (reply.status, reply.code) == (401, "UNAUTHENTICATED")
    assert "slv_" not in reply.error


def test_a_role_that_may_not_predict_is_told_which_may(guarded: Served) -> None:
    reply = guarded.infer(row(), f"Authorization: Bearer {APPROVER.token}")
    assert (reply.status, reply.code) == (403, "PERMISSION_DENIED")
    assert "predictor" in reply.error
    assert APPROVER.token not in reply.error


def test_an_open_server_takes_everybody_but_no_wrong_token(server: Served) -> None:
    assert server.infer(row()).status == 200
    assert server.infer(row(), "Authorization: Bearer wrong").status == 401


def test_a_token_is_checked_before_the_body_is_read_further(guarded: Served) -> None:
    assert guarded.infer(b"{").code == "UNAUTHENTICATED"


def test_a_route_that_raises_is_a_fault_that_is_answered(serve_routes: Serve, no_faults: list) -> None:
    def fail(exchange: Any) -> None:
        raise RuntimeError("/secret/path")

    def fail_late(exchange: Any) -> None:
        exchange.reply_json({"fine": True})
        raise RuntimeError("late")

    server = serve_routes(HttpRoute("GET", "/fail", None, fail, ""), HttpRoute("GET", "/late", None, fail_late, ""))
    client = server.connect()
    reply = client.ask(request("GET", "/fail"))
    assert (reply.status, reply.code) == (500, "INTERNAL")
    assert "secret" not in reply.error
    assert client.ask(request("GET", "/late")).json == {"fine": True}
    assert client.ask(request("GET", "/")).status == 200
    assert len(no_faults) == 2
    no_faults.clear()


def test_a_connection_that_cannot_be_swept_does_not_keep_others_from_it(
    serve_routes: Serve, no_faults: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve_routes(limits=Limits(keep_alive_s=0.1))
    odd, plain = server.connect(), server.connect()
    for client in (odd, plain):
        client.ask(request("GET", "/"))
    (broken, _) = server.gateway.lanes
    whole = Lane.sweep

    def sweep(lane: Lane, now_s: float) -> None:
        if lane is broken:
            raise RuntimeError("broken")
        whole(lane, now_s)

    monkeypatch.setattr(Lane, "sweep", sweep)
    eventually(lambda: len(server.gateway.lanes) == 1)
    monkeypatch.undo()
    eventually(lambda: not server.gateway.lanes)
    assert no_faults
    no_faults.clear()


def test_replies_are_dated(server: Served) -> None:
    reply = server.get("/v2")
    when = email.utils.parsedate_to_datetime(reply.headers["date"]).timestamp()
    assert abs(when - SYSTEM_CLOCK.wall_s()) < 5


def test_a_sampled_request_is_logged_without_what_the_client_wrote(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.gateway.access
    server.gateway.access = AccessSample(1)
    try:
        with caplog.at_level("INFO", logger="salver"):
            server.get("/v2/models/toy/config?secret", "X-Request-Id: mine", "Authorization-Hint: secret")
            client = server.connect()
            client.send(held_request())
            server.answer_held()
            client.read()
    finally:
        server.gateway.access = before
    record, inference = [record for record in caplog.records if record.getMessage() == "request"]
    assert record.fields["id"] == "mine"
    assert record.fields["route"] == "/v2/models/{model}/config"
    assert record.fields["endpoint"] == "toy"
    assert record.fields["status"] == 200
    assert "secret" not in str(record.fields)
    assert "queue_s" not in record.fields
    assert (inference.fields["queue_s"], inference.fields["compute_s"]) == (0.25, 0.5)


def test_a_data_plane_sweeps_every_gateway_it_is_given(server: Served, thread: Any) -> None:
    class Swept:
        turns = 0

        def sweep(self) -> None:
            self.turns += 1

    plane, other = server.plane, Swept()
    plane.swept.append(other)
    try:
        thread.run(plane.start)
        eventually(lambda: other.turns >= 2)
    finally:
        thread.run(plane.stop)
        plane.swept.remove(other)
