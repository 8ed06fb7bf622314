"""What a managed platform tells the container it runs, as settings of `salver serve`.

SageMaker, Vertex AI and Azure Machine Learning start a container with the argument `serve` or none, say
in the environment where the model lies and which port and paths they will ask, and end it with SIGTERM.
They end TLS and know their callers, and nobody else reaches the port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["Platform", "read_platform"]

_SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
_SAGEMAKER_MODELS: Final = "/opt/ml/models"
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - the port of a container, which its platform alone reaches
_PORT: Final = 8080
_PREFIX: Final = "SALVER_SERVER_"


class Platform(msgspec.Struct, frozen=True):
    """What was found in the environment."""

    model: Path | None
    """The artifact to serve; None for what the home holds."""
    settings: dict[str, Any]
    """Of `[server]`, without those that the environment sets by Salver's own names."""
    has_several: bool = False
    """Whether models will be loaded by path, by whoever asks."""


def read_platform(
    environment: Mapping[str, str],
    model: Path | None = None,
    is_there: Callable[[Path], bool] = lambda path: path.exists(),
) -> Platform:
    """What the environment says; a `model` that is named goes before it.

    Raises INVALID_SETTING for a port that is none and for a model in a store that would have to be downloaded.
    """
    settings: dict[str, Any] = {
        "host": _EVERYWHERE,
        "http": _port(environment),
        # Containers of one SageMaker pipeline share their ports; commands come through the Unix socket.
        "control": 0,
        # The platform takes a container out of service before it ends it, and kills it 30 s after SIGTERM.
        "lame_duck_s": 1.0,
        "drain_s": 20.0,
        "insecure": True,
        "csv_header": "present" if _is_vertex(environment) or _azure_model(environment) else "absent",
        "health_route": environment.get("AIP_HEALTH_ROUTE") or None,
        "predict_route": environment.get("AIP_PREDICT_ROUTE") or None,
    }
    has_several = environment.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
    if has_several:
        settings |= {"model_store": _SAGEMAKER_MODELS, "repository_on_data": True}
    given = {name for name in settings if f"{_PREFIX}{name.upper()}" in environment}
    kept = {name: value for name, value in settings.items() if value is not None and name not in given}
    return Platform(None if has_several else model or _model(environment, is_there), kept, has_several)


def _is_vertex(environment: Mapping[str, str]) -> bool:
    return any(name.startswith("AIP_") for name in environment)


def _azure_model(environment: Mapping[str, str]) -> str:
    return environment.get("AZUREML_MODEL_DIR", "")


def _port(environment: Mapping[str, str]) -> int:
    for name in ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"):
        port = environment.get(name)
        if port:
            if not (port.isascii() and port.isdigit() and int(port) < 2**16):
                raise SalverError("INVALID_SETTING", f"{name} is {port[:40]!r}", "a port is 0-65535")
            return int(port)
    return _PORT


def _model(environment: Mapping[str, str], is_there: Callable[[Path], bool]) -> Path | None:
    uri = environment.get("AIP_STORAGE_URI", "")
    if "://" in uri and not uri.startswith("file://"):
        raise SalverError(
            "INVALID_SETTING",
            f"AIP_STORAGE_URI is {uri[:200]!r}, which this container does not download",
            "put the model into the image: `salver package`, and leave out the artifact of the Vertex model",
        )
    for named in (uri.removeprefix("file://"), _azure_model(environment)):
        if named:
            return Path(named)
    return _SAGEMAKER_MODEL if is_there(_SAGEMAKER_MODEL) else None
