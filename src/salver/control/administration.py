"""The actions of an administrator, and their carrying out on a home held by this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from salver.clock import Clock
from salver.control.job_desk import JobDesk
from salver.control.seed import draft_of
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits, JobPage, JobView
from salver.protocol.tables import DeploymentSpec, FileEntry, Tables, TokenRecord, VersionManifest
from salver.registry.access_tokens import AccessTokens, ensure_admin_token
from salver.registry.catalog import Catalog, ModelSummary
from salver.registry.compatibility import Change
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.registry.files import check_files
from salver.registry.isolations import IsolatedVersion, Isolations
from salver.registry.settings import unheeded_under
from salver.registry.webhooks import MintedWebhook, WebhookRecord, WebhookRequest, Webhooks
from salver.runtime.status import EndpointStatus, ProcessStatus, merge_endpoints
from salver.security.access import DEFAULT_TENANT, Operation, Principal, require
from salver.security.tokens import MintedToken
from salver.storage.blobs import BlobStore
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal, JournalRecord
from salver.storage.publication import publish, read_tables
from salver.telemetry.logs import log_event

__all__ = [
    "Administration",
    "DeployRequest",
    "LocalAdministration",
    "Registered",
    "ServerStatus",
    "TokenRequest",
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


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to be."""

    name: str
    role: str
    tenant: str = DEFAULT_TENANT
    expires_in_s: float | None = None
    """Seconds from now; None for a token that does not expire."""


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


class Administration(Protocol):
    """What an administrator can do. Everything raises `SalverError`."""

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

    def isolated(self) -> tuple[IsolatedVersion, ...]:
        """Versions that crashed or hung a server process once."""

    def end_isolation(self, reference: str) -> IsolatedVersion:
        """Let `auto` decide about NAME@VERSION again, from its next load on; returns what it was."""

    def create_token(self, request: TokenRequest) -> MintedToken:
        """Make a token."""

    def tokens(self) -> tuple[TokenRecord, ...]:
        """All tokens, without their secrets."""

    def revoke_token(self, token_id: str) -> TokenRecord:
        """Make a token worthless."""

    def jobs(self, endpoint: str | None, state: str | None, limit: int, after: str | None) -> JobPage:
        """Everybody's jobs, newest first."""

    def job(self, job_id: str) -> JobView:
        """One job."""

    def cancel_job(self, job_id: str) -> JobView:
        """End a job that has not ended; returns what it is now."""

    def webhooks(self) -> tuple[WebhookRecord, ...]:
        """All webhooks, without their secrets."""

    def create_webhook(self, request: WebhookRequest) -> MintedWebhook:
        """Add a place that may be told of jobs."""

    def remove_webhook(self, name: str) -> WebhookRecord:
        """Remove a webhook; returns what it was."""

    def audit(self, limit: int, after: int) -> tuple[JournalRecord, ...]:
        """Records of the journal."""

    def verify_audit(self) -> ChainCheck:
        """Check the journal's chain."""


