"""The bodies of the paths under `/v1/models` as types, for OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "Alive",
    "ClassifyResponse",
    "ExamplesRequest",
    "ListedModel",
    "ListedModels",
    "ModelStatus",
    "PredictRequest",
    "PredictResponse",
    "RegressResponse",
    "SignatureMetadata",
]


class PredictRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows as `instances` or columns as `inputs`, one of the two."""

    instances: list[Any] | msgspec.UnsetType = msgspec.UNSET
    """Values of the sole input, or objects with a value for each input."""
    inputs: Any = msgspec.UNSET
    """The value of the sole input, or an object with one for each input."""
    signature_name: Literal["", "serving_default"] = ""


class PredictResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows for rows, columns for columns; of several outputs objects by name."""

    predictions: list[Any] | msgspec.UnsetType = msgspec.UNSET
    outputs: Any = msgspec.UNSET
    salver_warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class ExamplesRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Examples to classify or to regress: a value or a flat list of values for each input."""

    examples: list[dict[str, Any]]
    context: dict[str, Any] = {}
    """Features that all examples share."""
    signature_name: Literal["", "serving_default"] = ""


class ClassifyResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """For each example a label and a score for each class."""

    results: list[list[tuple[str, float]]]
    salver_warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class RegressResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """For each example a number."""

    results: list[float]
    salver_warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Alive(msgspec.Struct, frozen=True):
    """The server answers."""

    status: Literal["alive"]


class ListedModel(msgspec.Struct, frozen=True):
    """One endpoint as OpenAI lists models."""

    id: str
    object: Literal["model"]
    created: int
    """0: not known."""
    owned_by: str


class ListedModels(msgspec.Struct, frozen=True):
    """All endpoints: `models` for KServe's clients, `data` for OpenAI's."""

    models: list[str]
    object: Literal["list"]
    data: list[ListedModel]


class StatusCode(msgspec.Struct, frozen=True):
    """Whether a version has failed."""

    error_code: str
    error_message: str


class VersionStatus(msgspec.Struct, frozen=True):
    """One version as TensorFlow Serving reports it."""

    version: str
    """The ordinal."""
    state: Literal["LOADING", "AVAILABLE", "END"]
    status: StatusCode


class ModelStatus(ListedModel, frozen=True):
    """One endpoint for TensorFlow Serving's clients, KServe's and OpenAI's."""

    name: str
    ready: bool
    model_version_status: list[VersionStatus]


class ModelSpec(msgspec.Struct, frozen=True):
    """What metadata are of."""

    name: str
    signature_name: str
    version: str


class SignatureMetadata(msgspec.Struct, frozen=True):
    """Inputs and outputs as TensorFlow describes them."""

    model_spec: ModelSpec
    metadata: dict[str, Any]
