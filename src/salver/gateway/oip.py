"""The Open Inference Protocol over HTTP apart from inference: health, metadata, statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from salver import __version__
from salver.gateway.exchange import Exchange
from salver.gateway.infer import InferDoor
from salver.gateway.routes import Route
from salver.gateway.schemas import (
    InferenceRequest,
    InferenceResponse,
    Live,
    LogSettings,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    Models,
    ModelStatistics,
    Ready,
    ServerMetadata,
    TraceSettings,
)
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import TensorSpec
from salver.routing.router import Router, Target
from salver.security.access import Operation
from salver.telemetry.metrics import Metrics, VersionMetrics

__all__ = ["OipPages", "oip_routes"]

_EXTENSIONS: Final = ["classification", "binary_tensor_data", "parameters", "statistics", "model_configuration"]
_REPOSITORY: Final = "model_repository"
_NANOSECONDS: Final = 1e9
_LIVE: Final = b'{"live":true}'
_READY: Final = b'{"live":true,"ready":true}'
_NOT_READY: Final = b'{"live":true,"ready":false}'
"""Probes get JSON whatever they accept: a load balancer must not take 406 for ill health."""


class OipPages:
    """Answers from what the router and the counters know; nothing here waits."""

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

    def live(self, exchange: Exchange) -> None:
        """The event loop turns."""
        exchange.reply(_LIVE)

    def ready(self, exchange: Exchange) -> None:
        """Every required endpoint has a healthy replica and the server is not draining."""
        ready = self._is_ready() and not exchange.lane.gateway.draining
        exchange.reply(_READY if ready else _NOT_READY, status=200 if ready else 503)

    def server(self, exchange: Exchange) -> None:
        """Who answers and what it can do."""
        exchange.reply_json({"name": self._server_name, "version": __version__, "extensions": self._extensions})

    def models(self, exchange: Exchange) -> None:
        """The names of all endpoints."""
        exchange.reply_json({"models": self._router.names()})

    def model(self, exchange: Exchange) -> None:
        """Inputs and outputs of the version that an endpoint serves."""
        target = self._target(exchange)
        manifest = target.manifest
        exchange.reply_json(
            {
                "name": target.spec.endpoint,
                "versions": [manifest.version],
                "platform": FORMATS[manifest.format].platform,
                "inputs": [_metadata(spec) for spec in manifest.signature.inputs],
                "outputs": [_metadata(spec) for spec in manifest.signature.outputs],
            }
        )

    def model_ready(self, exchange: Exchange) -> None:
        """Whether the endpoint, and the version if one is named, answers."""
        try:
            ready = self._target(exchange).service.available
        except SalverError as error:
            if error.code != "NOT_READY":
                raise
            ready = False
        body = {"name": exchange.params["model"], "ready": ready}
        exchange.reply_json(body, status=200 if ready else 503)

    def config(self, exchange: Exchange) -> None:
        """The deployment in the shape of Triton's model configuration."""
        target = self._target(exchange)
        spec, manifest = target.spec, target.manifest
        batched = manifest.signature.batched
        exchange.reply_json(
            {
                "name": spec.endpoint,
                "platform": FORMATS[manifest.format].platform,
                "backend": manifest.format,
                "version_policy": {"specific": {"versions": [manifest.ordinal]}},
                "max_batch_size": spec.max_batch if batched else 0,
                "input": [_configured(spec, batched) for spec in manifest.signature.inputs],
                "output": [_configured(spec, batched) for spec in manifest.signature.outputs],
                "instance_group": [{"name": spec.endpoint, "kind": "KIND_CPU", "count": spec.replicas}],
                "dynamic_batching": {
                    "preferred_batch_size": [],
                    "max_queue_delay_microseconds": round(spec.max_wait_s * 1e6),
                },
                "model_transaction_policy": {"decoupled": False},
                "response_cache": {"enable": False},
                "parameters": {"salver_version": {"string_value": manifest.version}},
            }
        )

    def statistics(self, exchange: Exchange) -> None:
        """Counts and times since the server started, for one endpoint or all."""
        if "model" in exchange.params:
            targets: Sequence[Target] = [self._target(exchange)]
        else:
            targets = [target for _, target in self._router.targets()]
        exchange.reply_json({"model_stats": [self._stats(target) for target in targets]})

    def _stats(self, target: Target) -> dict[str, Any]:
        name, version = target.spec.endpoint, target.manifest.version
        counted = self._metrics.version(name, version)
        failures = sum(counted.failures.values())
        return {
            "name": name,
            "version": version,
            "last_inference": round(counted.last_success_wall_s * 1000),
            "inference_count": counted.rows,
            "execution_count": sum(counted.batches.values()),
            "inference_stats": {
                "success": _duration(counted.successes, counted.request_s.total),
                "fail": _duration(failures, counted.fail_s),
                "queue": _duration(counted.successes, counted.queue_s),
                "compute_input": _duration(counted.successes, counted.input_s),
                "compute_infer": _duration(counted.successes, counted.compute_s),
                "compute_output": _duration(counted.successes, counted.output_s),
                "cache_hit": _duration(0, 0.0),
                "cache_miss": _duration(0, 0.0),
            },
            "response_stats": {},
            "batch_stats": _batch_stats(counted),
            "memory_usage": [],
        }

    def trace_setting(self, exchange: Exchange) -> None:
        """Read-only: there is no tracing to change here."""
        exchange.reply_json({"trace_level": ["OFF"], "trace_rate": "0", "trace_count": "0", "log_frequency": "0"})

    def logging(self, exchange: Exchange) -> None:
        """Read-only: what the server logs."""
        exchange.reply_json(
            {
                "log_file": "",
                "log_info": True,
                "log_warning": True,
                "log_error": True,
                "log_verbose_level": 0,
                "log_format": "default",
            }
        )

    def _target(self, exchange: Exchange) -> Target:
        target = self._router.resolve(exchange.params["model"], exchange.params.get("version"))
        exchange.endpoint = target.spec.endpoint
        return target


