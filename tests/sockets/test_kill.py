from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec
import psutil
import pytest

from salver.processes.order import Order


def test_serving_goes_on_without_the_controller_which_is_replaced_at_once(trees, models, load) -> None:
    tree = trees()
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start()
    clients = load(tree, "double", clients=1)
    before = tree.controller_pid
    os.kill(before, signal.SIGKILL)
    # The command waits for the next controller in the queue of the socket.
    assert tree.salver("status")["endpoints"][0]["state"] == "ready"
    (death,) = tree.events("child_died")
    assert (death["child"], death["pid"], death["restart_in_s"]) == ("controller", before, 0.0)
    assert tree.controller_pid != before
    assert [outcome for outcome in clients.end() if outcome.problem] == []

    # A server process that dies is replaced behind the same port, and what is registered is served.
    before = tree.server_pid
    os.kill(before, signal.SIGKILL)
    assert tree.predict("double", [1, 2], timeout_s=10) == [2, 4]
    assert tree.server_pid != before

    # The supervisor takes all with it; the next start is clean.
    tree.salver("register", "triple", models / "times3.py")
    tree.salver("deploy", "triple", "--wait")
    assert len(tree.processes()) == 4
    tree.process.kill()
    tree.until(tree.is_gone, "all processes are gone", 5)
    tree.wait()
    assert (tree.home / "run").exists()
    line = tree.start()
    assert line["failed"] == []
    assert tree.predict("triple", [1, 2]) == [3, 6]
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert [row["name"] for row in tree.salver("models")] == ["double", "triple"]
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not (tree.home / "run").exists()


def test_a_worker_that_is_killed_is_replaced_and_its_requests_are_answered(tree, models, load) -> None:
    tree.salver("register", "triple", models / "times3.py")
    tree.salver("deploy", "triple", "--replicas", "2")
    tree.start()
    clients = load(tree, "triple", clients=3)
    workers = set(tree.endpoint("triple")["workers"])
    assert len(workers) == 2
    os.kill(min(workers), signal.SIGKILL)
    tree.until(
        lambda: len(now := set(tree.endpoint("triple")["workers"])) == 2 and min(workers) not in now, "two workers"
    )
    ledger = clients.end()
    assert [outcome for outcome in ledger if outcome.problem] == []
    assert all(outcome.answer == 3 * outcome.value for outcome in ledger)


def test_sockets_of_a_killed_supervisor_outside_the_home_are_removed_by_the_next(trees, tmp_path) -> None:
    tree = trees(tmp_path / ("long" * 25))
    tree.start()
    tree.process.kill()
    tree.wait()
    tree.until(tree.is_gone, "all processes are gone", 5)
    assert len(tree.left_behind()) == 1
    tree.start()
    assert len(tree.left_behind()) == 1
    assert tree.stop() == 0
    assert tree.left_behind() == []
    tree.until(tree.is_gone, "nothing is left", 5)


REGISTER = """
import sys
from pathlib import Path
from salver.cli import main
for turn in range(1000):
    for arguments in (["register", "m", sys.argv[2], "--version", f"1.0.{turn}"], ["deploy", f"m@1.0.{turn}"]):
        if main(["--home", sys.argv[1], *arguments]) != 0:
            sys.exit("refused")
        sys.stdout.flush()
"""


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_nothing_acknowledged_is_lost_when_a_command_is_killed(trees, models, lines) -> None:
    tree = trees()
    child = subprocess.Popen(
        [sys.executable, "-c", REGISTER, str(tree.home), str(models / "times2.onnx")],
        stdout=subprocess.PIPE,
        env=os.environ | tree.environment,
    )
    said = [child.stdout.readline().decode() for _ in range(lines)]
    child.kill()
    said += child.stdout.read().decode().splitlines()
    child.wait()
    child.stdout.close()
    registered = {line.split()[0].strip() for line in said if line.startswith("m@")}
    deployed = [line.split()[-1].strip() for line in said if "->" in line]
    kept = {f"m@{row['version']}" for row in tree.salver("models", "m")["versions"]}
    assert registered <= kept
    status = tree.salver("status")["deployments"]
    wanted = [f"m@{row['version']}" for row in status]
    assert (wanted or [""])[0] >= (deployed or [""])[-1]
    tree.salver("audit", "head")
    assert tree.salver("audit", "verify")["ok"]
    assert not [row for row in tree.salver("doctor") if row["state"] == "error"]


def test_children_of_an_order_whose_supervisor_is_not_their_parent_end_at_once(trees, tmp_path) -> None:
    from salver.config import Settings

    order = Order(
        str(tmp_path), str(tmp_path), Settings(), (-1,), (), -1, -1, -1, supervisor_pid=psutil.Process().ppid()
    )
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    for role in ("server", "controller"):
        command = [sys.executable, "-m", f"salver.processes.{role}", str(tmp_path / "order.json")]
        assert subprocess.run(command, check=False, timeout=30).returncode == 1
