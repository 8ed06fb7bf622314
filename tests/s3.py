"""A real S3 service: moto's server in a process of its own, and a proxy between that misbehaves when it is told to."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.conftest import until

__all__ = ["S3Service", "s3", "s3_service"]

SERVER = Path(__file__).parents[1] / ".venvs" / "s3" / "bin" / "moto_server"
BUCKET = "salver-test"
_SOMEBODY = "AWS4-HMAC-SHA256 Credential=owner/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""The service asks for a signature and does not check it."""


@dataclass
class S3Service:
    """Where it is; `fault` is a function of method and path that answers what to do with a request."""

    url: str
    port: int
    fault: dict[str, object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Authorization": _SOMEBODY})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def put(self, name: str, data: bytes) -> None:
        assert self.ask("PUT", f"/{BUCKET}/{name}", data)[0] == 200


@pytest.fixture(scope="session")
def s3_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a service that has run from before the first test that wants it."""
    assert SERVER.exists(), "make venv-s3 makes the environment this test drives"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    process = subprocess.Popen(
        [str(SERVER), "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.getbasetemp())},
    )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        until(answers, "the S3 service answers")
        yield port
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def s3(s3_service: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Service]:
    """The service with one empty bucket, behind a proxy for faults; credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    service = S3Service("", s3_service)
    service.ask("POST", "/moto-api/reset")
    assert service.ask("PUT", f"/{BUCKET}")[0] == 200
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _proxy_to(service))
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
    thread.start()
    service.url = f"http://127.0.0.1:{proxy.server_port}"
    yield service
    service.fault.clear()
    proxy.shutdown()
    thread.join()
    proxy.server_close()


def _proxy_to(service: S3Service) -> type[http.server.BaseHTTPRequestHandler]:
    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("transfer-encoding"):
                raise AssertionError("the service is sent whole bodies")
            service.requests.append((self.command, self.path))
            fault = service.fault.get(self.command) or service.fault.get("*")
            if callable(fault) and fault(self, body):
                return
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
            # Who has asked may have given up, and the service may be at its end.
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                self.answer(answer.status, data, dict(answer.getheaders()))

        def answer(self, status: int, data: bytes, headers: dict[str, str], *, sent: int | None = None) -> None:
            """Answer; with `sent`, only so many bytes of what was announced, and hang up."""
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data if sent is None else data[:sent])
            if sent is not None:
                self.wfile.flush()
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Proxy
