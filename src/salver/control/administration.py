"""Whoever has actions done, and their carrying out on a home held by this process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from salver.cards.gate import readiness_gates
from salver.clock import Clock
from salver.control.job_desk import JobDesk
from salver.control.meanings import Embed, Meanings
from salver.control.places import Places
from salver.control.seed import draft_of
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits
from salver.protocol.tables import Tables
from salver.registry.access_tokens import ensure_admin_token
from salver.registry.records import Records
from salver.runtime.status import EndpointStatus, ProcessStatus, merge_endpoints
from salver.security.access import Operation, Principal, require
from salver.security.model_signing import require_manifest
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.publication import publish, read_tables
from salver.storage.usage_spool import UsageSpool

if TYPE_CHECKING:
    from salver.control.action import Action

__all__ = ["Administration", "LocalAdministration"]

_JOB_LIMITS: Final = JobLimits()
_EXAMINED_AT_ONCE: Final = 2
"""Artifacts that came over the network; each is copied, and taken apart by a process of its own."""
_FIRST_TOKEN: Final = 1
"""The revision of a database in which nothing has happened but the first administrator's token."""

Asked = TypeVar("Asked", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class Administration(Protocol):
    """Has done what an administrator can ask for."""

    def do(self, action: Action[Asked, Answer], asked: Asked) -> Answer:
        """Have one of `salver.control.actions` done; everything raises `SalverError`."""


class LocalAdministration:
    """Carries actions out on `home` as `principal` and publishes what they change.

    REQUIRES the home lock, or to be the one controller below its holder. Safe to use from
    several threads: the database serialises changes, and publications are made one at a time.
    Where it is `on_this_machine`, the owner of the home asks, and what a draft says of its files is taken as true.
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
        self.on_this_machine = True
        self.processes = processes
        self.records = Records(home, database, clock, readiness_gates(home, clock))
        self.meanings = Meanings(self.records.embeddings, embed, clock)
        self._publishing = threading.Lock()
        self.job_desk = JobDesk(home, job_limits, clock)
        self.examinations = Places("examinations of artifacts", _EXAMINED_AT_ONCE)

    def on_behalf_of(self, principal: Principal, *, on_this_machine: bool) -> LocalAdministration:
        """The same for somebody else, who asks as the owner of the home or from elsewhere."""
        theirs = copy.copy(self)
        theirs.principal, theirs.on_this_machine = principal, on_this_machine
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

    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """What the endpoints do in all server processes together; nothing while none answers. Blocks."""
        require(self.principal, Operation.READ)
        return merge_endpoints(self.processes()) if self.processes else ()
