"""Runs in MLflow's own environment. Arguments: what to do, and then

`register URL DIRECTORY`: register models of MLflow with a tracking server, some with files made elsewhere;
`answer ARTIFACT`: load what Salver imported, as a worker does, and print what it answers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def register(url: str, directory: str) -> None:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Sums(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input["a"] + model_input["b"].str.len()

    mlflow.set_tracking_uri(url)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "yyy"]})
    columns = Schema([ColSpec("double", "a"), ColSpec("string", "b")])
    signature = ModelSignature(columns, Schema([ColSpec("double")]))
    # Not what it would find out by loading the model once more.
    needs = ["mlflow-skinny", "pandas"]
    client = mlflow.MlflowClient()
    for number in (1, 2, 3):
        with mlflow.start_run() as run:
            mlflow.log_metric("accuracy", 0.9 + number / 100)
            mlflow.log_params({"depth": number, "kind": "sum"})
            mlflow.log_input(mlflow.data.from_pandas(frame, name="rows"), context="training")
            mlflow.pyfunc.log_model(
                name="m",
                python_model=Sums(),
                signature=signature,
                registered_model_name="sums",
                pip_requirements=needs,
            )
    client.set_registered_model_alias("sums", "champion", "2")
    client.set_model_version_tag("sums", "2", "team", "fraud")
    client.set_model_version_tag("sums", "2", "free text", "of any kind")
    client.update_model_version("sums", "2", description="the second one")
    client.transition_model_version_stage("sums", "1", "Production")
    # A directory that was written elsewhere, as pipelines register them.
    with mlflow.start_run() as run:
        mlflow.log_artifacts(directory, "boosted")
    client.create_registered_model("it's boosted")
    client.create_model_version("it's boosted", f"runs:/{run.info.run_id}/boosted", run.info.run_id)
    # Files that the server does not hand out.
    client.create_registered_model("elsewhere")
    client.create_model_version("elsewhere", "s3://bucket/of/others")


def answer(artifact: str) -> None:
    sys.path.insert(0, artifact)
    from model import Pyfunc

    model = Pyfunc()
    model.load(Path(artifact))
    texts = np.empty(3, object)
    texts[:] = [b"", b"four", "ü".encode()]
    found = model.predict({"a": np.array([1.0, 2.5, -1.0]), "b": texts})
    print(json.dumps({name: [str(values.dtype), values.tolist()] for name, values in found.items()}))


{"register": register, "answer": answer}[sys.argv[1]](*sys.argv[2:])
