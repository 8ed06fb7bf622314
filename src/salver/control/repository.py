"""The model repository extension of the Open Inference Protocol, on the administration.

`load` takes registered versions only: a client's own configuration or files are refused.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from salver.clock import SYSTEM_CLOCK
from salver.control.administration import Administration, DeployRequest
from salver.control.waiting import wait_until_reached
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.runtime.status import EndpointStatus, LoadState

__all__ = ["RepositoryModel", "load", "repository_index", "unload"]

_LOAD_TIMEOUT_S: Final = 120.0


class RepositoryModel(msgspec.Struct, frozen=True):
    """One version in the index; `state` is READY, UNAVAILABLE or LOADING."""

    name: str
    version: str
    state: str
    reason: str


def repository_index(admin: Administration, body: Any) -> list[RepositoryModel]:
    """All registered versions; with `{"ready": true}` those that serve."""
    only_ready = isinstance(body, dict) and bool(body.get("ready"))
    endpoints = admin.status().endpoints
    rows = [
        _row(manifest, endpoints)
        for model in sorted(summary.name for summary in admin.models())
        for manifest in admin.versions(model)
    ]
    return [row for row in rows if row.state == "READY" or not only_ready]


def _row(manifest: VersionManifest, endpoints: tuple[EndpointStatus, ...]) -> RepositoryModel:
    for endpoint in endpoints:
        if endpoint.serving == manifest.reference and endpoint.available:
            return RepositoryModel(manifest.model, manifest.version, "READY", "")
    for endpoint in endpoints:
        if endpoint.wanted == manifest.reference:
            state = "UNAVAILABLE" if endpoint.state is LoadState.FAILED else "LOADING"
            return RepositoryModel(manifest.model, manifest.version, state, endpoint.problem or "")
    return RepositoryModel(manifest.model, manifest.version, "UNAVAILABLE", "unloaded")


def load(admin: Administration, model: str, body: Any) -> dict[str, Any]:
    """Deploy the highest release of a registered model and wait until it serves."""
    parameters = body.get("parameters") if isinstance(body, dict) else None
    if parameters:
        named = min(map(str, parameters))[:80] if isinstance(parameters, dict) else str(parameters)[:80]
        raise SalverError(
            "INVALID_PARAMETER",
            f"load takes no parameter {named!r}: models come from the registry only",
            "register the version with `salver register`, then load it",
        )
    try:
        spec = admin.deploy(DeployRequest(model))
    except SalverError as error:
        # Clients of this extension look for these three words.
        raise SalverError(error.code, f"failed to load {model[:140]!r}: {error.message}", error.remedy) from None
    reached = wait_until_reached(admin, spec, _LOAD_TIMEOUT_S, SYSTEM_CLOCK)
    if reached is None or reached.state is not LoadState.READY:
        problem = reached.problem if reached else f"not serving after {_LOAD_TIMEOUT_S:g} s"
        raise SalverError("LOAD_FAILED", f"failed to load {model!r}: {problem}")
    return {"name": model, "load": True}


def unload(admin: Administration, model: str) -> dict[str, Any]:
    """Remove the endpoint."""
    admin.undeploy(model)
    return {"name": model, "unload": True}
