"""The desired state of endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from salver.control.action import Action
from salver.protocol.tables import DeploymentSpec
from salver.registry.deploy_request import DeployRequest
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "DEPLOY", "UNDEPLOY", "UndeployRequest"]


class UndeployRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint to be removed; with `if_generation` only if it is still that deployment."""

    endpoint: str
    if_generation: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


def _deploy(admin: LocalAdministration, asked: DeployRequest) -> DeploymentSpec:
    spec = admin.records.deployments.change(admin.principal, asked)
    admin.publish()
    return spec


def _undeploy(admin: LocalAdministration, asked: UndeployRequest) -> DeploymentSpec:
    spec = admin.records.deployments.undeploy(admin.principal, asked.endpoint, asked.if_generation)
    admin.publish()
    return spec


DEPLOY: Final = Action(
    "POST",
    "/v1/deployments",
    Operation.DEPLOY,
    "Deploy a version to an endpoint",
    DeployRequest,
    DeploymentSpec,
    _deploy,
)
UNDEPLOY: Final = Action(
    "DELETE",
    "/v1/deployments/{endpoint}",
    Operation.DEPLOY,
    "Remove an endpoint; answers what it was",
    UndeployRequest,
    DeploymentSpec,
    _undeploy,
)
ACTIONS: Final = (DEPLOY, UNDEPLOY)
