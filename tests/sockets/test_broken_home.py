from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def deployed(tree, models):
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    return tree


def test_a_damaged_database_stops_changes_and_not_predictions(deployed) -> None:
    database = deployed.home / "salver.db"
    kept = database.read_bytes()
    database.write_bytes(b"this is no database" * 1000)
    for name in ("salver.db-wal", "salver.db-shm"):
        (deployed.home / name).unlink(missing_ok=True)
    line = deployed.start()
    assert line["pids"]["controller"] is None or line["failed"] == []
    assert deployed.predict("double", [1, 2]) == [2, 4]
    assert deployed.get("/v2/health/ready").status == 200
    deaths = deployed.until(lambda: len(e := deployed.events("child_died")) >= 3 and e, "the controller dies again")
    assert {event["child"] for event in deaths} == {"controller"}
    assert [event["restart_in_s"] for event in deaths][:3] == [0.0, 0.5, 1.0]
    # It comes back by itself as soon as the database does.
    database.write_bytes(kept)
    deployed.until(lambda: deployed.endpoint("double"), "the controller answers")
    deployed.deploy("double", max_batch=9)
    deployed.wait_serving("double", "double@1.0.0")


def test_a_damaged_snapshot_is_published_again_before_serving_begins(deployed) -> None:
    (deployed.home / "tables.json").write_bytes(b'{"revision": 1')
    (deployed.home / "isolated.json").write_bytes(b"nonsense")
    line = deployed.start()
    assert line["failed"] == []
    assert deployed.predict("double", [1, 2]) == [2, 4]
    assert deployed.get("/v2/models").json["models"] == ["double"]


def test_a_locked_database_makes_changes_wait_and_nothing_else(deployed) -> None:
    deployed.start()
    other = sqlite3.connect(deployed.home / "salver.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        assert deployed.predict("double", [1, 2]) == [2, 4]
        assert deployed.get("/v2/health/ready").status == 200
    finally:
        other.execute("ROLLBACK")
        other.close()
    deployed.deploy("double", max_batch=3)


SMALL = """
mount -t tmpfs -o size=2m tmpfs "$0" && cp -a "$1/." "$0" && exec "$2" -m salver serve --http 0 --control 0
"""


def test_on_a_full_disk_predictions_go_on_and_changes_fail_typed_until_there_is_room(trees, models, tmp_path) -> None:
    tree = trees()
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    mount = tmp_path / "small"
    mount.mkdir()
    tree.environment["SALVER_HOME"] = str(mount)
    with tree.log_path.open("ab") as log:
        tree.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", SMALL, str(mount), str(tree.home), sys.executable],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=os.environ | tree.environment,
        )
    line = tree.process.stdout.readline()
    if not line and "permitted" in tree.log_path.read_text():
        # Without the right to mount there is no small file system to try this on.
        assert tree.wait() != 0
        return
    tree.ready = json.loads(line)
    assert tree.predict("double", [1, 2]) == [2, 4]
    # The mount is seen by the server's processes only.
    ballast = Path(f"/proc/{tree.process.pid}/root{mount}/ballast")
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    made = [tree.administer("POST", "/v1/tokens", {"name": f"t{n}", "role": "predictor"}) for n in range(20)]
    assert {answer.code for answer in made} <= {None, "STORAGE_FULL"}
    assert (made[-1].status, made[-1].code) == (507, "STORAGE_FULL")
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert tree.get("/v2/health/ready").status == 200
    ballast.unlink()
    assert tree.administer("POST", "/v1/tokens", {"name": "room", "role": "predictor"}).status == 200
    assert tree.administer("GET", "/v1/audit/verification").json["bad_seq"] is None
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    tree.until(tree.is_gone, "nothing is left", 5)


def test_a_home_may_be_moved_and_copied_with_everything_in_it(trees, deployed, tmp_path) -> None:
    shutil.copytree(deployed.home, tmp_path / "copy", symlinks=True)
    copy = trees(tmp_path / "copy")
    copy.start()
    assert copy.predict("double", [1, 2]) == [2, 4]
    deployed.start()
    assert deployed.predict("double", [1, 2]) == [2, 4]
    assert copy.stop() == 0
    copy.until(copy.is_gone, "nothing is left", 5)
