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
