"""A real server with a model of known speed, beside what the simulator and the optimum say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Tree

from salver.protocol.tables import DeploymentSpec
from salver.scaling.simulation import Arrival, simulate

MODEL = """
import time
from salver import Model, TensorSpec

class Measured(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1, 2)),)

    def predict(self, inputs):
        time.sleep(0.005 + 0.001 * len(inputs["x"]))
        return {"y": inputs["x"] * 3}
"""
WARM_UP = "warm_up = true\n"
RATE = 150


@pytest.fixture(scope="module")
def serving(trees: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the endpoint `slow`: 5 ms, and 1 ms for each row, in a worker process."""
    artifact: Path = tmp_path_factory.mktemp("slow")
    (artifact / "model.py").write_text(MODEL)
    (artifact / "salver-model.toml").write_text(WARM_UP)
    tree: Tree = trees()
    tree.salver("register", "slow", artifact, "--trust-code")
    tree.salver("deploy", "slow", "--max-batch", "64", "--slo", "0.2")
    tree.start(SALVER_SERVER_TIMING="true")
    yield tree
    assert tree.stop() == 0


def ran(tree: Tree) -> np.ndarray[Any, Any]:
    """Rows and batches until now."""
    (version,) = tree.get("/v2/models/slow/stats").json["model_stats"]
    return np.array([version["inference_count"], version["execution_count"]])


def test_mean_latency_and_mean_batch_are_what_the_simulator_says(serving: Tree) -> None:
    # The processors are shared with whatever else runs: one of three times that is quiet enough will do, and the
    # bounds are generous. The benchmarks measure it within a tenth.
    found = []
    for _ in range(3):
        latency, batch = compared(serving)
        found.append((latency, batch))
        if 0.57 < latency < 1.75 and 0.5 < batch < 1.5:
            return
    raise AssertionError(f"served over simulated, mean latency and rows a batch: {found}")


def compared(serving: Tree) -> tuple[float, float]:
    """The server's mean latency and mean rows a batch, over the simulator's."""
    before = ran(serving)
    report = serving.salver(
        "bench", "slow", "--rate", RATE, "--duration", "2.5", "--warmup", "0.5", "--connections", "32"
    )
    rows, batches = ran(serving) - before
    status = serving.endpoint("slow")
    points = {int(size): seconds for size, seconds in status["curve"].items()}
    times = np.cumsum(np.random.default_rng(0).exponential(1 / RATE, 1000)).tolist()
    outcome = simulate(
        DeploymentSpec("slow", "slow", "1.0.0", max_batch=64, slo_s=0.2), points, [Arrival(at_s) for at_s in times]
    )
    assert status["placement"] == "process"
    assert outcome.answered == 1000
    assert report["failed"] == 0
    batching = report["batching"]
    assert (batching["unit"], batching["steered"]) == ("rows", True)
    assert 1 <= batching["optimum"]["rows"] <= 64
    assert batching["limit"] == status["batch_limit"]
    assert outcome.mean_s is not None
    assert outcome.mean_batch_rows is not None
    return report["latency"]["mean_s"] / outcome.mean_s, rows / batches / outcome.mean_batch_rows


def test_each_answer_says_why_it_took_as_long_as_it_did(serving: Tree) -> None:
    told = serving.infer("slow", [[1, 2], [3, 4]]).headers["server-timing"]
    spans = dict(span.split(";", 1) for span in told.split(", "))
    assert (spans["batch"], spans["placement"]) == ('desc="2"', 'desc="process"')
    compute, total = (float(spans[name].removeprefix("dur=")) for name in ("compute", "total"))
    assert 7 <= compute <= total
