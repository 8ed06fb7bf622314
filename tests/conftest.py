"""Whole servers for tests: real processes on a home of their own, and small models with known answers."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

DEADLINE_S = 30.0
LONGEST = (
    "tests/examples/test_registry_walks.py",
    "tests/examples/test_pipelines.py",
    "tests/imports/test_mlflow_registry.py",
    "tests/docs/test_examples.py",
    "tests/storage/test_blobs_faults.py",
    "tests/cli/test_dev.py",
    "tests/control/test_uploads.py",
    "tests/runtime/test_workers.py",
    "tests/evaluation/test_comparison.py",
    "tests/evaluation/test_fit.py",
    "tests/cli/test_reproduce.py",
    "tests/sockets/test_jobs.py",
)
"""The files that take longest come first, so that the last to end are short."""

# The suite finds the same every time; HYPOTHESIS_PROFILE=default looks for what is new.
# Whoever shares the machine makes an example slow, which says nothing of it.
settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database", choices=("sqlite", "postgresql"), default="sqlite", help="the database of the homes of tests"
    )


def pytest_configure() -> None:
    # A home syncs every change, for which tests need no disk where there is memory enough.
    with contextlib.suppress(OSError):
        if shutil.disk_usage("/dev/shm").free > 4 * 2**30:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell's & leaves to its children, and they to theirs
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command that serves sets up the log of its process, which is this one; the next test has its own output."""
    logger = logging.getLogger("salver")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition` is true and return its value; fail naming `what` at the deadline."""
    end_s = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end_s:
            pytest.fail(f"not within {deadline_s} s: {what}")
        threading.Event().wait(0.01)
    return value


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.headers.get("x-salver-error")


def ask(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    token: str | None = None,
    timeout_s: float = DEADLINE_S,
) -> Answer:
    """One request on a connection of its own."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout_s)
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def rows(values: Any, **parameters: Any) -> dict[str, Any]:
    """A request for the test models, whose input is `x` FP32 [-1, 2]."""
    array = np.asarray(values, np.float32).reshape(-1, 2)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return {"inputs": [tensor]} | ({"parameters": parameters} if parameters else {})


class Tree:
    """One `salver serve` and all its processes.

    Everything in it has a TMPDIR of its own or one in that, workers included: that tells its processes
    from all others, also when the supervisor is dead.
    """

    def __init__(self, home: Path, scratch: Path) -> None:
        self.home = home
        self.scratch = scratch
        self.log_path = scratch.parent / f"{scratch.name}.log"
        scratch.mkdir(exist_ok=True)
        self.environment = {
            "SALVER_HOME": str(home),
            "SALVER_SERVER_LAME_DUCK_S": "0",
            "TMPDIR": str(scratch),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    until = staticmethod(until)
    rows = staticmethod(rows)
    ask = staticmethod(ask)

    # The command line.

    def command(self, *arguments: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess:
        """Run a command on the home, as a process."""
        return subprocess.run(
            [sys.executable, "-m", "salver", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env=os.environ | self.environment | environment,
            timeout=60,
            check=False,
        )

    def attempt(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Run a command in this process; returns its exit code, output and complaint."""
        from salver.cli import main

        given = ["--json", "--home", self.environment["SALVER_HOME"], *map(str, arguments)]
        with (
            contextlib.redirect_stdout(io.StringIO()) as output,
            contextlib.redirect_stderr(io.StringIO()) as complaint,
        ):
            code = main(given)
        return code, output.getvalue(), complaint.getvalue()

    def salver(self, *arguments: str | Path) -> Any:
        """Run a command that must succeed, in this process, and return its JSON document."""
        code, output, complaint = self.attempt(*arguments)
        assert code == 0, complaint
        return json.loads(output) if output else None

    # The server.

    def launch(self, *arguments: str, **environment: str) -> None:
        """Start `salver serve` without waiting for it."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "salver", "serve", "--http", "0", "--control", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.environment | environment,
            )

    def start(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Start `salver serve` and return its ready line."""
        self.launch(*arguments, **environment)
        return self.wait_ready()

    def wait_ready(self) -> dict[str, Any]:
        assert self.process is not None
        line = self.process.stdout.readline()
        assert line, f"no ready line; the log: {self.log_path.read_text()}"
        self.ready = json.loads(line)
        return self.ready

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        assert self.process is not None
        code = self.process.wait(DEADLINE_S)
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def processes(self) -> list[psutil.Process]:
        """All living processes of this tree, whoever their parent is now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                    and process.environ().get("TMPDIR", "").startswith(str(self.scratch))
                    and process.pid != os.getpid()
                ):
                    found.append(process)
        return found

    def is_gone(self) -> bool:
        return not self.processes()

    def left_behind(self) -> list[Path]:
        """Temporary files of this tree."""
        # ONNX Runtime makes that one when it is imported.
        return list(self.scratch.iterdir())

    def clean_up(self) -> None:
        """End whatever is left; a test that succeeded left nothing."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name in the log."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return [event for line in lines if line.startswith("{") and (event := json.loads(line)).get("event") == name]

    # Asking it.

    @property
    def http(self) -> str:
        return self.ready["http"]

    @property
    def control(self) -> str:
        return self.ready["control"]

    @property
    def server_pid(self) -> int:
        """The server process that answers now: it may have been replaced."""
        return self.child("salver.processes.server")

    @property
    def controller_pid(self) -> int:
        return self.child("salver.processes.controller")

    def child(self, module: str) -> int:
        def look() -> int:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(self.process.pid).children():
                    if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        return child.pid
            return 0

        return until(look, f"a child {module}")

    @property
    def admin_token(self) -> str:
        return (self.home / "admin.token").read_text().strip()

    def token(self, name: str, role: str) -> str:
        answer = self.administer("POST", "/v1/tokens", {"name": name, "role": role})
        assert answer.status == 200, answer.body
        return answer.json["token"]

    def administer(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """A request to the control listener, as administrator unless told otherwise."""
        options.setdefault("token", self.admin_token)
        return ask(self.control, method, path, body, **options)

    def get(self, path: str, **options: Any) -> Answer:
        return ask(self.http, "GET", path, **options)

    def infer(self, endpoint: str, values: Any, *, version: str = "", **options: Any) -> Answer:
        parameters = options.pop("parameters", {})
        path = f"/v2/models/{endpoint}{f'/versions/{version}' if version else ''}/infer"
        return ask(self.http, "POST", path, rows(values, **parameters), **options)

    def predict(self, endpoint: str, values: Any, **options: Any) -> list[float]:
        """The output of a test model, which must answer."""
        answer = self.infer(endpoint, values, **options)
        assert answer.status == 200, answer.body
        return answer.json["outputs"][0]["data"]

    def deploy(self, model: str, **settings: Any) -> dict[str, Any]:
        """Deploy through the control listener."""
        name, _, version = model.partition("@")
        body = {"model": name, "settings": settings} | ({"version": version} if version else {})
        answer = self.administer("POST", "/v1/deployments", body)
        assert answer.status == 200, answer.body
        return answer.json

    def endpoint(self, name: str) -> dict[str, Any]:
        """What an endpoint does now; empty while nobody says."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            for row in self.administer("GET", "/v1/status").json["endpoints"]:
                if row["endpoint"] == name:
                    return row
        return {}

    def wait_serving(self, endpoint: str, version: str, generation: int = 0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            row = self.endpoint(endpoint)
            there = row.get("serving") == version and row["state"] == "ready" and row["available"]
            return row if there and row["generation"] >= generation else None

        return until(look, f"{endpoint} serves {version}")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of small models: `x` FP32 [-1, 2] -> `y` of the same shape.

    timesN.onnx and timesN.py give N times x. loop.onnx gives x after as many turns of a loop as
    the largest value says, so a request decides how long it takes; it cannot be interrupted.
    """
    directory = tmp_path_factory.mktemp("models")
    for factor in (2, 3, 4):
        (directory / f"times{factor}.onnx").write_bytes(_times(factor))
    (directory / "loop.onnx").write_bytes(_loop())
    (directory / "times3.py").write_text(_TIMES_3)
    (directory / "broken.onnx").write_bytes(b"this is no model")
    return directory


def _times(factor: float) -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    factors = helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])
    return _model([node], [factors])


def _loop() -> bytes:
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["carried"], ["carried_on"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
    ]
    return _model(nodes, [])


def _model(nodes: list[Any], constants: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


_TIMES_3 = """
import time
from salver import Model, TensorSpec

class Times3(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1, 2)),)

    def predict(self, inputs):
        x = inputs["x"]
        if (x >= 1000).any():
            time.sleep(float(x.max()) / 1000)
        return {"y": x * 3}
"""


@pytest.fixture(scope="session", autouse=True)
def no_checkout() -> Iterator[None]:
    """What tests register is of no commit, though they stand in a checkout."""
    from salver.control import origin

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "checkout_of", lambda _path: None)
        yield


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Tree]]:
    """Makes trees on fresh homes; whatever a failed test left is ended."""
    made: list[Tree] = []

    def make(home: Path | None = None) -> Tree:
        directory = tmp_path_factory.mktemp("tree")
        made.append(Tree(home or directory / "home", directory / "tmp"))
        return made[-1]

    yield make
    for tree in made:
        tree.clean_up()


@pytest.fixture
def tree(trees: Callable[[], Tree]) -> Iterator[Tree]:
    """A tree of one test. Afterwards nothing of it runs and no temporary file is left."""
    made = trees()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    until(made.is_gone, f"no process of the tree is left, but {made.processes()}", 15)
    assert not made.left_behind()
    assert not made.events("fault")


@contextlib.contextmanager
def serving_double(tree: Tree, models: Path, *arguments: str, **environment: str) -> Iterator[Tree]:
    """A tree that serves double@1.0.0 at the endpoint `double`."""
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start(*arguments, **environment)
    yield tree
    assert tree.stop() == 0
    until(tree.is_gone, "no process of the shared server is left", 15)


@pytest.fixture(scope="session")
def shared(trees: Callable[[], Tree], models: Path) -> Iterator[Tree]:
    """One running server for all tests that leave it as it was: endpoint `double` is double@1.0.0."""
    with serving_double(trees(), models) as tree:
        yield tree
