"""Load and unload on the data listener: handed to the controller, answer handed back."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import request

from salver.gateway.repository import ask_controller, repository_routes
from salver.gateway.routes import HttpRouteTable
from salver.security.access import ANONYMOUS, Principal, PrincipalKind, Role

OPERATOR = Principal("o", Role.OPERATOR, "default", PrincipalKind.TOKEN)


class Controller:
    """Answers every request on a Unix socket with what the test says, and keeps what came."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        self.heard: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                heard = b""
                while b"\r\n\r\n" not in heard:
                    part = connection.recv(65536)
                    if not part:
                        return
                    heard += part
                self.heard.append(heard)
                connection.sendall(self.answer)

    def stop(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    running = Controller(tmp_path / "control.sock")
    yield running
    running.stop()


def forwarding(serve_routes: Serve, path: str) -> Served:
    server = serve_routes()
    server.gateway.routes = HttpRouteTable(repository_routes(partial(ask_controller, path)))
    server.gateway.authenticate = lambda token, _: {"operator": OPERATOR}.get(token, ANONYMOUS)
    return server


def load(server: Served, path: str = "/v2/repository/models/toy/load", token: str = "operator") -> Any:
    return server.post(path, b'{"a":1}', f"Authorization: Bearer {token}", "X-Request-Id: mine")


def test_a_request_and_its_answer_are_handed_on(serve_routes: Serve, controller: Controller) -> None:
    controller.answer = b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"load":true}'
    reply = load(forwarding(serve_routes, controller.path))
    assert (reply.status, reply.json, reply.headers["x-request-id"]) == (200, {"load": True}, "mine")
    head, _, body = controller.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/repository/models/toy/load HTTP/1.1\r\n")
    assert b"authorization: Bearer operator" in head.replace(b"Authorization", b"authorization")
    assert b"mine" in head
    assert body in (b"", b'{"a":1}')


def test_an_error_keeps_its_code(serve_routes: Serve, controller: Controller) -> None:
    body = json.dumps({"error": "there is no model 'toy'"}).encode()
    controller.answer = (
        b"HTTP/1.1 503 Unavailable\r\nx-salver-error: NOT_READY\r\nretry-after: 7\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    ) + body
    reply = load(forwarding(serve_routes, controller.path))
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "NOT_READY", "7")


@pytest.mark.parametrize(
    ("target", "handed"),
    [
        ("http://evil.example/v2/repository/models/toy/load", "/v2/repository/models/toy/load"),
        ("/v2/repository/models/t%6fy/load?x=y", "/v2/repository/models/toy/load"),
        ("/v2/repository/models/a%3fb%23c/load", "/v2/repository/models/a%3Fb%23c/load"),
        ("/v2/repository/models/a%0d%0aX%3a%20y/load", "/v2/repository/models/a%0D%0AX%3A%20y/load"),
    ],
)
def test_what_is_handed_on_is_written_anew(
    serve_routes: Serve, controller: Controller, target: str, handed: str
) -> None:
    load(forwarding(serve_routes, controller.path), target)
    assert controller.heard[0].split(b" ")[1].decode() == handed


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_a_controller_that_fails_is_unavailable(serve_routes: Serve, controller: Controller, answer: bytes) -> None:
    controller.answer = answer
    reply = load(forwarding(serve_routes, controller.path))
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "CONTROL_UNAVAILABLE", "1")


def test_a_controller_that_is_not_there_is_unavailable(serve_routes: Serve, tmp_path: Path) -> None:
    assert load(forwarding(serve_routes, str(tmp_path / "none.sock"))).code == "CONTROL_UNAVAILABLE"


def test_those_who_may_not_deploy_are_not_handed_on(serve_routes: Serve, controller: Controller) -> None:
    server = forwarding(serve_routes, controller.path)
    assert load(server, token="anybody").code == "PERMISSION_DENIED"
    assert server.ask(request("POST", "/v2/repository/index", b"{}")).code == "UNAUTHENTICATED"
    assert not controller.heard
