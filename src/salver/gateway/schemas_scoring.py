"""The bodies of MLflow's, OpenAI's, SageMaker's and Azure's protocols as types, for OpenAPI; tests hold to them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "AzureRequest",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "Health",
    "LoadModel",
    "LoadedModel",
    "LoadedModels",
    "ScoringRequest",
    "ScoringResponse",
]


class _Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands in such a body is described here, all of it."""


class Health(_Exact, frozen=True):
    """Whether the server is ready."""

    status: Literal["Healthy", "Unhealthy"]


class ScoringRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the first four members."""

    dataframe_split: dict[Literal["columns", "index", "data"], list[Any]] | None = None
    """A frame: `data` has a list for each row."""
    dataframe_records: list[dict[str, Any]] | None = None
    """A frame: an object for each row."""
    instances: list[Any] | None = None
    """A value, or an object by input name, for each row."""
    inputs: Any = None
    """A tensor, or an object of tensors by input name."""
    params: dict[str, Any] | None = None
    """Inputs that are the same for all rows."""


class ScoringResponse(_Exact, frozen=True):
    """A list with a value for each row, or an object by output name for each row."""

    predictions: Any
    salver_warnings: list[str] = []
    """For values outside the profile."""


class EmbeddingsRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Texts, or tokens, to embed."""

    model: str
    """The endpoint."""
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    """Refused unless it is what the model has."""
    user: str | None = None


class Embedding(_Exact, frozen=True):
    """The embedding of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float | None] | str
    """Numbers, or little-endian FP32 in base64."""


class Usage(_Exact, frozen=True):
    """Tokens, where they were sent or the model counts them; else 0."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(_Exact, frozen=True):
    """An embedding for each text, in the order of the request."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class AzureRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """MLflow's forms as Azure Machine Learning has them; those of `ScoringRequest` are understood as well."""

    input_data: Any
    """A frame (`columns`, `index`, `data`), a list of objects, a tensor, or tensors by input name."""
    params: dict[str, Any] | None = None
    """Inputs that are the same for all rows."""


class LoadModel(msgspec.Struct, frozen=True):
    """What SageMaker asks to load."""

    model_name: str
    """The endpoint to be."""
    url: str
    """A path in the model store, or a registered version: NAME or NAME@VERSION."""


class LoadedModel(_Exact, frozen=True):
    """A model that is loaded."""

    modelName: str  # noqa: N815 - SageMaker's name
    modelUrl: str  # noqa: N815 - SageMaker's name


class LoadedModels(_Exact, frozen=True):
    """A page of models."""

    models: list[LoadedModel]
    nextPageToken: str = ""  # noqa: N815 - SageMaker's name
