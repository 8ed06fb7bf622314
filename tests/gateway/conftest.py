"""Servers on real sockets, and a client that speaks HTTP no better than it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import uvloop
from onnx import TensorProto, helper, numpy_helper

from salver.app import DataPlane
from salver.clock import SYSTEM_CLOCK
from salver.config import Settings
from salver.gateway.acceptor import Acceptor
from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.gateway.routes import Route, RouteTable
from salver.protocol.errors import CATALOGUE
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry, Placement, Tables, TokenRecord, VersionManifest
from salver.routing.router import Target
from salver.runtime.recorder import FlightRecorder
from salver.security.access import ANONYMOUS
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.telemetry.logs import AccessSample
from salver.telemetry.metrics import Metrics

PATIENCE_S = 10.0
WEIGHTS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
SIGNATURE = Signature(
    (TensorSpec("X", "FP32", (-1, 4)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 3), labels=("ant", "bee", "cat"))),
)
HELD_SIGNATURE = Signature((TensorSpec("X", "FP32", (-1, 4)),), (TensorSpec("Y", "FP32", (-1, -1)),))
_LEAK = re.compile(
    r"Traceback|\.py\b|site-packages|/(?:root|home|tmp|usr|work|var|etc)/|<class|object at 0x"
    r"|\b[A-Z]\w*(?:Error|Exception)\b|\bmsgspec\b|\bnumpy\b|\bonnx"
)


def eventually(fact: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Wait until `fact` is true; the only way to wait for anything here."""
    until = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.005)
    return found


class Reply:
    """One HTTP response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.headers.get("x-salver-error")

    @property
    def error(self) -> str:
        return self.json["error"]

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.code or ''} {self.body[:200]!r}>"


class RawClient:
    """A connection on which anything may be sent. Every error read is checked to be a proper one."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE_S)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> None:
        """Send as much as the other side lets us."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            part = self.socket.recv(65536)
        except ConnectionResetError:
            part = b""
        self.received += part
        return bool(part)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            assert self._more(), f"the connection ended after {self.received!r}"
        found, _, self.received = self.received.partition(mark)
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """The status line and headers of a reply."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        headers = dict(pairs)
        assert len(headers) == len(pairs), "a header came twice"
        return int(status), headers

    def read(self, *, to_head: bool = False) -> Reply:
        """The next final reply."""
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        length = 0 if to_head else int(headers["content-length"])
        while len(self.received) < length:
            assert self._more(), "the connection ended inside a reply"
        reply = Reply(status, headers, self.received[:length])
        self.received = self.received[length:]
        if status >= 400 and not to_head and not reply.body.startswith(b'{"live"') and b'"ready":' not in reply.body:
            check_error(reply)
        return reply

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.read()

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False if bytes come instead."""
        return not self.received and not self._more()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Vanish with a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def check_error(reply: Reply) -> None:
    assert set(reply.json) == {"error"}
    assert isinstance(reply.error, str)
    assert reply.error
    assert reply.headers["content-type"] == "application/json"
    assert reply.code in CATALOGUE, reply
    assert CATALOGUE[reply.code].http == reply.status, reply
    assert not _LEAK.search(reply.error), reply.error


class HeldService:
    """A model that answers when the test says so; `Y` is as wide as the test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, asyncio.Future[Response]]] = []
        self.width = 1

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.asked.append((request, answer))
        return answer

    def answer_one(self) -> None:
        request, answer = self.asked.pop(0)
        if not answer.done():
            values = np.full((request.rows, self.width), 0.5, np.float32)
            answer.set_result(Response("held", "1.0.0", BatchOutputs({"Y": values}), 0, request.rows))


class LoopThread:
    """One event loop for all servers."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, act: Callable[[], Any]) -> Any:
        """Call `act`, or await what it returns, on the loop."""

        async def on_loop() -> Any:
            found = act()
            return await found if asyncio.iscoroutine(found) or asyncio.isfuture(found) else found

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(30)

    def stop(self) -> None:
        self.run(self.loop.shutdown_default_executor)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Served:
    """A gateway behind a port of this machine."""

    def __init__(self, thread: LoopThread, gateway: Gateway, tls: ssl.SSLContext | None = None) -> None:
        self.thread, self.gateway = thread, gateway
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.acceptor: Acceptor = thread.run(lambda: Acceptor(self.listener, gateway, tls))
        self.plane: DataPlane | None = None
        self.held = HeldService()
        self.clients: list[RawClient] = []
        self._stopped = False
        thread.run(self.acceptor.start)
        thread.run(self._tick)

    def _tick(self) -> None:
        self.gateway.sweep()
        if not self._stopped:
            self.thread.loop.call_later(0.02, self._tick)

    def connect(self, *, receive_bytes: int | None = None) -> RawClient:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = RawClient(connection)
        self.clients.append(client)
        return client

    def ask(self, data: bytes) -> Reply:
        """Send on a fresh connection, read one reply, and go."""
        client = self.connect()
        try:
            return client.ask(data)
        finally:
            client.close()

    def get(self, path: str, *headers: str) -> Reply:
        return self.ask(request("GET", path, headers=headers))

    def post(self, path: str, body: bytes, *headers: str) -> Reply:
        return self.ask(request("POST", path, body, headers))

    def infer(self, body: object, *headers: str, model: str = "toy") -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(f"/v2/models/{model}/infer", data, *headers)

    def answer_held(self, count: int = 1) -> None:
        """Wait for `count` requests to the held model and answer them."""
        for _ in range(count):
            eventually(lambda: self.held.asked)
            self.thread.run(self.held.answer_one)

    def is_quiet(self) -> bool:
        return not self.gateway.lanes and self.gateway.inflight_bytes == 0

    def settle(self) -> None:
        """Hang up on the server and wait until it holds nothing any more."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        eventually(self.is_quiet)
        self.held.asked.clear()
        self.held.width = 1

    def stop(self) -> None:
        self.settle()
        self._stopped = True
        self.thread.run(self.acceptor.stop)
        if self.plane is not None:
            self.plane.stop()
            self.thread.run(lambda: self.plane.host.close(5.0))


