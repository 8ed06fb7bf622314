"""Several server processes behind the same ports."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from salver.protocol.proto import message


@pytest.fixture(scope="module")
def running(trees, models):
    """Two server processes that serve `n`, which multiplies by 2."""
    tree = trees()
    for factor in (2, 3):
        tree.salver("register", "n", models / f"times{factor}.onnx", "--version", f"{factor}.0.0")
    tree.salver("deploy", "n@2.0.0")
    tree.start("--processes", "2", "--grpc", "0")
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not (tree.home / "scratch").exists()


class Caller:
    """A client that asks on one connection without pause, and notes which process answered."""

    def __init__(self, tree: Any) -> None:
        self._place = urlsplit(tree.http)
        self._body = json.dumps(tree.rows([1, 2]))
        self._stop = threading.Event()
        self.answers: list[str] = []
        """Which process gave each answer; "" where the connection was lost."""
        self.fresh_failures = 0
        self._thread = threading.Thread(target=self._ask_on)
        self._thread.start()

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection(self._place.hostname, self._place.port, timeout=20)
        while not self._stop.is_set():
            fresh = connection.sock is None
            try:
                connection.request("POST", "/v2/models/n/infer", self._body)
                answer = connection.getresponse()
                document = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                self.answers.append("")
                self.fresh_failures += fresh
                continue
            assert document["outputs"][0]["data"] == [2, 4]
            self.answers.append(process_of(answer.getheader("x-request-id")))
        connection.close()

    def end(self) -> list[str]:
        self._stop.set()
        self._thread.join(30)
        return self.answers


def process_of(request_id: str) -> str:
    return request_id.partition("-")[0]


def servers(tree: Any) -> list[int]:
    """The process ids of the server processes that answer."""
    return [row["pid"] for row in tree.salver("status")["processes"] if row["state"] == "serving"]


def answered(tree: Any) -> float:
    text = tree.get("/metrics").body.decode()
    return sum(map(float, re.findall(r"^salver_requests_total{.*} (\S+)$", text, re.MULTILINE)))


@contextlib.contextmanager
def calling(tree: Any, clients: int) -> Any:
    callers = [Caller(tree) for _ in range(clients)]
    try:
        tree.until(lambda: all(len(each.answers) > 2 for each in callers), "all are answered")
        yield callers
    finally:
        for each in callers:
            each.end()


def test_of_a_killed_process_only_what_was_on_it_fails_and_its_counts_stay(running) -> None:
    before, pids = answered(running), servers(running)
    assert sorted(pids) == sorted(running.ready["pids"]["servers"])
    assert len(pids) == 2
    with calling(running, 16) as callers:
        assert len({each.answers[-1] for each in callers}) == 2, "the kernel gave connections to both processes"
        os.kill(pids[0], signal.SIGKILL)
        running.until(lambda: len(set(servers(running)) - {pids[0]}) == 2, "there are two again")
    after = {each.answers[-1] for each in callers}
    everything = {process for each in callers for process in each.answers if process}
    (dead,) = {each.answers[each.answers.index("") - 1] for each in callers if "" in each.answers}
    assert dead not in after, "only the killed process has lost connections"
    for each in callers:
        was_on_it = dead in each.answers
        assert each.answers.count("") == was_on_it, "one failure on each of its connections, and no other"
        assert each.fresh_failures == 0, "nobody who connects is turned away"
    assert len(everything) >= 2
    # What was counted before its last look, a quarter second at most, is still there.
    lost = before + sum(len([process for process in each.answers if process]) for each in callers) - answered(running)
    of_the_dead = sum(each.answers.count(dead) for each in callers)
    assert 0 <= lost <= of_the_dead


SLOW = """
import time
import salver

class Slow(salver.Model):
    inputs = outputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)

    def load(self, directory):
        time.sleep(3)

    def predict(self, inputs):
        return inputs
"""


def test_nobody_who_connects_waits_for_a_successor_that_takes_long_to_load(running, tmp_path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    running.salver("register", "slow", tmp_path / "slow.py")
    running.salver("deploy", "slow", "--wait")
    pid = servers(running)[0]
    os.kill(pid, signal.SIGKILL)
    asked = 0
    while len(set(servers(running)) - {pid}) < 2 or asked < 32:
        for _ in range(8):
            # On a new connection each; half of them are dealt to the dead process's socket.
            assert running.predict("n", [1, 2], timeout_s=2) == [2, 4]
            asked += 1
    running.salver("undeploy", "slow")
    running.until(lambda: len(running.salver("status")["endpoints"]) == 1, "it is gone")


def test_every_scrape_is_of_all_processes_and_nothing_is_counted_twice_when_one_is_replaced(running) -> None:
    before = answered(running)
    for _ in range(20):
        running.predict("n", [1, 2])
    assert {answered(running) for _ in range(6)} == {before + 20}
    pid = servers(running)[1]
    os.kill(pid, signal.SIGKILL)  # it was asked for its counts, so they are written down
    assert answered(running) == before + 20
    running.until(lambda: len(set(servers(running)) - {pid}) == 2, "it is replaced")
    assert {answered(running) for _ in range(6)} == {before + 20}


def test_a_deployment_is_awaited_in_all_processes(running) -> None:
    for turn in range(6):
        factor = 3 - turn % 2
        running.salver("deploy", f"n@{factor}.0.0", "--wait")
        assert {running.predict("n", [1, 2])[0] for _ in range(12)} == {factor}
    rows = running.salver("status")["processes"]
    assert [[row["serving"] for row in process["endpoints"]] for process in rows] == [["n@2.0.0"]] * 2


@pytest.mark.parametrize("whom", ["one", "all"])
def test_a_process_that_is_told_to_leave_loses_no_request(running, whom) -> None:
    pids = servers(running)
    with calling(running, 8) as callers:
        if whom == "one":
            os.kill(pids[0], signal.SIGTERM)
            gone = set(pids[:1])
        else:
            running.signal(signal.SIGUSR2)
            gone = set(pids)
        running.until(lambda: len(now := set(servers(running))) == 2 and not now & gone, "successors serve")
    assert [each.answers.count("") for each in callers] == [0] * 8
    assert gone <= {event["pid"] for event in running.events("child_ended")}


def test_people_see_each_process(running) -> None:
    text = running.command("status").stdout.decode()
    for slot in (0, 1):
        assert re.search(
            rf"^server process {slot}: serving, pid \d+, \d+ connections, 1 of 1 endpoints settled$", text, re.MULTILINE
        )
    assert " 2/2 " in text


def test_both_listeners_are_those_of_both_processes(running) -> None:
    seen = set()
    for _ in range(40):
        with grpc.insecure_channel(running.ready["grpc"], options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            _, call = live.with_call(message("inference.ServerLiveRequest")().SerializeToString(), timeout=10)
            seen |= {process_of(str(value)) for name, value in call.initial_metadata() if name == "x-request-id"}
        if len(seen) == 2:
            break
    assert len(seen) == 2
