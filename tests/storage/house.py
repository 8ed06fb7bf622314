"""A home in use, for tests of backups."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from salver.clock import SYSTEM_CLOCK
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry
from salver.registry.access_tokens import AccessTokens, ensure_admin_token
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.registry.keyring import Keyring
from salver.security.access import local_principal
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.opening import open_blobs
from salver.storage.publication import publish, read_tables

__all__ = ["ME", "House", "house", "state_of"]

ME = local_principal()


class House:
    """A home in use: what an administration does to it."""

    def __init__(self, path: Path) -> None:
        self.home = Home.open(path)
        self.database = open_database(self.home)
        self.journal = Journal(self.database, SYSTEM_CLOCK)
        keyring = Keyring(self.home)
        self.catalog = Catalog(self.database, self.journal, SYSTEM_CLOCK, keyring)
        self.deployments = Deployments(self.database, self.journal, SYSTEM_CLOCK)
        self.tokens = AccessTokens(self.database, self.journal, SYSTEM_CLOCK, self.home.pepper())
        self.publishing = threading.Lock()
        ensure_admin_token(self.home, self.tokens, ME)

    def register(self, model: str, content: bytes) -> str:
        source = self.home.path.parent / f"{model}.{threading.get_ident()}"
        source.write_bytes(content)
        blob = open_blobs(self.home).put_file(source)
        source.unlink()
        signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
        files = (FileEntry("model.onnx", blob.sha256, blob.size_bytes),)
        return self.catalog.add_version(ME, VersionDraft(model, "onnx", files, signature)).manifest.reference

    def deploy(self, reference: str) -> None:
        model, _, version = reference.partition("@")
        self.deployments.deploy(ME, DeploymentSpec(model, model, version))
        with self.publishing:
            publish(self.home, self.deployments.tables())

    def state(self) -> dict[str, Any]:
        """All that must come back, read from where it is kept."""
        manifests = [m for summary in self.catalog.models() for m in self.catalog.versions(summary.name)]
        blobs = open_blobs(self.home)
        return {
            "versions": manifests,
            "bytes": {f.sha256: blobs.read_verified(f.sha256) for m in manifests for f in m.files},
            "deployments": self.deployments.list(),
            "tokens": self.tokens.list(),
            "journal": self.journal.records(10_000),
            "revision": self.deployments.revision(),
            "tables": read_tables(self.home),
            "pepper": self.home.pepper(),
            "admin": self.home.admin_token_path.read_text(),
        }

    def close(self) -> None:
        self.database.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "home")
    for number in range(3):
        made.deploy(made.register("digits", b"weights %d" % number * 1000))
    made.register("iris", b"weights 1" * 1000)
    yield made
    made.close()


def state_of(path: Path) -> dict[str, Any]:
    house = House(path)
    try:
        assert house.journal.verify().ok
        return house.state()
    finally:
        house.close()
