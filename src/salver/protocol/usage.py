"""Who asked what: the counts that the processes that serve hand over to those that keep records."""

from __future__ import annotations

import msgspec

__all__ = ["ANYBODY", "Asking"]

ANYBODY = "anonymous"
"""Who asks without a token."""


class Asking(msgspec.Struct, frozen=True):
    """Requests of one client for one version through one endpoint, since they were last handed over."""

    model: str
    version: str
    endpoint: str
    client: str
    """The name of the principal."""
    requests: int
    last_s: float
    """When the last of them came, wall time; some seconds late."""
