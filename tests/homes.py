"""Fixtures of the rooms that work on a home: the home, its database and journal, a clock, and other processes on it."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.preparation import TABLES

__all__ = ["Python", "SteppingClock", "clock", "database", "home", "journal", "kept_bytes", "python"]


class SteppingClock:
    """A clock whose wall moves on by a quarter of a second with each look; it starts at a round number."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        self.now_s += 0.25
        return self.now_s


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A new home, whose database is a file in it; with `--database postgresql` one on a server, for children too."""
    if request.config.getoption("--database") == "postgresql":
        monkeypatch.setenv("SALVER_STORAGE_DATABASE", request.getfixturevalue("postgres_url"))
    return Home.open(tmp_path / "home")


@functools.cache
def _new_database() -> bytes:
    """A database as `open_database` makes it, which takes longer than most tests."""
    with tempfile.TemporaryDirectory() as directory:
        made = Home.open(Path(directory) / "home")
        open_database(made).close()
        return made.database_path.read_bytes()


@pytest.fixture
def database(home: Home, request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.config.getoption("--database") == "sqlite" and not home.database_path.exists():
        home.database_path.touch(0o600)
        home.database_path.write_bytes(_new_database())
    opened = open_database(home)
    yield opened
    opened.close()


def kept_bytes(home: Home, database: Database) -> list[bytes]:
    """All that a home keeps: its files, and the rows of a database that is elsewhere."""
    kept = [path.read_bytes() for path in home.path.rglob("*") if path.is_file()]
    if database.shared:
        with database.read() as connection:
            kept += [repr(connection.execute(select(table)).all()).encode() for table in TABLES.sorted_tables]
    return kept


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def journal(database: Database, clock: SteppingClock) -> Journal:
    return Journal(database, clock)


Python = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def python() -> Iterator[Python]:
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
