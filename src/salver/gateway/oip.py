"""The Open Inference Protocol over HTTP apart from inference: health, metadata, statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from salver.gateway.descriptions import Descriptions
from salver.gateway.exchange import Exchange
from salver.gateway.infer import InferDoor
from salver.gateway.routes import HttpRoute
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
from salver.protocol.errors import SalverError
from salver.security.access import Operation

__all__ = ["OipPages", "oip_routes"]

_LIVE: Final = b'{"live":true}'
_READY: Final = b'{"live":true,"ready":true}'
_NOT_READY: Final = b'{"live":true,"ready":false}'
"""Probes get JSON whatever they accept: a load balancer must not take 406 for ill health."""


class OipPages:
    """The descriptions of this server as JSON."""

    def __init__(self, descriptions: Descriptions) -> None:
        self._descriptions = descriptions

    def live(self, exchange: Exchange) -> None:
        """The event loop turns."""
        exchange.reply(_LIVE)

    def ready(self, exchange: Exchange) -> None:
        """Every required endpoint has a healthy replica and the server is not draining."""
        ready = self._descriptions.is_ready(draining=exchange.lane.gateway.draining)
        exchange.reply(_READY if ready else _NOT_READY, status=200 if ready else 503)

    def server(self, exchange: Exchange) -> None:
        """Who answers and what it can do."""
        exchange.reply_json(self._descriptions.server())

    def models(self, exchange: Exchange) -> None:
        """The names of all endpoints."""
        exchange.reply_json({"models": self._descriptions.endpoints()})

    def model(self, exchange: Exchange) -> None:
        """Inputs and outputs of the version that an endpoint serves."""
        _describe(exchange, self._descriptions.model)

    def model_ready(self, exchange: Exchange) -> None:
        """Whether the endpoint, and the version if one is named, answers."""
        endpoint = exchange.params["model"]
        ready = self._descriptions.model_is_ready(endpoint, exchange.params.get("version"))
        exchange.endpoint = endpoint
        exchange.reply_json({"name": endpoint, "ready": ready}, status=200 if ready else 503)

    def config(self, exchange: Exchange) -> None:
        """The deployment in the shape of Triton's model configuration."""
        _describe(exchange, self._descriptions.config)

    def statistics(self, exchange: Exchange) -> None:
        """Counts and times since the server started, for one endpoint or all."""
        _describe(exchange, self._descriptions.statistics)

    def trace_setting(self, exchange: Exchange) -> None:
        """Read-only: there is no tracing to change here, for one endpoint or all."""
        exchange.endpoint = exchange.params.get("model")
        exchange.reply_json(self._descriptions.trace_settings(exchange.endpoint))

    def logging(self, exchange: Exchange) -> None:
        """Read-only: what the server logs."""
        exchange.reply_json(self._descriptions.log_settings())


def _describe(exchange: Exchange, describe: Callable[[Any, str | None], dict[str, Any]]) -> None:
    endpoint = exchange.params.get("model")
    described = describe(endpoint, exchange.params.get("version"))
    # Only now is it known to be one of ours, not just a name that a client wrote.
    exchange.endpoint = endpoint
    exchange.reply_json(described)


def refuse_change(exchange: Exchange) -> None:
    """Trace and log settings are set where the server is started, not by clients."""
    del exchange
    raise SalverError("UNSUPPORTED", "these settings are read-only", "configure the server where it is started")


def refuse_shared_memory(exchange: Exchange) -> None:
    """Clients never name memory of this machine."""
    del exchange
    raise SalverError("UNSUPPORTED", "this server offers no shared memory to clients", "send binary tensors")


def oip_routes(pages: OipPages, door: InferDoor) -> list[HttpRoute]:
    """All routes of the protocol on the data listener."""
    predict = Operation.PREDICT
    traced = ("Trace settings", None, TraceSettings)
    counted = ("Statistics", None, ModelStatistics)
    routes = [
        HttpRoute("GET", "/v2/health/live", None, pages.live, "Is the server alive?", None, Live),
        HttpRoute("GET", "/v2/health/ready", None, pages.ready, "Are all required endpoints ready?", None, Ready),
        HttpRoute("GET", "/v2", predict, pages.server, "Name, version and extensions", None, ServerMetadata),
        HttpRoute("GET", "/v2/models", predict, pages.models, "Names of all endpoints", None, Models),
        HttpRoute("GET", "/v2/models/stats", predict, pages.statistics, *counted),
        HttpRoute("GET", "/v2/logging", predict, pages.logging, "Log settings", None, LogSettings),
        HttpRoute("POST", "/v2/logging", predict, refuse_change, "Refused: log settings are read-only"),
        HttpRoute("GET", "/v2/trace/setting", predict, pages.trace_setting, *traced),
        HttpRoute("POST", "/v2/trace/setting", predict, refuse_change, "Refused: trace settings are read-only"),
        HttpRoute("GET", "/v2/models/{model}/trace/setting", predict, pages.trace_setting, *traced),
        HttpRoute("POST", "/v2/models/{model}/trace/setting", predict, refuse_change, "Refused: read-only"),
    ]
    infer = ("Answer an inference request", InferenceRequest, InferenceResponse)
    configured = ("The deployment as a model configuration", None, ModelConfiguration)
    for at in ("", "/versions/{version}"):
        path = "/v2/models/{model}" + at
        routes += [
            HttpRoute("POST", path + "/infer", predict, door.open, *infer),
            HttpRoute("GET", path, predict, pages.model, "Inputs and outputs of a model", None, ModelMetadata),
            HttpRoute("GET", path + "/ready", predict, pages.model_ready, "Does the model answer?", None, ModelReady),
            HttpRoute("GET", path + "/config", predict, pages.config, *configured),
            HttpRoute("GET", path + "/stats", predict, pages.statistics, *counted),
        ]
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        for tail in ("/status", "/region/{region}/status"):
            routes.append(HttpRoute("GET", f"/v2/{kind}{tail}", predict, refuse_shared_memory, "Refused: unsupported"))
        for tail in ("/register", "/region/{region}/register", "/unregister", "/region/{region}/unregister"):
            routes.append(HttpRoute("POST", f"/v2/{kind}{tail}", predict, refuse_shared_memory, "Refused: unsupported"))
    return routes
