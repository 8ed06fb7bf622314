"""Dossiers made of rows that were really written, and ready ones made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tests.homes import SteppingClock, clock, database, home, journal

from salver.cards.gate import readiness_gates
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import FileEntry
from salver.registry.draft import VersionDraft
from salver.registry.lifecycle import PromotionRequest
from salver.registry.records import Records
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.testing import ManualClock

__all__ = ["SteppingClock", "clock", "database", "home", "journal"]

SAID = {
    "description": "reads digits",
    "owner": "vision",
    "licence": "Apache-2.0",
    "intended_use": "post codes",
    "training_data": {"name": "scans", "digest": "ab" * 32, "rows": 1000},
}


class Desk:
    """The records of one home with the checklists wired as an administration wires them."""

    def __init__(self, home: Home, database: Database) -> None:
        self.home = home
        self.clock = ManualClock()
        self.records = Records(home, database, self.clock, readiness_gates(home, self.clock))
        self.admin = Principal("ann", Role.ADMIN, "default", PrincipalKind.TOKEN)
        self.bob = Principal("bob", Role.APPROVER, "default", PrincipalKind.TOKEN)

    def register(self, content: str = "a", **fields: Any) -> str:
        labels = tuple(map(str, range(2)))
        signature = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2), labels=labels),))
        profile = Profile((InputProfile("x", 1000, (FeatureProfile(0, 1, 0.5, 0.1, 0),) * 2),))
        given: dict[str, Any] = {
            "model": "digits",
            "format": "onnx",
            "files": (FileEntry("model.onnx", content * 64 if len(content) == 1 else content, 10),),
            "signature": signature,
            "profile": profile,
        }
        return self.records.catalog.add_version(self.admin, VersionDraft(**given | fields)).manifest.version

    def stored(self, content: bytes) -> str:
        """Put a file into the store of the home and return its digest."""
        path = self.home.path / "artifact"
        path.write_bytes(content)
        return open_blobs(self.home).put_file(path).sha256

    def bring(self, version: str, *stages: Stage) -> None:
        for stage in stages:
            self.clock.advance(1.0)
            done = self.records.lifecycle.promote(self.admin, PromotionRequest("digits", version, stage, "a test"))
            assert done.moved

    def describe(self, version: str, **changes: Any) -> None:
        self.records.descriptions.describe(self.admin, "digits", version, changes)

    def record(self, version: str, suite: str, verdict: str = "successful", **more: Any) -> str:
        digest = {each.version: each.digest for each in self.records.catalog.versions("digits")}[version]
        document = {"suite": suite, "verdict": verdict, "digest": digest, **more}
        self.clock.advance(1.0)
        return self.records.evaluations.record(self.admin, "digits", version, document).evaluation.id

    def ready(self, content: str = "a", **fields: Any) -> str:
        """A version about which everything required is known."""
        version = self.register(content, **fields)
        self.describe(version, **SAID)
        self.record(version, "release", data_digest="cd" * 32, data_rows=500)
        self.record(version, "operational", numbers={"cold_start_s": 1.5, "p99_s": 0.01, "memory_bytes": 5e7})
        return version

    def dossier(self, version: str):
        return self.records.dossiers.of("digits", version)


@pytest.fixture
def desk(home: Home, database: Database) -> Desk:
    return Desk(home, database)
