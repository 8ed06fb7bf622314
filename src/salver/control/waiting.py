"""Waiting until a server has reached a desired state."""

from __future__ import annotations

import threading
from typing import Final

from salver.clock import Clock
from salver.control.administration import Administration
from salver.protocol.tables import DeploymentSpec
from salver.runtime.status import EndpointStatus, LoadState

__all__ = ["wait_until_reached"]

_LOOK_S: Final = 0.05


def wait_until_reached(
    admin: Administration, spec: DeploymentSpec, timeout_s: float, clock: Clock
) -> EndpointStatus | None:
    """Block until the endpoint serves `spec` or a later one, or has failed to; None after `timeout_s`."""
    until_s = clock.monotonic_s() + timeout_s
    pause = threading.Event()
    while True:
        for endpoint in admin.status().endpoints:
            reached = endpoint.endpoint == spec.endpoint and endpoint.generation >= spec.generation
            if reached and endpoint.state is not LoadState.LOADING:
                return endpoint
        if clock.monotonic_s() >= until_s:
            return None
        pause.wait(_LOOK_S)