def request(verb: str, path: str, body: bytes | None = None, headers: tuple[str, ...] = ()) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def row(*values: float) -> dict[str, Any]:
    """The body of a request with one row."""
    return {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": list(values or (1, 2, 3, 0))}]}


def held_request(**more: Any) -> bytes:
    return request("POST", "/v2/models/held/infer", json.dumps({**row(), **more}).encode())


@pytest.fixture(scope="session")
def thread() -> Iterator[LoopThread]:
    running = LoopThread()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that adds the fourth of four numbers to the other three, and names the largest sum."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        "toy",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(WEIGHTS, "W")],
    )
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    onnx.checker.check_model(str(path))
    return path


Serve = Callable[..., Served]


def manifest(model: str, digest: str, signature: Signature, *files: FileEntry) -> VersionManifest:
    return VersionManifest(model, "1.0.0", 1, digest, "onnx", files, signature)


@pytest.fixture(scope="session")
def serve_model(thread: LoopThread, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a data plane that serves `toy`, a `held` model and a `broken` one that cannot be loaded."""
    started: list[Served] = []

    def serve(limits: Limits, *, tokens: tuple[TokenRecord, ...] = (), tls: Any = None, **spec: Any) -> Served:
        home = Home.open(tmp_path_factory.mktemp("home") / "home")
        scratch = home.path / "scratch"
        scratch.mkdir(exist_ok=True)
        blob = BlobStore(home.blobs_path).put_file(toy)
        toy_version = manifest("toy", "ab" * 32, SIGNATURE, FileEntry("toy.onnx", blob.sha256, blob.size_bytes))
        broken = manifest("broken", "cd" * 32, SIGNATURE, FileEntry("toy.onnx", "0" * 64, 1))
        tables = Tables(
            1,
            (toy_version, broken),
            (
                DeploymentSpec("toy", "toy", "1.0.0", placement=Placement.INLINE, **spec),
                DeploymentSpec("broken", "broken", "1.0.0", required=False),
            ),
            (),
            tokens,
        )

        async def build() -> DataPlane:
            plane = DataPlane(
                home,
                Settings(limits=limits),
                FlightRecorder(home.path / "recorder"),
                scratch,
                SYSTEM_CLOCK,
                pepper=b"p" * 32,
                open_to_anyone=not tokens,
            )
            plane.apply(tables)
            await plane.host.settled()
            return plane

        plane = thread.run(build)
        served = Served(thread, plane.gateway, tls)
        served.plane = plane
        targets = dict(plane.router.targets())
        held_spec = DeploymentSpec("held", "held", "1.0.0", max_queue=10_000)
        targets["held"] = Target(held_spec, manifest("held", "ef" * 32, HELD_SIGNATURE), served.held)
        thread.run(lambda: plane.router.publish(targets, {"broken": plane.host.error_of("broken")}))
        started.append(served)
        return served

    yield serve
    for served in started:
        served.stop()


@pytest.fixture(scope="session")
def ordinary(serve_model: Serve) -> Served:
    """The limits people have, but smaller bodies."""
    return serve_model(Limits(body_bytes=4 * 2**20, inflight_bytes=16 * 2**20))


@pytest.fixture(scope="session")
def impatient(serve_model: Serve) -> Served:
    """A server that waits for nobody."""
    return serve_model(
        Limits(
            header_timeout_s=0.3,
            body_grace_s=0.3,
            body_bytes_per_s=20_000.0,
            keep_alive_s=0.5,
            write_stall_s=0.4,
            linger_s=0.1,
        )
    )


@pytest.fixture
def server(ordinary: Served) -> Iterator[Served]:
    yield ordinary
    ordinary.settle()


@pytest.fixture
def hasty(impatient: Served) -> Iterator[Served]:
    yield impatient
    impatient.settle()


@pytest.fixture
def serve_routes(thread: LoopThread) -> Iterator[Serve]:
    """Start a gateway with routes of the test's own and no model."""
    started: list[Served] = []

    def serve(*routes: Route, limits: Limits | None = None, tls: Any = None) -> Served:
        def build() -> Gateway:
            return Gateway(
                RouteTable(
                    [*routes, Route("GET", "/", None, lambda exchange: exchange.reply_json({"status": "alive"}), "Alive")]
                ),
                limits or Limits(),
                Metrics(),
                SYSTEM_CLOCK,
                authenticate=lambda _: ANONYMOUS,
                open_to_anyone=True,
                id_prefix=os.urandom(2).hex(),
                access=AccessSample(0),
            )

        served = Served(thread, thread.run(build), tls)
        started.append(served)
        return served

    yield serve
    for served in started:
        served.stop()


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """No test may end with a fault of the server, logged or escaped into the event loop.

    A test that makes one on purpose empties the list.
    """
    faults: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "fault" or record.name == "asyncio":
                faults.append(record)

    collector = Collector()
    loggers = [logging.getLogger("salver"), logging.getLogger("asyncio")]
    for logger in loggers:
        logger.addHandler(collector)
    yield faults
    for logger in loggers:
        logger.removeHandler(collector)
    running = request.getfixturevalue("thread") if "thread" in request.fixturenames else None
    problems = list(running.problems) if running else []
    if running:
        running.problems.clear()
    assert not [(fault.getMessage(), fault.exc_info) for fault in faults]
    assert not problems
