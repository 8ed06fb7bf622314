"""The routes by which managed platforms reach a container, and those of TorchServe, whose users have to leave it.

Vertex AI chooses its routes; those and Azure's name no model, see `EndpointChoice`.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from salver.gateway.choosing import EndpointChoice
from salver.gateway.exchange import JSON, Exchange, Refusal
from salver.gateway.mlflow import MlflowDoor
from salver.gateway.repository import Controller
from salver.gateway.routes import HttpRoute
from salver.gateway.sagemaker import SageMakerPages, sagemaker_routes
from salver.gateway.schemas_scoring import AzureRequest, Health
from salver.gateway.schemas_v1 import PredictRequest, PredictResponse
from salver.gateway.tfs import TfsDoor
from salver.gateway.torchserve import TorchServeDoor, torchserve_routes
from salver.gateway.v1_models import v1_refusal
from salver.protocol.errors import SalverError
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["platform_routes"]

_ENCODE: Final = msgspec.json.Encoder().encode
_ECHOED: Final = (b"x-ms-request-id", b"x-ms-client-request-id", b"traceid")
_LONGEST_ECHOED: Final = 100
"""Azure's own limit."""


def platform_routes(
    router: Router,
    choice: EndpointChoice,
    scoring: MlflowDoor,
    tfs: TfsDoor,
    controller: Controller | None,
    max_elements: int,
    *,
    health_route: str = "",
    predict_route: str = "",
) -> list[HttpRoute]:
    """All of them; models are loaded through them only where there is a `controller`."""
    return [
        *vertex_routes(health_route, predict_route, choice, tfs, scoring),
        *azure_routes(scoring),
        *sagemaker_routes(SageMakerPages(router, controller), scoring, loads=controller is not None),
        *torchserve_routes(TorchServeDoor(router, max_elements)),
    ]


def vertex_routes(
    health_route: str, predict_route: str, choice: EndpointChoice, door: TfsDoor, scoring: MlflowDoor
) -> list[HttpRoute]:
    """The routes that Vertex AI has named in the environment, each if it has."""

    def predict(exchange: Exchange) -> None:
        exchange.params = {"model": choice.of(exchange)}
        door.predict(exchange)

    routes = []
    if health_route:
        routes.append(HttpRoute("GET", health_route, None, scoring.ping, "Is the server ready?", None, Health))
    if predict_route:
        told = ("Predict, for Vertex AI", PredictRequest, PredictResponse)
        routes.append(HttpRoute("POST", predict_route, Operation.PREDICT, predict, *told, refusal=v1_refusal))
    return routes


def azure_refusal(error: SalverError) -> Refusal:
    """What Azure's inference server says."""
    return Refusal(error.http, JSON, _ENCODE({"message": str(error)}))


def azure_routes(scoring: MlflowDoor) -> list[HttpRoute]:
    """The routes of Azure's inference server; its `/` is KServe's as well."""
    return [
        HttpRoute(
            "POST",
            "/score",
            Operation.PREDICT,
            functools.partial(_score, scoring),
            "Answer a scoring request of Azure Machine Learning",
            AzureRequest,
            list[Any],
            refusal=azure_refusal,
        )
    ]


def _score(scoring: MlflowDoor, exchange: Exchange) -> None:
    for name in _ECHOED:
        value = exchange.headers.get(name, b"")
        if value and len(value) <= _LONGEST_ECHOED and value.decode("latin-1").isprintable():
            exchange.add_header(name, value)
    scoring.score(exchange)
