"""The bodies of the Open Inference Protocol as types, for OpenAPI.

Requests are read and answers are written elsewhere, in ways that cost less than these would;
a test holds both to what stands here. In binary form the tensors follow the JSON, see
`Inference-Header-Content-Length` in the protocol's binary extension.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "InferenceRequest",
    "InferenceResponse",
    "Live",
    "LogSettings",
    "ModelConfiguration",
    "ModelMetadata",
    "ModelReady",
    "ModelStatistics",
    "Models",
    "Ready",
    "ServerMetadata",
    "TraceSettings",
]

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
]
Parameters = dict[str, bool | int | float | str]


class _Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands in such a body is described here, all of it."""


class RequestInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: `data` flat or nested as `shape` says, row by row."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any] | None = None
    parameters: Parameters | None = None
    """`binary_data_size`: the bytes of this tensor behind the JSON, in place of `data`."""


class RequestedOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """An output to answer, and how: `binary_data`, or its `classification` largest classes."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Inputs by name; without `outputs` all of them are answered."""

    inputs: list[RequestInput]
    id: str | None = None
    parameters: Parameters | None = None
    """`timeout` in microseconds; `binary_data_output`; `salver_timing` asks for the header Server-Timing."""
    outputs: list[RequestedOutput] | None = None


class ResponseOutput(_Exact, frozen=True):
    """One output; `data` is flat."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any] | None = None
    parameters: Parameters | None = None


class InferenceResponse(_Exact, frozen=True):
    """The endpoint, the version that answered, and its outputs."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None
    parameters: Parameters | None = None
    """`salver_model` when the model's name is not the endpoint's; `salver_warnings`."""


class Live(_Exact, frozen=True):
    """The server answers."""

    live: bool


class Ready(_Exact, frozen=True):
    """Whether every required endpoint answers; 503 if not."""

    live: bool
    ready: bool


class ServerMetadata(_Exact, frozen=True):
    """Who answers and what it can do."""

    name: str
    version: str
    extensions: list[str]


class Models(_Exact, frozen=True):
    """The names of all endpoints."""

    models: list[str]


class TensorMetadata(_Exact, frozen=True):
    """One input or output; -1 stands for any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(_Exact, frozen=True):
    """What an endpoint takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(_Exact, frozen=True):
    """Whether an endpoint answers; 503 if not."""

    name: str
    ready: bool


class ModelConfiguration(msgspec.Struct, frozen=True):
    """The deployment in the shape of Triton's model configuration."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]


class Duration(_Exact, frozen=True):
    """How often, and nanoseconds in all."""

    count: int
    ns: int


class InferenceStatistics(_Exact, frozen=True):
    """Times summed over requests."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(_Exact, frozen=True):
    """Times summed over the batches of one size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class VersionStatistics(_Exact, frozen=True):
    """What one version did since the server started."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since the Unix epoch."""
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[Any]


class ModelStatistics(_Exact, frozen=True):
    """One element for each endpoint asked for."""

    model_stats: list[VersionStatistics]


class TraceSettings(_Exact, frozen=True):
    """Read-only."""

    trace_file: str
    trace_level: list[str]
    trace_rate: str
    trace_count: str
    log_frequency: str


class LogSettings(_Exact, frozen=True):
    """Read-only."""

    log_file: str
    log_info: bool
    log_warning: bool
    log_error: bool
    log_verbose_level: int
    log_format: str
