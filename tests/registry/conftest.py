from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry
from salver.registry.access_tokens import AccessTokens
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import Journal


class SteppingClock:
    """A clock whose wall moves on by a quarter of a second with each look."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        self.now_s += 0.25
        return self.now_s


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    opened = Database.open(home.database_path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def journal(database: Database, clock: SteppingClock) -> Journal:
    return Journal(database, clock)


@pytest.fixture
def catalog(database: Database, journal: Journal, clock: SteppingClock) -> Catalog:
    return Catalog(database, journal, clock)


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


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python programs that talk over pipes; whatever still runs afterwards is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
