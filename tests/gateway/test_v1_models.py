"""What TensorFlow Serving's, KServe's and OpenAI's clients learn about models under one and the same path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.gateway.conftest import SIGNATURE, manifest
from tests.gateway.servers import HeldService, Served
from tests.gateway.wire import request

from salver.gateway.v1_models import V1Pages
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.routing.router import Router, Target

AVAILABLE = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_the_server_is_alive(server: Served) -> None:
    assert server.get("/").body == b'{"status":"alive"}'


def test_the_list_of_models_serves_kserve_and_openai(server: Served) -> None:
    reply = server.get("/v1/models").json
    assert reply["models"] == ["broken", "held", "toy"]
    assert reply["object"] == "list"
    assert reply["data"][2] == {"id": "toy", "object": "model", "created": 0, "owned_by": "salver"}


def test_kserves_place_for_openais_interface_lists_the_same_and_refuses_in_openais_shape(server: Served) -> None:
    assert server.get("/openai/v1/models").json == server.get("/v1/models").json
    for name in ("toy", "broken"):
        listed = {"id": name, "object": "model", "created": 0, "owned_by": "salver"}
        reply = server.get(f"/openai/v1/models/{name}")
        assert (reply.status, reply.json) == (200, listed), "ready or not"
    client = server.connect()
    client.send(request("GET", "/openai/v1/models/nothing"))
    assert client.head()[0] == 404
    while not client.received.endswith(b"}}"):
        assert client._more()
    told = json.loads(client.received)["error"]
    assert (told["message"], told["code"]) == ("Could not find any versions of model nothing", "model_not_found")


@pytest.fixture
def labelled(server: Served) -> Iterator[Served]:
    """With the endpoint `toy` as it is, and as `named` with two labels."""
    router = server.plane.router
    before = dict(router.targets())
    spec = msgspec.structs.replace(before["toy"].spec, endpoint="named", labels=("stable", "Q1.a_b"))
    server.thread.run(lambda: router.publish({**before, "named": before["toy"]._replace(spec=spec)}, {}))
    yield server
    server.thread.run(lambda: router.publish(before, {"broken": server.plane.host.error_of("broken")}))


def test_a_version_answers_by_its_labels(labelled: Served) -> None:
    body = json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]]}).encode()
    plain = labelled.post("/v1/models/named:predict", body)
    assert plain.status == 200
    for label in ("stable", "Q1.a_b"):
        path = f"/v1/models/named/labels/{label}"
        assert labelled.post(f"{path}:predict", body).json == plain.json
        assert labelled.get(path).json == labelled.get("/v1/models/named").json
        assert labelled.get(f"{path}/metadata").json == labelled.get("/v1/models/named/metadata").json
    for path in (
        "/v1/models/named/labels/canary",
        "/v1/models/named/labels/STABLE",
        "/v1/models/nothing/labels/stable",
    ):
        reply = labelled.post(f"{path}:predict", body)
        assert (reply.status, reply.error) == (404, f"Unrecognized servable version label: {path.rpartition('/')[2]}")


@pytest.mark.parametrize(
    "path", ["/v1/models/toy", "/v1/models/toy/versions/1", "/v1/models/toy/versions/1.0.0", "/V1/MODELS/toy"]
)
def test_a_model_that_answers_is_described_for_all_three(server: Served, path: str) -> None:
    reply = server.get(path)
    assert (reply.status, reply.json) == (
        200,
        {
            "id": "toy",
            "object": "model",
            "created": 0,
            "owned_by": "salver",
            "name": "toy",
            "ready": True,
            "model_version_status": [AVAILABLE],
        },
    )


def test_a_model_that_failed_to_load_is_unavailable_and_says_why(server: Served) -> None:
    reply = server.get("/v1/models/broken")
    assert (reply.status, reply.json["ready"]) == (503, False)
    (state,) = reply.json["model_version_status"]
    assert (state["version"], state["state"], state["status"]["error_code"]) == ("1", "END", "DATA_LOSS")
    assert state["status"]["error_message"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nothing", "Could not find any versions of model nothing"),
        ("/v1/models/toy/versions/7", "Could not find version 7 of model toy"),
        ("/v1/models/toy/labels/stable", "Unrecognized servable version label: stable"),
        ("/v1/models/nothing/metadata", "Servable not found for request: Latest(nothing)"),
        ("/v1/models/toy/versions/7/metadata", "Servable not found for request: Specific(toy, 7)"),
        ("/v1/models/toy/labels/stable/metadata", "Unrecognized servable version label: stable"),
    ],
)
def test_what_is_not_there_is_named_in_tensorflow_servings_words(server: Served, path: str, words: str) -> None:
    reply = server.get(path)
    assert (reply.status, reply.error) == (404, words)


@pytest.mark.parametrize("path", ["/v1/models/toy/metadata", "/v1/models/toy/versions/1/metadata"])
def test_metadata_are_those_of_a_saved_model(server: Served, path: str) -> None:
    def info(name: str, dtype: str, *sizes: str) -> dict[str, Any]:
        shape = {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False}
        return {"dtype": dtype, "tensor_shape": shape, "name": name}

    described = {
        "inputs": {"X": info("X", "DT_FLOAT", "-1", "4")},
        "outputs": {"label": info("label", "DT_INT64", "-1"), "scores": info("scores", "DT_FLOAT", "-1", "3")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert server.get(path).json == {
        "model_spec": {"name": "toy", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": described}}},
    }


def test_metadata_of_a_model_that_is_not_ready_are_unavailable(server: Served) -> None:
    assert server.get("/v1/models/broken/metadata").status == 503


# Between two versions.


class Told:
    """An exchange that keeps what it is answered with."""

    def __init__(self, **params: str) -> None:
        self.params, self.endpoint, self.answer = params, None, (0, {})

    def reply_json(self, value: dict[str, Any], *, status: int = 200) -> None:
        self.answer = (status, value)


class Sick(HeldService):
    available = False


def pages(
    serving: HeldService | None, wanted: VersionManifest | None = None, error: SalverError | None = None
) -> V1Pages:
    router = Router()
    first = manifest("m", "ab" * 32, SIGNATURE)
    targets = {"m": Target(DeploymentSpec("m", "m", "1.0.0"), first, serving)} if serving else {}
    router.publish(targets, {} if serving else {"m": error})
    return V1Pages(router, lambda _: (wanted, error) if wanted else None)


def states(told: V1Pages, **version: str) -> tuple[int, dict[str, str]]:
    exchange: Any = Told(model="m", **version)
    told.model(exchange)
    status, body = exchange.answer
    assert body["ready"] is (status == 200)
    return status, {state["version"]: state["state"] for state in body["model_version_status"]}


SECOND = VersionManifest("m", "2.0.0", 2, "cd" * 32, "onnx", (), SIGNATURE)


def test_a_version_that_loads_stands_beside_the_one_that_serves() -> None:
    both = pages(HeldService(), SECOND)
    assert states(both) == (200, {"1": "AVAILABLE", "2": "LOADING"})
    assert states(both, version="1") == (200, {"1": "AVAILABLE"})
    assert states(both, version="2.0.0") == (503, {"2": "LOADING"})
    failed = pages(HeldService(), SECOND, SalverError("LOAD_FAILED", "it did not load"))
    assert states(failed) == (200, {"1": "AVAILABLE", "2": "END"})


def test_a_first_version_that_loads_is_loading() -> None:
    assert states(pages(None, SECOND)) == (503, {"2": "LOADING"})


def test_a_version_without_a_healthy_replica_is_loading() -> None:
    assert states(pages(Sick())) == (503, {"1": "LOADING"})
