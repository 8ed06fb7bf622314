from __future__ import annotations

import asyncio
import inspect
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import pytest
import trustme
from tests.signing import KEY, signed

from salver.client import AsyncClient, Client
from salver.clock import SYSTEM_CLOCK
from salver.config import read_settings
from salver.processes.order import Order, write_order
from salver.protocol.profile import Profile
from salver.protocol.tables import DeploymentSpec, FileEntry, Tables, TokenRecord, VersionManifest
from salver.runtime.artifact import read_artifact
from salver.security.access import Role
from salver.security.tokens import mint_token
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.publication import publish
from salver.storage.trust import TrustDirectory


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`iris` is a classifier from scikit-learn; `sum` adds two inputs; `text` echoes BYTES; `half` echoes FP16."""
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    place = tmp_path_factory.mktemp("models")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60, 3)).astype(np.float32)
    fitted = LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(np.int64))
    iris = to_onnx(fitted, rows[:1], options={"zipmap": False}, target_opset=17)
    np.save(place / "rows.npy", rows)

    def graph(name, nodes, inputs, output):
        made = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(tensor, kind, [None, 2]) for tensor, kind in inputs],
            [helper.make_tensor_value_info("y", output, [None, 2])],
        )
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    integer = TensorProto.INT32
    models = {
        "iris": iris,
        "sum": graph("sum", [helper.make_node("Add", ["a", "b"], ["y"])], [("a", integer), ("b", integer)], integer),
        "text": graph(
            "text", [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.STRING)], TensorProto.STRING
        ),
        "half": graph(
            "half", [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.FLOAT16)], TensorProto.FLOAT16
        ),
    }
    files = {}
    for name, model in models.items():
        files[name] = place / f"{name}.onnx"
        files[name].write_bytes(model.SerializeToString())
    return files


def deploy(home: Home, files: dict[str, Path], revision: int, tokens: tuple[TokenRecord, ...] = ()) -> None:
    """Publish a home's tables: each file as version 1.0.0 of the endpoint it is named after."""
    versions, deployments = [], []
    TrustDirectory(home.trust_path).add(KEY.key_id, KEY.public.pem)
    for name, file in files.items():
        artifact = read_artifact(file)
        blob = BlobStore(home.blobs_path).put_file(file)
        rows = file.with_name("rows.npy")
        profile = Profile.measure(np.load(rows), artifact.signature) if name == "iris" else None
        entry = FileEntry(file.name, blob.sha256, blob.size_bytes)
        fields = (name, "1.0.0", 1, blob.sha256, artifact.format, (entry,), artifact.signature)
        versions.append(signed(VersionManifest(*fields, profile=profile)))
        deployments.append(DeploymentSpec(name, name, "1.0.0", generation=revision))
    publish(home, Tables(revision, tuple(versions), tuple(deployments), tokens))


class Ports(NamedTuple):
    http: int
    grpc: int


@contextmanager
def served(home: Home, **settings: object) -> Iterator[Ports]:
    """The ports of a server process on `home`."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as grpc_listener,
        tempfile.TemporaryDirectory(prefix="salver-") as run_dir,
    ):
        told, tell = os.pipe()
        order = Order(
            str(home.path),
            run_dir,
            read_settings(None, {}, lame_duck_s=0.0, **settings),
            (listener.fileno(),),
            (grpc_listener.fileno(),),
            control_fd=0,
            control_socket_fd=0,
            ready_fd=tell,
            supervisor_pid=os.getpid(),
        )
        write_order(order, Path(run_dir) / "order.json")
        with Path(run_dir, "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "salver.processes.server", f"{run_dir}/order.json"],
                pass_fds=(listener.fileno(), grpc_listener.fileno(), tell),
                stderr=log,
            )
        os.close(tell)
        try:
            assert select.select([told], [], [], 30)[0]
            report = os.read(told, 65536)
            assert report, (Path(run_dir) / "log").read_text()
            assert msgspec.json.decode(report)["failed"] == []
            yield Ports(listener.getsockname()[1], grpc_listener.getsockname()[1])
        finally:
            process.terminate()
            process.wait(10)
            os.close(told)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, onnx_models: dict[str, Path]) -> Home:
    opened = Home.open(tmp_path_factory.mktemp("served") / "home")
    deploy(opened, onnx_models, 1)
    return opened


@pytest.fixture(scope="session")
def ports(home: Home) -> Iterator[Ports]:
    with served(home) as found:
        yield found


@pytest.fixture(scope="session")
def url(ports: Ports) -> str:
    return f"http://127.0.0.1:{ports.http}"


class Awaited:
    """An AsyncClient whose calls are awaited one by one, so that one test does for both clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self.client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        assert inspect.iscoroutinefunction(method)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


KINDS = {"sync": Client, "async": Awaited}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """A client for threads, or one for an event loop."""
    return KINDS[request.param]


@pytest.fixture(params=["http", "grpc"])
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def root(wire: str, ports: Ports) -> str:
    """The URL of the server, over HTTP and over gRPC."""
    return f"{wire}://127.0.0.1:{getattr(ports, wire)}"


@pytest.fixture
def client(kind: Any, root: str) -> Iterator[Any]:
    """Each client over each protocol."""
    with kind(root) as opened:
        yield opened


class Guarded:
    def __init__(self, ports: Ports, token: str, authority: trustme.CA) -> None:
        self.urls = {"http": f"https://localhost:{ports.http}", "grpc": f"grpcs://localhost:{ports.grpc}"}
        self.token = token
        self.authority = authority


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, onnx_models: dict[str, Path]) -> Iterator[Guarded]:
    """A server that asks for TLS and a token."""
    place = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(place / "server.pem"))
    opened = Home.open(place / "home")
    minted = mint_token("caller", Role.PREDICTOR, "default", pepper=opened.pepper(), clock=SYSTEM_CLOCK)
    deploy(opened, {"sum": onnx_models["sum"]}, 1, (minted.record,))
    pem = str(place / "server.pem")
    with served(opened, tls_cert=pem, tls_key=pem, require_token=True) as ports:
        yield Guarded(ports, minted.token, authority)


@pytest.fixture(scope="session")
def rows(onnx_models: dict[str, Path]) -> np.ndarray:
    return np.load(onnx_models["iris"].with_name("rows.npy"))
