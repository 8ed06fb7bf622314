"""Fault drills under load, with a ledger: `make test-chaos`.

Each drill prints what it did and what clients saw. What may never happen in any of them: a
wrong answer, an answer for somebody else, a request without an outcome.
"""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.request

import psutil
import pytest

sys.path.insert(0, os.path.dirname(__file__))

from ledger import Ledger

import salver
from salver.cli import main

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

MODEL = """
import numpy as np
from salver import Model, TensorSpec

class Linear(Model):
    inputs = (TensorSpec("x", "FP64", (-1, 1)),)
    outputs = (TensorSpec("y", "FP64", (-1, 1)),)

    def predict(self, inputs):
        return {"y": inputs["x"] * FACTOR}
"""
FACTORS = {"1.0.0": 3.0, "2.0.0": 5.0}


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    for version, factor in FACTORS.items():
        path = tmp_path / version
        path.mkdir()
        (path / "model.py").write_text(MODEL.replace("FACTOR", str(factor)))
        assert main(["--home", str(home), "register", "linear", str(path), "--version", version]) == 0
    assert main(["--home", str(home), "deploy", "linear@1.0.0", "--replicas", "2"]) == 0
    return home


async def serves(server, timeout_s=20.0):
    """Wait until the server answers that it is ready."""

    def ask():
        with urllib.request.urlopen(f"{server.http}/v2/health/ready", timeout=5) as answer:
            return answer.status == 200

    async with asyncio.timeout(timeout_s):
        while True:
            try:
                if await asyncio.to_thread(ask):
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)


def children(pid, name):
    """The living children of a process that run the module `name`."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and name in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def drill(home, act, capsys, name):
    async def run():
        async with salver.Server(home=home) as server, Ledger(server.http, FACTORS) as ledger:
            await ledger.at_least(50)
            await act(server, ledger)
            await serves(server)
            await ledger.at_least(100)
        return ledger

    ledger = asyncio.run(run())
    with capsys.disabled():
        print(f"\n{name}: {ledger.sent} requests, {dict(ledger.outcomes)}, versions {dict(ledger.versions)}")
    assert ledger.wrong == []
    return ledger


def test_killed_workers_cost_no_request(home, capsys):
    async def act(server, ledger):
        for _ in range(25):
            (parent,) = children(server.pid, "processes.server")
            workers = children(parent, "runtime.worker")
            if len(workers) == 2:
                os.kill(workers[0], signal.SIGKILL)
            await ledger.at_least(20)

    ledger = drill(home, act, capsys, "25 workers killed, two replicas")

    assert set(ledger.outcomes) == {"right"}


def test_a_killed_controller_costs_no_request(home, capsys):
    async def act(server, ledger):
        for _ in range(5):
            for pid in children(server.pid, "processes.controller"):
                os.kill(pid, signal.SIGKILL)
            await ledger.at_least(100)

    ledger = drill(home, act, capsys, "5 controllers killed")

    assert set(ledger.outcomes) == {"right"}


def test_a_killed_server_process_costs_connections_and_never_an_answer(home, capsys):
    async def act(server, ledger):
        for _ in range(3):
            for pid in children(server.pid, "processes.server"):
                os.kill(pid, signal.SIGKILL)
            await serves(server)
            await ledger.at_least(100)

    ledger = drill(home, act, capsys, "3 server processes killed")

    assert set(ledger.outcomes) <= {"right", "ConnectionResetError", "IncompleteReadError", "503", "BrokenPipeError"}


def test_rolling_deploys_lose_no_request_and_each_answer_is_its_versions(home, capsys):
    async def act(server, ledger):
        for turn in range(10):
            version = ("2.0.0", "1.0.0")[turn % 2]
            words = ["--home", str(home), "deploy", f"linear@{version}", "--wait"]
            assert await asyncio.to_thread(main, words) == 0
            await ledger.at_least(50)

    ledger = drill(home, act, capsys, "10 rolling deploys")

    assert set(ledger.outcomes) == {"right"}
    assert set(ledger.versions) == {"1.0.0", "2.0.0"}
