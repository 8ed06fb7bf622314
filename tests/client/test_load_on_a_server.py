from __future__ import annotations

import msgspec
import pytest

from salver.client import Client
from salver.loadgen import LoadPlan, Mode, render_report, run_load

JSON = (("content-type", "application/json"),)


def body(rows) -> bytes:
    tensor = {"name": "X", "shape": rows.shape, "datatype": "FP32", "data": rows.reshape(-1).tolist()}
    return msgspec.json.encode({"inputs": [tensor]})


@pytest.mark.parametrize("mode", Mode)
def test_a_serving_model_answers_every_request_of_a_load(url, rows, mode):
    report = run_load(
        LoadPlan(
            url,
            "/v2/models/iris/infer",
            body(rows[:1]),
            headers=JSON,
            mode=mode,
            rate_per_s=500.0,
            connections=8,
            duration_s=0.4,
            warmup_s=0.1,
        )
    )
    assert report.ok == report.sent > 100
    assert report.failed == 0
    assert "answers a second" in render_report(report)
    with Client(url) as client:
        assert client.is_ready()


def test_refusals_of_a_server_are_counted_by_their_code(url, rows):
    plan = LoadPlan(
        url, "/v2/models/iris/infer", body(rows[:1, :1]), headers=JSON, connections=2, duration_s=0.2, warmup_s=0
    )
    report = run_load(plan)
    assert set(report.errors) == {"400 WRONG_SHAPE"}
    assert report.latency is None
