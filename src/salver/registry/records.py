"""All records of one home: what the rooms of the registry keep in its database, behind one name each."""

from __future__ import annotations

from collections.abc import Mapping

from salver.clock import Clock
from salver.registry.access_tokens import AccessTokens
from salver.registry.approvals import Approvals
from salver.registry.audit import Audit
from salver.registry.breakage import Breakages
from salver.registry.candidacy import AskChecklist
from salver.registry.cases import Cases
from salver.registry.catalog import Catalog
from salver.registry.change_positions import ChangePositions
from salver.registry.deletions import Deletions
from salver.registry.deployments import Deployments
from salver.registry.descriptions import Descriptions
from salver.registry.dossier import Dossiers
from salver.registry.evidence import Evaluations
from salver.registry.holds import Holds
from salver.registry.impact import Impacts
from salver.registry.isolations import Isolations
from salver.registry.key_changes import KeyChanges
from salver.registry.keyring import Keyring
from salver.registry.lifecycle import Lifecycle
from salver.registry.lineage import Lineage
from salver.registry.offers import Offers
from salver.registry.pages import Pages
from salver.registry.policy import Policies
from salver.registry.retirements import Retirements
from salver.registry.retraining import Retrainings
from salver.registry.revocations import Revocations
from salver.registry.search import Search
from salver.registry.semantic import Embeddings
from salver.registry.usage import Usage
from salver.registry.webhooks import Webhooks
from salver.storage.database import Database
from salver.storage.home import Home

__all__ = ["Records"]


class Records:
    """The records in one database. Safe to use from several threads: the database serialises changes.

    `checklists` are what gates of that kind may ask, by name; those of `salver.cards.gate` stand in no room below.
    """

    def __init__(
        self, home: Home, database: Database, clock: Clock, checklists: Mapping[str, AskChecklist] | None = None
    ) -> None:
        pepper = home.pepper()
        self.home = home
        self.database = database
        self.clock = clock
        self.audit = Audit(home, database, clock)
        self.journal = self.audit.journal
        self.keyring = Keyring(home)
        self.key_changes = KeyChanges(database, self.journal, self.keyring)
        self.catalog = Catalog(database, self.journal, clock, self.keyring)
        self.deletions = Deletions(database, self.journal, clock)
        self.deployments = Deployments(database, self.journal, clock)
        self.descriptions = Descriptions(database, self.journal, clock)
        self.approvals = Approvals(database, self.journal, clock)
        self.cases = Cases(database, self.journal, clock)
        self.dossiers = Dossiers(home, database, clock)
        self.embeddings = Embeddings(database)
        self.evaluations = Evaluations(database, self.journal, clock)
        self.holds = Holds(database, self.journal, clock)
        self.lifecycle = Lifecycle(database, self.journal, clock, checklists)
        self.policies = Policies(database, self.journal)
        self.retirements = Retirements(database, self.journal, clock, self.lifecycle)
        self.retrainings = Retrainings(database, self.journal, clock)
        self.change_positions = ChangePositions(database, self.journal)
        self.impacts = Impacts(database)
        self.isolations = Isolations(home, database, self.journal)
        self.lineage = Lineage(database)
        self.offers = Offers(database)
        self.pages = Pages(database)
        self.breakages = Breakages(database, clock)
        self.search = Search(database, self.embeddings)
        self.revocations = Revocations(database, self.journal, clock)
        self.tokens = AccessTokens(database, self.journal, clock, pepper)
        self.usage = Usage(database)
        self.webhooks = Webhooks(database, self.journal, clock, pepper)
