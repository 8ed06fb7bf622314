from __future__ import annotations

import os
import signal

import psutil
import pytest

FORKS = """
import subprocess
from salver import Model, TensorSpec

class Forks(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1, 2)),)

    def load(self, directory):
        # One that stays, one that leaves the worker's group, and one that leaves the worker as well.
        subprocess.Popen(["sleep", "4001"])
        subprocess.Popen(["sleep", "4002"], start_new_session=True)
        subprocess.run("setsid sleep 4003 & exit", shell=True)

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.fixture
def forking(tree, tmp_path):
    """A running tree with a model that starts processes."""
    (tmp_path / "forks.py").write_text(FORKS)
    tree.salver("register", "forks", tmp_path / "forks.py")
    tree.salver("deploy", "forks")
    assert tree.start()["failed"] == []
    return tree


def sleepers(tree) -> dict[str, psutil.Process]:
    """What the model has started and still lives, by the seconds it sleeps."""
    found = {}
    for process in tree.processes():
        try:
            if process.name() == "sleep":
                found[process.cmdline()[1]] = process
        except psutil.Error:
            continue
    return found


def test_what_a_model_started_ends_with_a_server_process_that_is_killed(forking) -> None:
    before = sleepers(forking)
    assert set(before) >= {"4001", "4002"}
    server = forking.server_pid
    os.kill(server, signal.SIGKILL)
    forking.until(lambda: not any(process.is_running() for process in before.values()), "they end", 6)
    # Those of the next worker live.
    assert forking.predict("forks", [1, 2]) == [1, 2]
    now = sleepers(forking)
    assert set(now) >= {"4001", "4002"}
    assert forking.stop() == 0
    forking.until(forking.is_gone, "nothing is left", 2)


def test_what_a_model_detached_from_its_worker_is_ended(forking) -> None:
    forking.until(lambda: "4003" not in sleepers(forking), "it is ended", 8)
    assert set(sleepers(forking)) == {"4001", "4002"}


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM)])
def test_what_a_model_started_ends_with_the_server_that_is_told_to(forking, signals) -> None:
    assert sleepers(forking)
    for number in signals:
        forking.signal(number)
    assert forking.wait() in (0, 1)
    # At once: by the time the supervisor has ended.
    assert sleepers(forking) == {}
    forking.until(forking.is_gone, "nothing is left", 5)
