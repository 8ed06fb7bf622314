"""`salver serve --grpc`: gRPC's own client against whole process trees, when they deploy, stop and die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from salver.protocol.proto import message

REQUEST, RESPONSE = message("inference.ModelInferRequest"), message("inference.ModelInferResponse")


class Outcome(NamedTuple):
    value: float
    status: str
    version: str = ""
    answer: float = 0.0


def method(channel: grpc.Channel) -> Any:
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=RESPONSE.FromString,
    )


def rows(endpoint: str, value: float) -> Any:
    request = REQUEST(model_name=endpoint)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([value, value], np.float32).tobytes())
    return request


def ask(target: str, endpoint: str, value: float, timeout_s: float = 20.0) -> float:
    with grpc.insecure_channel(target) as channel:
        answer = method(channel)(rows(endpoint, value), timeout=timeout_s, wait_for_ready=True)
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])


class GrpcLoad:
    """Clients that ask without pause, each on a channel of its own, and keep a ledger."""

    def __init__(self, target: str, endpoint: str, clients: int) -> None:
        self.ledger: list[Outcome] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(target, endpoint)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, target: str, endpoint: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(target, options=options) as channel:
            infer = method(channel)
            value = 0.0
            while not self._stop.is_set():
                value += 1
                try:
                    answer = infer(rows(endpoint, value), timeout=20)
                except grpc.RpcError as error:
                    self.ledger.append(Outcome(value, error.code().name))
                    self._stop.wait(0.02)
                    continue
                got = float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])
                self.ledger.append(Outcome(value, "OK", answer.model_version, got))

    def end(self) -> list[Outcome]:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=40)
            assert not thread.is_alive()
        return self.ledger


@pytest.fixture
def calls() -> Iterator[Any]:
    started: list[GrpcLoad] = []

    def start(tree: Any, endpoint: str, clients: int = 3) -> GrpcLoad:
        started.append(GrpcLoad(tree.ready["grpc"], endpoint, clients))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_without_the_option_there_is_no_listener(tree) -> None:
    assert tree.start()["grpc"] is None


def test_versions_replaced_and_a_server_killed_under_calls(tree, models, calls) -> None:
    for factor in (2, 3):
        tree.salver("register", "n", models / f"times{factor}.onnx", "--version", f"{factor}.0.0")
    tree.salver("deploy", "n@2.0.0")
    ready = tree.start("--grpc", "0")
    host, _, port = ready["grpc"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    load = calls(tree, "n")
    for turn in range(6):
        spec = tree.deploy(f"n@{2 + turn % 2}.0.0")
        tree.wait_serving("n", f"n@{2 + turn % 2}.0.0", spec["generation"])
        seen = len(load.ledger)
        tree.until(lambda seen=seen: len(load.ledger) > seen + 10, "answers between two deployments")
    ledger = load.end()
    assert [outcome for outcome in ledger if outcome.status != "OK"] == []
    assert [outcome for outcome in ledger if outcome.answer != outcome.value * int(outcome.version[0])] == []
    assert {outcome.version for outcome in ledger} == {"2.0.0", "3.0.0"}

    before = tree.server_pid
    os.kill(before, signal.SIGKILL)
    assert ask(ready["grpc"], "n", 1) == 3
    assert tree.server_pid != before


def test_sigterm_loses_no_call_that_was_taken(tree, models, calls) -> None:
    tree.salver("register", "loop", models / "loop.onnx")
    tree.salver("deploy", "loop", "--placement", "thread")
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start("--grpc", "0", SALVER_SERVER_LAME_DUCK_S="0.3")
    target = tree.ready["grpc"]
    load = calls(tree, "double")
    tree.until(lambda: len(load.ledger) > 50, "some answers")
    slow: list[float] = []
    thread = threading.Thread(target=lambda: slow.append(ask(target, "loop", 1.5e5)))
    thread.start()
    tree.until(lambda: tree.endpoint("loop").get("running"), "it computes")
    begun_s = time.monotonic()
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert time.monotonic() - begun_s < 20
    thread.join(timeout=20)
    assert slow == [1.5e5]
    ledger = load.end()
    # Who comes when nobody listens any more is told so by the kernel; nobody waits in vain.
    assert {outcome.status for outcome in ledger} <= {"OK", "UNAVAILABLE"}
    answered = [outcome for outcome in ledger if outcome.status == "OK"]
    assert all(outcome.answer == 2 * outcome.value for outcome in answered)
    assert len(tree.events("draining")) == 1
    assert not tree.events("drain_timed_out")
