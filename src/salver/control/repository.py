"""The model repository extension of the Open Inference Protocol, on the administration.

A name on the wire is an endpoint's. A registered model that no endpoint serves stands in the
index under its own name: `load` then makes the endpoint of that name. `load` takes registered
versions only: a client's own configuration or files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY, UNDEPLOY, UndeployRequest
from salver.control.actions.models import MODELS
from salver.control.actions.status import STATUS
from salver.control.administration import Administration
from salver.control.waiting import Watch
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.registry.catalog import ModelSummary
from salver.registry.deploy_request import DeployRequest
from salver.runtime.status import EndpointStatus, LoadState

__all__ = ["RepositoryModel", "load", "loaded", "repository_index", "unload"]

_LOAD_TIMEOUT_S: Final = 120.0


class RepositoryModel(msgspec.Struct, frozen=True):
    """One version behind a name in the index; `state` is READY, UNAVAILABLE or LOADING."""

    name: str
    version: str
    state: str
    reason: str


def repository_index(admin: Administration, body: Any) -> list[RepositoryModel]:
    """All endpoints, and the registered models that none serves; with `{"ready": true}` what serves.

    An endpoint on its way from one version to another has a row for each.
    """
    only_ready = _only_ready(body)
    status = admin.do(STATUS, Nothing())
    now = {row.endpoint: row for row in status.endpoints}
    rows = [row for spec in status.deployments for row in _deployed(spec, now.get(spec.endpoint))]
    taken = {name for spec in status.deployments for name in (spec.endpoint, spec.model)}
    rows += [_undeployed(summary) for summary in admin.do(MODELS, Nothing()) if summary.name not in taken]
    return [row for row in sorted(rows, key=lambda row: row.name) if row.state == "READY" or not only_ready]


def _only_ready(body: Any) -> bool:
    asked = body.get("ready", False) if isinstance(body, dict) else False
    if not isinstance(asked, bool):
        raise SalverError("INVALID_PARAMETER", f"ready is {str(asked)[:80]!r}", "use true or false")
    return asked


def _deployed(spec: DeploymentSpec, now: EndpointStatus | None) -> Iterator[RepositoryModel]:
    """What serves behind an endpoint, if anything, and what should where that is something else."""
    wanted = f"{spec.model}@{spec.version}"
    serving = now.serving if now else None
    if now and serving:
        state, reason = ("READY", "") if now.available else ("UNAVAILABLE", "it has no healthy replica")
        yield RepositoryModel(spec.endpoint, serving.rpartition("@")[2], state, reason)
    if serving == wanted:
        return
    if now is None:
        state, reason = "UNAVAILABLE", "deployed, but no server says what it does"
    elif now.wanted == wanted and now.state is LoadState.COLD:
        state, reason = "READY", "it loads when it is asked"
    elif now.wanted == wanted and now.state is LoadState.FAILED:
        state, reason = "UNAVAILABLE", now.problem or ""
    else:
        state, reason = "LOADING", ""
    yield RepositoryModel(spec.endpoint, spec.version, state, reason)


def _undeployed(model: ModelSummary) -> RepositoryModel:
    if model.latest is None:
        return RepositoryModel(
            model.name, model.newest, "UNAVAILABLE", "registered, not deployed; it has no release that load takes"
        )
    return RepositoryModel(model.name, model.latest, "UNAVAILABLE", "registered, not deployed; load deploys it")


def load(admin: Administration, name: str, body: Any) -> DeploymentSpec:
    """Deploy the highest release of an endpoint's model; `loaded` waits until it serves.

    Where there is no endpoint `name` but a registered model, it gets an endpoint of its name.
    """
    parameters = body.get("parameters") if isinstance(body, dict) else None
    if parameters:
        named = min(map(str, parameters))[:80] if isinstance(parameters, dict) else str(parameters)[:80]
        raise SalverError(
            "INVALID_PARAMETER",
            f"load takes no parameter {named!r}: models come from the registry only",
            "register the version with `salver register`, then load it",
        )
    try:
        deployed = {spec.endpoint: spec.model for spec in admin.do(STATUS, Nothing()).deployments}
        return admin.do(DEPLOY, DeployRequest(deployed.get(name, name), endpoint=name))
    except SalverError as error:
        # Clients of this extension look for these three words.
        raise SalverError(error.code, f"failed to load {name[:140]!r}: {error.message}", error.remedy) from None


async def loaded(watch: Watch, spec: DeploymentSpec) -> dict[str, Any]:
    """The answer to a load, once the server serves `spec`; raises LOAD_FAILED when it does not."""
    name = spec.endpoint
    reached = await watch.reached(spec, _LOAD_TIMEOUT_S)
    if reached is None or reached.state not in (LoadState.READY, LoadState.COLD):
        problem = reached.problem if reached else f"not serving after {_LOAD_TIMEOUT_S:g} s"
        raise SalverError("LOAD_FAILED", f"failed to load {name!r}: {problem}")
    return {"name": name, "load": True}


def unload(admin: Administration, name: str) -> dict[str, Any]:
    """Remove the endpoint."""
    admin.do(UNDEPLOY, UndeployRequest(name))
    return {"name": name, "unload": True}
