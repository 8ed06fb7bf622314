"""TorchServe's management interface on a running server: its words, its errors, its parameters."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.conftest import Answer, serving_double

from salver.clock import SYSTEM_CLOCK
from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.models import VERSIONS, OfVersions
from salver.control.actions.registration import REGISTER
from salver.control.actions.status import STATUS
from salver.control.administration import LocalAdministration
from salver.control.registration import draft_version
from salver.control.route import Call
from salver.control.torchserve import MANAGEMENT
from salver.protocol.errors import SalverError
from salver.registry.deploy_request import DeployRequest
from salver.security.access import local_principal
from salver.storage.blobs import BlobStore
from salver.storage.database import Database
from salver.storage.home import Home

WRONG = [
    ("POST", "/models", 400, "BadRequestException"),
    ("POST", "/models?url=nothing", 404, "ModelNotFoundException"),
    ("POST", "/models?url=double@9.9.9", 404, "ModelVersionNotFoundException"),
    ("POST", "/models?url=https://example.org/a.mar", 501, "NotImplementedException"),
    ("POST", "/models?url=handler.mar", 400, "BadRequestException"),
    ("POST", "/models?url=elsewhere.mar", 400, "BadRequestException"),
    ("POST", "/models?url=../../outside", 404, "ModelNotFoundException"),
    ("POST", "/models?url=double&initial_workers=-1", 400, "BadRequestException"),
    ("POST", "/models?url=double@1.0.0&initial_workers=1", 409, "ConflictStatusException"),
    ("POST", "/models?url=double&batch_size=0", 400, "BadRequestException"),
    (
        "POST",
        "/models?url=double&model_name=Bad Name&initial_workers=1".replace(" ", "%20"),
        400,
        "BadRequestException",
    ),
    ("POST", "/models?url=double&model_name=x&initial_workers=1&synchronous=perhaps", 400, "BadRequestException"),
    ("GET", "/models?limit=0", 400, "BadRequestException"),
    ("GET", "/models?next_page_token=x", 400, "BadRequestException"),
    ("GET", "/models/nothing", 404, "ModelNotFoundException"),
    ("GET", "/models/double/9.9.9", 404, "ModelVersionNotFoundException"),
    ("PUT", "/models/nothing", 404, "ModelNotFoundException"),
    ("PUT", "/models/double?min_worker=2&max_worker=1", 400, "BadRequestException"),
    ("PUT", "/models/double?min_worker=65", 400, "BadRequestException"),
    ("PUT", "/models/double/9.9.9?min_worker=1", 404, "ModelVersionNotFoundException"),
    ("PUT", "/models/double/9.9.9/set-default", 404, "ModelVersionNotFoundException"),
    ("DELETE", "/models/nothing", 404, "ModelNotFoundException"),
    ("DELETE", "/models/double/9.9.9", 404, "ModelVersionNotFoundException"),
]


@pytest.fixture(scope="module")
def served(trees, models, tmp_path_factory):
    """A server with a model store, serving double@1.0.0; double@1.0.1 is registered."""
    store = tmp_path_factory.mktemp("store")
    shutil.copy(models / "times4.onnx", store / "Quadruple v1.onnx")
    shutil.copy(models / "broken.onnx", store / "broken.onnx")
    (store / "handler.mar").write_bytes(b"PK")
    with serving_double(trees(), models, SALVER_SERVER_MODEL_STORE=str(store)) as tree:
        tree.salver("register", "double", models / "times3.onnx")
        yield tree


def ask(served, method: str, path: str) -> Answer:
    return served.administer(method, path)


@pytest.mark.parametrize(("method", "path", "status", "kind"), WRONG)
def test_what_is_wrong_is_told_in_torchserve_s_shape_and_changes_nothing(
    served, method: str, path: str, status: int, kind: str
) -> None:
    answer = ask(served, method, path)
    assert (answer.status, answer.json["type"]) == (status, kind), answer.body
    assert set(answer.json) == {"code", "type", "message"}
    assert answer.json["code"] == status
    assert [row["endpoint"] for row in served.salver("status")["deployments"]] == ["double"]
    assert served.predict("double", [1, 2]) == [2, 4]


def test_a_client_without_a_token_is_refused_in_the_same_shape(served) -> None:
    answer = served.administer("GET", "/models", token=None)
    assert (answer.status, answer.json["code"], answer.json["type"]) == (401, 401, "InvalidTokenException")


def test_an_endpoint_is_described_in_torchserve_s_words(served) -> None:
    (told,) = ask(served, "GET", "/models/double").json
    assert told == {
        "modelName": "double",
        "modelVersion": "1.0.0",
        "modelUrl": "double@1.0.0",
        "runtime": "onnx",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 256,
        "maxBatchDelay": 0,
        "loadedAtStartup": False,
        "workers": [{"id": "9000", "status": "READY", "gpu": False}],
        "jobQueueStatus": {"remainingCapacity": 1024, "pendingRequests": 0},
    }
    every = ask(served, "GET", "/models/double/all").json
    assert [(row["modelVersion"], row["minWorkers"]) for row in every] == [("1.0.0", 1), ("1.0.1", 0)]
    assert ask(served, "GET", "/models/double/2").json[0]["modelVersion"] == "1.0.1"


def test_a_version_becomes_the_default_and_is_scaled(served) -> None:
    answer = ask(served, "PUT", "/models/double/1.0.1/set-default")
    assert answer.json == {"status": 'Default version successfully updated for model "double" to "1.0.1"'}
    assert served.predict("double", [1, 2]) == [3, 6]
    assert ask(served, "PUT", "/models/double/1.0.0?min_worker=2").json["type"] == "ModelVersionNotFoundException"
    answer = ask(served, "PUT", "/models/double/1.0.1?min_worker=2&synchronous=true")
    assert answer.json == {"status": "Workers scaled to 2 for model: double, version: 1.0.1"}
    assert len(ask(served, "GET", "/models/double").json[0]["workers"]) == 2
    accepted = ask(served, "PUT", "/models/double?min_worker=1")
    assert (accepted.status, accepted.json) == (202, {"status": "Processing worker updates..."})
    assert ask(served, "PUT", "/models/double/1.0.0/set-default").status == 200


def test_a_registered_model_waits_for_workers_and_goes_when_it_has_none(served) -> None:
    answer = ask(served, "POST", "/models?url=double@1.0.1&model_name=other")
    assert "registered with 0 initial workers" in answer.json["status"]
    answer = ask(served, "POST", "/models?url=double@1.0.1&model_name=other&initial_workers=1&synchronous=true")
    assert answer.json == {"status": 'Model "other" Version: 1.0.1 registered with 1 initial workers'}
    assert served.predict("other", [1, 2]) == [3, 6]
    first = ask(served, "GET", "/models?limit=1").json
    assert first == {"models": [{"modelName": "double", "modelUrl": "double@1.0.0"}], "nextPageToken": "1"}
    rest = ask(served, "GET", f"/models?limit=1&next_page_token={first['nextPageToken']}").json
    assert rest == {"models": [{"modelName": "other", "modelUrl": "double@1.0.1"}]}
    assert ask(served, "PUT", "/models/other?min_worker=0").status == 200
    assert [row["modelName"] for row in ask(served, "GET", "/models").json["models"]] == ["double"]


def test_an_artifact_of_the_store_is_registered_under_its_file_s_name_and_unregistered(served) -> None:
    url = "Quadruple%20v1.onnx"
    told = ask(
        served,
        "POST",
        f"/models?url={url}&initial_workers=1&synchronous=true&batch_size=8&max_batch_delay=20&response_timeout=60",
    ).json
    assert told == {"status": 'Model "quadruple-v1" Version: 1.0.0 registered with 1 initial workers'}
    assert served.predict("quadruple-v1", [1, 2]) == [4, 8]
    (described,) = ask(served, "GET", "/models/quadruple-v1").json
    assert (described["modelUrl"], described["batchSize"], described["maxBatchDelay"]) == ("Quadruple v1.onnx", 8, 20)
    assert ask(served, "DELETE", "/models/quadruple-v1").json == {"status": 'Model "quadruple-v1" unregistered'}
    assert ask(served, "DELETE", "/models/quadruple-v1").json["type"] == "ModelNotFoundException"
    assert ask(served, "GET", "/models/quadruple-v1").json[0]["minWorkers"] == 0


def test_an_artifact_that_is_no_model_leaves_nothing(served) -> None:
    answer = ask(served, "POST", "/models?url=broken.onnx&initial_workers=1&synchronous=true")
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert ask(served, "GET", "/models/broken").status == 404


def test_another_version_of_the_interface_is_refused_on_this_listener_too(served) -> None:
    answer = served.administer("GET", "/v1/status", headers={"X-Salver-Api-Version": "2"})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER")
    assert served.administer("GET", "/v1/status", headers={"X-Salver-Api-Version": "1"}).status == 200


def test_a_version_that_fails_to_load_is_taken_back(served, models: Path) -> None:
    served.salver("register", "spoilt", models / "times2.onnx", "--version", "1.0.0")
    digest = served.administer("GET", "/v1/models/spoilt").json[0]["files"][0]["sha256"]
    blob = next(served.home.glob(f"blobs/**/{digest[2:]}*"), None) or next(served.home.glob(f"blobs/**/{digest}*"))
    content = blob.read_bytes()
    blob.chmod(0o600)
    try:
        blob.write_bytes(b"\0" * len(content))
        answer = ask(served, "POST", "/models?url=spoilt&initial_workers=1&synchronous=true")
        assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
        assert "spoilt" not in [row["endpoint"] for row in served.salver("status")["deployments"]]
    finally:
        blob.write_bytes(content)


def test_what_did_not_load_in_time_takes_nothing_back_that_others_have_deployed(models: Path, tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    database = Database.open(home.database_path)
    admin = LocalAdministration(home, database, local_principal(), SYSTEM_CLOCK)
    for factor in (2, 3):
        admin.do(REGISTER, draft_version(BlobStore(home.blobs_path), "double", models / f"times{factor}.onnx"))
    first, second = (each.version for each in admin.do(VERSIONS, OfVersions(model="double")))

    class Slow:
        """Waits for too long, and meanwhile somebody else comes."""

        async def reached(self, *_: object) -> None:
            admin.do(DEPLOY, DeployRequest("double", second))

    route = next(each for each in MANAGEMENT if (each.method, each.template) == ("POST", "/models"))
    query = {"url": f"double@{first}", "initial_workers": "1", "synchronous": "true"}
    begun = route.act(admin, Call({}, query, None))
    with pytest.raises(SalverError, match="failed to load"):
        asyncio.run(route.then(Slow(), begun))
    assert [spec.version for spec in admin.do(STATUS, Nothing()).deployments] == [second]
    database.close()