def refuse_change(exchange: Exchange) -> None:
    """Trace and log settings are set where the server is started, not by clients."""
    del exchange
    raise SalverError("UNSUPPORTED", "these settings are read-only", "configure the server where it is started")


def refuse_shared_memory(exchange: Exchange) -> None:
    """Clients never name memory of this machine."""
    del exchange
    raise SalverError("UNSUPPORTED", "this server offers no shared memory to clients", "send binary tensors")


def oip_routes(pages: OipPages, door: InferDoor) -> list[Route]:
    """All routes of the protocol on the data listener."""
    predict = Operation.PREDICT
    traced = ("Trace settings", None, TraceSettings)
    counted = ("Statistics", None, ModelStatistics)
    routes = [
        Route("GET", "/v2/health/live", None, pages.live, "Is the server alive?", None, Live),
        Route("GET", "/v2/health/ready", None, pages.ready, "Are all required endpoints ready?", None, Ready),
        Route("GET", "/v2", predict, pages.server, "Name, version and extensions", None, ServerMetadata),
        Route("GET", "/v2/models", predict, pages.models, "Names of all endpoints", None, Models),
        Route("GET", "/v2/models/stats", predict, pages.statistics, *counted),
        Route("GET", "/v2/logging", predict, pages.logging, "Log settings", None, LogSettings),
        Route("POST", "/v2/logging", predict, refuse_change, "Refused: log settings are read-only"),
        Route("GET", "/v2/trace/setting", predict, pages.trace_setting, *traced),
        Route("POST", "/v2/trace/setting", predict, refuse_change, "Refused: trace settings are read-only"),
        Route("GET", "/v2/models/{model}/trace/setting", predict, pages.trace_setting, *traced),
        Route("POST", "/v2/models/{model}/trace/setting", predict, refuse_change, "Refused: read-only"),
    ]
    infer = ("Answer an inference request", InferenceRequest, InferenceResponse)
    configured = ("The deployment as a model configuration", None, ModelConfiguration)
    for at in ("", "/versions/{version}"):
        path = "/v2/models/{model}" + at
        routes += [
            Route("POST", path + "/infer", predict, door.open, *infer),
            Route("GET", path, predict, pages.model, "Inputs and outputs of a model", None, ModelMetadata),
            Route("GET", path + "/ready", predict, pages.model_ready, "Does the model answer?", None, ModelReady),
            Route("GET", path + "/config", predict, pages.config, *configured),
            Route("GET", path + "/stats", predict, pages.statistics, *counted),
        ]
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        for tail in ("/status", "/region/{region}/status"):
            routes.append(Route("GET", f"/v2/{kind}{tail}", predict, refuse_shared_memory, "Refused: unsupported"))
        for tail in ("/register", "/region/{region}/register", "/unregister", "/region/{region}/unregister"):
            routes.append(Route("POST", f"/v2/{kind}{tail}", predict, refuse_shared_memory, "Refused: unsupported"))
    return routes


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _configured(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    dims = spec.shape[1:] if batched else spec.shape
    return {
        "name": spec.name,
        "data_type": DATATYPES[spec.datatype].triton,
        "dims": dims,
        **({"optional": True} if spec.optional else {}),
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
