"""The entry point of images for managed platforms, started for real: as SageMaker, Vertex AI and Azure start it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

VERTEX = {
    "AIP_HTTP_PORT": "0",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
}


def start(tree, *arguments: str, **environment: str) -> None:
    """Run the image's entry point on a free port and wait until it is ready."""
    given = {"SAGEMAKER_BIND_TO_PORT": "0", "SALVER_SERVER_HOST": "127.0.0.1"} | environment
    with tree.log_path.open("ab") as log:
        tree.process = subprocess.Popen(
            [sys.executable, "-m", "salver", "container", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | tree.environment | given,
        )
    tree.wait_ready()


def ask(tree, method: str, path: str, body: object = None, **headers: str):
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    return tree.ask(tree.http, method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def artifact(tmp_path: Path, models: Path) -> Path:
    """A directory with a model in it, as platforms make them: y is twice x."""
    directory = tmp_path / "platform" / "model"
    directory.mkdir(parents=True)
    shutil.copy(models / "times2.onnx", directory / "model.onnx")
    return directory


def test_vertex_finds_the_port_the_routes_and_the_model_it_named(tree, artifact: Path) -> None:
    start(tree, **VERTEX, AIP_STORAGE_URI=str(artifact))
    assert ask(tree, "GET", VERTEX["AIP_HEALTH_ROUTE"]).json == {"status": "Healthy"}
    answer = ask(tree, "POST", VERTEX["AIP_PREDICT_ROUTE"], {"instances": [[1, 2], [3, 4]]})
    assert (answer.status, answer.json) == (200, {"predictions": [[2, 4], [6, 8]]})
    assert tree.stop() == 0


def test_sagemaker_s_request_in_flight_is_answered_after_sigterm(tree, tmp_path: Path, models: Path) -> None:
    start(tree, "serve", "--artifact", str(models / "times3.py"), SALVER_SERVER_LAME_DUCK_S="0.1")
    csv = ask(tree, "POST", "/invocations", b"1,2\n3,4\n", content_type="text/csv", accept="text/csv")
    assert csv.body == b"3.0,6.0\n9.0,12.0\n"
    slow: list[object] = []
    asking = threading.Thread(
        target=lambda: slow.append(ask(tree, "POST", "/invocations", b"1500,0\n", content_type="text/csv").json)
    )
    asking.start()
    metric = b'salver_running{endpoint="model",version="1.0.0"} 1'
    tree.until(lambda: metric in ask(tree, "GET", "/metrics").body or slow, "the request runs")
    tree.signal(signal.SIGTERM)
    asking.join()
    assert slow == [{"predictions": [[4500, 0]]}]
    assert tree.wait() == 0


def test_azure_scores_the_model_in_its_directory_and_the_home_holds_it_from_then_on(tree, artifact: Path) -> None:
    start(tree, AZUREML_MODEL_DIR=str(artifact))
    assert ask(tree, "GET", "/").status == 200
    assert ask(tree, "POST", "/score", {"input_data": [[1, 2]]}).json == [[2, 4]]
    assert tree.stop() == 0
    start(tree)
    assert ask(tree, "POST", "/invocations", {"inputs": [[1, 2]]}).json == {"predictions": [[2, 4]]}
    assert tree.stop() == 0
    assert [row["version"] for row in tree.salver("status")["deployments"]] == ["1.0.0"]


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ((), {}, "has put no model into this container"),
        (("train",), {}, "told to 'train'"),
        ((), {"AIP_STORAGE_URI": "gs://bucket/model"}, "does not download"),
        ((), {"AIP_STORAGE_URI": "/no/such/directory"}, "there is no file or directory"),
        ((), {"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT is 'http'"),
        ((), {"AIP_PREDICT_ROUTE": "/a/{model}"}, "use a path such as /predict"),
    ],
)
def test_a_container_that_cannot_serve_says_why_and_ends(
    tree,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    says: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "AIP_PREDICT_ROUTE" in environment:
        arguments = ("--artifact", str(models / "times2.onnx"))
    code, _, complaint = tree.attempt("container", *arguments)
    assert code == 1
    assert says in complaint


def test_an_image_for_a_platform_starts_this_entry_point(tree, tmp_path: Path, models: Path) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.salver("package", "double", "--platform", "sagemaker", "--out", tmp_path / "image")
    assert 'ENTRYPOINT ["salver", "container"]' in (tmp_path / "image" / "Dockerfile").read_text()
    code, _, complaint = tree.attempt("package", "double", "--platform", "moon", "--out", tmp_path / "other")
    assert (code, "docker, sagemaker, vertex, azureml" in complaint) == (1, True)


def test_sagemaker_loads_lists_and_unloads_models_without_a_token(tree, artifact: Path, models: Path) -> None:
    store = artifact.parent
    (store / "bad").mkdir()
    shutil.copy(models / "broken.onnx", store / "bad" / "model.onnx")
    start(tree, SAGEMAKER_MULTI_MODEL="true", SALVER_SERVER_MODEL_STORE=str(store))
    assert ask(tree, "GET", "/ping").status == 200
    told = {"model_name": "one", "url": str(artifact)}
    assert ask(tree, "POST", "/models", told).status == 200
    assert ask(tree, "POST", "/models", told).status == 409
    assert ask(tree, "GET", "/models").json == {"models": [{"modelName": "one", "modelUrl": str(artifact)}]}
    answer = ask(tree, "POST", "/models/one/invoke", b"1,2\n", content_type="text/csv")
    assert answer.json == {"predictions": [[2, 4]]}
    assert ask(tree, "POST", "/models", {"model_name": "bad", "url": str(store / "bad")}).status == 400
    for url in ("/etc/passwd", f"{store}/../x", str(store), "../model", "http://example.org/m", ""):
        refused = ask(tree, "POST", "/models", {"model_name": "evil", "url": url})
        assert refused.status in (400, 404, 501), (url, refused.body)
    assert ask(tree, "DELETE", "/models/one").status == 200
    assert ask(tree, "GET", "/models/one").status == 404
    assert ask(tree, "POST", "/models", told).status == 200, "the name is free at once"
    assert ask(tree, "GET", "/models").json["models"] == [{"modelName": "one", "modelUrl": str(artifact)}]
    assert tree.stop() == 0
    actors = {row["actor"] for row in tree.salver("audit") if row["action"] in ("deploy", "undeploy")}
    assert actors == {"platform"}
