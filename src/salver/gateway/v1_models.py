"""The paths under `/v1/models`, which TensorFlow Serving, KServe and OpenAI's clients share.

Each family of clients reads only its own members, so every answer has the members of all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from salver.gateway.exchange import Exchange, Refusal, plain_refusal
from salver.gateway.openai import openai_refusal
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas_v1 import (
    Alive,
    ClassifyResponse,
    ExamplesRequest,
    ListedModel,
    ListedModels,
    ModelStatus,
    PredictRequest,
    PredictResponse,
    RegressResponse,
    SignatureMetadata,
)
from salver.gateway.tfs import TfsDoor, not_found
from salver.protocol.codecs.tfs_response import signature_def
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["V1Pages", "v1_refusal", "v1_routes"]

_ALIVE: Final = b'{"status":"alive"}'
_OWNER: Final = "salver"
_UNPROCESSABLE: Final = 422
Wanted = Callable[[str], tuple[VersionManifest, SalverError | None] | None]
"""The version that an endpoint should serve, and why it could not be loaded if it could not; None for no endpoint."""


class V1Pages:
    """What there is and how it does, for clients of three families."""

    def __init__(self, router: Router, wanted: Wanted) -> None:
        self._router = router
        self._wanted = wanted

    def alive(self, exchange: Exchange) -> None:
        """The event loop turns."""
        exchange.reply(_ALIVE)

    def models(self, exchange: Exchange) -> None:
        """All endpoints, ready or not."""
        names = self._router.names()
        exchange.reply_json({"models": names, "object": "list", "data": [_listed(name) for name in names]})

    def model(self, exchange: Exchange) -> None:
        """One endpoint: 200 if it, or the version named, answers; else 503 with the same members."""
        name, version = exchange.params["model"], exchange.params.get("version")
        states = self._found(exchange, name)
        shown = [state for named, state in states if version is None or version in named]
        if not shown:
            raise SalverError("NOT_FOUND", f"Could not find version {str(version)[:64]} of model {name}")
        ready = any(state["state"] == "AVAILABLE" for state in shown)
        exchange.reply_json(
            {**_listed(name), "name": name, "ready": ready, "model_version_status": shown}, status=200 if ready else 503
        )

    def listed(self, exchange: Exchange) -> None:
        """One endpoint, ready or not, as the list has it."""
        name = exchange.params["model"]
        self._found(exchange, name)
        exchange.reply_json(_listed(name))

    def labelled(self, open: Callable[[Exchange], None], exchange: Exchange) -> None:
        """`open`, for the version that an endpoint serves if it has the label."""
        name, label = exchange.params["model"], exchange.params["label"]
        unknown = f"Unrecognized servable version label: {label[:64]}"
        try:
            labels = self._router.resolve(name).spec.labels
        except SalverError as error:
            raise not_found(error, unknown) from None
        if label not in labels:
            raise SalverError("NOT_FOUND", unknown)
        exchange.params = {"model": name}
        open(exchange)

    def metadata(self, exchange: Exchange) -> None:
        """The signature of the version that an endpoint serves, in TensorFlow's words."""
        name, version = exchange.params["model"], exchange.params.get("version")
        try:
            manifest = self._router.resolve(name, version).manifest
        except SalverError as error:
            which = f"Latest({name[:140]})" if version is None else f"Specific({name[:140]}, {version[:64]})"
            raise not_found(error, f"Servable not found for request: {which}") from None
        exchange.endpoint = name
        exchange.reply_json(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(manifest.ordinal)},
                "metadata": {"signature_def": signature_def(manifest.signature)},
            }
        )

    def _found(self, exchange: Exchange, name: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        """See `_states`; raises NOT_FOUND."""
        states = self._states(name)
        if states is None:
            raise SalverError("NOT_FOUND", f"Could not find any versions of model {name[:140]}")
        exchange.endpoint = name
        return states

    def _states(self, name: str) -> list[tuple[tuple[str, str], dict[str, Any]]] | None:
        """Each version that serves or should, by what it may be called; None for an endpoint that is not there."""
        versions: dict[str, tuple[VersionManifest, str, SalverError | None]] = {}
        for endpoint, target in self._router.targets():
            if endpoint == name:
                state = "AVAILABLE" if target.service.available else "LOADING"
                versions[target.manifest.version] = (target.manifest, state, None)
        wanted = self._wanted(name)
        if wanted is not None:
            manifest, error = wanted
            versions.setdefault(manifest.version, (manifest, "LOADING" if error is None else "END", error))
        if not versions:
            return None
        return [
            ((manifest.version, str(manifest.ordinal)), _state(manifest, state, error))
            for manifest, state, error in versions.values()
        ]


def _listed(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": _OWNER}


def _state(manifest: VersionManifest, state: str, error: SalverError | None) -> dict[str, Any]:
    told = {"error_code": "OK", "error_message": ""}
    if error is not None:
        told = {"error_code": error.grpc, "error_message": str(error)}
    return {"version": str(manifest.ordinal), "state": state, "status": told}


def v1_refusal(error: SalverError) -> Refusal:
    """An error with the statuses that TensorFlow Serving has, which are those of the catalogue but one."""
    refusal = plain_refusal(error)
    return refusal._replace(status=400) if refusal.status == _UNPROCESSABLE else refusal


def v1_routes(pages: V1Pages, door: TfsDoor) -> list[HttpRoute]:
    """All routes of the three on the data listener; like TensorFlow Serving's, they have no case.

    Under `/openai`, where KServe has OpenAI's interface, errors are OpenAI's too.
    """
    routes = [
        HttpRoute("GET", "/", None, pages.alive, "Is the server alive?", None, Alive),
        _route("GET", "/v1/models", pages.models, "Names of all endpoints", None, ListedModels),
        _route("POST", "/v1/models/{model}:explain", door.explain, "Refused: there are no explanations"),
        *(
            HttpRoute("GET", f"/openai/v1/models{at}", Operation.PREDICT, page, told, None, answer, openai_refusal)
            for at, page, told, answer in (
                ("", pages.models, "Names of all endpoints", ListedModels),
                ("/{model}", pages.listed, "One endpoint", ListedModel),
            )
        ),
    ]
    of_each: tuple[tuple[Any, ...], ...] = (
        ("GET", "", pages.model, "Does the model answer?", None, ModelStatus),
        ("GET", "/metadata", pages.metadata, "Inputs and outputs", None, SignatureMetadata),
        ("POST", ":predict", door.predict, "Predict", PredictRequest, PredictResponse),
        ("POST", ":classify", door.classify, "Classify examples", ExamplesRequest, ClassifyResponse),
        ("POST", ":regress", door.regress, "Regress examples", ExamplesRequest, RegressResponse),
    )
    for verb, tail, act, *told in of_each:
        routes += [_route(verb, "/v1/models/{model}" + at + tail, act, *told) for at in ("", "/versions/{version}")]
        labelled = functools.partial(pages.labelled, act)
        routes.append(_route(verb, "/v1/models/{model}/labels/{label}" + tail, labelled, *told))
    return routes


def _route(
    verb: str,
    template: str,
    open: Callable[[Exchange], None],
    summary: str,
    request: Any = None,
    response: Any = None,
) -> HttpRoute:
    return HttpRoute(
        verb, template, Operation.PREDICT, open, summary, request, response, refusal=v1_refusal, any_case=True
    )
