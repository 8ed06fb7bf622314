"""What managed platforms say in the environment, as settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from salver.config import read_settings
from salver.packaging.platform import read_platform
from salver.protocol.errors import SalverError

VERTEX = {
    "AIP_HTTP_PORT": "9000",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
    "AIP_STORAGE_URI": "",
}


def nowhere(_: Path) -> bool:
    return False


def everywhere(_: Path) -> bool:
    return True


@pytest.mark.parametrize(
    ("environment", "model", "says"),
    [
        ({}, None, {"http": 8080, "csv_header": "absent"}),
        ({"SAGEMAKER_BIND_TO_PORT": "8090"}, None, {"http": 8090}),
        (VERTEX, None, {"http": 9000, "csv_header": "present", "predict_route": VERTEX["AIP_PREDICT_ROUTE"]}),
        (VERTEX | {"AIP_STORAGE_URI": "file:///models/a"}, "/models/a", {"health_route": VERTEX["AIP_HEALTH_ROUTE"]}),
        ({"AZUREML_MODEL_DIR": "/var/azureml"}, "/var/azureml", {"http": 8080, "csv_header": "present"}),
        ({"SAGEMAKER_MULTI_MODEL": "true"}, None, {"model_store": "/opt/ml/models", "repository_on_data": True}),
        ({"SAGEMAKER_MULTI_MODEL": "false"}, None, {"http": 8080}),
    ],
)
def test_each_platform_is_understood(environment: dict[str, str], model: str | None, says: dict[str, object]) -> None:
    platform = read_platform(environment, is_there=nowhere)
    assert platform.model == (Path(model) if model else None)
    assert says.items() <= platform.settings.items()
    assert {"host": "0.0.0.0", "insecure": True, "control": 0}.items() <= platform.settings.items()
    assert platform.has_several == ("model_store" in platform.settings)
    settings = read_settings(None, {}, **platform.settings).server
    assert settings.lame_duck_s + settings.drain_s + 5 < 30, "SageMaker kills 30 s after SIGTERM"


def test_sagemaker_s_directory_is_served_when_it_is_there_and_several_models_have_none() -> None:
    assert read_platform({}, is_there=everywhere).model == Path("/opt/ml/model")
    assert read_platform({"SAGEMAKER_MULTI_MODEL": "true"}, is_there=everywhere).model is None
    assert read_platform({"AZUREML_MODEL_DIR": "/a"}, Path("/b"), is_there=everywhere).model == Path("/b")


def test_what_the_environment_says_in_salver_s_own_words_is_left_alone() -> None:
    environment = {"SALVER_SERVER_HTTP": "1", "SALVER_SERVER_DRAIN_S": "2", "AIP_HTTP_PORT": "3"}
    settings = read_platform(environment, is_there=nowhere).settings
    assert not {"http", "drain_s"} & settings.keys()
    assert read_settings(None, environment, **settings).server.http == 1


@pytest.mark.parametrize("port", ["x", "-1", "65536", "8080 ", "٣"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SalverError, match="AIP_HTTP_PORT is"):
        read_platform({"AIP_HTTP_PORT": port})


@pytest.mark.parametrize("uri", ["gs://bucket/model", "https://example.org/model", "s3://x"])
def test_a_model_that_would_have_to_be_downloaded_is_refused(uri: str) -> None:
    with pytest.raises(SalverError, match="does not download"):
        read_platform({"AIP_STORAGE_URI": uri})
