"""Servers on real sockets, and a client that speaks HTTP no better than it is told to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.gateway.servers import IMPATIENT, ORDINARY, LoopThread, Serve, Served
from tests.signing import KEY, signed

from salver.app import DataPlane
from salver.clock import SYSTEM_CLOCK
from salver.config import Settings
from salver.gateway.gateway import Gateway
from salver.gateway.grpc.lane import GrpcLane, grpc_refusal
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute, HttpRouteTable
from salver.protocol.jobs import JobLimits
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry, Placement, Tables, TokenRecord, VersionManifest, Webhook
from salver.routing.router import Target
from salver.runtime.recorder import FlightRecorder
from salver.security.access import ANONYMOUS
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.trust import TrustDirectory
from salver.telemetry.logs import AccessSample
from salver.telemetry.metrics import Metrics

WEIGHTS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
SIGNATURE = Signature(
    (TensorSpec("X", "FP32", (-1, 4)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 3), labels=("ant", "bee", "cat"))),
)
HELD_SIGNATURE = Signature((TensorSpec("X", "FP32", (-1, 4)),), (TensorSpec("Y", "FP32", (-1, -1)),))


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


def manifest(model: str, digest: str, signature: Signature, *files: FileEntry) -> VersionManifest:
    return signed(VersionManifest(model, "1.0.0", 1, digest, "onnx", files, signature))


@pytest.fixture(scope="session")
def serve_model(thread: LoopThread, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a data plane that serves `toy`, a `held` model and a `broken` one that cannot be loaded."""
    started: list[Served] = []

    def serve(
        limits: Limits,
        *,
        tokens: tuple[TokenRecord, ...] = (),
        tls: Any = None,
        grpc: bool = False,
        jobs: JobLimits = JobLimits(),  # noqa: B008 - a value
        webhooks: tuple[Webhook, ...] = (),
        **spec: Any,
    ) -> Served:
        home = Home.open(tmp_path_factory.mktemp("home") / "home")
        TrustDirectory(home.trust_path).add(KEY.key_id, KEY.public.pem)
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
            tokens,
            webhooks,
        )

        async def build() -> DataPlane:
            plane = DataPlane(
                home,
                Settings(limits=limits, jobs=jobs),
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
        speaks: dict[str, Any] = {}
        if grpc:
            speaks = {"lane": partial(GrpcLane, methods=plane.grpc_methods()), "refusal": grpc_refusal}
        served = Served(thread, plane.gateway, tls, **speaks)
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
    return serve_model(ORDINARY)


@pytest.fixture(scope="session")
def impatient(serve_model: Serve) -> Served:
    """A server that waits for nobody."""
    return serve_model(IMPATIENT)


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

    def serve(*routes: HttpRoute, limits: Limits | None = None, tls: Any = None) -> Served:
        def build() -> Gateway:
            return Gateway(
                HttpRouteTable(
                    [
                        *routes,
                        HttpRoute("GET", "/", None, lambda exchange: exchange.reply_json({"status": "alive"}), "Alive"),
                    ]
                ),
                limits or Limits(),
                Metrics(),
                SYSTEM_CLOCK,
                authenticate=lambda _, __: ANONYMOUS,
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
