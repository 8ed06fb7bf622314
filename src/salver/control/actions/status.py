"""Desired and actual state, side by side."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.registry.isolations import IsolatedVersion
from salver.runtime.status import EndpointStatus, ProcessStatus, merge_endpoints
from salver.security.access import Operation
from salver.telemetry.logs import log_event

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "STATUS", "ServerStatus"]


class ServerStatus(msgspec.Struct, frozen=True):
    """What is deployed and, where a server runs, what it does about it."""

    serving: bool
    deployments: tuple[DeploymentSpec, ...]
    endpoints: tuple[EndpointStatus, ...] = ()
    """In all server processes together; empty while none answers."""
    processes: tuple[ProcessStatus, ...] = ()
    """Each server process, also one that does not answer now, and what the endpoints do in it."""
    isolated: tuple[IsolatedVersion, ...] = ()
    """What crashed or hung a server process and so gets workers under placement `auto`."""


def _status(admin: LocalAdministration, _: Nothing) -> ServerStatus:
    processes = admin.processes() if admin.processes else ()
    try:
        isolated = admin.records.isolations.list()
    except SalverError as error:
        # `isolated` says what is wrong with the file; the rest of the state can still be told.
        log_event("isolation_unreadable", level=logging.ERROR, problem=str(error))
        isolated = ()
    return ServerStatus(
        serving=admin.processes is not None,
        deployments=admin.records.deployments.list(),
        endpoints=merge_endpoints(processes),
        processes=processes,
        isolated=isolated,
    )


STATUS: Final = Action("GET", "/v1/status", Operation.READ, "State", Nothing, ServerStatus, _status)
ACTIONS: Final = (STATUS,)
