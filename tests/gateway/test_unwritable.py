"""Answers that a model gave and that cannot be written: whose failure they are, and how they count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.servers import LoopThread, Serve, Served
from tests.gateway.wire import request

from salver.clock import SYSTEM_CLOCK
from salver.gateway.limits import Limits
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import BatchPolicy, DeploymentSpec, Placement
from salver.routing.router import Target
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder
from salver.testing import make_manifest

FINE, NAN = [1.0, 2.0, 3.0, 0.0], [3e38, 0.0, 0.0, 3e38]
SPEAKS = Signature((TensorSpec("n", "INT64", (-1, 1)),), (TensorSpec("text", "BYTES", (-1, 1)),))
AT_FAULT = 5


class Speaking:
    """Says the number it is asked, and for one of them bytes that are no text."""

    def run(self, inputs: Any) -> Any:
        said = [[b"\xff" if number == AT_FAULT else b"%d" % number] for number in inputs["n"][:, 0]]
        return {"text": np.array(said, object)}

    def unload(self) -> None:
        pass


@pytest.fixture(scope="module")
def counted(serve_model: Serve) -> Served:
    return serve_model(Limits())


@pytest.fixture
def server(counted: Served) -> Iterator[Served]:
    yield counted
    counted.settle()


def asked(values: list[float], **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": values}
    return {"inputs": [tensor], "parameters": parameters}


def stats(server: Served) -> tuple[int, int]:
    (told,) = server.get("/v2/models/toy/stats").json["model_stats"]
    return told["inference_stats"]["success"]["count"], told["inference_stats"]["fail"]["count"]


def samples(server: Served) -> dict[tuple[str, ...], float]:
    text = server.get("/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_answer_that_json_cannot_carry_counts_as_a_failure_and_once(server: Served) -> None:
    (successes, failures), before = stats(server), samples(server)
    assert server.infer(asked(FINE)).status == 200
    assert server.infer(asked(NAN)).code == "NONFINITE_OUTPUT"
    assert server.infer(asked(NAN, binary_data_output=True)).status == 200
    assert stats(server) == (successes + 2, failures + 1)
    after = samples(server)
    key = ("salver_failures_total", "NONFINITE_OUTPUT", "toy", "1.0.0")
    assert after[key] == before.get(key, 0) + 1
    assert not [name for name in after if name[:2] == ("salver_refusals_total", "NONFINITE_OUTPUT")]
    requests = ("salver_requests_total", "toy", "1.0.0")
    assert after[requests] == before[requests] + 2


def test_a_failure_says_how_long_it_took(server: Served) -> None:
    before = server.get("/v2/models/toy/stats").json["model_stats"][0]["inference_stats"]["fail"]["ns"]
    server.infer(asked(NAN))
    assert server.get("/v2/models/toy/stats").json["model_stats"][0]["inference_stats"]["fail"]["ns"] > before


def test_a_fault_of_ours_while_an_answer_is_written_counts_once_too(
    server: Served, monkeypatch: pytest.MonkeyPatch, no_faults: list[Any]
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    (successes, failures), before = stats(server), samples(server)
    with monkeypatch.context() as patched:
        patched.setattr(ResponseEncoder, "encode", broken)
        assert server.infer(asked(FINE)).code == "INTERNAL"
    assert [record.getMessage() for record in no_faults] == ["fault"]
    no_faults.clear()
    assert stats(server) == (successes, failures + 1)
    assert samples(server)["salver_failures_total", "INTERNAL", "toy", "1.0.0"] == 1
    assert ("salver_refusals_total", "INTERNAL", "toy") not in {*samples(server)} - {*before}


def test_one_requests_bad_text_fails_none_of_its_batch_mates(server: Served, thread: LoopThread) -> None:
    plane: Any = server.plane
    held = {"policy": BatchPolicy.TIMEOUT, "max_wait_s": 10.0}
    spec = DeploymentSpec("speaking", "speaking", "1.0.0", placement=Placement.INLINE, max_batch=8, **held)
    manifest = make_manifest(model="speaking", signature=SPEAKS)
    metrics = plane.metrics.version("speaking", "1.0.0")

    def publish() -> Pool:
        pool = Pool(spec, manifest, metrics, SYSTEM_CLOCK)
        recorder = FlightRecorder(plane._home.path / "speaking")
        pool.add(InProcessReplica(pool, Speaking(), SYSTEM_CLOCK, recorder, lambda _: None))
        plane.router.publish({**dict(plane.router.targets()), "speaking": Target(spec, manifest, pool)}, {})
        return pool

    before = dict(plane.router.targets())
    pool = thread.run(publish)
    try:
        clients = [server.connect() for _ in range(8)]
        for number, client in enumerate(clients):
            tensor = {"name": "n", "shape": [1, 1], "datatype": "INT64", "data": [number]}
            client.send(request("POST", "/v2/models/speaking/infer", json.dumps({"inputs": [tensor]}).encode()))
        replies = [client.read() for client in clients]
        assert metrics.batches == {8: 1}, "they ran together"
        refused = replies.pop(AT_FAULT)
        assert (refused.status, refused.code) == (500, "BAD_MODEL_OUTPUT")
        said = [reply.json["outputs"][0]["data"] for reply in replies]
        assert said == [[str(number)] for number in range(8) if number != AT_FAULT]
        assert (metrics.successes, metrics.failures) == (7, {"BAD_MODEL_OUTPUT": 1})
    finally:
        thread.run(lambda: plane.router.publish(before, {}))
        thread.run(lambda: pool.stop(SalverError("NOT_READY", "over")))
