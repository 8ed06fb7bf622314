"""Sessions on real sockets, with their state in real workers."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tests.conftest import ask, rows
from websockets.sync.client import connect

CLASS = """
import salver

class Sums(salver.Model):
    inputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (salver.TensorSpec("y", "FP32", (-1, 2)),)

    def step(self, inputs, states):
        y = inputs["x"].copy()
        if (y < 0).any():
            raise ValueError("nothing negative")
        for row, state in enumerate(states):
            y[row] += 0 if state is None else state
            states[row] = y[row]
        return {"y": y * FACTOR}
"""


@pytest.fixture(scope="module")
def running(trees, tmp_path_factory):
    """A server whose endpoint `sums` keeps the sum of each session, in two workers."""
    tree = trees()
    for factor in (1, 10):
        folder = tmp_path_factory.mktemp("sums")
        (folder / "model.py").write_text(CLASS.replace("FACTOR", str(factor)))
        (folder / "salver-model.toml").write_text('kind = "sequence"\n')
        tree.salver("register", "sums", folder, "--version", f"{factor}.0.0")
    tree.salver("deploy", "sums@1.0.0", "--replicas", "2")
    tree.start()
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)


def step(tree, id, value, *, start=False, end=False):
    """The sum and the version that answered, or the code of the error and its status."""
    words = {"sequence_id": id, "sequence_start": start, "sequence_end": end}
    answer = tree.infer("sums", [value, value], parameters=words)
    if answer.status != 200:
        return answer.headers["x-salver-error"], answer.status
    return answer.json["outputs"][0]["data"][0], answer.json["model_version"]


def test_sessions_are_lost_with_the_worker_that_kept_them_and_those_of_the_other_go_on(running) -> None:
    names = [1, 2, "three", "four"]
    assert [step(running, name, 1, start=True) for name in names] == [(1, "1.0.0")] * 4
    assert step(running, 2, -1) == ("MODEL_ERROR", 500)
    assert [step(running, name, 2) for name in names] == [(3, "1.0.0")] * 4
    os.kill(min(running.endpoint("sums")["workers"]), signal.SIGKILL)
    running.until(lambda: 'salver_sessions{endpoint="sums",version="1.0.0"} 2.0' in metrics(running), "two are left")
    found = [step(running, name, 4) for name in names]
    assert found.count((7, "1.0.0")) == found.count(("SESSION_LOST", 410)) == 2
    lost = names[found.index(("SESSION_LOST", 410))]
    assert step(running, lost, 5, start=True) == (5, "1.0.0")
    assert [step(running, name, 0, start=name != lost, end=True)[1] for name in names] == ["1.0.0"] * 4
    assert step(running, 1, 1) == ("SESSION_UNKNOWN", 404)
    assert 'salver_sessions_over_total{endpoint="sums",how="lost",version="1.0.0"} 2.0' in metrics(running)


def metrics(tree) -> str:
    return tree.get("/metrics").body.decode()


def test_sessions_end_with_the_version_that_they_began_with_when_another_is_deployed(running) -> None:
    assert step(running, "old", 1, start=True) == (1, "1.0.0")
    running.salver("deploy", "sums@10.0.0", "--wait")
    assert step(running, "new", 1, start=True) == (10, "10.0.0")
    assert step(running, "old", 2) == (3, "1.0.0")
    assert step(running, "old", 3, end=True) == (6, "1.0.0")
    running.until(lambda: running.events("unloaded"), "the old version is unloaded")
    assert step(running, "old", 1) == ("SESSION_UNKNOWN", 404)
    assert step(running, "new", 1, end=True) == (20, "10.0.0")


def test_steps_sent_ahead_in_a_conversation_run_in_order_and_the_session_outlives_it(running) -> None:
    begins, ends = {"sequence_id": "w", "sequence_start": True}, {"sequence_id": "w", "sequence_end": True}
    with connect(running.http.replace("http", "ws") + "/v2/models/sums/ws") as socket:
        for value, words in ((1, begins), (2, {"sequence_id": "w"}), (3, {"sequence_id": "w"})):
            socket.send(json.dumps(rows([value, value], **words)))
        answers = [json.loads(socket.recv(timeout=20)) for _ in range(3)]
    version = answers[0]["model_version"]
    factor = int(version.partition(".")[0])
    assert [answer["outputs"][0]["data"][0] for answer in answers] == [factor, 3 * factor, 6 * factor]
    running.until(lambda: "\nsalver_connections 1.0\n" in metrics(running), "only who asks for metrics is there")
    assert f'salver_sessions{{endpoint="sums",version="{version}"}} 1.0' in metrics(running)
    answer = running.infer("sums", [4, 4], parameters=ends)
    assert (answer.json["outputs"][0]["data"][0], answer.json["model_version"]) == (10 * factor, version)
    assert step(running, "w", 5) == ("SESSION_UNKNOWN", 404)


def test_a_request_that_is_no_step_is_refused_and_the_endpoint_says_that_it_keeps_state(running) -> None:
    refused = running.infer("sums", [1, 1])
    assert (refused.status, refused.headers["x-salver-error"]) == (400, "INVALID_PARAMETER")
    assert "names none" in refused.json["error"]
    assert running.infer("sums", [[1, 1], [2, 2]], parameters={"sequence_id": 1, "sequence_start": True}).status == 400
    job = ask(running.http, "POST", "/v2/models/sums/jobs", rows([1, 1], sequence_id=1, sequence_start=True))
    assert (job.status, job.headers["x-salver-error"]) == (400, "INVALID_PARAMETER")
    alone = running.infer("sums", [4, 4], parameters={"sequence_start": True, "sequence_end": True})
    assert alone.json["outputs"][0]["data"] == [40, 40]
    config = running.get("/v2/models/sums/config").json
    assert config["sequence_batching"] == {
        "max_sequence_idle_microseconds": 60_000_000,
        "oldest": {"max_candidate_sequences": 1024},
        "state": [],
    }
    assert {"sequence", "sequence(string_id)"} <= set(running.get("/v2").json["extensions"])


def test_other_protocols_name_sessions_in_headers(running) -> None:
    sent = {"X-Salver-Sequence-Id": "s", "X-Salver-Sequence-Start": "true"}
    body = {"instances": [[3.0, 4.0]]}
    answers = [
        running.ask(running.http, "POST", "/v1/models/sums:predict", body, headers)
        for headers in (
            sent,
            {"X-Salver-Sequence-Id": "s", "X-Salver-Sequence-End": "true"},
            {"X-Salver-Sequence-Id": "s"},
        )
    ]
    assert [answer.json.get("predictions") for answer in answers] == [[[30, 40]], [[60, 80]], None]
    assert answers[2].status == 404
