"""What an administrator may have done, and its carrying out on a home held by this process."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from salver.cards.gate import readiness_gates
from salver.clock import Clock
from salver.control.job_desk import JobDesk
from salver.control.meanings import Embed, Meanings
from salver.control.seed import draft_of
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits
from salver.protocol.tables import DeploymentSpec, FileEntry, Tables, VersionManifest
from salver.registry.access_tokens import ensure_admin_token
from salver.registry.catalog import ModelSummary
from salver.registry.compatibility import Change
from salver.registry.draft import VersionDraft
from salver.registry.files import check_files
from salver.registry.isolations import IsolatedVersion
from salver.registry.records import Records
from salver.registry.settings import unheeded_under
from salver.runtime.status import EndpointStatus, ProcessStatus, merge_endpoints
from salver.security.access import Operation, Principal, require
from salver.security.model_signing import require_manifest
from salver.storage.blob_store import Blobs
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.publication import publish, read_tables
from salver.storage.usage_spool import UsageSpool
from salver.telemetry.logs import log_event

if TYPE_CHECKING:
    from salver.control.action import Action

__all__ = [
    "Administration",
    "DeployRequest",
    "LocalAdministration",
    "Registered",
    "ServerStatus",
    "check_stored",
]

_JOB_LIMITS: Final = JobLimits()
_FIRST_TOKEN: Final = 1
"""The revision of a database in which nothing has happened but the first administrator's token."""


class Registered(msgspec.Struct, frozen=True):
    """The answer to a registration; `created` is false when the very same version was there."""

    manifest: VersionManifest
    created: bool
    against: str = ""
    """The release that the version was compared with for its number; empty where there was none."""
    changes: tuple[Change, ...] = ()
    """What differs from that one."""


class DeployRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to deploy.

    Without `version` the highest release; without `endpoint` one named like the model. Of
    `settings` (the fields of `DeploymentSpec`) those not given stay as they are when the
    endpoint exists already, else take their defaults. So do those that a policy which is given does not heed.
    """

    model: str
    version: str | None = None
    endpoint: str | None = None
    settings: dict[str, Any] = {}


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


Asked = TypeVar("Asked", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class Administration(Protocol):
    """What an administrator can do. Everything raises `SalverError`."""

    def do(self, action: Action[Asked, Answer], asked: Asked) -> Answer:
        """Have one of `salver.control.actions` done."""

    def register(self, draft: VersionDraft) -> Registered:
        """Add a version whose blobs are stored; NOT_FOUND or CORRUPT_ARTIFACT names a file whose blob is not."""

    def models(self) -> tuple[ModelSummary, ...]:
        """All models."""

    def versions(self, model: str) -> tuple[VersionManifest, ...]:
        """All versions of a model, oldest first."""

    def deploy(self, request: DeployRequest) -> DeploymentSpec:
        """Change the desired state of an endpoint."""

    def undeploy(self, endpoint: str, if_generation: int | None = None) -> DeploymentSpec:
        """Remove an endpoint; returns what it was. With `if_generation` only if it is still that deployment."""

    def status(self) -> ServerStatus:
        """Desired and actual state."""


class LocalAdministration:
    """Carries actions out on `home` as `principal` and publishes what they change.

    REQUIRES the home lock, or to be the one controller below its holder. Safe to use from
    several threads: the database serialises changes, and publications are made one at a time.
    `processes` tells what each server process does, and `embed` asks them for vectors of texts, where there are any.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        principal: Principal,
        clock: Clock,
        *,
        processes: Callable[[], tuple[ProcessStatus, ...]] | None = None,
        job_limits: JobLimits = _JOB_LIMITS,
        embed: Embed | None = None,
    ) -> None:
        self.home = home
        self.principal = principal
        self.records = Records(home, database, clock, readiness_gates(clock))
        self.meanings = Meanings(self.records.embeddings, embed, clock)
        self._processes = processes
        self._publishing = threading.Lock()
        self.job_desk = JobDesk(home, job_limits, clock)

    def as_principal(self, principal: Principal) -> LocalAdministration:
        """The same for somebody else."""
        theirs = copy.copy(self)
        theirs.principal = principal
        return theirs

    def do(self, action: Action[Asked, Answer], asked: Asked) -> Answer:
        """See `Administration`."""
        require(self.principal, action.operation)
        return action.act(self, asked)

    def begin(self) -> None:
        """Bring a home into order at start: the first administrator's token, and the published snapshot."""
        self.home.discard_temporaries()
        ensure_admin_token(self.home, self.records.tokens, self.principal)
        try:
            published = read_tables(self.home)
        except SalverError:
            published = None
        if published is not None:
            if (
                published.deployments
                and self.records.deployments.revision() <= _FIRST_TOKEN
                and not self.records.catalog.models()
            ):
                self._adopt(published)
            self.records.catalog.sign_from_before(self.principal)
            self.records.deployments.catch_up(self.principal, published)
        self.records.search.catch_up()
        self.keep_usage()
        self.records.audit.copy_heads()
        self.publish()

    def _adopt(self, published: Tables) -> None:
        """Take a snapshot as desired state: the database is new, a seed's or in place of a lost one.

        REFUSED_BY_POLICY for versions in it that are not signed as they are, unless the home is from before there
        were signatures: then it has no keys.
        """
        keyring = self.records.keyring
        for manifest in published.versions:
            if manifest.attestation or keyring.has_keys:
                require_manifest(manifest, keyring.trusted())
        for manifest in published.versions:
            self.records.catalog.add_version(self.principal, draft_of(manifest), as_it_is=True)
        for spec in published.deployments:
            self.records.deployments.deploy(self.principal, spec)

    def keep_usage(self) -> int:
        """Take into the database what the processes that serve have counted since; returns how many files."""
        return UsageSpool(self.home.usage_path).drain(self.records.usage.add)

    def publish(self) -> None:
        """Publish what the data path needs to know, if it is newer than what it knows."""
        with self._publishing:
            publish(self.home, self.records.deployments.tables())

    def register(self, draft: VersionDraft) -> Registered:
        """See `Administration`."""
        require(self.principal, Operation.REGISTER)
        check_files(draft.files)
        blobs = open_blobs(self.home)
        check_stored(blobs, draft.files)
        # Again where nobody can remove them any more: see `salver.registry.collection`.
        added = self.records.catalog.add_version(self.principal, draft, look=lambda: check_stored(blobs, draft.files))
        return Registered(added.manifest, added.created, added.numbered.against, added.numbered.changes)

    def models(self) -> tuple[ModelSummary, ...]:
        """See `Administration`."""
        require(self.principal, Operation.READ)
        return self.records.catalog.models()

    def versions(self, model: str) -> tuple[VersionManifest, ...]:
        """See `Administration`."""
        require(self.principal, Operation.READ)
        return self.records.catalog.versions(model)

    def deploy(self, request: DeployRequest) -> DeploymentSpec:
        """See `Administration`."""
        require(self.principal, Operation.DEPLOY)
        manifest = self.records.pages.manifest(request.model, request.version)
        endpoint = request.endpoint or request.model
        current = self._current_settings(endpoint, request.model)
        if "policy" in request.settings:
            for name in unheeded_under(request.settings["policy"]):
                current.pop(name, None)
        fields = current | request.settings
        if isinstance(request.settings.get("runtime"), dict):
            fields["runtime"] = current.get("runtime", {}) | request.settings["runtime"]
        fields |= {"endpoint": endpoint, "model": manifest.model, "version": manifest.version}
        try:
            spec = msgspec.convert(fields, DeploymentSpec)
        except msgspec.ValidationError as error:
            raise SalverError("INVALID_SETTING", f"the deployment is wrong: {error}") from None
        spec = self.records.deployments.deploy(self.principal, spec)
        self.publish()
        return spec

    def _current_settings(self, endpoint: str, model: str) -> dict[str, Any]:
        try:
            current = self.records.deployments.get(endpoint)
        except SalverError as error:
            if error.code != "NOT_FOUND":
                raise
            return {}
        fields: dict[str, Any] = msgspec.to_builtins(current) if current.model == model else {}
        return fields

    def undeploy(self, endpoint: str, if_generation: int | None = None) -> DeploymentSpec:
        """See `Administration`."""
        spec = self.records.deployments.undeploy(self.principal, endpoint, if_generation)
        self.publish()
        return spec

    def status(self) -> ServerStatus:
        """See `Administration`."""
        require(self.principal, Operation.READ)
        processes = self._processes() if self._processes else ()
        try:
            isolated = self.records.isolations.list()
        except SalverError as error:
            # `isolated` says what is wrong with the file; the rest of the state can still be told.
            log_event("isolation_unreadable", level=logging.ERROR, problem=str(error))
            isolated = ()
        return ServerStatus(
            serving=self._processes is not None,
            deployments=self.records.deployments.list(),
            endpoints=merge_endpoints(processes),
            processes=processes,
            isolated=isolated,
        )

    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """What the endpoints do in all server processes together; nothing while none answers. Blocks."""
        require(self.principal, Operation.READ)
        return merge_endpoints(self._processes()) if self._processes else ()


def check_stored(blobs: Blobs, files: Iterable[FileEntry]) -> None:
    """Raise unless each file's blob is there in its size; what is in it is looked at when it is loaded."""
    for file in files:
        size_bytes = blobs.size_bytes(file.sha256)
        if size_bytes is None:
            raise SalverError(
                "NOT_FOUND",
                f"file {file.path[:200]!r} has the digest {file.sha256}, which is not in the store",
                "store the bytes first: `salver register` does both",
            )
        if size_bytes != file.size_bytes:
            raise SalverError(
                "CORRUPT_ARTIFACT",
                f"file {file.path[:200]!r} is said to have {file.size_bytes} bytes; {size_bytes} are stored",
                "register the same file again",
            )
