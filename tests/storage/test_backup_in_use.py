from __future__ import annotations

import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.storage.deaths import deaths
from tests.storage.house import ME, House, house, state_of

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.registry.collection import CollectionRequest, collect
from salver.storage.backup import make_backup
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.restore import restore_backup

__all__ = ["house"]


def test_backups_made_while_everybody_changes_things_are_each_of_one_moment(house: House, tmp_path: Path) -> None:
    ending = threading.Event()
    acknowledged: list[str] = []

    def change(number: int) -> None:
        for turn in itertools.count():
            if ending.is_set():
                return
            reference = house.register(f"model{number}", b"%d.%d" % (number, turn) * 500)
            house.deploy(reference)
            acknowledged.append(reference)

    def collect_all_the_time() -> int:
        gone = 0
        source = tmp_path / "stray"
        while not ending.is_set():
            source.write_bytes(os.urandom(64))  # what no version is made of
            open_blobs(house.home).put_file(source)
            gone += collect(house.home, house.database, ME, SYSTEM_CLOCK, CollectionRequest(grace_s=1.0)).blobs
        return gone

    def backups() -> list[set[str]]:
        promised = []
        for number in range(6):
            promised.append(set(acknowledged))
            make_backup(house.home, tmp_path / f"{number}.tar", SYSTEM_CLOCK)
        ending.set()
        return promised

    with ThreadPoolExecutor(5) as threads:
        changing = [threads.submit(change, number) for number in range(3)]
        changing.append(threads.submit(collect_all_the_time))
        promised = threads.submit(backups).result()
        for each in changing:
            each.result()
    assert len(acknowledged) > 6
    for number, references in enumerate(promised):
        restore_backup(tmp_path / f"{number}.tar", tmp_path / str(number))
        found = state_of(tmp_path / str(number))
        assert references <= {manifest.reference for manifest in found["versions"]}
        assert found["tables"] is None or found["tables"].revision <= found["revision"]
        deployed = {f"{spec.model}@{spec.version}" for spec in found["deployments"]}
        assert deployed <= {manifest.reference for manifest in found["versions"]}


BACKUP = """
from pathlib import Path
from salver.clock import SYSTEM_CLOCK
from salver.storage import remote_blobs
from salver.storage.backup import make_backup
from salver.storage.home import Home
def act(directory, home):
    make_backup(Home.open(home), Path(directory) / "all.tar", SYSTEM_CLOCK)
"""
RESTORE = """
from pathlib import Path
from salver.storage.restore import restore_backup
def act(directory, backup):
    restore_backup(Path(backup), Path(directory) / "new")
"""


def test_a_backup_killed_at_any_step_leaves_no_file_or_a_whole_one(house: House, tmp_path: Path) -> None:
    there = house.state()
    house.close()
    target = tmp_path / "backups"
    target.mkdir()
    with deaths(BACKUP) as die:
        for step in itertools.count(1, 4):
            died = die(step, target, house.home.path)
            if (target / "all.tar").exists():
                restore_backup(target / "all.tar", tmp_path / str(step))
                assert state_of(tmp_path / str(step)) == there
                (target / "all.tar").unlink()
            if not died:
                break
    assert step > 40
    assert list(target.iterdir()) == []  # the last one removed what the dead had left
    assert state_of(house.home.path) == there


def test_a_restore_killed_at_any_step_leaves_no_home_or_a_whole_one(house: House, tmp_path: Path) -> None:
    there = house.state()
    backup = tmp_path / "all.tar"
    make_backup(house.home, backup, SYSTEM_CLOCK)
    whole = 0
    with deaths(RESTORE) as die:
        for step in itertools.chain(range(1, 20, 3), itertools.count(21, 13)):
            target = tmp_path / str(step)
            target.mkdir()
            died = die(step, target, backup)
            new = target / "new"
            if Home.is_marked(new):
                whole += 1
                assert state_of(new) == there
            elif new.exists():
                if any(new.iterdir()):
                    with pytest.raises(SalverError, match="no Salver home"):
                        Home.open(new)
                restore_backup(backup, new)  # what a dead one left is no obstacle
                assert state_of(new) == there
            shutil.rmtree(target)
            if not died:
                break
    assert whole
    assert step > 60
