from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.homes import SteppingClock, clock, database, home, journal, python

from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry
from salver.registry.access_tokens import AccessTokens
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.registry.keyring import Keyring
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import Journal

__all__ = ["clock", "database", "home", "journal", "python"]


@pytest.fixture
def catalog(database: Database, journal: Journal, clock: SteppingClock, home: Home) -> Catalog:
    return Catalog(database, journal, clock, Keyring(home))


@pytest.fixture
def deployments(database: Database, journal: Journal, clock: SteppingClock) -> Deployments:
    return Deployments(database, journal, clock)


@pytest.fixture
def tokens(database: Database, journal: Journal, clock: SteppingClock, home: Home) -> AccessTokens:
    return AccessTokens(database, journal, clock, home.pepper())


@pytest.fixture
def principal() -> Callable[[str], Principal]:
    return lambda role: Principal(f"a-{role}", Role(role), "default", PrincipalKind.TOKEN)


@pytest.fixture
def admin(principal: Callable[[str], Principal]) -> Principal:
    return principal("admin")


@pytest.fixture
def draft() -> Callable[..., VersionDraft]:
    """A draft of `digits` whose bytes are told apart by `content`."""

    def make(content: str = "a", **fields: Any) -> VersionDraft:
        signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
        given: dict[str, Any] = {
            "model": "digits",
            "format": "onnx",
            "files": (FileEntry("model.onnx", content * 64, 10),),
            "signature": signature,
        }
        return VersionDraft(**given | fields)

    return make
