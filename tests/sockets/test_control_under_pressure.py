"""The control listener of a whole server, with clients that wait, keep it waiting, or guess."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import pytest

SLOW = """
import os, pathlib, threading
from salver import Model, TensorSpec

class Slow(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1, 2)),)

    def load(self, directory):
        while not pathlib.Path(os.environ["TMPDIR"], "go").exists():
            threading.Event().wait(0.02)

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="module")
def running(trees, models):
    tree = trees()
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start(SALVER_LIMITS_HEADER_TIMEOUT_S="0.3")
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)


@pytest.fixture
def connect(running):
    """Makes connections to the control listener; all are closed in the end."""
    with contextlib.ExitStack() as closed:
        place = urlsplit(running.control)

        def make() -> socket.socket:
            client = closed.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
            client.settimeout(30)
            return client

        yield make


def is_answered(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(30)


def test_hundreds_of_heads_that_never_end_keep_nobody_out_and_are_ended(running, connect) -> None:
    clients = [connect() for _ in range(300)]
    for client in clients:
        with contextlib.suppress(OSError):  # the first have lost their places already
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n")
    assert running.administer("GET", "/v1/status").status == 200
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass


def test_requests_that_wait_for_a_model_keep_nobody_out(running, connect, tmp_path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    running.salver("register", "slow", tmp_path / "slow.py")
    # Two, as one principal gets half of the places.
    head = "POST /v2/repository/models/slow/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: "
    requests = [f"{head}Bearer {running.token(name, 'operator')}\r\n\r\n".encode() for name in ("ann", "ben")]
    clients = [connect() for _ in range(64)]
    for number, client in enumerate(clients):
        client.sendall(requests[number % 2])

    def generation() -> int:
        rows = running.administer("GET", "/v1/status").json["deployments"]
        return max((row["generation"] for row in rows if row["endpoint"] == "slow"), default=0)

    running.until(lambda: generation() >= 64, "all 64 loads are under way")
    reached = generation()
    # More than there are threads: each of these still has one.
    refused = running.administer("POST", "/v2/repository/models/slow/load", b"")
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "QUEUE_FULL", "1")
    assert running.salver("status")["serving"]
    # One that has gone gives its place to another.
    clients.pop().close()
    late: list[socket.socket] = []

    def taken() -> bool:
        late.append(connect())
        late[-1].sendall(requests[1])
        running.until(lambda: is_answered(late[-1]) or generation() > reached, "it waits or is refused")
        return not is_answered(late[-1])

    running.until(taken, "another load is under way")
    (running.scratch / "go").touch()
    for client in [*clients, late[-1]]:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    running.salver("undeploy", "slow")
    (running.scratch / "go").unlink()


def test_who_guesses_tokens_is_slowed_down_and_shuts_nobody_out(running) -> None:
    assert running.administer("GET", "/v1/status").status == 200
    late = running.token("late", "operator")

    def refused() -> bool:
        answer = running.administer("GET", "/v1/status", token="slv_guess")
        assert answer.code in ("UNAUTHENTICATED", "TOO_MANY_GUESSES")
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status == 429

    running.until(refused, "guesses are refused")
    assert running.administer("GET", "/v1/status").status == 200
    assert running.salver("status")["serving"]
    assert running.administer("GET", "/v1/status", token=None).status == 401
    # One that was never shown before waits for the second in which a token is looked at.
    running.until(lambda: running.administer("GET", "/v1/status", token=late).status == 200, "a place is free")
