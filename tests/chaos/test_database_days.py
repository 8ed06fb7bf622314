"""A running server whose database is locked, gone, damaged or cut: `make test-chaos`.

Predictions never stop, changes are refused with 503 and a word about why, and when the database is sound again
changes go on without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chaos.ledger import Ledger
from tests.chaos.test_drills import FACTORS, MODEL
from tests.checks.home_checks import run, sound
from tests.conftest import Tree

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextlib.contextmanager
def removed(database: Path) -> Iterator[None]:
    away = database.with_name("away")
    database.rename(away)
    try:
        yield
    finally:
        assert not database.exists(), "nobody made another one"
        away.rename(database)


@contextlib.contextmanager
def overwritten(database: Path) -> Iterator[None]:
    kept = database.read_bytes()
    with database.open("r+b") as file:
        file.write(b"garbage!" * (len(kept) // 8))
    try:
        yield
    finally:
        with database.open("r+b") as file:
            file.write(kept)


@contextlib.contextmanager
def cut(database: Path) -> Iterator[None]:
    kept = database.read_bytes()
    with database.open("r+b") as file:
        file.truncate(100)
    try:
        yield
    finally:
        with database.open("r+b") as file:
            file.write(kept)


DAYS: dict[str, tuple[Callable[[Path], contextlib.AbstractContextManager[None]], str]] = {
    "locked by another process": (locked, "another writer has held the database for 10 s"),
    "removed": (removed, "removed or replaced"),
    "overwritten with garbage": (overwritten, "damaged"),
    "cut to 100 bytes": (cut, "damaged"),
}


def test_serving_goes_on_and_changes_answer_503_until_the_database_is_sound(tree: Tree, tmp_path, capsys) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.py").write_text(MODEL.replace("FACTOR", str(FACTORS["1.0.0"])))
    tree.salver("register", "linear", model, "--version", "1.0.0")
    tree.salver("deploy", "linear")
    tree.start()
    told = []

    def change(name: str) -> tuple[int, str | None, str]:
        answer = tree.administer("POST", "/v1/tokens", {"name": name, "role": "predictor"})
        return answer.status, answer.headers.get("retry-after"), answer.json.get("message", "")

    async def act() -> Ledger:
        async with Ledger(tree.http, FACTORS, rate_per_s=50, connections=4) as ledger:
            for number, (name, (bad_day, says)) in enumerate(DAYS.items()):
                await ledger.at_least(20)
                # What is not in the database file yet goes there first, so that its bytes are all there is.
                with contextlib.closing(sqlite3.connect(tree.home / "salver.db")) as other:
                    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                began_s = time.monotonic()
                with bad_day(tree.home / "salver.db"):
                    status, after, message = await asyncio.to_thread(change, f"bad-{number}")
                    took_s = time.monotonic() - began_s
                    assert (status, says in message) == (503, True), message
                    assert after is not None
                    await ledger.at_least(20)
                good = await asyncio.to_thread(change, f"good-{number}")
                assert good[0] == 200, (name, good)
                told.append(f"{name}: {status} after {took_s:.1f} s ({message})")
        return ledger

    ledger = asyncio.run(act())
    assert ledger.wrong == []
    assert set(ledger.outcomes) == {"right"}
    assert not tree.events("fault")
    assert not tree.events("child_died")
    assert tree.stop() == 0
    tree.until(tree.is_gone, "all have ended", 5)
    names = {each["name"] for each in run(tree.home, "token", "list")}
    assert names >= {f"good-{number}" for number in range(len(DAYS))}
    assert not any(name.startswith("bad") for name in names)
    sound(tree.home)
    with capsys.disabled():
        print("\n" + "\n".join(told) + f"\npredictions meanwhile: {dict(ledger.outcomes)}")
