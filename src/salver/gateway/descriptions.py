"""What clients may know of this server: metadata, configuration, statistics, settings.

Each answer is made once, in the names that the Open Inference Protocol has for it in JSON and
in protobuf alike, and every protocol writes it in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from salver import __version__
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.routing.router import Router, Target
from salver.telemetry.metrics import CacheCounts, Metrics, VersionMetrics

__all__ = ["Descriptions"]

_EXTENSIONS: Final = [
    "classification",
    "sequence",
    "sequence(string_id)",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "model_configuration",
    "schedule_policy",
]
_REPOSITORY: Final = "model_repository"
_NANOSECONDS: Final = 1e9


class Descriptions:
    """Answers from what the router and the counters know; nothing here waits.

    `version` is named in full or by its ordinal, or None. Raises NOT_FOUND, and NOT_READY while
    an endpoint has no service yet.
    """

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        *,
        server_name: str,
        is_ready: Callable[[], bool],
        has_repository: bool,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._server_name = server_name
        self._is_ready = is_ready
        self._extensions = [*_EXTENSIONS, _REPOSITORY] if has_repository else _EXTENSIONS

    def is_ready(self, *, draining: bool) -> bool:
        """Whether every required endpoint has a healthy replica and the server is not draining."""
        return self._is_ready() and not draining

    def server(self) -> dict[str, Any]:
        """Who answers and what it can do."""
        return {"name": self._server_name, "version": __version__, "extensions": self._extensions}

    def endpoints(self) -> list[str]:
        """The names of all endpoints."""
        return self._router.names()

    def model(self, endpoint: str, version: str | None) -> dict[str, Any]:
        """Inputs and outputs of the version that an endpoint serves."""
        manifest = self._router.resolve(endpoint, version).manifest
        return {
            "name": endpoint,
            "versions": [manifest.version],
            "platform": FORMATS[manifest.format].platform,
            "inputs": [_metadata(spec) for spec in manifest.signature.inputs],
            "outputs": [_metadata(spec) for spec in manifest.signature.outputs],
        }

    def model_is_ready(self, endpoint: str, version: str | None) -> bool:
        """Whether the endpoint, and the version if one is named, answers."""
        try:
            return self._router.resolve(endpoint, version).service.available
        except SalverError as error:
            if error.code != "NOT_READY":
                raise
            return False

    def config(self, endpoint: str, version: str | None) -> dict[str, Any]:
        """The deployment in the shape of Triton's model configuration."""
        target = self._router.resolve(endpoint, version)
        spec, manifest = target.spec, target.manifest
        batched = manifest.signature.batched
        return {
            "name": spec.endpoint,
            "platform": FORMATS[manifest.format].platform,
            "backend": manifest.format,
            "version_policy": {"specific": {"versions": [manifest.ordinal]}},
            "max_batch_size": spec.max_batch if batched else 0,
            "input": [_configured(tensor, batched) for tensor in manifest.signature.inputs],
            "output": [_configured(tensor, batched) for tensor in manifest.signature.outputs],
            "instance_group": [{"name": spec.endpoint, "kind": _kind(spec), "count": spec.replicas}],
            **({"dynamic_batching": _batching(spec)} if batched and not manifest.keeps_state else {}),
            **({"sequence_batching": _sequences(spec, manifest)} if manifest.keeps_state else {}),
            "model_transaction_policy": {"decoupled": manifest.streams},
            "response_cache": {"enable": bool(spec.cache_bytes and manifest.is_repeatable)},
            "parameters": {
                "salver_version": {"string_value": manifest.version},
                "salver_idempotent": {"string_value": "true" if manifest.idempotent else "false"},
            },
        }

    def statistics(self, endpoint: str | None, version: str | None) -> dict[str, Any]:
        """Counts and times since the server started, for one endpoint or all."""
        if endpoint is None:
            targets: Sequence[Target] = [target for _, target in self._router.targets()]
        else:
            targets = [self._router.resolve(endpoint, version)]
        return {"model_stats": [self._stats(target) for target in targets]}

    def _stats(self, target: Target) -> dict[str, Any]:
        name, version = target.spec.endpoint, target.manifest.version
        counted = self._metrics.version(name, version)
        failures = sum(counted.failures.values())
        cache = counted.cache or CacheCounts()
        return {
            "name": name,
            "version": version,
            "last_inference": round(counted.last_success_wall_s * 1000),
            "inference_count": counted.rows,
            "execution_count": sum(counted.batches.values()),
            "inference_stats": {
                "success": _duration(counted.successes, counted.request_s.total),
                "fail": _duration(failures, counted.fail_s),
                "queue": _duration(counted.computed, counted.queue_s.total),
                "compute_input": _duration(counted.computed, counted.input_s),
                "compute_infer": _duration(counted.computed, counted.compute_s),
                "compute_output": _duration(counted.computed, counted.output_s),
                "cache_hit": _duration(cache.hits, cache.hit_s),
                "cache_miss": _duration(cache.misses, cache.miss_s),
            },
            "response_stats": {},
            "batch_stats": _batch_stats(counted),
            "memory_usage": [],
        }

    def trace_settings(self, endpoint: str | None) -> dict[str, Any]:
        """There is no tracing to set here, for one endpoint or all; NOT_FOUND for an endpoint that is not there."""
        if endpoint is not None and endpoint not in self._router.names():
            self._router.resolve(endpoint)
        return {
            "trace_file": "",
            "trace_level": ["OFF"],
            "trace_rate": "0",
            "trace_count": "0",
            "log_frequency": "0",
        }

    def log_settings(self) -> dict[str, Any]:
        """What the server logs."""
        return {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "default",
        }


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    dims = spec.shape[1:] if batched else spec.shape
    return {
        "name": spec.name,
        "data_type": DATATYPES[spec.datatype].triton,
        "dims": list(dims),
        **({"optional": True} if spec.optional else {}),
    }


def _kind(spec: DeploymentSpec) -> str:
    on_gpu = any(not provider.startswith("CPU") for provider in spec.runtime.providers)
    return "KIND_GPU" if on_gpu else "KIND_CPU"


def _batching(spec: DeploymentSpec) -> dict[str, Any]:
    return {"preferred_batch_size": [], "max_queue_delay_microseconds": round(spec.max_wait_s * 1e6)}


def _sequences(spec: DeploymentSpec, manifest: VersionManifest) -> dict[str, Any]:
    return {
        "max_sequence_idle_microseconds": round(spec.session_idle_s * 1e6),
        "oldest": {"max_candidate_sequences": spec.max_sessions},
        "state": [
            {
                "input_name": state.input,
                "output_name": state.output,
                "data_type": DATATYPES[state.datatype].triton,
                "dims": list(state.shape),
            }
            for state in manifest.states
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * _NANOSECONDS)}


def _batch_stats(counted: VersionMetrics) -> list[dict[str, Any]]:
    return [
        {
            "batch_size": rows,
            "compute_input": _duration(count, counted.batch_input_seconds[rows]),
            "compute_infer": _duration(count, counted.batch_seconds[rows]),
            "compute_output": _duration(count, counted.batch_output_seconds[rows]),
        }
        for rows, count in sorted(counted.batches.items())
    ]
