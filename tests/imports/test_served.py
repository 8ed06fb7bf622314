"""From a foreign artifact to answers over HTTP, by the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

COUNTING = """
from pathlib import Path
from model import Words   # what many archives call their network

class Counting:
    def initialize(self, context):
        self.words = Words(Path(context.system_properties["model_dir"]) / context.manifest["model"]["serializedFile"])
        self.version = context.manifest["model"]["modelVersion"]
        assert context.system_properties["gpu_id"] is None

    def handle(self, data, context):
        context.metrics.add_counter("asked", len(data))
        context.set_response_content_type(0, "application/json")
        if any(row["body"] == b"odd" for row in data):
            context.set_response_status(code=400, phrase="no odd words")
        return [{"count": self.words.count(row["body"].decode()), "v": self.version} for row in data]
"""
WORDS = """
class Words:
    def __init__(self, path):
        self.known = set(path.read_text().split())

    def count(self, text):
        return sum(word in self.known for word in text.split())
"""
PLAIN = """
state = {}

def handle(data, context):
    if data is None:
        state["ready"] = context.model_name
        return None
    return [state["ready"] + ":" + bytes(row.get("body")).decode() for row in data]
"""


@pytest.fixture(scope="module")
def served(trees, models, archived, mlflow_model, tmp_path_factory):
    """What was imported, deployed under the name of its kind."""
    root = tmp_path_factory.mktemp("foreign")
    tree = trees()
    code = {"counting.py": COUNTING, "model.py": WORDS, "words.txt": "red green blue"}
    archive = archived(root / "classy.mar", "counting.py", code, serializedFile="words.txt", modelFile="model.py")
    plain = archived(root / "plain.mar", "plain.py:handle", {"plain.py": PLAIN})
    boosted = mlflow_model(root / "boosted", {"xgboost": {"data": "m.ubj"}}, {"m.ubj": models["xgboost-ubj"]})
    tree.imported = {
        name: tree.salver("import", path, name)
        for name, path in {"classy": archive, "plain": plain, "boosted": boosted, "light": models["lightgbm"]}.items()
    }
    for name in tree.imported:
        tree.salver("deploy", name)
    tree.start()
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)


def asked(tree, name: str, datatype: str, shape: list[int], data: list) -> dict:
    tensor = {"name": "body" if datatype == "BYTES" else "X", "datatype": datatype, "shape": shape, "data": data}
    answer = tree.ask(tree.http, "POST", f"/v2/models/{name}/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer.body
    return {output["name"]: output["data"] for output in json.loads(answer.body)["outputs"]}


def test_an_archives_class_answers_as_in_torchserve(served) -> None:
    found = asked(served, "classy", "BYTES", [3], ["red and blue", "grey", "green"])["result"]
    assert [json.loads(each) for each in found] == [{"count": count, "v": "2.5"} for count in (2, 0, 1)]


def test_an_archives_status_refuses_its_request_alone(served) -> None:
    tensor = {"name": "body", "datatype": "BYTES", "shape": [1], "data": ["odd"]}
    answer = served.ask(served.http, "POST", "/v2/models/classy/infer", {"inputs": [tensor]})
    assert answer.status == 400
    assert b"no odd words" in answer.body


def test_an_archives_function_is_initialised_and_answers(served) -> None:
    assert asked(served, "plain", "BYTES", [2], ["a", "b"])["result"] == ["words:a", "words:b"]


@pytest.mark.parametrize(("name", "datatype"), [("boosted", "FP32"), ("light", "FP64")])
def test_trees_answer_rows_with_missing_values_over_http(served, models, name, datatype) -> None:
    import lightgbm
    import xgboost

    rows = np.array([[0.5, np.nan, 0.1, np.nan], [1.0, -1.0, 0.0, 2.0]])
    body = [None if np.isnan(value) else value for value in rows.ravel()]
    if name == "boosted":
        booster = xgboost.Booster(model_file=bytearray(models["xgboost-ubj"].read_bytes()))
        expected = booster.inplace_predict(rows.astype(np.float32))
    else:
        expected = lightgbm.Booster(model_file=models["lightgbm"]).predict(rows)
    # JSON has no NaN: such rows come in binary.
    size = rows.astype(np.float32 if datatype == "FP32" else float).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {"name": "X", "datatype": datatype, "shape": [2, 4], "parameters": {"binary_data_size": len(size)}}
            ]
        }
    ).encode()
    answer = served.ask(
        served.http,
        "POST",
        f"/v2/models/{name}/infer",
        head + size,
        {"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status == 200, (answer.body, body)
    outputs = {output["name"]: output["data"] for output in json.loads(answer.body)["outputs"]}
    assert np.array(outputs["probabilities"], expected.dtype).reshape(2, 2)[:, 1].tolist() == expected.tolist()


def test_what_sources_say_is_kept_with_the_versions(served) -> None:
    assert served.imported["classy"]["metadata"]["flavor"] == "torchserve"
    assert served.imported["boosted"]["metadata"]["flavor"] == "mlflow.xgboost"
    assert served.imported["light"]["format"] == "lightgbm"


def test_a_pickle_needs_the_word_of_trust_here_too(served, models) -> None:
    code, _, error = served.attempt("import", models["joblib"], "pickled")
    assert code == 3
    assert "--trust-code" in error
    assert served.salver("import", models["joblib"], "pickled", "--trust-code")["format"] == "sklearn"
