"""SageMaker's contract for containers with several models: what is loaded, and loading by a path.

Its names of models are endpoints. Loading and unloading are handed to the controller, as the repository
of the Open Inference Protocol is, and only where that is on the data listener.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

import msgspec

from salver.gateway.exchange import Exchange
from salver.gateway.mlflow import MlflowDoor, mlflow_refusal
from salver.gateway.repository import ControlAnswer, Controller
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas_scoring import LoadedModel, LoadedModels, LoadModel, ScoringRequest, ScoringResponse
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.tables import VersionManifest
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["SageMakerPages", "sagemaker_routes"]

_PAGE: Final = 100
_MOST_FIELDS: Final = 8
_LOOK_S: Final = 0.05
_LOOKS: Final = 100
_URL: Final = "url"
_LOAD: Final = msgspec.json.Decoder(LoadModel)
_ANSWER: Final = msgspec.json.Decoder(dict[str, Any])


class SageMakerPages:
    """The models of a container; without a `controller` they can be listed only."""

    def __init__(self, router: Router, controller: Controller | None) -> None:
        self._router = router
        self._controller = controller

    def models(self, exchange: Exchange) -> None:
        """A page of what is loaded, by name; the token of the next page is the last name of this one."""
        try:
            query = parse_qs(exchange.target.partition(b"?")[2].decode("latin-1"), max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise SalverError("INVALID_PARAMETER", "the query has too many parameters", "send one") from None
        after = query.get("next_page_token", [""])[-1]
        found = [(name, target.manifest) for name, target in self._router.targets() if name > after]
        page = [_model(name, manifest) for name, manifest in found[:_PAGE]]
        more = {"nextPageToken": page[-1]["modelName"]} if len(found) > _PAGE else {}
        exchange.reply_json({"models": page, **more})

    def model(self, exchange: Exchange) -> None:
        """One of them."""
        name = exchange.params["model"]
        manifest = self._router.resolve(name).manifest
        exchange.endpoint = name
        exchange.reply_json(_model(name, manifest))

    def load(self, exchange: Exchange) -> None:
        """Load the artifact at a path, or a registered version; ALREADY_EXISTS if the name is loaded."""
        try:
            asked = _LOAD.decode(exchange.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SalverError(
                "INVALID_JSON", f"the body is not what this route takes: {error}", 'send {"model_name":..., "url":...}'
            ) from None
        if asked.model_name in self._router.names():
            raise SalverError("ALREADY_EXISTS", f"{asked.model_name!r} is loaded already", "unload it first")
        query = urlencode(
            {"model_name": asked.model_name, "url": asked.url, "initial_workers": 1, "synchronous": "true"}
        )
        told = {"modelName": asked.model_name, "modelUrl": asked.url}
        self._hand_on(exchange, f"/models?{query}", told)

    def unload(self, exchange: Exchange) -> None:
        """Remove an endpoint."""
        name = exchange.params["model"]
        if name not in self._router.names():
            raise SalverError("NOT_FOUND", f"{name[:140]!r} is not loaded", "see GET /models")
        path = f"/v2/repository/models/{quote(name, safe='')}/unload"
        self._hand_on(exchange, path, {"modelName": name}, gone=lambda: name not in self._router.names())

    def _hand_on(
        self, exchange: Exchange, path: str, told: dict[str, str], gone: Callable[[], bool] | None = None
    ) -> None:
        assert self._controller is not None
        asked = self._controller(path, b"", exchange)
        exchange.pending = asyncio.ensure_future(_answer(exchange, asked, told, gone))


async def _answer(
    exchange: Exchange, asked: Awaitable[ControlAnswer], told: dict[str, str], gone: Callable[[], bool] | None
) -> None:
    """Answer with what was `told` once the controller has done it, and what is to be `gone` is."""
    try:
        answer = await asked
        looks = _LOOKS if gone and answer.status == HTTPStatus.OK else 0
        # This process learns what is published by looking; loading the name again must not find it taken.
        while gone and looks and not gone():
            looks -= 1
            await asyncio.sleep(_LOOK_S)
        if answer.status == HTTPStatus.OK:
            exchange.reply_json(told)
        else:
            exchange.fail(_error(answer))
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        exchange.fail(error)


def _error(answer: ControlAnswer) -> SalverError:
    """What the controller refused with, whichever of its protocols it wrote that in."""
    code = answer.headers.get("x-salver-error", "")
    try:
        body = _ANSWER.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {}
    message = str(body.get("message") or body.get("error") or "the controller refused")
    return SalverError(code if code in CATALOGUE else "CONTROL_UNAVAILABLE", message)


def _model(name: str, manifest: VersionManifest) -> dict[str, str]:
    return {"modelName": name, "modelUrl": manifest.metadata.get(_URL, manifest.reference)}


def sagemaker_routes(pages: SageMakerPages, door: MlflowDoor, *, loads: bool) -> list[HttpRoute]:
    """The routes on the data listener; `loads` where models may be loaded through it."""
    predict, deploy = Operation.PREDICT, Operation.DEPLOY
    scored = functools.partial(HttpRoute, "POST", request=ScoringRequest, response=ScoringResponse)
    routes = [
        HttpRoute("GET", "/models", predict, pages.models, "What is loaded, for SageMaker", None, LoadedModels),
        HttpRoute("GET", "/models/{model}", predict, pages.model, "Is it loaded?", None, LoadedModel),
        scored("/models/{model}/invoke", predict, door.open, "Answer a scoring request", refusal=mlflow_refusal),
    ]
    if loads:
        routes += [
            HttpRoute("POST", "/models", deploy, pages.load, "Load a model", LoadModel, LoadedModel),
            HttpRoute("DELETE", "/models/{model}", deploy, pages.unload, "Unload a model", None, None),
        ]
    return routes
