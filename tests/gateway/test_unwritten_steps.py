"""A step of a session that has run and whose answer a door cannot write, through every door."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.gateway.grpc.client import REQUEST, Answer, Http2Client, dial
from tests.gateway.servers import LoopThread, Serve, Served
from tests.gateway.streaming import events
from tests.gateway.wire import request
from websockets.sync.client import connect

from salver.clock import SYSTEM_CLOCK
from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, Placement
from salver.routing.router import Target
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.recorder import FlightRecorder
from salver.runtime.sessions import Sessions
from salver.runtime.states import keep_states
from salver.testing import make_manifest

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 1)),), (TensorSpec("total", "FP64", (-1, 1)),))
UNSAYABLE = -22.0
Step = Callable[..., tuple[str | None, float | None]]
"""Sends one step of session "a"; the code of the refusal or the sum."""


class Sums:
    """Answers the sum of a session so far; behind `UNSAYABLE` NaN, while the sum goes on."""

    def step(self, inputs: Any, states: list[Any]) -> Any:
        x = inputs["x"]
        totals = x + np.array([[state or 0.0] for state in states])
        states[:] = totals[:, 0].tolist()
        return {"total": np.where(x == UNSAYABLE, np.nan, totals)}

    def run(self, inputs: Any) -> Any:
        raise AssertionError("a model of sequences is stepped")

    def unload(self) -> None:
        pass


def body(value: float, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [value]}
    return {"parameters": {"sequence_id": "a", **parameters}, "inputs": [tensor]}


def read(told: Any) -> tuple[str | None, float | None]:
    return (told["code"], None) if "error" in told else (None, told["outputs"][0]["data"][0])


def message(value: float, *, start: bool = False) -> Any:
    # In tensors NaN is a value like any other; only a classification of it cannot be told.
    request = REQUEST(model_name="sums")
    request.inputs.add(name="x", datatype="FP64", shape=[1, 1]).contents.fp64_contents.append(value)
    request.parameters["sequence_id"].string_param = "a"
    request.parameters["sequence_start"].bool_param = start
    request.outputs.add(name="total").parameters["classification"].int64_param = 1
    return request


def total_of(answer: Any) -> float:
    return float(answer.outputs[0].contents.bytes_contents[0].split(b":")[0])


class Doors:
    """One way to ask each."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def http(self, value: float, *, start: bool = False) -> tuple[str | None, float | None]:
        reply = self.served.infer(body(value, sequence_start=start), model="sums")
        return read(reply.json | ({"code": reply.code} if reply.code else {}))

    def events(self, value: float, *, start: bool = False) -> tuple[str | None, float | None]:
        client = self.served.connect()
        sent = json.dumps(body(value, sequence_start=start)).encode()
        client.send(request("POST", "/v2/models/sums/infer_stream", sent))
        status, headers = client.head()
        return read(json.loads(events(client)[0])) if status == 200 else (headers["x-salver-error"], None)

    def websocket(self, value: float, *, start: bool = False) -> tuple[str | None, float | None]:
        with connect(f"ws://127.0.0.1:{self.served.port}/v2/models/sums/ws") as socket:
            socket.send(json.dumps(body(value, sequence_start=start)))
            return read(json.loads(socket.recv(timeout=10)))


class GrpcDoors:
    """Likewise over gRPC."""

    def __init__(self, served: Served) -> None:
        self.client: Http2Client = dial(served)

    def unary(self, value: float, *, start: bool = False) -> tuple[str | None, float | None]:
        answer: Answer = self.client.call("ModelInfer", message(value, start=start))
        return (answer.code, None) if answer.status else (None, total_of(answer.infer))

    def stream(self, value: float, *, start: bool = False) -> tuple[str | None, float | None]:
        headers = [("triton_grpc_error", "true")]
        stream_id = self.client.start("ModelStreamInfer", message(value, start=start), headers=headers)
        answer = self.client.answer(stream_id)
        if answer.status:
            return answer.code, None
        return None, total_of(self.client.message(stream_id, 1).infer_response)


@pytest.fixture(scope="module")
def servers(serve_model: Serve, thread: LoopThread) -> Iterator[dict[str, Served]]:
    """A server of HTTP and one of gRPC, both with sessions of `Sums`."""
    served = {"http": serve_model(Limits()), "grpc": serve_model(Limits(), grpc=True)}
    manifest = make_manifest(model="sums", signature=SIGNATURE, kind="sequence", idempotent=False)
    spec = DeploymentSpec("sums", "sums", "1.0.0", placement=Placement.INLINE)

    def publish(one: Served) -> Sessions:
        plane: Any = one.plane
        sessions = Sessions(spec, manifest, plane.metrics.version("sums", "1.0.0"), SYSTEM_CLOCK)
        keeper = keep_states(Sums(), manifest, None, None)
        (pool,) = sessions.pools
        recorder = FlightRecorder(plane._home.path / "sums")
        pool.add(InProcessReplica(pool, keeper, SYSTEM_CLOCK, recorder, lambda _: None))
        plane.router.publish({**dict(plane.router.targets()), "sums": Target(spec, manifest, sessions)}, {})
        return sessions

    serving = [thread.run(lambda one=one: publish(one)) for one in served.values()]
    yield served
    for sessions in serving:
        thread.run(lambda sessions=sessions: sessions.stop(SalverError("NOT_READY", "over")))


@pytest.fixture(params=["http", "events", "websocket", "unary", "stream"])
def step(servers: dict[str, Served], request: pytest.FixtureRequest) -> Iterator[Step]:
    door = request.param
    over_http = hasattr(Doors, door)
    served = servers["http" if over_http else "grpc"]
    doors: Any = Doors(served) if over_http else GrpcDoors(served)
    yield getattr(doors, door)
    served.settle()


def test_a_step_whose_answer_cannot_be_written_costs_its_session(step: Step) -> None:
    assert step(1.0, start=True) == (None, 1.0)
    assert step(2.0) == (None, 3.0)
    assert step(UNSAYABLE)[0] in ("NONFINITE_OUTPUT", "BAD_MODEL_OUTPUT")
    # Sent again it would be added twice; what comes behind it would find it added although it was refused.
    assert step(1.0)[0] == "SESSION_LOST"
    assert step(1.0, start=True) == (None, 1.0)
    assert step(4.0) == (None, 5.0)
