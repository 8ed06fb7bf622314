"""All records of one home: what the rooms of the registry keep in its database, behind one name each."""

from __future__ import annotations

from salver.clock import Clock
from salver.registry.access_tokens import AccessTokens
from salver.registry.approvals import Approvals
from salver.registry.audit import Audit
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.descriptions import Descriptions
from salver.registry.evidence import Evaluations
from salver.registry.holds import Holds
from salver.registry.isolations import Isolations
from salver.registry.keyring import Keyring
from salver.registry.lifecycle import Lifecycle
from salver.registry.pages import Pages
from salver.registry.policy import Policies
from salver.registry.retirements import Retirements
from salver.registry.revocations import Revocations
from salver.registry.usage import Usage
from salver.registry.webhooks import Webhooks
from salver.storage.database import Database
from salver.storage.home import Home

__all__ = ["Records"]


class Records:
    """The records in one database. Safe to use from several threads: the database serialises changes."""

    def __init__(self, home: Home, database: Database, clock: Clock) -> None:
        pepper = home.pepper()
        self.home = home
        self.database = database
        self.clock = clock
        self.audit = Audit(home, database, clock)
        self.journal = self.audit.journal
        self.keyring = Keyring(home)
        self.catalog = Catalog(database, self.journal, clock, self.keyring)
        self.deployments = Deployments(database, self.journal, clock)
        self.descriptions = Descriptions(database, self.journal, clock)
        self.approvals = Approvals(database, self.journal, clock)
        self.evaluations = Evaluations(database, self.journal, clock)
        self.holds = Holds(database, self.journal, clock)
        self.lifecycle = Lifecycle(database, self.journal, clock)
        self.policies = Policies(database, self.journal)
        self.retirements = Retirements(database, self.journal, clock, self.lifecycle)
        self.isolations = Isolations(home, database, self.journal)
        self.pages = Pages(database)
        self.revocations = Revocations(database, self.journal, clock)
        self.tokens = AccessTokens(database, self.journal, clock, pepper)
        self.usage = Usage(database)
        self.webhooks = Webhooks(database, self.journal, clock, pepper)