class LocalAdministration:
    """Carries actions out on `home` as `principal` and publishes what they change.

    REQUIRES the home lock, or to be the one controller below its holder. Safe to use from
    several threads: the database serialises changes, and publications are made one at a time.
    `processes` tells what each server process does, where there are any.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        principal: Principal,
        clock: Clock,
        *,
        processes: Callable[[], tuple[ProcessStatus, ...]] | None = None,
        publishing: threading.Lock | None = None,
        job_limits: JobLimits = _JOB_LIMITS,
    ) -> None:
        journal = Journal(database, clock)
        self._home = home
        self._database = database
        self._clock = clock
        self._principal = principal
        self._journal = journal
        self._processes = processes
        self._publishing = publishing or threading.Lock()
        self._catalog = Catalog(database, journal, clock)
        self._deployments = Deployments(database, journal, clock)
        self._isolations = Isolations(home, database, journal)
        self._tokens = AccessTokens(database, journal, clock, home.pepper())
        self._webhooks = Webhooks(database, journal, clock, home.pepper())
        self._job_limits = job_limits
        self._job_desk = JobDesk(home, job_limits, clock)

    def as_principal(self, principal: Principal) -> LocalAdministration:
        """The same for somebody else."""
        return LocalAdministration(
            self._home,
            self._database,
            principal,
            self._clock,
            processes=self._processes,
            publishing=self._publishing,
            job_limits=self._job_limits,
        )

    def begin(self) -> None:
        """Bring a home into order at start: the first administrator's token, and the published snapshot."""
        ensure_admin_token(self._home, self._tokens, self._principal)
        try:
            published = read_tables(self._home)
        except SalverError:
            published = None
        if published is not None:
            if published.deployments and self._deployments.revision() <= _FIRST_TOKEN and not self._catalog.models():
                self._adopt(published)
            self._deployments.catch_up(self._principal, published)
        self._publish()

    def _adopt(self, published: Tables) -> None:
        """Take a snapshot as desired state: the database is new, a seed's or in place of a lost one."""
        for manifest in published.versions:
            self._catalog.add_version(self._principal, draft_of(manifest), as_it_is=True)
        for spec in published.deployments:
            self._deployments.deploy(self._principal, spec)

    def _publish(self) -> None:
        with self._publishing:
            publish(self._home, self._deployments.tables())

    def register(self, draft: VersionDraft) -> Registered:
        """See `Administration`."""
        require(self._principal, Operation.REGISTER)
        check_files(draft.files)
        _check_stored(BlobStore(self._home.blobs_path), draft.files)
        added = self._catalog.add_version(self._principal, draft)
        return Registered(added.manifest, added.created, added.numbered.against, added.numbered.changes)

    def models(self) -> tuple[ModelSummary, ...]:
        """See `Administration`."""
        require(self._principal, Operation.READ)
        return self._catalog.models()

    def versions(self, model: str) -> tuple[VersionManifest, ...]:
        """See `Administration`."""
        require(self._principal, Operation.READ)
        return self._catalog.versions(model)

    def deploy(self, request: DeployRequest) -> DeploymentSpec:
        """See `Administration`."""
        require(self._principal, Operation.DEPLOY)
        manifest = self._catalog.get(request.model, request.version)
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
        spec = self._deployments.deploy(self._principal, spec)
        self._publish()
        return spec

    def _current_settings(self, endpoint: str, model: str) -> dict[str, Any]:
        try:
            current = self._deployments.get(endpoint)
        except SalverError as error:
            if error.code != "NOT_FOUND":
                raise
            return {}
        fields: dict[str, Any] = msgspec.to_builtins(current) if current.model == model else {}
        return fields

    def undeploy(self, endpoint: str, if_generation: int | None = None) -> DeploymentSpec:
        """See `Administration`."""
        spec = self._deployments.undeploy(self._principal, endpoint, if_generation)
        self._publish()
        return spec

    def status(self) -> ServerStatus:
        """See `Administration`."""
        require(self._principal, Operation.READ)
        processes = self._processes() if self._processes else ()
        try:
            isolated = self._isolations.list()
        except SalverError as error:
            # `isolated` says what is wrong with the file; the rest of the state can still be told.
            log_event("isolation_unreadable", level=logging.ERROR, problem=str(error))
            isolated = ()
        return ServerStatus(
            serving=self._processes is not None,
            deployments=self._deployments.list(),
            endpoints=merge_endpoints(processes),
            processes=processes,
            isolated=isolated,
        )

    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """What the endpoints do in all server processes together; nothing while none answers. Blocks."""
        require(self._principal, Operation.READ)
        return merge_endpoints(self._processes()) if self._processes else ()

    def isolated(self) -> tuple[IsolatedVersion, ...]:
        """See `Administration`."""
        require(self._principal, Operation.READ)
        return self._isolations.list()

    def end_isolation(self, reference: str) -> IsolatedVersion:
        """See `Administration`."""
        return self._isolations.end(self._principal, reference)

    def create_token(self, request: TokenRequest) -> MintedToken:
        """See `Administration`."""
        minted = self._tokens.create(self._principal, request.name, request.role, request.tenant, request.expires_in_s)
        self._publish()
        return minted

    def tokens(self) -> tuple[TokenRecord, ...]:
        """See `Administration`."""
        require(self._principal, Operation.READ_TOKENS)
        return self._tokens.list()

    def revoke_token(self, token_id: str) -> TokenRecord:
        """See `Administration`."""
        record = self._tokens.revoke(self._principal, token_id)
        self._publish()
        return record

    def jobs(self, endpoint: str | None, state: str | None, limit: int, after: str | None) -> JobPage:
        """See `Administration`."""
        require(self._principal, Operation.OPERATE)
        return self._job_desk.page(endpoint, state, limit, after)

    def job(self, job_id: str) -> JobView:
        """See `Administration`."""
        require(self._principal, Operation.OPERATE)
        return self._job_desk.show(job_id)

    def cancel_job(self, job_id: str) -> JobView:
        """See `Administration`."""
        require(self._principal, Operation.OPERATE)
        return self._job_desk.cancel(job_id)

    def webhooks(self) -> tuple[WebhookRecord, ...]:
        """See `Administration`."""
        require(self._principal, Operation.OPERATE)
        return self._webhooks.list()

    def create_webhook(self, request: WebhookRequest) -> MintedWebhook:
        """See `Administration`."""
        minted = self._webhooks.create(self._principal, request)
        self._publish()
        return minted

    def remove_webhook(self, name: str) -> WebhookRecord:
        """See `Administration`."""
        record = self._webhooks.remove(self._principal, name)
        self._publish()
        return record

    def audit(self, limit: int, after: int) -> tuple[JournalRecord, ...]:
        """See `Administration`."""
        require(self._principal, Operation.READ_AUDIT)
        return self._journal.records(limit, after)

    def verify_audit(self) -> ChainCheck:
        """See `Administration`."""
        require(self._principal, Operation.READ_AUDIT)
        return self._journal.verify()


def _check_stored(blobs: BlobStore, files: Iterable[FileEntry]) -> None:
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
