from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def sent(monkeypatch):
    """The plans that `salver bench` would have carried out."""
    from salver.cli import bench

    plans = []

    def keep(_here, plan, _verify):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_run", keep)
    return plans


def test_rows_are_like_the_training_data_of_the_version_that_serves(tree, models, tmp_path, sent) -> None:
    np.save(tmp_path / "train.npy", np.float32([[100, 3], [101, 3], [102, 3]]))
    tree.salver("register", "m", models / "times2.onnx", "--profile", tmp_path / "train.npy")
    tree.salver("deploy", "m", "--endpoint", "e")
    tree.start()
    for extra in ([], ["--url", tree.http]):
        assert tree.attempt("bench", "e", "--rows", "50", *extra)[0] == 130
    (ordinary,) = json.loads(sent[0].body)["inputs"]
    rows = np.array(ordinary["data"]).reshape(ordinary["shape"])
    assert rows.shape == (50, 2)
    assert (rows[:, 0] >= 100).all()
    assert (rows[:, 0] <= 102).all()
    assert len(set(rows[:, 0].tolist())) > 10
    assert (rows[:, 1] == 3).all()
    # Of a server elsewhere nothing is known but the signature.
    assert set(json.loads(sent[1].body)["inputs"][0]["data"]) == {0}


def test_a_bench_of_which_nothing_succeeds_says_why_and_fails(tree, models, tmp_path) -> None:
    tree.salver("register", "m", models / "times2.onnx")
    tree.salver("deploy", "m", "--slo", "0.5")
    tree.start()
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"inputs":[]}')
    given = ("bench", "m", "--duration", "0.2", "--warmup", "0", "--connections", "2")
    code, output, _ = tree.attempt(*given, "--input", wrong)
    found = json.loads(output)
    assert (code, found["ok"]) == (1, 0)
    assert found["words"] == {"400 MISSING_INPUT": "input 'x' is missing; send 'x'"}
    code, output, _ = tree.attempt(*given)
    found = json.loads(output)
    assert (code, found["within_s"]) == (0, 0.5)
    assert 0 < found["within"] <= found["ok"]


def test_each_request_to_a_stateful_version_is_a_session_of_its_own(tree, tmp_path, sent) -> None:
    (tmp_path / "model.py").write_text(
        "import salver\n\n"
        "class Sums(salver.Model):\n"
        '    inputs = outputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)\n\n'
        "    def step(self, inputs, states):\n"
        "        return inputs\n"
    )
    (tmp_path / "salver-model.toml").write_text('kind = "sequence"\n')
    tree.salver("register", "sums", tmp_path)
    tree.salver("deploy", "sums")
    tree.start()
    assert tree.attempt("bench", "sums")[0] == 130
    assert json.loads(sent[0].body)["parameters"] == {"sequence_start": True, "sequence_end": True}
