"""Runs in an environment of its own, with MLflow: its scoring client, and its server's own reading as the oracle.

Argument: URL of the data listener, whose default endpoint `sums` takes X FP64 [-1, 3] and answers
`sum` and `twice`; the endpoint `total` answers `sum` alone. Prints `ok NAME` for each step.
"""

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import requests
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.types import ColSpec, Schema, TensorSpec

# The client looks for scipy.sparse in a way that fails without scipy, which is large and not needed here.
sys.modules["scipy"] = ModuleType("scipy")
sys.modules["scipy"].__path__ = []

URL = sys.argv[1]
HOST, PORT = URL.removeprefix("http://").split(":")
FRAME = pd.DataFrame({"a": [1.0, 4.0], "b": [2.5, 5.0], "c": [3.0, 6.0]})
ROWS = FRAME.to_numpy().tolist()


TENSOR = Schema([TensorSpec(np.dtype("float64"), (-1, 3))])
COLUMNS = Schema([ColSpec("double", name) for name in FRAME.columns])


class Sums:
    """The same model as MLflow would serve it."""

    metadata = SimpleNamespace(get_params_schema=lambda: None)

    def __init__(self, schema, outputs):
        self.schema, self.outputs = schema, outputs

    def predict(self, data, params=None):
        table = np.asarray(_enforce_schema(data, self.schema))
        if self.outputs == 1:
            return table.sum(axis=1)
        return pd.DataFrame({"sum": table.sum(axis=1), "twice": (table * 2).tolist()})


def client():
    scoring = ScoringServerClient(HOST, PORT)
    scoring.wait_server_ready(timeout=10)
    assert scoring.get_version()
    print("ok ping and version")
    for data in (FRAME, {"inputs": ROWS}, json.dumps({"instances": ROWS}), FRAME.to_numpy(), ROWS):
        body = data if not isinstance(data, dict) else json.dumps(data)
        answer = scoring.invoke(body).get_predictions()
        assert answer["sum"].tolist() == FRAME.sum(axis=1).tolist(), answer
        assert answer["twice"].tolist() == (FRAME * 2).to_numpy().tolist(), answer
    print("ok frames, arrays and lists")
    assert scoring.invoke(FRAME, params={"unknown": 1})["predictions"][0]["sum"] == 6.5
    with_gap = FRAME.assign(b=[np.nan, 5.0])
    first, second = scoring.invoke(with_gap).get_predictions()["sum"]
    assert math.isnan(first), first
    assert second == 15.0
    print("ok params, and numbers that are missing")
    try:
        scoring.invoke(FRAME[["a", "b"]])
    except Exception as error:
        assert "error code 400" in str(error), error
        assert "BAD_REQUEST" in str(error), error
    else:
        raise AssertionError("a frame without a column was taken")
    print("ok refusals")


def their_answer(body, content_type, outputs):
    try:
        # MLflow reads CSV for signatures of columns only.
        schema = COLUMNS if content_type.startswith("text/csv") else TENSOR
        told = scoring_server.invocations(body, content_type, Sums(schema, outputs), schema)
    except MlflowException as error:
        return error.get_http_status_code(), None
    return told.status, told.response if told.status != 200 else json.loads(told.response)


def our_answer(body, content_type, outputs):
    headers = {"Content-Type": content_type, "X-Salver-Endpoint": "sums" if outputs == 2 else "total"}
    reply = requests.post(f"{URL}/invocations", data=body, headers=headers, timeout=20)
    if reply.status_code == 415:
        assert reply.headers["content-type"] == "text/plain"
    return reply.status_code, reply.json() if reply.status_code == 200 else None


def oracle():
    split = FRAME.to_dict(orient="split")
    bodies = [
        {"dataframe_split": split},
        {"dataframe_split": {"columns": split["columns"], "data": split["data"]}},
        {"dataframe_split": {"data": split["data"]}},
        {"dataframe_records": FRAME.to_dict(orient="records")},
        {"instances": ROWS},
        {"inputs": ROWS},
        {"inputs": ROWS, "params": {}},
        {"dataframe_split": split, "inputs": ROWS},
        {},
        {"data": ROWS},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0]]}},
        {"dataframe_split": {**split, "dtypes": []}},
        {"dataframe_split": ROWS},
        {"dataframe_records": split},
        {"inputs": [[1.0, 2.0]]},
        [1, 2],
    ]
    cases = [(json.dumps(body).encode(), "application/json") for body in bodies]
    cases += [
        (FRAME.to_csv(index=False).encode(), "text/csv"),
        (FRAME.to_csv(index=False).encode(), "text/csv; charset=utf-8"),
        (FRAME[["a", "b"]].to_csv(index=False).encode(), "text/csv"),
        (FRAME.to_csv(index=False).encode(), "text/csv; charset=latin-1"),
        (json.dumps(bodies[0]).encode(), "application/json; format=pandas-split"),
        (b"{}", "text/plain"),
        (b'{"inputs": [[1, 2, 3]', "application/json"),
        (b'{"inputs": "\xff"}', "application/json"),
    ]
    for body, content_type in cases:
        for outputs in (1, 2):
            theirs, ours = their_answer(body, content_type, outputs), our_answer(body, content_type, outputs)
            # MLflow calls what its schema forbids a fault of its own; it is the client's.
            wanted = 400 if theirs[0] == 500 else theirs[0]
            assert ours[0] == wanted, (body, content_type, theirs, ours)
            assert ours[0] != 200 or ours[1] == theirs[1], (body, theirs, ours)
    print(f"ok {len(cases)} bodies answered as MLflow's server does")


client()
oracle()
