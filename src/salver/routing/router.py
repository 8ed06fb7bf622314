"""From an endpoint's name to the service that answers for it, by one pointer read.

The router sees only services. The table is replaced whole; a request that has resolved its
target keeps it, so an answer always names one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from salver.protocol.errors import SalverError
from salver.protocol.request import Service
from salver.protocol.tables import DeploymentSpec, VersionManifest

__all__ = ["Router", "Target"]


class Target(NamedTuple):
    """What an endpoint's Route leads to now: the version, its deployment, and who answers."""

    spec: DeploymentSpec
    manifest: VersionManifest
    service: Service
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What every answer of it says beside: that it is to be retired, and when."""


class Router:
    """The endpoints of this process and their current targets."""

    __slots__ = ("_failed", "_targets", "revision")

    def __init__(self) -> None:
        self._targets: Mapping[str, Target] = {}
        self._failed: Mapping[str, SalverError | None] = {}
        self.revision = 0
        """How often the table has been replaced."""

    def publish(self, targets: Mapping[str, Target], without: Mapping[str, SalverError | None]) -> None:
        """Replace the table. `without` names the endpoints that have no service, and why if known.

        A target that says what the one before it said is that one: who has prepared for it need not do so again.
        """
        before = self._targets
        self._targets = {
            name: before[name] if before.get(name) == target else target for name, target in targets.items()
        }
        self._failed = dict(without)
        self.revision += 1

    def resolve(self, endpoint: str, version: str | None = None) -> Target:
        """The target of `endpoint`; a `version` must be the one its Route leads to.

        A version is named in full or by its ordinal. Raises NOT_FOUND, or NOT_READY while the
        endpoint has no service yet.
        """
        target = self._targets.get(endpoint)
        if target is None:
            if endpoint in self._failed:
                raise SalverError("NOT_READY", f"endpoint {endpoint!r} is not ready", _reason(self._failed[endpoint]))
            raise SalverError("NOT_FOUND", f"there is no endpoint {endpoint[:140]!r}", self._known())
        if version is not None and version not in (target.manifest.version, str(target.manifest.ordinal)):
            raise SalverError(
                "NOT_FOUND",
                f"endpoint {endpoint!r} does not serve version {version[:64]!r}",
                f"its route leads to {target.manifest.version} (ordinal {target.manifest.ordinal})",
            )
        return target

    def targets(self) -> Iterable[tuple[str, Target]]:
        """All endpoints that have a service, by name."""
        return sorted(self._targets.items())

    def names(self) -> list[str]:
        """All endpoints, with a service or without."""
        return sorted({*self._targets, *self._failed})

    def _known(self) -> str:
        names = self.names()
        if not names:
            return "nothing is deployed"
        listed = ", ".join(names[:10])
        return f"there are {listed}" if len(names) <= 10 else f"there are {listed} and {len(names) - 10} more"


def _reason(error: SalverError | None) -> str:
    return f"its version failed to load: {error.code}" if error else "it is loading; try again shortly"
