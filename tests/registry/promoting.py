"""A registry to promote versions in: principals, a policy, evidence and a clock that stands still."""

from __future__ import annotations

from typing import Any

from salver.protocol.stages import Stage
from salver.registry.draft import VersionDraft
from salver.registry.lifecycle import Promotion, PromotionRequest
from salver.registry.records import Records
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import Database
from salver.storage.home import Home
from salver.testing import ManualClock

__all__ = ["DAY_S", "Promoting", "person"]

DAY_S = 86_400.0


def person(name: str, role: str = "admin") -> Principal:
    return Principal(name, Role(role), "default", PrincipalKind.TOKEN)


class Promoting:
    """The records of one home and short words for what tests do with them; `ann` is the author of everything."""

    def __init__(self, home: Home, database: Database) -> None:
        self.clock = ManualClock()
        self.records = Records(home, database, self.clock)
        self.lifecycle = self.records.lifecycle
        self.ann = person("ann", "operator")
        self.root = person("root")

    def register(self, draft: VersionDraft) -> str:
        return self.records.catalog.add_version(self.ann, draft).manifest.version

    def policy(self, text: str) -> None:
        self.records.policies.set(self.root, text)

    def promote(self, version: str, target: str, by: Principal | None = None, **given: Any) -> Promotion:
        return self.lifecycle.promote(by or self.ann, PromotionRequest("digits", version, Stage(target), **given))

    def bring(self, version: str, *targets: str) -> Promotion:
        """Bring a version through several stages, each of which must be reached."""
        for target in targets:
            done = self.promote(version, target, why="a test")
            assert done.moved, done.decision
            self.clock.advance(1.0)
        return done

    def evaluate(self, version: str, verdict: str = "successful", by: Principal | None = None, **more: Any) -> str:
        digest = {each.version: each.digest for each in self.records.catalog.versions("digits")}[version]
        document = {"suite": "release", "verdict": verdict, "digest": digest} | more
        self.clock.advance(1.0)
        return self.records.evaluations.record(by or self.ann, "digits", version, document).evaluation.id

    def stages(self) -> dict[str, str]:
        return {each.version: each.stage.value for each in self.lifecycle.stages("digits")}

    def actions(self) -> list[str]:
        return [record.action for record in self.records.journal.records(1000)]
